-- SPDX-License-Identifier: MIT
-- The Redis client against a real server: commands, replies, pipelines, transactions, scripts, streams.
local describe = require("support").needing("redis", describe, pending)

local errors = require "sluice.errors"
local fixture = require "redis_server"
local sluice = require "sluice"
local support = require "support"
local task = require "sluice.task"

describe("sluice.redis", function()
  local redis, server, client

  setup(function()
    redis = sluice.redis
    server = fixture.start()
  end)
  teardown(function() server:stop() end)
  before_each(function()
    client = redis.connect { url = server.url }
    assert(client:flushall())
  end)
  after_each(function() client:close() end)

  it("has commands as methods, and replies as Lua values", function()
    assert.equal("OK", client:set("key", "value", "EX", 10))
    assert.equal("value", client:get "key")
    assert.same({ nil, nil, n = 2 }, table.pack(client:get "none", nil))
    assert.equal(10, client:ttl "key")
    assert.equal("integer", math.type(client:incr "n"))
    assert.equal("a\0b\r\nc", (client:set("bytes", "a\0b\r\nc") and client:get "bytes"))
    assert.equal(2, client:RPUSH("list", "x", "y"))
    assert.same({ "x", "y" }, client:lrange("list", 0, -1))
    assert.same({}, client:lrange("none", 0, -1))
    assert.equal("list", client:type "list")
    assert.equal("", (client:set("empty", "") and client:get "empty"))
  end)

  it("gives null inside an array as false, so that the array keeps its length", function()
    client:set("a", 1)
    local values = client:mget("a", "none", "a", "none")
    assert.same({ "1", false, "1", false }, values)
    assert.equal(4, #values)
  end)

  it("writes numbers to the last bit", function()
    for _, number in ipairs { 0, -1, math.maxinteger, math.mininteger, 0.1, 1e300, -2.5 } do
      client:set("n", number)
      assert.equal(number, tonumber(client:get "n"))
    end
    assert.equal("9223372036854775807", (client:set("n", math.maxinteger) and client:get "n"))
    assert.equal(math.mininteger, client:eval("return redis.call('incrby', KEYS[1], ARGV[1])", 1, "min",
      math.mininteger))
  end)

  it("reads arrays in arrays", function()
    assert.same({ 1, { 2, { 3, { "four", false } } }, "five" },
      client:eval("return {1, {2, {3, {'four', false}}}, 'five'}", 0))
    assert.same({ {}, { {} } }, client:eval("return {{}, {{}}}", 0))
  end)

  it("takes any name by client:command, also those that its own methods have", function()
    assert.equal("OK", client:command("set", "a", "b"))
    assert.is_true(client:command "COMMAND" ~= nil)
    assert.equal(0, client:command("SCRIPT", "EXISTS", ("0"):rep(40))[1])
    assert.equal("PONG", client:ping())
  end)

  it("gives an error reply as an err with its code", function()
    client:rpush("list", 1)
    local value, err = client:get "list"
    assert.is_nil(value)
    assert.is_true(errors.is(err) and err:is "RedisError")
    assert.same({ "WRONGTYPE", "GET", server.url, false },
      { err.code, err.operation, err.object, err.retryable })
    assert.equal("GET " .. server.url .. ": Operation against a key holding the wrong kind of value "
      .. "(RedisError, WRONGTYPE)", tostring(err))
    local _, unknown = client:nosuchcommand(1)
    assert.equal("ERR", unknown.code)
    assert.matches("unknown command", unknown.message)
    assert.equal("PONG", client:ping())
  end)

  it("raises for what has no text, at the caller's line", function()
    local function message(f, ...) return select(2, pcall(f, ...)) end
    assert.matches("redis_spec.lua:%d+: redis: argument 2 of SET must be a string, a number or "
      .. "a sluice.secret, got table", message(function() client:set("a", {}) end))
    assert.matches("argument 1 of GET must be .*, got nil", message(function() client:get(nil) end))
    assert.matches("argument 1 of GET must be .*, got boolean", message(function() client:get(true) end))
    assert.matches('option "url" must be', message(redis.connect, { url = 1 }))
    assert.matches('unknown option "pasword" %(did you mean "password"%?%)',
      message(redis.connect, { pasword = "x" }))
  end)

  it("takes a secret as an argument", function()
    local hidden = sluice.secret "a-hidden-value"
    assert.equal("OK", client:set("s", hidden))
    assert.equal("a-hidden-value", client:get "s")
    client:rpush("list", 1)
    local _, err = client:nosuch(hidden)
    assert.is_nil(tostring(err):find("a-hidden-value", 1, true))
  end)

  it("refuses what would change the connection that all share", function()
    for _, words in ipairs {
      { "SELECT", 1 }, { "AUTH", "x" }, { "HELLO", 3 }, { "MULTI" }, { "WATCH", "a" }, { "SUBSCRIBE", "c" },
      { "MONITOR" }, { "CLIENT", "reply", "off" }, { "WAIT", 1, 1 },
    } do
      local ok, message = pcall(client.command, client, table.unpack(words))
      assert.is_false(ok)
      assert.matches("redis: " .. words[1] .. " cannot be sent: ", message)
    end
    assert.is_true(client:client "ID" > 0)
    assert.equal("PONG", client:ping())
  end)

  it("shares one connection among all tasks", function()
    client:set("n", 0)
    local numbers = {}
    for index = 1, 200 do numbers[index] = index end
    task.map(numbers, function(index)
      for _ = 1, 20 do
        assert.equal(tostring(index), client:echo(index))
        assert(client:incr "n")
      end
    end, { stop_on_error = true })
    assert.equal("4000", client:get "n")
    local stats = client:stats()
    assert.same({ 1, 1, 0, "open" }, { stats.connections, stats.connects, stats.in_flight, stats.state })
    assert.matches("connected_clients:1\r\n", client:info "clients")
  end)

  it("sends large values both ways", function()
    local large = ("0123456789abcdef"):rep(1 << 18)
    assert.equal("OK", client:set("large", large))
    assert.is_true(client:get "large" == large)
    local many = {}
    for index = 1, 5000 do many[index] = index end
    assert.equal(5000, client:rpush("many", table.unpack(many)))
    assert.equal("5000", client:lrange("many", 0, -1)[5000])
  end)

  describe("pipeline", function()
    it("sends commands in one go, and gives their replies in order", function()
      local replies = assert(client:pipeline(function(queue)
        queue:set("a", 1)
        queue:get "a"
        queue:get "none"
        queue:lpush("a", 2)
        queue:command("MGET", "a", "none")
      end))
      assert.equal(5, #replies)
      assert.same({ "OK", "1", false }, { replies[1], replies[2], replies[3] })
      assert.equal("WRONGTYPE", replies[4].code)
      assert.same({ "1", false }, replies[5])
      assert.same({}, client:pipeline(function() end))
    end)

    it("refuses commands that would hold up all others", function()
      assert.has_error(function()
        client:pipeline(function(queue) queue:blpop("list", 0) end)
      end)
      assert.has_error(function()
        client:pipeline(function(queue) queue:select(1) end)
      end)
    end)

    it("posts commands without waiting", function()
      assert.is_true(client:post { { "SET", "posted", 1 }, { "INCR", "posted" } })
      assert.equal("2", client:get "posted")
      assert.has_error(function() client:post { { "SET", "a", false } } end)
    end)
  end)

  describe("transaction", function()
    it("is all or nothing", function()
      assert.same({ 1, 2, "2" }, client:transaction(function(tx)
        tx:incr "n"
        tx:incr "n"
        tx:get "n"
      end))
      local result, err = client:transaction(function(tx)
        tx:incr "n"
        tx:nosuchcommand()
      end)
      assert.is_nil(result)
      assert.equal("EXECABORT", err.code)
      assert.matches("unknown command", tostring(err.cause))
      assert.equal("2", client:get "n")
      result = assert(client:transaction(function(tx)
        tx:set("text", "x")
        tx:incr "text"
      end))
      assert.equal("ERR", result[2].code)
    end)

    it("runs again when a watched key is changed", function()
      client:set("n", 1)
      local runs = 0
      local result = assert(client:transaction(function(tx, now)
        runs = runs + 1
        local n = tonumber(now:get "n")
        if runs == 1 then client:set("n", 10) end
        tx:set("n", n + 1)
      end, { watch = { "n" } }))
      assert.same({ { "OK" }, 2, "11" }, { result, runs, client:get "n" })
      local none, err = client:transaction(function(tx)
        client:incr "n"
        tx:get "n"
      end, { watch = { "n" }, attempts = 3 })
      assert.is_nil(none)
      assert.same({ "RedisError", "WATCH", true, "14" },
        { err.kind, err.code, err.retryable, client:get "n" })
    end)

    it("leaves nothing watched when the function raises or queues nothing", function()
      assert.has_error(function()
        client:transaction(function() error "mine" end, { watch = { "n" } })
      end)
      assert.same({}, client:transaction(function() end, { watch = { "n" } }))
      assert.equal(0, client:stats().lent)
      assert.same({ 1 }, client:transaction(function(tx) tx:incr "n" end, { watch = { "n" } }))
    end)
  end)

  describe("script", function()
    it("is called by its digest, and sent again where the server has forgotten it", function()
      local add = client:script "return redis.call('INCRBY', KEYS[1], ARGV[1])"
      assert.equal(2, add({ "n" }, 2))
      assert.equal(4, add({ "n" }, 2))
      assert.equal("OK", client:command("SCRIPT", "FLUSH"))
      assert.equal(6, add({ "n" }, 2))
      local stats = server:cli "info commandstats"
      assert.matches("cmdstat_evalsha:calls=2", stats)
      assert.matches("cmdstat_script|load:calls=1", stats)
    end)

    it("gives its error, and nil for nothing", function()
      local _, err = client:script "return redis.call('INCR')" {}
      assert.same({ "RedisError", "EVAL" }, { err.kind, err.operation })
      local nothing = client:script "return nil"
      assert.is_nil(nothing())
      assert.is_nil(nothing())
      assert.has_error(function() nothing({}, {}) end)
    end)
  end)

  describe("commands that block", function()
    it("have a connection of their own", function()
      local waiting = task.spawn(function() return client:blpop("queue", 10) end)
      assert.equal("PONG", client:ping()) -- not behind it
      fixture.eventually(function() return client:stats().lent == 1 end)
      client:rpush("queue", "job")
      assert.same({ "queue", "job" }, waiting:join())
      assert.same({ 0, 2 }, { client:stats().lent, client:stats().connections })
      assert.is_nil(client:blpop("queue", 0.01))
      assert.equal(2, client:stats().connects) -- the same one again
    end)

    it("outlast the limit of a command, and are dropped when cancelled", function()
      local quick = client:with { timeout = 0.2 }
      assert.is_nil(quick:blpop("queue", 0.3))
      local waiting = task.spawn(function() return quick:blpop("queue", 0) end)
      fixture.eventually(function() return client:stats().lent == 1 end)
      waiting:cancel "the spec says so"
      fixture.eventually(function() return server:cli "info clients":find "blocked_clients:0" end)
      assert.same({ 0, 1 }, { client:stats().lent, client:rpush("queue", "kept") })
    end)

    it("wait for a place among max_blocking", function()
      local narrow <close> = redis.connect { url = server.url, max_blocking = 1 }
      local first = task.spawn(function() return narrow:blpop("one", 10) end)
      local second = task.spawn(function() return narrow:blpop("two", 10) end)
      fixture.eventually(function() return narrow:stats().lent == 1 end)
      client:rpush("two", 2)
      task.sleep(0.02)
      client:rpush("one", 1)
      assert.same({ { "one", "1" }, { "two", "2" } }, { first:join(), second:join() })
    end)
  end)

  describe("streams", function()
    it("are read by groups, their entries as tables", function()
      local id = client:xadd("jobs", "*", "name", "first", "n", 1)
      assert.same({ { id = id, fields = { name = "first", n = "1" } } },
        redis.entries(client:xrange("jobs", "-", "+")))
      client:xgroup("CREATE", "jobs", "g", 0)
      local function read(...) return client:xreadgroup("GROUP", "g", "w", ...) end
      assert.same({ { id = id, stream = "jobs", fields = { name = "first", n = "1" } } },
        redis.entries(read("COUNT", 10, "STREAMS", "jobs", ">")))
      assert.same({}, redis.entries(read("COUNT", 10, "BLOCK", 10, "STREAMS", "jobs", ">")))
      local waiting = task.spawn(function() return read("BLOCK", 10000, "STREAMS", "jobs", ">") end)
      fixture.eventually(function() return client:stats().lent == 1 end)
      client:xadd("jobs", "*", "name", "second")
      assert.equal("second", redis.entries(waiting:join())[1].fields.name)
      assert.equal(1, client:xack("jobs", "g", id))
      assert.equal("second", redis.entries(client:xautoclaim("jobs", "g", "v", 0, 0))[1].fields.name)
      assert.same({}, redis.entries(client:xreadgroup("GROUP", "g", "nobody", "STREAMS", "jobs", "0")))
    end)

    it("and maps come as arrays of names and values", function()
      client:hset("h", "a", 1, "b", 2)
      assert.same({ a = "1", b = "2" }, redis.map(client:hgetall "h"))
      assert.same({}, redis.map(client:hgetall "none"))
    end)
  end)

  it("connects through a unix socket, to a database, by IPv4, IPv6 and a name", function()
    local unix <close> = redis.connect { url = server.unix_url .. "?db=3" }
    unix:set("here", 1)
    assert.is_nil(client:get "here")
    local third <close> = redis.connect { url = server.url .. "/3" }
    assert.equal("1", third:get "here")
    local named <close> = redis.connect { url = "redis://localhost:" .. server.port, db = 3 }
    assert.equal("1", named:get "here")
    assert.equal("redis://localhost:" .. server.port .. "/3", tostring(named))
    local _, err = redis.connect({ url = server.url, db = 99 }):get "a"
    assert.same({ "RedisError", "ERR" }, { err.kind, err.code })
    assert.matches("DB index is out of range", err.message)
  end)

  it("needs real time, and works in a script of its own", function()
    local ok, message = pcall(task.simulate, function() client:get "a" end)
    assert.is_false(ok)
    assert.matches("redis needs a real socket", tostring(message))
    local result = support.sluice("-e", ([[
      local client = require("sluice.redis").connect { url = %q }
      client:set("from", "outside")
      print(client:get "from")]]):format(server.url))
    assert.same({ 0, "outside\n" }, { result.status, result.out })
  end)
end)
