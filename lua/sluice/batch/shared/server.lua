-- SPDX-License-Identifier: MIT
-- A shared batch's side of Redis: its keys, and its scripts, asked again while Redis is away.

local backoff = require "sluice.core.backoff"
local errors = require "sluice.errors"
local log = require "sluice.log"
local scripts = require "sluice.batch.shared.scripts"
local system = require "sluice.core.system"
local task = require "sluice.task"

local server = {}

local BASE <const>, CAP <const> = 0.05, 1 -- seconds between two tries

-- Error replies of a state that passes, beside those that the client knows: memory that results fill, a disk that is
-- full, a replica that becomes the master.
local PASSING <const> = { OOM = true, MISCONF = true, READONLY = true, NOREPLICAS = true }

---@class sluice.batch.shared.Server
---@field name string
---@field failures integer how often it could not be asked
local methods = {}
local metatable = { __name = "sluice.batch.shared.server", __index = methods }

---The keys of a batch: rows, results, state. The braces put them into one slot of a cluster.
---@param name string
---@return string[]
function server.keys(name)
  local keys = {}
  for index, part in ipairs { "rows", "results", "state" } do
    keys[index] = ("sluice:batch:{%s}:%s"):format(name, part)
  end
  return keys
end

---Makes one. Does not wait.
---@param client sluice.redis.Client
---@param name string
---@param patience number seconds that Redis may be away
---@return sluice.batch.shared.Server
function server.new(client, name, patience)
  local self = setmetatable({
    name = name, failures = 0,
    _client = client, _keys = server.keys(name), _patience = patience, _scripts = {},
  }, metatable)
  for each, text in pairs(scripts.texts) do self._scripts[each] = client:script(text) end
  return self
end

---An err that says why this batch cannot go on.
---@param message string
---@return sluice.Error
function methods:conflict(message)
  return errors.new("BatchConflict", { operation = "share batch", object = self.name, message = message })
end

local function is_passing(err)
  return err.retryable or err.kind == "TimeoutError" or err.kind == "RedisError" and PASSING[err.code]
end

local function note_absence(self, err)
  self.failures = self.failures + 1
  if self._is_away then return end
  self._is_away = true
  log.warn("batch: Redis is away", {
    batch = self.name, redis = tostring(self._client), error = tostring(err),
  })
end

local function note_return(self)
  if not self._is_away then return end
  self._is_away = false
  log.info("batch: Redis is back", { batch = self.name, redis = tostring(self._client) })
end

-- Asks until there is a reply, or an err that does not pass. What is asked may be asked twice.
local function patiently(self, f, ...)
  local stop, tries = nil, 0
  while true do
    local value, err = f(...)
    if not err or not is_passing(err) then
      note_return(self)
      return value, err
    end
    note_absence(self, err)
    stop, tries = stop or task.now() + self._patience, tries + 1
    if task.now() >= stop then return nil, err end
    task.sleep(err.retry_after or backoff.delay(tries, BASE, CAP, 0.5 + system.random_float() / 2))
  end
end

local GONE <const> = "it is not in Redis any more: somebody deleted it, or Redis has lost its data"

local function checked(self, reply, err)
  if not reply then return nil, err end
  if reply[1] == "gone" then return nil, self:conflict(GONE) end
  return reply
end

---Runs one of the scripts, for as long as it takes. Waits.
---@param name string
---@param ... string|number
---@return table? reply its first item says what came of it
---@return sluice.Error? err
function methods:call(name, ...)
  return checked(self, patiently(self, self._scripts[name], self._keys, ...))
end

---Runs one of the scripts, once. Waits.
---@param name string
---@param ... string|number
---@return table? reply
---@return sluice.Error? err
function methods:try(name, ...)
  return checked(self, self._scripts[name](self._keys, ...))
end

---Says that a worker still has these rows, once. Waits.
---@param consumer string
---@param ids string[]
---@return boolean ok
function methods:refresh(consumer, ids)
  local words = table.move(ids, 1, #ids, 1, {})
  words[#words + 1] = "JUSTID"
  local _, err = self._client:xclaim(self._keys[1], "workers", consumer, 0, table.unpack(words))
  return err == nil
end

---The line of a result. Waits.
---@param id string
---@return string? line nil where it is not there
---@return sluice.Error? err
function methods:line_of(id)
  local reply, err = patiently(self, self._client.xrange, self._client, self._keys[2], id, id)
  if not reply then return nil, err end
  return reply[1] and reply[1][2][4], nil
end

---Takes all keys away. Waits.
---@return boolean? deleted
---@return sluice.Error? err
function methods:delete()
  local count, err = patiently(self, self._client.del, self._client, table.unpack(self._keys))
  if not count then return nil, err end
  return true
end

return server
