-- SPDX-License-Identifier: MIT
-- The time limits of streams, in simulated time.
local json = require "sluice.json"
local response = require "sluice.response"
local sluice = require "sluice"
local stream_server = require "stream_server"
local task = require "sluice.task"

local delta, DONE = stream_server.delta, stream_server.DONE

-- A transport whose answer is these pieces: a number is slept, what is before `head` too.
local function transport_of(pieces, head_after)
  return {
    handle = function()
      task.sleep(head_after or 0)
      local at = 0
      return response.new {
        status = 200,
        headers = { ["content-type"] = "text/event-stream" },
        read = function()
          while true do
            at = at + 1
            local piece = pieces[at]
            if type(piece) ~= "number" then return piece end
            task.sleep(piece)
          end
        end,
      }
    end,
  }
end

-- Repeats pieces.
local function again(count, ...)
  local all = {}
  for _ = 1, count do
    for _, piece in ipairs { ... } do all[#all + 1] = piece end
  end
  return table.unpack(all)
end

describe("time limits of a stream", function()
  -- What comes of reading it all, and after how long.
  local function run(pieces, timeout, head_after)
    return task.simulate(function()
      local transport = transport_of(pieces, head_after)
      local endpoint = sluice.openai { base_url = "http://x/v1", model = "m", transport = transport }
      local from = task.now()
      local stream, err = endpoint:stream({ messages = {} }, { timeout = timeout })
      local answer
      if stream then answer, err = stream:collect() end
      return answer, err, task.now() - from
    end)
  end

  it("first_event: comments and roles are no content", function()
    local role = 'data: {"choices":[{"index":0,"delta":{"role":"assistant","content":""}}]}\n\n'
    local answer, err, took = run({ role, again(100, 1, ": alive\n\n") }, { first_event = 30 })
    assert.is_nil(answer)
    assert.are.same({ "TimeoutError", "first_event", 30.0 }, { err.kind, err.limit, took })
    assert.are.same({ 1, "stream model" }, { err.events, err.operation })
    assert(err.bytes > 300)
    assert(err.message:find("no content within 30 s, after 1 events and", 1, true), err.message)
  end)

  it("idle: counts from content to content", function()
    local answer, err, took = run({ delta "a", 4, delta "b", again(20, 1, ": alive\n\n") }, { idle = 5 })
    assert.is_nil(answer)
    assert.are.same({ "TimeoutError", "idle", "ab", 9.0 }, { err.kind, err.limit, err.partial, took })
  end)

  it("idle: what the reader takes for himself does not count", function()
    task.simulate(function()
      local transport = transport_of { delta "a", 3, delta "b", 3, delta "c", DONE }
      local endpoint = sluice.openai { base_url = "http://x/v1", model = "m", transport = transport }
      local stream = assert(endpoint:stream({ messages = {} }, { timeout = { idle = 5 } }))
      local seen = {}
      for text in stream:text() do
        seen[#seen + 1] = text
        task.sleep(100)
      end
      assert.are.same({ "a", "b", "c" }, seen)
    end)
  end)

  it("total: bounds all of it", function()
    local _, err, took = run({ again(100, delta "a", 1) }, 10)
    assert.are.same({ "TimeoutError", "total", 10.0 }, { err.kind, err.limit, took })
    assert(err.message:find("not complete within 10 s", 1, true))
    _, err, took = run({ delta "a" }, 10, 20)
    assert.are.same({ "TimeoutError", "total", 10.0 }, { err.kind, err.limit, took })
  end)

  it("first_byte: bounds the head", function()
    local _, err, took = run({ delta "a", DONE }, { first_byte = 3 }, 20)
    assert.are.same({ "TimeoutError", "first_byte", 3.0 }, { err.kind, err.limit, took })
  end)

  it("are 300 s to the first content, 60 s between, and none in all", function()
    local _, err, took = run { again(400, 1, ": alive\n\n") }
    assert.are.same({ "first_event", 300.0 }, { err.limit, took })
    _, err, took = run { delta "a", again(400, 1, ": alive\n\n") }
    assert.are.same({ "idle", 60.0 }, { err.limit, took })
    local answer
    local slow = { again(100, 50, delta "a") }
    slow[#slow + 1] = DONE
    answer, err, took = run(slow)
    assert.is_nil(err)
    assert.are.equal(5000.0, took)
    assert.are.equal(100, #answer.choices[1].message.content)
  end)

  it("are the transport's to keep as long as they are not of events", function()
    local limits = require("sluice.stream.chat").transport_limits
    assert.are.same({ idle = math.huge, total = 5 }, limits(5))
    assert.are.same({ idle = math.huge, connect = 1 }, limits { connect = 1, idle = 2, first_event = 3 })
  end)

  it("leave a deadline around it to its owner", function()
    task.simulate(function()
      local transport = transport_of { delta "a", again(100, 1, ": alive\n\n") }
      local endpoint = sluice.openai { base_url = "http://x/v1", model = "m", transport = transport }
      local value, err = task.timeout(5, function()
        return assert(endpoint:stream { messages = {} }):collect()
      end)
      assert.is_nil(value)
      assert.are.equal("task.timeout", err.limit)
    end)
  end)

  it("end with a body that never was a stream", function()
    local _, err, took = run({ "<html>", again(400, 1, "x") }, { first_event = 30 })
    assert.are.equal("NOT_A_STREAM", err.code)
    assert(took <= 5, took)
    assert.are.equal("string", type(json.encode(err)))
  end)
end)
