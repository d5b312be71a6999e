-- SPDX-License-Identifier: MIT
local breaker_layer = require "sluice.layers.breaker"
local errors = require "sluice.errors"
local json = require "sluice.json"
local layers = require "sluice.layers"
local stream = require "sluice.stream"
local task = require "sluice.task"
local window = require "sluice.retry.window"

local function least() return 0 end -- no jitter

-- An endpoint that answers with what `server.err` is, after `server.takes` seconds, and counts.
local function endpoint_of(server)
  server.calls = 0
  local function answer()
    server.calls = server.calls + 1
    if server.takes then task.sleep(server.takes) end
    if server.err then return nil, server.err end
    return { ok = true }
  end
  local function begin()
    local value, err = answer()
    if value == nil then return nil, err end
    local left = { "a", "b" }
    return stream.wrap {
      next = function()
        local chunk = table.remove(left, 1)
        if chunk then return chunk end
        return nil, server.breaks
      end,
      close = function() server.closed = true end,
    }
  end
  return { name = "e", query = answer, stream = begin }
end

-- Runs f with a breaker around such an endpoint, in simulated time.
local function with_breaker(options, f)
  task.simulate(function()
    local server = {}
    options.random = options.random or least
    local endpoint = layers.breaker(options)(endpoint_of(server))
    f(endpoint, server, endpoint.breaker)
  end)
end

local function query(endpoint, times)
  local value, err
  for _ = 1, times or 1 do value, err = endpoint:query {} end
  return value, err
end

local function unavailable(fields)
  return errors.new("TemporarilyUnavailable", fields)
end

