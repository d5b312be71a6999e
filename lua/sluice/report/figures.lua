-- SPDX-License-Identifier: MIT
-- The figures of a variant, and how those of two differ, from what was tallied. Seconds.

local sequential = require "sluice.statistics.sequential"
local statistics = require "sluice.statistics"
local tally = require "sluice.report.tally"

local figures = {}

---An estimate and the interval it is in; an end is nil where the data do not bound it.
---@class sluice.report.Estimate
---@field value number
---@field low number?
---@field high number?

---Times in seconds; nil where there were none.
---@class sluice.report.Times
---@field count integer
---@field mean sluice.report.Estimate
---@field p50 sluice.report.Estimate
---@field p95 sluice.report.Estimate
---@field p99 sluice.report.Estimate
---@field percentiles number[] 101 of them, from the least to the most

---What is known of one variant.
---@class sluice.report.Variant
---@field variant string
---@field requests integer without those that a cache answered
---@field successes integer
---@field success sluice.report.Estimate the share of successes
---@field latency sluice.report.Times? of successful answers
---@field ttft sluice.report.Times? to the first content of a stream
---@field input_tokens sluice.report.Estimate? of a request
---@field output_tokens sluice.report.Estimate? of an answer
---@field cached integer answers from a cache
---@field unusable integer times below 0 or above a day

local SECOND <const> = 1000 -- in milliseconds

---The quantiles that are reported.
---@type table<string, number>
figures.QUANTILES = { p50 = 0.5, p95 = 0.95, p99 = 0.99 }

local function estimate(value, low, high, unit)
  unit = unit or 1
  return { value = value / unit, low = low and low / unit, high = high and high / unit }
end

local function times_of(times, level)
  if times.count == 0 then return nil end
  local moments = times:moments()
  local made = {
    count = times.count,
    mean = estimate(moments.mean, nil, nil, SECOND),
    percentiles = {},
  }
  local low, high = statistics.mean(moments, level)
  made.mean.low, made.mean.high = low and math.max(0, low / SECOND), high and high / SECOND
  for name, p in pairs(figures.QUANTILES) do
    low, high = times:quantile_interval(p, level)
    made[name] = estimate(times:quantile(p), low, high, SECOND)
  end
  for percent = 0, 100 do made.percentiles[percent + 1] = times:quantile(percent / 100) / SECOND end
  return made
end

local function tokens_of(sum, level)
  local moments = tally.moments(sum)
  if moments.count == 0 then return nil end
  return estimate(moments.mean, statistics.mean(moments, level))
end

---The figures of a variant.
---@param name string
---@param its sluice.report.Tally
---@param level number
---@return sluice.report.Variant
function figures.of(name, its, level)
  local low, high = statistics.wilson(its.successes, its.requests, level)
  return {
    variant = name, requests = its.requests, successes = its.successes,
    success = { value = its.requests > 0 and its.successes / its.requests or nil, low = low, high = high },
    latency = times_of(its.latency, level), ttft = times_of(its.ttft, level),
    input_tokens = tokens_of(its.input_tokens, level), output_tokens = tokens_of(its.output_tokens, level),
    cached = its.cached, unusable = its.unusable,
  }
end

-- ---- two variants ----

---How two variants differ, the variant less the control. `always_low` and `always_high` hold the difference at every
---look with the report's level, shared among all that is tested; `p` is the always-valid p-value.
---@class sluice.report.Difference: sluice.report.Estimate
---@field always_low number?
---@field always_high number?
---@field p number?

-- Two quantiles of different variants are independent, as two rates are.
local function quantile_difference(control, its)
  if not (control.low and control.high and its.low and its.high) then
    return { value = its.value - control.value }
  end
  return estimate(its.value - control.value, statistics.difference(
    control.value, control.low, control.high, its.value, its.low, its.high))
end

-- Whole milliseconds: less than half of one counts as that much, for logarithms.
local function logarithm(milliseconds)
  return math.log(math.max(milliseconds, 0.5))
end

-- How many times the control's a typical time is: the ratio of geometric means, which a few slow answers do not decide.
local function typical_ratio(control, its, alpha)
  local first, second = control:moments(logarithm), its:moments(logarithm)
  local low, high = sequential.mean_difference(first, second, 1 - alpha)
  return {
    value = math.exp(second.mean - first.mean),
    always_low = low and math.exp(low), always_high = high and math.exp(high),
    p = sequential.p_value(sequential.means(first, second)),
  }
end

local function times_difference(kind, control, its, level, alpha)
  local first, second = control.figures[kind], its.figures[kind]
  if not (first and second) then return nil end
  local before, after = control.tally[kind], its.tally[kind]
  local low, high = statistics.welch(before:moments(), after:moments(), level)
  local made = {
    mean = estimate(second.mean.value - first.mean.value),
    typical = typical_ratio(before, after, alpha),
  }
  made.mean.low, made.mean.high = low and low / SECOND, high and high / SECOND
  for name in pairs(figures.QUANTILES) do made[name] = quantile_difference(first[name], second[name]) end
  return made
end

local function tokens_difference(control, its, level)
  local first, second = tally.moments(control), tally.moments(its)
  if first.count == 0 or second.count == 0 then return nil end
  return estimate(second.mean - first.mean, statistics.welch(first, second, level))
end

local function success_difference(control, its, level, alpha)
  local s1, n1, s2, n2 = control.successes, control.requests, its.successes, its.requests
  local made = estimate(s2 / n2 - s1 / n1, statistics.newcombe(s1, n1, s2, n2, level))
  made.always_low, made.always_high = sequential.rate_difference(s1, n1, s2, n2, 1 - alpha)
  made.p = sequential.p_value(sequential.rates(s1, n1, s2, n2))
  return made
end

---How a variant differs from the control; empty where one of them has no requests.
---@param control { figures: sluice.report.Variant, tally: sluice.report.Tally }
---@param its { figures: sluice.report.Variant, tally: sluice.report.Tally }
---@param level number of the intervals for one look
---@param alpha number what each always-valid interval may miss
---@return { success: sluice.report.Difference?, latency: table?, ttft: table?, input_tokens: sluice.report.Estimate?, output_tokens: sluice.report.Estimate? }
function figures.difference(control, its, level, alpha)
  if control.tally.requests == 0 or its.tally.requests == 0 then return {} end
  return {
    success = success_difference(control.tally, its.tally, level, alpha),
    latency = times_difference("latency", control, its, level, alpha),
    ttft = times_difference("ttft", control, its, level, alpha),
    input_tokens = tokens_difference(control.tally.input_tokens, its.tally.input_tokens, level),
    output_tokens = tokens_difference(control.tally.output_tokens, its.tally.output_tokens, level),
  }
end

return figures
