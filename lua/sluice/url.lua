-- SPDX-License-Identifier: MIT
-- Texts in URLs: percent-encoding (RFC 3986, 2.1), queries and the bodies of forms.

local options = require "sluice.options"
local secret = require "sluice.secret"

local url = {}

local function hex(byte)
  return ("%%%02X"):format(byte:byte())
end

---Percent-encodes every byte but letters, digits and `-._~`: for one part of a path, one name or
---value of a query. Never waits.
---@param text string
---@return string
function url.encode(text)
  return (text:gsub("[^%w%-._~]", hex))
end

---Undoes url.encode; a `%` that begins no byte stays. Never waits.
---@param text string
---@return string
function url.decode(text)
  return (text:gsub("%%(%x%x)", function(digits) return string.char(tonumber(digits, 16)) end))
end

local function text_of(where, name, value)
  value = secret.reveal(value)
  local kind = type(value)
  if kind == "string" then return value end
  if kind == "number" or kind == "boolean" then return tostring(value) end
  local text = '%s: "%s" must be a string, a number, a boolean, a sluice.secret or an array of these, got %s'
  options.misuse(text, where, tostring(name), kind)
end

local function add(pairs_, where, name, value)
  if type(name) ~= "string" then
    options.misuse("%s: names are strings, got a %s", where, type(name))
  end
  if type(value) == "table" and not secret.is(value) then
    for _, one in ipairs(value) do pairs_[#pairs_ + 1] = { name, text_of(where, name, one) } end
  else
    pairs_[#pairs_ + 1] = { name, text_of(where, name, value) }
  end
end

local function by_name(a, b)
  return tostring(a) < tostring(b)
end

---The names and values of a table as an array of { name, text }: of a map in the order of the
---names, so that the same table gives the same bytes; an array of { name, value } keeps its order.
---@param where string for messages
---@param fields table
---@return string[][]
function url.list(where, fields)
  local list = {}
  if type(fields[1]) == "table" then
    for _, field in ipairs(fields) do add(list, where, field[1], field[2]) end
    return list
  end
  local names = {}
  for name in pairs(fields) do names[#names + 1] = name end
  table.sort(names, by_name)
  for _, name in ipairs(names) do add(list, where, name, fields[name]) end
  return list
end

local function join(list, encode)
  local parts = {}
  for index, field in ipairs(list) do parts[index] = encode(field[1]) .. "=" .. encode(field[2]) end
  return table.concat(parts, "&")
end

---A query without its question mark: `name=value&name=value`. A value may be an array, which
---repeats its name. Never waits; raises for what has no text.
---@param fields table a map, or an array of { name, value } where the order counts
---@return string
function url.query(fields)
  return join(url.list("query", fields), url.encode)
end

local function encode_form(text)
  return (url.encode(text):gsub("%%20", "+"))
end

---The body of a form (application/x-www-form-urlencoded): as url.query, with `+` for a space.
---@param fields table
---@return string
function url.form(fields)
  return join(url.list("form", fields), encode_form)
end

---A URL with more in its query. Never waits.
---@param text string the URL; its own query stays, its fragment too
---@param fields table see url.query
---@return string
function url.with_query(text, fields)
  local query = url.query(fields)
  if query == "" then return text end
  local before, fragment = text:match "^([^#]*)(.*)$"
  local mark = not before:find("?", 1, true) and "?" or before:find "[?&]$" and "" or "&"
  return before .. mark .. query .. fragment
end

return url
