-- SPDX-License-Identifier: MIT
-- What SQLite has no word for: functions and aggregates in Lua, which SQLite calls while a statement runs.
--
-- They raise texts "CONDITION: what is wrong", which SQLite passes on.

local in_lua = {}

local function fail(condition, text, ...) error(condition .. ": " .. text:format(...), 0) end

-- ---- casts ----

local WHOLE <const> = { INT = { -(1 << 31), (1 << 31) - 1 }, BIGINT = { math.mininteger, math.maxinteger } }
local TRUE <const>, FALSE <const> = { t = 1, ["true"] = 1, y = 1, yes = 1, ["1"] = 1 },
  { f = 0, ["false"] = 0, n = 0, no = 0, ["0"] = 0 }

local readers = {}

local function whole(name)
  local least, most = table.unpack(WHOLE[name])
  return function(text)
    local number = text:find "^[+-]?%d+%.?%d*$" and tonumber((text:match "^%+?([+-]?%d+)"))
    if math.type(number) ~= "integer" or number < least or number > most then return nil end
    return number
  end
end

readers.INT, readers.BIGINT = whole "INT", whole "BIGINT"

function readers.DOUBLE(text)
  local word = text:lower()
  if word == "infinity" or word == "inf" then return math.huge end
  if word == "-infinity" or word == "-inf" then return -math.huge end
  local number = text:find "^[+-]?[%d.]" and not word:find "x" and tonumber((text:gsub("^%+", "")))
  return number and number + 0.0 or nil
end

function readers.BOOLEAN(text)
  local word = text:lower()
  return TRUE[word] or FALSE[word]
end

-- Days since 1970 in the Gregorian calendar, and back: years begin in March, so that a leap day is their last.
local function days_of(year, month, day)
  if month <= 2 then year = year - 1 end
  local era, of_era = year // 400, year % 400
  local of_year = (153 * ((month + 9) % 12) + 2) // 5 + day - 1
  return era * 146097 + of_era * 365 + of_era // 4 - of_era // 100 + of_year - 719468
end

