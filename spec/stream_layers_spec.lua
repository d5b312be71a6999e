-- SPDX-License-Identifier: MIT
-- What the layers do to streams.
local errors = require "sluice.errors"
local json = require "sluice.json"
local layers = require "sluice.layers"
local log = require "sluice.log"
local sluice = require "sluice"
local stream = require "sluice.stream"
local task = require "sluice.task"

local function chunk(content, usage)
  local choice = { index = 0, delta = { content = content }, finish_reason = not content and "stop" or nil }
  return { choices = { choice }, usage = usage }
end

-- An endpoint of the user's own: chunks, a number is slept, an err fails. It knows whether it was closed.
local function endpoint_of(pieces)
  local endpoint = { name = "own", closed = 0, opened = 0 }
  function endpoint.query() error "not here" end
  function endpoint.stream()
    endpoint.opened = endpoint.opened + 1
    local at = 0
    local source = {}
    function source.next()
      while true do
        at = at + 1
        local piece = pieces[at]
        if errors.is(piece) then return nil, piece end
        if type(piece) ~= "number" then return piece, piece and "event " .. at end
        task.sleep(piece)
      end
    end
    function source.close() endpoint.closed = endpoint.closed + 1 end
    return stream.wrap(source)
  end
  return endpoint
end

describe("layers.timeout", function()
  it("cuts a stream at its total, whatever endpoint it is of", function()
    task.simulate(function()
      local endpoint = endpoint_of { chunk "a", 3, chunk "b", 100, chunk "c" }
      local from = task.now()
      local opened = assert(layers.timeout(10)(endpoint):stream {})
      local answer, err = opened:collect()
      assert.is_nil(answer)
      assert.are.same({ "TimeoutError", "total", "ab", 10.0 },
        { err.kind, err.limit, err.partial, task.now() - from })
      assert(tostring(err):find("stream own: not complete within the 10 s", 1, true), tostring(err))
      assert(endpoint.closed >= 1)
    end)
  end)

  it("leaves a stream that is in time as it is", function()
    task.simulate(function()
      local layer = layers.timeout { total = 10, idle = 3 }
      local opened = assert(layer(endpoint_of { chunk "a", 3, chunk() }):stream {})
      assert.are.same({ chunk "a", "event 1" }, { opened:next() })
      assert.are.equal("a", assert(opened:collect()).choices[1].message.content)
    end)
  end)

  it("cuts the wait for its beginning", function()
    task.simulate(function()
      local slow = { query = print, name = "slow", stream = function() task.sleep(20) end }
      local opened, err = layers.timeout(10)(slow):stream {}
      assert.is_nil(opened)
      assert.are.same({ "TimeoutError", "total", "stream" }, { err.kind, err.limit, err.operation })
    end)
  end)
end)

