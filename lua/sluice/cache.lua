-- SPDX-License-Identifier: MIT
-- Caches: an LRU in this process, and the key of a request. layers.cache puts them around an endpoint.

local identity = require "sluice.cache.identity"
local lru = require "sluice.core.lru"
local options = require "sluice.options"
local redis_store = require "sluice.cache.redis_store"

local cache = {}

---Where layers.cache keeps answers: anything with these two methods, which may wait. What fails is a miss.
---@class sluice.CacheStore
---@field get fun(self: sluice.CacheStore, key: string): string?, any the value; nil for none; nil and err
---@field set fun(self: sluice.CacheStore, key: string, value: string, ttl: number): any, any `ttl`: seconds

---Strings by key in this process, the least recently used one making room. `pairs(lru)` walks from the most
---recently used to the least, and counts as no use. What it holds is not seen by Lua's collector.
---@class sluice.Lru: sluice.CacheStore
---@field get fun(self: sluice.Lru, key: string): string? nil for none
---@field set fun(self: sluice.Lru, key: string, value: string, ttl?: number): boolean `ttl`: seconds, above 0; false where the value is larger than the cache: then nothing is kept under the key
---@field delete fun(self: sluice.Lru, key: string): boolean whether it was there
---@field clear fun(self: sluice.Lru) forgets every entry; the counts stay
---@field stats fun(self: sluice.Lru): sluice.LruStats

---@class sluice.LruStats
---@field entries integer
---@field bytes integer keys and values, and 96 bytes for each entry
---@field max_entries integer?
---@field max_bytes integer
---@field hits integer
---@field misses integer
---@field stored integer
---@field evicted integer made room for others
---@field expired integer their time was over

---@class sluice.LruOptions
---@field max_entries? integer no bound
---@field max_bytes? integer as `bytes` of the stats are counted; 64 MiB
---@field ttl? number seconds that an entry lives where `set` says nothing else; for ever
local LRU <const> = { max_entries = "count?", max_bytes = "count?", ttl = "positive?" }

local DEFAULT_BYTES <const> = 64 << 20

---Makes an LRU. Its bounds are never exceeded, and no entry outlives its time on the running clock, real or
---simulated: on another clock than before, whatever has an end is gone. Nothing in it waits.
---@param given? sluice.LruOptions
---@return sluice.Lru
function cache.lru(given)
  given = options.check("cache.lru", given, LRU)
  return lru.new(given.max_entries, given.max_bytes or DEFAULT_BYTES, given.ttl)
end

---Makes a store of a client of sluice.redis, for layers.cache in several processes. Where Redis fails, each
---look-up is a miss: it waits no longer than `timeout`, and while Redis is away it is tried once in a while
---only. One log line says that it is away, and one that it is back. Never waits. layers.cache makes one of a
---plain client by itself.
---@param client sluice.redis.Client stays the caller's
---@param given? sluice.RedisStoreOptions
---@return sluice.RedisStore
function cache.redis(client, given)
  local store = redis_store.new(client, given)
  return store
end

---@class sluice.CacheKeyOptions
---@field endpoint? sluice.Endpoint|string who is asked, by `host` and `name`, or by name alone
---@field namespace? string
---@field served_model? string as in the options of the query
local KEY <const> = { endpoint = "table|userdata|string?", namespace = "name?", served_model = "string?" }

---The key under which layers.cache keeps the answer to a request: "sluice1:", the namespace and a colon where
---there is one, and the SHA-256 of all that the answer depends on. The order of keys does not matter, 1 and 1.0
---are the same, `{}` and an empty array are not. `stream` and `stream_options` are left out: they change how an
---answer comes, not what it is. Raises for what JSON cannot express.
---@param request table
---@param given? sluice.CacheKeyOptions
---@return string
function cache.key(request, given)
  options.argument("cache.key", "request", request, "table")
  given = options.check("cache.key", given, KEY)
  local endpoint, host, name = given.endpoint, nil, nil
  if type(endpoint) == "string" then
    name = endpoint
  elseif endpoint then
    host, name = endpoint.host, endpoint.name
  end
  return identity.new(given.namespace, host, name):key(request, given.served_model)
end

return cache
