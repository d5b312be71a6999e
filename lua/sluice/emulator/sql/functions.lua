-- SPDX-License-Identifier: MIT
-- The functions of the dialect: what they take and what they are in SQLite.

local failure = require "sluice.emulator.sql.failure"
local types = require "sluice.emulator.sql.types"

local functions = {}

---A function of the dialect.
---@class sluice.emulator.sql.Function
---@field least integer arguments
---@field most integer arguments
---@field is_aggregate? boolean
---@field make fun(call: sluice.emulator.sql.Call): string, string the SQL and its type

---A call that is translated.
---@class sluice.emulator.sql.Call
---@field [integer] sluice.emulator.sql.Value the arguments; a literal's value is its `literal`
---@field at integer
---@field shown string the name as it was written
---@field now number seconds since 1970
---@field bind fun(value: any): string gives the SQL of a value
---@field is_distinct boolean
---@field is_star boolean
---@field filter string " FILTER (WHERE ...)", or ""

---@type table<string, sluice.emulator.sql.Function>
functions.known = {}

local known = functions.known

local function add(names, least, most, make, is_aggregate)
  local row = { least = least, most = most, make = make, is_aggregate = is_aggregate }
  for name in names:gmatch "[%w_]+" do known[name] = row end
end

local function number(call, index) return types.number(call[index], call.at, call.shown) end
local function text(call, index) return types.cast(call[index], "STRING", call.at).sql end
local function moment(call, index) return types.cast(call[index], "TIMESTAMP", call.at).sql end
local function day(call, index) return types.cast(call[index], "DATE", call.at).sql end

local function whole(call, index)
  return types.cast(types.number(call[index], call.at, call.shown), "BIGINT", call.at).sql
end

-- ---- aggregates ----

local function aggregate(names, least, most, make) add(names, least, most, make, true) end

local function distinct(call) return call.is_distinct and "DISTINCT " or "" end

aggregate("count", 0, 1, function(call)
  if call.is_star then return "count(*)" .. call.filter, "BIGINT" end
  if #call == 0 then failure.raise("WRONG_NUM_ARGS", call.at, "count needs * or an expression.") end
  return ("count(%s%s)%s"):format(distinct(call), call[1].sql, call.filter), "BIGINT"
end)

aggregate("count_if", 1, 1, function(call)
  local condition = types.condition(call[1], call.at, "count_if").sql
  return ("count(CASE WHEN %s THEN 1 END)%s"):format(condition, call.filter), "BIGINT"
end)

aggregate("approx_count_distinct", 1, 1, function(call)
  return ("count(DISTINCT %s)%s"):format(call[1].sql, call.filter), "BIGINT"
end)

aggregate("sum", 1, 1, function(call)
  local value = number(call, 1)
  local kind = value.type == "DOUBLE" and "DOUBLE" or "BIGINT"
  return ("sum(%s%s)%s"):format(distinct(call), value.sql, call.filter), kind
end)

aggregate("avg mean", 1, 1, function(call)
  return ("avg(%s%s)%s"):format(distinct(call), number(call, 1).sql, call.filter), "DOUBLE"
end)

aggregate("min", 1, 1, function(call) return ("min(%s)%s"):format(call[1].sql, call.filter), call[1].type end)
aggregate("max any_value", 1, 1, function(call)
  return ("max(%s)%s"):format(call[1].sql, call.filter), call[1].type
end)

-- What SQLite has no aggregate for is one in Lua, see emulator/sql/in_lua.lua.
local function in_lua(call, name, more)
  local value = number(call, 1).sql
  return ("%s(%s%s%s)%s"):format(name, distinct(call), value, more or "", call.filter)
end

-- An aggregate of SQLite that takes two values cannot be DISTINCT.
local function check_all(call)
  if call.is_distinct then failure.unsupported(call.at, call.shown .. " of DISTINCT values") end
end

local function share_of(call)
  local share = call[2].literal
  if type(share) ~= "number" or share < 0 or share > 1 then
    failure.raise("INVALID_PARAMETER_VALUE", call.at, "The percentage of %s must be a number from 0 to 1.",
      call.shown)
  end
  check_all(call)
  return (", %.17g"):format(share)
end

add("percentile", 2, 2, function(call) return in_lua(call, "sluice_percentile", share_of(call)), "DOUBLE" end,
  true)
-- an element that is there; how exact it is in the warehouse, the third argument says
add("percentile_approx approx_percentile", 2, 3, function(call)
  return in_lua(call, "sluice_element", share_of(call)), number(call, 1).type
end, true)
aggregate("median", 1, 1, function(call)
  check_all(call)
  return in_lua(call, "sluice_percentile", ", 0.5"), "DOUBLE"
end)

for names, name in pairs {
  ["stddev stddev_samp std"] = "sluice_stddev_samp", stddev_pop = "sluice_stddev_pop",
  ["variance var_samp"] = "sluice_var_samp", var_pop = "sluice_var_pop",
} do
  aggregate(names, 1, 1, function(call) return in_lua(call, name), "DOUBLE" end)
end

-- ---- JSON ----

