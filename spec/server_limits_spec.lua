-- SPDX-License-Identifier: MIT
-- The web server's limits and ends: bodies, clients that leave, time, stopping.
local describe = require("support").needing("server", describe, pending)

local fixture = require "server_fixture"
local raw = require "raw_http"
local task = require "sluice.task"

local need, new_app, with_server = fixture.need, fixture.new_app, fixture.with_server
local eventually, post, chunked, get = fixture.eventually, fixture.post, fixture.chunked, fixture.get

describe("server: bodies", function()
  it("are limited, by their length and as they come", function()
    with_server(function(server, state)
      local c = need(raw.connect(server.address))
      c:write(post(("x"):rep(1000)))
      assert.equal(200, c:answer().status)
      c:write(post(("x"):rep(1001)))
      local answer = c:answer()
      assert.same({ 413, "close" }, { answer.status, answer.headers.connection })
      assert.is_true(c:ended())
      assert.equal(1, state.hits)
      c = need(raw.connect(server.address))
      c:write(chunked(("3e8\r\n" .. ("x"):rep(1000) .. "\r\n") .. "1\r\nx\r\n0\r\n\r\n"))
      answer = c:answer()
      assert.same({ 413, "close" }, { answer.status, answer.headers.connection })
      assert.truthy(answer.body:find("PayloadTooLarge", 1, true))
    end, { max_body = 1000 })
  end)

  it("too large are refused while the client still sends", function()
    with_server(function(server)
      local c <close> = need(raw.connect(server.address))
      c:write("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 500000\r\n\r\n")
      assert.equal(413, c:answer().status)
      -- Closed at once, the server would reset what is still sent, and the reset could eat the 413.
      for _ = 1, 10 do
        need(c:write(("x"):rep(50000)))
        task.sleep(0.001)
      end
      assert.is_true(c:ended())
    end, { max_body = 1000 })
  end)

  it("come whole however large", function()
    with_server(function(server, _, app)
      app:post("/size", function(request) return { json = #need(request:text()) } end)
      local c <close> = need(raw.connect(server.address))
      local body = ("x"):rep(3 << 20)
      c:write("POST /size HTTP/1.1\r\nHost: x\r\nContent-Length: " .. #body .. "\r\n\r\n" .. body)
      c:write(get "/next")
      assert.equal(tostring(#body), c:answer().body)
      assert.equal("GET /next ", c:answer().body)
    end)
  end)

  it("wait for a handler that reads slowly", function()
    with_server(function(server, _, app)
      local gate, sent = task.channel(), 0
      app:post("/slow", function(request)
        gate:receive()
        local size = 0
        for piece in request:chunks() do size = size + #piece end
        return { json = size }
      end)
      local c <close> = need(raw.connect(server.address))
      local total = 8 << 20
      local writer = task.spawn(function()
        c:write("POST /slow HTTP/1.1\r\nHost: x\r\nContent-Length: " .. total .. "\r\n\r\n")
        for _ = 1, total >> 16 do
          c:write(("x"):rep(1 << 16))
          sent = sent + (1 << 16)
        end
      end)
      local before
      repeat
        before = sent
        task.sleep(0.02)
      until sent == before
      assert.is_true(sent < total)
      gate:send(true)
      assert.equal(tostring(total), c:answer().body)
      writer:join()
    end)
  end)

  it("are asked for with 100 Continue, when the handler reads them", function()
    with_server(function(server, _, app)
      app:post("/unread", function() return { status = 401 } end)
      local c = need(raw.connect(server.address))
      c:write("POST /p HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n")
      assert.equal("HTTP/1.1 100 Continue", c:line())
      assert.equal("", c:line())
      c:write("hi")
      assert.equal("POST /p hi", c:answer().body)
      c:write("POST /unread HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n")
      local answer = c:answer()
      assert.same({ 401, "close" }, { answer.status, answer.headers.connection })
      assert.is_nil(answer.early)
      c = need(raw.connect(server.address))
      c:write("POST /p HTTP/1.1\r\nHost: x\r\nExpect: 100-Continue\r\nContent-Length: 99999999\r\n\r\n")
      assert.equal(413, c:answer().status)
      c = need(raw.connect(server.address))
      c:write("POST /p HTTP/1.0\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\nhi")
      answer = c:answer()
      assert.same({ 200, nil }, { answer.status, answer.early })
    end)
  end)
end)

describe("server: a client that leaves", function()
  it("cancels its handler at once", function()
    with_server(function(server, state)
      for index, leave in ipairs { "close", "reset" } do
        for _, request in ipairs { get "/wait", get "/wait" .. get "/later" } do
          local c = need(raw.connect(server.address))
          c:write(request)
          assert.is_true(eventually(function() return state.running == 1 end))
          local start = task.now()
          c[leave](c)
          assert.is_true(eventually(function() return state.running == 0 end))
          assert.is_true(task.now() - start < 0.1, index)
        end
      end
      assert.equal(4, state.cancelled)
      assert.equal("TaskCancelled", state.reason.kind)
    end)
  end)

  it("in mid-request is forgotten", function()
    with_server(function(server, state)
      for _, part in ipairs { "", "GET", "GET / HTTP/1.1\r\nHost", "POST /p HTTP/1.1\r\nHost: x\r\n\r" } do
        local c = need(raw.connect(server.address))
        c:write(part)
        task.sleep(0.002)
        c:close()
      end
      for _, part in ipairs { post("hello"):sub(1, -2), chunked "5\r\nhel" } do
        local c = need(raw.connect(server.address))
        c:write(part)
        assert.is_true(eventually(function() return select(2, server:counts()) == 1 end))
        c:close()
        assert.is_true(eventually(function() return server:counts() == 0 end))
      end
      assert.equal(2, state.hits)
    end)
  end)

  it("in mid-answer ends the iterator", function()
    with_server(function(server, _, app)
      local closed, cause = 0, nil
      app:get("/tick", function()
        return {
          body = function()
            local ok, err = pcall(task.sleep, 0.001)
            if not ok then
              cause = err
              error(err, 0)
            end
            return "tick"
          end,
          close = function() closed = closed + 1 end,
        }
      end)
      local c = need(raw.connect(server.address))
      c:write(get "/tick")
      assert.is_true(c:fill())
      c:close()
      assert.is_true(eventually(function() return closed == 1 end))
      assert.equal("TaskCancelled", cause.kind)
    end)
  end)

  it("while it does not read, too", function()
    with_server(function(server, _, app)
      local closed = 0
      app:get("/flood", function()
        return { body = function() return ("x"):rep(1 << 16) end, close = function() closed = closed + 1 end }
      end)
      local c = need(raw.connect(server.address))
      c:write(get "/flood")
      task.sleep(0.05)
      c:reset()
      assert.is_true(eventually(function() return closed == 1 end))
    end)
  end)
end)

describe("server: time limits", function()
  it("end a head that does not come, with 408 where it has begun", function()
    with_server(function(server)
      local silent <close> = need(raw.connect(server.address))
      local slow <close> = need(raw.connect(server.address))
      slow:write("GET / HTTP/1.1\r\nHost")
      assert.equal(408, slow:answer().status)
      assert.is_true(slow:ended())
      assert.is_true(silent:ended())
    end, nil, { timeout = { head = 0.05 } })
  end)

  it("end a head that drips", function()
    with_server(function(server)
      local c <close> = need(raw.connect(server.address))
      local start = task.now()
      local dripper = task.spawn(function()
        while task.now() - start < 3 and c:write("G") do task.sleep(0.01) end
      end)
      local answer = c:answer()
      assert.truthy(answer.status == 408 or answer.status == 400)
      assert.is_true(task.now() - start < 2)
      c:close()
      dripper:join()
    end, nil, { timeout = { head = 0.1 } })
  end)

  it("end a body that stops, and one that drips", function()
    with_server(function(server)
      local c <close> = need(raw.connect(server.address))
      c:write("POST /p HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nbegin")
      local answer = c:answer()
      assert.same({ 408, "close" }, { answer.status, answer.headers.connection })
      local drip <close> = need(raw.connect(server.address))
      local start, writing = task.now(), true
      drip:write("POST /p HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n")
      local dripper = task.spawn(function()
        while writing and drip:write("x") do task.sleep(0.005) end
      end)
      assert.equal(408, drip:answer().status)
      assert.is_true(task.now() - start < 2)
      writing = false
      dripper:join()
    end, nil, { timeout = { body = 0.1 }, body_rate = 1000 })
  end)

  it("let a slow handler and a waiting client be", function()
    with_server(function(server, _, app)
      app:post("/later", function(request)
        task.sleep(0.15)
        return need(request:text())
      end)
      local c <close> = need(raw.connect(server.address))
      c:write("POST /later HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n")
      assert.equal("HTTP/1.1 100 Continue", c:line())
      c:line()
      c:write("hi")
      assert.equal("hi", c:answer().body)
      c:write(get("/again"))
      assert.equal(200, c:answer().status)
    end, nil, { timeout = { body = 0.05, head = 0.05, idle = 10 } })
  end)

  it("end a connection that is idle", function()
    with_server(function(server)
      local c <close> = need(raw.connect(server.address))
      c:write(get "/1")
      assert.equal(200, c:answer().status)
      assert.is_true(c:ended())
    end, nil, { timeout = { idle = 0.05 } })
  end)

  it("end a client that does not read", function()
    with_server(function(server, _, app)
      local closed = 0
      app:get("/flood", function()
        return { body = function() return ("x"):rep(1 << 16) end, close = function() closed = closed + 1 end }
      end)
      local c <close> = need(raw.connect(server.address))
      c:write(get "/flood")
      assert.is_true(eventually(function() return closed == 1 end))
    end, nil, { timeout = { stall = 0.1 } })
  end)

  it("end a refused client that goes on", function()
    with_server(function(server)
      local c <close> = need(raw.connect(server.address))
      c:write("nonsense\r\n")
      assert.equal(400, c:answer().status)
      assert.is_true(eventually(function() return server:counts() == 0 end))
    end, nil, { timeout = { linger = 0.05 } })
  end)
end)

describe("server: stop", function()
  it("lets a handler answer and closes the idle", function()
    with_server(function(server, _, app)
      local gate = task.channel()
      app:get("/gate", function()
        gate:receive()
        return "done"
      end)
      local idle <close> = need(raw.connect(server.address))
      idle:write(get "/1")
      idle:answer()
      local busy <close> = need(raw.connect(server.address))
      busy:write(get "/gate")
      assert.is_true(eventually(function() return select(2, server:counts()) == 1 end))
      local serving = task.spawn(function() server:serve() end)
      local stopping = task.spawn(function() server:stop(5) end)
      assert.is_true(idle:ended())
      assert.is_nil((raw.connect(server.address)))
      gate:send(true)
      local answer = busy:answer()
      assert.same({ "done", "close" }, { answer.body, answer.headers.connection })
      stopping:join()
      serving:join()
    end)
  end)

  it("comes first where the task that serves is cancelled", function()
    with_server(function(server, _, app)
      local gate = task.channel()
      app:get("/gate", function()
        gate:receive()
        return "done"
      end)
      local c <close> = need(raw.connect(server.address))
      c:write(get "/gate")
      assert.is_true(eventually(function() return select(2, server:counts()) == 1 end))
      local serving = task.group()
      local served = serving:spawn(function() server:serve(5) end)
      task.sleep(0)
      served:cancel "enough"
      task.sleep(0.01)
      gate:send(true)
      assert.equal("done", c:answer().body)
      local ok, err = pcall(served.join, served)
      assert.is_false(ok)
      assert.equal("TaskCancelled", err.kind)
      serving:close()
    end)
  end)

  it("cancels what is not done in time", function()
    with_server(function(server, state)
      local c <close> = need(raw.connect(server.address))
      c:write(get "/wait")
      assert.is_true(eventually(function() return state.running == 1 end))
      local start = task.now()
      server:stop(0.05)
      assert.is_true(task.now() - start < 2)
      assert.same({ 0, 1 }, { state.running, state.cancelled })
      assert.is_true(c:ended())
      server:stop(0.05)
    end)
  end)

  it("frees the port for the next server", function()
    local app = new_app()
    local server = need(app:listen("127.0.0.1:0"))
    local c <close> = need(raw.connect(server.address))
    c:write(get "/1")
    c:answer()
    server:stop(0)
    local again = need(app:listen(server.address))
    again:close()
  end)
end)
