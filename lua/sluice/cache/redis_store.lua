-- SPDX-License-Identifier: MIT
-- Redis as a store of answers. While it is away nobody waits for it: each look-up is a miss.

local errors = require "sluice.errors"
local log = require "sluice.log"
local options = require "sluice.options"
local task = require "sluice.task"

local redis_store = {}

---@class sluice.RedisStore: sluice.CacheStore
---@field state "up"|"down"
local methods = {}
local metatable = { __name = "sluice.cache.redis", __index = methods }

---@class sluice.RedisStoreOptions
---@field timeout? number seconds that one look-up may take, 1
---@field max_pause? number seconds between two tries while it is away: 1 at first, then twice as long up to this, 30
local REDIS <const> = { timeout = "positive?", max_pause = "positive?" }

local TIMEOUT <const>, FIRST_PAUSE <const>, MAX_PAUSE <const> = 1, 1, 30

---Whether the value is a client made by redis.connect.
---@param value any
---@return boolean
function redis_store.is_client(value)
  local its = getmetatable(value)
  return type(its) == "table" and its.__name == "sluice.redis"
end

---Makes a store of a Redis client, which stays the caller's. Never waits.
---@param client sluice.redis.Client
---@param given? sluice.RedisStoreOptions
---@return sluice.RedisStore
function redis_store.new(client, given)
  if not redis_store.is_client(client) then
    options.misuse("cache.redis: a client made by redis.connect is needed, got %s", options.type_name(client))
  end
  given = options.check("cache.redis", given, REDIS)
  return setmetatable({
    state = "up",
    _client = client,
    _timeout = given.timeout or TIMEOUT,
    _max_pause = given.max_pause or MAX_PAUSE,
    _told = {}, -- codes of refusals that the log knows of
  }, metatable)
end

-- Error replies that tell of the server, not of one key.
local OF_THE_SERVER <const> = {
  NOAUTH = true, WRONGPASS = true, NOPERM = true, LOADING = true, MASTERDOWN = true, CLUSTERDOWN = true,
}

local function is_away(err)
  return not errors.is(err) or err.kind ~= "RedisError" or OF_THE_SERVER[err.code] or false
end

local function note_away(self, err)
  if self.state == "up" then
    self.state, self._pause = "down", math.min(FIRST_PAUSE, self._max_pause)
    log.warn("the Redis of a cache is away: until it is back, all that it is asked for is a miss", {
      redis = tostring(self._client), error = err,
    })
  else
    self._pause = math.min(self._pause * 2, self._max_pause)
  end
  self._away, self._next_try = err, task.now() + self._pause
end

local function note_back(self)
  if self.state == "up" then return end
  self.state, self._away = "up", nil
  log.info("the Redis of a cache is back", { redis = tostring(self._client) })
end

local function note_refusal(self, err)
  if self._told[err.code] then return end
  self._told[err.code] = true
  log.warn("the Redis of a cache refuses", { redis = tostring(self._client), error = err })
end

-- The first one after the pause tries, the others do not wait for it.
local function may_try(self)
  if self.state == "up" then return true end
  local now = task.now()
  if now < self._next_try then return false end
  self._next_try = now + self._timeout + self._pause
  return true
end

local function ask(self, name, ...)
  if not may_try(self) then return nil, self._away end
  local value, err = task.timeout(self._timeout, self._client.command, self._client, name, ...)
  if err == nil then
    note_back(self)
  elseif is_away(err) then
    note_away(self, err)
  else
    note_back(self)
    note_refusal(self, err)
  end
  return value, err
end

---What is kept under a key. Waits, but for no longer than `timeout`, and not at all while Redis is away.
---@param key string
---@return string? value
---@return sluice.Error? err
function methods:get(key)
  return ask(self, "GET", key)
end

---Keeps a value. Waits as `get` does.
---@param key string
---@param value string
---@param ttl number seconds
---@return boolean? kept true; nil and err
---@return sluice.Error? err
function methods:set(key, value, ttl)
  local milliseconds = math.max(1, math.floor(math.min(ttl, 1e12) * 1000))
  local reply, err = ask(self, "SET", key, value, "PX", milliseconds)
  if reply == nil then return nil, err end
  return true
end

return redis_store
