-- SPDX-License-Identifier: MIT
-- Failures of Redis as err tables: error replies with their code, connections that failed, limits that passed.

local errors = require "sluice.errors"

local failure = {}

-- Codes of a state that passes.
local PASSING <const> = {
  LOADING = true, BUSY = true, TRYAGAIN = true, CLUSTERDOWN = true, MASTERDOWN = true, NOREPLICAS = true,
}

---The err that an error reply means: kind RedisError, its code as `code` ("WRONGTYPE", "NOAUTH", "ERR").
---@param text string
---@param object? string the server
---@return sluice.Error
function failure.reply(text, object)
  local code, message = text:match "^([A-Z][A-Z0-9_]*) (.*)$"
  return errors.new("RedisError", {
    code = code, message = errors.excerpt(message or text), object = object,
    retryable = PASSING[code] or false,
  })
end

---The err of a command that got no reply.
---@param kind string as the connection says it
---@param text? string the cause; nil where the command's own time limit passed
---@param sent boolean whether the server may have done it
---@param where { operation: string, object: string, seconds: number? } `seconds`: the limit
---@return sluice.Error
function failure.lost(kind, text, sent, where)
  if kind == "RedisError" then
    local err = failure.reply(text, where.object)
    err.operation, err.maybe_executed = where.operation, sent or nil
    return err
  end
  local connecting = kind == "TimeoutError" and text ~= nil
  return errors.new(kind, {
    operation = where.operation, object = where.object,
    message = text and errors.excerpt(text) or ("no reply for %g s"):format(where.seconds or 0),
    limit = kind == "TimeoutError" and (connecting and "connect" or "command") or nil,
    maybe_executed = sent and not connecting,
  })
end

return failure
