-- SPDX-License-Identifier: MIT
-- What every part of the emulator needs of the wire: refusals, absent values, lists, identifiers.
--
-- A refusal is an answer of the emulator (an HTTP status with an error body), not a failure of this program, so it is a
-- plain table and no sluice error.

local json = require "sluice.json"
local system = require "sluice.core.system"
local task = require "sluice.task"

local wire = {}

---Who everything belongs to.
---@type string
wire.user = "emulator@sluice.invalid"

---The id of the workspace, as the header X-Databricks-Org-Id has it.
---@type string
wire.workspace_id = "7010000000000001"

---@class sluice.emulator.refusal
---@field status integer
---@field error_code string
---@field message string
---@field retry_after integer|nil seconds

---A refusal, as a function's result.
---@param status integer
---@param code string the wire's error_code
---@param message string a format string when more arguments follow
---@param ... any
---@return nil
---@return sluice.emulator.refusal
function wire.refuse(status, code, message, ...)
  if select("#", ...) > 0 then message = message:format(...) end
  return nil, { status = status, error_code = code, message = message }
end

---A refusal with status 400 and the code INVALID_PARAMETER_VALUE.
---@param message string a format string when more arguments follow
---@param ... any
---@return nil
---@return sluice.emulator.refusal
function wire.invalid(message, ...) return wire.refuse(400, "INVALID_PARAMETER_VALUE", message, ...) end

---A refusal with status 400 and the code BAD_REQUEST: how a served model says that it cannot read a request.
---@param message string a format string when more arguments follow
---@param ... any
---@return nil
---@return sluice.emulator.refusal
function wire.bad_request(message, ...) return wire.refuse(400, "BAD_REQUEST", message, ...) end

---A value of a decoded body, where JSON null counts as absent.
---@generic T
---@param value T
---@return T|nil
function wire.given(value)
  if value == json.null then return nil end
  return value
end

---A whole number, also where it came as a string of digits, as 64-bit numbers do.
---@param value any
---@return integer|nil
function wire.integer(value)
  if type(value) == "string" then value = value:find("^%-?%d+$") and tonumber(value) end
  return math.type(value) and math.tointeger(value) or nil
end

---Whether a value is a JSON array: one that was decoded, or a Lua table with a first element.
---@param value any
---@return boolean
function wire.is_list(value)
  return json.is_array(value) or (type(value) == "table" and value[1] ~= nil)
end

---Whether a value is a JSON object.
---@param value any
---@return boolean
function wire.is_object(value) return type(value) == "table" and not wire.is_list(value) end

---Lower-case hexadecimal digits of random bytes.
---@param bytes integer
---@return string
function wire.hex(bytes)
  return (("%02x"):rep(bytes):format(system.random(bytes):byte(1, -1)))
end

---A random UUID (version 4).
---@return string
function wire.uuid()
  local a, b, c, d, e = string.unpack(">I4I2I2I2I6", system.random(16))
  return ("%08x-%04x-4%03x-%04x-%012x"):format(a, b, c & 0xfff, d & 0x3fff | 0x8000, e)
end

---A random integer for the seed of a generator.
---@return integer
function wire.seed() return (string.unpack("<i8", system.random(8))) end

---Milliseconds since the epoch on the running clock, as the serving API writes time.
---@return integer
function wire.milliseconds() return math.floor(task.wall() * 1000) end

---Seconds since the epoch on the running clock, as chat answers write time.
---@return integer
function wire.seconds() return math.floor(task.wall()) end

return wire
