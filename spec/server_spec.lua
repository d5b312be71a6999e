-- SPDX-License-Identifier: MIT
-- The web server over real sockets: what it accepts and refuses, and what it answers.
local describe = require("support").needing("server", describe, pending)

local errors = require "sluice.errors"
local fixture = require "server_fixture"
local log = require "sluice.log"
local raw = require "raw_http"
local task = require "sluice.task"
local vectors = require "server_vectors"

local need, new_app, with_server = fixture.need, fixture.new_app, fixture.with_server
local eventually, descriptors = fixture.eventually, fixture.descriptors
local post, chunked, get = fixture.post, fixture.chunked, fixture.get

describe("server: requests", function()
  it("accepts what is right", function()
    with_server(function(server)
      for _, case in ipairs(vectors.accepted) do
        local c <close> = need(raw.connect(server.address))
        c:write(case[2])
        local answer = c:answer()
        assert.same({ case[1], 200, case[3] }, { case[1], answer and answer.status, answer and answer.body })
      end
    end)
  end)

  it("accepts it byte by byte, and not before the last one", function()
    with_server(function(server, state)
      for _, case in ipairs(vectors.accepted) do
        local c <close> = need(raw.connect(server.address))
        local hits = state.hits
        c:drip(case[2]:sub(1, -2))
        assert.equal(hits, state.hits, case[1])
        c:write(case[2]:sub(-1))
        local answer = c:answer()
        assert.same({ case[1], 200, case[3] }, { case[1], answer and answer.status, answer and answer.body })
      end
    end)
  end)

  it("refuses what is wrong and closes", function()
    with_server(function(server, state)
      for _, case in ipairs(vectors.refused) do
        local c <close> = need(raw.connect(server.address))
        c:write(case[3])
        local answer = c:answer()
        assert.same({ case[1], case[2] }, { case[1], answer and answer.status })
        assert.equal("close", answer.headers.connection)
        assert.is_true(c:ended())
      end
      assert.equal(0, state.hits)
    end)
  end)

  it("refuses it byte by byte as well", function()
    with_server(function(server, state)
      for _, case in ipairs(vectors.refused) do
        if #case[3] < 1000 then
          local c <close> = need(raw.connect(server.address))
          c:drip(case[3])
          local answer = c:answer()
          assert.same({ case[1], case[2] }, { case[1], answer and answer.status })
        end
      end
      assert.equal(0, state.hits)
    end)
  end)

  it("refuses bad chunks, and takes nothing after them for a request", function()
    with_server(function(server, state)
      for index, case in ipairs(vectors.bad_chunks) do
        local c <close> = need(raw.connect(server.address))
        c:write(chunked(case[2]) .. get "/smuggled")
        local answer = c:answer()
        assert.same({ case[1], 400 }, { case[1], answer and answer.status })
        assert.equal("close", answer.headers.connection)
        assert.is_true(c:ended())
        assert.equal(index, state.hits)
      end
    end)
  end)

  it("gives the handler what the client sent", function()
    with_server(function(server, _, app)
      app:post("/seen/:what", function(request)
        return { json = {
          request.params.what, request.query.q, request.headers["x-one"], request.headers["X-TWO"],
          (request.remote:gsub(":%d+$", "")), request.id, #request.headers,
        } }
      end)
      local c <close> = need(raw.connect(server.address))
      c:write("POST /seen/it?q=1+2 HTTP/1.1\r\nHost: x\r\nX-One:  a b \r\nX-Two: c\r\n"
        .. "X-Request-Id: abc\r\nContent-Length: 0\r\n\r\n")
      local answer = c:answer()
      assert.equal('["it","1 2","a b","c","127.0.0.1","abc",5]', answer.body)
      assert.equal("abc", answer.headers["x-request-id"])
      app:get("/own", function() return { headers = { ["x-request-ID"] = "theirs" }, body = "" } end)
      c:write(get("/own", "X-Request-Id: mine\r\n"))
      assert.equal("theirs", c:answer().headers["x-request-id"])
      c:write(get("/", "X-Request-Id: a b\r\n"))
      assert.truthy(c:answer().headers["x-request-id"]:find("^%x+%-%x+$"))
    end)
  end)
end)

