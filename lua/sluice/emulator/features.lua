-- SPDX-License-Identifier: MIT
-- What an endpoint has beside its config: tags, AI gateway, notifications, telemetry, and how requests change them.

local gateway = require "sluice.emulator.gateway"
local json = require "sluice.json"
local view = require "sluice.emulator.view"
local wire = require "sluice.emulator.wire"

local features = {}

local function read_tag(tag)
  if not wire.is_object(tag) or type(tag.key) ~= "string" or tag.key == "" then
    return wire.invalid("A tag needs a key.")
  end
  local value = wire.given(tag.value)
  if value ~= nil and type(value) ~= "string" then return wire.invalid("A tag's value must be a string.") end
  return { key = tag.key, value = value }
end

-- Adds tags to a copy of those there are; a key that is there gets the new value.
local function merged_tags(tags, added)
  if not wire.is_list(added) then return wire.invalid("tags must be a list.") end
  local made, place = json.array {}, {}
  local function put(tag)
    local at = place[tag.key] or #made + 1
    made[at], place[tag.key] = tag, at
  end
  for _, tag in ipairs(tags) do put(tag) end
  for _, each in ipairs(added) do
    local tag, refusal = read_tag(each)
    if not tag then return nil, refusal end
    put(tag)
  end
  return made
end

local function read_addresses(value)
  if not wire.is_object(value) then return wire.invalid("email_notifications must be an object.") end
  local made = {}
  for _, key in ipairs { "on_update_success", "on_update_failure" } do
    local list = wire.given(value[key])
    if list ~= nil and not wire.is_list(list) then
      return wire.invalid("email_notifications.%s must be a list.", key)
    end
    for _, address in ipairs(list or {}) do
      if type(address) ~= "string" then
        return wire.invalid("email_notifications.%s must hold strings.", key)
      end
    end
    made[key] = list
  end
  return made
end

local telemetry_features = {}
for _, name in ipairs { "INFERENCE_TABLE", "LOGS", "METRICS", "TRACES" } do
  telemetry_features["TELEMETRY_FEATURE_" .. name] = true
end

-- The names of the tables become a profile, and do not come back.
local function read_telemetry(value)
  if not wire.is_object(value) then return wire.invalid("telemetry_config must be an object.") end
  local list = wire.given(value.enabled_telemetry_features)
  for _, name in ipairs(type(list) == "table" and list or {}) do
    if not telemetry_features[name] then
      return wire.invalid("The telemetry feature %s is unknown.", tostring(name))
    end
  end
  return {
    enabled_telemetry_features = list,
    inference_table_config = wire.given(value.inference_table_config),
    telemetry_profile_id = wire.given(value.telemetry_profile_id)
      or wire.given(value.table_names) and wire.uuid() or nil,
  }
end

local export_states = { FIRST_PARTY_EXPORT_ENABLED = true, FIRST_PARTY_EXPORT_DISABLED = true }

local function read_export(value)
  if export_states[value] then return value end
  return wire.invalid("uc_system_metrics_export_state %s is unknown.", tostring(value))
end

local function read_text(name)
  return function(value)
    if type(value) == "string" then return value end
    return wire.invalid("%s must be a string.", name)
  end
end

local create_readers = {
  ai_gateway = gateway.read,
  rate_limits = gateway.read_old_limits,
  email_notifications = read_addresses,
  tags = function(value) return merged_tags({}, value) end,
  telemetry_config = read_telemetry,
  uc_system_metrics_export_state = read_export,
  budget_policy_id = read_text "budget_policy_id",
  description = read_text "description",
}

---The parts of a create request beside name and config.
---@param body table
---@return table|nil record
---@return sluice.emulator.refusal|nil
function features.of_create(body)
  local record = { description = "" }
  for key, read in pairs(create_readers) do
    local value = wire.given(body[key])
    if value ~= nil then
      local made, refusal = read(value)
      if not made then return nil, refusal end
      record[key] = made
    end
  end
  record.route_optimized = wire.given(body.route_optimized) == true
  return record
end

-- Endpoints without a config and those of external models have no telemetry.
local function has_telemetry(record)
  local version = record.live or record.pending or record.failed
  local first = version and version.config.served_entities[1]
  return first ~= nil and first.external_model == nil
end

---Drops from a new record what its kind does not have, as the service does, without a word.
---@param record table
function features.drop_unsupported(record)
  if not has_telemetry(record) then record.telemetry_config = nil end
end

---PATCH tags: adds, changes and deletes.
---@param record table
---@param body table `add_tags`, `delete_tags`
---@return table|nil answer
---@return sluice.emulator.refusal|nil
function features.patch_tags(record, body)
  local tags, refusal = merged_tags(record.tags or {}, wire.given(body.add_tags) or json.array {})
  if not tags then return nil, refusal end
  local gone = wire.given(body.delete_tags) or json.array {}
  if not wire.is_list(gone) then return wire.invalid("delete_tags must be a list.") end
  local deleted = {}
  for _, key in ipairs(gone) do deleted[key] = true end
  local kept = json.array {}
  for _, tag in ipairs(tags) do
    if not deleted[tag.key] then kept[#kept + 1] = tag end
  end
  record.tags = kept
  return { tags = kept }
end

---PUT rate-limits.
---@param record table
---@param body table
---@return table|nil answer
---@return sluice.emulator.refusal|nil
function features.put_rate_limits(record, body)
  local limits, refusal = gateway.read_old_limits(wire.given(body.rate_limits) or json.array {})
  if not limits then return nil, refusal end
  record.rate_limits = limits
  return { rate_limits = limits }
end

---PUT ai-gateway; an empty body takes it away.
---@param record table
---@param body table
---@return table|nil answer
---@return sluice.emulator.refusal|nil
function features.put_ai_gateway(record, body)
  local made, refusal = gateway.read(body, record.ai_gateway)
  if not made then return nil, refusal end
  record.ai_gateway = next(made) ~= nil and made or nil
  return made
end

---PATCH notifications.
---@param record table
---@param body table
---@return table|nil answer
---@return sluice.emulator.refusal|nil
function features.patch_notifications(record, body)
  local made, refusal = read_addresses(wire.given(body.email_notifications) or {})
  if not made then return nil, refusal end
  record.email_notifications = next(made) ~= nil and made or nil
  return { name = record.name, email_notifications = made }
end

---PATCH telemetry-config; without one it is removed.
---@param record table
---@param body table
---@return table|nil record
---@return sluice.emulator.refusal|nil
function features.patch_telemetry(record, body)
  if not has_telemetry(record) then
    return wire.invalid("Endpoint '%s' is of a kind that has no telemetry.", record.name)
  end
  if view.state(record).config_update == "IN_PROGRESS" then
    return wire.refuse(409, "RESOURCE_CONFLICT", "Endpoint '%s' is being updated.", record.name)
  end
  local value = wire.given(body.telemetry_config)
  if value == nil then
    record.telemetry_config = nil
    return record
  end
  local made, refusal = read_telemetry(value)
  if not made then return nil, refusal end
  record.telemetry_config = made
  return record
end

---PATCH system-metrics-export-state.
---@param record table
---@param body table
---@return table|nil record
---@return sluice.emulator.refusal|nil
function features.patch_export(record, body)
  local made, refusal = read_export(wire.given(body.uc_system_metrics_export_state))
  if not made then return nil, refusal end
  record.uc_system_metrics_export_state = made
  return record
end

return features
