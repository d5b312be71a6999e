-- SPDX-License-Identifier: MIT
-- Who may do what with an endpoint: its access control list, kept in its record and reached by its id.

local json = require "sluice.json"
local wire = require "sluice.emulator.wire"

local permissions = {}

local levels = {
  { "CAN_MANAGE", "Can manage the serving endpoint" },
  { "CAN_QUERY", "Can query the serving endpoint" },
  { "CAN_VIEW", "Can view the serving endpoint" },
}

local known = {}
for _, level in ipairs(levels) do known[level[1]] = true end

local principal_keys = { "user_name", "group_name", "service_principal_name" }

local function principal_of(entry)
  for _, key in ipairs(principal_keys) do
    local value = wire.given(entry[key])
    if value ~= nil then return key, value end
  end
end

local function read_entry(entry)
  if not wire.is_object(entry) then return wire.invalid("access_control_list must hold objects.") end
  local key, name = principal_of(entry)
  if type(name) ~= "string" or name == "" then
    return wire.invalid("An entry needs one of user_name, group_name and service_principal_name.")
  end
  for _, other in ipairs(principal_keys) do
    if other ~= key and wire.given(entry[other]) ~= nil then
      return wire.invalid("An entry names a user, a group or a service principal, not two of them.")
    end
  end
  local level = wire.given(entry.permission_level)
  if not known[level] then return wire.invalid("permission_level %s is unknown.", tostring(level)) end
  return { key = key, name = name, level = level }
end

-- Adds entries to a copy of those there are; whoever is there gets the new level.
local function merged(acl, body)
  local list = wire.given(body.access_control_list) or json.array {}
  if not wire.is_list(list) then return wire.invalid("access_control_list must be a list.") end
  local made, place = json.array {}, {}
  local function put(entry)
    local id = entry.key .. "\0" .. entry.name
    local at = place[id] or #made + 1
    made[at], place[id] = entry, at
  end
  for _, entry in ipairs(acl) do put(entry) end
  for _, each in ipairs(list) do
    local entry, refusal = read_entry(each)
    if not entry then return nil, refusal end
    put(entry)
  end
  return made
end

-- Whoever made an endpoint manages it, until somebody says otherwise.
local function acl_of(record)
  return record.acl or json.array { { key = "user_name", name = wire.user, level = "CAN_MANAGE" } }
end

local function shown(entry, parent)
  local permission = { permission_level = entry.level, inherited = parent ~= nil }
  permission.inherited_from_object = parent and json.array { parent } or nil
  return {
    [entry.key] = entry.name,
    display_name = entry.name,
    all_permissions = json.array { permission },
  }
end

---The permissions of an endpoint. Those of the workspace's admins are inherited, and stay.
---@param record table
---@return table
function permissions.get(record)
  local list = json.array {}
  for index, entry in ipairs(acl_of(record)) do list[index] = shown(entry) end
  local admins = { key = "group_name", name = "admins", level = "CAN_MANAGE" }
  list[#list + 1] = shown(admins, "/serving-endpoints/")
  return {
    object_id = "/serving-endpoints/" .. record.id,
    object_type = "serving-endpoint",
    access_control_list = list,
  }
end

---PUT: replaces the list.
---@param record table
---@param body table
---@return table|nil answer
---@return sluice.emulator.refusal|nil
function permissions.set(record, body)
  local acl, refusal = merged({}, body)
  if not acl then return nil, refusal end
  record.acl = acl
  return permissions.get(record)
end

---PATCH: adds to the list.
---@param record table
---@param body table
---@return table|nil answer
---@return sluice.emulator.refusal|nil
function permissions.update(record, body)
  local acl, refusal = merged(acl_of(record), body)
  if not acl then return nil, refusal end
  record.acl = acl
  return permissions.get(record)
end

---The levels there are.
---@return table
function permissions.levels()
  local list = json.array {}
  for index, level in ipairs(levels) do
    list[index] = { permission_level = level[1], description = level[2] }
  end
  return { permission_levels = list }
end

return permissions
