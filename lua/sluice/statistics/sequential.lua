-- SPDX-License-Identifier: MIT
-- Tests and intervals that stay valid however often one looks, and whenever one stops.
--
-- Evidence is an e-value: under the hypothesis that nothing differs its chance of ever reaching 1/a is at most a
-- (Ville's inequality), so one may look after each request and stop when one likes. All of it is given as logarithms.

local functions = require "sluice.statistics.functions"
local options = require "sluice.options"
local statistics = require "sluice.statistics"

local log <const>, sqrt <const> = math.log, math.sqrt

local sequential = {}

---The p-value of evidence, valid whenever one looks.
---@param evidence number its logarithm
---@return number
function sequential.p_value(evidence)
  return math.min(1, math.exp(-evidence))
end

-- ---- rates ----

local LOG_BETA_HALVES <const> = log(math.pi) -- of B(1/2, 1/2)

-- The probability of a row of successes and failures when the rate is drawn from Jeffreys' Beta(1/2, 1/2).
local function log_mixture(successes, total)
  return functions.log_beta(successes + 0.5, total - successes + 0.5) - LOG_BETA_HALVES
end

-- n * log(p), and 0 for none of what is impossible.
local function n_log(n, p)
  if n == 0 then return 0.0 end
  return n * log(p)
end

local function log_likelihood(successes, total, rate)
  return n_log(successes, rate) + n_log(total - successes, 1 - rate)
end

-- The end of the differences that `is_inside`, between one inside and one that need not be.
local function edge(inside, outside, is_inside)
  if is_inside(outside) then return outside end
  for _ = 1, 40 do
    local middle = (inside + outside) / 2
    if is_inside(middle) then inside = middle else outside = middle end
  end
  return outside
end

---An interval for a rate that holds it at every look with this probability: the rates against which there is no
---evidence (Robbins, "Statistical methods related to the law of the iterated logarithm", 1970), exact.
---@param successes integer
---@param total integer
---@param level? number 0.95
---@return number low
---@return number high
function sequential.rate(successes, total, level)
  if total == 0 then return 0.0, 1.0 end
  local bound = log_mixture(successes, total) + log(1 - (level or statistics.LEVEL))
  local function is_inside(rate) return log_likelihood(successes, total, rate) > bound end
  local estimate = successes / total
  return edge(estimate, 0.0, is_inside), edge(estimate, 1.0, is_inside)
end

local function slope(successes, total, rate)
  return successes / rate - (total - successes) / (1 - rate)
end

-- The most that both rows can be likely where the second rate is the first plus a difference.
local function most_likely(s1, n1, s2, n2, difference)
  local low, high = math.max(0, -difference), math.min(1, 1 - difference)
  if difference == 0 then
    local rate = (s1 + s2) / (n1 + n2)
    return log_likelihood(s1, n1, rate) + log_likelihood(s2, n2, rate)
  end
  for _ = 1, 50 do -- the likelihood is concave
    local middle = (low + high) / 2
    if slope(s1, n1, middle) + slope(s2, n2, middle + difference) > 0 then low = middle else high = middle end
  end
  local rate = (low + high) / 2
  return log_likelihood(s1, n1, rate) + log_likelihood(s2, n2, rate + difference)
end

---Evidence against two rates differing by just so much. Exact for any counts and any split: the mixture of both
---rates over Jeffreys' prior against the likeliest pair that differs so (the sequential likelihood ratio of Wasserman,
---Ramdas and Balakrishnan, "Universal inference", PNAS 117, 2020, section 7; with Robbins' method of mixtures, 1970).
---@param successes1 integer
---@param total1 integer
---@param successes2 integer
---@param total2 integer
---@param difference? number second less first, 0
---@return number evidence its logarithm
function sequential.rates(successes1, total1, successes2, total2, difference)
  if total1 == 0 or total2 == 0 then return 0.0 end
  return log_mixture(successes1, total1) + log_mixture(successes2, total2)
    - most_likely(successes1, total1, successes2, total2, difference or 0)
end

---An interval for the difference of two rates, second less first, that holds it at every look with this probability:
---the differences against which there is no evidence, see sequential.rates.
---@param successes1 integer
---@param total1 integer
---@param successes2 integer
---@param total2 integer
---@param level? number 0.95
---@return number low
---@return number high
function sequential.rate_difference(successes1, total1, successes2, total2, level)
  if total1 == 0 or total2 == 0 then return -1.0, 1.0 end
  local bound = -log(1 - (level or statistics.LEVEL))
  local mixture = log_mixture(successes1, total1) + log_mixture(successes2, total2)
  local function is_inside(difference)
    return mixture - most_likely(successes1, total1, successes2, total2, difference) < bound
  end
  local estimate = successes2 / total2 - successes1 / total1
  return edge(estimate, -1.0, is_inside), edge(estimate, 1.0, is_inside)
end

-- ---- two means ----

-- At how many observations of each of two equal halves the interval is at its narrowest, for what its width may be.
local TUNED_AT <const> = 500

-- The variance of the mixture over effects, in standard deviations of an observation, that is the best at that size
-- (Howard, Ramdas, McAuliffe and Sekhon, Annals of Statistics 49, 2021, section 3.5, to first order) at a level of 95 %.
local SPREAD <const> = (2 * log(20) + log(1 + 2 * log(20))) / (TUNED_AT / 2)

-- Of the difference of two means: its estimate, its variance, how much is known, and whether that is enough to tell.
local function compare(first, second)
  if first.count < 2 or second.count < 2 then return nil end
  local variance = first.variance / first.count + second.variance / second.count
  local size = first.count * second.count / (first.count + second.count)
  return second.mean - first.mean, variance, size * SPREAD
end

---Evidence against two means being the same: the mixture sequential probability ratio test (Robbins, 1970; Johari, Koomen,
---Pekelis and Walsh, "Always valid inference", Operations Research 70, 2022) with variances from the data, which is valid as
---counts grow: from a hundred or so of each, more where a few values decide the mean.
---@param first sluice.statistics.Moments
---@param second sluice.statistics.Moments
---@return number evidence its logarithm; 0 below two numbers
function sequential.means(first, second)
  options.argument("sequential.means", "first", first, "table")
  options.argument("sequential.means", "second", second, "table")
  local estimate, variance, known = compare(first, second)
  if not estimate or estimate == 0 then return 0.0 end
  if variance == 0 then return math.huge end
  return estimate * estimate / variance * known / (2 * (known + 1)) - 0.5 * log(1 + known)
end

---An interval for the difference of two means, second less first, for every look: the asymptotic confidence
---sequence of Waudby-Smith, Arbour, Sinha, Kennedy and Ramdas (Annals of Statistics 52, 2024), which is the test of
---sequential.means turned round.
---@param first sluice.statistics.Moments
---@param second sluice.statistics.Moments
---@param level? number 0.95
---@return number? low nil below two numbers
---@return number? high
function sequential.mean_difference(first, second, level)
  options.argument("sequential.mean_difference", "first", first, "table")
  options.argument("sequential.mean_difference", "second", second, "table")
  local estimate, variance, known = compare(first, second)
  if not estimate then return nil end
  local bound = -log(1 - (level or statistics.LEVEL))
  local half = sqrt(variance * (known + 1) / known * (2 * bound + log(1 + known)))
  return estimate - half, estimate + half
end

-- ---- the sample ratio ----

-- How many requests the prior counts as: the larger, the more it looks for small deviations.
local PRIOR <const> = 500

---Evidence against requests having been split by these shares, exact for any number of variants: a multinomial
---against its mixture over a Dirichlet prior around the shares (Lindon and Malek, "Anytime-valid inference for multinomial
---count data", NeurIPS 2022).
---@param counts integer[]
---@param shares number[] of the same variants, above 0; their sum does not matter
---@return number evidence its logarithm
function sequential.sample_ratio(counts, shares)
  options.argument("sequential.sample_ratio", "counts", counts, "table")
  options.argument("sequential.sample_ratio", "shares", shares, "table")
  local total, sum = 0, 0
  for index, count in ipairs(counts) do total, sum = total + count, sum + shares[index] end
  local evidence = functions.log_gamma(PRIOR) - functions.log_gamma(PRIOR + total)
  for index, count in ipairs(counts) do
    local share = shares[index] / sum
    local before = PRIOR * share
    evidence = evidence + functions.log_gamma(before + count) - functions.log_gamma(before)
      - n_log(count, share)
  end
  return evidence
end

return sequential
