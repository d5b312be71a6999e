-- SPDX-License-Identifier: MIT
-- Servers that stop, lie or flood: at each point a typed error, a limit that holds, a cancellation
-- that closes the connection, and nothing left.
local errors = require "sluice.errors"
local helper = require "http_helper"
local http = require "sluice.http"
local task = require "sluice.task"

local CHUNKED = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n"

-- What comes before the server stops; the kind where it then closes.
local STOPS = {
  { "before any byte", "", "ConnectError" },
  { "in the status line", "HTTP/1.1 20", "ConnectError", "TruncatedStream" },
  { "in a header's name", "HTTP/1.1 200 OK\r\nContent-Le", "TruncatedStream" },
  { "in a header's value", "HTTP/1.1 200 OK\r\nContent-Length: 1", "TruncatedStream" },
  { "before the end of the head", "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n", "TruncatedStream" },
  { "after a 100", "HTTP/1.1 100 Continue\r\n\r\n", "TruncatedStream", "ConnectError" },
  { "before the body", "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n", "TruncatedStream" },
  { "in the body", "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc", "TruncatedStream" },
  { "in a chunk's size", CHUNKED .. "\r\n1", "TruncatedStream" },
  { "in a chunk", CHUNKED .. "\r\n5\r\nabc", "TruncatedStream" },
  { "behind a chunk", CHUNKED .. "\r\n3\r\nabc\r\n", "TruncatedStream" },
  { "before the last line end", CHUNKED .. "\r\n3\r\nabc\r\n0\r\n", "TruncatedStream" },
  {
    "in compressed bytes",
    CHUNKED .. "Content-Encoding: gzip\r\n\r\n4\r\n\x1f\x8b\x08\x00\r\n",
    "TruncatedStream",
  },
}

