-- SPDX-License-Identifier: MIT
-- Where the results of a batch go: a file, standard output, a function, an object with `write`, or a list.

local files = require "sluice.batch.files"

local output = {}

local function of_function(f)
  return { write = function(_, result) f(result) return true end, wants_tables = true }
end

local function of_results(results)
  return {
    write = function(_, result)
      results[#results + 1] = result
      return true
    end,
    wants_tables = true,
  }
end

---Opens what the option `output` may be.
---@param given string|function|sluice.BatchSink|nil nil: a list
---@return (sluice.BatchSink|table)? sink `wants_tables`: it takes one result at a time, as a table
---@return sluice.Error|{ file: sluice.batch.Appender?, results: table[]? } opened err, or what was opened for it
function output.open(given)
  if given == nil then
    local results = {}
    return of_results(results), { results = results }
  elseif given == "-" then
    local file, err = files.standard_output()
    return file, err or {}
  elseif type(given) == "string" then
    local file, err = files.append(given, "write batch output")
    return file, err or { file = file }
  elseif type(given) == "table" and given.write then
    return given, {}
  end
  return of_function(given), {}
end

return output
