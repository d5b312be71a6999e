-- SPDX-License-Identifier: MIT
-- The parts of the Redis client by themselves: rules of commands, queues, links.
local describe = require("support").needing("redis", describe, pending)

local fixture = require "redis_server"

describe("sluice.redis, in parts", function()
  it("knows which commands block, and for how long", function()
    local rules = require "sluice.redis.rules"
    local function time(name, ...) return rules.block_time(name, table.pack(...)) end
    assert.same({ 5, math.huge, 0.5, 2, math.huge },
      { time("BLPOP", "a", "b", 5), time("BRPOP", "a", 0), time("BLMPOP", "0.5", 1, "a", "LEFT"),
        time("XREAD", "COUNT", 1, "block", 2000, "STREAMS", "a", "$"),
        time("XREAD", "BLOCK", "0", "STREAMS", "a", 0) })
    assert.is_nil(time("XREAD", "STREAMS", "BLOCK", "0"))
    assert.is_nil(time("GET", "a"))
    assert.is_nil(time("BLPOP", "a", "soon")) -- the server says what is wrong with it
    assert.is_true(rules.is_plain "GET")
    assert.is_false(rules.is_plain "BLPOP" or rules.is_plain "SELECT" or rules.is_plain "CLIENT")
    assert.is_string(rules.refusal("SELECT", 1))
    assert.is_string(rules.refusal("CLIENT", "Reply"))
    assert.is_nil(rules.refusal("CLIENT", "ID"))
  end)

  it("collects commands", function()
    local queue = require "sluice.redis.queue"
    local collected = queue.new(false)
    collected:set("a", 1)
    collected:command("get", "a")
    assert.same({ { "SET", "a", 1 }, { "GET", "a" } }, queue.commands(collected))
    assert.same({ "x", 1 }, queue.words("SET", { "x", 1, n = 2 }))
    local made = {}
    local own = queue.extend({ here = 1 }, function(name)
      made[#made + 1] = name
      return name:upper()
    end)
    assert.same({ 1, "GET", "GET" }, { own.here, own.get, own.get })
    assert.same({ "get" }, made)
    assert.is_nil(own._hidden)
    assert.is_nil(own[1])
  end)

  it("lends connections, and keeps those that are clean", function()
    local server <close> = fixture.start()
    local link = require("sluice.redis.link").new(
      { path = server.path, port = 0, db = 0, tls = false, shown = "here" },
      { connect_timeout = 1, max_reply = 1000 })
    local own = assert(link:borrow())
    assert.equal("PONG", own:command(1, "PING"))
    link:give_back(own, true)
    assert.equal(own, link:borrow())
    link:give_back(own, false)
    assert.equal("closed", (own:facts()))
    assert.are_not.equal(own, link:borrow())
    local shared = assert(link:get())
    assert.equal(shared, link:get())
    shared:command(1, "PING")
    shared:close()
    assert.is_true(link:lost(shared))
    assert.is_truthy(link:dial())
    link:close()
    assert.is_nil((link:dial()))
    local own_of = require("sluice.redis.own").new
    local _, err = own_of(link, 1)
    assert.equal("ConnectError", err.kind)
  end)

  it("retires a connection: who waits is answered, nobody new is", function()
    local core = require "sluice.core.redis"
    local server <close> = fixture.start()
    local connection = core.server {
      path = server.path, port = 0, connect_time = 1, max_reply = 1000, greeting = {},
    }:open(function(text) return text end)
    local replies = connection:batch(1, { { "PING" }, { "NOSUCH" } })
    assert.equal("PONG", replies[1])
    assert.matches("^ERR ", replies[2])
    assert.is_true(connection:post { { "SET", "a", 1 } })
    assert.matches(": open$", tostring(connection))
    connection:retire()
    assert.same({ nil, "Closed", n = 2 }, table.pack(connection:command(1, "PING")))
    assert.same({ nil, "BadWord", n = 2 }, table.pack(connection:command(1, "GET", {})))
    assert.is_false(connection:post { { "PING" } })
  end)

  it("makes errs of what failed", function()
    local failure = require "sluice.redis.failure"
    local err = failure.reply("LOADING Redis is loading the dataset in memory", "here")
    assert.same({ "RedisError", "LOADING", true, "Redis is loading the dataset in memory" },
      { err.kind, err.code, err.retryable, err.message })
    assert.is_nil(failure.reply("no code").code)
    err = failure.lost("TimeoutError", nil, true, { operation = "GET", object = "here", seconds = 2 })
    assert.equal("GET here: no reply for 2 s (TimeoutError)", tostring(err))
    assert.is_function(require("sluice.redis.transaction").run)
    assert.is_function(require("sluice.redis.script").new)
  end)
end)
