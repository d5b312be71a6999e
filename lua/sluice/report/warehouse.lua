-- SPDX-License-Identifier: MIT
-- Tallies an inference log in a warehouse: it counts, and only how often each latency came is fetched.

local columns = require "sluice.report.columns"
local options = require "sluice.options"
local rows = require "sluice.report.rows"
local tally = require "sluice.report.tally"

local warehouse = {}

-- A column of a map, or the path within a text that is JSON.
local function variant_expression(by, types)
  if #by == 1 then return by[1] end
  if #by == 2 and types[by[1]] == "MAP" then return ("%s['%s']"):format(by[1], by[2]) end
  return ("get_json_object(%s, '$.%s')"):format(by[1], table.concat(by, ".", 2))
end

local function conditions_of(wanted, found)
  local list = {}
  for _, bound in ipairs { { wanted.since, ">=" }, { wanted.before, "<" } } do
    if bound[1] then
      local milliseconds = ("%d"):format(math.ceil(bound[1]))
      local form = found.timestamp_ms == "timestamp_ms" and "%s %s %s" or "%s %s timestamp_millis(%s)"
      list[#list + 1] = form:format(found.timestamp_ms, bound[2], milliseconds)
    end
  end
  return #list > 0 and " WHERE " .. table.concat(list, " AND ") or ""
end

local function success_condition(found)
  local success = "status_code BETWEEN 200 AND 299"
  return found.error_kind and success .. " AND error_kind IS NULL" or success
end

local TOKENS <const> = { "input_tokens", "output_tokens" }

local function counting(name, wanted, found, types)
  local parts = {
    variant_expression(wanted.by, types) .. " AS variant",
    ("CASE WHEN %s THEN 1 ELSE 0 END AS success"):format(success_condition(found)),
  }
  for _, column in ipairs {
    { found.execution_time_ms, "%s AS latency" },
    { found.cache_result, "CASE WHEN %s = 'hit' THEN 1 ELSE 0 END AS cached" },
  } do
    if column[1] then parts[#parts + 1] = column[2]:format(column[1]) end
  end
  local groups = {}
  for place in ipairs(parts) do groups[place] = place end
  parts[#parts + 1] = "count(*) AS requests"
  for _, tokens in ipairs(TOKENS) do
    if found[tokens] then
      parts[#parts + 1] = ("count(%s) AS %s_count, sum(%s) AS %s_sum, sum(%s * %s) AS %s_squares"):format(
        tokens, tokens, tokens, tokens, tokens, tokens, tokens)
    end
  end
  return ("SELECT %s FROM %s%s GROUP BY %s"):format(
    table.concat(parts, ", "), name, conditions_of(wanted, found), table.concat(groups, ", "))
end

local function first_tokens(name, wanted, found, types)
  return ([[SELECT variant, ttft, count(*) AS requests FROM (
    SELECT %s AS variant, floor(ttft_ms) AS ttft, %s AS success FROM %s%s)
    WHERE success AND ttft IS NOT NULL GROUP BY 1, 2]]):format(
    variant_expression(wanted.by, types), success_condition(found), name, conditions_of(wanted, found))
end

local function is_named(row)
  return row.variant ~= nil and row.variant ~= ""
end

local function add_tokens(its, row)
  for _, tokens in ipairs(TOKENS) do
    local sums, count = its[tokens], row[tokens .. "_count"]
    -- as everywhere: the tokens of answers are those of successful ones
    if count and (tokens == "input_tokens" or row.success == 1) then
      sums.count, sums.sum = sums.count + count, sums.sum + (row[tokens .. "_sum"] or 0)
      sums.squares = sums.squares + (row[tokens .. "_squares"] or 0)
    end
  end
end

local function add_counted(counted, row)
  counted.rows = counted.rows + row.requests
  if not is_named(row) then
    counted.nameless = counted.nameless + row.requests
    return
  end
  local its = rows.tally_of(counted, tostring(row.variant))
  if row.cached == 1 then
    its.cached = its.cached + row.requests
    return
  end
  its.requests = its.requests + row.requests
  if row.success == 1 then
    its.successes = its.successes + row.requests
    tally.add_time(its, "latency", row.latency, row.requests)
  end
  add_tokens(its, row)
end

local function each_row(client, text, f)
  local result, err = client:execute(text)
  if not result then return nil, err end
  while true do
    local row
    row, err = result:next()
    if row == nil then return err == nil or nil, err end
    f(row)
  end
end

local function read(client, name, wanted)
  local sample, err = client:execute(("SELECT * FROM %s LIMIT 1"):format(name))
  if not sample then return nil, err end
  local types = {}
  for _, column in ipairs(sample.columns) do types[column.name] = column.type end
  local found, missing = columns.find(name, wanted, types)
  if not found then return nil, missing end
  local counted = rows.nothing()
  counted.missing = missing
  local ok
  ok, err = each_row(client, counting(name, wanted, found, types), function(row)
    add_counted(counted, row)
  end)
  if ok and found.ttft_ms then
    ok, err = each_row(client, first_tokens(name, wanted, found, types), function(row)
      if not is_named(row) then return end
      tally.add_time(rows.tally_of(counted, tostring(row.variant)), "ttft", row.ttft, row.requests)
    end)
  end
  if not ok then return nil, err end
  return counted
end

---The source that a warehouse is.
---@param where string for the message
---@param client sluice.Sql
---@param name? string of the table, in full
---@return sluice.report.Source
function warehouse.of(where, client, name)
  if not name then options.misuse('%s: option "table" is missing: "catalog.schema.name"', where) end
  for part in (name .. "."):gmatch "([^.]*)%." do
    if not part:find "^[%w_]+$" and not part:find "^`[^`%c]+`$" then
      options.misuse('%s: option "table" must be the name of a table, got "%s"', where, name)
    end
  end
  return { read = function(_, wanted) return read(client, name, wanted) end }
end

return warehouse
