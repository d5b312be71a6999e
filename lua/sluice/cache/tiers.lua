-- SPDX-License-Identifier: MIT
-- The stores of a cache, the nearest first: what a farther one has is put into the nearer ones.

local entry = require "sluice.cache.entry"
local redis_store = require "sluice.cache.redis_store"
local task = require "sluice.task"

local tiers = {}

---@class sluice.cache.Tiers
local methods = {}
local metatable = { __name = "sluice.cache.tiers", __index = methods }

local function is_store(value)
  local kind = type(value)
  return (kind == "table" or kind == "userdata") and value.get ~= nil and value.set ~= nil
end

---The rule of an option: a store, or an array of stores.
---@param value any
---@return boolean ok
---@return string expectation
function tiers.rule(value)
  local wants = "a store (an object with the methods get and set), or an array of stores"
  if is_store(value) then return true, wants end
  if type(value) ~= "table" or #value == 0 then return false, wants end
  for _, each in ipairs(value) do
    if not is_store(each) then return false, wants end
  end
  return true, wants
end

---Makes it of a store, or of an array of stores; a Redis client is one too.
---@param given sluice.CacheStore|sluice.CacheStore[]
---@param life number seconds that an answer is kept
---@param counts sluice.Cache `stored` and `store_failures` are counted there
---@return sluice.cache.Tiers
function tiers.new(given, life, counts)
  local stores = {}
  for index, store in ipairs(is_store(given) and { given } or given) do
    stores[index] = redis_store.is_client(store) and redis_store.new(store) or store
  end
  return setmetatable({ _stores = stores, _life = life, _counts = counts }, metatable)
end

local function put(self, store, key, bytes, ttl)
  local done = store:set(key, bytes, ttl)
  if not done then self._counts.store_failures = self._counts.store_failures + 1 end
  return done
end

local function get(self, store, key)
  local bytes, err = store:get(key)
  if bytes == nil and err ~= nil then self._counts.store_failures = self._counts.store_failures + 1 end
  return bytes
end

---What is kept under a key, and for how many seconds already; nil where nothing is that can be read. May wait.
---@param key string
---@return sluice.cache.Entry?
---@return number? age
function methods:find(key)
  local stores = self._stores
  for index = 1, #stores do
    local bytes = get(self, stores[index], key)
    local kept = bytes ~= nil and entry.unpack(bytes)
    if kept then
      -- of another process, its clock may be ahead
      local age = math.max(0, task.wall() - kept.created)
      local left = self._life - age
      for nearer = 1, left > 0 and index - 1 or 0 do put(self, stores[nearer], key, bytes, left) end
      return kept, age
    end
  end
  return nil
end

---Keeps an answer, in each store that can. May wait.
---@param key string
---@param made sluice.cache.Entry
function methods:keep(key, made)
  local bytes = entry.pack(made)
  if not bytes then return end
  local is_kept = false
  for _, store in ipairs(self._stores) do
    if put(self, store, key, bytes, self._life) then is_kept = true end
  end
  if is_kept then self._counts.stored = self._counts.stored + 1 end
end

return tiers
