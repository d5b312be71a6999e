-- SPDX-License-Identifier: MIT
-- The types of values: which go together, how one becomes another in SQLite, and how a cell is written.
--
-- In SQLite a BOOLEAN is 0 or 1, a DATE "2026-01-31", a TIMESTAMP "2026-01-31 12:00:00.000" (UTC), an ARRAY or a MAP
-- its JSON text: all of them compare as they should.

local failure = require "sluice.emulator.sql.failure"
local json = require "sluice.json"

local types = {}

---A value in SQLite's own words.
---@class sluice.emulator.sql.Value
---@field sql string
---@field type string
---@field unit? string of an interval
---@field count? integer of an interval

local NUMBERS <const> = { INT = 1, BIGINT = 2, DOUBLE = 3 }

-- What a type is called where one is named.
local NAMES <const> = {
  STRING = "STRING", VARCHAR = "STRING", CHAR = "STRING", INT = "INT", INTEGER = "INT", SMALLINT = "INT",
  TINYINT = "INT", BIGINT = "BIGINT", LONG = "BIGINT", DOUBLE = "DOUBLE", FLOAT = "DOUBLE", REAL = "DOUBLE",
  DECIMAL = "DOUBLE", DEC = "DOUBLE", NUMERIC = "DOUBLE", BOOLEAN = "BOOLEAN", DATE = "DATE",
  TIMESTAMP = "TIMESTAMP",
}

---The type that is meant by a name. Raises a failure for one that is not known.
---@param name string in capitals
---@param at integer?
---@return string
function types.named(name, at)
  return NAMES[name] or failure.unsupported(at, "The type " .. name)
end

---Whether values of the type are numbers.
---@param type_name string
---@return boolean
function types.is_number(type_name) return NUMBERS[type_name] ~= nil end

local function mismatch(at, what, ...) failure.raise("DATATYPE_MISMATCH", at, what, ...) end

---Raises that a value is of the wrong type.
---@param at integer?
---@param what string a format string
---@param ... any
function types.mismatch(at, what, ...) mismatch(at, what, ...) end

-- ---- casts ----

local function parsed(from, to, is_try)
  return ("sluice_cast(%s, '%s', %d)"):format(from.sql, to, is_try and 1 or 0)
end

local function to_text(from)
  local sql, kind = from.sql, from.type
  if kind == "BOOLEAN" then return ("CASE %s WHEN 0 THEN 'false' WHEN 1 THEN 'true' END"):format(sql) end
  if kind == "TIMESTAMP" then return ("rtrim(rtrim(%s, '0'), '.')"):format(sql) end
  if NUMBERS[kind] then return ("CAST(%s AS TEXT)"):format(sql) end
  return sql
end

local MIDNIGHT <const> = "(%s || ' 00:00:00.000')"

local casts = {}

function casts.STRING(from) return to_text(from) end

function casts.DOUBLE(from, is_try)
  if from.type == "STRING" then return parsed(from, "DOUBLE", is_try) end
  if NUMBERS[from.type] or from.type == "BOOLEAN" then return ("CAST(%s AS REAL)"):format(from.sql) end
  if from.type == "TIMESTAMP" then return ("(unixepoch(%s) * 1.0)"):format(from.sql) end
end

local function to_integer(name)
  return function(from, is_try)
    if from.type == "STRING" then return parsed(from, name, is_try) end
    if NUMBERS[from.type] or from.type == "BOOLEAN" then return ("CAST(%s AS INTEGER)"):format(from.sql) end
    if from.type == "TIMESTAMP" then return ("unixepoch(%s)"):format(from.sql) end
  end
end

casts.INT, casts.BIGINT = to_integer "INT", to_integer "BIGINT"

function casts.BOOLEAN(from, is_try)
  if from.type == "STRING" then return parsed(from, "BOOLEAN", is_try) end
  if NUMBERS[from.type] then return ("(%s <> 0)"):format(from.sql) end
end

function casts.DATE(from, is_try)
  if from.type == "STRING" then return parsed(from, "DATE", is_try) end
  if from.type == "TIMESTAMP" then return ("substr(%s, 1, 10)"):format(from.sql) end
end

function casts.TIMESTAMP(from, is_try)
  if from.type == "STRING" then return parsed(from, "TIMESTAMP", is_try) end
  if from.type == "DATE" then return MIDNIGHT:format(from.sql) end
  if NUMBERS[from.type] then
    return ("strftime('%%Y-%%m-%%d %%H:%%M:%%f', %s, 'unixepoch')"):format(from.sql)
  end
end

