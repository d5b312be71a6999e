-- SPDX-License-Identifier: MIT
local connections = require "sluice.sse.connection"
local errors = require "sluice.errors"
local helper = require "http_helper"
local response = require "sluice.response"
local sse = require "sluice.sse"
local stream_server = require "stream_server"
local task = require "sluice.task"

-- A transport of these answers, one after the other: { status =, type =, headers =, pieces... }, an err
-- among the pieces breaks it off; an err instead of an answer is a connection that fails.
local function transport_of(answers)
  local transport = { requests = {} }
  function transport.handle(_, request)
    transport.requests[#transport.requests + 1] = request
    local answer = answers[#transport.requests] or { status = 204 }
    if errors.is(answer) then return nil, answer end
    local fields, at = { ["content-type"] = answer.type or "text/event-stream" }, 0
    for name, value in pairs(answer.headers or {}) do fields[name] = value end
    return response.new {
      status = answer.status or 200,
      headers = fields,
      read = function()
        at = at + 1
        if errors.is(answer[at]) then return nil, answer[at] end
        return answer[at]
      end,
    }
  end
  return transport
end

describe("sse.connect", function()
  -- The data of all events, the err at the end, and the waits.
  local function run(answers, given)
    return task.simulate(function()
      local waits, transport = {}, transport_of(answers)
      local options = { url = "http://x/events?secret=1", transport = transport }
      options.on_retry = function(_, delay) waits[#waits + 1] = delay end
      for name, value in pairs(given or {}) do options[name] = value end
      local connection, err = sse.connect(options)
      local all = {}
      while connection do
        local event
        event, err = connection:next()
        if not event then break end
        all[#all + 1] = event.data
      end
      return all, err, waits, transport.requests, connection
    end)
  end

  it("connects again with the last event's id, after the time that the server says", function()
    local all, err, waits, requests, connection = run {
      { "id: 1\nretry: 500\ndata: a\n\nid: 2\ndata: b\n\nid: 3\ndata: lost" },
      { "data: c\n\n" },
      { "id\ndata: d\n\n" },
    }
    assert.are.same({ "a", "b", "c", "d" }, all)
    assert.are.same({ 0.5, 0.5, 0.5 }, waits)
    assert.are.same({ "ProtocolError", 204 }, { err.kind, err.status })
    assert(tostring(err):find("event stream http://x/events:", 1, true), tostring(err))
    local ids = {}
    for index, request in ipairs(requests) do
      ids[index] = request.headers["last-event-id"] or "none"
      assert.are.equal("text/event-stream", request.headers["accept"])
      assert.are.equal("GET", request.method)
    end
    assert.are.same({ "none", "2", "2", "none" }, ids)
    assert.are.equal(3, connection.connects)
    assert.are.same({ nil, err }, { connection:next() })
  end)

  it("does not spin where the server says that it need not wait", function()
    local _, _, waits = run { { "retry: 0\ndata: a\n\n" }, { "data: b\n\n" } }
    assert.are.same({ 0.1, 0.1 }, waits)
  end)

  it("waits longer the more connections fail in a row", function()
    local lost = errors.new("ConnectError")
    local busy = { status = 503, headers = { ["retry-after"] = "20" } }
    local all, _, waits = run({
      { "data: a\n\n", lost }, lost, lost, busy, { "data: b\n\n" }, { status = 404 },
    }, { retry = 1, max_wait = 3 })
    assert.are.same({ "a", "b" }, all)
    assert.are.same({ 1.0, 2.0, 3, 20, 1.0 }, waits)
  end)

  it("gives up after so many of them, and with the first one", function()
    local lost = errors.new("ConnectError")
    local all, err, waits = run({ { "data: a\n\n", lost }, lost, lost, lost }, { attempts = 3 })
    assert.are.same({ { "a" }, lost, 2 }, { all, err, #waits })
    all, err = run { lost }
    assert.are.same({ {}, lost }, { all, err })
  end)

  it("ends with a refusal, and where it shall not connect again", function()
    local _, err, waits = run { { "data: a\n\n" }, { status = 403, "no" } }
    assert.are.same({ "PermissionDenied", 1 }, { err.kind, #waits })
    _, err = run { { type = "text/html", "<html>" } }
    assert.are.same({ "ProtocolError", "NOT_A_STREAM" }, { err.kind, err.code })
    local all
    all, err, waits = run({ { "data: a\n\n" } }, { reconnect = false })
    assert.are.same({ { "a" }, {} }, { all, waits })
    assert.is_nil(err)
    _, err = run({ { "data: " .. ("x"):rep(100) .. "\n\n" } }, { max_event = 50 })
    assert.are.equal("EventTooLarge", err.kind)
  end)

  it("goes on over real connections that are cut", function()
    local seen = {}
    local server = stream_server.start(function(head, _, number)
      seen[#seen + 1] = head:lower():match "last%-event%-id: (%S+)" or "none"
      return { ("id: %d\ndata: %d\n\n"):format(#seen, #seen), 0.01, number and false }
    end)
    local all = {}
    local connection <close> = assert(sse.connect {
      url = server.base, retry = 0.01, last_event_id = "0", headers = { ["x-mine"] = "1" },
    })
    for event in connection:events() do
      all[#all + 1] = event.data
      if #all == 4 then break end
    end
    assert.are.same({ "1", "2", "3", "4" }, all)
    assert.are.same({ "0", "1", "2", "3" }, seen)
    assert.is_nil(connection:next())
    helper.stop()
  end)

  it("checks its options", function()
    for _, wrong in ipairs { {}, { url = 1 }, { url = "x", again = true }, { url = "x", attempts = 0 } } do
      assert.has_error(function() sse.connect(wrong) end)
      assert.has_error(function() connections.new(wrong) end)
    end
    assert.has_error(function() sse.connect() end)
  end)
end)
