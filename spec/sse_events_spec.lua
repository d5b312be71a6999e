-- SPDX-License-Identifier: MIT
local errors = require "sluice.errors"
local helper = require "http_helper"
local http = require "sluice.http"
local response = require "sluice.response"
local sse = require "sluice.sse"
local stream_server = require "stream_server"
local support = require "support"
local task = require "sluice.task"

describe("response:events", function()
  local client, before

  before_each(function()
    before = helper.descriptors()
    client = http.client()
  end)

  after_each(function()
    client:close()
    helper.stop()
    helper.check_descriptors(before)
  end)

  local function open(pieces, fields)
    local server = stream_server.start(function() return pieces, nil, fields end)
    return assert(client:request { url = server.base, stream = true })
  end

  -- What the iterator gives, and what it raises.
  local function collect(res, options)
    local all = {}
    local ok, err = pcall(function()
      for event in res:events(options) do all[#all + 1] = event.data end
    end)
    return all, not ok and err or nil
  end

  it("gives events as they come, over any split", function()
    local res = open { "data: a\n", "\ndata: \xE6", 0.01, "\xB0\xB4\n\n: x\n", "\n" .. "data: c\n\nid: 1\n" }
    assert.are.same({ { "a", "水", "c" } }, { collect(res) })
  end)

  it("gives an event before the next one is there", function()
    local go_on = false
    local res = open { "data: a\n\n", function()
      while not go_on do task.sleep(0.001) end
    end, "data: b\n\n" }
    local seen = {}
    for event in res:events() do
      seen[#seen + 1] = event.data
      go_on = true
    end
    assert.are.same({ "a", "b" }, seen)
  end)

  it("closes the response when the loop is left", function()
    local gone = false
    local res = open { "data: a\n\n", function(connection)
      connection:read()
      gone = true
    end }
    for event in res:events() do
      if event.data == "a" then break end
    end
    local limit = task.now() + 2
    while not gone and task.now() < limit do task.sleep(0.001) end
    assert.is_true(gone)
    assert.is_nil(res:read())
  end)

  it("raises when the connection is cut in the middle of an event", function()
    local all, err = collect(open { "data: a\n\ndata: b", 0.01, false })
    assert.are.same({ "a" }, all)
    assert.is_true(err:is "TruncatedStream" or err:is "ConnectError")
  end)

  it("gives what came before an event that is too large, and raises", function()
    local res = open { "data: a\n\ndata: " .. ("x"):rep(3000) .. "\n\ndata: c\n\n" }
    local all, err = collect(res, { max_event = 1000 })
    assert.are.same({ "a" }, all)
    assert.are.equal("EventTooLarge", err.kind)
  end)

  it("raises for a line that never ends, without keeping it", function()
    local res = open { function(connection)
      local piece = stream_server.chunk(("x"):rep(10000))
      while connection:write(piece) do task.sleep(0) end
    end }
    local all, err = collect(res)
    assert.are.same({}, all)
    assert.are.equal("EventTooLarge", err.kind)
  end)

  it("waits for an event as long as it is told, whatever comments come", function()
    local res = open { "data: a\n\n", function(connection)
      while connection:write(stream_server.chunk ": still here\n\n") do task.sleep(0.005) end
    end }
    local all, err = collect(res, { idle = 0.1 })
    assert.are.same({ "a" }, all)
    assert.are.equal("TimeoutError", err.kind)
    assert.are.equal("idle", err.limit)
    assert.are.equal(1, err.events)
    assert(err.bytes > 20)
    assert(tostring(err):find "after 1 events")
  end)

  it("reads comments for ever without growing", function()
    local count = 0
    local res = response.new {
      status = 200,
      read = function()
        count = count + 1
        return count <= 20000 and (": keep-alive\n\n"):rep(50) or nil
      end,
    }
    assert.are.same({}, (collect(res)))
    collectgarbage()
    assert(collectgarbage "count" < 64 * 1024)
  end)

  it("reads a compressed stream", function()
    local plain = ("data: hello\n\n"):rep(200)
    local packed = support.with_file(plain, function(path)
      return support.shell("gzip -c <" .. support.quote(path)).out
    end)
    local pieces = {}
    for at = 1, #packed, 10 do pieces[#pieces + 1] = packed:sub(at, at + 9) end
    assert.are.equal(200, #collect(open(pieces, "Content-Encoding: gzip\r\n")))
  end)

  it("reads NULs", function()
    assert.are.same({ "a\0b" }, (collect(open { "data: a\0b\n\0\n\n", "\0\0" })))
  end)

  it("lets the reader's pace reach the server", function()
    local written = 0
    local res = open { function(connection)
      local piece = stream_server.chunk("data: " .. ("x"):rep(1016) .. "\n\n")
      while connection:write(piece) do written = written + 1 end
    end }
    local seen = 0
    for event in res:events() do
      assert.are.equal(1016, #event.data)
      seen = seen + 1
      if seen == 3 then break end
      local still
      repeat
        still = written
        task.sleep(0.1)
      until written == still -- nobody reads: the server cannot go on
      assert(written > seen and written < 16 * 1024, written)
    end
  end)
end)

describe("sse.open", function()
  local function of(pieces)
    local at = 0
    return response.new {
      status = 200,
      read = function()
        at = at + 1
        if errors.is(pieces[at]) then return nil, pieces[at] end
        return pieces[at]
      end,
    }
  end

  it("counts events and bytes, and knows the id to go on from", function()
    local source <close> = sse.open(of { "id: 1\ndata: a\n\nretry: 9\nda", "ta: b\n\n" })
    assert.are.equal("a", assert(source:next()).data)
    assert.are.equal(1, source.events)
    assert.are.equal("b", assert(source:next()).data)
    assert.are.same({ 2, 33 }, { source.events, source.bytes })
    assert.are.same({ "1", 9 }, { source:state() })
    assert.are.same({}, { source:next() })
  end)

  it("tells what is there from what has to be waited for", function()
    local source = sse.open(of { "data: a\n\ndata: b\n\n", "data: c\n\n" })
    assert.is_nil(source:ready())
    assert.are.equal("a", assert(source:wait()).data)
    assert.are.equal("b", source:ready().data)
    assert.is_nil(source:ready())
    assert.are.equal("c", assert(source:wait()).data)
    assert.are.same({}, { source:wait() })
    local large = sse.open(of { "data: a\n\ndata: 0123456789\n\n" }, { max_event = 10 })
    assert(large:wait())
    assert.is_false(large:ready())
    assert.are.equal("EventTooLarge", select(2, large:next()).kind)
  end)

  it("leaves the body where its first piece is refused", function()
    local res = of { " \n", "<html>", "the rest" }
    local source = sse.open(res, { accept = function(piece)
      if not piece:find "%S" then return nil end
      return piece:sub(1, 1) ~= "<"
    end })
    assert.are.same({}, { source:next() })
    assert.are.equal("<html>", source.refused)
    assert.are.equal("the rest", res:read())
  end)

  it("gives the same failure again", function()
    local failure = errors.new("ConnectError")
    local source = sse.open(of { "data: a\n\n", failure })
    assert(source:next())
    assert.are.same({ nil, failure }, { source:next() })
    assert.are.same({ nil, failure }, { source:next() })
  end)

  it("keeps to the time it is given, in simulated time too", function()
    task.simulate(function()
      local res = response.new {
        status = 200,
        read = function()
          task.sleep(3)
          return ": x\n"
        end,
      }
      local from = task.now()
      local event, err = sse.open(res, { idle = 10 }):next()
      assert.is_nil(event)
      assert.are.equal("idle", err.limit)
      assert.are.equal(10, task.now() - from)
      assert.are.equal(12, err.bytes)
    end)
  end)
end)
