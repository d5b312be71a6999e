-- SPDX-License-Identifier: MIT
-- A token as programs print it and files hold it: alone, or in a JSON object that tells its end.

local base64 = require "sluice.base64"
local json = require "sluice.json"
local secret = require "sluice.secret"
local task = require "sluice.task"

local token_text = {}

local NAMES <const> = { "access_token", "accessToken", "token" }

-- Seconds since 1970 of a day (Howard Hinnant's algorithm, exact for the Gregorian calendar).
local function seconds_of_day(year, month, day)
  if month <= 2 then year, month = year - 1, month + 12 end
  local era_day = 365 * year + year // 4 - year // 100 + year // 400 + (153 * (month - 3) + 2) // 5 + day - 1
  return (era_day - 719468) * 86400
end

-- RFC 3339; nil for anything else. Fractions are dropped, which is early rather than late.
local function seconds_of(text)
  local year, month, day, hour, minute, second, zone =
    text:match "^(%d%d%d%d)-(%d%d)-(%d%d)[Tt ](%d%d):(%d%d):(%d%d)%.?%d*(.*)$"
  if not year then return nil end
  local sign, hours, minutes = zone:match "^([+-])(%d%d):(%d%d)$"
  if not sign and zone:upper() ~= "Z" then return nil end
  local offset = sign and (tonumber(hours) * 3600 + tonumber(minutes) * 60) * (sign == "-" and -1 or 1) or 0
  local of_day = tonumber(hour) * 3600 + tonumber(minute) * 60 + tonumber(second)
  return seconds_of_day(math.tointeger(year), math.tointeger(month), math.tointeger(day)) + of_day - offset
end

local function positive(seconds)
  return seconds and seconds == seconds and seconds < math.huge and math.max(seconds, 0) or nil
end

local function until_moment(moment)
  return moment and positive(moment - task.wall())
end

-- `expires_in` (seconds), `expires_on` (seconds since 1970, as az writes it), `expiry` (a date, as the
-- databricks program writes it).
local function lifetime_in(object)
  if object.expires_in ~= nil then return positive(tonumber(object.expires_in)) end
  if object.expires_on ~= nil then return until_moment(tonumber(object.expires_on)) end
  local date = object.expiry or object.expiration or object.expirationTimestamp
  return type(date) == "string" and until_moment(seconds_of(date)) or nil
end

-- A JSON web token names its end (RFC 7519, section 4.1.4).
local function lifetime_of_jwt(text)
  local payload = text:match "^[%w_-]+%.([%w_-]+)%.[%w_-]*$"
  if not payload then return nil end
  -- of the alphabet for URLs, without padding
  payload = payload:gsub("-", "+"):gsub("_", "/") .. ("="):rep(-#payload % 4)
  local bytes = base64.decode(payload)
  local claims = bytes and json.decode(bytes)
  return type(claims) == "table" and type(claims.exp) == "number" and until_moment(claims.exp) or nil
end

local function from_object(text)
  local object = json.decode(text)
  if type(object) ~= "table" then return nil, "it begins with { and is no JSON object" end
  for _, name in ipairs(NAMES) do
    if type(object[name]) == "string" then return object[name], lifetime_in(object) end
  end
  return nil, "the JSON object has no access_token, accessToken or token"
end

---Reads a token. The reason of a refusal never quotes the text. Never waits.
---@param text string
---@return sluice.auth.Token?
---@return string? reason
function token_text.parse(text)
  text = text:match "^%s*(.*%S)" or ""
  if text == "" then return nil, "it is empty" end
  local lifetime
  if text:byte() == 0x7B then
    text, lifetime = from_object(text)
    if not text then return nil, lifetime end
  end
  if not text:find "^[\33-\126]+$" then return nil, "it is no token: blanks, several lines or other bytes" end
  return { value = secret.new(text), type = "Bearer", lifetime = lifetime or lifetime_of_jwt(text) }
end

return token_text
