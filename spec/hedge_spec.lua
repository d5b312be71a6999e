-- SPDX-License-Identifier: MIT
local errors = require "sluice.errors"
local hedge_layer = require "sluice.layers.hedge"
local helper = require "http_helper"
local layers = require "sluice.layers"
local retry = require "sluice.retry"
local sluice = require "sluice"
local stream = require "sluice.stream"
local stream_server = require "stream_server"
local task = require "sluice.task"

-- An endpoint whose n-th request takes the n-th time, and fails with a kind where it is { time, kind }.
local function endpoint_of(times)
  local endpoint = { name = "e", asked = 0, finished = 0, cancelled = 0, closed = 0 }
  local function outcome()
    endpoint.asked = endpoint.asked + 1
    local number = endpoint.asked
    local time = times[number] or times[#times]
    local seconds, kind = time, nil
    if type(time) == "table" then seconds, kind = time[1], time[2] end
    local ended = false
    local _ <close> = setmetatable({}, { __close = function()
      if not ended then endpoint.cancelled = endpoint.cancelled + 1 end
    end })
    task.sleep(seconds)
    ended = true
    endpoint.finished = endpoint.finished + 1
    if kind then return nil, errors.new(kind, { message = "try " .. number }) end
    return number
  end
  function endpoint.query()
    local number, err = outcome()
    if not number then return nil, err end
    return { number = number }
  end
  function endpoint.stream()
    local number, err = outcome()
    if not number then return nil, err end
    return stream.wrap {
      next = function() return nil end,
      close = function() endpoint.closed = endpoint.closed + 1 end,
    }
  end
  return endpoint
end

describe("layers.hedge", function()
  -- What comes of a query, its meta, how long it took.
  local function ask(outer, method)
    local from = task.now()
    local value, err = outer[method or "query"](outer, { x = 1 })
    return value, err, task.now() - from
  end

  it("is a layer of its own name", function()
    assert.are.equal(hedge_layer, layers.hedge)
  end)

  it("sends nothing more while the first try is in time", function()
    task.simulate(function()
      local endpoint = endpoint_of { 1 }
      local outer = layers.hedge { delay = 2 }(endpoint)
      local value, _, took = ask(outer)
      assert.are.same({ 1, 1.0, 1 }, { value.number, took, endpoint.asked })
      assert.is_nil(sluice.meta(value).hedged)
      assert.are.same({ sent = 0, won = 0, refused = 0 }, outer.hedges)
    end)
  end)

  it("takes the second try where that answers first, and cancels the first one", function()
    for _, method in ipairs { "query", "stream" } do
      task.simulate(function()
        local endpoint = endpoint_of { 30, 1 }
        local outer = layers.hedge { delay = 2 }(endpoint)
        local value, _, took = ask(outer, method)
        assert(value)
        assert.are.same({ 3.0, 2, 1 }, { took, endpoint.asked, endpoint.cancelled })
        assert.are.same({ won = 2, delay = 2 }, sluice.meta(value).hedged)
        assert.are.same({ sent = 1, won = 1, refused = 0 }, outer.hedges)
        assert.are.equal(0, endpoint.closed)
      end)
    end
  end)

  it("takes the first try where that answers first after all", function()
    task.simulate(function()
      local endpoint = endpoint_of { 3, 5 }
      local outer = layers.hedge { delay = 2 }(endpoint)
      local value, _, took = ask(outer)
      assert.are.same({ 1, 3.0, 1 }, { value.number, took, endpoint.cancelled })
      assert.are.same({ won = 1, delay = 2 }, sluice.meta(value).hedged)
      assert.are.same({ sent = 1, won = 0, refused = 0 }, outer.hedges)
    end)
  end)

  it("lets go of a stream that comes at the same moment as the winner's", function()
    task.simulate(function()
      local endpoint = endpoint_of { 3, 1 }
      assert(ask(layers.hedge { delay = 2 }(endpoint), "stream"))
      assert.are.equal(2, endpoint.finished + endpoint.cancelled)
      assert.are.equal(1, endpoint.closed + endpoint.cancelled)
    end)
  end)

  it("never lets an error win", function()
    task.simulate(function()
      local value, _, took = ask(layers.hedge { delay = 2 }(endpoint_of { 10, { 1, "InternalError" } }))
      assert.are.same({ 1, 10.0 }, { value.number, took })
      value, _, took = ask(layers.hedge { delay = 2 }(endpoint_of { { 4, "InternalError" }, 10 }))
      assert.are.same({ 2, 12.0 }, { value.number, took })
      local err
      value, err, took = ask(layers.hedge { delay = 2 }(endpoint_of {
        { 5, "InternalError" }, { 1, "BadRequest" },
      }))
      assert.is_nil(value)
      assert.are.same({ "InternalError", "try 1", 5.0 }, { err.kind, err.message, took })
    end)
  end)

  it("does not hedge a failure that comes in time", function()
    task.simulate(function()
      local endpoint = endpoint_of { { 1, "InternalError" } }
      local value, err = ask(layers.hedge { delay = 2 }(endpoint))
      assert.is_nil(value)
      assert.are.same({ "InternalError", 1 }, { err.kind, endpoint.asked })
    end)
  end)

  it("asks another endpoint, if it is given one", function()
    task.simulate(function()
      local first, second = endpoint_of { 30 }, endpoint_of { 1 }
      assert(ask(layers.hedge { delay = 2, endpoint = second }(first)))
      assert.are.same({ 1, 1 }, { first.asked, second.asked })
      local plain = { query = print }
      assert(ask(layers.hedge { delay = 2, endpoint = plain }(endpoint_of { 30, 1 }), "stream"))
    end)
  end)

  it("spends from the allowance of retries", function()
    task.simulate(function()
      local budget = retry.budget { ratio = 0, per_second = 0, burst = 2 }
      local endpoint = endpoint_of { 5 }
      local outer = layers.hedge { delay = 1, budget = budget }(endpoint)
      for _ = 1, 4 do assert(ask(outer)) end
      assert.are.same({ sent = 2, won = 0, refused = 2 }, outer.hedges)
      assert.are.equal(6, endpoint.asked)
      assert.are.equal(2, budget.taken)
      outer = layers.hedge { delay = 1, budget = false }(endpoint)
      for _ = 1, 4 do assert(ask(outer)) end
      assert.are.equal(4, outer.hedges.sent)
    end)
  end)

  it("shares the allowance that the host has, and counts a request once", function()
    task.simulate(function()
      local endpoint = endpoint_of { 5 }
      endpoint.host = "hedge.example"
      local budget = retry.budget_of "hedge.example"
      local left = budget.left
      assert(ask(layers.hedge { delay = 1 }(endpoint)))
      assert(budget.left < left and budget.taken == 1)
      local own = retry.budget { ratio = 0.5, per_second = 0, burst = 9 }
      own:take()
      assert(ask(layers.hedge { delay = 9, budget = own }(layers.retry { budget = own }(endpoint))))
      assert.are.equal(8.5, own.left)
    end)
  end)

  it("learns the delay from the requests before", function()
    task.simulate(function()
      local times = {}
      for index = 1, 50 do times[index] = index % 10 == 0 and 4 or 1 end
      times[#times + 1] = 50
      local first, second = endpoint_of(times), endpoint_of { 1 }
      local outer = layers.hedge { percentile = 0.9, budget = false, endpoint = second }(first)
      for _ = 1, 19 do ask(outer) end
      assert.are.equal(0, outer.hedges.sent) -- too little is known
      for _ = 20, 50 do ask(outer) end
      local value, _, took = ask(outer)
      assert.are.same({ won = 2, delay = 1.0 }, sluice.meta(value).hedged)
      assert.are.equal(2.0, took)
    end)
  end)

  it("ends both tries with its caller", function()
    task.simulate(function()
      local endpoint = endpoint_of { 100 }
      local outer = layers.hedge { delay = 1 }(endpoint)
      local value, err = task.timeout(5, outer.query, outer, {})
      assert.is_nil(value)
      assert.are.same({ "TimeoutError", 2, 2 }, { err.kind, endpoint.asked, endpoint.cancelled })
    end)
  end)

  it("raises what the endpoint raises", function()
    task.simulate(function()
      local outer = layers.hedge { delay = 1 } { query = function() error("a fault", 0) end }
      local ok, err = pcall(outer.query, outer, {})
      assert.is_false(ok)
      assert(tostring(err):find("a fault", 1, true))
    end)
  end)

  it("checks its options", function()
    for _, wrong in ipairs {
      {}, { delay = -1 }, { percentile = 1 }, { delay = 1, budget = {} }, { delay = 1, endpoint = {} },
      { delays = 1 },
    } do
      assert.has_error(function() layers.hedge(wrong) end)
    end
  end)

  describe("on the wire", function()
    after_each(helper.stop)

    it("first content wins, an error frame never does, and the loser's connection is closed", function()
      local delta, DONE = stream_server.delta, stream_server.DONE
      local gone = false
      local answers = {
        { ": slow\n\n", function(connection)
          connection:read()
          gone = true
        end },
        { 'data: {"error":"instant"}\n\n' },
        { delta "here", delta(nil, "stop"), DONE },
      }
      local count = 0
      local server = stream_server.start(function()
        count = count + 1
        return answers[count]
      end)
      local endpoint = sluice.openai { base_url = server.base, model = "m" }
      local outer = sluice.pipeline(endpoint, {
        layers.hedge { delay = 0.05, budget = false }, layers.retry { base = 0.01 },
      })
      local from = task.now()
      local answer = assert(assert(outer:stream { messages = {} }):collect())
      assert.are.equal("here", answer.choices[1].message.content)
      assert.are.equal(2, sluice.meta(answer).hedged.won)
      assert(task.now() - from < 5)
      local limit = task.now() + 2
      while not gone and task.now() < limit do task.sleep(0.001) end
      assert.is_true(gone)
      assert.are.equal(3, count)
    end)
  end)
end)
