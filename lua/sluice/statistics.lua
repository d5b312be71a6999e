-- SPDX-License-Identifier: MIT
-- Intervals for rates, means and quantiles, and for how much two of them differ: for one look at data that are whole.
-- Where one looks again and again while data come, see sluice.statistics.sequential.

local functions = require "sluice.statistics.functions"
local options = require "sluice.options"

local sqrt <const> = math.sqrt

local statistics = {}

---What is usual; the intervals of this file hold what they are for in this share of all cases.
statistics.LEVEL = 0.95

local function check_level(where, level)
  if level == nil then return statistics.LEVEL end
  if type(level) == "number" and level > 0 and level < 1 then return level end
  options.misuse('%s: argument "level" must be a number between 0 and 1, got %s', where, tostring(level))
end

local function check_counts(where, successes, total)
  local are_numbers = type(successes) == "number" and type(total) == "number"
  if are_numbers and successes >= 0 and successes <= total then return end
  options.misuse("%s: %s successes of %s are none", where, tostring(successes), tostring(total))
end

-- Both levels are asked for again and again.
local quantiles = {}

local function z_of(level)
  local z = quantiles[level]
  if not z then
    z = functions.normal_quantile((1 + level) / 2)
    quantiles[level] = z
  end
  return z
end

---Wilson's score interval for a rate (E. B. Wilson, JASA 22, 1927): good for small counts and for rates near 0 or 1.
---@param successes integer
---@param total integer of none at all the rate may be anything: 0, 1
---@param level? number 0.95
---@return number low
---@return number high
function statistics.wilson(successes, total, level)
  check_counts("statistics.wilson", successes, total)
  local z = z_of(check_level("statistics.wilson", level))
  if total == 0 then return 0.0, 1.0 end
  local rate, square = successes / total, z * z
  local middle = (rate + square / (2 * total)) / (1 + square / total)
  local half = z * sqrt(rate * (1 - rate) / total + square / (4 * total * total)) / (1 + square / total)
  -- at the ends rounding would leave a trace
  local low = successes == 0 and 0.0 or middle - half
  return low, successes == total and 1.0 or middle + half
end

---How far `a + b` may be from its estimate where two independent parts have intervals: the method of variance
---estimates recovery (Zou and Donner, Statistics in Medicine 27, 2008). Of a difference `to - from`.
---@param from number the estimate that is taken off
---@param from_low number
---@param from_high number
---@param to number
---@param to_low number
---@param to_high number
---@return number low
---@return number high
function statistics.difference(from, from_low, from_high, to, to_low, to_high)
  local estimate = to - from
  return estimate - sqrt((to - to_low) ^ 2 + (from_high - from) ^ 2),
    estimate + sqrt((to_high - to) ^ 2 + (from - from_low) ^ 2)
end

---Newcombe's interval for the difference of two rates, second less first, from their Wilson intervals (R. G. Newcombe,
---Statistics in Medicine 17, 1998, method 10).
---@param successes1 integer
---@param total1 integer
---@param successes2 integer
---@param total2 integer
---@param level? number 0.95
---@return number low
---@return number high
function statistics.newcombe(successes1, total1, successes2, total2, level)
  level = check_level("statistics.newcombe", level)
  local low1, high1 = statistics.wilson(successes1, total1, level)
  local low2, high2 = statistics.wilson(successes2, total2, level)
  if total1 == 0 or total2 == 0 then return low2 - high1, high2 - low1 end
  return statistics.difference(successes1 / total1, low1, high1, successes2 / total2, low2, high2)
end

---What is known of a set of numbers.
---@class sluice.statistics.Moments
---@field count integer
---@field mean number?
---@field variance number? of the sample (divided by count - 1); nil below two numbers

---Student's interval for a mean.
---@param of sluice.statistics.Moments
---@param level? number 0.95
---@return number? low nil below two numbers
---@return number? high
function statistics.mean(of, level)
  options.argument("statistics.mean", "of", of, "table")
  level = check_level("statistics.mean", level)
  if of.count < 2 then return nil end
  local half = functions.t_quantile((1 + level) / 2, of.count - 1) * sqrt(of.variance / of.count)
  return of.mean - half, of.mean + half
end

---Welch's interval for the difference of two means, second less first, whatever their variances (B. L. Welch,
---Biometrika 34, 1947).
---@param first sluice.statistics.Moments
---@param second sluice.statistics.Moments
---@param level? number 0.95
---@return number? low nil where one has fewer than two numbers
---@return number? high
function statistics.welch(first, second, level)
  options.argument("statistics.welch", "first", first, "table")
  options.argument("statistics.welch", "second", second, "table")
  level = check_level("statistics.welch", level)
  if first.count < 2 or second.count < 2 then return nil end
  local estimate = second.mean - first.mean
  local part1, part2 = first.variance / first.count, second.variance / second.count
  local sum = part1 + part2
  if sum == 0 then return estimate, estimate end
  local freedom = sum * sum / (part1 * part1 / (first.count - 1) + part2 * part2 / (second.count - 1))
  local half = functions.t_quantile((1 + level) / 2, freedom) * sqrt(sum)
  return estimate - half, estimate + half
end

-- The least k of 0 to n for which the probability of at most k successes is above `tail`.
local function binomial_quantile(n, p, tail)
  local low, high = 0, n
  while low < high do
    local middle = (low + high) // 2
    if functions.binomial_cdf(middle, n, p) > tail then high = middle else low = middle + 1 end
  end
  return low
end

---Between which of the numbers, in order, a quantile of what they were drawn from lies: exact, whatever the
---distribution (Conover, Practical Nonparametric Statistics, 3.2).
---@param count integer how many numbers there are
---@param p number the quantile: 0.95
---@param level? number 0.95
---@return integer? low from 1; nil where so few numbers do not bound it
---@return integer? high
function statistics.quantile_ranks(count, p, level)
  options.argument("statistics.quantile_ranks", "count", count, "integer")
  level = check_level("statistics.quantile_ranks", level)
  if count < 1 then return nil, nil end
  local tail = (1 - level) / 2
  -- how many of the numbers are below the quantile is binomial: fewer than `low` or `high` and more with `tail` each
  local low, high = binomial_quantile(count, p, tail), binomial_quantile(count, p, 1 - tail) + 1
  return low >= 1 and low or nil, high <= count and high or nil
end

return statistics