describe("layers.breaker", function()
  it("opens at the share of failures, not before the minimum", function()
    with_breaker({ minimum = 4 }, function(endpoint, server, breaker)
      query(endpoint, 2)
      server.err = unavailable()
      query(endpoint)
      assert.equal("closed", breaker.state)
      query(endpoint)
      assert.same({ "open", 2, 2, 0, 1 },
        { breaker.state, breaker.passed, breaker.failed, breaker.refused, breaker.opened })
      local value, err = query(endpoint)
      assert.is_nil(value)
      assert.same({ "CircuitOpen", true, 4, 1 }, { err.kind, err.retryable, server.calls, breaker.refused })
      assert.is_nil(err.maybe_executed)
      assert.is_true(math.abs(err.retry_after - 10) < 1e-3)
      assert.matches("^query e: it failed too often, and is left alone for 10 s more", tostring(err))
    end)
  end)

  it("forgets what is older than the window", function()
    with_breaker({ minimum = 4, window = 10 }, function(endpoint, server, breaker)
      server.err = unavailable()
      query(endpoint, 3)
      task.sleep(12)
      query(endpoint, 3)
      assert.equal("closed", breaker.state)
      query(endpoint)
      assert.equal("open", breaker.state)
    end)
  end)

  it("probes after the cool-down, and closes when the probe comes through", function()
    local changes = {}
    local options = { minimum = 1, on_change = function(state) changes[#changes + 1] = state end }
    with_breaker(options, function(endpoint, server, breaker)
      server.err = unavailable()
      query(endpoint)
      task.sleep(9.9)
      assert.equal("CircuitOpen", select(2, query(endpoint)).kind)
      task.sleep(0.2)
      server.err = nil
      assert.is_table((query(endpoint)))
      assert.same({ "closed", nil }, { breaker.state, breaker.opens_at })
      assert.same({ "open", "half_open", "closed" }, changes)
    end)
  end)

  it("remembers no failure from before it opened", function()
    with_breaker({ minimum = 3, cooldown = 1, window = 1000 }, function(endpoint, server, breaker)
      server.err = unavailable()
      query(endpoint, 3)
      task.sleep(1.1)
      server.err = nil
      query(endpoint)
      server.err = unavailable()
      query(endpoint, 2)
      assert.equal("closed", breaker.state)
    end)
  end)

  it("stays open longer each time the probe fails, up to a limit", function()
    with_breaker({ minimum = 1, cooldown = 10, max_cooldown = 30 }, function(endpoint, server, breaker)
      server.err = unavailable()
      query(endpoint)
      for _, expected in ipairs { 10, 20, 30, 30 } do
        local left = breaker.opens_at - task.now()
        assert.is_true(math.abs(left - expected) < 1e-3, left)
        task.sleep(left + 0.001)
        query(endpoint)
      end
      task.sleep(31)
      server.err = nil
      query(endpoint)
      server.err = unavailable()
      query(endpoint)
      assert.is_true(math.abs(breaker.opens_at - task.now() - 10) < 1e-3)
    end)
  end)

  it("adds at most a fifth to the cool-down", function()
    with_breaker({ minimum = 1, random = function() return 0.5 end }, function(endpoint, server, breaker)
      server.err = unavailable()
      query(endpoint)
      assert.is_true(math.abs(breaker.opens_at - task.now() - 11) < 1e-3)
    end)
  end)

  it("waits for as long as the server asks, within a limit", function()
    for hint, expected in pairs { [25] = 25, [1e9] = 60, [2] = 10 } do
      with_breaker({ minimum = 1 }, function(endpoint, server, breaker)
        server.err = errors.new("TooManyRequests", { retry_after = hint })
        query(endpoint)
        assert.is_true(math.abs(breaker.opens_at - task.now() - expected) < 1e-3)
      end)
    end
  end)

  it("lets a bounded number of probes go at once", function()
    with_breaker({ minimum = 1, probes = 2 }, function(endpoint, server, breaker)
      server.err = unavailable()
      query(endpoint)
      task.sleep(11)
      server.err, server.takes, server.calls = nil, 5, 0
      local results = task.map({ 1, 2, 3, 4 }, function() return endpoint:query {} end, { concurrency = 4 })
      assert.same({ 2, "closed" }, { server.calls, breaker.state })
      local ok = 0
      for _, result in ipairs(results) do
        if result.ok then
          ok = ok + 1
        else
          assert.same({ "CircuitOpen", 1 }, { result.error.kind, result.error.retry_after })
          assert.matches("is being probed", tostring(result.error))
        end
      end
      assert.equal(2, ok)
    end)
  end)

  it("makes room when the caller of a probe leaves", function()
    with_breaker({ minimum = 1 }, function(endpoint, server, breaker)
      server.err = unavailable()
      query(endpoint)
      task.sleep(11)
      server.err, server.takes = nil, 100
      assert.is_nil((task.timeout(1, function() return endpoint:query {} end)))
      assert.equal("half_open", breaker.state)
      server.takes = nil
      assert.is_table((query(endpoint)))
      assert.equal("closed", breaker.state)
    end)
  end)

  it("decides nothing by what was sent before it changed", function()
    with_breaker({ minimum = 1, probes = 1 }, function(endpoint, server, breaker)
      server.takes = 15
      local early = task.spawn(function() return endpoint:query {} end)
      task.sleep(0)
      server.takes, server.err = nil, unavailable()
      query(endpoint)
      task.sleep(11)
      server.takes, server.err = 10, nil
      local prober = task.spawn(function() return endpoint:query {} end)
      early:join()
      assert.same({ "half_open", 1 }, { breaker.state, breaker.passed })
      prober:join()
    end)
    with_breaker({ minimum = 1 }, function(endpoint, server, breaker)
      server.takes = 15
      local late = task.spawn(function() return endpoint:query {} end)
      task.sleep(0)
      server.takes, server.err = nil, unavailable()
      query(endpoint)
      task.sleep(11)
      server.takes, server.err = 10, nil
      local prober = task.spawn(function() return endpoint:query {} end)
      task.sleep(1)
      server.err = unavailable()
      late:join()
      assert.equal("half_open", breaker.state)
      server.err = nil
      prober:join()
      assert.equal("closed", breaker.state)
    end)
  end)

  it("counts what tells of the server, and nothing else", function()
    local counted = {
      TooManyRequests = true, RequestLimitExceeded = true, InternalError = true, DeadlineExceeded = true,
      ConnectError = true, TLSError = true, TimeoutError = true, TruncatedStream = true, ServiceError = true,
      BadRequest = false, Unauthenticated = false, NotFound = false, APIError = false,
      QueueFull = "no", CircuitOpen = "no", ConfigError = "no", Cancelled = "no", TaskCancelled = "no",
    }
    for kind, expected in pairs(counted) do
      with_breaker({ minimum = 1 }, function(endpoint, server, breaker)
        server.err = errors.new(kind)
        query(endpoint)
        assert.equal(expected == true and "open" or "closed", breaker.state, kind)
        assert.equal(expected == false and 1 or 0, breaker.passed, kind)
      end)
    end
    with_breaker({ minimum = 1 }, function(endpoint, server, breaker)
      server.err = errors.new("TimeoutError", { limit = "queue" })
      query(endpoint)
      server.err = "a text"
      query(endpoint)
      assert.equal("closed", breaker.state)
    end)
  end)

  it("never counts a caller that leaves, or a fault of the program", function()
    with_breaker({ minimum = 1 }, function(endpoint, server, breaker)
      server.takes = 10
      assert.is_nil((task.timeout(1, function() return endpoint:query {} end)))
      local job = task.spawn(function() return endpoint:query {} end)
      task.sleep(0)
      job:cancel "enough"
      pcall(job.join, job)
      assert.same({ "closed", 0, 0 }, { breaker.state, breaker.passed, breaker.failed })
    end)
  end)

  it("takes the word of is_failure, and of breaker:record", function()
    local function is_not_found(err) return errors.is(err) and err:is "NotFound" end
    with_breaker({ minimum = 2, is_failure = is_not_found }, function(endpoint, server, breaker)
      server.err = unavailable()
      query(endpoint)
      assert.same({ 1, 0 }, { breaker.passed, breaker.failed })
      server.err = errors.new "NotFound"
      query(endpoint)
      assert.equal("open", breaker.state)
      breaker:record(server.err)
      assert.equal(1, breaker.failed)
    end)
    with_breaker({ minimum = 1 }, function(_, _, breaker)
      breaker:record(unavailable())
      assert.equal("open", breaker.state)
    end)
  end)

  it("counts a stream at its end: how it broke off, and not who left it", function()
    with_breaker({ minimum = 2 }, function(endpoint, server, breaker)
      local whole = assert(endpoint:stream {})
      assert.equal(0, breaker.passed)
      for _ in whole:chunks() do end -- luacheck: ignore
      assert.same({ 1, 0 }, { breaker.passed, breaker.failed })
      local left = assert(endpoint:stream {})
      assert.equal("a", left:next())
      left:close()
      assert.is_true(server.closed)
      assert.same({ 1, 0 }, { breaker.passed, breaker.failed })
      server.breaks = errors.new "TruncatedStream"
      local broken = assert(endpoint:stream {})
      broken:next()
      broken:next()
      assert.equal("TruncatedStream", select(2, broken:next()).kind)
      broken:next()
      assert.same({ "open", 1 }, { breaker.state, breaker.failed })
      assert.equal("CircuitOpen", select(2, endpoint:stream {}).kind)
    end)
  end)

  it("takes a stream that has begun for a good probe", function()
    with_breaker({ minimum = 1 }, function(endpoint, server, breaker)
      server.err = unavailable()
      assert.is_nil((endpoint:stream {}))
      assert.equal("open", breaker.state)
      task.sleep(11)
      server.err, server.breaks = nil, errors.new "TruncatedStream"
      local begun = assert(endpoint:stream {})
      assert.equal("closed", breaker.state)
      assert.is_nil((begun:collect()))
      assert.equal("open", breaker.state)
    end)
  end)

  it("is shared by the endpoints it is put around, and shows its counts", function()
    task.simulate(function()
      local layer, bad, good = layers.breaker { minimum = 1, random = least }, {}, {}
      local first, second = layer(endpoint_of(bad)), layer(endpoint_of(good))
      bad.err = unavailable()
      query(first)
      assert.equal("CircuitOpen", select(2, second:stream {}).kind)
      assert.equal(0, good.calls)
      assert.equal(first.breaker, second.breaker)
      local shown = json.decode(json.encode(first.breaker))
      assert.same({ "open", 0, 1, 1, 1, nil },
        { shown.state, shown.passed, shown.failed, shown.refused, shown.opened, shown._share })
    end)
  end)

  it("is not waited for by a retry, unless that is asked for", function()
    with_breaker({ minimum = 1 }, function(endpoint, server)
      server.err = unavailable()
      query(endpoint)
      server.err = nil
      local started = task.now()
      local value, err = layers.retry {}(endpoint):query {}
      assert.is_nil(value)
      assert.same({ "CircuitOpen", 0, 1 }, { err.kind, task.now() - started, #err.attempts })
      assert.is_table(layers.retry { per_kind = { CircuitOpen = { attempts = 3 } } }(endpoint):query {})
      assert.is_true(task.now() - started >= 10)
      server.err = unavailable()
      query(endpoint)
      server.err = nil
      assert.is_table(layers.retry { retry_on = { "CircuitOpen" } }(endpoint):query {})
    end)
  end)

  it("refuses wrong options", function()
    assert.equal(breaker_layer, layers.breaker)
    for expected, given in pairs {
      ['layers.breaker: option "share" must be a number above 0, at most 1'] = { share = 2 },
      ['layers.breaker: option "minimum"'] = { minimum = 0 },
      ['layers.breaker: unknown option "cooldwn" %(did you mean "cooldown"%?%)'] = { cooldwn = 1 },
    } do
      local _, message = pcall(layers.breaker, given)
      assert.matches(expected, message)
    end
  end)
end)

describe("retry.window", function()
  it("counts what is not older than it", function()
    local counts = window.new(10)
    counts:add(0, true)
    counts:add(5, false)
    counts:add(5.5, false)
    assert.same({ 2, 1 }, { counts:counts(9.9) })
    assert.same({ 2, 0 }, { counts:counts(10.5) })
    assert.same({ 0, 0 }, { counts:counts(1000) })
    counts:add(1e9, true)
    assert.same({ 0, 1 }, { counts:counts(1e9) })
    counts:clear()
    assert.same({ 0, 0 }, { counts:counts(1e9) })
  end)
end)