describe("server: request ids", function()
  local function id_of(server, fields)
    local c <close> = need(raw.connect(server.address))
    c:write(get("/id", fields))
    local answer = c:answer()
    assert.equal(answer.headers["x-request-id"], answer.body)
    return answer.body
  end

  it("of the client are taken where they are short, plain and alone", function()
    with_server(function(server, _, app)
      app:get("/id", function(request) return request.id end)
      for _, id in ipairs { "a", "A-b.c_9", ("x"):rep(128) } do
        assert.equal(id, id_of(server, "X-Request-ID: \t" .. id .. " \r\n"))
      end
      for _, fields in ipairs {
        "X-Request-Id: \r\n", "X-Request-Id: " .. ("x"):rep(129) .. "\r\n", "X-Request-Id: a,b\r\n",
        "X-Request-Id: a\"b\r\n", "X-Request-Id: a/b\r\n", "X-Request-Id: \xc3\xa4\r\n",
        "X-Request-Id: a\r\nX-Request-Id: b\r\n", "X-Request-Id: \r\nX-Request-Id: b\r\n", "",
      } do
        assert.truthy(id_of(server, fields):find("^%x%x%x%x%x%x%x%x%-%x+$"), fields)
      end
    end)
  end)

  it("are different for each request, and each answer has one", function()
    with_server(function(server)
      local seen = {}
      for index = 1, 40 do
        local c <close> = need(raw.connect(server.address))
        c:write(index % 2 == 0 and get "/x" or "nonsense\r\n")
        local id = c:answer().headers["x-request-id"]
        assert.truthy(id:find("^%x%x%x%x%x%x%x%x%-%x+$"))
        assert.is_nil(seen[id])
        seen[id] = true
      end
    end)
  end)
end)