describe("stream.watch", function()
  local function watched(source, ...)
    local told, opened = {}, nil
    for index = 1, select("#", ...) do
      local name = select(index, ...)
      opened = stream.watch(opened or source, function(of, how, err)
        told[#told + 1] = { name, of, how, err }
      end)
    end
    return opened, told
  end

  it("tells once how a stream ended, inner layers first", function()
    local usage = { total_tokens = 7 }
    local endpoint = endpoint_of { chunk("a", usage), chunk "b" }
    local opened, told = watched(endpoint.stream(), "inner", "outer")
    assert.are.same({ chunk("a", usage), "event 1" }, { opened:next() })
    assert.are.same({ usage, "a" }, { opened:usage(), opened:so_far() })
    opened:next()
    assert.are.same({}, told)
    assert.is_nil(opened:next())
    opened:next()
    opened:close()
    assert.are.same({ { "inner", opened, "done" }, { "outer", opened, "done" } }, told)
    assert.are.same({ usage, "ab" }, { opened:usage(), opened:so_far() })
    assert.are.equal(1, endpoint.closed)
  end)

  it("tells of a failure, of a reader who leaves, and of an end before", function()
    local failure = errors.new("TooManyRequests", { message = "slow down" })
    local opened, told = watched(endpoint_of { failure }.stream(), "one")
    assert.are.same({ nil, failure }, { opened:next() })
    assert.are.same({ { "one", opened, "failed", failure } }, told)
    local _, late = watched(opened, "late")
    assert.are.same({ { "late", opened, "failed", failure } }, late)
    local left, told_of_left = watched(endpoint_of { chunk "a" }.stream(), "one")
    left:close()
    assert.are.same({ { "one", left, "closed" } }, told_of_left)
  end)

  it("passes a raise on", function()
    local opened, told = watched({ next = function() error("gone", 0) end, close = print }, "one")
    assert.are.same({ false, "gone" }, { pcall(opened.next, opened) })
    assert.are.same({ false, "gone" }, { pcall(opened.next, opened) })
    assert.are.same({ { "one", opened, "raised", "gone" } }, told)
  end)
end)

describe("layers.log", function()
  -- The lines that are written while f runs.
  local function lines_of(f)
    local lines = {}
    local previous = log.set_output(function(line)
      local decoded = assert(json.decode(line))
      if decoded.event ~= "query_start" then lines[#lines + 1] = decoded end
    end)
    local ok, err = pcall(task.simulate, f)
    log.set_output(previous)
    assert(ok, err)
    return lines
  end

  it("writes the line of a stream at its end", function()
    local usage = { prompt_tokens = 3, completion_tokens = 2 }
    local lines = lines_of(function()
      local opened = assert(layers.log {}(endpoint_of { chunk "a", 2, chunk(nil, usage) }):stream {})
      sluice.meta(opened).ttft = 0.5
      assert.are.same({ chunk "a", "event 1" }, { opened:next() })
      assert(opened:collect())
      opened:close()
    end)
    assert.are.equal(1, #lines)
    local line = lines[1]
    assert.are.same({ "info", "query_success", true, "own", 2000, 500, 3, 2 }, {
      line.level, line.event, line.streamed, line.endpoint, line.duration_ms, line.ttft_ms, line.input_tokens,
      line.output_tokens,
    })
    assert.is_nil(line.aborted)
  end)

  it("tells of a failure, before the stream and in it", function()
    local lines = lines_of(function()
      local failure = errors.new("TooManyRequests", { message = "slow down", status = 429 })
      assert.is_nil((assert(layers.log {}(endpoint_of { chunk "a", failure }):stream {}):collect()))
      local broken = { query = print, stream = function() return nil, failure end }
      assert.is_nil((layers.log {}(broken):stream {}))
      local raising = { next = function() error(failure, 0) end, close = print }
      local raiser = { query = print, stream = function() return raising end }
      assert.has_error(function() assert(layers.log {}(raiser):stream {}):collect() end)
    end)
    assert.are.equal(3, #lines)
    for _, line in ipairs(lines) do
      assert.are.same({ "error", "query_error", 429, "TooManyRequests" },
        { line.level, line.event, line.status, line.error_kind })
    end
  end)

  it("tells of a reader who leaves", function()
    local lines = lines_of(function()
      for _ in assert(layers.log {}(endpoint_of { chunk "a", chunk "b" }):stream {}):text() do
        if task then break end
      end
    end)
    assert.are.equal(1, #lines)
    assert.are.same({ "info", "query_success", true }, { lines[1].level, lines[1].event, lines[1].aborted })
  end)

  it("tells what came, where it is asked to", function()
    local lines = lines_of(function()
      local chat = layers.log { content = true, start = false }(endpoint_of { chunk "a", chunk "b" })
      assert(assert(chat:stream { prompt = "p" }):collect())
    end)
    assert.are.same({ "p", "ab" }, { lines[1].input, lines[1].output })
  end)
end)

describe("layers around a stream", function()
  it("pass its events, its facts and its methods through", function()
    task.simulate(function()
      local endpoint = endpoint_of { chunk "a", chunk(nil, { total_tokens = 5 }) }
      local outer = sluice.pipeline(endpoint, {
        layers.log { level = "debug" }, layers.retry {}, layers.breaker {}, layers.limit { tokens = 100 },
        layers.timeout(30),
      })
      local opened <close> = assert(outer:stream { messages = {} })
      assert.is_true(stream.is(opened))
      assert.are.same({ chunk "a", "event 1" }, { opened:next() })
      assert.are.same({ total_tokens = 5 }, assert(opened:collect()).usage)
    end)
  end)
end)