describe("sluice.http and bad input", function()
  local client, before

  setup(function()
    pcall(http.request, { url = "http://127.0.0.1:1" })
  end)

  before_each(function()
    before = helper.descriptors()
    client = http.client()
  end)

  after_each(function()
    assert.are.equal(0, client:stats().active)
    client:close()
    helper.stop()
    helper.check_descriptors(before)
  end)

  local function failure(given, ...)
    local res, err = helper.ticking(client.request, client, given)
    assert.is_nil(res)
    assert.is_true(errors.is(err), tostring(err))
    local kinds = { ... }
    for _, kind in ipairs(kinds) do
      if err.kind == kind then return err end
    end
    error(("%s, not %s"):format(err, table.concat(kinds, " or ")), 2)
  end

  -- Sends the bytes and stays; `gone()` tells when the client has left.
  local function stalling(bytes)
    local left = false
    local server = helper.serve(function(connection)
      connection:read()
      if bytes ~= "" then connection:write(bytes) end
      while connection:read() do task.sleep(0) end
      left = true
    end)
    return server, function() return left end
  end

  for _, stop in ipairs(STOPS) do
    local where, bytes, kind, other = table.unpack(stop)

    it("that ends " .. where .. " is a typed error", function()
      failure({ url = helper.serve_bytes(bytes).base }, kind, other)
      local res, err = client:request { url = helper.serve_bytes(bytes).base, stream = true }
      if res then err = select(2, res:text()) end
      assert.is_true(errors.is(err), tostring(err))
    end)

    it("that stalls " .. where .. " meets the limits", function()
      local server, gone = stalling(bytes)
      local given = { url = server.base, timeout = { first_byte = 0.02, idle = 0.02 } }
      failure(given, "TimeoutError")
      helper.wait_until(gone)
    end)

    it("that stalls " .. where .. " is left at once when the task is cancelled", function()
      for _, stream in ipairs { false, true } do
        local server, gone = stalling(bytes)
        local waiting = task.spawn(function()
          local res = client:request { url = server.base, stream = stream }
          return res and res:text()
        end)
        task.sleep(0.01)
        waiting:cancel("enough")
        local ok, raised = pcall(waiting.join, waiting)
        assert.is_false(ok)
        assert.are.equal("TaskCancelled", raised.kind)
        helper.wait_until(gone)
        assert.are.same({ open = 0, idle = 0, active = 0, waiting = 0 }, client:stats())
      end
    end)
  end

  it("refuses a gigabyte early, told or untold", function()
    for _, head in ipairs { "Content-Length: 1073741824\r\n", "", "Transfer-Encoding: chunked\r\n" } do
      local written, block = 0, ("x"):rep(65536)
      if head:find "chunked" then block = "10000\r\n" .. block .. "\r\n" end
      local server = helper.serve(function(connection)
        connection:read()
        connection:write("HTTP/1.1 200 OK\r\n" .. head .. "\r\n")
        while written < 1 << 30 and connection:write(block) do written = written + #block end
      end)
      local err = failure({ url = server.base, max_response = 1 << 20 }, "ProtocolError")
      assert.are.equal("RESPONSE_TOO_LARGE", err.code)
      -- what was on its way: the buffers of both sockets
      assert.is_true(written < 20 << 20, ("%d bytes went out"):format(written))
    end
  end)

  it("refuses a header of a megabyte, and a head of many", function()
    local long = "HTTP/1.1 200 OK\r\nX-Long: " .. ("x"):rep(1 << 20) .. "\r\n\r\n"
    assert.are.equal("HEAD_TOO_LARGE", failure({ url = helper.serve_bytes(long).base }, "ProtocolError").code)
    local field = "X-Field: " .. ("x"):rep(100) .. "\r\n"
    local many = helper.serve_bytes("HTTP/1.1 200 OK\r\n" .. field:rep(10000) .. "\r\n")
    assert.are.equal("HEAD_TOO_LARGE", failure({ url = many.base }, "ProtocolError").code)
  end)

  it("gives no bytes behind the end of an answer to the next one", function()
    local extra = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil"
    for _, pause in ipairs { 0, 0.005 } do
      local server = helper.serve(function(connection)
        while connection:read() do
          connection:write(helper.answer("good"))
          if pause > 0 then task.sleep(pause) end
          connection:write(extra)
        end
      end)
      for _ = 1, 3 do
        local res = assert(client:request { url = server.base })
        assert.are.equal("good", res.body)
        task.sleep(2 * pause)
      end
      assert.are.equal(3, server.accepted)
    end
  end)

  it("sends a POST once, on a connection without a late 408 on it", function()
    local bodies = {}
    local server = helper.serve(function(connection, number)
      local rest = ""
      while true do
        local head, body
        head, body, rest = helper.read_request(connection, rest)
        if not head then return end
        bodies[#bodies + 1] = body
        connection:write(helper.answer("ok"))
        if number == 1 then
          task.sleep(0.002)
          connection:write("HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\n\r\n")
        end
      end
    end)
    for index = 1, 3 do
      local res = assert(client:request { url = server.base, body = "post " .. index })
      assert.are.equal(200, res.status)
      task.sleep(0.005)
    end
    assert.are.same({ "post 1", "post 2", "post 3" }, bodies)
    assert.are.equal(2, server.accepted)
  end)

  it("refuses lengths that say two things or nothing", function()
    for _, fields in ipairs {
      "Content-Length: 3\r\nContent-Length: 4\r\n", "Content-Length: 3, 4\r\n", "Content-Length: -3\r\n",
      "Content-Length: 0x3\r\n", "Content-Length:\r\n", "Content-Length: three\r\n",
      "Content-Length: 3 4\r\n", "Content-Length: 99999999999999999999999\r\n",
    } do
      local server = helper.serve_bytes("HTTP/1.1 200 OK\r\n" .. fields .. "\r\nabc")
      failure({ url = server.base }, "ProtocolError")
    end
    local twice = "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\nabc"
    assert.are.equal("abc", client:request({ url = helper.serve_bytes(twice).base }).body)
  end)

  it("refuses NULs in the head, and gives those of the body", function()
    for _, bytes in ipairs {
      "HTTP/1.1 200 OK\r\nA: b\0c\r\n\r\n", "HTTP/1.1 200 OK\r\nA\0: b\r\n\r\n",
      "HTTP/1.1 200 O\0K\r\n\r\n", "\0HTTP/1.1 200 OK\r\n\r\n",
    } do
      failure({ url = helper.serve_bytes(bytes).base }, "ProtocolError")
    end
    local body = helper.serve_bytes(helper.answer("a\0b"))
    assert.are.equal("a\0b", client:request({ url = body.base }).body)
  end)
end)
