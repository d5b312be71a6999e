-- SPDX-License-Identifier: MIT
-- Scripts that run in the server, called by their digest.

local errors = require "sluice.errors"
local options = require "sluice.options"
local queue = require "sluice.redis.queue"

local script = {}

---A script of a client: called with an array of keys and then the arguments.
---@class sluice.redis.Script
---@operator call(string[]): any
---@field text string
local metatable = { __name = "sluice.redis.script" }
metatable.__index = metatable

-- The digest is asked for together with the first run: one round trip as always.
local function first_run(self, count, words)
  local replies, err = self._client:_batch {
    { "SCRIPT", "LOAD", self.text }, { "EVAL", self.text, count, table.unpack(words) },
  }
  if not replies then return nil, err end
  if type(replies[1]) == "string" then self._digest = replies[1] end
  local value = replies[2]
  if errors.is(value) then
    if value.code == "MOVED" or value.code == "ASK" then
      return self._client:command("EVAL", self.text, count, table.unpack(words))
    end
    value.operation = "EVAL"
    return nil, value
  end
  return value or nil
end

-- The number of keys, then keys and arguments as words.
local function words_of(keys, ...)
  options.argument("script", "keys", keys, "table?")
  local count = keys and #keys or 0
  local words = table.move(keys or {}, 1, count, 1, { n = count + select("#", ...) })
  table.move({ ... }, 1, select("#", ...), count + 1, words)
  return count, queue.words("EVAL", words)
end

---Runs it without waiting for what it gives, which nobody sees. Never waits.
---@param keys? string[]
---@param ... string|number
---@return boolean whether there was a connection to send it over
function metatable:post(keys, ...)
  local count, words = words_of(keys, ...)
  local name, what = "EVAL", self.text
  if self._digest then name, what = "EVALSHA", self._digest end
  return self._client:post { { name, what, count, table.unpack(words) } }
end

---Runs it. Waits.
---@param keys? string[]
---@param ... string|number
---@return any value as of a command
---@return sluice.Error?
function metatable:__call(keys, ...)
  local count, words = words_of(keys, ...)
  local client = self._client
  if not self._digest then return first_run(self, count, words) end
  local value, err = client:command("EVALSHA", self._digest, count, table.unpack(words))
  if err and err.code == "NOSCRIPT" then
    return client:command("EVAL", self.text, count, table.unpack(words))
  end
  return value, err
end

---Makes a script. Never waits.
---@param client sluice.redis.Client
---@param text string
---@return sluice.redis.Script
function script.new(client, text)
  return setmetatable({ text = text, _client = client }, metatable)
end

return script
