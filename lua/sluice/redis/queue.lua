-- SPDX-License-Identifier: MIT
-- Commands collected to be sent together: what the functions of client:pipeline and client:transaction get.

local options = require "sluice.options"
local rules = require "sluice.redis.rules"
local secret = require "sluice.secret"

local queue = {}

---Commands as methods, as a client has them; they are sent when the function returns, and give nothing.
---@class sluice.redis.Queue
local methods = {}
local metatable = { __name = "sluice.redis.queue" }

local function problem_of(value)
  local kind = type(value)
  return kind ~= "string" and kind ~= "number" and options.type_name(value)
end

---The words of a command as they are sent: secrets become bytes. Raises for what has no text.
---@param name string in capitals
---@param words table packed
---@return table words an array
function queue.words(name, words)
  local sent = {}
  for index = 1, words.n do
    local word = secret.reveal(words[index])
    local problem = problem_of(word)
    if problem then
      local text = "redis: argument %d of %s must be a string, a number or a sluice.secret, got %s"
      options.misuse(text, index, name, problem)
    end
    sent[index] = word
  end
  return sent
end

---Adds a command.
---@param name string
---@param ... string|number|sluice.Secret
function methods:command(name, ...)
  options.argument("redis", "name", name, "name")
  name = name:upper()
  local words = table.pack(...)
  local refusal = rules.refusal(name, words[1])
  if not refusal and not self._atomic and rules.block_time(name, words) then
    refusal = "it would hold up all others"
  end
  if refusal then options.misuse("redis: %s cannot be sent here: %s", name, refusal) end
  local sent = queue.words(name, words)
  table.insert(sent, 1, name)
  self._commands[#self._commands + 1] = sent
end

---Makes methods find one for every other name, too: that of a command.
---@param own table<string, function> the methods that are none; this table is changed
---@param make fun(name: string): function makes one, once for each name
---@return table own
function queue.extend(own, make)
  return setmetatable(own, {
    __index = function(_, name)
      if type(name) ~= "string" or not name:find "^%a[%w_]*$" then return nil end
      own[name] = make(name)
      return own[name]
    end,
  })
end

metatable.__index = queue.extend(methods, function(name)
  return function(self, ...) self:command(name, ...) end
end)

---An empty queue.
---@param is_atomic boolean for a transaction, in which nothing blocks
---@return sluice.redis.Queue
function queue.new(is_atomic)
  return setmetatable({ _commands = {}, _atomic = is_atomic }, metatable)
end

---The commands, each an array of words.
---@param self sluice.redis.Queue
---@return table[]
function queue.commands(self)
  return self._commands
end

return queue
