-- SPDX-License-Identifier: MIT
-- A connection that one task has to itself: for commands that block, and for transactions that watch.

local failure = require "sluice.redis.failure"
local queue = require "sluice.redis.queue"

local own = {}

---A connection of one's own, with commands as methods; closing it gives it back.
---@class sluice.redis.Own
---@field clean boolean whether another may have it next: set by who knows that no reply is to come
local methods = {}
local metatable = { __name = "sluice.redis.own" }

-- The first words of a command's outcome, as the connection gives it, into value or nil, err.
local function outcome(self, operation, seconds, value, kind, text, sent)
  if kind == nil then return value end
  if type(kind) == "table" then
    kind.operation = operation
    return nil, kind
  end
  self._link:lost(self._connection)
  if kind == "Closed" then kind, text, sent = "ConnectError", "the connection was closed", false end
  return nil, failure.lost(kind, text, sent, {
    operation = operation, object = self._link.object, seconds = seconds,
  })
end

---Sends one command, any. Waits for its reply, for `seconds` more than it may block.
---@param name string
---@param ... string|number|sluice.Secret
---@return any value
---@return sluice.Error?
function methods:command(name, ...)
  name = name:upper()
  local words = queue.words(name, table.pack(...))
  return outcome(self, name, self._seconds,
    self._connection:command(self._seconds, name, table.unpack(words)))
end

---Sends several commands together. Waits.
---@param commands table[]
---@return table? replies
---@return sluice.Error?
function methods:batch(commands)
  return outcome(self, "transaction", self._seconds, self._connection:batch(self._seconds, commands))
end

metatable.__index = queue.extend(methods, function(name)
  return function(self, ...) return self:command(name, ...) end
end)

function metatable:__close()
  self._link:give_back(self._connection, self.clean)
  if self._release then self._release() end
end

---Borrows one. Never waits.
---@param link sluice.redis.Link
---@param seconds number the limit of its commands; 0 for none
---@param release? fun() called at its end
---@return sluice.redis.Own?
---@return sluice.Error?
function own.new(link, seconds, release)
  local connection, err = link:borrow()
  if not connection then
    if release then release() end
    return nil, err
  end
  return setmetatable({
    clean = false, _connection = connection, _link = link, _seconds = seconds, _release = release,
  }, metatable)
end

return own
