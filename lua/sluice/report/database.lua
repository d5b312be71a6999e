-- SPDX-License-Identifier: MIT
-- Tallies an inference log that is a table of SQLite: only the columns that are needed leave it, and no row is kept.

local columns = require "sluice.report.columns"
local errors = require "sluice.errors"
local options = require "sluice.options"
local rows = require "sluice.report.rows"
local tally = require "sluice.report.tally"

local math_type <const> = math.type

local database = {}

local TABLE <const> = "inference_log"

-- Of the file, as layers.capture writes it; 0 is a file of somebody else's making, whose columns tell.
local VERSION <const> = 1

local function quoted(name)
  return '"' .. name .. '"'
end

local function variant_expression(by)
  if #by == 1 then return quoted(by[1]) end
  return ("json_extract(%s, '$.%s')"):format(quoted(by[1]), table.concat(by, ".", 2))
end

local function time_expression(column)
  if column == "timestamp_ms" then return quoted(column) end
  return ("CAST(ROUND((julianday(%s) - 2440587.5) * 86400000) AS INTEGER)"):format(quoted(column))
end

local function select_statement(name, wanted, found)
  local function column(its)
    return found[its] and quoted(found[its]) or "NULL"
  end
  local success = "status_code BETWEEN 200 AND 299"
  if found.error_kind then success = success .. " AND error_kind IS NULL" end
  local conditions, values = {}, {}
  for _, bound in ipairs { { wanted.since, ">=" }, { wanted.before, "<" } } do
    if bound[1] then
      conditions[#conditions + 1] = ("%s %s ?"):format(time_expression(found.timestamp_ms), bound[2])
      values[#values + 1] = bound[1]
    end
  end
  local where = #conditions > 0 and " WHERE " .. table.concat(conditions, " AND ") or ""
  local parts = {
    variant_expression(wanted.by), success, column "execution_time_ms", column "ttft_ms",
    column "input_tokens", column "output_tokens", found.cache_result and "cache_result = 'hit'" or "0",
  }
  return ("SELECT %s FROM %s%s"):format(table.concat(parts, ", "), name, where), values
end

-- ---- rows; the loop is what a report of a million of them consists of ----

local function new_sums()
  return {
    requests = 0, successes = 0, cached = 0, latency = {}, ttft = {},
    inputs = 0, input = 0, input_squares = 0, outputs = 0, output = 0, output_squares = 0,
  }
end

local function add_cells(sums, cells)
  local input, output = cells[5], cells[6]
  sums.requests = sums.requests + 1
  if math_type(input) then
    sums.inputs, sums.input = sums.inputs + 1, sums.input + input
    sums.input_squares = sums.input_squares + input * input
  end
  if cells[2] ~= 1 then return end
  sums.successes = sums.successes + 1
  local latency, ttft = cells[3], cells[4]
  if math_type(latency) then sums.latency[latency] = (sums.latency[latency] or 0) + 1 end
  if math_type(ttft) then
    local whole = ttft // 1
    sums.ttft[whole] = (sums.ttft[whole] or 0) + 1
  end
  if math_type(output) then
    sums.outputs, sums.output = sums.outputs + 1, sums.output + output
    sums.output_squares = sums.output_squares + output * output
  end
end

local function read_sums(db, statement, values)
  local by_variant = {}
  for cells in db:cells(statement, table.unpack(values)) do
    local name = cells[1]
    local sums = by_variant[name]
    if not sums then
      sums = new_sums()
      by_variant[name] = sums
    end
    if cells[7] == 1 then sums.cached = sums.cached + 1 else add_cells(sums, cells) end
  end
  return by_variant
end

local function tally_of(sums)
  local its = tally.new()
  its.requests, its.successes, its.cached = sums.requests, sums.successes, sums.cached
  for _, kind in ipairs { "latency", "ttft" } do
    for value, times in next, sums[kind] do tally.add_time(its, kind, value, times) end
  end
  its.input_tokens = { count = sums.inputs, sum = sums.input, squares = sums.input_squares }
  its.output_tokens = { count = sums.outputs, sum = sums.output, squares = sums.output_squares }
  return its
end

local function counted_of(by_variant, missing)
  local counted = rows.nothing()
  counted.missing = missing
  for name, sums in next, by_variant do
    local count = sums.requests + sums.cached
    counted.rows = counted.rows + count
    if type(name) == "userdata" or name == "" then
      counted.nameless = counted.nameless + count
    else
      counted.tallies[tostring(name)] = tally_of(sums)
    end
  end
  return counted
end

-- ---- the source ----

local function check_version(db, name)
  local row, err = db:first "PRAGMA user_version"
  if not row then return nil, err end
  if row.user_version == 0 or row.user_version == VERSION then return true end
  local text = "the log is of version %d, and this program knows version %d"
  return nil, columns.mismatch(name, text:format(row.user_version, VERSION))
end

local function read(db, name, wanted)
  local good, err = check_version(db, name)
  if not good then return nil, err end
  local all
  all, err = db:columns(("SELECT * FROM %s"):format(name))
  if not all then return nil, err end
  local there = {}
  for _, column in ipairs(all) do there[column.name] = true end
  local found, missing = columns.find(name, wanted, there)
  if not found then return nil, missing end
  local statement, values = select_statement(name, wanted, found)
  local ok, sums = pcall(read_sums, db, statement, values)
  if ok then return counted_of(sums, missing) end
  if errors.is(sums) and sums:is "DatabaseError" then return nil, sums end
  error(sums, 0)
end

---The source that a database is.
---@param where string for the message
---@param db sluice.sqlite.Database
---@param name? string of the table
---@return sluice.report.Source
function database.of(where, db, name)
  name = name or TABLE
  if not name:find "^[%a_][%w_]*$" and not name:find "^[%a_][%w_]*%.[%a_][%w_]*$" then
    options.misuse('%s: option "table" must be the name of a table, got "%s"', where, name)
  end
  return { read = function(_, wanted) return read(db, name, wanted) end }
end

---The source that a store of layers.capture is: its rows so far, whenever it is read.
---@param where string for the message
---@param store sluice.Capture
---@param name? string of the table
---@return sluice.report.Source
function database.of_store(where, store, name)
  return { read = function(_, wanted)
    store:flush()
    local db, err = require("sluice.sqlite").open(store.path, { read_only = true })
    if not db then return nil, err end
    local opened <close> = db
    return database.of(where, opened, name):read(wanted)
  end }
end

return database
