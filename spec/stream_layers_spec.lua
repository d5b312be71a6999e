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

describe("layers.log", function()
  -- The lines that are written while f runs.
  local function lines_of(f)
    local lines = {}
    local previous = log.set_output(function(line) lines[#lines + 1] = assert(json.decode(line)) end)
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
    assert.are.same({ "info", "stream", "own", 2000, 500, 3, 2 }, {
      line.level, line.operation, line.endpoint, line.duration_ms, line.ttft_ms, line.prompt_tokens,
      line.completion_tokens,
    })
    assert.is_nil(line.closed_early)
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
      assert.are.same({ "error", 429, "TooManyRequests" }, { line.level, line.status, line.error.kind })
    end
  end)

  it("tells of a reader who leaves", function()
    local lines = lines_of(function()
      for _ in assert(layers.log {}(endpoint_of { chunk "a", chunk "b" }):stream {}):text() do
        if task then break end
      end
    end)
    assert.are.equal(1, #lines)
    assert.are.same({ "info", true }, { lines[1].level, lines[1].closed_early })
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
