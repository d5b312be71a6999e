-- SPDX-License-Identifier: MIT
-- The functions that statistics need and Lua's math library has not: gamma, beta, and the normal and t distributions.

local functions = {}

local abs <const>, exp <const>, log <const>, sqrt <const> = math.abs, math.exp, math.log, math.sqrt

local EPSILON <const> = 1e-16
local TINY <const> = 1e-300

-- A continued fraction of the incomplete beta needs about the root of its larger parameter; this serves counts of 1e9.
local MOST_STEPS <const> = 100000

-- Lanczos' approximation with g = 7; Godfrey's nine coefficients are good to 15 digits.
local LANCZOS <const> = {
  676.5203681218851, -1259.1392167224028, 771.32342877765313, -176.61502916214059, 12.507343278686905,
  -0.13857109526572012, 9.9843695780195716e-6, 1.5056327351493116e-7,
}
local HALF_LOG_2_PI <const> = 0.5 * log(2 * math.pi)

---The logarithm of the gamma function.
---@param x number above 0
---@return number
function functions.log_gamma(x)
  if x < 0.5 then return log(math.pi / math.sin(math.pi * x)) - functions.log_gamma(1 - x) end
  x = x - 1
  local sum, base = 0.99999999999980993, x + 7.5
  for index = 1, #LANCZOS do sum = sum + LANCZOS[index] / (x + index) end
  return HALF_LOG_2_PI + (x + 0.5) * log(base) - base + log(sum)
end

local log_gamma <const> = functions.log_gamma

---The logarithm of the beta function.
---@param a number above 0
---@param b number above 0
---@return number
function functions.log_beta(a, b)
  return log_gamma(a) + log_gamma(b) - log_gamma(a + b)
end

-- Keeps a denominator of Lentz' method from being 0.
local function away_from_zero(x)
  return abs(x) < TINY and TINY or x
end

-- The continued fraction of the incomplete beta function by the modified method of Lentz.
local function beta_fraction(x, a, b)
  local c, d = 1, 1 / away_from_zero(1 - (a + b) * x / (a + 1))
  local result = d
  for m = 1, MOST_STEPS do
    local even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
    d = 1 / away_from_zero(1 + even * d)
    c = away_from_zero(1 + even / c)
    result = result * d * c
    local odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
    d = 1 / away_from_zero(1 + odd * d)
    c = away_from_zero(1 + odd / c)
    local step = d * c
    result = result * step
    if abs(step - 1) < EPSILON * 2 then break end
  end
  return result
end

---The regularised incomplete beta function, which is the distribution function of Beta(a, b).
---@param x number from 0 to 1
---@param a number above 0
---@param b number above 0
---@return number
function functions.beta_cdf(x, a, b)
  if x <= 0 then return 0.0 end
  if x >= 1 then return 1.0 end
  local front = exp(a * log(x) + b * log(1 - x) - functions.log_beta(a, b))
  if x < (a + 1) / (a + b + 2) then return front * beta_fraction(x, a, b) / a end
  return 1 - front * beta_fraction(1 - x, b, a) / b
end

---The probability of at most k successes in n trials.
---@param k integer
---@param n integer
---@param p number of each trial
---@return number
function functions.binomial_cdf(k, n, p)
  if k < 0 then return 0.0 end
  if k >= n then return 1.0 end
  return functions.beta_cdf(1 - p, n - k, k + 1)
end

-- erfc by its series below, its continued fraction above: both reach full precision at 2 in about 40 steps.
local function erfc(x)
  if x < 0 then return 2 - erfc(-x) end
  local square = x * x
  if x < 2 then
    local term, sum, n = x, x, 0
    repeat
      n = n + 1
      term = -term * square / n
      sum = sum + term / (2 * n + 1)
    until abs(term) < EPSILON * abs(sum)
    return 1 - 2 / sqrt(math.pi) * sum
  end
  local fraction = 0.0
  for n = 80, 1, -1 do fraction = n / 2 / (x + fraction) end
  return exp(-square) / sqrt(math.pi) / (x + fraction)
end

---The distribution function of the standard normal distribution.
---@param x number
---@return number
function functions.normal_cdf(x)
  return erfc(-x / sqrt(2)) / 2
end

local function normal_density(x)
  return exp(-x * x / 2) / sqrt(2 * math.pi)
end

-- Where an increasing `cdf` is p: Newton's steps, or halving where one leads out of what is known.
local function invert(cdf, density, p, start, low, high)
  local x = start
  for _ = 1, 200 do
    local off = cdf(x) - p
    if off > 0 then high = x else low = x end
    local slope = density(x)
    local next_x = slope > 0 and x - off / slope or (low + high) / 2
    if not (next_x > low and next_x < high) then next_x = (low + high) / 2 end
    if abs(next_x - x) <= 1e-14 * (1 + abs(x)) then return next_x end
    x = next_x
  end
  return x
end

---The quantile of the standard normal distribution.
---@param p number between 0 and 1
---@return number
function functions.normal_quantile(p)
  if p <= 0 then return -math.huge end
  if p >= 1 then return math.huge end
  if p > 0.5 then return -functions.normal_quantile(1 - p) end -- the lower tail keeps its digits
  -- Abramowitz and Stegun 26.2.23 is good to 4.5e-4
  local t = sqrt(-2 * log(p))
  local start = -(t - (2.515517 + t * (0.802853 + t * 0.010328))
    / (1 + t * (1.432788 + t * (0.189269 + t * 0.001308))))
  return invert(functions.normal_cdf, normal_density, p, start, -40, 1)
end

---The distribution function of Student's t distribution.
---@param x number
---@param freedom number degrees of freedom, above 0
---@return number
function functions.t_cdf(x, freedom)
  local tail = functions.beta_cdf(freedom / (freedom + x * x), freedom / 2, 0.5) / 2
  return x > 0 and 1 - tail or tail
end

---The quantile of Student's t distribution.
---@param p number between 0 and 1
---@param freedom number degrees of freedom, above 0
---@return number
function functions.t_quantile(p, freedom)
  if p == 0.5 then return 0.0 end
  if p > 0.5 then return -functions.t_quantile(1 - p, freedom) end
  local front = -functions.log_beta(freedom / 2, 0.5) - 0.5 * log(freedom)
  local function cdf(x) return functions.t_cdf(x, freedom) end
  local function density(x) return exp(front - (freedom + 1) / 2 * log(1 + x * x / freedom)) end
  local low = -1.0
  while cdf(low) > p do low = low * 2 end
  return invert(cdf, density, p, math.max(low, functions.normal_quantile(p)), low, 0)
end

return functions
