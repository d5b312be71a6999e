-- SPDX-License-Identifier: MIT
-- Event streams over real sockets: when pieces leave, who waits for whom, what a failure looks like.
local describe = require("support").needing("server", describe, pending)

local errors = require "sluice.errors"
local fixture = require "server_fixture"
local helper = require "http_helper"
local http = require "sluice.http"
local json = require "sluice.json"
local log = require "sluice.log"
local raw = require "raw_http"
local support = require "support"
local it_of_program = support.about_program(it, pending)
local task = require "sluice.task"

local need, with_server = fixture.need, fixture.with_server
local eventually, get, post = fixture.eventually, fixture.get, fixture.post

local SLOW <const> = os.getenv "SLUICE_SLOW" ~= nil

local CHUNK <const> = "%x\r\n%s\r\n"
local LAST <const> = "0\r\n\r\n"

local function chunked(...)
  local pieces = { ... }
  for index, piece in ipairs(pieces) do pieces[index] = CHUNK:format(#piece, piece) end
  return table.concat(pieces)
end

-- What has come of an answer: its head's lines, and so many bytes behind it.
local function head_of(c)
  local lines = {}
  for line in function() return c:line() end do
    if line == "" then return lines end
    lines[#lines + 1] = line
  end
  return lines
end

local function open(server, path, more)
  local c = need(raw.connect(server.address))
  c:write(get(path, more))
  return c
end

describe("server: a stream", function()
  it("sends each event at once", function()
    with_server(function(server, _, app)
      local gate = task.channel()
      app:get("/gated", function()
        return { stream = function()
          local data = gate:receive()
          return data and { data = data }
        end }
      end)
      local c <close> = open(server, "/gated")
      for _, word in ipairs { "one", "two", "three" } do
        gate:send(word)
        if word == "one" then assert.equal("HTTP/1.1 200 OK", head_of(c)[1]) end
        local want = chunked("data: " .. word .. "\n\n")
        assert.equal(want, c:take(#want))
      end
      gate:close()
      assert.equal(LAST, c:take(#LAST))
      c:write(get "/again")
      assert.equal("GET /again ", c:answer().body)
    end)
  end)

  it("sends what comes in a burst in a few packets, and the last of it too", function()
    with_server(function(server, _, app)
      local gate = task.channel()
      app:get("/burst", function()
        local count = 0
        return { stream = function()
          count = count + 1
          if count == 1000 then gate:receive() end
          if count <= 1000 then return { data = ("%04d"):format(count) } end
        end }
      end)
      local c <close> = open(server, "/burst")
      head_of(c)
      local want = #chunked "data: 0001\n\n" * 999
      local burst = assert(task.timeout(5, c.take, c, want))
      assert.equal(chunked "data: 0999\n\n", burst:sub(-#chunked "data: 0999\n\n"))
      gate:send(true)
      local last = chunked "data: 1000\n\n" .. LAST
      assert.equal(last, c:take(#last))
    end)
  end)

  it("is what it is in process, whatever its items are", function()
    with_server(function(server, _, app)
      local function items(list)
        return function()
          local index = 0
          return { stream = function()
            index = index + 1
            return list[index]
          end }
        end
      end
      local handlers = {
        items { "data: a\n\n", "", ": c\n",
          { data = "b" }, { data = "c\nd" }, { data = "e\rf" }, { data = "" } },
        items { { data = "a", event = "e" }, { data = "a", id = "1" }, { retry = 5, data = "a" } },
        items { { data = { 1 } }, { data = 5 }, { data = ("x"):rep(300000) }, ("y"):rep(300000) .. "\n\n" },
        items { setmetatable({}, { __index = { data = "inherited" } }) },
        items {},
        function()
          local left = 3
          return { stream = { close = function() end, next = function()
            left = left - 1
            return left >= 0 and { text = "a\nb" } or nil
          end } }
        end,
      }
      for index, handler in ipairs(handlers) do
        app:get("/" .. index, handler)
        local over_socket = open(server, "/" .. index):answer()
        local in_process = app:handle { path = "/" .. index }
        assert.equal(in_process.body, over_socket.body)
        assert.equal(in_process.headers["content-type"], over_socket.headers["content-type"])
      end
    end)
  end)

  it("is not chunked for HTTP/1.0, and ends with the connection", function()
    with_server(function(server, _, app)
      app:get("/two", function()
        local left = 2
        return { stream = { close = function() end, next = function()
          left = left - 1
          return left >= 0 and { left } or nil
        end } }
      end)
      local c <close> = need(raw.connect(server.address))
      c:write "GET /two HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"
      local answer = c:answer()
      assert.same({ 200, "close", nil },
        { answer.status, answer.headers.connection, answer.headers["transfer-encoding"] })
      assert.equal("data: [1]\n\ndata: [0]\n\ndata: [DONE]\n\n", answer.body)
      assert.is_nil(c.failure)
    end)
  end)

  it("answers HEAD without being pulled", function()
    with_server(function(server, _, app)
      local pulled, closed = 0, 0
      app:get("/", function()
        return { stream = {
          next = function() pulled = pulled + 1 end,
          close = function() closed = closed + 1 end,
        } }
      end)
      local c <close> = need(raw.connect(server.address))
      c:write("HEAD / HTTP/1.1\r\nHost: x\r\n\r\n")
      local answer = c:answer "HEAD"
      assert.same({ 200, "text/event-stream" }, { answer.status, answer.headers["content-type"] })
      c:write(get "/x")
      assert.equal("GET /x ", c:answer().body)
      assert.same({ 0, 1 }, { pulled, closed })
    end)
  end)

  it("holds its source where the client does not read", function()
    with_server(function(server, _, app)
      local pulled, closed = 0, 0
      app:get("/flood", function()
        return {
          stream = function()
            pulled = pulled + 1
            return pulled <= 2000 and { data = ("x"):rep(10000) } or nil
          end,
          close = function() closed = closed + 1 end,
        }
      end)
      local c <close> = open(server, "/flood")
      local before
      repeat
        before = pulled
        task.sleep(0.05)
      until pulled == before and pulled > 0
      assert.is_true(pulled < 2000, pulled)
      assert.equal(2000 * #"data: \n\n" + 2000 * 10000, #c:answer().body)
      assert.same({ 2001, 1 }, { pulled, closed })
    end)
  end)

  it("keeps nothing of it but one event", function()
    with_server(function(server, _, app)
      local piece = ("x"):rep(1 << 20)
      app:get("/big", function() return { stream = function() return piece end } end)
      local c <close> = open(server, "/big")
      local before = fixture.resident()
      task.sleep(0.2)
      local grown = fixture.resident() - before
      assert.is_true(SLOW or grown < 4 << 20, grown) -- a sanitizer keeps what is freed
      c:reset()
    end)
  end)
end)

describe("server: a stream's client", function()
  local function echo(app)
    app:post("/echo", function(request)
      local text = need(request:text())
      return { stream = { next = function() return nil, errors.new("NotFound", { message = text }) end,
        close = function() end } }
    end)
  end

  it("that sends its body a byte at a time gets 408, and nothing is asked of anybody", function()
    with_server(function(server, _, app)
      echo(app)
      local c <close> = need(raw.connect(server.address))
      c:write "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n"
      local dripping = true
      local dripper = task.spawn(function()
        while dripping and c:write "x" do task.sleep(0.005) end
      end)
      local answer = c:answer()
      assert.same({ 408, "close" }, { answer.status, answer.headers.connection })
      dripping = false
      dripper:join()
    end, nil, { timeout = { body = 0.1 }, body_rate = 1000 })
  end)

  it("that never reads is closed after timeout.stall, and the source with it", function()
    with_server(function(server, _, app)
      local closed = 0
      app:get("/flood", function()
        return {
          stream = function() return { data = ("x"):rep(100000) } end,
          close = function() closed = closed + 1 end,
        }
      end)
      local c <close> = open(server, "/flood")
      assert.is_true(eventually(function() return closed == 1 end))
      assert.is_true(eventually(function() return server:counts() == 0 end))
      c:rest()
    end, nil, { timeout = { stall = 0.1 } })
  end)
end)

describe("server: a silent stream", function()
  local function silent_app(app, seconds, keep_alive)
    app:get("/silent", function()
      local left = 2
      return { keep_alive = keep_alive, stream = function()
        task.sleep(seconds)
        left = left - 1
        return left >= 0 and { data = "x" } or nil
      end }
    end)
  end

  it("says a comment line that ends no event, and as often as it is silent", function()
    with_server(function(server, _, app)
      silent_app(app, 0.25, 0.1)
      local c <close> = open(server, "/silent")
      assert.equal("HTTP/1.1 200 OK", head_of(c)[1])
      local comments, event = chunked(": x\n", ": x\n"), chunked "data: x\n\n"
      local all = comments .. event .. comments .. event .. comments .. LAST
      assert.equal(all, c:take(#all))
    end)
  end)

  it("says nothing before its time, nor where it is told not to", function()
    with_server(function(server, _, app)
      silent_app(app, 0.03, 1)
      assert.equal("data: x\n\ndata: x\n\n", open(server, "/silent"):answer().body)
    end)
    with_server(function(server, _, app)
      silent_app(app, 0.03, false)
      assert.equal("data: x\n\ndata: x\n\n", open(server, "/silent"):answer().body)
    end)
  end)

  it("does not break a line, nor into another type", function()
    with_server(function(server, _, app)
      local headers
      app:get("/half", function()
        local pieces = { "data: a", "b\n\n" }
        return { keep_alive = 0.01, headers = headers, stream = function()
          task.sleep(0.05)
          return table.remove(pieces, 1)
        end }
      end)
      local body = open(server, "/half"):answer().body
      assert.matches("^[: x\n]+data: ab\n\n[: x\n]+$", body)
      headers = { ["Content-Type"] = "application/x-ndjson" }
      assert.equal("data: ab\n\n", open(server, "/half"):answer().body)
    end)
  end)

  it("is ended by a client that leaves, all the same", function()
    with_server(function(server, _, app)
      local closed = 0
      app:get("/", function()
        return {
          keep_alive = 0.01,
          stream = function() task.sleep(10) end,
          close = function() closed = closed + 1 end,
        }
      end)
      local c = open(server, "/")
      head_of(c)
      c:close()
      assert.is_true(eventually(function() return closed == 1 end))
    end)
  end)
end)

describe("server: a stream that fails", function()
  local logged, write

  before_each(function()
    logged = {}
    write = log.set_output(function(line) logged[#logged + 1] = line end)
  end)

  after_each(function() log.set_output(write) end)

  local function failing(app, seconds, events)
    app:get("/fails", function()
      local left = events
      return { keep_alive = 0.05, stream = function()
        task.sleep(seconds)
        left = left - 1
        if left >= 0 then return { data = "x" } end
        error(errors.new("TooManyRequests", { message = "slow down", retry_after = 3 }), 0)
      end }
    end)
  end

  -- The error in a chunk that is a frame.
  local function told(chunk)
    local size, text = chunk:match "^(%x+)\r\n\n\ndata: (.*)\n\n\r\n$"
    assert.equal(tonumber(size, 16), #text + #"\n\ndata: \n\n")
    return need(json.decode(text)).error
  end

  it("before anything was sent has the failure's status, and goes on", function()
    with_server(function(server, _, app)
      failing(app, 0, 0)
      local c <close> = open(server, "/fails")
      local answer = c:answer()
      assert.same({ 429, "3", "application/json" },
        { answer.status, answer.headers["retry-after"], answer.headers["content-type"] })
      c:write(get "/on")
      assert.equal(200, c:answer().status)
    end)
  end)

  it("after an event or a comment has an error frame, and no end", function()
    for _, case in ipairs { { 0, 1, chunked "data: x\n\n" }, { 0.08, 0, chunked ": x\n" } } do
      with_server(function(server, _, app)
        failing(app, case[1], case[2])
        local c <close> = open(server, "/fails")
        assert.equal("HTTP/1.1 200 OK", head_of(c)[1])
        assert.equal(case[3], c:take(#case[3]))
        assert.same({ message = "slow down", type = "TooManyRequests" }, told(c:rest()))
        assert.is_nil(c.failure)
      end)
    end
  end)

  it("has them reach a client that is behind", function()
    with_server(function(server, _, app)
      app:get("/", function()
        local sent = false
        return { stream = function()
          if sent then error(errors.new "NotFound", 0) end
          sent = true
          return ("x"):rep(8 << 20)
        end }
      end)
      local c <close> = open(server, "/")
      head_of(c)
      task.sleep(0.05)
      assert.matches('\r\n3c\r\n\n\ndata: {"error":{.*}}\n\n\r\n$', c:rest())
      assert.is_nil(c.failure)
    end)
  end)

  it("by a fault of the program tells nothing of it", function()
    with_server(function(server, _, app)
      app:get("/", function()
        local first = true
        return { stream = function()
          if not first then error "the secret plan" end
          first = false
          return { data = "x" }
        end }
      end)
      local c <close> = open(server, "/")
      head_of(c)
      local rest = c:rest()
      assert.matches('"type":"InternalError"', rest)
      assert.falsy(rest:find("plan", 1, true) or rest:find(LAST, 1, true))
      assert.truthy(logged[1]:find("secret plan", 1, true))
    end)
  end)

  it("by an item that is none, too", function()
    with_server(function(server, _, app)
      for index, item in ipairs { 5, { dta = "x" }, { data = "x", event = "a\nb" }, print } do
        app:get("/" .. index, function() return { stream = function() return item end } end)
        assert.equal(500, open(server, "/" .. index):answer().status)
      end
      assert.equal(4, #logged)
      assert.truthy(logged[2]:find("did you mean", 1, true))
    end)
  end)

  it("has headers that cannot be sent shown as a fault, and is closed", function()
    with_server(function(server, _, app)
      local closed = 0
      app:get("/", function()
        return {
          headers = { x = "a\nb" },
          stream = function() return "x" end,
          close = function() closed = closed + 1 end,
        }
      end)
      assert.equal(500, open(server, "/"):answer().status)
      assert.equal(1, closed)
    end)
  end)
end)

describe("server: a client that leaves", function()
  after_each(helper.stop)

  local ENDLESS <const> = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" .. chunked "data: x\n\n"

  -- An upstream that never ends its answer, and notes when its client is gone.
  local function upstream(answer)
    local state = {}
    local server = helper.serve(function(connection)
      helper.read_request(connection)
      connection:write(answer)
      state.open = true
      while connection:read() do task.sleep(0) end
      state.gone = task.now()
    end)
    return server.base, state
  end

  local function leaves(server, state, path)
    for _, how in ipairs { "close", "reset" } do
      state.open, state.gone = nil, nil
      local c = need(raw.connect(server.address))
      c:write(path == "/stream" and get(path) or post("{}"):gsub("/p", path))
      assert.is_true(eventually(function() return state.open end))
      task.sleep(0.01)
      local start = task.now()
      c[how](c)
      assert.is_true(eventually(function() return state.gone end))
      assert.is_true(state.gone - start < 0.1, state.gone - start)
    end
  end

  it("closes the upstream request of a stream", function()
    with_server(function(server, _, app)
      local url, state = upstream(ENDLESS)
      app:get("/stream", function()
        local res = need(http.request { url = url, stream = true })
        return { stream = res:events(), close = function() res:close() end }
      end)
      leaves(server, state, "/stream")
    end)
  end)

  it("closes that of a plain answer, too", function()
    with_server(function(server, _, app)
      local url, state = upstream ""
      app:post("/plain", function() return need(http.request { url = url }) end)
      leaves(server, state, "/plain")
    end)
  end)

  it("closes it where it did not even read what came", function()
    with_server(function(server, _, app)
      local url, state = upstream(ENDLESS)
      app:get("/stream", function()
        local res = need(http.request { url = url, stream = true })
        return { stream = function() return ("x"):rep(1 << 20) end, close = function() res:close() end }
      end)
      leaves(server, state, "/stream")
    end)
  end)
end)

describe("server: stop", function()
  it("lets a stream end in its time", function()
    with_server(function(server, _, app)
      app:get("/", function()
        local left = 5
        return { stream = function()
          task.sleep(0.02)
          left = left - 1
          return left >= 0 and { data = "x" } or nil
        end }
      end)
      local c <close> = open(server, "/")
      head_of(c)
      local stopping = task.spawn(server.stop, server, 5)
      local body = chunked("data: x\n\n", "data: x\n\n", "data: x\n\n", "data: x\n\n", "data: x\n\n")
      assert.equal(body .. LAST, c:rest())
      stopping:join()
    end)
  end)

  local SCRIPT <const> = [[
    local task, web = require "sluice.task", require "sluice.web"
    local app = web.app()
    app:get("/", function()
      local left = 4
      return { stream = function()
        task.sleep(0.1)
        left = left - 1
        return left >= 0 and { data = "x" } or nil
      end }
    end)
    local server = assert(app:listen "127.0.0.1:0")
    print(server.address)
    io.stdout:flush()
    server:serve(tonumber(arg[1]))
  ]]

  -- Runs SCRIPT, asks it, sends SIGTERM after the first event; what came then, and the exit status.
  local function terminate(grace)
    return support.with_file(SCRIPT, function(script)
      return support.with_file("", function(out)
        local pipe = io.popen(("echo $$; exec %s %s %g >%s"):format(
          support.quote(support.binary), support.quote(script), grace, support.quote(out)))
        local pid = pipe:read "n"
        assert.is_true(eventually(function() return support.read_file(out):find "\n" end))
        local c <close> = need(raw.connect((support.read_file(out):match "%S+")))
        c:write(get "/")
        head_of(c)
        c:take(#chunked "data: x\n\n")
        os.execute("kill -TERM " .. pid)
        local rest = c:rest()
        local _, _, status = pipe:close()
        return rest, status
      end)
    end)
  end

  it_of_program("comes by SIGTERM, which lets streams end within the grace time", function()
    local rest, status = terminate(5)
    assert.equal(chunked("data: x\n\n", "data: x\n\n", "data: x\n\n") .. LAST, rest)
    assert.equal(143, status)
  end)

  it_of_program("cuts them when that has passed", function()
    local rest, status = terminate(0.15)
    assert.falsy(rest:find(LAST, 1, true))
    assert.equal(143, status)
  end)
end)
