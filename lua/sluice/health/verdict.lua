-- SPDX-License-Identifier: MIT
-- What an err says about the server: that it is in trouble, that it works, or nothing.

local errors = require "sluice.errors"

local verdict = {}

-- What tells that the server is in trouble, or cannot be reached. Not what the caller did wrong, what we
-- turned away ourselves, and what the caller gave up.
local FAILURES <const> = {
  ServiceError = true, TooManyRequests = true, ConnectError = true, TLSError = true, TimeoutError = true,
  ProtocolError = true,
}

---Whether it tells that the server fails.
---@param err any
---@return boolean
function verdict.is_failure(err)
  if not errors.is(err) or err.limit == "queue" then return false end
  return errors.nearest(err.kind, FAILURES) or false
end

---Whether it is an answer that refuses what was asked for: it comes from a server that works. An err of our own
---says nothing about it.
---@param err any
---@return boolean
function verdict.is_answer(err)
  return errors.is(err) and err:is "APIError" and err.kind ~= "Cancelled"
end

return verdict
