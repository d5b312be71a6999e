-- SPDX-License-Identifier: MIT
local fields_of = require "sluice.headers"
local headers = require "sluice.limit.headers"
local memory = require "sluice.limit.memory"
local meter = require "sluice.limit.meter"
local queue = require "sluice.limit.queue"
local task = require "sluice.task"
local usage = require "sluice.limit.usage"

local function near(expected, actual)
  assert.is_true(math.abs(expected - actual) < 1e-6, ("%g expected, got %g"):format(expected, actual))
end

describe("limit.headers", function()
  local WALL <const> = 1767225600 -- 2026-01-01T00:00:00Z
  local function wall() return WALL end

  it("reads a reset as seconds, a duration or a date", function()
    local texts = { ["0"] = 0, ["1.5"] = 1.5, [" 20 "] = 20, ["1s"] = 1, ["6m0s"] = 360, ["12ms"] = 0.012,
      ["1h2m3.5s"] = 3723.5, ["250µs"] = 0.00025, ["1767225630"] = 30, ["1767225000"] = 0,
      ["2026-01-01T00:00:10Z"] = 10, ["2026-01-01T00:00:10.5Z"] = 10.5, ["2026-01-01T01:00:07+01:00"] = 7,
      ["2025-12-31T19:00:09-05:00"] = 9, ["2028-03-01T00:00:00Z"] = 68256000, ["2020-01-01T00:00:00Z"] = 0 }
    for text, seconds in pairs(texts) do near(seconds, headers.reset(text, WALL)) end
    for _, text in ipairs {
      "", "-1", "soon", "5x", "1s!", "s", "2026-01-01", "2026-01-01T00:00:10", "0x10", "nan",
    } do
      assert.is_nil(headers.reset(text, WALL), text)
    end
  end)

  local function read(map)
    return headers.read(fields_of.new(map), wall)
  end

  it("reads each form", function()
    assert.same({
      { name = "x-ratelimit-remaining-requests", quantity = "requests", limit = 60, left = 59, reset = 1 },
      { name = "x-ratelimit-remaining-tokens", quantity = "tokens", limit = 150000, left = 149984,
        reset = 360 },
    }, read {
      ["x-ratelimit-limit-requests"] = "60", ["X-RateLimit-Remaining-Requests"] = "59",
      ["x-ratelimit-reset-requests"] = "1s", ["x-ratelimit-limit-tokens"] = "150000",
      ["x-ratelimit-remaining-tokens"] = "149984", ["x-ratelimit-reset-tokens"] = "6m0s",
    })
    local of_tokens = { name = "anthropic-ratelimit-tokens-remaining", quantity = "tokens", left = 5,
      reset = 30 }
    assert.same({ of_tokens }, read { ["anthropic-ratelimit-tokens-remaining"] = "5",
        ["anthropic-ratelimit-tokens-reset"] = "2026-01-01T00:00:30Z" })
    local draft = { name = "ratelimit-remaining", quantity = "requests", limit = 100, left = 7, reset = 8 }
    assert.same({ draft }, read { ["RateLimit-Limit"] = "100, 100;w=60", ["RateLimit-Remaining"] = "7",
      ["RateLimit-Reset"] = "8" })
    assert.same({
      { name = "ratelimit burst", quantity = "requests", limit = 10, left = 4, reset = 1 },
      { name = "ratelimit daily", quantity = "requests", left = 900, reset = 86400 },
    }, read {
      ["RateLimit-Policy"] = '"burst";q=10;w=1, "other";q=1',
      ["RateLimit"] = '"burst";r=4;t=1, "daily";r=900;t=86400',
    })
  end)

  it("passes over what says nothing", function()
    assert.is_nil(read {})
    assert.is_nil(read { ["content-type"] = "x" })
    assert.is_nil(read { ["x-ratelimit-remaining-requests"] = "5" })
    assert.is_nil(read { ["x-ratelimit-remaining-requests"] = "-1", ["x-ratelimit-reset-requests"] = "0s" })
    assert.is_nil(read { ["x-ratelimit-remaining-requests"] = "many", ["x-ratelimit-reset-requests"] = "1s" })
    assert.is_nil(read { ["ratelimit"] = "limit" })
    assert.is_nil(headers.read({ ["x-ratelimit-remaining"] = 5 }, wall))
  end)
end)

