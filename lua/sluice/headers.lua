-- SPDX-License-Identifier: MIT
-- Header fields (RFC 9110, section 5): read by name in any case, kept in order, repeated ones kept.

local headers = {}

---@class sluice.Headers
---@field [string] string? the first value of the field, by its name in any case; assigning replaces all of them

local FIELDS = {} -- the private key under which an object keeps its array of { name, value }

local metatable = { __name = "sluice.headers" }

local function fields_of(object)
  return rawget(object, FIELDS)
end

function metatable.__index(object, name)
  if type(name) ~= "string" then return nil end
  name = name:lower()
  for _, field in ipairs(fields_of(object)) do
    if field[1]:lower() == name then return field[2] end
  end
  return nil
end

function metatable.__newindex(object, name, value)
  local fields, wanted = fields_of(object), name:lower()
  local placed = value == nil
  for index = #fields, 1, -1 do
    if fields[index][1]:lower() == wanted then table.remove(fields, index) end
  end
  if not placed then fields[#fields + 1] = { name, value } end
end

local function next_field(fields, state)
  local index = state.index + 1
  local field = fields[index]
  state.index = index
  if field then return field[1], field[2] end
  return nil
end

function metatable.__pairs(object)
  local state = { index = 0 }
  local fields = fields_of(object)
  return function() return next_field(fields, state) end
end

function metatable.__len(object)
  return #fields_of(object)
end

-- In JSON, and so in a log line: the first value of each field by its name in lower case, secrets as `***`.
function metatable.__tojson(object)
  local map = {}
  for _, field in ipairs(fields_of(object)) do
    local name = field[1]:lower()
    if map[name] == nil then map[name] = tostring(field[2]) end
  end
  return map
end

local function is_headers(value)
  return getmetatable(value) == metatable
end

local function add_pairs(fields, source)
  for name, value in pairs(source) do
    if type(value) == "table" and getmetatable(value) == nil then
      for _, one in ipairs(value) do fields[#fields + 1] = { name, one } end
    else
      fields[#fields + 1] = { name, value }
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
    for _, field in ipairs(fields_of(source)) do fields[#fields + 1] = { field[1], field[2] } end
  elseif source and type(source[1]) == "table" then
    for _, field in ipairs(source) do fields[#fields + 1] = { field[1], field[2] } end
  elseif source then
    add_pairs(fields, source)
  end
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
  local fields = fields_of(object)
  fields[#fields + 1] = { name, value }
end

---All values of a field, in order; empty where there is none.
---@param object sluice.Headers
---@param name string
---@return string[]
function headers.all(object, name)
  local values, wanted = {}, name:lower()
  for _, field in ipairs(fields_of(object)) do
    if field[1]:lower() == wanted then values[#values + 1] = field[2] end
  end
  return values
end

---The fields in order, as an array of `{ name, value }` (a copy).
---@param object sluice.Headers
---@return { [1]: string, [2]: string }[]
function headers.list(object)
  local list = {}
  for index, field in ipairs(fields_of(object)) do list[index] = { field[1], field[2] } end
  return list
end

return headers