---A value as one of another type. Raises a failure where that cannot be.
---@param from sluice.emulator.sql.Value
---@param to string
---@param at integer?
---@param is_try? boolean what cannot be read becomes NULL
---@return sluice.emulator.sql.Value
function types.cast(from, to, at, is_try)
  if from.type == to or from.type == "VOID" then return { sql = from.sql, type = to } end
  local sql = casts[to] and casts[to](from, is_try)
  if not sql then mismatch(at, "A value of type %s cannot become a %s.", from.type, to) end
  return { sql = sql, type = to }
end

-- ---- pairs ----

-- The type that holds values of both; nil where there is none.
local function common(a, b)
  if a == b or b == "VOID" then return a end
  if a == "VOID" then return b end
  if NUMBERS[a] and NUMBERS[b] then return NUMBERS[a] > NUMBERS[b] and a or b end
  if a == "STRING" then a, b = b, a end
  if b == "STRING" then
    if a == "INT" then return "BIGINT" end
    return (NUMBERS[a] or a == "BOOLEAN" or a == "DATE" or a == "TIMESTAMP") and a or nil
  end
  local has_dates = (a == "DATE" and b == "TIMESTAMP") or (a == "TIMESTAMP" and b == "DATE")
  return has_dates and "TIMESTAMP" or nil
end

-- A number needs no cast to be compared to another one.
local function adapted(value, to, at)
  if NUMBERS[value.type] and NUMBERS[to] then return value end
  return types.cast(value, to, at)
end

---Values brought to one type. Raises a failure where there is none.
---@param list sluice.emulator.sql.Value[]
---@param at integer?
---@param what string what they are for: "the branches of CASE"
---@return sluice.emulator.sql.Value[]
---@return string type
function types.unify(list, at, what)
  local kind = "VOID"
  for _, each in ipairs(list) do
    local both = common(kind, each.type)
    if not both then mismatch(at, "%s are of types %s and %s.", what, kind, each.type) end
    kind = both
  end
  local made = {}
  for index, each in ipairs(list) do made[index] = adapted(each, kind, at) end
  return made, kind
end

---A value as a number. Raises a failure where it is none.
---@param value sluice.emulator.sql.Value
---@param at integer?
---@param what string
---@return sluice.emulator.sql.Value
function types.number(value, at, what)
  if NUMBERS[value.type] then return value end
  if value.type == "STRING" or value.type == "VOID" then return types.cast(value, "DOUBLE", at) end
  return mismatch(at, "%s needs a number, not a %s.", what, value.type)
end

---A value as a condition. Raises a failure where it is none.
---@param value sluice.emulator.sql.Value
---@param at integer?
---@param what string
---@return sluice.emulator.sql.Value
function types.condition(value, at, what)
  if value.type == "BOOLEAN" or value.type == "VOID" then return value end
  return mismatch(at, "%s needs a BOOLEAN, not a %s.", what, value.type)
end

-- ---- cells ----

-- As the JVM writes them: 0.5, 12.0, 1.0E10.
local function double_text(value)
  if value ~= value then return "NaN" end
  if value == math.huge then return "Infinity" end
  if value == -math.huge then return "-Infinity" end
  local text = json.encode(value + 0.0)
  local mantissa, exponent = text:match "^(.-)[eE]%+?(-?%d+)$"
  if not mantissa then return text end
  return (mantissa:find(".", 1, true) and mantissa or mantissa .. ".0") .. "E"
    .. tostring(math.tointeger(exponent))
end

local writers = {
  BOOLEAN = function(value) return value ~= 0 and "true" or "false" end,
  DOUBLE = function(value) return type(value) == "number" and double_text(value) or tostring(value) end,
  TIMESTAMP = function(value) return tostring(value):gsub(" ", "T") .. "Z" end,
}

local function whole_text(value)
  return tostring(math.tointeger(value) or value)
end

writers.INT, writers.BIGINT = whole_text, whole_text

---The text of a cell, as the wire has it.
---@param type_name string
---@param value any as SQLite gives it; nil for NULL
---@return string|lightuserdata text json.null for NULL
function types.cell(type_name, value)
  if value == nil then return json.null end
  local write = writers[type_name]
  return write and write(value) or tostring(value)
end

local TEXTS <const> = {
  MAP = "MAP<STRING,STRING>", ARRAY = "ARRAY<STRING>",
  STRUCT = "STRUCT<result: STRING, errorMessage: STRING>",
}

---The full name of a type, as a manifest has it.
---@param type_name string
---@return string
function types.text(type_name) return TEXTS[type_name] or type_name end

return types