describe("limit.usage", function()
  it("estimates a request", function()
    assert.equal(0, usage.input {})
    assert.equal(3, usage.input { messages = { { role = "user", content = "12345" } } }) -- the role counts too
    assert.equal(1001, usage.input { a = { "data:image/png;base64," .. ("A"):rep(1e6) }, b = "1234" })
    local loop = {}
    loop.loop, loop.text = loop, "1234"
    assert.is_true(usage.input(loop) < 100)
    assert.equal(3, usage.of_bytes(9))
    assert.equal(20, usage.most_output { max_tokens = 20 })
    assert.equal(60, usage.most_output { max_completion_tokens = 20, n = 3 })
    assert.equal(5, usage.most_output { max_output_tokens = 5 })
    assert.is_nil(usage.most_output { max_tokens = "20" })
  end)

  it("reads what an answer took", function()
    assert.same({ 30, 10 }, { usage.of { usage = { total_tokens = 30, completion_tokens = 10 } } })
    assert.same({ 15, 10 }, { usage.of { usage = { input_tokens = 5, output_tokens = 10 } } })
    assert.same({ 5 }, { usage.of { usage = { prompt_tokens = 5 } } })
    local nothing = { {}, { usage = {} }, { usage = "x" }, { usage = { total_tokens = "5" } }, "text" }
    for _, answer in ipairs(nothing) do
      assert.is_nil(usage.of(answer))
    end
  end)
end)

describe("limit.meter", function()
  it("fills at its rate, up to the burst", function()
    local bucket = meter.new { rate = 2, burst = 3 }
    for _ = 1, 3 do
      near(0, bucket:missing(1, 0))
      bucket:take(1, 0)
    end
    near(0.5, bucket:missing(1, 0))
    near(0.25, bucket:missing(1, 0.25))
    near(0, bucket:missing(3, 100))
    bucket:take(3, 100)
    near(1.5, bucket:missing(9, 100)) -- more than the burst waits for all of it
  end)

  it("holds to the most in a period, and corrects", function()
    local window = meter.new { rate = 1, burst = 10, most = 10, period = 10 }
    local first = window:take(4, 0)
    window:take(4, 2)
    near(0, window:missing(2, 3))
    near(7, window:missing(3, 3))
    window:settle(first, 1)
    near(0, window:missing(5, 3))
    near(7, window:missing(6, 3))
    near(9, window:missing(10, 3))
    near(9, window:missing(99, 3))
    near(0, window:missing(10, 12))
    window:settle(first, 100) -- gone: nobody cares
    near(0, window:missing(10, 12))
  end)

  it("starts with one after a pause", function()
    local bucket = meter.new { rate = 1, burst = 5 }
    near(0, bucket:missing(1, 0))
    bucket:hold(10)
    near(0, bucket:missing(1, 10))
    bucket:take(1, 10)
    near(1, bucket:missing(1, 10))
  end)
end)

describe("limit.memory", function()
  local function open(plan)
    plan.period, plan.max_pause, plan.random = plan.period or 60, 60, function() return 0.5 end
    return memory.open(plan)
  end

  it("takes, settles once, pauses", function()
    task.simulate(function()
      local state = open { tokens = 100 }
      local wait, ticket = state:take(60)
      assert.equal(0, wait)
      near(60, (state:take(60)))
      state:settle(ticket, 10, true)
      state:settle(ticket, 100, true)
      wait, ticket = state:take(60)
      assert.equal(0, wait)
      assert.is_true(state:pause(ticket))
      near(1.05, (state:take(1))) -- with half of the jitter
      assert.is_false(state:pause(ticket), "it was sent before the pause")
      assert.is_false(state:pause(ticket, 1))
      assert.is_true(state:pause(ticket, 5))
      near(5, (state:take(1)))
      near(5, state:paused_for())
      task.sleep(6)
      assert.equal(0, state:paused_for())
    end)
  end)

  it("is told what is left, less what is under way", function()
    task.simulate(function()
      local state = open {}
      local _, ticket = state:take(0)
      state:told { { name = "a", quantity = "requests", left = 2, reset = 9, limit = 3 } }
      assert.equal(0, (state:take(0)))
      near(9, (state:take(0)))
      state:settle(ticket)
      task.sleep(9)
      for _ = 1, 3 do assert.equal(0, (state:take(0))) end
      near(9, (state:take(0)))
    end)
  end)
end)

describe("limit.queue", function()
  it("asks again at a change", function()
    task.simulate(function()
      local open, asked = false, 0
      local state = { take = function()
        asked = asked + 1
        if open then return 0, "ticket" end
        return 100
      end }
      local line = queue.new(state)
      local first = task.spawn(line.wait, line, 5)
      local second = task.spawn(line.wait, line, 5)
      task.sleep(1)
      open = true
      line:changed()
      assert.same({ "ticket", "ticket" }, { first:join(), second:join() })
      assert.same({ 1, 3 }, { task.now(), asked })
    end)
  end)
end)
