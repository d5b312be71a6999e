-- SPDX-License-Identifier: MIT
-- What a client is told when a handler fails: the table from kinds of errors to statuses.

local errors = require "sluice.errors"

local failure = {}

-- What the client did wrong with its request: our own kinds, without a place in the hierarchy.
local OF_THE_REQUEST = {
  MalformedRequest = 400, RequestTimeout = 408, PayloadTooLarge = 413, ClientGone = 499,
}

-- The first kind that err:is() decides. What a server behind us did is 502 or 504, so that nobody
-- takes the trouble of our credentials for their own.
local BY_KIND = {
  { "NotFound", 404 },
  { "TooManyRequests", 429 },
  { "QueueFull", 503 },
  { "CircuitOpen", 503 },
  { "TimeoutError", 504 },
  { "ConnectError", 502 },
  { "TLSError", 502 },
  { "ProtocolError", 502 },
  { "TaskCancelled", 503 },
}

---The status for an err.
---@param err sluice.Error
---@return integer
function failure.status_of(err)
  if OF_THE_REQUEST[err.kind] then return OF_THE_REQUEST[err.kind] end
  -- A text that is no JSON is the client's, unless an answer came with it.
  if err.kind == "JsonError" and not err.status and not err.response then return 400 end
  for _, rule in ipairs(BY_KIND) do
    if err:is(rule[1]) then return rule[2] end
  end
  if err.status == 429 then return 429 end
  return err.status and 502 or 500
end

local function retry_after(err)
  local seconds = err.retry_after
  if type(seconds) ~= "number" or seconds < 0 or seconds > 1e9 then return nil end
  return tostring(math.ceil(seconds))
end

---A message handler: an err stays what it is, a fault of the program becomes { fault = text }.
---@param raised any
---@return table
function failure.trace(raised)
  if errors.is(raised) then return raised end
  return { fault = debug.traceback(tostring(raised), 2) }
end

---The body that tells of a failure.
---@param kind string
---@param message string
---@return table
function failure.body(kind, message)
  return { error = { message = message, type = kind } }
end

---Turns an err into a handler's result.
---@param err sluice.Error
---@return table result
function failure.result(err)
  local status = failure.status_of(err)
  local headers = {}
  if status == 429 or status >= 500 then headers["retry-after"] = retry_after(err) end
  return { status = status, headers = headers, json = failure.body(err.kind, err.message or tostring(err)) }
end

return failure
