-- SPDX-License-Identifier: MIT
-- What all routes of the emulator share: reading bodies, and the shape of answers and refusals.

local wire = require "sluice.emulator.wire"

local answers = {}

---A refusal as a handler's result.
---@param refusal sluice.emulator.refusal
---@return table
function answers.refused(refusal)
  local headers = refusal.headers or {}
  if refusal.retry_after then headers["retry-after"] = tostring(math.ceil(refusal.retry_after)) end
  return {
    status = refusal.status,
    headers = headers,
    json = { error_code = refusal.error_code, message = refusal.message },
  }
end

---A value or a refusal as a handler's result.
---@param value any nil where it was refused
---@param refusal sluice.emulator.refusal|nil
---@return table
function answers.of(value, refusal)
  if value == nil then return answers.refused(refusal) end
  return { status = 200, json = value }
end

---The decoded body, which must be a JSON object.
---@param request sluice.web.Request
---@param code string the error_code where it is none
---@return table|nil body
---@return sluice.emulator.refusal|nil
function answers.read_object(request, code)
  local body, err = request:json()
  if err then
    if err.kind == "PayloadTooLarge" then return wire.refuse(413, code, "%s", err.message) end
    return wire.refuse(400, code, "Could not parse request object: %s", err.message)
  end
  if not wire.is_object(body) then
    return wire.refuse(400, code, "Could not parse request object: it must be a JSON object.")
  end
  return body
end

---The answer to what nothing is at.
---@param request sluice.web.Request
---@return table
function answers.no_api(request)
  local message = "No API found for '%s %s'"
  return answers.of(wire.refuse(404, "ENDPOINT_NOT_FOUND", message, request.method, request.path))
end

---The URL at which a caller reached this server, without a slash at its end.
---@param emulator table
---@param request sluice.web.Request
---@return string
function answers.base_of(emulator, request)
  if emulator.base_url then return emulator.base_url end
  return "http://" .. (request.headers.host or "localhost")
end

return answers
