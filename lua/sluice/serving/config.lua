-- SPDX-License-Identifier: MIT
-- Reading the config of a serving endpoint, and making one that can be sent from one that was read.

local config = {}

---The value where it is a table, else an empty one.
---@param value any
---@return table
function config.table_of(value)
  return type(value) == "table" and value or {}
end

local table_of = config.table_of

---The value, or nil for JSON's null.
---@generic T
---@param value T
---@return T?
function config.given(value)
  if type(value) == "userdata" then return nil end
  return value
end

local given = config.given

---The served entities of a config, in either of the API's two forms: tables only.
---@param part any a config, a pending config
---@return table[]
function config.entities(part)
  local list = {}
  for _, key in ipairs { "served_entities", "served_models" } do
    for _, entity in ipairs(table_of(table_of(part)[key])) do
      if type(entity) == "table" then list[#list + 1] = entity end
    end
    if #list > 0 then break end -- the service may tell the same entities in both forms
  end
  return list
end

-- What the service adds to an entity, and does not take.
local OUTPUT_ONLY = { creator = true, creation_timestamp = true, state = true, foundation_model = true }

local function as_input(output)
  local input = {}
  for key, value in pairs(table_of(output)) do
    if not OUTPUT_ONLY[key] then input[key] = value end
  end
  return input
end

---Whether the body of an update says what is to be served.
---@param body table
---@return boolean
function config.names_entities(body)
  return given(body.served_entities) ~= nil or given(body.served_models) ~= nil
end

---The body of an update with what it leaves out filled in from the live config, because the service puts the body
---in place of all of it: the served entities, the traffic, the table of answers (which cannot be switched on again).
---@param body table names no entities
---@param live any `config` of the endpoint
---@return table copy
function config.completed(body, live)
  local full = {}
  for key, value in pairs(body) do full[key] = value end
  live = table_of(live)
  local key = #table_of(live.served_entities) > 0 and "served_entities" or "served_models"
  full.served_entities, full.served_models = nil, nil
  for index, entity in ipairs(config.entities(live)) do
    full[key] = full[key] or {}
    full[key][index] = as_input(entity)
  end
  if given(full.traffic_config) == nil then full.traffic_config = given(live.traffic_config) end
  if given(full.auto_capture_config) == nil and given(live.auto_capture_config) ~= nil then
    full.auto_capture_config = as_input(live.auto_capture_config)
  end
  return full
end

return config
