-- SPDX-License-Identifier: MIT
-- The Redis client when things go wrong: servers that are gone, hang, break the protocol, or refuse.
local describe = require("support").needing("redis", describe, pending)

local fixture = require "redis_server"
local sluice = require "sluice"
local support = require "support"
local task = require "sluice.task"

describe("sluice.redis: failures", function()
  local redis

  setup(function() redis = sluice.redis end)

  -- The err of a command that must fail.
  local function failing(client, ...)
    local value, err = client:command(...)
    assert.is_nil(value)
    assert.is_truthy(err)
    return err
  end

  describe("a server that goes", function()
    local server

    setup(function() server = fixture.start() end)
    teardown(function() server:stop() end)

    it("fails what is in flight, and the client comes back with it", function()
      local client <close> = redis.connect { url = server.url }
      client:set("a", 1)
      server:signal "STOP"
      local waiting = task.spawn(function() return client:incr "a" end)
      task.sleep(0.02)
      server:kill()
      local value, err = waiting:join()
      assert.is_nil(value)
      assert.same({ "ConnectError", true, true }, { err.kind, err.maybe_executed, err.retryable })
      err = failing(client, "GET", "a")
      assert.equal("ConnectError", err.kind)
      assert.is_false(err.maybe_executed)
      assert.matches("Connection refused", err.message)
      local early = failing(client, "GET", "a") -- at once: it is not tried again before the pause is over
      assert.is_true(early.retry_after > 0 and early.retry_after <= 2)
      assert.equal(1, client:stats().failures)
      server:boot()
      fixture.eventually(function() return client:ping() end)
      assert.equal("OK", client:set("a", 2))
      assert.equal("open", client:stats().state)
    end)

    it("killed in the middle of a reply gives no part of it", function()
      local client <close> = redis.connect { url = server.url }
      client:setrange("large", 90000000, "x")
      local waiting = task.spawn(function() return client:get "large" end)
      task.sleep(0.005)
      server:kill()
      local value, err = waiting:join()
      assert.is_nil(value)
      assert.same({ "ConnectError", true }, { err.kind, err.maybe_executed })
      server:boot()
      assert.equal("PONG", client:ping()) -- the first try is made at once
    end)

    it("and came back while nobody asked is not noticed by who asks next", function()
      local client <close> = redis.connect { url = server.url }
      client:ping()
      server:kill()
      server:boot()
      assert.equal("PONG", client:ping())
      assert.equal(0, client:stats().failures)
    end)

    it("fails a command that blocks", function()
      local client <close> = redis.connect { url = server.url }
      local waiting = task.spawn(function() return client:blpop("queue", 0) end)
      fixture.eventually(function() return client:stats().in_flight == 1 end)
      task.sleep(0.02)
      server:kill()
      local _, err = waiting:join()
      assert.equal("ConnectError", err.kind)
      server:boot()
      assert.is_nil(client:blpop("queue", 0.01))
    end)
  end)

  describe("a server that hangs", function()
    local server, client

    before_each(function()
      server = fixture.start()
      client = redis.connect { url = server.url, timeout = 0.1 }
      client:set("n", 0)
      server:signal "STOP"
    end)
    after_each(function()
      client:close()
      server:stop()
    end)

    it("fails a command at its limit; what comes later is nobody's", function()
      local err = failing(client, "INCR", "n")
      assert.same({ "TimeoutError", "command", true }, { err.kind, err.limit, err.maybe_executed })
      assert.equal("INCR " .. server.url .. ": no reply for 0.1 s (TimeoutError)", tostring(err))
      assert.equal(1, client:stats().timeouts)
      server:signal "CONT"
      assert.equal("PONG", client:with({ timeout = 5 }):ping())
      assert.equal("1", client:get "n")
    end)

    it("lets who waits longer have the reply, over the same connection", function()
      local patient = task.spawn(function() return client:with({ timeout = 10 }):echo "patient" end)
      local impatient = task.spawn(function() return client:echo "impatient" end)
      assert.equal("TimeoutError", select(2, impatient:join()).kind)
      server:signal "CONT"
      assert.equal("patient", patient:join())
      assert.equal("next", client:echo "next")
    end)

    it("does not outlive the caller's deadline, nor a cancelled task", function()
      local slow = client:with { timeout = 0 }
      local value, err = task.timeout(0.05, slow.incr, slow, "n")
      assert.is_nil(value)
      assert.equal("task.timeout", err.limit)
      local waiting = task.spawn(function() return slow:incr "n" end)
      task.sleep(0.01)
      waiting:cancel "the spec says so"
      local _, cancelled = pcall(waiting.join, waiting)
      assert.equal("TaskCancelled", cancelled.kind)
      local replies = {}
      local others = {}
      for index = 1, 20 do
        others[index] = task.spawn(function() replies[index] = slow:echo(index) end)
      end
      task.sleep(0.01)
      others[7]:cancel "the spec says so"
      server:signal "CONT"
      for index = 1, 20 do pcall(others[index].join, others[index]) end
      for index = 1, 20 do
        assert.equal(index ~= 7 and tostring(index) or nil, replies[index])
      end
      assert.equal("2", client:get "n")
    end)
  end)

  it("a connection that showed no sign of life takes nothing new", function()
    local server <close> = fixture.fake(function(peer, number)
      local asked = 0
      while peer:read() do
        asked = asked + 1
        if number == 2 or number == 1 and asked == 1 then peer:write "+PONG\r\n" end
      end
    end)
    local client <close> = redis.connect { url = server.url, timeout = 0.2 }
    assert.equal("PONG", client:ping())
    assert.equal("TimeoutError", failing(client, "PING").kind)
    assert.equal("PONG", client:ping())
    assert.same({ 2, 0, "open" }, { server.accepted, client:stats().failures, client:stats().state })
  end)

  it("a connection that never answered is a try that failed", function()
    local server <close> = fixture.fake(function(peer) while peer:read() do end end)
    local client <close> = redis.connect { url = server.url, timeout = 0.05 }
    assert.equal("TimeoutError", failing(client, "PING").kind)
    local err = failing(client, "PING")
    assert.same({ "ConnectError", "the server gave no sign of life" }, { err.kind, err.message })
    assert.is_true(err.retry_after > 0)
  end)

  it("what was given up before it could leave is not sent", function()
    local got
    local server <close> = fixture.fake(function(peer)
      task.sleep(0.1)
      got = ""
      while true do
        local piece = peer:read()
        if not piece then return end
        got = got .. piece
        if got:find "AUTH" and not got:find "GET" then peer:write "+OK\r\n" end
        if got:find "GET" then peer:write "$1\r\nx\r\n" end
      end
    end)
    local client <close> = redis.connect { url = server.url, password = "letmein", timeout = 0.05 }
    local err = failing(client, "INCR", "n")
    assert.same({ "TimeoutError", false }, { err.kind, err.maybe_executed })
    assert.equal("x", client:with({ timeout = 5 }):get "a")
    assert.is_nil(got:find "INCR")
  end)

  it("a connection that cannot be made in time is a failure of connecting", function()
    local silent <close> = fixture.fake(function() task.sleep(60) end)
    local client <close> = redis.connect { url = silent.url .. "/1", connect_timeout = 0.1 }
    local err = failing(client, "PING")
    assert.same({ "TimeoutError", "connect", false }, { err.kind, err.limit, err.maybe_executed })
    assert.matches("the limit of 0.1 s for connecting passed at the answer to the greeting", err.message)
    assert.equal(1, client:stats().failures)
  end)

  it("names and addresses that lead nowhere are told", function()
    local client <close> = redis.connect { url = "redis://no-such-host.invalid:1", connect_timeout = 0.5 }
    local lost = failing(client, "PING") -- how soon depends on the machine's name servers
    assert.equal("redis://no-such-host.invalid:1", lost.object)
    assert.is_true(lost.kind == "ConnectError" or lost.limit == "connect")
    local v6 <close> = redis.connect { url = "redis://[::1]:1" }
    local err = failing(v6, "PING")
    assert.same({ "ConnectError", "redis://[::1]:1" }, { err.kind, err.object })
    local gone <close> = redis.connect { url = "unix:/no/such/socket" }
    assert.matches("No such file or directory", failing(gone, "PING").message)
  end)

  it("waits between its tries, longer each time", function()
    local server <close> = fixture.fake(function(peer) peer:close() end)
    local client <close> = redis.connect { url = server.url }
    local pauses = {}
    for index = 1, 4 do
      assert.equal("ConnectError", failing(client, "PING").kind)
      pauses[index] = failing(client, "PING").retry_after
      task.sleep(pauses[index])
    end
    assert.is_true(pauses[1] <= 0.05 and pauses[4] > 0.1 and pauses[4] <= 0.4)
    assert.is_true(server.accepted <= 6)
  end)

  describe("what is no reply", function()
    -- A server that answers every request with these bytes.
    local function answering(bytes, f, given)
      local server <close> = fixture.fake(function(peer)
        while peer:read() do
          if not peer:write(bytes) then return end
        end
      end)
      given = given or {}
      given.url = server.url
      local client <close> = redis.connect(given)
      f(client, server)
    end

    it("is a ProtocolError, and the connection is not used again", function()
      for _, bytes in ipairs {
        "HTTP/1.1 400 Bad Request\r\n\r\n", "$x\r\n", ":12a\r\n", "*-7\r\n", "$-5\r\n", "\r\n\r\n",
      } do
        answering(bytes, function(client, server)
          local err = failing(client, "GET", "a")
          assert.equal("ProtocolError", err.kind)
          assert.is_true(err.maybe_executed)
          task.sleep(0.06)
          failing(client, "GET", "a")
          assert.equal(2, server.accepted)
        end)
      end
    end)

    it("may be nested too deeply", function()
      answering(("*1\r\n"):rep(100) .. ":1\r\n", function(client)
        assert.matches("nested", failing(client, "GET", "a").message)
      end)
    end)

    it("may be cut short, inside a value or a number", function()
      for _, bytes in ipairs { "$10\r\nabc", "*2\r\n:1\r\n", "$1", ":1" } do
        local server <close> = fixture.fake(function(peer)
          peer:read()
          peer:write(bytes)
        end)
        local client <close> = redis.connect { url = server.url }
        local err = failing(client, "GET", "a")
        assert.same({ "ConnectError", true }, { err.kind, err.maybe_executed })
        assert.matches("the server closed the connection", err.message)
      end
    end)

    it("may come unasked, and then it is not the next one's", function()
      answering("$1\r\na\r\n$1\r\nb\r\n", function(client)
        assert.equal("a", client:get "a")
        task.sleep(0.02)
        local err = select(2, client:get "b")
        assert.is_true(err == nil or err.kind == "ProtocolError")
      end)
    end)

    it("may be too large", function()
      answering("$3000\r\n" .. ("x"):rep(3000) .. "\r\n", function(client)
        local err = failing(client, "GET", "a")
        assert.equal("ProtocolError", err.kind)
        assert.matches("a reply of more than 1000 bytes %(max_reply%)", err.message)
      end, { max_reply = 1000 })
      answering("*500\r\n" .. (":1\r\n"):rep(500), function(client)
        assert.equal("ProtocolError", failing(client, "KEYS", "*").kind)
      end, { max_reply = 1000 })
    end)

    it("of more than 100 MiB is too large by default", function()
      local server <close> = fixture.start()
      local client <close> = redis.connect { url = server.unix_url, timeout = 50 }
      client:setrange("large", (100 << 20) + 10, "x")
      local err = failing(client, "GET", "large")
      assert.same({ "ProtocolError", server.unix_url }, { err.kind, err.object })
      assert.equal("PONG", client:ping())
    end)

    it("is what a server with no room says", function()
      local server <close> = fixture.start "--maxclients 1"
      local first <close> = redis.connect { url = server.url }
      fixture.eventually(function() return first:ping() end)
      local second <close> = redis.connect { url = server.url }
      local err = failing(second, "PING")
      assert.equal("RedisError", err.kind)
      assert.matches("max number of clients reached", err.message)
    end)

    it("comes in pieces of every size", function()
      local reply = "*5\r\n$3\r\nabc\r\n:-12\r\n$-1\r\n*2\r\n+OK\r\n-ERR no\r\n$0\r\n\r\n"
      local server <close> = fixture.fake(function(peer)
        while peer:read() do
          for index = 1, #reply do
            peer:write(reply:sub(index, index))
            task.sleep(0)
            task.sleep(0)
          end
        end
      end)
      local client <close> = redis.connect { url = server.url }
      local value = assert(client:get "a")
      assert.same({ "abc", -12, false, "OK", "ERR", "" },
        { value[1], value[2], value[3], value[4][1], value[4][2].code, value[5] })
    end)
  end)

  describe("passwords", function()
    local server
    local PASSWORD <const> = "a-long-password"

    setup(function()
      local user = ("--user someone on '>%s2' allcommands allkeys"):format(PASSWORD)
      server = fixture.start(("--requirepass %s %s"):format(PASSWORD, user))
    end)
    teardown(function() server:stop() end)

    it("are taken from the url or an option, with a user or without", function()
      local at = "@127.0.0.1:" .. server.port
      for _, given in ipairs {
        { url = "redis://:" .. PASSWORD .. at }, { url = server.url, password = PASSWORD },
        { url = server.url, password = sluice.secret(PASSWORD) },
        { url = "redis://default:a%2Dlong-password" .. at },
        { url = sluice.secret("redis://someone:" .. PASSWORD .. "2" .. at) },
        { url = server.url, user = "someone", password = PASSWORD .. "2" },
      } do
        local client <close> = redis.connect(given)
        assert.equal("PONG", client:ping())
        assert.equal(server.url, tostring(client))
      end
    end)

    it("that are wrong or missing are told, and never shown", function()
      local wrong = "wrong-password"
      local client <close> = redis.connect { url = server.url, password = wrong }
      local err = failing(client, "GET", "a")
      assert.same({ "RedisError", "WRONGPASS", false }, { err.kind, err.code, err.retryable })
      assert.is_nil(tostring(err):find(wrong, 1, true))
      assert.equal("WRONGPASS", failing(client, "GET", "a").code) -- also while it is not tried again
      local bare <close> = redis.connect { url = server.url }
      assert.equal("NOAUTH", failing(bare, "GET", "a").code)
      local ok, message = pcall(redis.connect, { url = "redis://:" .. wrong .. "@host:port" })
      assert.is_false(ok)
      assert.is_nil(message:find(wrong, 1, true))
    end)

    it("are too many for a server without one", function()
      local open <close> = fixture.start()
      local client <close> = redis.connect { url = open.url, password = PASSWORD }
      local err = failing(client, "GET", "a")
      assert.same({ "RedisError", "ERR" }, { err.kind, err.code })
      assert.matches("without any password configured", err.message)
    end)
  end)

  it("a closed client says so, to those in flight too", function()
    local server <close> = fixture.fake(function() task.sleep(60) end)
    local client = redis.connect { url = server.url }
    local waiting = task.spawn(function() return client:ping() end)
    task.sleep(0.02)
    client:close()
    assert.equal("ConnectError", select(2, waiting:join()).kind)
    local err = failing(client, "PING")
    assert.same({ "ConnectError", false }, { err.kind, err.retryable })
    assert.matches("the client was closed", err.message)
    assert.is_false(client:post { { "PING" } })
    client:close()
  end)

  it("leaves no descriptor behind", function()
    local server <close> = fixture.start()
    collectgarbage()
    local before = support.descriptors()
    for _ = 1, 20 do
      local client <close> = redis.connect { url = server.url }
      client:ping()
      client:blpop("none", 0.001)
    end
    assert.equal(before, support.descriptors())
    local forgotten = redis.connect { url = server.url }
    forgotten:ping()
    forgotten = nil -- luacheck: ignore
    collectgarbage()
    collectgarbage()
    assert.equal(before, support.descriptors())
  end)

  it("reads urls, and says what is wrong with one", function()
    local parse = require("sluice.redis.url").parse
    local place = assert(parse "rediss://me:p%40ss@[2001:db8::1]:7000/5")
    assert.same({ "2001:db8::1", 7000, true, 5, "me" },
      { place.host, place.port, place.tls, place.db, place.user })
    assert.equal("rediss://[2001:db8::1]:7000/5", require("sluice.redis.url").show(place))
    assert.same({ host = "127.0.0.1", port = 6379, tls = false, db = 0 }, parse "redis://")
    assert.same({ path = "/a b", port = 0, tls = false, db = 0 }, parse "unix:///a%20b")
    for _, wrong in ipairs {
      "", "localhost:6379", "http://a", "redis://a:b:c", "redis://a:99999", "redis://a/x", "redis://a/1?x=y",
      "redis://[::1", "unix:relative", "unix:/a?x=1", "redis:/a", "redis://a:0",
    } do
      local none, problem = parse(wrong)
      assert.is_nil(none)
      assert.is_string(problem)
    end
  end)
end)
