-- SPDX-License-Identifier: MIT
local errors = require "sluice.errors"
local layers = require "sluice.layers"
local task = require "sluice.task"

-- An endpoint that notes when it is asked; `answer(count)` may give an err.
local function endpoint_noting(times, answer)
  return {
    name = "e",
    query = function(_, request)
      times[#times + 1] = { at = task.now(), id = request.id }
      local err = answer and answer(#times)
      if err then return nil, err end
      return { id = request.id }
    end,
  }
end

local function near(expected, actual)
  assert.is_true(math.abs(expected - actual) < 1e-3, ("%g expected, got %g"):format(expected, actual))
end

describe("layers.limit", function()
  it("lets the burst through at once and the rest at the rate, in order", function()
    task.simulate(function()
      local times, started = {}, task.now()
      local limited = layers.limit { rate = 10, burst = 5 }(endpoint_noting(times))
      task.scope(function()
        for id = 1, 20 do task.spawn(function() limited:query { id = id } end) end
      end)
      for index, entry in ipairs(times) do
        assert.equal(index, entry.id)
        near(math.max(0, (index - 5) / 10), entry.at - started)
      end
      local limiter = limited.limiter
      assert.same({ 10, 20, 15, 0, 0, 0 },
        { limiter.rate, limiter.passed, limiter.waited, limiter.waiting, limiter.refused, limiter.pauses })
      near((1 + 15) * 15 / 2 / 10, limiter.waited_seconds)
    end)
  end)

  it("lets nobody overtake one who waits", function()
    task.simulate(function()
      local times = {}
      local limited = layers.limit { rate = 1, burst = 1 }(endpoint_noting(times))
      limited:query { id = 1 }
      task.scope(function()
        task.spawn(function()
          task.sleep(1) -- the moment at which the token is there
          limited:query { id = 3 }
        end)
        task.spawn(function() limited:query { id = 2 } end)
      end)
      assert.same({ 1, 2, 3 }, { times[1].id, times[2].id, times[3].id })
    end)
  end)

  it("saves up a burst in a rest, not more", function()
    task.simulate(function()
      local times = {}
      local limited = layers.limit { rate = 2 }(endpoint_noting(times))
      task.sleep(100)
      local started = task.now()
      for id = 1, 4 do limited:query { id = id } end
      near(1, task.now() - started)
    end)
  end)

  it("shares the rate among the endpoints it is put around", function()
    task.simulate(function()
      local times, started = {}, task.now()
      local layer = layers.limit { rate = 1 }
      local a, b = layer(endpoint_noting(times)), layer(endpoint_noting(times))
      a:query { id = 1 }
      b:query { id = 2 }
      near(1, task.now() - started)
    end)
  end)

  it("shuts the gate for as long as a 429 says", function()
    task.simulate(function()
      local times, started = {}, task.now()
      local limited = layers.limit { rate = 100, burst = 50 }(endpoint_noting(times, function(count)
        if count == 1 then return errors.new("TooManyRequests", { status = 429, retry_after = 30 }) end
      end))
      local _, err = limited:query { id = 1 }
      assert.equal("TooManyRequests", err.kind)
      task.scope(function()
        for id = 2, 5 do task.spawn(function() limited:query { id = id } end) end
      end)
      for index = 2, 5 do near(30 + (index - 2) / 100, times[index].at - started) end
      assert.equal(1, limited.limiter.pauses)
    end)
  end)

  it("does not believe a pause that is too long, nor one without a time", function()
    task.simulate(function()
      local times, started = {}, task.now()
      local limited = layers.limit { rate = 100, max_pause = 5 }(endpoint_noting(times, function(count)
        if count == 1 then return errors.new("TooManyRequests", { status = 429 }) end
        if count == 2 then return errors.new("TooManyRequests", { status = 429, retry_after = 1e9 }) end
      end))
      for id = 1, 3 do limited:query { id = id } end
      near(0, times[2].at - started)
      near(5, times[3].at - started)
    end)
  end)

  it("turns away what the queue has no place or no time for", function()
    task.simulate(function()
      local times = {}
      local limited = layers.limit { rate = 1, burst = 1, max_queue = 2, queue_timeout = 1.5 }(
        endpoint_noting(times))
      local results = task.map({ 1, 2, 3, 4 }, function(id) return limited:query { id = id } end)
      assert.is_true(results[1].ok and results[2].ok)
      local late, full = results[3].error, results[4].error
      assert.same({ "TimeoutError", "queue" }, { late.kind, late.limit })
      assert.is_nil(late.maybe_executed)
      assert.is_true(late.retryable)
      assert.same({ "QueueFull", 3 }, { full.kind, full.retry_after })
      assert.matches("query e: waited 1.5 s for the limit of 1 requests a second", tostring(late))
      assert.same({ 2, 2, 0 }, { limited.limiter.passed, limited.limiter.refused, limited.limiter.waiting })
    end)
  end)

  it("gives its place back when the one who waits is cancelled", function()
    task.simulate(function()
      local times, started = {}, task.now()
      local limited = layers.limit { rate = 1, burst = 1 }(endpoint_noting(times))
      limited:query { id = 1 }
      local waits = task.spawn(function() limited:query { id = 2 } end)
      local next_one = task.spawn(function() limited:query { id = 3 } end)
      task.sleep(0.5)
      assert.equal(2, limited.limiter.waiting)
      waits:cancel()
      pcall(waits.join, waits)
      next_one:join()
      near(1, times[2].at - started)
      assert.equal(3, times[2].id)
      assert.equal(0, limited.limiter.waiting)
    end)
  end)

  it("counts streams as well", function()
    task.simulate(function()
      local started = task.now()
      local limited = layers.limit { rate = 1 }({ query = print, stream = function() return { "s" } end })
      assert.same({ "s" }, limited:stream {})
      limited:stream {}
      near(1, task.now() - started)
    end)
  end)

  it("refuses a rate that is none", function()
    for _, rate in ipairs { 0, -1, math.huge, 0 / 0 } do
      assert.has_error(function() layers.limit { rate = rate } end)
    end
    local _, message = pcall(function() layers.limit {} end)
    assert.matches('limit_spec.lua:%d+: layers.limit: option "rate" is missing', message)
  end)

  it("shows its counts in JSON", function()
    local endpoint = layers.limit { rate = 5 } { query = function() return {} end }
    endpoint:query {}
    assert.equal('{"passed":1,"pauses":0,"rate":5,"refused":0,"waited":0,"waited_seconds":0,"waiting":0}',
      require("sluice.json").encode(endpoint.limiter, { canonical = true }))
  end)
end)
