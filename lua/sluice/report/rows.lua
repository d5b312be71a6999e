-- SPDX-License-Identifier: MIT
-- Tallies the rows of an inference log that come one by one, in the columns of docs/ab.md or of a warehouse's tables.

local json = require "sluice.json"
local tally = require "sluice.report.tally"

local rows = {}

---What a report wants of a log.
---@class sluice.report.Wanted
---@field by string[] the column that names the variant, and the path within its JSON
---@field since number? milliseconds since 1970
---@field before number? the same

---What was read of a log.
---@class sluice.report.Counted
---@field rows integer in the time that was asked for
---@field tallies table<string, sluice.report.Tally> by variant
---@field nameless integer rows that name no variant
---@field timeless integer rows left out because they have no time
---@field missing string[]? columns that this log does not have

local function given(value)
  if type(value) == "userdata" then return nil end -- JSON's null
  return value
end

-- What a table without types holds as a text: "200".
local function number_of(value)
  value = given(value)
  return type(value) == "string" and tonumber(value) or value
end

-- "2026-01-31 13:05:07.250", as a warehouse shows a time; a T for the blank too.
local TIME <const> = "^(%d%d%d%d)-(%d%d)-(%d%d)[ T](%d%d):(%d%d):(%d%d)(%.?%d*)"

-- Days from 1970 by Howard Hinnant's algorithm: os.time would take the texts for local time.
local function days_of(year, month, day)
  if month <= 2 then year = year - 1 end
  local era = year // 400
  local of_era, of_year = year - era * 400, (153 * ((month + 9) % 12) + 2) // 5 + day - 1
  return era * 146097 + of_era * 365 + of_era // 4 - of_era // 100 + of_year - 719468
end

local function parse_time(text)
  local year, month, day, hour, minute, second, rest = text:match(TIME)
  if not year then return nil end
  local days = days_of(tonumber(year), tonumber(month), tonumber(day))
  local seconds = days * 86400 + tonumber(hour) * 3600 + tonumber(minute) * 60 + tonumber(second)
  return seconds * 1000 + (tonumber("0" .. rest) or 0) * 1000
end

local function time_of(row)
  local time = given(row.timestamp_ms) or given(row.request_time)
  if type(time) == "string" then return tonumber(time) or parse_time(time) end
  return type(time) == "number" and time or nil
end

local function is_within(wanted, counted, row)
  if not (wanted.since or wanted.before) then return true end
  local time = time_of(row)
  if not time then
    counted.timeless = counted.timeless + 1
    return false
  end
  return time >= (wanted.since or time) and time < (wanted.before or math.huge)
end

local function variant_of(wanted, row)
  local value = given(row[wanted.by[1]])
  for index = 2, #wanted.by do
    if type(value) == "string" then value = json.decode(value) end
    value = type(value) == "table" and given(value[wanted.by[index]]) or nil
  end
  if value == nil or value == "" or type(value) == "table" then return nil end
  return tostring(value)
end

---Whether a row is of a successful answer: of status 2xx, and of no error (a stream that broke has a good status).
---@param row table
---@return boolean
function rows.is_success(row)
  local status = number_of(row.status_code)
  return type(status) == "number" and status >= 200 and status < 300 and given(row.error_kind) == nil
end

local function add(its, row)
  its.requests = its.requests + 1
  if rows.is_success(row) then
    its.successes = its.successes + 1
    local duration = number_of(row.execution_time_ms) or number_of(row.execution_duration_ms)
    tally.add_time(its, "latency", duration, 1)
    tally.add_time(its, "ttft", number_of(row.ttft_ms), 1)
    tally.add_tokens(its.output_tokens, number_of(row.output_tokens))
  end
  tally.add_tokens(its.input_tokens, number_of(row.input_tokens))
end

---Nothing read yet.
---@return sluice.report.Counted
function rows.nothing()
  return { rows = 0, tallies = {}, nameless = 0, timeless = 0 }
end

---The tally of a variant, made at its first row.
---@param counted sluice.report.Counted
---@param name string
---@return sluice.report.Tally
function rows.tally_of(counted, name)
  local its = counted.tallies[name]
  if not its then
    its = tally.new()
    counted.tallies[name] = its
  end
  return its
end

---Calls variants by other names; each keeps its own tally.
---@param counted sluice.report.Counted
---@param names table<string, string>
function rows.rename(counted, names)
  local tallies = {}
  for name, its in pairs(counted.tallies) do tallies[names[name] or name] = its end
  counted.tallies = tallies
end

---Tallies rows.
---@param next_row fun(): table? raises err where it fails
---@param wanted sluice.report.Wanted
---@return sluice.report.Counted
function rows.read(next_row, wanted)
  local counted = rows.nothing()
  for row in next_row do
    if is_within(wanted, counted, row) then
      counted.rows = counted.rows + 1
      local name = variant_of(wanted, row)
      if not name then
        counted.nameless = counted.nameless + 1
      elseif given(row.cache_result) == "hit" then
        local its = rows.tally_of(counted, name)
        its.cached = its.cached + 1
      else
        add(rows.tally_of(counted, name), row)
      end
    end
  end
  return counted
end

return rows