describe("server: connections", function()
  it("stay open, and answer pipelined requests in order", function()
    with_server(function(server)
      local c <close> = need(raw.connect(server.address))
      local requests = {}
      for index = 1, 20 do requests[index] = post("b" .. index) .. get("/g" .. index) end
      c:write(table.concat(requests))
      for index = 1, 20 do
        assert.equal("POST /p b" .. index, c:answer().body)
        assert.equal("GET /g" .. index .. " ", c:answer().body)
      end
      assert.same({ 1, 0 }, { server:counts() })
    end)
  end)

  it("keep more than 64 KB of requests behind one that waits", function()
    with_server(function(server, _, app)
      local gate = task.channel()
      app:get("/gate", function()
        gate:receive()
        return "open"
      end)
      local c <close> = need(raw.connect(server.address))
      c:write(get "/gate")
      local writer = task.spawn(function()
        for index = 1, 30 do c:write(post(("x"):rep(10000) .. index)) end
      end)
      task.sleep(0.02)
      gate:send(true)
      assert.equal("open", c:answer().body)
      for index = 1, 30 do assert.equal(#"POST /p " + 10000 + #tostring(index), #c:answer().body) end
      writer:join()
    end)
  end)

  it("close when the client says so, and after HTTP/1.0", function()
    with_server(function(server)
      for _, request in ipairs {
        get("/a", "Connection: close\r\n"), get("/a", "Connection: foo, Close\r\n"),
        "GET /a HTTP/1.0\r\n\r\n",
        "GET /a HTTP/1.0\r\nConnection: keep-alive, close\r\n\r\n",
      } do
        local c <close> = need(raw.connect(server.address))
        c:write(request)
        assert.equal("close", c:answer().headers.connection)
        assert.is_true(c:ended())
      end
      local c <close> = need(raw.connect(server.address))
      for _ = 1, 2 do
        c:write("GET /a HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
        assert.equal("keep-alive", c:answer().headers.connection)
      end
    end)
  end)

  it("take a body that the handler does not read for their end", function()
    with_server(function(server, _, app)
      app:post("/ignore", function() return { status = 403 } end)
      local c <close> = need(raw.connect(server.address))
      c:write("POST /ignore HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\nbegin")
      local answer = c:answer()
      assert.same({ 403, "close" }, { answer.status, answer.headers.connection })
      assert.is_true(c:ended())
    end)
  end)

  it("are many, and leave no descriptor", function()
    with_server(function(server) server:counts() end)
    local before = descriptors()
    with_server(function(server)
      local clients = {}
      for index = 1, 200 do
        clients[index] = need(raw.connect(server.address))
        clients[index]:write(index % 2 == 0 and get "/wait" or post "x")
      end
      assert.is_true(eventually(function() return select(2, server:counts()) == 100 end))
      for index, client in ipairs(clients) do
        if index % 3 == 0 then client:reset() else client:close() end
      end
      assert.is_true(eventually(function() return server:counts() == 0 end))
    end)
    assert.equal(before, descriptors())
  end)

  it("wait in the kernel when there are enough", function()
    with_server(function(server)
      local one = need(raw.connect(server.address))
      local two <close> = need(raw.connect(server.address))
      one:write(get "/1")
      two:write(get "/2")
      assert.equal("GET /1 ", one:answer().body)
      assert.equal(1, (server:counts()))
      one:close()
      assert.equal("GET /2 ", two:answer().body)
    end, nil, { max_connections = 1 })
  end)

  it("come back when descriptors run out", function()
    local function limit_to(count)
      return os.execute(("prlimit --pid %d --nofile=%s: 2>/dev/null"):format(fixture.pid(), count))
    end
    local pipe = io.popen("ulimit -S -n")
    local soft = pipe:read("l")
    pipe:close()
    with_server(function(server)
      local c <close> = need(raw.connect(server.address))
      c:write(get "/1")
      c:answer()
      -- Every number below the limit is taken by then: the next accept fails, the connect does not.
      local held = {}
      local another = need(raw.connect(server.address))
      task.sleep(0.01)
      another:close()
      assert.is_true(eventually(function() return server:counts() == 1 end))
      if not limit_to(descriptors() + 64) then return end
      while true do
        local file = io.open("/dev/null")
        if not file then break end
        held[#held + 1] = file
      end
      held[#held]:close()
      local d = need(raw.connect(server.address))
      d:write(get "/2")
      local used = os.clock()
      task.sleep(0.06)
      assert.is_true(os.clock() - used < 0.03) -- it waits instead of trying all the time
      assert.equal(1, (server:counts()))
      for _, file in ipairs(held) do pcall(file.close, file) end
      assert.equal("GET /2 ", d:answer().body)
      d:close()
    end)
    limit_to(soft)
  end)

  it("may be unix sockets", function()
    local app = new_app()
    local path = os.tmpname()
    os.remove(path)
    local server = need(app:listen("unix:" .. path))
    assert.equal("unix:" .. path, server.address)
    local c = need(raw.connect(server.address))
    c:write(get "/u")
    assert.equal("GET /u ", c:answer().body)
    c:close()
    server:close()
    local again = need(app:listen("unix:" .. path))
    again:close()
    os.remove(path)
  end)

  it("may be IPv6", function()
    local app = new_app()
    local server = app:listen("[::1]:0")
    if not server then return end
    local c <close> = need(raw.connect(server.address))
    c:write(get "/six")
    assert.equal("GET /six ", c:answer().body)
    server:close()
  end)
end)

describe("server: answers", function()
  local function answer_of(result, request, method)
    local found
    with_server(function(server, _, app)
      app:get("/it", function() return result() end)
      local c <close> = need(raw.connect(server.address))
      c:write(request or get "/it")
      found = c:answer(method)
      if found then found.ended = found.headers.connection == "close" and c:ended() end
    end)
    return found
  end

  it("carry a date, a length, and the handler's headers", function()
    local answer = answer_of(function()
      return { headers = { ["X-A"] = "b", ["Content-Length"] = "99", Connection = "x", n = 1 }, body = "abc" }
    end)
    assert.truthy(answer.headers.date:find("^%a%a%a, %d%d %a%a%a %d%d%d%d %d%d:%d%d:%d%d GMT$"))
    local fields = answer.headers
    assert.same({ "3", "b", "1" }, { fields["content-length"], fields["x-a"], fields.n })
    assert.is_nil(answer.headers.connection)
  end)

  it("close the connection where the handler says so", function()
    assert.is_true(answer_of(function() return { headers = { connection = "close" }, body = "x" } end).ended)
  end)

  it("to HEAD hold no body", function()
    local head = "HEAD /it HTTP/1.1\r\nHost: x\r\n\r\n" .. get("/next", "Connection: close\r\n")
    local streamed = function() return { body = function() return "never" end } end
    for _, result in ipairs { function() return "12345" end, streamed } do
      with_server(function(server, _, app)
        app:get("/it", result)
        local c <close> = need(raw.connect(server.address))
        c:write(head)
        assert.equal(200, c:answer("HEAD").status)
        assert.equal("GET /next ", c:answer().body)
      end)
    end
    assert.equal("5", answer_of(function() return "12345" end, head, "HEAD").headers["content-length"])
  end)

  it("204 and 304 hold no body and no length", function()
    for _, status in ipairs { 204, 304 } do
      local answer = answer_of(function() return { status = status, body = "x" } end)
      assert.same({ status, nil }, { answer.status, answer.headers["content-length"] })
    end
  end)

  it("are chunked where their length is not known, and end with the connection in HTTP/1.0", function()
    local function pieces()
      local list = { "one", "", "two", ("x"):rep(100000) }
      return { body = function() return table.remove(list, 1) end }
    end
    local answer = answer_of(pieces)
    assert.same({ "chunked", 100006 }, { answer.headers["transfer-encoding"], #answer.body })
    answer = answer_of(pieces, "GET /it HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
    assert.same({ "close", nil }, { answer.headers.connection, answer.headers["transfer-encoding"] })
    assert.equal(100006, #answer.body)
  end)

  it("are sent piece by piece as they are made", function()
    with_server(function(server, _, app)
      local gate = task.channel()
      app:get("/pieces", function() return { body = function() return gate:receive() end } end)
      local c <close> = need(raw.connect(server.address))
      c:write(get "/pieces")
      gate:send("first")
      while not c.buffer:find("5\r\nfirst\r\n", 1, true) do assert.is_true(c:fill()) end
      gate:close()
      assert.equal("first", c:answer().body)
    end)
  end)

  it("wait for a client that does not read", function()
    with_server(function(server, _, app)
      local made = 0
      app:get("/endless", function()
        return { body = function()
          made = made + 1
          return made <= 300 and ("x"):rep(1 << 16) or nil
        end }
      end)
      local c <close> = need(raw.connect(server.address))
      c:write(get "/endless")
      local before
      repeat
        before = made
        task.sleep(0.02)
      until made == before and made > 0
      assert.is_true(made < 300)
      assert.equal(300 << 16, #c:answer().body)
    end)
  end)

  it("of any size are sent whole", function()
    local body = ("0123456789abcdef"):rep(1 << 18)
    assert.is_true(answer_of(function() return body end).body == body)
  end)

  it("that cannot be sent become 500, and leave nothing of themselves", function()
    local write = log.set_output(function() end)
    for _, bad in ipairs {
      { ["X-A"] = "a\r\nX-B: c" }, { ["X A"] = "b" }, { [""] = "b" }, { x = {{}} }, { x = true },
    } do
      local answer = answer_of(function() return { headers = bad, body = "x" } end)
      assert.equal(500, answer.status)
      assert.is_nil(answer.headers["x-b"])
    end
    log.set_output(write)
  end)

  it("that fail midway are cut", function()
    local write = log.set_output(function() end)
    local closed = 0
    with_server(function(server, _, app)
      app:get("/cut", function()
        local count = 0
        return {
          body = function()
            count = count + 1
            if count == 3 then return nil, errors.new("TruncatedStream") end
            return "piece"
          end,
          close = function() closed = closed + 1 end,
        }
      end)
      local c <close> = need(raw.connect(server.address))
      c:write(get "/cut")
      assert.is_nil((c:answer()))
      assert.equal(1, closed)
    end)
    log.set_output(write)
  end)
end)

describe("server: listen", function()
  it("says why it cannot", function()
    local app = new_app()
    local server <close> = need(app:listen("localhost:0"))
    local none, err = app:listen(server.address)
    assert.is_nil(none)
    assert.equal("ListenError", err.kind)
    assert.truthy(tostring(err):find(server.address, 1, true))
  end)

  it("raises misuse at the caller", function()
    local app = new_app()
    for _, bad in ipairs {
      "", "127.0.0.1", "127.0.0.1:", "127.0.0.1:x", "127.0.0.1:70000", "127.0.0.1:-1", "::1:80",
      "host.test:80", "unix:",
    } do
      local ok, message = pcall(function() app:listen(bad) end)
      assert.is_false(ok, bad)
      assert.truthy(message:find("server_spec.lua", 1, true), message)
    end
    assert.has_error(function() app:listen("127.0.0.1:0", { tiemout = {} }) end)
    assert.has_error(function() app:listen("127.0.0.1:0", { timeout = { hed = 1 } }) end)
    assert.has_error(function() app:listen() end)
  end)

  it("serves several apps at once", function()
    with_server(function(one)
      with_server(function(two)
        assert.are_not.equal(one.url, two.url)
        local c <close> = need(raw.connect(one.address))
        local d <close> = need(raw.connect(two.address))
        c:write(get "/c")
        d:write(get "/d")
        assert.equal("GET /d ", d:answer().body)
        assert.equal("GET /c ", c:answer().body)
      end)
    end)
  end)
end)
