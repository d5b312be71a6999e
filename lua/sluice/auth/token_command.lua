-- SPDX-License-Identifier: MIT
-- A token that a program prints: `databricks auth token`, `az account get-access-token`, one of one's own.

local errors = require "sluice.errors"
local options = require "sluice.options"
local process = require "sluice.core.process"
local secret = require "sluice.secret"
local task = require "sluice.task"
local token_source = require "sluice.auth.token_source"
local token_text = require "sluice.auth.token_text"

local token_command = {}

-- Seconds that the program may take, unless `timeout` says otherwise; some ask the network, none a user.
local TIMEOUT <const> = 60

-- Bytes. A token has a few thousand at most; of what a program complains about, the end tells why.
local MAX_OUTPUT <const> = 64 * 1024
local ERROR_TAIL <const> = 2 * 1024

local function failure(argv, kind, fields)
  fields.operation, fields.object = "run token command", argv[1]
  return nil, errors.new(kind, fields)
end

-- The last lines of standard error, as a part of a message.
local function complaint(text)
  text = text:match "^%s*(.*%S)"
  return text and ": " .. errors.excerpt(text:sub(-400)) or ", and printed nothing to standard error"
end

local function read_result(argv, result)
  if result.overflowed then
    return failure(argv, "ConfigError", { message = ("it printed more than %d bytes"):format(MAX_OUTPUT) })
  end
  if result.signal then
    return failure(argv, "ConfigError", {
      message = ("it was ended by signal %d%s"):format(result.signal, complaint(result.err)),
    })
  end
  if result.status ~= 0 then
    return failure(argv, "ConfigError", {
      message = ("it failed with status %d%s"):format(result.status, complaint(result.err)),
    })
  end
  local token, reason = token_text.parse(result.out)
  if token then return token end
  return failure(argv, "ConfigError", { message = ("what it printed cannot be used: %s%s"):format(
    reason, result.err ~= "" and complaint(result.err) or "") })
end

-- What the host did not grant is raised as a text; the end of the task goes on as it is.
local function run_process(words)
  local ok, result, reason = pcall(process.run, words, MAX_OUTPUT, ERROR_TAIL)
  if ok then return result, reason end
  if errors.is(result) then error(result, 0) end
  return nil, result
end

local function run(argv, words, timeout)
  local began = task.now()
  local result, reason = task.timeout(timeout, run_process, words)
  if result then return read_result(argv, result) end
  if errors.is(reason) and task.now() - began >= timeout then
    return failure(argv, "TimeoutError", {
      message = ("it had not ended after %g s, and was killed"):format(timeout), limit = "total",
      maybe_executed = false,
    })
  end
  return failure(argv, "ConfigError", { message = "it cannot be run: " .. tostring(reason) })
end

---Raises for what is no command: an array of texts, the program first, and maybe `timeout` (seconds).
---@param where string the public name, for the message
---@param command any
function token_command.check(where, command)
  if command == nil then return end
  options.argument(where, "token_command", command, "table")
  for key, word in pairs(command) do
    local is_word = math.type(key) == "integer" and (type(word) == "string" or secret.is(word))
    local is_limit = key == "timeout" and type(word) == "number" and word > 0
    if not is_word and not is_limit then
      options.misuse('%s: token_command is an array of texts and maybe timeout = SECONDS, got [%s] = %s',
        where, tostring(key), type(word))
    end
  end
  if type(command[1]) ~= "string" or command[1] == "" then
    options.misuse("%s: token_command begins with the name of a program", where)
  end
end

---A source that runs the program when a token is first needed, is about to end or is refused. No shell
---reads the words; the program has no standard input.
---@param command { [integer]: string|sluice.Secret, timeout: number? }
---@param background sluice.auth.Background
---@return sluice.auth.TokenSource
function token_command.source(command, background)
  local argv = table.move(command, 1, #command, 1, {})
  local timeout = command.timeout or TIMEOUT
  return token_source.new {
    background = background,
    fetch = function()
      local words = {}
      for index, word in ipairs(argv) do words[index] = secret.reveal(word) end
      return run(argv, words, timeout)
    end,
  }
end

return token_command
