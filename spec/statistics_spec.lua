-- SPDX-License-Identifier: MIT
-- Statistics, beside scipy on random cases, and by how often their intervals hold what they are for.

local distribution = require "sluice.statistics.distribution"
local functions = require "sluice.statistics.functions"
local json = require "sluice.json"
local random = require "sluice.random"
local sequential = require "sluice.statistics.sequential"
local statistics = require "sluice.statistics"
local support = require "support"

local function whole(draw, low, high)
  return low + math.floor(draw() * (high - low + 1))
end

local function some(draw, count, scale)
  local values = {}
  for index = 1, count do values[index] = functions.normal_quantile(draw() * 0.998 + 0.001) * scale + 5 end
  return values
end

local function of_values(values)
  local made = distribution.new()
  for _, value in ipairs(values) do made:add(value) end
  return made
end

-- ---- scipy ----

-- Each makes the arguments of a case; `ours` calls the function under test with them.
local makers = {
  log_gamma = function(draw) return { math.exp(draw() * 30 - 8) } end,
  log_beta = function(draw) return { math.exp(draw() * 16 - 3), math.exp(draw() * 16 - 3) } end,
  beta_cdf = function(draw)
    local a, b = math.exp(draw() * 12 - 2), math.exp(draw() * 12 - 2)
    return { draw() < 0.5 and draw() or math.min(1, a / (a + b) * (0.8 + 0.4 * draw())), a, b }
  end,
  binomial_cdf = function(draw)
    local n = whole(draw, 1, 5000)
    return { whole(draw, 0, n), n, draw() }
  end,
  normal_cdf = function(draw) return { draw() * 16 - 8 } end,
  normal_quantile = function(draw) return { draw() < 0.5 and draw() or math.exp(-40 * draw()) } end,
  t_cdf = function(draw) return { draw() * 12 - 6, math.exp(draw() * 8) } end,
  t_quantile = function(draw) return { draw(), math.exp(draw() * 8) } end,
  wilson = function(draw)
    local n = whole(draw, 1, 3000)
    return { whole(draw, 0, n), n, 0.5 + draw() * 0.499 }
  end,
  newcombe = function(draw)
    local n1, n2 = whole(draw, 1, 3000), whole(draw, 1, 3000)
    return { whole(draw, 0, n1), n1, whole(draw, 0, n2), n2, 0.5 + draw() * 0.499 }
  end,
  welch = function(draw)
    return { some(draw, whole(draw, 2, 40), 1), some(draw, whole(draw, 2, 40), 4), 0.5 + draw() * 0.499 }
  end,
  mean = function(draw) return { some(draw, whole(draw, 2, 60), 3), 0.5 + draw() * 0.499 } end,
  quantile = function(draw)
    return { some(draw, whole(draw, 5, 300), 2), 0.02 + draw() * 0.96, 0.5 + draw() * 0.49 }
  end,
  rates = function(draw)
    local n1, n2 = whole(draw, 1, 30000), whole(draw, 1, 30000)
    return { whole(draw, 0, n1), n1, whole(draw, 0, n2), n2 }
  end,
  sample_ratio = function(draw)
    local counts, shares = {}, {}
    for index = 1, whole(draw, 2, 4) do
      counts[index], shares[index] = whole(draw, 0, 9999), 1 + draw() * 50
    end
    return { counts, shares }
  end,
}

local ours = {}
for name, f in pairs(functions) do ours[name] = f end
function ours.wilson(...) return { statistics.wilson(...) } end
function ours.newcombe(...) return { statistics.newcombe(...) } end
function ours.welch(first, second, level)
  return { statistics.welch(of_values(first):moments(), of_values(second):moments(), level) }
end
function ours.mean(values, level) return { statistics.mean(of_values(values):moments(), level) } end
function ours.quantile(values, p, level)
  local low, high = of_values(values):quantile_interval(p, level)
  return { low or json.null, high or json.null }