local function date_after(days)
  days = days + 719468
  local era, day = days // 146097, days % 146097
  local year = (day - day // 1460 + day // 36524 - day // 146096) // 365
  day = day - (365 * year + year // 4 - year // 100)
  local month = (5 * day + 2) // 153
  day = day - (153 * month + 2) // 5 + 1
  month = month < 10 and month + 3 or month - 9
  year = year + era * 400 + (month <= 2 and 1 or 0)
  return ("%04d-%02d-%02d"):format(year, month, day)
end

-- The days since 1970 of the date that a text begins with, and what follows; nil for none that there is.
local function date_of(text)
  local year, month, day, rest = text:match "^(%d%d%d%d)-(%d%d?)-(%d%d?)(.*)$"
  if not year then return nil end
  year, month, day = math.tointeger(tonumber(year)), math.tointeger(tonumber(month)),
    math.tointeger(tonumber(day))
  local days = days_of(year, month, day)
  if date_after(days) ~= ("%04d-%02d-%02d"):format(year, month, day) then return nil end
  return days, rest
end

function readers.DATE(text)
  local days, rest = date_of(text)
  return days and (rest == "" or rest:find "^[ T]") and date_after(days) or nil
end

-- "Z", "+01:00" or nothing: minutes to take off.
local function offset_of(text)
  if text == "" or text == "Z" or text == "UTC" or text == " UTC" then return 0 end
  local sign, hours, minutes = text:match "^([+-])(%d%d?):?(%d?%d?)$"
  if not sign then return nil end
  local offset = tonumber(hours) * 60 + (tonumber(minutes) or 0)
  return sign == "-" and -offset or offset
end

local function clock_of(text)
  if text == "" then return 0, 0, 0, "" end
  local hour, minute, rest = text:match "^[ T](%d%d?):(%d%d?)(.*)$"
  if not hour then return nil end
  local second, after = rest:match "^:(%d%d?%.?%d*)(.*)$"
  return tonumber(hour), tonumber(minute), tonumber(second or "0"), after or rest
end

local DAY <const> = 86400

function readers.TIMESTAMP(text)
  local days, rest = date_of(text)
  if not days then return nil end
  local hour, minute, second, zone = clock_of(rest)
  local offset = hour and offset_of(zone)
  if not offset or hour > 23 or minute > 59 or second >= 60 then return nil end
  local at = math.floor((hour * 3600 + minute * 60 + second - offset * 60) * 1000 + 1e-6)
  days, at = days + at // (DAY * 1000), at % (DAY * 1000)
  return ("%s %02d:%02d:%02d.%03d"):format(date_after(days), at // 3600000, at // 60000 % 60, at // 1000 % 60,
    at % 1000)
end

---A text as another type; nil for NULL, and for what cannot be read where `is_try` is 1. Raises else.
---@param text string?
---@param to string
---@param is_try integer
---@return any
function in_lua.cast(text, to, is_try)
  if text == nil then return nil end
  local value = readers[to](tostring(text):match "^%s*(.-)%s*$")
  if value == nil and is_try ~= 1 then
    fail("CAST_INVALID_INPUT", "The value '%s' of the type STRING cannot be cast to %s.",
      tostring(text):sub(1, 100), to)
  end
  return value
end

-- ---- numbers and dates ----

---What is divided by. Raises for 0.
---@param number number?
---@return number?
function in_lua.divisor(number)
  if number == 0 then fail("DIVIDE_BY_ZERO", "Division by zero.") end
  return number
end

---A date or a moment so many months later: at the end of a month that is shorter.
---@param text string?
---@param count integer
---@return string?
function in_lua.add_months(text, count)
  if text == nil then return nil end
  local year, month, day, rest = text:match "^(%d+)-(%d+)-(%d+)(.*)$"
  local months = math.tointeger(tonumber(year)) * 12 + math.tointeger(tonumber(month)) - 1 + count
  local first = days_of(months // 12, months % 12 + 1, 1)
  local after = days_of((months + 1) // 12, (months + 1) % 12 + 1, 1)
  return date_after(first + math.min(math.tointeger(tonumber(day)), after - first) - 1) .. rest
end

-- ---- aggregates ----

local function start() return { count = 0 } end

local function keep(list, value, share)
  if value == nil then return list end
  list.count, list.share = list.count + 1, share
  list[list.count] = value
  return list
end

---Of the values of a group, the one at that share, between two of them interpolated.
---@param list number[]
---@return number?
function in_lua.percentile(list)
  if list.count == 0 then return nil end
  table.sort(list)
  local place = list.share * (list.count - 1)
  local below = math.floor(place)
  local low, high = list[below + 1], list[math.min(below + 2, list.count)]
  return low + (high - low) * (place - below) + 0.0
end

---Of the values of a group, the first that at least that share of them does not exceed.
---@param list number[]
---@return number?
function in_lua.element(list)
  if list.count == 0 then return nil end
  table.sort(list)
  return list[math.max(1, math.ceil(list.share * list.count))]
end

-- Welford's: no difference of large sums.
local function add(state, value)
  if value == nil then return state end
  state.count = state.count + 1
  local delta = value - (state.mean or 0)
  state.mean = (state.mean or 0) + delta / state.count
  state.square = (state.square or 0) + delta * (value - state.mean)
  return state
end

local function spread(lost, root)
  return function(state)
    if state.count <= lost then return nil end
    local variance = state.square / (state.count - lost)
    return root and math.sqrt(variance) or variance
  end
end

---Gives all of them to a database.
---@param database table of sluice.sqlite
function in_lua.define(database)
  local same <const> = { deterministic = true }
  database:create_function("sluice_cast", 3, in_lua.cast, same)
  database:create_function("sluice_divisor", 1, in_lua.divisor, same)
  database:create_function("sluice_add_months", 2, in_lua.add_months, same)
  database:create_aggregate("sluice_percentile", 2, { start = start, step = keep,
    finish = in_lua.percentile })
  database:create_aggregate("sluice_element", 2, { start = start, step = keep, finish = in_lua.element })
  for name, finish in pairs {
    sluice_stddev_samp = spread(1, true), sluice_stddev_pop = spread(0, true),
    sluice_var_samp = spread(1, false), sluice_var_pop = spread(0, false),
  } do
    database:create_aggregate(name, 1, { start = start, step = add, finish = finish })
  end
end

return in_lua
