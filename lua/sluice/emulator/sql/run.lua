-- SPDX-License-Identifier: MIT
-- Runs one statement: parses it, translates it, asks SQLite, and makes the cells of the wire.

local ai_query = require "sluice.emulator.sql.ai_query"
local errors = require "sluice.errors"
local failure = require "sluice.emulator.sql.failure"
local json = require "sluice.json"
local parser = require "sluice.emulator.sql.parser"
local query = require "sluice.emulator.sql.query"
local task = require "sluice.task"
local types = require "sluice.emulator.sql.types"
local wire = require "sluice.emulator.wire"

local run = {}

---What a statement has given.
---@class sluice.emulator.sql.Outcome
---@field columns { name: string, type: string }[]
---@field rows any[][] texts, or json.null
---@field bytes integer of all cells
---@field is_truncated boolean

-- ---- parameters ----

local function parameter_value(given, kind)
  local value = wire.given(given.value)
  if value == nil then return { sql = "NULL", type = kind } end
  return { sql = nil, type = "STRING", value = value }, kind
end

-- The values of the markers, each of the type that was asked for.
local function bound_parameters(list, bind)
  local made = {}
  for _, given in ipairs(list or {}) do
    local kind = types.named(tostring(wire.given(given.type) or "STRING"):upper():gsub("%(.*$", ""), nil)
    local value, to = parameter_value(given, kind)
    if to then
      local text = value.value
      value.sql = bind(text)
      local is_number = types.is_number(kind)
      local number = is_number and tonumber(text)
      value = types.cast(value, to)
      value.value = number and (kind == "DOUBLE" and number + 0.0 or math.tointeger(number)) or text
      if kind == "BOOLEAN" then value.value = text:lower() == "true" end
    end
    made[given.name:lower()] = value
  end
  return made
end

-- SQLite takes some 32 thousand values.
local MOST_VALUES <const> = 30000

local function new_binder(parameters)
  local values, places = {}, {}
  local binder = { now = task.wall(), values = values }
  function binder.bind(value)
    local key = math.type(value) == "integer" and value or tostring(value)
    local place = places[key]
    if not place then
      place = #values + 1
      if place > MOST_VALUES then failure.unsupported(nil, "A statement with so many texts") end
      values[place], places[key] = value, place
    end
    return "?" .. place
  end
  binder.parameters = bound_parameters(parameters, binder.bind)
  return binder
end

-- ---- rows ----

local RAISED <const> = "^([%u_]+): (.*)$"

-- SQLite's own words for what is too much for it.
local LIMITS <const> = { "stack overflow", "too large", "too many", "too complex", "too long", "too deep" }

local function explain(err)
  local text = tostring(errors.is(err) and err.message or err)
  local condition, more = text:match(RAISED)
  if condition then failure.raise(condition, nil, "%s", more) end
  for _, word in ipairs(LIMITS) do
    if text:find(word, 1, true) then
      failure.unsupported(nil, ("A statement that is so large (%s)"):format(text))
    end
  end
  failure.raise("INTERNAL_ERROR", nil, "%s", text)
end

-- More than this no emulator should hold.
local MOST_BYTES <const> = 100 << 20

-- A statement need not use what is bound to it, but SQLite counts what it uses.
local function using_all(sql, values)
  if #values == 0 then return sql end
  return ("WITH bound AS (SELECT ?%d) %s"):format(#values, sql)
end

local function read_rows(database, made, values, most)
  local rows, bytes, is_truncated = {}, 0, false
  local ok, err = pcall(function()
    for cells in database:cells(using_all(made.sql, values), table.unpack(values)) do
      if #rows >= most then
        is_truncated = true
        break
      end
      for index = 1, #made.columns do
        if cells[index] == json.null then cells[index] = nil end
        bytes = bytes + (type(cells[index]) == "string" and #cells[index] or 8)
      end
      rows[#rows + 1] = cells
      if bytes > MOST_BYTES then failure.unsupported(nil, "A result of more than 100 MiB") end
    end
  end)
  if ok then return rows, is_truncated end
  if failure.is(err) or errors.is(err) and err.kind == "TaskCancelled" then error(err, 0) end
  return explain(err)
end

local function write_cells(columns, rows, byte_limit)
  local bytes = 0
  for number, cells in ipairs(rows) do
    for index, column in ipairs(columns) do
      local text = types.cell(column.type, cells[index])
      cells[index] = text
      bytes = bytes + (type(text) == "string" and #text or 0)
    end
    if byte_limit and bytes > byte_limit then
      for after = number + 1, #rows do rows[after] = nil end
      return bytes, true
    end
  end
  return bytes, false
end

local function execute(emulator, body, authorization)
  local tables = emulator.tables
  local database = tables:open()
  local parsed = parser.parse(body.statement)
  local binder = new_binder(wire.given(body.parameters))
  local catalog, schema = wire.given(body.catalog), wire.given(body.schema)
  local made = query.translate({
    binder = binder, named = {},
    find_table = function(parts, at) return tables:find(parts, catalog, schema, at) end,
  }, parsed, ai_query.translate)
  local most = wire.integer(wire.given(body.row_limit)) or math.huge
  local rows, is_truncated = read_rows(database, made, binder.values, most)
  if made.ai then ai_query.answer(emulator, authorization, made.ai, rows) end
  local bytes, is_cut = write_cells(made.columns, rows, wire.integer(wire.given(body.byte_limit)))
  return { columns = made.columns, rows = rows, bytes = bytes, is_truncated = is_truncated or is_cut }
end

---Runs a statement. Waits.
---@param emulator table
---@param body table the decoded request
---@param authorization any of the caller
---@return sluice.emulator.sql.Outcome? outcome
---@return sluice.emulator.sql.Failure? why
function run.statement(emulator, body, authorization)
  local ok, outcome = pcall(execute, emulator, body, authorization)
  if ok then return outcome end
  if failure.is(outcome) then return nil, outcome end
  error(outcome, 0)
end

return run
