-- SPDX-License-Identifier: MIT
-- The Redis client against a cluster of two real nodes: MOVED and ASK.
local describe = require("support").needing("redis", describe, pending)

local fixture = require "redis_server"
local sluice = require "sluice"

describe("sluice.redis in a cluster", function()
  local redis, first, second, client

  local function node_of(at)
    return at:cli("cluster myid"):match "%x+"
  end

  setup(function()
    redis = sluice.redis
    local words = "--cluster-enabled yes --cluster-node-timeout 2000 --cluster-require-full-coverage no"
    first, second = fixture.start(words), fixture.start(words)
    first:cli "cluster addslotsrange 0 8191"
    second:cli "cluster addslotsrange 8192 16383"
    second:cli "cluster set-config-epoch 2"
    first:cli(("cluster meet 127.0.0.1 %d"):format(second.port))
    fixture.eventually(function()
      local function knows(at)
        return select(2, at:cli("cluster nodes"):gsub(" connected %d+%-%d+", "")) == 2
      end
      return knows(first) and knows(second) and first:cli("cluster info"):find "cluster_state:ok"
        and second:cli("cluster info"):find "cluster_state:ok"
    end)
  end)
  teardown(function()
    first:stop()
    second:stop()
  end)
  before_each(function() client = redis.connect { url = first.url } end)
  after_each(function() client:close() end)

  it("follows MOVED to the node that has the key", function()
    for index = 1, 20 do assert.equal("OK", client:set("key" .. index, index)) end
    for index = 1, 20 do assert.equal(tostring(index), client:get("key" .. index)) end
    local stats = client:stats()
    assert.is_true(stats.redirects > 2 and stats.redirects < 38)
    assert.equal(2, stats.connections)
  end)

  it("follows it for scripts, and shows it in a pipeline", function()
    local get = client:script "return redis.call('GET', KEYS[1])"
    client:set("foo", "here") -- slot 12182
    assert.same({ "here", "here", "here" }, { get { "foo" }, get { "foo" }, get { "foo" } })
    local replies = assert(client:pipeline(function(queue) queue:get "foo" end))
    assert.equal("MOVED", replies[1].code)
    local _, err = client:mset("foo", 1, "bar", 2)
    assert.equal("CROSSSLOT", err.code)
  end)

  it("follows ASK while a slot is on its way", function()
    client:set("bar", "here") -- slot 5061
    first:cli(("cluster setslot 5061 migrating %s"):format(node_of(second)))
    second:cli(("cluster setslot 5061 importing %s"):format(node_of(first)))
    assert.equal("here", client:get "bar")
    assert.is_nil(client:get "none{bar}")
    assert.equal("OK", client:set("new{bar}", "there"))
    assert.equal("there", client:get "new{bar}")
    assert.equal(0, client:stats().failures)
  end)

  it("gives up on nodes that point at each other", function()
    local server
    server = fixture.fake(function(peer)
      while peer:read() do peer:write(("-MOVED 1 127.0.0.1:%d\r\n"):format(server.listener.port)) end
    end)
    local _ <close> = server
    local lost <close> = redis.connect { url = server.url }
    local value, err = lost:get "a"
    assert.is_nil(value)
    assert.same({ "MOVED", 5 }, { err.code, lost:stats().redirects })
  end)
end)
