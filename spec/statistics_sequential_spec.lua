-- SPDX-License-Identifier: MIT
-- The tests that one may look at again and again: how often they are wrong, and how soon they see what is there.

local functions = require "sluice.statistics.functions"
local random = require "sluice.random"
local sequential = require "sluice.statistics.sequential"
local statistics = require "sluice.statistics"

local RUNS <const> = 2000
local EACH <const>, LOOKS <const> = 100, 20 -- requests between two looks
local ALPHA <const> = 1 - statistics.LEVEL

-- Logarithms of latencies: half of them around 200 ms, some ten times as long.
local LOGS <const> = {}
for index = 1, 1024 do
  local z = functions.normal_quantile((index - 0.5) / 1024)
  LOGS[index] = math.log(200) + 0.4 * z + (index % 16 == 0 and math.log(10) or 0)
end

-- An arm, as it grows: requests, successes, and the sums of the logarithms of their latencies.
local function new_arm()
  return { requests = 0, successes = 0, sum = 0, squares = 0 }
end

local function moments(arm)
  local mean = arm.sum / arm.requests
  return {
    count = arm.requests, mean = mean, variance = (arm.squares - arm.sum * mean) / (arm.requests - 1),
  }
end

-- One request goes to an arm: `rate` is its success rate there, `longer` what its latency is multiplied by, as a log.
local function add(arm, draw, rate, longer)
  local chance = draw() * #LOGS
  local place = chance // 1
  arm.requests = arm.requests + 1
  if chance - place < rate then arm.successes = arm.successes + 1 end
  local logarithm = LOGS[1 + place] + longer
  arm.sum, arm.squares = arm.sum + logarithm, arm.squares + logarithm * logarithm
end

-- The look, of all of them, at which either test first finds a difference; nil for never.
local function first_alarm(draw, share, rates, longer)
  local arms = { new_arm(), new_arm() }
  for look = 1, LOOKS do
    for _ = 1, EACH do
      local index = draw() < share and 2 or 1
      add(arms[index], draw, rates[index], index == 2 and longer or 0)
    end
    local one, two = arms[1], arms[2]
    local evidence = sequential.rates(one.successes, one.requests, two.successes, two.requests)
    local is_found = sequential.p_value(evidence) < ALPHA / 2
    if one.requests >= 100 and two.requests >= 100 then
      is_found = is_found or sequential.p_value(sequential.means(moments(one), moments(two))) < ALPHA / 2
    end
    if is_found then return look end
  end
  return nil
end

local function alarms(seed, runs, ...)
  local draw, count, looks = random.new(seed), 0, 0
  for _ = 1, runs do
    local look = first_alarm(draw, ...)
    if look then count, looks = count + 1, looks + look end
  end
  return count / runs, looks / math.max(1, count)
end

describe("sluice.statistics.sequential", function()
  it("raises few false alarms, looked at after each 100 of 2,000 requests", function()
    for seed, case in ipairs { { RUNS, 0.5, 0.99 }, { RUNS // 5, 0.1, 0.9 } } do
      local runs, share, rate = table.unpack(case)
      local false_alarms = alarms(seed, runs, share, { rate, rate }, 0)
      assert.is_true(false_alarms <= ALPHA, "false alarms " .. false_alarms)
    end
  end)

  it("sees a version with 20 % of errors, and one of twice the latency, in a tenth of the traffic", function()
    local found, looks = alarms(3, 100, 0.1, { 0.995, 0.8 }, 0)
    assert.is_true(found == 1 and looks <= 8, ("%g after %g"):format(found, looks))
    found, looks = alarms(4, 100, 0.1, { 0.99, 0.99 }, math.log(2))
    assert.is_true(found == 1 and looks <= 11, ("%g after %g"):format(found, looks))
  end)

  it("holds rates and differences at every look", function()
    local draw, runs, rate, difference, mean = random.new(5), 300, 0, 0, 0
    for _ = 1, runs do
      local one, two = new_arm(), new_arm()
      local holds = { rate = true, difference = true, mean = true }
      for _ = 1, 10 do
        for _ = 1, 50 do
          add(one, draw, 0.9, 0)
          add(two, draw, 0.8, 0.5)
        end
        local low, high = sequential.rate(one.successes, one.requests)
        holds.rate = holds.rate and low <= 0.9 and 0.9 <= high
        low, high = sequential.rate_difference(one.successes, one.requests, two.successes, two.requests)
        holds.difference = holds.difference and low <= -0.1 and -0.1 <= high
        low, high = sequential.mean_difference(moments(one), moments(two))
        holds.mean = holds.mean and low <= 0.5 and 0.5 <= high
      end
      rate = rate + (holds.rate and 1 or 0)
      difference = difference + (holds.difference and 1 or 0)
      mean = mean + (holds.mean and 1 or 0)
    end
    for name, hits in pairs { rate = rate, difference = difference, mean = mean } do
      assert.is_true(hits / runs >= statistics.LEVEL, name .. " " .. hits / runs)
    end
  end)

  it("gives intervals that leave 0 out where there is evidence, and only there", function()
    local draw = random.new(6)
    for _ = 1, 300 do
      local n1, n2 = 1 + math.floor(draw() * 900), 1 + math.floor(draw() * 900)
      local s1, s2 = math.floor(draw() * (n1 + 1)), math.floor(draw() * (n2 + 1))
      local low, high = sequential.rate_difference(s1, n1, s2, n2)
      local has_evidence = sequential.p_value(sequential.rates(s1, n1, s2, n2)) <= ALPHA
      assert.equal(has_evidence, low > 0 or high < 0)
      assert.is_true(low <= s2 / n2 - s1 / n1 and s2 / n2 - s1 / n1 <= high)
    end
  end)

  it("says nothing of nothing", function()
    local few, some = { count = 1, mean = 1 }, { count = 9, mean = 1, variance = 1 }
    assert.same({ 0.0, 1.0 }, { sequential.rate(0, 0) })
    assert.same({ -1.0, 1.0 }, { sequential.rate_difference(0, 0, 5, 9) })
    assert.equal(0.0, sequential.rates(0, 0, 5, 9))
    assert.equal(0.0, sequential.means(few, some))
    assert.is_nil(sequential.mean_difference(few, some))
    local still = { count = 9, mean = 1, variance = 0 }
    assert.equal(math.huge, sequential.means(still, { count = 9, mean = 2, variance = 0 }))
    assert.equal(1, sequential.p_value(-3))
  end)

  it("doubts a split of 52:48 at 20,000 requests, and no right one", function()
    local function p_of(a, b, ...) return sequential.p_value(sequential.sample_ratio({ a, b }, { ... })) end
    assert.is_true(p_of(10400, 9600, 50, 50) < 0.001)
    assert.is_true(p_of(9600, 10400, 50, 50) < 0.001)
    assert.is_true(p_of(10000, 10000, 50, 50) > 0.001)
    assert.is_true(p_of(2000, 18000, 10, 90) > 0.001)
    assert.is_true(p_of(2400, 17600, 10, 90) < 0.001)
    local draw, alarmed = random.new(7), 0
    for _ = 1, 50 do
      local first, is_alarmed = 0, false
      for request = 1, 20000 do
        if draw() < 0.5 then first = first + 1 end
        if request % 500 == 0 and p_of(first, request - first, 1, 1) < 0.001 then is_alarmed = true end
      end
      alarmed = alarmed + (is_alarmed and 1 or 0)
    end
    assert.equal(0, alarmed)
  end)
end)
