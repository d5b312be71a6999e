-- SPDX-License-Identifier: MIT
local cache = require "sluice.cache"
local core = require "sluice.core.lru"
local task = require "sluice.task"

local function keys_of(lru)
  local keys = {}
  for key in pairs(lru) do keys[#keys + 1] = key end
  return table.concat(keys, " ")
end

-- What an entry costs beside its key and value.
local COST <const> = 96

describe("cache.lru", function()
  it("keeps strings by key", function()
    local lru = cache.lru {}
    assert.is_nil(lru:get "a")
    assert.is_true(lru:set("a", "1"))
    assert.is_true(lru:set("\0b", "\0\255"))
    assert.is_true(lru:set("", ""))
    assert.are.same({ "1", "\0\255", "" }, { lru:get "a", lru:get "\0b", lru:get "" })
    lru:set("a", "longer than before")
    assert.are.equal("longer than before", lru:get "a")
    assert.is_true(lru:delete "a")
    assert.is_false(lru:delete "a")
    assert.is_nil(lru:get "a")
    assert.matches("^sluice.lru: 2 entries, %d+ bytes$", tostring(lru))
  end)

  it("lets the least recently used one go", function()
    local lru = cache.lru { max_entries = 3 }
    for key in ("abc"):gmatch "." do lru:set(key, key) end
    assert.are.equal("a", lru:get "a")
    lru:set("d", "d")
    assert.are.equal("d a c", keys_of(lru))
    lru:set("c", "new")
    lru:set("e", "e")
    assert.are.equal("e c d", keys_of(lru))
    assert.are.equal(2, lru:stats().evicted)
  end)

  it("counts bytes exactly, and never goes above its bound", function()
    local lru = cache.lru { max_bytes = 3 * COST + 60 }
    lru:set("k1", ("x"):rep(10))
    lru:set("k2", ("x"):rep(20))
    assert.are.equal(2 * COST + 34, lru:stats().bytes)
    lru:set("k1", "")
    assert.are.equal(2 * COST + 24, lru:stats().bytes)
    lru:set("k3", ("x"):rep(34))
    assert.are.equal("k3 k1 k2", keys_of(lru))
    assert.are.equal(3 * COST + 60, lru:stats().bytes)
    lru:set("k4", "x")
    assert.are.equal("k4 k3 k1", keys_of(lru))
    assert.is_false(lru:set("k1", ("x"):rep(2 * COST + 59)))
    assert.are.equal("k4 k3", keys_of(lru))
    assert.is_true(lru:set("k1", ("x"):rep(2 * COST + 58)))
    assert.are.equal("k1", keys_of(lru))
    lru:clear()
    assert.are.equal(0, lru:stats().bytes)
    assert.is_false(cache.lru { max_bytes = 5 }:set("", ""))
    assert.are.equal(64 << 20, cache.lru():stats().max_bytes)
  end)

  it("counts what happened", function()
    local lru = cache.lru { max_entries = 2, max_bytes = 1000 }
    for key in ("abc"):gmatch "." do lru:set(key, key) end
    for _ = 1, 3 do lru:get "c" end
    lru:get "a"
    assert.are.same({
      entries = 2, bytes = 2 * COST + 4, max_entries = 2, max_bytes = 1000,
      hits = 3, misses = 1, stored = 3, evicted = 1, expired = 0,
    }, lru:stats())
  end)

  it("lets no entry outlive its time", function()
    task.simulate(function()
      local lru = cache.lru { ttl = 10, max_entries = 2 }
      lru:set("a", "1")
      lru:set("b", "2", 0.5)
      task.sleep(0.499999)
      assert.are.equal("2", lru:get "b")
      task.sleep(0.000001)
      assert.is_nil(lru:get "b")
      -- what has ended makes room before anything that lives
      lru:set("b", "2", 1)
      lru:get "a"
      task.sleep(2)
      lru:set("c", "3", math.huge)
      assert.are.equal("c a", keys_of(lru))
      task.sleep(7.5)
      assert.are.equal(1, lru:stats().entries)
      assert.are.equal(3, lru:stats().expired)
      assert.are.equal(0, lru:stats().evicted)
      lru:set("c", "now with the usual time")
      task.sleep(10)
      assert.are.equal(0, lru:stats().bytes)
    end)
  end)

  it("begins anew on another clock", function()
    local lru = cache.lru {}
    lru:set("ends", "1", 3600)
    lru:set("stays", "1")
    task.simulate(function()
      assert.is_nil(lru:get "ends")
      assert.are.equal("1", lru:get "stays")
      lru:set("ends", "2", 3600)
      assert.are.equal("2", lru:get "ends")
    end)
    assert.is_nil(lru:get "ends")
    assert.are.equal("1", lru:get "stays")
  end)

  it("may change while it is walked through", function()
    local lru, seen = cache.lru {}, {}
    for index = 1, 6 do lru:set("k" .. index, "v" .. index) end
    for key, value in pairs(lru) do
      assert.are.equal("v" .. key:sub(2), value)
      seen[#seen + 1] = key
      if key == "k6" then lru:delete "k5" end
      if key == "k4" then
        lru:get "k3"
        lru:set("new", "")
      end
      if key == "k2" then lru:clear() end
    end
    assert.are.same({ "k6", "k4", "k2" }, seen)
    for _ in pairs(lru) do error "nothing is left" end
    lru:set("a", "")
    lru:set("b", "")
    for key in pairs(lru) do -- left early: the walk is over with the loop
      lru:clear()
      if key == "b" then break end
    end
    local step, cursor = pairs(lru)
    lru, seen = nil, nil -- luacheck: ignore
    collectgarbage()
    assert.is_nil(step(cursor))
  end)

  -- The same in Lua, slow and plain.
  local function model_of(max_entries, max_bytes)
    local model = { list = {}, bytes = 0, evicted = 0, expired = 0 }
    local function remove(at)
      local entry = table.remove(model.list, at)
      model.bytes = model.bytes - entry.cost
    end
    function model.advance(now)
      for at = #model.list, 1, -1 do
        if model.list[at].ends <= now then
          remove(at)
          model.expired = model.expired + 1
        end
      end
    end
    function model.find(key)
      for at, entry in ipairs(model.list) do
        if entry.key == key then return at end
      end
    end
    function model.get(now, key)
      model.advance(now)
      local at = model.find(key)
      if not at then return nil end
      table.insert(model.list, 1, table.remove(model.list, at))
      return model.list[1].value
    end
    function model.delete(now, key)
      model.advance(now)
      local at = model.find(key)
      if at then remove(at) end
    end
    function model.set(now, key, value, life)
      model.delete(now, key)
      local cost = COST + #key + #value
      if cost > max_bytes then return end
      while #model.list >= max_entries or model.bytes + cost > max_bytes do
        remove(#model.list)
        model.evicted = model.evicted + 1
      end
      table.insert(model.list, 1, { key = key, value = value, cost = cost, ends = now + life })
      model.bytes = model.bytes + cost
    end
    return model
  end

  local function microseconds()
    return math.floor(task.now() * 1e6 + 0.5)
  end

  local function act(lru, model)
    local now, key = microseconds(), "k" .. math.random(40)
    local what = math.random(10)
    if what <= 4 then
      assert.are.equal(model.get(now, key), lru:get(key))
    elseif what <= 8 then
      local ttl = 2 ^ math.random(-10, 20)
      local value = ("v"):rep(math.random(0, math.random(2) == 1 and 10 or 400))
      lru:set(key, value, ttl)
      model.set(now, key, value, math.floor(ttl * 1e6))
    elseif what == 9 then
      lru:delete(key)
      model.delete(now, key)
    else
      task.sleep(2 ^ math.random(-12, math.random(20)))
    end
  end

  it("does what a plain model does, whatever the order", function()
    for seed = 1, 40 do
      math.randomseed(seed)
      task.simulate(function()
        local max_entries, max_bytes = math.random(1, 30), math.random(100, 4000)
        local lru = cache.lru { max_entries = max_entries, max_bytes = max_bytes }
        local model = model_of(max_entries, max_bytes)
        for _ = 1, 500 do
          act(lru, model)
          model.advance(microseconds())
          local stats = lru:stats()
          assert.are.same({ #model.list, model.bytes, model.evicted, model.expired },
            { stats.entries, stats.bytes, stats.evicted, stats.expired }, "seed " .. seed)
          assert.is_true(stats.bytes <= max_bytes and stats.entries <= max_entries)
        end
        local keys = {}
        for at, entry in ipairs(model.list) do keys[at] = entry.key end
        assert.are.equal(table.concat(keys, " "), keys_of(lru))
      end)
    end
  end)

  it("finds each of many", function()
    local lru = cache.lru {}
    for index = 1, 50000 do lru:set("key " .. index, "value " .. index) end
    for index = 50000, 1, -1 do assert(lru:get("key " .. index) == "value " .. index) end
    assert.are.equal(50000, lru:stats().hits)
  end)

  it("refuses what is no bound, no key and no time", function()
    assert.has_error(function() cache.lru { max_entries = 0 } end)
    assert.has_error(function() cache.lru { max_byte = 1 } end)
    local lru = cache.lru {}
    assert.has_error(function() lru:get(1) end)
    assert.has_error(function() lru:set("a", 1) end)
    for _, ttl in ipairs { 0, -1, 0 / 0, "1x" } do
      assert.has_error(function() lru:set("a", "1", ttl) end)
    end
    assert.has_error(function() core.new(1, -1) end)
  end)
end)
