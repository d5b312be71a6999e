-- SPDX-License-Identifier: MIT
-- Where a Redis server is: redis://user:password@host:port/db, rediss:// for TLS, unix:/path?db=2.

local percent = require "sluice.url"
local secret = require "sluice.secret"

local url = {}

local DEFAULT_PORT <const> = 6379

---A server, as its URL says.
---@class sluice.redis.Place
---@field host? string a name or an IP address, without brackets
---@field port integer 6379
---@field path? string of a unix socket
---@field tls boolean
---@field db integer 0
---@field user? string
---@field password? sluice.Secret
---@field shown? string the URL without user and password, as url.show gives it

local function read_db(text)
  if text == nil or text == "" then return 0 end
  return text:match "^%d+$" and #text < 10 and math.tointeger(tonumber(text))
end

local function read_unix(rest)
  local path, query = rest:match "^([^?]*)%??(.*)$"
  path = percent.decode(path:gsub("^//", ""))
  if path:sub(1, 1) ~= "/" then return nil, "a unix socket is unix:/path" end
  local db = read_db(query:gsub("^db=", ""))
  if not db or (query ~= "" and not query:find "^db=") then
    return nil, "after the path only ?db=N can stand"
  end
  return { path = path, port = 0, tls = false, db = db }
end

local function read_login(login, place)
  if not login then return end
  local user, password = login:match "^([^:]*):?(.*)$"
  if user ~= "" then place.user = percent.decode(user) end
  if password ~= "" then place.password = secret.new(percent.decode(password)) end
end

local function read_address(text)
  local host, rest = text:match "^%[([%x:.]+)%](.*)$"
  if not host then host, rest = text:match "^([^:%[%]]*)(.*)$" end
  if host == "" then host = "127.0.0.1" end
  local port = rest == "" and DEFAULT_PORT or tonumber(rest:match "^:(%d+)$")
  if not host or not port or port < 1 or port > 65535 then return nil end
  return host, port
end

---The URL of a place, without user and password.
---@param place sluice.redis.Place
---@return string
function url.show(place)
  if place.path then return "unix:" .. place.path .. (place.db > 0 and "?db=" .. place.db or "") end
  local host = place.host:find(":", 1, true) and "[" .. place.host .. "]" or place.host
  return ("%s://%s:%d%s"):format(place.tls and "rediss" or "redis", host, place.port,
    place.db > 0 and "/" .. place.db or "")
end

---Reads such a URL. Never waits, and never shows what it was given: it may hold a password.
---@param text string
---@return sluice.redis.Place? place nil where it is none
---@return string? problem
function url.parse(text)
  local scheme, rest = text:match "^(%a+):(.*)$"
  scheme = scheme and scheme:lower()
  if scheme == "unix" then return read_unix(rest) end
  if scheme ~= "redis" and scheme ~= "rediss" then
    return nil, "it begins with redis://, rediss:// or unix:"
  end
  local authority, db = rest:match "^//([^/?#]*)/?([^?#]*)$"
  if not authority then return nil, "a query or a fragment has no meaning here" end
  local login, address = authority:match "^(.*)@(.*)$"
  local host, port = read_address(address or authority)
  if not host then return nil, "the host and its port cannot be read ([::1]:6379 for IPv6)" end
  local place = { host = host, port = port, tls = scheme == "rediss", db = read_db(db) }
  if not place.db then return nil, "after the host only the number of a database can stand" end
  read_login(login, place)
  return place
end

return url
