-- SPDX-License-Identifier: MIT
-- What a rollout asks of a report before it goes on: "pass", "hold" or "fail", and why.

local measures = require "sluice.report.measures"
local options = require "sluice.options"
local sequential = require "sluice.statistics.sequential"

local gate = {}

---What a version must keep to. Each limit is looked at again and again, and only what surely is above it fails.
---@class sluice.RolloutGate
---@field error_rate? number the most failures of all requests: 0.02
---@field latency_p50? number seconds, and so are the others
---@field latency_p95? number
---@field latency_p99? number
---@field ttft_p50? number
---@field ttft_p95? number
---@field ttft_p99? number
---@field compare? boolean whether a candidate that is worse than the control fails, true
---@field minimum? integer requests of the candidate (and of the control, to compare with) below which it waits, 100
local GATE <const> = {
  error_rate = "positive?",
  latency_p50 = "positive?", latency_p95 = "positive?", latency_p99 = "positive?",
  ttft_p50 = "positive?", ttft_p95 = "positive?", ttft_p99 = "positive?",
  compare = "boolean?", minimum = "count?",
}

local MINIMUM <const> = 100

-- Of all limits together: how often a version that keeps to them may fail.
local ALPHA <const> = 0.05

local SHARES <const> = { p50 = 0.5, p95 = 0.05, p99 = 0.01 }

-- A limit as one of a rate: of failures, or of answers that are slower.
local function read_limit(name, limit)
  local kind, quantile = name:match "^(%a+)_(p%d+)$"
  if name == "error_rate" then
    return {
      share = limit, what = "failed", text = ("error rate, at most %s"):format(measures.percent(limit)),
      count = function(report, candidate)
        local its = report.variants[candidate]
        return its.requests - its.successes, its.requests
      end,
    }
  end
  return {
    share = SHARES[quantile], what = "took longer",
    text = ("%s %s, at most %s"):format(kind == "ttft" and "TTFT" or kind, quantile, measures.seconds(limit)),
    count = function(report, candidate)
      return report:slower(report.variants[candidate].variant, kind, limit)
    end,
  }
end

---Reads the option `gate`. Raises where it is none.
---@param given any a table, or a function that decides itself
---@return { decide: function?, limits: table[], compare: boolean, minimum: integer }
function gate.read(given)
  if type(given) == "function" then
    return { decide = given, limits = {}, compare = false, minimum = MINIMUM }
  end
  given = options.check("rollout.run: gate", given, GATE)
  if given.error_rate and given.error_rate >= 1 then
    options.misuse("rollout.run: gate: error_rate is a share below 1, got %g", given.error_rate)
  end
  local names = {}
  for name in pairs(GATE) do
    if name ~= "compare" and name ~= "minimum" and given[name] then names[#names + 1] = name end
  end
  table.sort(names)
  local limits = {}
  for index, name in ipairs(names) do limits[index] = read_limit(name, given[name]) end
  return { limits = limits, compare = given.compare ~= false, minimum = given.minimum or MINIMUM }
end

local function judge_limit(limit, report, candidate, level)
  local count, total = limit.count(report, candidate)
  if total == 0 then return "hold", limit.text .. ": nothing is known of it" end
  local low = sequential.rate(count, total, level)
  local counts = ("%s of %s"):format(measures.count(count), measures.count(total))
  local text = ("%s: %s %s"):format(limit.text, counts, limit.what)
  if low > limit.share then return "fail", text end
  return count / total > limit.share and "hold" or "pass", text
end

-- What the comparison says. What looks worse, and is not yet surely so, is waited for.
local function judge_comparison(report)
  local comparison = report.comparisons[1]
  if comparison.verdict == "worse" then return "fail", comparison.reason end
  local ratio, success, latency = report.sample_ratio, comparison.success, comparison.latency
  if ratio and ratio.alarm then return "hold", comparison.reason end
  if not success then return "hold", comparison.reason end
  if success.high < 0 then return "hold", "the success rate looks lower, which is not certain yet" end
  if latency and latency.mean.low and latency.mean.low > 0 and latency.typical.value > 1 + 0.1 then
    return "hold", "the latency looks higher, which is not certain yet"
  end
  if comparison.verdict == "inconclusive" then return "pass", "nothing shows that it is worse" end
  return "pass", comparison.reason
end

local ORDER <const> = { "fail", "hold" }

-- The gravest of what was found, with all reasons for it.
local function gravest(found)
  for _, outcome in ipairs(ORDER) do
    local reasons = {}
    for _, each in ipairs(found) do
      if each[1] == outcome then reasons[#reasons + 1] = each[2] end
    end
    if #reasons > 0 then return outcome, table.concat(reasons, "; ") end
  end
  return "pass", found[1] and found[1][2] or "enough requests, and no limit is set"
end

-- Where the candidate stands among the variants, and how many requests each has.
local function places(report, step)
  for index, each in ipairs(report.variants) do
    if each.variant == step.candidate then return index, each.requests, report.variants[1].requests end
  end
  return nil, 0, 0
end

local function decide_by_rules(rules, report, step)
  local candidate, its, control = places(report, step)
  if its < rules.minimum then
    return "hold", ("the candidate has %d of %d requests"):format(its, rules.minimum)
  end
  local found = {}
  for index, limit in ipairs(rules.limits) do
    found[index] = { judge_limit(limit, report, candidate, 1 - ALPHA / #rules.limits) }
  end
  local is_compared = rules.compare and step.percent < 100
  if is_compared and control >= rules.minimum then
    table.insert(found, 1, { judge_comparison(report) })
  elseif is_compared then
    found[#found + 1] = { "hold", ("the control has %d of %d requests"):format(control, rules.minimum) }
  end
  return gravest(found)
end

local OUTCOMES <const> = { pass = true, hold = true, fail = true }

---What the gate says of a report.
---@param rules table see gate.read
---@param report sluice.Report
---@param step { candidate: string, percent: integer, elapsed: number }
---@return "pass"|"hold"|"fail" outcome
---@return string reason
function gate.decide(rules, report, step)
  if not rules.decide then return decide_by_rules(rules, report, step) end
  local outcome, reason = rules.decide(report, step)
  if not OUTCOMES[outcome] then
    options.misuse('rollout.run: the gate must return "pass", "hold" or "fail", got %s', tostring(outcome))
  end
  return outcome, reason and tostring(reason) or "the gate says so"
end

return gate
