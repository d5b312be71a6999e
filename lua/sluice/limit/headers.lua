-- SPDX-License-Identifier: MIT
-- What header fields say of a server's rate limits: x-ratelimit-*, anthropic-ratelimit-*, and the IETF's RateLimit.

local http_headers = require "sluice.headers"
local memo = require "sluice.memo"

local headers = {}

-- A number of at least this many seconds is a date (GitHub's X-RateLimit-Reset).
local EPOCH = 1e9

local UNITS = { h = 3600, m = 60, s = 1, ms = 1e-3, us = 1e-6, ["µs"] = 1e-6, ns = 1e-9 }

-- "1s", "6m0s", "12ms", "1h2m3.5s".
local function duration(text)
  local seconds, at = 0, 1
  while at <= #text do
    local number, unit, after = text:match("^(%d+%.?%d*)([hmsun\194\181]+)()", at)
    local scale = UNITS[unit]
    if not scale then return nil end
    seconds, at = seconds + tonumber(number) * scale, after
  end
  return at > 1 and seconds or nil
end

-- Days since 1970 of a date of the Gregorian calendar.
local function days_of(year, month, day)
  if month <= 2 then year, month = year - 1, month + 12 end
  return 365 * year + year // 4 - year // 100 + year // 400 + (153 * month - 457) // 5 + day - 719469
end

-- "2026-01-01T00:00:00Z", with a fraction or an offset.
local function date(text)
  local form = "^(%d%d%d%d)-(%d%d)-(%d%d)[Tt ](%d%d):(%d%d):(%d%d%.?%d*)(.*)$"
  local y, mo, d, h, mi, s, zone = text:match(form)
  if not y then return nil end
  local offset = 0
  if zone:upper() ~= "Z" then
    local sign, hours, minutes = zone:match "^([+-])(%d%d):?(%d%d)$"
    if not sign then return nil end
    offset = (sign == "-" and -1 or 1) * (tonumber(hours) * 3600 + tonumber(minutes) * 60)
  end
  local days = days_of(tonumber(y), tonumber(mo), tonumber(d))
  return days * 86400 + tonumber(h) * 3600 + tonumber(mi) * 60 + tonumber(s) - offset
end

---How many seconds from now a reset is: a number of seconds, a duration ("6m0s"), a date.
---@param text string
---@param wall number seconds since 1970
---@return number? seconds at least 0; nil for what is none of these
function headers.reset(text, wall)
  local plain = text:match "^%s*(%d+%.?%d*)%s*$"
  local seconds = plain and tonumber(plain)
  if seconds and seconds >= EPOCH then seconds = seconds - wall end
  if not seconds then seconds = duration(text) end
  if not seconds then
    local at = date(text)
    seconds = at and at - wall
  end
  return seconds and math.max(0, seconds)
end

-- Where each form has its limit, what is left and the reset.
local FORMS = {
  { "requests", "x-ratelimit-limit-requests", "x-ratelimit-remaining-requests",
    "x-ratelimit-reset-requests" },
  { "tokens", "x-ratelimit-limit-tokens", "x-ratelimit-remaining-tokens", "x-ratelimit-reset-tokens" },
  { "requests", "anthropic-ratelimit-requests-limit", "anthropic-ratelimit-requests-remaining",
    "anthropic-ratelimit-requests-reset" },
  { "tokens", "anthropic-ratelimit-tokens-limit", "anthropic-ratelimit-tokens-remaining",
    "anthropic-ratelimit-tokens-reset" },
  { "requests", "x-ratelimit-limit", "x-ratelimit-remaining", "x-ratelimit-reset" },
  { "requests", "ratelimit-limit", "ratelimit-remaining", "ratelimit-reset" },
}

-- The name of a field of rate limits in lower case; false for any other.
local limit_name = memo.new(function(name)
  local lower = type(name) == "string" and name:lower()
  return lower and lower:find("ratelimit", 1, true) and lower or false
end)

-- The fields of rate limits by their names in lower case; nil where there is none.
local function collect(fields)
  local flat, found = http_headers.fields(fields), nil
  for index = 1, #flat, 2 do
    local name, value = limit_name[flat[index]], flat[index + 1]
    if name and type(value) == "string" then
      found = found or {}
      found[name] = found[name] or value
    end
  end
  return found
end

local function count_of(text)
  local digits = text and text:match "^%s*(%d+)"
  return digits and tonumber(digits)
end

local function add_form(facts, found, form, wall)
  local left, reset = count_of(found[form[3]]), found[form[4]]
  reset = reset and headers.reset(reset, wall)
  if not left or not reset then return end
  facts[#facts + 1] = {
    name = form[3], quantity = form[1], limit = count_of(found[form[2]]), left = left, reset = reset,
  }
end

-- The newest form: RateLimit: "name";r=50;t=30, ...; RateLimit-Policy: "name";q=100;w=60, ...
local function add_items(facts, found)
  local limits = {}
  for name, parameters in (found["ratelimit-policy"] or ""):gmatch '"?([%w_.-]+)"?;([^,]*)' do
    limits[name] = tonumber(parameters:match "q=(%d+)")
  end
  for name, parameters in (found["ratelimit"] or ""):gmatch '"?([%w_.-]+)"?;([^,]*)' do
    local left, reset = tonumber(parameters:match "r=(%d+)"), tonumber(parameters:match "t=(%d+)")
    if left and reset then
      facts[#facts + 1] = {
        name = "ratelimit " .. name, quantity = "requests", limit = limits[name], left = left, reset = reset,
      }
    end
  end
end

---What the fields say is left of each limit; those that say less than what is left and when it is whole
---again are passed over, as is what is no number (`-1`). Never waits.
---@param fields table a header object, or a map
---@param clock fun(): number seconds since 1970
---@return sluice.limit.Fact[]? facts nil where there are none
function headers.read(fields, clock)
  local found = collect(fields)
  if not found then return nil end
  local facts, wall = {}, clock()
  for _, form in ipairs(FORMS) do add_form(facts, found, form, wall) end
  add_items(facts, found)
  return #facts > 0 and facts or nil
end

return headers
