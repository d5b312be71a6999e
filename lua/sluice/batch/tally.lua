-- SPDX-License-Identifier: MIT
-- What a batch counts: rows, errors by kind, retries, tokens, times.

local histogram = require "sluice.batch.histogram"
local usage = require "sluice.limit.usage"

local tally = {}

local math_type = math.type

---@class sluice.batch.Tally
---@field ok integer rows with an answer
---@field failed integer rows with an error
---@field errors table<string, integer> by kind
---@field retries integer tries beyond the first of each row
---@field tokens integer in all
---@field output_tokens integer of them written by the model
local methods = {}
local metatable = { __name = "sluice.batch.tally", __index = methods }

---Counts from nothing, or from what was saved.
---@param saved? table what save() gave
---@return sluice.batch.Tally
function tally.new(saved)
  saved = saved or {}
  return setmetatable({
    ok = saved.ok or 0, failed = saved.failed or 0, errors = saved.errors or {}, retries = saved.retries or 0,
    tokens = saved.tokens or 0, output_tokens = saved.output_tokens or 0,
    latency = histogram.new(saved.latency), ttft = histogram.new(saved.ttft),
  }, metatable)
end

-- The form that nearly all answers have is read at once.
local function add_tokens(self, response)
  local told = type(response) == "table" and response.usage
  if type(told) ~= "table" then return end
  local total, output = told.total_tokens, told.completion_tokens
  if math_type(total) ~= "integer" or math_type(output) ~= "integer" then
    total, output = usage.of(response)
  end
  if total then self.tokens = self.tokens + total end
  if output then self.output_tokens = self.output_tokens + output end
end

---Counts a row with an answer.
---@param response table
---@param seconds number
---@param ttft? number seconds, of a stream
function methods:succeed(response, seconds, ttft)
  self.ok = self.ok + 1
  self.latency:add(seconds)
  if ttft then self.ttft:add(ttft) end
  add_tokens(self, response)
end

---Counts a row with an error.
---@param kind string
function methods:fail(kind)
  self.failed = self.failed + 1
  self.errors[kind] = (self.errors[kind] or 0) + 1
end

---Counts a row of an earlier run by its line; how long it took nobody knows any more.
---@param parsed table
function methods:recount(parsed)
  if parsed.error then
    self:fail(tostring(parsed.error.kind))
  else
    self.ok = self.ok + 1
    add_tokens(self, parsed.response)
  end
end

---What new() takes, for JSON.
---@return table
function methods:save()
  return {
    ok = self.ok, failed = self.failed, errors = self.errors, retries = self.retries, tokens = self.tokens,
    output_tokens = self.output_tokens, latency = self.latency:save(), ttft = self.ttft:save(),
  }
end

return tally
