-- SPDX-License-Identifier: MIT
-- What is special about some commands: those that block, and those that a shared connection cannot take.

local rules = {}

-- Where a command that blocks says for how long, and in what unit.
local BLOCKING <const> = {
  BLPOP = "last", BRPOP = "last", BRPOPLPUSH = "last", BLMOVE = "last", BZPOPMIN = "last", BZPOPMAX = "last",
  BLMPOP = "first", BZMPOP = "first", XREAD = "block", XREADGROUP = "block",
}

local TRANSACTION <const> = "use client:transaction"
local URL <const> = "the url of redis.connect says it, and the connection is shared"
local MESSAGES <const> = "published messages are not supported; streams are (XADD, XREADGROUP)"
local SHARED <const> = "it changes the connection, which is shared"

local REFUSED <const> = {
  MULTI = TRANSACTION, EXEC = TRANSACTION, DISCARD = TRANSACTION, WATCH = TRANSACTION, UNWATCH = TRANSACTION,
  AUTH = URL, SELECT = URL, HELLO = URL,
  SUBSCRIBE = MESSAGES, PSUBSCRIBE = MESSAGES, SSUBSCRIBE = MESSAGES, UNSUBSCRIBE = MESSAGES,
  PUNSUBSCRIBE = MESSAGES, SUNSUBSCRIBE = MESSAGES,
  MONITOR = SHARED, SYNC = SHARED, PSYNC = SHARED, RESET = SHARED, ASKING = SHARED, READONLY = SHARED,
  READWRITE = SHARED, QUIT = "use client:close",
  WAIT = "it counts what its own connection wrote", WAITAOF = "it counts what its own connection wrote",
}

-- Whether the first word of it decides.
local BY_WORD <const> = { CLIENT = { REPLY = SHARED } }

---Whether a command of this name goes as it is to the shared connection, whatever its words.
---@param name string in capitals
---@return boolean
function rules.is_plain(name)
  return not (BLOCKING[name] or REFUSED[name] or BY_WORD[name])
end

---Why a command cannot be sent; nil where it can.
---@param name string in capitals
---@param first any its first word
---@return string?
function rules.refusal(name, first)
  if REFUSED[name] then return REFUSED[name] end
  local words = BY_WORD[name]
  return words and type(first) == "string" and words[first:upper()] or nil
end

local function block_option(words)
  for index = 1, words.n - 1 do
    local word = words[index]
    if type(word) == "string" and word:upper() == "STREAMS" then return nil end
    if type(word) == "string" and word:upper() == "BLOCK" then
      local milliseconds = tonumber(words[index + 1])
      return milliseconds and milliseconds / 1000
    end
  end
end

local function forever(seconds)
  return seconds and (seconds > 0 and seconds or math.huge)
end

---For how many seconds a command may hold up its connection; nil where it does not, math.huge for ever.
---@param name string in capitals
---@param words table its words, packed
---@return number?
function rules.block_time(name, words)
  local where = BLOCKING[name]
  if not where then return nil end
  if where == "block" then return forever(block_option(words)) end
  return forever(tonumber(words[where == "last" and words.n or 1]))
end

return rules
