-- SPDX-License-Identifier: MIT
-- Header fields (RFC 9110, section 5): read by name in any case, kept in order, repeated ones kept.

local memo = require "sluice.memo"

local headers = {}

---@class sluice.Headers
---@field [string] string? the first value of the field, by its name in any case; assigning replaces all of them

local FIELDS = {} -- the private key under which an object keeps name, value, name, value, ...

-- Names in lower case. With them a look-up among some ten fields costs less than an index of them would.
local lower = memo.new(string.lower)

local metatable = { __name = "sluice.headers" }

local function fields_of(object)
  return rawget(object, FIELDS)
end

function metatable.__index(object, name)
  if type(name) ~= "string" then return nil end
  local fields, wanted = object[FIELDS], lower[name]
  for index = 1, #fields, 2 do
    if lower[fields[index]] == wanted then return fields[index + 1] end
  end
  return nil
end

function metatable.__newindex(object, name, value)
  local old, kept, wanted = fields_of(object), {}, lower[name]
  for index = 1, #old, 2 do
    if lower[old[index]] ~= wanted then
      kept[#kept + 1], kept[#kept + 2] = old[index], old[index + 1]
    end
  end
  if value ~= nil then kept[#kept + 1], kept[#kept + 2] = name, value end
  rawset(object, FIELDS, kept)
end

function metatable.__pairs(object)
  local fields, index = fields_of(object), -1
  return function()
    index = index + 2
    return fields[index], fields[index + 1]
  end
end

function metatable.__len(object)
  return #fields_of(object) // 2
end

-- In JSON, and so in a log line: the first value of each field by its name in lower case, secrets as `***`.
function metatable.__tojson(object)
  local map, fields = {}, fields_of(object)
  for index = 1, #fields, 2 do
    local name = lower[fields[index]]
    if map[name] == nil then map[name] = tostring(fields[index + 1]) end
  end
  return map
end

local function is_headers(value)
  return getmetatable(value) == metatable
end

local function add_field(fields, name, value)
  local count = #fields
  fields[count + 1], fields[count + 2] = name, value
end

local function add_pairs(fields, source)
  for name, value in pairs(source) do
    if type(value) == "table" and getmetatable(value) == nil then
      for _, one in ipairs(value) do add_field(fields, name, one) end
    else
      add_field(fields, name, value)
    end
  end
end

---Makes a header object from nothing, a map (a value may be an array of values), an array of
---`{ name, value }` pairs, or another header object (copied). Never waits.
---@param source? table
---@return sluice.Headers
function headers.new(source)
  local fields = {}
  if is_headers(source) then
    table.move(fields_of(source), 1, 2 * #source, 1, fields)
  elseif source and type(source[1]) == "table" then
    for _, field in ipairs(source) do add_field(fields, field[1], field[2]) end
  elseif source then
    add_pairs(fields, source)
  end
  return setmetatable({ [FIELDS] = fields }, metatable)
end

---Makes a header object of an array `{ name, value, name, value, ... }`, which becomes its own. Never waits.
---@param fields string[]
---@return sluice.Headers
function headers.adopt(fields)
  return setmetatable({ [FIELDS] = fields }, metatable)
end

---Whether the value is a header object.
---@param value any
---@return boolean
function headers.is(value)
  return is_headers(value)
end

---Adds a field and keeps those of the same name.
---@param object sluice.Headers
---@param name string
---@param value string|table a text, or a sluice.secret
function headers.add(object, name, value)
  add_field(fields_of(object), name, value)
end

---The fields as an array `{ name, value, name, value, ... }`: of a header object its own, which nobody may
---change.
---@param source table as for headers.new
---@return any[]
function headers.fields(source)
  return source[FIELDS] or fields_of(headers.new(source))
end

---All values of a field, in order; empty where there is none.
---@param object sluice.Headers
---@param name string
---@return string[]
function headers.all(object, name)
  local values, fields, wanted = {}, fields_of(object), lower[name]
  for index = 1, #fields, 2 do
    if lower[fields[index]] == wanted then values[#values + 1] = fields[index + 1] end
  end
  return values
end

---The fields in order, as an array of `{ name, value }` (a copy).
---@param object sluice.Headers
---@return { [1]: string, [2]: string }[]
function headers.list(object)
  local list, fields = {}, fields_of(object)
  for index = 1, #fields, 2 do list[#list + 1] = { fields[index], fields[index + 1] } end
  return list
end

return headers
