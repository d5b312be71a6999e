-- SPDX-License-Identifier: MIT
-- What is kept of the rows of an inference log, for each variant: counts and distributions, never the rows.

local distribution = require "sluice.statistics.distribution"

local tally = {}

---What is known of one variant.
---@class sluice.report.Tally
---@field requests integer
---@field successes integer answers of status 2xx
---@field latency sluice.statistics.Distribution milliseconds of successful answers
---@field ttft sluice.statistics.Distribution milliseconds to the first token
---@field input_tokens sluice.report.Sum
---@field output_tokens sluice.report.Sum
---@field cached integer answers that a cache gave; they count nowhere else
---@field unusable integer times that are none: negative, or more than a day

---@class sluice.report.Sum
---@field count integer
---@field sum number
---@field squares number

---A variant without rows.
---@return sluice.report.Tally
function tally.new()
  return {
    requests = 0, successes = 0, cached = 0, unusable = 0,
    latency = distribution.new(), ttft = distribution.new(),
    input_tokens = { count = 0, sum = 0, squares = 0 }, output_tokens = { count = 0, sum = 0, squares = 0 },
  }
end

-- A clock that was set while a request ran makes times that no request takes.
local LONGEST <const> = 24 * 60 * 60 * 1000

---Adds times to a distribution, as whole milliseconds; what is no time is counted as such.
---@param into sluice.report.Tally
---@param kind "latency"|"ttft"
---@param milliseconds any
---@param times integer
function tally.add_time(into, kind, milliseconds, times)
  if type(milliseconds) ~= "number" then return end
  if milliseconds >= 0 and milliseconds <= LONGEST then
    into[kind]:add(milliseconds // 1 | 0, times)
  else
    into.unusable = into.unusable + times
  end
end

---Adds a number of tokens.
---@param sum sluice.report.Sum
---@param tokens any
function tally.add_tokens(sum, tokens)
  if type(tokens) ~= "number" then return end
  sum.count, sum.sum, sum.squares = sum.count + 1, sum.sum + tokens, sum.squares + tokens * tokens
end

---Mean and variance of tokens.
---@param sum sluice.report.Sum
---@return sluice.statistics.Moments
function tally.moments(sum)
  if sum.count == 0 then return { count = 0 } end
  local mean = sum.sum / sum.count
  local squares = math.max(0, sum.squares - sum.sum * mean)
  return { count = sum.count, mean = mean, variance = sum.count > 1 and squares / (sum.count - 1) or nil }
end

return tally