-- One step of a path: .name, ['name'], [0].
local function path_step(path, at)
  local name, after = path:match("^%.([^.%[%]'\"*]+)()", at)
  if not name then name, after = path:match("^%['([^'\"]+)'%]()", at) end
  if name then return ('."%s"'):format(name), after end
  local index
  index, after = path:match("^(%[%d+%])()", at)
  return index, after
end

-- The path as SQLite writes it: $.a['b c'][0] becomes $."a"."b c"[0].
local function path_of(path, at)
  local parts, place = { "$" }, 2
  local is_path = path:sub(1, 1) == "$"
  while is_path and place <= #path do
    parts[#parts + 1], place = path_step(path, place)
    is_path = place ~= nil
  end
  if not is_path then failure.unsupported(at, ("The JSON path %q"):format(path)) end
  return table.concat(parts)
end

---The SQL of a part of a JSON text, as text; NULL where the text is no JSON or has no such part.
---@param text_sql string
---@param path_sql string
---@return string
function functions.json_part(text_sql, path_sql)
  local words = [[CASE WHEN json_valid(%s) THEN CASE json_type(%s, %s)
    WHEN 'true' THEN 'true' WHEN 'false' THEN 'false' ELSE CAST(json_extract(%s, %s) AS TEXT) END END]]
  return words:format(text_sql, text_sql, path_sql, text_sql, path_sql)
end

add("get_json_object", 2, 2, function(call)
  if type(call[2].literal) ~= "string" then
    failure.unsupported(call.at, "get_json_object with a path that is no literal string")
  end
  local path = call.bind(path_of(call[2].literal, call.at))
  return functions.json_part(text(call, 1), path), "STRING"
end)

-- ---- time ----

local FULL <const> = "%Y-%m-%d %H:%M:%f"

local function today(call) return call.bind(os.date("!%Y-%m-%d", math.floor(call.now))), "DATE" end

local function now(call)
  local seconds = math.floor(call.now)
  local thousandths = math.floor((call.now - seconds) * 1000)
  return call.bind(os.date("!%Y-%m-%d %H:%M:%S", seconds) .. (".%03d"):format(thousandths)), "TIMESTAMP"
end

local function unix_seconds(call)
  if #call == 0 then return ("%d"):format(math.floor(call.now)), "BIGINT" end
  return ("unixepoch(%s)"):format(moment(call, 1)), "BIGINT"
end

add("current_date curdate", 0, 0, today)
add("current_timestamp now", 0, 0, now)
add("unix_timestamp", 0, 1, unix_seconds)
add("to_unix_timestamp unix_seconds", 1, 1, unix_seconds)
add("unix_millis", 1, 1, function(call)
  return ("CAST(round((julianday(%s) - 2440587.5) * 86400000) AS INTEGER)"):format(moment(call, 1)), "BIGINT"
end)
add("timestamp_seconds", 1, 1, function(call)
  return ("strftime('%s', %s, 'unixepoch')"):format(FULL, number(call, 1).sql), "TIMESTAMP"
end)
add("timestamp_millis", 1, 1, function(call)
  return ("strftime('%s', %s / 1000.0, 'unixepoch')"):format(FULL, number(call, 1).sql), "TIMESTAMP"
end)
add("from_unixtime", 1, 1, function(call)
  return ("strftime('%%Y-%%m-%%d %%H:%%M:%%S', %s, 'unixepoch')"):format(whole(call, 1)), "STRING"
end)
add("date to_date", 1, 1, function(call) return day(call, 1), "DATE" end)
add("timestamp to_timestamp", 1, 1, function(call) return moment(call, 1), "TIMESTAMP" end)
add("date_add dateadd", 2, 2, function(call)
  return ("date(%s, %s || ' days')"):format(day(call, 1), whole(call, 2)), "DATE"
end)
add("date_sub", 2, 2, function(call)
  return ("date(%s, (-(%s)) || ' days')"):format(day(call, 1), whole(call, 2)), "DATE"
end)
add("datediff", 2, 2, function(call)
  return ("CAST(julianday(%s) - julianday(%s) AS INTEGER)"):format(day(call, 1), day(call, 2)), "INT"
end)

local PARTS <const> = { year = "%Y", month = "%m", day = "%d", dayofmonth = "%d", hour = "%H", minute = "%M" }
for name, format in pairs(PARTS) do
  add(name, 1, 1, function(call)
    return ("CAST(strftime('%s', %s) AS INTEGER)"):format(format, moment(call, 1)), "INT"
  end)
end

local STARTS <const> = {
  YEAR = "%Y-01-01 00:00:00.000", MONTH = "%Y-%m-01 00:00:00.000", DAY = "%Y-%m-%d 00:00:00.000",
  HOUR = "%Y-%m-%d %H:00:00.000", MINUTE = "%Y-%m-%d %H:%M:00.000", SECOND = "%Y-%m-%d %H:%M:%S.000",
}

add("date_trunc", 2, 2, function(call)
  local unit = call[1].literal
  local format = type(unit) == "string" and STARTS[unit:upper()]
  if not format then failure.unsupported(call.at, ("date_trunc by %s"):format(tostring(unit))) end
  return ("strftime('%s', %s)"):format(format, moment(call, 2)), "TIMESTAMP"
end)

local INTERVALS <const> = { DAY = "days", HOUR = "hours", MINUTE = "minutes", SECOND = "seconds" }
local MONTHS <const> = { MONTH = 1, YEAR = 12 }

---A date or a moment plus so many of a unit.
---@param value sluice.emulator.sql.Value
---@param count integer
---@param unit string in capitals
---@param at integer
---@return string sql
---@return string type
function functions.shifted(value, count, unit, at)
  unit = unit:gsub("S$", "")
  if unit == "WEEK" then unit, count = "DAY", count * 7 end
  if value.type == "STRING" then value = types.cast(value, "TIMESTAMP", at) end
  if value.type ~= "DATE" and value.type ~= "TIMESTAMP" then
    types.mismatch(at, "An interval cannot be added to a %s.", value.type)
  end
  if MONTHS[unit] then
    return ("sluice_add_months(%s, %d)"):format(value.sql, count * MONTHS[unit]), value.type
  end
  local word = INTERVALS[unit]
  if not word then failure.unsupported(at, "An interval of " .. unit) end
  if value.type == "DATE" and unit == "DAY" then
    return ("date(%s, '%+d days')"):format(value.sql, count), "DATE"
  end
  value = types.cast(value, "TIMESTAMP", at)
  return ("strftime('%s', %s, '%+d %s')"):format(FULL, value.sql, count, word), "TIMESTAMP"
end

-- ---- numbers ----

add("abs", 1, 1, function(call)
  local value = number(call, 1)
  return ("abs(%s)"):format(value.sql), value.type
end)
add("round", 1, 2, function(call)
  local value = number(call, 1)
  local places = call[2] and call[2].literal or 0
  if math.type(places) ~= "integer" or places < 0 then
    failure.unsupported(call.at, "round to anything but a whole number of places")
  end
  if value.type ~= "DOUBLE" then return value.sql, value.type end
  return ("round(%s, %d)"):format(value.sql, places), "DOUBLE"
end)
add("floor", 1, 1, function(call) return ("CAST(floor(%s) AS INTEGER)"):format(number(call, 1).sql),
  "BIGINT" end)
add("ceil ceiling", 1, 1, function(call)
  return ("CAST(ceil(%s) AS INTEGER)"):format(number(call, 1).sql), "BIGINT"
end)
for name in ("sqrt ln exp"):gmatch "%a+" do
  add(name, 1, 1, function(call) return ("%s(%s)"):format(name, number(call, 1).sql), "DOUBLE" end)
end

-- ---- texts ----

for names, sql in pairs {
  lower = "lower", lcase = "lower", upper = "upper", ucase = "upper", trim = "trim", ltrim = "ltrim",
    rtrim = "rtrim",
} do
  add(names, 1, 1, function(call) return ("%s(%s)"):format(sql, text(call, 1)), "STRING" end)
end
add("length char_length character_length len", 1, 1, function(call)
  return ("length(%s)"):format(text(call, 1)), "INT"
end)
add("substring substr", 2, 3, function(call)
  local length = call[3] and ", " .. whole(call, 3) or ""
  return ("substr(%s, %s%s)"):format(text(call, 1), whole(call, 2), length), "STRING"
end)
add("replace", 3, 3, function(call)
  return ("replace(%s, %s, %s)"):format(text(call, 1), text(call, 2), text(call, 3)), "STRING"
end)
add("contains", 2, 2, function(call)
  return ("(instr(%s, %s) > 0)"):format(text(call, 1), text(call, 2)), "BOOLEAN"
end)
add("startswith", 2, 2, function(call)
  local prefix = text(call, 2)
  return ("(substr(%s, 1, length(%s)) = %s)"):format(text(call, 1), prefix, prefix), "BOOLEAN"
end)
add("concat", 1, 100, function(call)
  local parts = {}
  for index = 1, #call do parts[index] = text(call, index) end
  return "(" .. table.concat(parts, " || ") .. ")", "STRING"
end)

-- ---- choices ----

local function first_of(call)
  local list, kind = types.unify(call, call.at, "The arguments of " .. call.shown)
  local parts = {}
  for index, each in ipairs(list) do parts[index] = each.sql end
  if #parts == 1 then return parts[1], kind end
  return ("coalesce(%s)"):format(table.concat(parts, ", ")), kind
end

add("coalesce", 1, 100, first_of)
add("nvl ifnull", 2, 2, first_of)
add("nullif", 2, 2, function(call)
  local list = types.unify(call, call.at, "The arguments of nullif")
  return ("nullif(%s, %s)"):format(list[1].sql, list[2].sql), list[1].type
end)
add("if iff", 3, 3, function(call)
  local condition = types.condition(call[1], call.at, call.shown).sql
  local list, kind = types.unify({ call[2], call[3] }, call.at, "The branches of " .. call.shown)
  return ("CASE WHEN %s THEN %s ELSE %s END"):format(condition, list[1].sql, list[2].sql), kind
end)

return functions
