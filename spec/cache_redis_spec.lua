-- SPDX-License-Identifier: MIT
-- layers.cache on a real Redis, which goes away and comes back.
local describe = require("support").needing("redis", describe, pending)

local cache = require "sluice.cache"
local endpoint = require "cache_endpoint"
local fixture = require "redis_server"
local json = require "sluice.json"
local layers = require "sluice.layers"
local log = require "sluice.log"
local redis_store = require "sluice.cache.redis_store"
local sluice = require "sluice"
local support = require "support"
local task = require "sluice.task"

local function result(answer)
  return sluice.meta(answer).cache.result
end

-- What log lines are written meanwhile.
local function logged(f)
  local lines = {}
  local before = log.set_output(function(line) lines[#lines + 1] = json.decode(line) end)
  local ok, err = pcall(f)
  log.set_output(before)
  if not ok then error(err, 0) end
  return lines
end

describe("layers.cache on Redis", function()
  local redis, server

  setup(function()
    redis = sluice.redis
    server = fixture.start()
  end)
  teardown(function() server:stop() end)

  local request = { messages = { { role = "user", content = "hi" } } }

  it("shares answers among processes", function()
    local inner = endpoint.new { pieces = { endpoint.chunk "a", endpoint.chunk() } }
    local one <close> = redis.connect { url = server.url }
    local other <close> = redis.connect { url = server.unix_url }
    local first = layers.cache { store = one, ttl = 100, stale_if_error = 50 } (inner)
    local key = sluice.meta(assert(first:query(request))).cache.key
    fixture.eventually(function() return one:get(key) end)
    local life = one:pttl(key)
    assert.is_true(life > 140000 and life <= 150000)
    local second = layers.cache { store = { cache.lru(), cache.redis(other, { timeout = 5 }) } } (inner)
    assert.same({ "hit", "hit" }, { result(second:query(request)), result(second:query(request)) })
    other:del(key)
    assert.equal("hit", result(second:query(request))) -- from its LRU
    for piece in assert(first:stream { n = 1 }):text() do assert.equal("a", piece) end
    fixture.eventually(function() return first.cache.stored == 2 end)
    assert.equal("hit", result(assert(second:stream { n = 1 })))
    assert.equal(2, inner.asked)
    assert.equal("up", cache.redis(one).state)
    assert.is_true(redis_store.is_client(one))
    local store = redis_store.new(one)
    assert.is_true(store:set("brief", "\0\255", 0.0001))
    assert.is_true(store:set("long", "\0\255", math.huge))
    assert.equal("\0\255", store:get "long")
  end)

  it("takes what is spoilt, or of another type, for none", function()
    local inner = endpoint.new {}
    local client <close> = redis.connect { url = server.url }
    local chat = layers.cache { store = client, namespace = "spoilt" } (inner)
    local key = sluice.meta(assert(chat:query(request))).cache.key
    local bytes = fixture.eventually(function() return client:get(key) end)
    client:setrange(key, #bytes - 5, "@@@@@")
    assert.equal("miss", result(chat:query(request)))
    fixture.eventually(function() return chat.cache.stored == 2 end)
    client:set(key, bytes:sub(1, -2))
    assert.equal("miss", result(chat:query(request)))
    fixture.eventually(function() return chat.cache.stored == 3 end)
    assert.equal("hit", result(chat:query(request)))
    client:del(key)
    client:lpush(key, "another type")
    local lines = logged(function()
      for _ = 1, 2 do
        assert.equal("miss", result(chat:query(request)))
        fixture.eventually(function() return client:type(key) == "string" end)
        client:del(key)
        client:lpush(key, "another type")
      end
    end)
    assert.equal(1, #lines)
    assert.same({ "warn", "WRONGTYPE" }, { lines[1].level, lines[1].error.code })
  end)

  it("makes do without it, says so once, and notices when it is back", function()
    local inner = endpoint.new {}
    local client <close> = redis.connect { url = server.url }
    local store = cache.redis(client, { max_pause = 0.05 })
    local chat = layers.cache { store = store, namespace = "away" } (inner)
    assert.equal("miss", result(chat:query(request)))
    fixture.eventually(function() return chat.cache.stored == 1 end)
    assert.equal("hit", result(chat:query(request)))
    local lines = logged(function()
      server:kill()
      for _ = 1, 20 do assert.equal("miss", result(chat:query(request))) end
      assert.equal("down", store.state)
      server:boot()
      fixture.eventually(function() return result(chat:query(request)) == "hit" end)
    end)
    assert.equal("up", store.state)
    assert.equal(2, #lines)
    assert.same({ "warn", "info" }, { lines[1].level, lines[2].level })
    assert.matches("is away", lines[1].event)
    assert.matches("is back", lines[2].event)
    assert.equal("ConnectError", lines[1].error.kind)
  end)

  it("waits for one that hangs no longer than its time, and only once", function()
    local inner = endpoint.new {}
    local client <close> = redis.connect { url = server.url }
    local store = cache.redis(client, { timeout = 0.2, max_pause = 30 })
    local chat = layers.cache { store = store, namespace = "hangs" } (inner)
    logged(function()
      server:signal "STOP"
      local from = task.now()
      for _ = 1, 50 do assert(chat:query(request)) end
      server:signal "CONT"
      assert.is_true(task.now() - from < 1)
    end)
    assert.equal(50, inner.asked)
  end)

  it("is a store for clients only", function()
    for _, bad in ipairs { "redis://x", {}, cache.lru() } do
      assert.has_error(function() cache.redis(bad) end)
    end
    local client <close> = redis.connect { url = server.url }
    assert.has_error(function() cache.redis(client, { timeot = 1 }) end)
  end)

  it("is what scripts/cached_query.lua shares with --redis", function()
    if not support.has "server" then return pending "this build has no server" end
    local one = support.sluice("--emulator", "scripts/cached_query.lua", "--redis", server.url)
    assert.equal(0, one.status, one.err)
    assert.matches("\n2 calls for 18 requests", one.out)
    local down = support.sluice("--emulator", "scripts/cached_query.lua", "--redis", "redis://127.0.0.1:1")
    assert.equal(0, down.status, down.err)
    assert.matches("\n2 calls for 18 requests", down.out)
    assert.matches("is away", down.err)
  end)
end)
