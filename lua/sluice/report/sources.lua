-- SPDX-License-Identifier: MIT
-- Where a report reads its rows: a list, a function, or a database.

local errors = require "sluice.errors"
local options = require "sluice.options"
local rows = require "sluice.report.rows"

local sources = {}

---A log: an array of rows, a function that gives an iterator over rows (called for each report, with `since` and `before`
---in seconds), a database of sluice.sqlite, a store of sluice.capture, or workspace.sql. Rows have the columns of
---docs/ab.md.
---@alias sluice.ReportSource table[]|(fun(since: number?, before: number?): fun(): table?)|sluice.sqlite.Database|sluice.Capture|sluice.Sql

---@class sluice.report.Source
---@field read fun(self: sluice.report.Source, wanted: sluice.report.Wanted): sluice.report.Counted?, sluice.Error?

-- Iterators raise err; what else is raised is a fault of the program.
local function read_rows(next_row, wanted)
  local ok, result = pcall(rows.read, next_row, wanted)
  if ok then return result end
  if errors.is(result) and not result:is "TaskCancelled" then return nil, result end
  error(result, 0)
end

local function of_list(list)
  return { read = function(_, wanted)
    local index = 0
    return read_rows(function()
      index = index + 1
      return list[index]
    end, wanted)
  end }
end

local function of_function(f)
  return { read = function(_, wanted)
    local since, before = wanted.since and wanted.since / 1000, wanted.before and wanted.before / 1000
    local next_row, err = f(since, before)
    if next_row == nil then return nil, err end
    return read_rows(next_row, wanted)
  end }
end

-- The module that reads each kind of database, and its function.
local DATABASES <const> = {
  ["sluice.sqlite.database"] = { "sluice.report.database", "of" },
  ["sluice.capture"] = { "sluice.report.database", "of_store" },
  ["sluice.sql"] = { "sluice.report.warehouse", "of" },
}

---The source that an option means. Raises where it is none.
---@param where string for the message
---@param source any
---@param table_name? string
---@return sluice.report.Source
function sources.of(where, source, table_name)
  local kind = type(source)
  if kind == "function" then return of_function(source) end
  if kind == "table" and getmetatable(source) == nil then return of_list(source) end
  local name = kind == "table" and getmetatable(source).__name
  local database = name and DATABASES[name]
  if database then return require(database[1])[database[2]](where, source, table_name) end
  local wants = "an array of rows, a function that gives an iterator, or a database"
  options.misuse('%s: option "source" must be %s, got %s', where, wants, options.type_name(source))
end

return sources
