-- SPDX-License-Identifier: MIT
-- How a streamed body is read: with a time for each piece, and as a stream of events.
local helper = require "http_helper"
local http = require "sluice.http"
local response = require "sluice.response"
local task = require "sluice.task"

describe("reading a streamed answer", function()
  local client

  before_each(function() client = http.client() end)

  after_each(function()
    client:close()
    helper.stop()
  end)

  it("waits for a piece as long as it is told: res:read(seconds)", function()
    local server = helper.serve(function(connection)
      connection:read()
      connection:write "HTTP/1.1 200 OK\r\nX-Kept: yes\r\n\r\n"
      for index = 1, 3 do
        task.sleep(0.04)
        connection:write(tostring(index))
      end
      task.sleep(10)
    end)
    local res = assert(client:request { url = server.base, stream = true })
    for index = 1, 3 do assert.are.equal(tostring(index), res:read(0.5)) end -- 0.5 s each
    assert.are.equal("yes", res.headers["x-kept"])
    local began = task.now()
    local piece, err = res:read(0.1)
    local took = task.now() - began
    assert.is_nil(piece)
    assert.are.same({ "TimeoutError", "read" }, { err.kind, err.limit })
    assert.is_true(took >= 0.099 and took < 5, tostring(took))
    assert.are.equal(err, select(2, res:read()))
    assert.are.same({ open = 0, idle = 0, active = 0, waiting = 0 }, client:stats())
    assert.are.equal(err.message, response.late(0.1).message)
  end)

  it("reads large event streams beside other answers", function()
    local body = ("data: " .. ("x"):rep(5000) .. "\n\n"):rep(60)
    local server = helper.serve_bytes(
      ("HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s"):format(#body, body))
    for index = 1, 6 do
      local accept = index % 2 == 0 and "text/event-stream" or "*/*"
      local res = assert(client:request { url = server.base, stream = true, headers = { accept = accept } })
      assert.are.equal(body, res:text())
    end
  end)

  -- Begins its answer before it has read the body, or after, and says in the end what the body was.
  local function serve_early(size, reads_first)
    return helper.serve(function(connection)
      for _ = 1, 2 do
        local head, body = "", nil
        while not head:find("\r\n\r\n", 1, true) do head = head .. assert(connection:read()) end
        if reads_first then _, body = helper.read_request(connection, head) end
        connection:write "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
        task.sleep(0.05)
        if not reads_first then _, body = helper.read_request(connection, head) end
        local said = body == ("y"):rep(size) and "same" or "other"
        connection:write(("%x\r\n%s\r\n0\r\n\r\n"):format(#said, said))
      end
    end)
  end

  it("lets go of the request's body once it was sent", function()
    local size = 4 << 20
    local server = serve_early(size, true)
    collectgarbage()
    collectgarbage()
    local before = collectgarbage "count"
    local res = assert(client:request { url = server.base, body = ("y"):rep(size), stream = true })
    collectgarbage()
    assert.is_true(collectgarbage "count" - before < size / 1024 * 1.5) -- the server's own
    assert.are.equal("same", res:text())
  end)

  it("keeps it until then, though the answer has begun", function()
    local size = 16 << 20 -- more than the sockets take
    local server = serve_early(size)
    for _ = 1, 2 do
      local res = assert(client:request { url = server.base, body = ("y"):rep(size), stream = true })
      collectgarbage()
      local other = ("z"):rep(size) -- where it was
      assert.are.equal("same", res:text())
      assert.are.equal(size, #other)
    end
  end)
end)