end
ours.rates, ours.sample_ratio = sequential.rates, sequential.sample_ratio

-- scipy looks for the quantiles of t with a tolerance of 1e-8.
local ROUGH <const> = { t_quantile = true, welch = true, mean = true }

local function is_near(name, a, b)
  local tolerance = ROUGH[name] and 1e-7 or 1e-9
  if type(a) ~= "number" or type(b) ~= "number" then return a == b end
  return math.abs(a - b) <= tolerance * (1 + math.max(math.abs(a), math.abs(b)))
end

local function assert_near(name, arguments, expected, found)
  for index, value in ipairs(type(expected) == "table" and expected or { expected }) do
    local own = type(found) == "table" and found[index] or found
    assert.is_true(is_near(name, value, own), ("%s(%s) is %s, not %s"):format(
      name, json.encode(arguments), tostring(value), tostring(own)))
  end
end

local function ask_scipy(cases)
  return support.with_file(json.encode(cases), function(path)
    local found = support.shell("/usr/bin/python3 spec/statistics_scipy.py <" .. path)
    assert.equal(0, found.status, found.err)
    return json.decode(found.out)
  end)
end

describe("statistics beside scipy", function()
  if support.shell("/usr/bin/python3 -c 'import scipy'").status ~= 0 then
    pending("python3-scipy is not installed (make deps-extra)", function() end)
    return
  end

  it("agrees on random cases", function()
    local draw, cases, names = random.new(20), {}, {}
    for name in pairs(makers) do names[#names + 1] = name end
    table.sort(names)
    for _ = 1, 60 do
      for _, name in ipairs(names) do cases[#cases + 1] = { name, table.unpack(makers[name](draw)) } end
    end
    local answers = ask_scipy(cases)
    for index, case in ipairs(cases) do
      local name, arguments = case[1], { table.unpack(case, 2) }
      assert_near(name, arguments, answers[index], ours[name](table.unpack(arguments)))
    end
  end)
end)

-- ---- what no other program is needed for ----

describe("sluice.statistics", function()
  it("knows the ends of what it is given", function()
    assert.same({ 0.0, 1.0 }, { statistics.wilson(0, 0) })
    assert.equal(0.0, (statistics.wilson(0, 10)))
    assert.equal(1.0, (select(2, statistics.wilson(10, 10))))
    assert.same({ -1.0, 1.0 }, { statistics.newcombe(0, 0, 0, 0) })
    assert.is_nil(statistics.mean { count = 1, mean = 3 })
    assert.is_nil(statistics.welch({ count = 1, mean = 3 }, { count = 9, mean = 3, variance = 1 }))
    local still = { count = 2, mean = 1, variance = 0 }
    assert.same({ 2, 2 }, { statistics.welch(still, { count = 2, mean = 3, variance = 0 }) })
    assert.same({ nil, nil }, { statistics.quantile_ranks(0, 0.5) })
    assert.same({ nil, nil }, { statistics.quantile_ranks(4, 0.5) })
    assert.is_nil((select(2, statistics.quantile_ranks(300, 0.99))))
    assert.is_not_nil((select(2, statistics.quantile_ranks(400, 0.99))))
    assert.equal(math.huge, functions.normal_quantile(1))
    assert.equal(0.95, statistics.LEVEL)
  end)

  it("puts two intervals together as a difference", function()
    local low, high = statistics.difference(1, 0, 2, 5, 4, 7)
    assert.same({ 4 - math.sqrt(2), 4 + math.sqrt(5) }, { low, high })
  end)

  it("refuses counts and levels that are none", function()
    for _, wrong in ipairs { { 3, 2 }, { -1, 2 }, { "a", 2 } } do
      assert.has_error(function() statistics.wilson(wrong[1], wrong[2]) end)
    end
    for _, level in ipairs { 0, 1, 95, "0.95", 0 / 0 } do
      assert.has_error(function() statistics.wilson(1, 2, level) end)
    end
  end)
end)

describe("a distribution", function()
  it("counts values, and gives them back in order", function()
    local made = of_values { 5, 1, 3, 3, 9 }
    made:add(3, 2)
    assert.equal(7, made.count)
    assert.same({ 1, 3, 3, 3, 3, 5, 9, nil }, { made:at(1), made:at(2), made:at(3), made:at(4), made:at(5),
      made:at(6), made:at(7), made:at(8) })
    assert.same({ 1, 3, 9 }, { made:quantile(0), made:quantile(0.5), made:quantile(1) })
    local above = { made:above(0), made:above(1), made:above(3.5), made:above(5), made:above(9) }
    assert.same({ 7, 6, 2, 1, 0 }, above)
    local moments = made:moments()
    assert.near(27 / 7, moments.mean, 1e-12)
    assert.near(6.476190476, moments.variance, 1e-6)
    assert.near(54 / 7, made:moments(function(value) return 2 * value end).mean, 1e-12)
    assert.is_nil(distribution.new():quantile(0.5))
    assert.same({ count = 0 }, distribution.new():moments())
  end)

  it("keeps its digits far from 0", function()
    local made = distribution.new()
    made:add(1e9)
    made:add(1e9 + 1)
    assert.equal(0.5, made:moments().variance)
  end)
end)

-- ---- how often they are right ----

local RUNS <const> = 2000

-- The share of runs in which `holds(draw)`.
local function share(seed, holds)
  local draw, hits = random.new(seed), 0
  for _ = 1, RUNS do
    if holds(draw) then hits = hits + 1 end
  end
  return hits / RUNS
end

local function successes(draw, total, rate)
  local count = 0
  for _ = 1, total do
    if draw() < rate then count = count + 1 end
  end
  return count
end

describe("the intervals of statistics hold what they are for", function()
  local least = statistics.LEVEL - 0.01

  it("of a rate, and of the difference of two", function()
    assert.is_true(least <= share(1, function(draw)
      local low, high = statistics.wilson(successes(draw, 150, 0.93), 150)
      return low <= 0.93 and 0.93 <= high
    end))
    assert.is_true(least <= share(2, function(draw)
      local low, high = statistics.newcombe(
        successes(draw, 150, 0.93), 150, successes(draw, 100, 0.9), 100)
      return low <= -0.03 and -0.03 <= high
    end))
  end)

  -- lognormal, as latencies are: exp(0.4 z)
  local function latencies(draw, count, factor)
    local made = distribution.new()
    for _ = 1, count do made:add(factor * math.exp(0.4 * functions.normal_quantile(draw()))) end
    return made
  end

  it("of means and quantiles, and of their differences", function()
    local real, p90 = math.exp(0.08), math.exp(0.4 * functions.normal_quantile(0.9))
    local mean, welch, quantile, difference = 0, 0, 0, 0
    local draw, runs = random.new(3), 1000
    for _ = 1, runs do
      local first, second = latencies(draw, 80, 1), latencies(draw, 60, 2)
      local low, high = statistics.mean(first:moments())
      mean = mean + (low <= real and real <= high and 1 or 0)
      low, high = statistics.welch(first:moments(), second:moments())
      welch = welch + (low <= real and real <= high and 1 or 0)
      low, high = first:quantile_interval(0.9)
      local low2, high2 = second:quantile_interval(0.9)
      quantile = quantile + (low <= p90 and p90 <= high and 1 or 0)
      low, high = statistics.difference(first:quantile(0.9), low, high, second:quantile(0.9), low2, high2)
      difference = difference + (low <= p90 and p90 <= high and 1 or 0)
    end
    for name, hits in pairs { mean = mean, welch = welch, quantile = quantile, difference = difference } do
      assert.is_true(hits / runs >= least, name .. " " .. hits / runs)
    end
  end)
end)
