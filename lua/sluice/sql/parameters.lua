-- SPDX-License-Identifier: MIT
-- Values for the markers of a statement, as the wire has them.

local json = require "sluice.json"
local options = require "sluice.options"

local parameters = {}

local function number_text(value)
  if value ~= value then return "NaN" end
  if value == math.huge then return "Infinity" end
  if value == -math.huge then return "-Infinity" end
  return math.type(value) == "integer" and ("%d"):format(value) or json.encode(value)
end

local function type_of(value)
  if type(value) == "boolean" then return "BOOLEAN", tostring(value) end
  if type(value) == "string" then return "STRING", value end
  if math.type(value) == "integer" then return "BIGINT", number_text(value) end
  if math.type(value) == "float" then return "DOUBLE", number_text(value) end
  return nil
end

-- A value with the type that it shall have: { value = "2026-01-31", type = "DATE" }.
local function of_table(where, name, given)
  if type(given.type) ~= "string" then
    options.misuse('%s: option "parameters": %s has no type', where, name)
  end
  local value = given.value
  if value == nil or value == json.null then return given.type, json.null end
  local _, text = type_of(value)
  if not text then
    options.misuse('%s: option "parameters": %s is a %s', where, name, options.type_name(value))
  end
  return given.type, text
end

---The parameters of a request, in the order of their names. Raises for a value that has no type in SQL.
---@param where string the public name, for messages
---@param given table<string, any>? by name
---@return { name: string, type: string, value: string|lightuserdata }[]?
function parameters.of(where, given)
  if given == nil then return nil end
  local list = {}
  for name, value in pairs(given) do
    if type(name) ~= "string" then
      options.misuse('%s: option "parameters": values are given by name, got one at [%s]', where,
        tostring(name))
    end
    local kind, text
    if value == json.null then
      kind, text = "STRING", json.null
    elseif type(value) == "table" and options.type_name(value) == "table" then
      kind, text = of_table(where, name, value)
    else
      kind, text = type_of(value)
    end
    if not kind then
      options.misuse('%s: option "parameters": %s is a %s', where, name, options.type_name(value))
    end
    list[#list + 1] = { name = name, type = kind, value = text }
  end
  table.sort(list, function(a, b) return a.name < b.name end)
  return list
end

return parameters
