-- SPDX-License-Identifier: MIT
local errors = require "sluice.errors"
local headers = require "sluice.headers"
local helper = require "http_helper"
local http = require "sluice.http"
local meta = require "sluice.meta"
local secret = require "sluice.secret"
local task = require "sluice.task"

local CLOSE = "Connection: close\r\n"

-- A failed request: the error, after the checks that every failure must pass.
local function failure(client, given, kind)
  local res, err = helper.ticking(client.request, client, given)
  assert.is_nil(res)
  assert.is_true(errors.is(err))
  assert.are.equal(kind, err.kind)
  assert.are.equal(given.method or "GET", err.operation)
  assert.is_number(err.timing.total)
  assert.is_string(err.phase)
  return err
end

describe("sluice.http", function()
  local client, before

  -- The shared client keeps its descriptors, so it is made before any are counted.
  setup(function()
    pcall(http.request, { url = "http://127.0.0.1:1" })
  end)

  before_each(function()
    before = helper.descriptors()
    client = http.client()
  end)

  -- Whatever a spec did, closing its client and servers gives every descriptor back.
  after_each(function()
    client:close()
    helper.stop()
    helper.check_descriptors(before)
  end)

  describe("a request", function()
    local last

    local function serve(answer)
      return helper.serve_requests(function(head, body)
        last = { head = head, body = body }
        return answer or helper.answer("ok")
      end)
    end

    it("gives status, reason, headers and body", function()
      local server = serve("HTTP/1.1 404 Not Here\r\nX-One:  a b \r\nx-one: c\r\nEmpty:\r\n"
        .. "Content-Length: 3\r\n\r\nabc")
      local res = assert(client:request { url = server.base .. "/a?b=c" })
      assert.are.equal(404, res.status)
      assert.are.equal("Not Here", res.reason)
      assert.are.equal("a b", res.headers["X-ONE"])
      assert.are.same({ "a b", "c" }, headers.all(res.headers, "x-one"))
      assert.are.equal("", res.headers.empty)
      assert.are.equal("abc", res.body)
      assert.is_truthy(last.head:find("^GET /a%?b=c HTTP/1%.1\r\nHost: 127%.0%.0%.1:%d+\r\n"))
    end)

    it("sends each method, with and without a body", function()
      local server = serve()
      for _, method in ipairs { "GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PURGE", "GET" } do
        for _, body in ipairs { false, "some bytes \0 here", "" } do
          assert(client:request { url = server.base, method = method, body = body or nil })
          assert.is_truthy(last.head:find("^" .. method .. " "))
          assert.are.equal(body or "", last.body)
          assert.is_nil(last.head:lower():find("content-type", 1, true))
        end
      end
      local res = assert(client:request { url = server.base, method = "post" })
      assert.are.equal(200, res.status)
      assert.is_truthy(last.head:find("^POST "))
      assert.is_truthy(last.head:find("\r\nContent%-Length: 0\r\n"))
    end)

    it("knows that HEAD has no body", function()
      local server = helper.serve_requests(function()
        return "HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\n"
      end)
      local res = assert(client:request { url = server.base, method = "HEAD" })
      assert.are.equal("", res.body)
      assert.are.equal("100000000", res.headers["content-length"])
      assert(client:request { url = server.base, method = "HEAD" })
      assert.are.equal(1, server.accepted)
    end)

    it("sends headers as a map, as pairs and as an object", function()
      local server = serve()
      local map = { A = "1", B = 2, C = { "x", "y" }, ["X-Empty"] = "" }
      assert(client:request { url = server.base, headers = map })
      assert.is_truthy(last.head:find("\r\nA: 1\r\n"))
      assert.is_truthy(last.head:find("\r\nB: 2\r\n"))
      assert.is_truthy(last.head:find("\r\nC: x\r\nC: y\r\n"))
      assert.is_truthy(last.head:find("\r\nX%-Empty:\r\n"))
      assert(client:request { url = server.base, headers = { { "A", "1" }, { "B", "2" }, { "A", "3" } } })
      assert.is_truthy(last.head:find("\r\nA: 1\r\nB: 2\r\nA: 3\r\n"))
      assert(client:request { url = server.base, headers = headers.new { { "A", "1" } } })
      assert.is_truthy(last.head:find("\r\nA: 1\r\n"))
      assert(client:request { url = server.base })
      assert.is_nil(last.head:find("\r\nA: 1\r\n"))
    end)

    it("reveals a secret on the wire and nowhere else", function()
      local server = serve()
      local token = secret.join("Bearer ", secret.new "dapi0123456789")
      assert(client:request { url = server.base, headers = { authorization = token } })
      assert.is_truthy(last.head:find("\r\nauthorization: Bearer dapi0123456789\r\n"))
      local _, err = client:request { url = "http://127.0.0.1:1", headers = { authorization = token } }
      assert.is_nil(tostring(err):find("dapi", 1, true))
    end)

    it("keeps the framing of the body to itself", function()
      local server = serve()
      assert(client:request {
        url = server.base, body = "12345",
        headers = { ["content-length"] = "3", ["Transfer-Encoding"] = "chunked" },
      })
      assert.are.equal("12345", last.body)
      assert.is_nil(last.head:lower():find("transfer-encoding", 1, true))
    end)

    it("encodes json", function()
      local server = serve(helper.answer('{"n":9007199254740993}'))
      local res = assert(client:request { url = server.base, json = { a = { 1, 2 } } })
      assert.is_truthy(last.head:find("^POST "))
      assert.is_truthy(last.head:find("\r\ncontent%-type: application/json\r\n"))
      assert.are.equal('{"a":[1,2]}', last.body)
      assert.are.same({ n = 9007199254740993 }, res:json())
      assert(client:request { url = server.base, json = {}, headers = { ["Content-Type"] = "text/x" } })
      assert.is_nil(last.head:find("application/json", 1, true))
    end)

    it("sends a large body without asking first", function()
      local server = serve()
      local body = ("0123456789abcdef"):rep(200000)
      assert(client:request { url = server.base, body = body })
      assert.is_true(body == last.body)
      assert.is_nil(last.head:find("Expect", 1, true))
    end)

    it("sends what an iterator gives, which may wait", function()
      local received = ""
      local server = helper.serve(function(connection)
        while not received:find("0\r\n\r\n", 1, true) do
          received = received .. (connection:read() or "0\r\n\r\n")
        end
        connection:write(helper.answer("ok", CLOSE))
      end)
      local count = 0
      local res = assert(client:request {
        url = server.base, method = "PUT",
        body = function()
          count = count + 1
          task.sleep(0.002)
          if count <= 3 then return ("%d"):format(count):rep(50000) end
        end,
      })
      assert.are.equal("ok", res.body)
      assert.is_truthy(received:find("^PUT .*Transfer%-Encoding: chunked"))
      local body, at = {}, received:find("\r\n\r\n", 1, true) + 4
      while true do
        local size, start = received:match("^(%x+)\r\n()", at)
        if size == "0" then break end
        body[#body + 1] = received:sub(start, start + tonumber(size, 16) - 1)
        at = start + tonumber(size, 16) + 2
      end
      assert.is_true(("1"):rep(50000) .. ("2"):rep(50000) .. ("3"):rep(50000) == table.concat(body))
    end)

    it("gives up where the iterator of the body does", function()
      local closed
      local server = helper.serve(function(connection)
        while connection:read() do closed = false end
        closed = true
      end)
      local first = true
      local given = {
        url = server.base,
        body = function()
          if first then
            first = false
            task.sleep(0.005)
            return "piece"
          end
          return nil, "no more"
        end,
      }
      local res, err = client:request(given)
      assert.is_nil(res)
      assert.are.equal("no more", err)
      helper.wait_until(function() return closed end)
    end)

    it("takes an answer that comes before the body was sent", function()
      local server = helper.serve(function(connection)
        connection:read()
        connection:write("HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        while connection:read() do task.sleep(0) end
      end)
      local pieces = 0
      local res = assert(client:request {
        url = server.base,
        body = function()
          pieces = pieces + 1
          task.sleep(0.001)
          return pieces < 2000 and "piece" or nil
        end,
      })
      assert.are.equal(413, res.status)
      assert.is_true(pieces < 2000)
    end)

    it("reads chunks, folded lines, trailers and heads that come before the head", function()
      local server = serve("HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n"
        .. "HTTP/1.1 200 OK\r\nX-Long: one\r\n\t two\r\nTransfer-Encoding: chunked\r\n\r\n"
        .. "3\r\nabc\r\n2;x=y\r\nde\r\n0\r\nX-Trailer: t\r\n\r\n")
      for _ = 1, 2 do
        local res = assert(client:request { url = server.base })
        assert.are.equal("abcde", res.body)
        assert.are.equal("one two", res.headers["x-long"])
        assert.is_nil(res.headers.link)
      end
      assert.are.equal(1, server.accepted)
    end)

    it("reads a body that ends with its connection", function()
      local server = helper.serve_bytes("HTTP/1.1 200 OK\r\n\r\nto the end")
      assert.are.equal("to the end", client:request({ url = server.base }).body)
    end)

    it("tells its times and the other end", function()
      local server = helper.serve_requests(function()
        task.sleep(0.02)
        return helper.answer("ok")
      end)
      local timing
      for round = 1, 2 do
        local facts = meta.get(assert(client:request { url = server.base }))
        timing = facts.timing
        assert.are.equal("127.0.0.1:" .. server.port, facts.remote_address)
        assert.are.equal(round == 2, timing.reused)
        assert.are.equal(2, timing.bytes_in)
        assert.is_true(timing.first_byte >= 0.015 and timing.total >= timing.first_byte)
        assert.are.equal(0, timing.tls)
      end
      assert.are.equal(0, timing.connect)
    end)

    it("is a transport too, and so is the shared client", function()
      local server = serve(helper.answer("ok", CLOSE))
      assert.are.equal("ok", client:handle({ url = server.base, unknown = true }).body)
      assert.are.equal("ok", http:handle({ url = server.base, unknown = true }).body)
      assert.are.equal("ok", http.request({ url = server.base }).body)
    end)
  end)

  describe("misuse", function()
    local function message(given)
      local ok, err = pcall(function() client:request(given) end)
      assert.is_false(ok)
      return err
    end

    it("raises at the caller, with the option's name", function()
      local here = debug.getinfo(1, "S").short_src
      for text, given in pairs {
        ['unknown option "mehtod" (did you mean "method"?)'] = { url = "http://a", mehtod = "GET" },
        ['option "url" is missing'] = {},
        ['option "body" must be'] = { url = "http://a", body = 1 },
        ['unknown option "totl" (did you mean "total"?)'] = { url = "http://a", timeout = { totl = 1 } },
        ['give one of "body", "json", "form" and "multipart"'] = { url = "http://a", body = "", json = {} },
        ["header x must be a string, a number or a sluice.secret"] = {
          url = "http://a", headers = { x = true },
        },
        ["must begin with http:// or https://"] = { url = "ftp://a" },
        ["the URL must begin with http"] = { url = "127.0.0.1:80" },
        ["the URL has no host"] = { url = "http:///a" },
        ["the URL cannot be read"] = { url = "http://a b/" },
        ["the URL holds a NUL byte"] = { url = "http://a/\0" },
        ["a header's value holds a control byte"] = { url = "http://a", headers = { a = "b\r\nc: d" } },
        ["a header's name holds a byte"] = { url = "http://a", headers = { ["a b"] = "b" } },
        ["method is not a word of HTTP"] = { url = "http://a", method = "GET / HTTP/1.1\r\n" },
      } do
        local err = message(given)
        assert.is_truthy(err:find(text, 1, true), err)
        assert.are.equal(here, err:match("^(.-):%d+: "))
      end
    end)

    it("raises in simulated time", function()
      local ok, err = pcall(task.simulate, function() client:request { url = "http://127.0.0.1:1" } end)
      assert.is_false(ok)
      assert.is_truthy(tostring(err):find("simulated time", 1, true))
    end)

    it("raises for a client that was closed", function()
      client:close()
      assert.is_truthy(message({ url = "http://127.0.0.1:1" }):find("closed", 1, true))
    end)
  end)

  describe("a connection", function()
    it("is kept and used again", function()
      local server = helper.serve_requests(function() return helper.answer("ok") end)
      for _ = 1, 5 do assert(client:request { url = server.base }) end
      assert.are.equal(1, server.accepted)
      assert.are.same({ open = 1, idle = 1, active = 0, waiting = 0 }, client:stats())
    end)

    it("is one for each request at once", function()
      local server = helper.serve_requests(function()
        task.sleep(0.01)
        return helper.answer("ok")
      end)
      task.scope(function()
        for _ = 1, 100 do task.spawn(function() assert(client:request { url = server.base }) end) end
      end)
      assert.are.equal(100, server.accepted)
      assert.are.equal(100, client:stats().idle)
    end)

    it("waits for a slot where a limit is set, first come first served", function()
      local limited = http.client { max_connections = 3, max_per_host = 2 }
      local most, now, order = 0, 0, {}
      local server = helper.serve_requests(function()
        now = now + 1
        most = math.max(most, now)
        task.sleep(0.002)
        now = now - 1
        return helper.answer("ok")
      end)
      task.scope(function()
        for i = 1, 10 do
          task.spawn(function()
            assert(limited:request { url = server.base })
            order[#order + 1] = i
          end)
        end
        helper.wait_until(function() return limited:stats().waiting == 8 end)
      end)
      assert.are.equal(2, most)
      assert.are.equal(2, server.accepted)
      for place, number in ipairs(order) do assert.is_true(math.abs(place - number) <= 1) end
      limited:close()
    end)

    it("waits for a slot no longer than its limit", function()
      local limited = http.client { max_connections = 1 }
      local server = helper.serve(function(connection) while connection:read() do task.sleep(0) end end)
      local first = task.spawn(function() return limited:request { url = server.base } end)
      task.sleep(0)
      local err = failure(limited, { url = server.base, timeout = { queue = 0.02 } }, "TimeoutError")
      assert.are.equal("queue", err.limit)
      assert.is_falsy(err.maybe_executed)
      assert.are.equal(0, limited:stats().waiting)
      limited:close()
      assert.are.equal("ConnectError", select(2, first:join()).kind)
    end)

    it("that died is replaced where the request may be repeated, else the error says so", function()
      -- closes each connection when its second request has come
      local posts = 0
      local server = helper.serve(function(connection)
        local _, _, rest = helper.read_request(connection)
        connection:write(helper.answer("ok"))
        local head = helper.read_request(connection, rest)
        if head and head:find("^POST") then posts = posts + 1 end
      end)
      assert(client:request { url = server.base })
      assert(client:request { url = server.base })
      assert.are.equal(2, server.accepted)
      local err = failure(client, { url = server.base, method = "POST" }, "ConnectError")
      assert.are.equal("first_byte", err.phase)
      assert.is_true(err.maybe_executed)
      assert.are.equal(1, posts)
    end)
  end)

  describe("a failure", function()
    it("says that nothing listens", function()
      local given = { url = "http://user:pass@127.0.0.1:1/x?key=hidden#f", method = "POST" }
      local err = failure(client, given, "ConnectError")
      assert.are.equal("connect", err.phase)
      assert.is_true(err.retryable)
      assert.is_falsy(err.maybe_executed)
      assert.are.equal("POST http://127.0.0.1:1/x: connection refused (ConnectError)", tostring(err))
    end)

    it("says that a host cannot be reached", function()
      -- a group of hosts has no route for a connection, whatever the network is
      local err = failure(client, { url = "http://224.0.0.1:80/" }, "ConnectError")
      assert.are.equal("connect", err.phase)
      assert.is_truthy(err.message:find("unreachable", 1, true), err.message)
    end)

    it("says that the connection was closed or reset before an answer", function()
      local server = helper.serve_bytes("")
      local err = failure(client, { url = server.base }, "ConnectError")
      assert.are.equal("first_byte", err.phase)
      assert.is_true(err.maybe_executed)
      assert.is_truthy(err.message:find("closed before an answer", 1, true))
      local resetting = helper.serve(function(connection)
        connection:read()
        connection:reset()
      end)
      err = failure(client, { url = resetting.base }, "ConnectError")
      assert.is_truthy(err.message:find("reset", 1, true), err.message)
    end)

    it("says that the head was cut", function()
      for _, head in ipairs { "HTTP/1.1 200 OK\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX-A" } do
        local err = failure(client, { url = helper.serve_bytes(head).base }, "TruncatedStream")
        assert.are.equal("head", err.phase)
      end
      failure(client, { url = helper.serve_bytes("HTTP/1.1 200").base }, "ConnectError")
    end)

    it("says that the body was cut, and where", function()
      for _, bytes in ipairs {
        "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabc",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n",
      } do
        local err = failure(client, { url = helper.serve_bytes(bytes).base }, "TruncatedStream")
        assert.are.equal("body", err.phase)
        assert.is_truthy(err.message:find("after 3 bytes", 1, true), err.message)
        assert.is_true(err.retryable and err.maybe_executed)
      end
      local server = helper.serve(function(connection)
        connection:read()
        connection:write("HTTP/1.1 200 OK\r\n\r\nabc")
        task.sleep(0.02)
        connection:reset()
      end)
      failure(client, { url = server.base }, "TruncatedStream")
    end)

    it("says that what came is not HTTP", function()
      for _, bytes in ipairs {
        "SSH-2.0-OpenSSH_9.2\r\n",
        "<html><body>busy</body></html>\r\n\r\n",
        "HTTP/1.1 two hundred\r\n\r\n",
        "HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
        "HTTP/1.1 200 OK\r\nA: b\0c\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\nabc\r\n0\r\n\r\n",
      } do
        local err = failure(client, { url = helper.serve_bytes(bytes).base }, "ProtocolError")
        assert.is_false(err.retryable)
      end
    end)

    it("says that the answer is too large: by its length, by its bytes, by its head", function()
      local told = helper.serve(function(connection)
        connection:read()
        connection:write("HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n")
        while connection:read() do task.sleep(0) end
      end)
      local err = failure(client, { url = told.base, max_response = 100000 }, "ProtocolError")
      assert.are.equal("RESPONSE_TOO_LARGE", err.code)
      err = failure(client, { url = told.base }, "ProtocolError") -- 64 MiB by default
      assert.are.equal("RESPONSE_TOO_LARGE", err.code)

      local untold = helper.serve(function(connection)
        connection:read()
        connection:write("HTTP/1.1 200 OK\r\n\r\n")
        while connection:write(("x"):rep(65536)) do task.sleep(0) end
      end)
      err = failure(client, { url = untold.base, max_response = 100000 }, "ProtocolError")
      assert.are.equal("RESPONSE_TOO_LARGE", err.code)
      local exact = helper.serve_bytes(helper.answer(("x"):rep(1000), CLOSE))
      assert(client:request { url = exact.base, max_response = 1000 })
      failure(client, { url = exact.base, max_response = 999 }, "ProtocolError")

      local endless = helper.serve(function(connection)
        connection:read()
        connection:write("HTTP/1.1 200 OK\r\n")
        while connection:write("X-A: " .. ("x"):rep(1000) .. "\r\n") do task.sleep(0) end
      end)
      err = failure(client, { url = endless.base }, "ProtocolError")
      assert.are.equal("HEAD_TOO_LARGE", err.code)
    end)

    it("names the client that was closed", function()
      local server = helper.serve(function(connection) while connection:read() do task.sleep(0) end end)
      local waiting = task.spawn(function() return client:request { url = server.base } end)
      task.sleep(0.005)
      client:close()
      local res, err = waiting:join()
      assert.is_nil(res)
      assert.is_truthy(tostring(err):find("the client was closed", 1, true))
    end)
  end)

  describe("a time limit", function()
    local function silent()
      return helper.serve(function(connection) while connection:read() do task.sleep(0) end end)
    end

    it("of connecting", function()
      -- a listener that accepts no more: its queue fills up, and the next one waits for ever
      local listener <close> = assert(require("sluice.core.socket").listen("127.0.0.1", 0))
      local fillers <close> = http.client()
      local crowd = task.group()
      for _ = 1, 200 do
        crowd:spawn(function() fillers:request { url = "http://127.0.0.1:" .. listener.port } end)
      end
      task.sleep(0.05)
      local given = { url = "http://127.0.0.1:" .. listener.port, timeout = { connect = 0.03 } }
      local err = failure(client, given, "TimeoutError")
      assert.are.equal("connect", err.limit)
      assert.are.equal("connect", err.phase)
      assert.is_falsy(err.maybe_executed)
      assert.is_true(err.retryable)
      crowd:close()
    end)

    it("of the first byte", function()
      local err = failure(client, { url = silent().base, timeout = { first_byte = 0.02 } }, "TimeoutError")
      assert.are.equal("first_byte", err.limit)
      assert.is_true(err.maybe_executed)
      assert.is_truthy(tostring(err):find("no answer within 0.02 s", 1, true))
      local slow = helper.serve(function(connection)
        connection:read()
        connection:write("HTTP/1.1 200 OK\r\nX-A: ")
        while connection:read() do task.sleep(0) end
      end)
      err = failure(client, { url = slow.base, timeout = { first_byte = 0.02 } }, "TimeoutError")
      assert.are.equal("first_byte", err.limit)
    end)

    it("of silence", function()
      local server = helper.serve(function(connection)
        connection:read()
        connection:write("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n")
        for _ = 1, 6 do
          task.sleep(0.01)
          connection:write("abc")
        end
        while connection:read() do task.sleep(0) end
      end)
      local err = failure(client, { url = server.base, timeout = { idle = 0.04 } }, "TimeoutError")
      assert.are.equal("idle", err.limit)
      assert.are.equal("body", err.phase)
      assert.is_truthy(tostring(err):find("after 18 bytes", 1, true), tostring(err))
    end)

    it("of all of it, by number or by name", function()
      local server = helper.serve(function(connection)
        connection:read()
        connection:write("HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
        while connection:write("a") do task.sleep(0.001) end
      end)
      for _, limit in ipairs { 0.03, { total = 0.03 } } do
        local err = failure(client, { url = server.base, timeout = limit }, "TimeoutError")
        assert.are.equal("total", err.limit)
        assert.is_truthy(tostring(err):find("not complete within 0.03 s, %d+ bytes so far"))
        assert.is_true(err.timing.total >= 0.03)
      end
      failure(client, { url = server.base, timeout = 0 }, "TimeoutError")
    end)

    it("of a client holds for its requests", function()
      local hurried = http.client { timeout = { first_byte = 0.02 } }
      assert.are.equal("first_byte", failure(hurried, { url = silent().base }, "TimeoutError").limit)
      local given = { url = silent().base, timeout = 0.01 }
      assert.are.equal("total", failure(hurried, given, "TimeoutError").limit)
      hurried:close()
    end)
  end)

  describe("cancellation", function()
    local closed

    local function watching(answer)
      closed = nil
      return helper.serve(function(connection)
        connection:read()
        if answer then connection:write(answer) end
        while connection:read() do task.sleep(0) end
        closed = task.now()
      end)
    end

    it("closes the connection at once, wherever the request is", function()
      for _, answer in ipairs { false, "HTTP/1.1 200", "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc" } do
        local server = watching(answer)
        local waiting = task.spawn(pcall, client.request, client, { url = server.base })
        task.sleep(0.01)
        local at = task.now()
        waiting:cancel("enough")
        helper.wait_until(function() return closed end)
        assert.is_true(closed - at < 0.1)
        assert.are.same({ open = 0, idle = 0, active = 0, waiting = 0 }, client:stats())
      end
    end)

    it("by a deadline of a scope is not the request's own limit", function()
      local server = watching()
      local res, err = task.timeout(0.02, client.request, client, { url = server.base })
      assert.is_nil(res)
      assert.are.equal("task.timeout", err.limit)
      helper.wait_until(function() return closed end)
    end)

    it("while connecting, queued or resolving leaves nothing", function()
      local limited = http.client { max_connections = 1, dns_servers = "127.0.0.1:1" }
      local server = watching()
      local first = task.spawn(pcall, limited.request, limited, { url = server.base })
      local second = task.spawn(pcall, limited.request, limited, { url = "http://name.invalid" })
      task.sleep(0.01)
      assert.are.equal(1, limited:stats().waiting)
      second:cancel()
      first:cancel()
      task.sleep(0.001)
      assert.are.same({ open = 0, idle = 0, active = 0, waiting = 0 }, limited:stats())
      limited:close()
    end)
  end)

  describe("a streamed response", function()
    it("gives its head first, then the pieces as they come", function()
      local go_on = false
      local server = helper.serve(function(connection)
        connection:read()
        connection:write("HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n")
        helper.wait_until(function() return go_on end)
        connection:write("abc")
        task.sleep(0.01)
        connection:write("def")
        connection:read()
      end)
      local res = assert(client:request { url = server.base, stream = true })
      assert.are.equal("6", res.headers["content-length"])
      go_on = true
      local pieces = {}
      for piece in res:chunks() do pieces[#pieces + 1] = piece end
      assert.are.same({ "abc", "def" }, pieces)
      assert.is_nil(res:read())
      assert.are.equal(6, meta.get(res).timing.bytes_in)
    end)

    it("can be read whole, and its connection is used again", function()
      local server = helper.serve_requests(function() return helper.answer(("x"):rep(500000)) end)
      for _ = 1, 3 do
        local res = assert(client:request { url = server.base, stream = true })
        assert.are.equal(500000, #res.body)
      end
      assert.are.equal(1, server.accepted)
    end)

    it("holds the server back when it is not read", function()
      local written, size = 0, 50 << 20
      local server = helper.serve(function(connection)
        connection:read()
        connection:write(("HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n"):format(size))
        local block = ("x"):rep(65536)
        while written < size and connection:write(block) do written = written + #block end
        connection:read()
      end)
      local res = assert(client:request { url = server.base, stream = true, timeout = { idle = 0.05 } })
      local _ = assert(res:read())
      task.sleep(0.1) -- a reader who sleeps is not the server's silence
      local stalled = written
      task.sleep(0.05)
      assert.are.equal(stalled, written)
      -- what is on the way: the sockets of both sides (some MB) and our 128 KB
      assert.is_true(stalled < 20 << 20, ("%d bytes went out"):format(stalled))
      local took, largest = 0, 0
      helper.ticking(function()
        for piece in res:chunks() do
          took = took + #piece
          largest = math.max(largest, #piece)
        end
      end)
      assert.is_true(took < size and took > size - (1 << 20))
      assert.is_true(largest <= (128 << 10) + 65536, tostring(largest))
    end)

    it("ends at its limit, also where nothing comes behind the piece that was held back", function()
      local server = helper.serve_bytes("HTTP/1.1 200 OK\r\n\r\n" .. ("x"):rep(144000))
      -- a little over what is read ahead
      local res = assert(client:request { url = server.base, stream = true, max_response = 140000 })
      task.sleep(0.05)
      local taken, piece, err = 0, ""
      repeat
        taken = taken + #piece
        piece, err = res:read()
      until not piece
      assert.are.equal("RESPONSE_TOO_LARGE", err.code)
      assert.is_true(taken <= 140000)
      assert.are.same({ open = 0, idle = 0, active = 0, waiting = 0 }, client:stats())
    end)

    it("that is closed closes the connection at once", function()
      local closed
      local server = helper.serve(function(connection)
        connection:read()
        connection:write("HTTP/1.1 200 OK\r\n\r\nabc")
        while connection:read() do task.sleep(0) end
        closed = true
      end)
      do
        local res <close> = assert(client:request { url = server.base, stream = true })
        assert.are.equal("abc", res:read())
      end
      helper.wait_until(function() return closed end)
      closed = nil
      -- luacheck: push ignore 512
      for _ in client:request({ url = server.base, stream = true }):chunks() do break end
      -- luacheck: pop
      helper.wait_until(function() return closed end)
    end)

    it("that is forgotten closes with the garbage", function()
      local closed
      local server = helper.serve(function(connection)
        connection:read()
        connection:write("HTTP/1.1 200 OK\r\n\r\nabc")
        while connection:read() do task.sleep(0) end
        closed = true
      end)
      task.spawn(function() assert(client:request { url = server.base, stream = true }) end):join()
      helper.wait_until(function()
        collectgarbage()
        return closed
      end)
    end)

    it("tells a reader who waits that another task closed it", function()
      local server = helper.serve(function(connection)
        connection:read()
        connection:write("HTTP/1.1 200 OK\r\n\r\n")
        while connection:read() do task.sleep(0) end
      end)
      local res = assert(client:request { url = server.base, stream = true })
      local reader = task.spawn(function() return res:read() end)
      task.sleep(0.005)
      res:close()
      local piece, err = reader:join()
      assert.is_nil(piece)
      assert.are.equal("TruncatedStream", err.kind)
    end)

    it("gives what came before its failure", function()
      local server = helper.serve_bytes("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc")
      local res = assert(client:request { url = server.base, stream = true })
      assert.are.equal("abc", res:read())
      local piece, err = res:read()
      assert.is_nil(piece)
      assert.are.equal("TruncatedStream", err.kind)
      assert.are.equal("GET", err.operation)
    end)

    it("ends with the limit of silence", function()
      local server = helper.serve(function(connection)
        connection:read()
        connection:write("HTTP/1.1 200 OK\r\n\r\nabc")
        while connection:read() do task.sleep(0) end
      end)
      local res = assert(client:request { url = server.base, stream = true, timeout = { idle = 0.02 } })
      assert.are.equal("abc", res:read())
      local _, err = res:read()
      assert.are.equal("TimeoutError", err.kind)
      assert.are.equal("idle", err.limit)
    end)
  end)
end)
