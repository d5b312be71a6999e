-- SPDX-License-Identifier: MIT
-- Why a statement fails: raised while it is read, translated or run, and told as the service tells it.

local failure = {}

---@class sluice.emulator.sql.Failure
---@field condition string as the service names it: "PARSE_SYNTAX_ERROR"
---@field text string
---@field at integer? the byte of the statement that is meant
---@field code string the error_code of the wire
local metatable = { __name = "sluice.emulator.sql.failure" }

-- The SQLSTATE of each condition.
local STATES <const> = {
  PARSE_SYNTAX_ERROR = "42601",
  UNSUPPORTED_FEATURE = "0A000",
  TABLE_OR_VIEW_NOT_FOUND = "42P01",
  ["UNRESOLVED_COLUMN.WITH_SUGGESTION"] = "42703",
  UNRESOLVED_ROUTINE = "42883",
  UNBOUND_SQL_PARAMETER = "42P02",
  WRONG_NUM_ARGS = "42605",
  DATATYPE_MISMATCH = "42K09",
  MISSING_AGGREGATION = "42803",
  NESTED_AGGREGATE_FUNCTION = "42607",
  GROUP_BY_POS_OUT_OF_RANGE = "42805",
  INVALID_PARAMETER_VALUE = "22023",
  DIVIDE_BY_ZERO = "22012",
  CAST_INVALID_INPUT = "22018",
  AI_FUNCTION_HTTP_REQUEST_ERROR = "08000",
  INTERNAL_ERROR = "XX000",
}

---Raises a failure.
---@param condition string
---@param at integer? the byte of the statement that is meant, from 1
---@param text string a format string when more arguments follow
---@param ... any
function failure.raise(condition, at, text, ...)
  if select("#", ...) > 0 then text = text:format(...) end
  local code = condition == "INTERNAL_ERROR" and "INTERNAL_ERROR" or "BAD_REQUEST"
  error(setmetatable({ condition = condition, at = at, text = text, code = code }, metatable), 0)
end

---Raises that a construct is not known to the emulator, with its name.
---@param at integer? the byte of the statement that is meant
---@param name string
function failure.unsupported(at, name)
  failure.raise("UNSUPPORTED_FEATURE", at, "%s is not known to the emulator's SQL.", name)
end

---Whether a raised value is one.
---@param value any
---@return boolean
function failure.is(value) return type(value) == "table" and getmetatable(value) == metatable end

local function place(source, at)
  local line, start = 1, 1
  while true do
    local newline = source:find("\n", start, true)
    if not newline or newline >= at then return line, at - start end
    line, start = line + 1, newline + 1
  end
end

---The `status.error` of a statement that has failed, and its SQLSTATE.
---@param self sluice.emulator.sql.Failure
---@param source string the statement
---@return { error_code: string, message: string }
---@return string sql_state
function failure.on_wire(self, source)
  local state = STATES[self.condition]
  local message = ("[%s] %s SQLSTATE: %s"):format(self.condition, self.text, state)
  if self.at then message = ("%s (line %d, pos %d)"):format(message, place(source, self.at)) end
  return { error_code = self.code, message = message }, state
end

return failure
