-- SPDX-License-Identifier: MIT
-- Which columns of an inference log a report reads, in either dialect of it.

local errors = require "sluice.errors"
local options = require "sluice.options"

local columns = {}

-- What the report reads where it is there; the first of those in a row that the table has.
local OPTIONAL <const> = {
  { "timestamp_ms", "request_time" }, { "execution_time_ms", "execution_duration_ms" }, { "error_kind" },
  { "ttft_ms" }, { "input_tokens" }, { "output_tokens" }, { "cache_result" },
}

-- What the warehouse's tables do not have either: its absence is no news.
local UNTOLD <const> = { error_kind = true, cache_result = true, timestamp_ms = true }

---An err that says why a table is no log that can be read.
---@param object string
---@param message string
---@return sluice.Error
function columns.mismatch(object, message)
  local fields = { operation = "read inference log", object = object, message = message }
  return errors.new("SchemaMismatch", fields)
end

---The columns to read, by the name that the report has for them; nil for those that are not there.
---@param name string of the table
---@param wanted sluice.report.Wanted
---@param there table<string, any> the columns that it has
---@return table<string, string>? found
---@return string[]|sluice.Error missing those whose absence should be told, or an err
function columns.find(name, wanted, there)
  local found, missing = {}, {}
  for _, needed in ipairs { wanted.by[1], "status_code" } do
    if not there[needed] then
      local hint = options.hint(needed, there)
      return nil, columns.mismatch(name, ('it has no column "%s"%s'):format(needed, hint))
    end
  end
  for _, names in ipairs(OPTIONAL) do
    for _, each in ipairs(names) do found[names[1]] = found[names[1]] or there[each] and each end
    if not found[names[1]] and not UNTOLD[names[1]] then missing[#missing + 1] = names[1] end
  end
  if (wanted.since or wanted.before) and not found.timestamp_ms then
    return nil, columns.mismatch(name, "it has no time of its rows, neither timestamp_ms nor request_time")
  end
  return found, missing
end

return columns
