-- SPDX-License-Identifier: MIT
-- Reads what an AI gateway and rate limits may say.

local json = require "sluice.json"
local wire = require "sluice.emulator.wire"

local gateway = {}

local function set(...)
  local members = {}
  for _, word in ipairs { ... } do members[word] = true end
  return members
end

local limit_keys = set("user", "endpoint", "user_group", "service_principal")
local old_limit_keys = set("user", "endpoint")
local pii_behaviours = set("NONE", "BLOCK", "MASK")

local function read_amounts(limit, made, what)
  for _, key in ipairs { "calls", "tokens" } do
    local value = wire.given(limit[key])
    made[key] = wire.integer(value)
    if value ~= nil and (not made[key] or made[key] < 0) then
      return wire.invalid("%s.%s must be a whole number of at least 0.", what, key)
    end
  end
  return made
end

local function read_limit(limit, keys, what)
  if not wire.is_object(limit) then return wire.invalid("%s must hold objects.", what) end
  if limit.renewal_period ~= "minute" then return wire.invalid("%s.renewal_period must be minute.", what) end
  local key = wire.given(limit.key) or "endpoint"
  if not keys[key] then return wire.invalid("%s.key %s is unknown.", what, tostring(key)) end
  local principal = wire.given(limit.principal)
  local needed = key == "user_group" or key == "service_principal"
  if needed and type(principal) ~= "string" then
    return wire.invalid("%s.principal is required with the key %s.", what, key)
  end
  local made = { renewal_period = "minute", key = key, principal = needed and principal or nil }
  return read_amounts(limit, made, what)
end

local function read_list(list, read)
  if not wire.is_list(list) then return nil end
  local made = json.array {}
  for index, each in ipairs(list) do
    local one, refusal = read(each)
    if not one then return nil, refusal end
    made[index] = one
  end
  return made
end

---Reads the `rate_limits` of an AI gateway.
---@param list any
---@return table[]|nil limits
---@return sluice.emulator.refusal|nil
function gateway.read_limits(list)
  local what = "ai_gateway.rate_limits"
  local made, refusal = read_list(list, function(limit)
    local one, why = read_limit(limit, limit_keys, what)
    if one and not one.calls and not one.tokens then
      return wire.invalid("%s needs calls or tokens.", what)
    end
    return one, why
  end)
  if made then return made end
  return nil, refusal or select(2, wire.invalid("%s must be a list.", what))
end

---Reads the older `rate_limits` of an endpoint, which count calls only.
---@param list any
---@return table[]|nil limits
---@return sluice.emulator.refusal|nil
function gateway.read_old_limits(list)
  local made, refusal = read_list(list, function(limit)
    local one, why = read_limit(limit, old_limit_keys, "rate_limits")
    if one and not one.calls then return wire.invalid("rate_limits.calls is required.") end
    return one, why
  end)
  if made then return made end
  return nil, refusal or select(2, wire.invalid("rate_limits must be a list."))
end

local function check_switch(value, what)
  if not wire.is_object(value) or type(value.enabled) ~= "boolean" then
    return wire.invalid("ai_gateway.%s.enabled must be a boolean.", what)
  end
  return value
end

local function check_guardrails(value)
  if not wire.is_object(value) then return wire.invalid("ai_gateway.guardrails must be an object.") end
  for _, side in ipairs { "input", "output" } do
    local rails = wire.given(value[side]) or {}
    if not wire.is_object(rails) then
      return wire.invalid("ai_gateway.guardrails.%s must be an object.", side)
    end
    local pii = wire.given(rails.pii)
    if pii ~= nil and not (wire.is_object(pii) and pii_behaviours[pii.behavior]) then
      return wire.invalid("ai_gateway.guardrails.%s.pii.behavior must be NONE, BLOCK or MASK.", side)
    end
  end
  return value
end

local table_names = { "catalog_name", "schema_name", "table_name_prefix" }

-- A table that is being written to keeps its name.
local function check_table(value, before)
  local ok, refusal = check_switch(value, "inference_table_config")
  if not ok then return nil, refusal end
  local running = before and before.enabled
  for _, key in ipairs(table_names) do
    if running and value.enabled and wire.given(value[key]) ~= before[key] then
      return wire.invalid("ai_gateway.inference_table_config must be disabled before its names can change.")
    end
  end
  return value
end

local readers = {
  fallback_config = function(value) return check_switch(value, "fallback_config") end,
  usage_tracking_config = function(value) return check_switch(value, "usage_tracking_config") end,
  guardrails = check_guardrails,
  rate_limits = gateway.read_limits,
  inference_table_config = check_table,
}

---Reads an AI gateway config; keys that are not known are left out.
---@param value any
---@param before table|nil the config until now
---@return table|nil config
---@return sluice.emulator.refusal|nil
function gateway.read(value, before)
  if not wire.is_object(value) then return wire.invalid("ai_gateway must be an object.") end
  local made = {}
  for key, read in pairs(readers) do
    local part = wire.given(value[key])
    if part ~= nil then
      local one, refusal = read(part, before and before[key])
      if not one then return nil, refusal end
      made[key] = one
    end
  end
  return made
end

return gateway
