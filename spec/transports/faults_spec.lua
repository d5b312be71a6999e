-- SPDX-License-Identifier: MIT
local faults = require "sluice.transports.faults"
local in_process = require "sluice.transports.in_process"
local meta = require "sluice.meta"
local sluice = require "sluice"
local task = require "sluice.task"

-- A model behind faults: the transport, and how often the model was asked.
local function behind(...)
  local asked = { count = 0, closed = 0 }
  local model = in_process(function(request)
    asked.count = asked.count + 1
    if request.path ~= "/stream" then return { json = { answer = 42 } } end
    local count = 0
    return {
      headers = { ["content-type"] = "text/event-stream" },
      body = function()
        count = count + 1
        return count <= 3 and ("data: %d\n\n"):format(count) or nil
      end,
      close = function() asked.closed = asked.closed + 1 end,
    }
  end)
  return faults { inner = model, rules = { ... } }, asked
end

local WHOLE <const> = { url = "http://h/whole" }
local STREAM <const> = { url = "http://h/stream", stream = true }

-- The pieces of a streamed answer and the err after them.
local function read(res)
  local pieces = {}
  while true do
    local piece, err = res:read()
    if not piece then return pieces, err end
    pieces[#pieces + 1] = piece
  end
end

describe("transports.faults", function()
  it("lets pass what no rule hits", function()
    local transport = behind({ kind = "refuse", path = "/other" }, { kind = "reset", skip = 1, times = 1 })
    assert.equal('{"answer":42}', transport:handle(WHOLE).body)
    assert.equal("ConnectError", select(2, transport:handle(WHOLE)).kind)
    local res = transport:handle(WHOLE)
    assert.equal(42, res:json().answer)
    assert.is_nil(meta.get(res).fault)
    assert.same({ 3, 1 }, { transport.rules:list()[2].seen, transport.rules:list()[2].hits })
    assert.equal(faults, sluice.transports.faults)
  end)

  it("refuses and resets, before the work and after it", function()
    local transport, asked = behind({ kind = "refuse", times = 1 }, { kind = "reset", times = 1 },
      { kind = "reset", after = true, times = 1 })
    local _, err = transport:handle(WHOLE)
    assert.same({ "ConnectError", "connect", true, nil, 0 },
      { err.kind, err.phase, err.retryable, err.maybe_executed, asked.count })
    assert.equal("GET http://h/whole: connection refused (fault rule 1) (ConnectError)", tostring(err))
    assert.same({ id = 1, kind = "refuse" }, meta.get(err).fault)
    _, err = transport:handle(WHOLE)
    assert.same({ "ConnectError", "first_byte", true, 0 },
      { err.kind, err.phase, err.maybe_executed, asked.count })
    _, err = transport:handle(WHOLE)
    assert.same({ "ConnectError", 1 }, { err.kind, asked.count })
  end)

  it("answers something else, before the work and after it", function()
    local transport, asked = behind(
      { kind = "status", status = 503, headers = { ["retry-after"] = "3" }, json = { message = "no" },
        times = 1 },
      { kind = "html", times = 1 }, { kind = "bad_json", times = 1 },
      { kind = "status", status = 500, after = true })
    local res = transport:handle(WHOLE)
    assert.same({ 503, "3", '{"message":"no"}' }, { res.status, res.headers["retry-after"], res.body })
    res = transport:handle(STREAM)
    assert.same({ 200, "text/html; charset=utf-8" }, { res.status, res.headers["content-type"] })
    assert.matches("^<!DOCTYPE html>", res.body)
    assert.is_nil((transport:handle(WHOLE):json()))
    assert.equal(0, asked.count)
    res = transport:handle(STREAM)
    assert.same({ 500, "", 1, 1 }, { res.status, res.body, asked.count, asked.closed })
    assert.same({ id = 4, kind = "status" }, meta.get(res).fault)
  end)

  it("makes typed errors of an endpoint's answers", function()
    local transport = behind(
      { kind = "status", status = 429, times = 1, headers = { ["Retry-After"] = "7" } },
      { kind = "html", times = 1 }, { kind = "bad_json", times = 1 },
      { kind = "truncate", bytes = 3, times = 1 }, { kind = "reset", times = 1 })
    local endpoint = sluice.openai { transport = transport, model = "m" }
    local kinds = {}
    for index = 1, 6 do
      local reply, err = endpoint:query { messages = {} }
      kinds[index] = reply and reply.answer or err.kind
      if index == 1 then assert.equal(7, err.retry_after) end
    end
    local wanted = { "TooManyRequests", "ProtocolError", "JsonError", "TruncatedStream", "ConnectError", 42 }
    assert.same(wanted, kinds)
  end)

  it("spoils the body of whole answers", function()
    local transport = behind({ kind = "truncate", bytes = 5, times = 1 },
      { kind = "truncate", bytes = 5, clean = true, times = 1 }, { kind = "split", size = 1, times = 1 })
    local _, err = transport:handle(WHOLE)
    assert.same({ "TruncatedStream", "body" }, { err.kind, err.phase })
    local res = transport:handle(WHOLE)
    assert.same({ '{"ans', nil }, { res.body, res.headers["content-length"] })
    assert.equal('{"answer":42}', transport:handle(WHOLE).body)
  end)

  it("spoils the body of streamed answers", function()
    local transport, asked = behind({ kind = "split", sizes = { 4, 100 }, times = 1 },
      { kind = "truncate", bytes = 12, times = 1 }, { kind = "reset", bytes = 3, times = 1 },
      { kind = "truncate", bytes = 9, clean = true })
    assert.same({ "data", ": 1\n\ndata: 2\n\ndata: 3\n\n" }, (read(transport:handle(STREAM))))
    local pieces, err = read(transport:handle(STREAM))
    assert.same({ { "data: 1\n\n", "dat" }, "TruncatedStream" }, { pieces, err.kind })
    pieces, err = read(transport:handle(STREAM))
    assert.same({ { "dat" }, "TruncatedStream" }, { pieces, err.kind })
    pieces, err = read(transport:handle(STREAM))
    assert.same({ "data: 1\n\n" }, pieces)
    assert.is_nil(err)
    assert.equal(4, asked.closed)
  end)

  it("takes its time within the limits of the request", function()
    task.simulate(function()
      local transport = behind({ kind = "delay", seconds = 2, times = 1 },
        { kind = "stall", seconds = 3, times = 1 }, { kind = "stall", times = 2 },
        { kind = "drip", pause = 1, times = 1 },
        { kind = "stall", bytes = 4, times = 1 }, { kind = "drip", bytes_per_second = 1, times = 1 },
        { kind = "delay", seconds = 5, after = true, times = 1 })
      local function ask(request)
        local started = task.now()
        local res, err = transport:handle(request)
        local pieces
        if res then pieces, err = read(res) end
        return { pieces and #pieces, err and err.kind, err and err.limit, task.now() - started }
      end
      assert.same({ 1, nil, nil, 2 }, ask(WHOLE))
      assert.same({ 3, nil, nil, 3 }, ask(STREAM))
      assert.same({ nil, "TimeoutError", "first_byte", 300 }, ask(STREAM))
      assert.same({ nil, "TimeoutError", "total", 4 }, ask { url = "http://h/", timeout = 4 })
      assert.same({ 3, nil, nil, 3 }, ask(STREAM))
      assert.same({ 1, "TimeoutError", "idle", 60 }, ask(STREAM))
      assert.same({ nil, "TimeoutError", "total", 5.5 }, ask { url = "http://h/", timeout = 5.5 })
      assert.same({ 1, nil, nil, 5 }, ask(WHOLE))
    end)
  end)

  it("is the same again with the same seed", function()
    local function draw(seed)
      local transport = faults { inner = in_process(function() return "" end), seed = seed,
        rules = { { kind = "status", status = 503, probability = 0.5 } } }
      local row = {}
      for index = 1, 40 do row[index] = transport:handle(WHOLE).status end
      return row
    end
    assert.same(draw(3), draw(3))
    assert.not_same(draw(3), draw(4))
  end)

  it("refuses what is no transport and no rule", function()
    local _, text = pcall(function() faults { inner = {} } end)
    assert.matches("faults_spec.lua:%d+: transports.faults: inner is no transport", text)
    _, text = pcall(function() faults { rules = { { kind = "nothing" } } } end)
    assert.matches('faults_spec.lua:%d+: rule 1: fault rule: unknown kind "nothing"', text)
  end)
end)
