-- SPDX-License-Identifier: MIT
-- The store of serving endpoints and their states.
--
-- Nothing ticks: an endpoint knows when its deployment will be done, and its state is worked out when it is looked at.
-- So the states move with whatever clock is running, the simulated one too.

local config = require "sluice.emulator.config"
local json = require "sluice.json"
local wire = require "sluice.emulator.wire"

local endpoints = {}

local creator <const> = "emulator@sluice.invalid"

local methods = {}
local metatable = { __index = methods, __name = "sluice.emulator.endpoints" }

---A store.
---@param options table `deploy_time` (seconds), `now` (fun(): number, seconds of the running clock), `task_of` (fun(entity): string|nil)
---@return table store
function endpoints.new(options)
  return setmetatable({
    deploy_time = options.deploy_time,
    now = options.now,
    task_of = options.task_of,
    by_name = {},
    order = {},
  }, metatable)
end

-- Ends an update whose time has come: the pending config is the live one from then on.
local function settle(self, record)
  local pending = record.pending
  if pending and self.now() >= pending.ready_at then
    record.live, record.pending = pending, nil
  end
  return record
end

local function find(self, name)
  local record = self.by_name[name]
  if not record then
    return wire.refuse(404, "RESOURCE_DOES_NOT_EXIST", "Endpoint with name '%s' does not exist.", name)
  end
  return settle(self, record)
end

local function entity_output(entity, version, ready)
  local out = {}
  for key, value in pairs(entity) do out[key] = value end
  out.creator, out.creation_timestamp = creator, version.start_time
  out.state = {
    deployment = ready and "DEPLOYMENT_READY" or "DEPLOYMENT_CREATING",
    deployment_state_message = ready and "" or "Creating resources for served entity.",
  }
  return out
end

local function config_output(version, ready)
  local entities = json.array {}
  for index, entity in ipairs(version.config.served_entities) do
    entities[index] = entity_output(entity, version, ready)
  end
  return {
    served_entities = entities,
    traffic_config = version.config.traffic_config,
    auto_capture_config = version.config.auto_capture_config,
    config_version = version.number,
  }
end

local function state_of(record)
  return {
    ready = record.live and "READY" or "NOT_READY",
    config_update = record.pending and "IN_PROGRESS" or "NOT_UPDATING",
  }
end

-- While the first deployment runs there is no live config; the new one shows in both places, since clients look
-- for the entities they just created under `config`.
local function detailed(record)
  local out = {
    name = record.name,
    id = record.id,
    creator = creator,
    creation_timestamp = record.created,
    last_updated_timestamp = record.updated,
    state = state_of(record),
    permission_level = "CAN_MANAGE",
    route_optimized = record.route_optimized,
    description = record.description,
    tags = record.tags,
    ai_gateway = record.ai_gateway,
    email_notifications = record.email_notifications,
    task = record.task,
  }
  local shown = record.live or record.pending
  if shown then out.config = config_output(shown, record.live ~= nil) end
  if record.pending then
    out.pending_config = config_output(record.pending, false)
    out.pending_config.start_time = record.pending.start_time
  end
  return out
end

local spec_keys = { "name", "entity_name", "entity_version", "external_model" }

local function summary(record)
  local out = detailed(record)
  out.pending_config, out.permission_level, out.route_optimized = nil, nil, nil
  if out.config then
    local specs = json.array {}
    for index, entity in ipairs(out.config.served_entities) do
      local spec = {}
      for _, key in ipairs(spec_keys) do spec[key] = entity[key] end
      specs[index] = spec
    end
    out.config = { served_entities = specs }
  end
  return out
end

local function version(self, settings, number)
  return {
    config = settings,
    number = number,
    start_time = wire.milliseconds(),
    ready_at = self.now() + self.deploy_time,
  }
end

local function task_of(self, settings)
  local first = settings.served_entities[1]
  if not first then return nil end
  return first.external_model and first.external_model.task or self.task_of(first)
end

-- The optional parts of a create request that are kept as they came.
local function optional_parts(body)
  local parts = {}
  for _, key in ipairs { "tags", "ai_gateway", "email_notifications" } do
    parts[key] = wire.given(body[key])
    if parts[key] ~= nil and type(parts[key]) ~= "table" then
      return wire.invalid("%s has the wrong type.", key)
    end
  end
  parts.description = wire.given(body.description) or ""
  if type(parts.description) ~= "string" then return wire.invalid("description must be a string.") end
  parts.route_optimized = wire.given(body.route_optimized) == true
  return parts
end

---Creates an endpoint.
---@param body table the decoded body of the create request
---@return table|nil endpoint ServingEndpointDetailed
---@return sluice.emulator.refusal|nil
function methods:create(body)
  local name, refusal = config.check_name(wire.given(body.name), "The name of an endpoint")
  if not name then return nil, refusal end
  if self.by_name[name] then
    return wire.refuse(409, "RESOURCE_ALREADY_EXISTS", "Endpoint with name '%s' already exists.", name)
  end
  local settings, record
  if wire.given(body.config) ~= nil then
    settings, refusal = config.read(body.config)
    if not settings then return nil, refusal end
  end
  record, refusal = optional_parts(body)
  if not record then return nil, refusal end
  record.name, record.id = name, wire.hex(16)
  record.created = wire.milliseconds()
  record.updated = record.created
  if settings and #settings.served_entities > 0 then
    record.pending = version(self, settings, 1)
    record.task = task_of(self, settings)
  end
  self.by_name[name] = record
  self.order[#self.order + 1] = record
  return detailed(settle(self, record))
end

-- A body that names no entities keeps those there are: it moves traffic only.
local function merged_config(record, body)
  if wire.given(body.served_entities) ~= nil or wire.given(body.served_models) ~= nil then return body end
  local live = record.live and record.live.config
  return {
    served_entities = live and live.served_entities,
    traffic_config = wire.given(body.traffic_config),
    auto_capture_config = wire.given(body.auto_capture_config) or live and live.auto_capture_config,
  }
end

---Changes an endpoint's config. The old one serves until the new one's deploy time has passed.
---@param name string
---@param body table EndpointCoreConfigInput; without entities it keeps the live ones
---@return table|nil endpoint ServingEndpointDetailed
---@return sluice.emulator.refusal|nil
function methods:update_config(name, body)
  local record, settings, refusal
  record, refusal = find(self, name)
  if not record then return nil, refusal end
  if record.pending then
    return wire.refuse(409, "RESOURCE_CONFLICT", "Endpoint '%s' is being updated.", name)
  end
  settings, refusal = config.read(merged_config(record, body))
  if not settings then return nil, refusal end
  if #settings.served_entities == 0 then return wire.invalid("A config needs at least one served entity.") end
  record.pending = version(self, settings, record.live and record.live.number + 1 or 1)
  record.updated, record.task = wire.milliseconds(), task_of(self, settings)
  return detailed(settle(self, record))
end

---Looks an endpoint up.
---@param name string
---@return table|nil endpoint ServingEndpointDetailed
---@return sluice.emulator.refusal|nil
function methods:get(name)
  local record, refusal = find(self, name)
  if not record then return nil, refusal end
  return detailed(record)
end

---All endpoints, oldest first.
---@return table[] endpoints ServingEndpoint
function methods:list()
  local list = json.array {}
  for index, record in ipairs(self.order) do list[index] = summary(settle(self, record)) end
  return list
end

---Deletes an endpoint.
---@param name string
---@return table|nil nothing an empty object
---@return sluice.emulator.refusal|nil
function methods:delete(name)
  local record, refusal = find(self, name)
  if not record then return nil, refusal end
  self.by_name[name] = nil
  for index, each in ipairs(self.order) do
    if each == record then table.remove(self.order, index) end
  end
  return {}
end

local function served(record, name)
  for _, entity in ipairs(record.live.config.served_entities) do
    if entity.name == name then return entity end
  end
  return nil
end

local function by_traffic(record, share)
  local left = share * 100
  local routes = record.live.config.traffic_config.routes
  for _, route in ipairs(routes) do
    left = left - route.traffic_percentage
    if left < 0 then return served(record, route.served_entity_name) end
  end
  return served(record, routes[#routes].served_entity_name)
end

---Chooses the served entity for a query.
---@param name string the endpoint
---@param served_name string|nil one entity by name, past the traffic split
---@param share number in [0, 1): where in the traffic split the query falls
---@return table|nil entity
---@return sluice.emulator.refusal|nil
function methods:route(name, served_name, share)
  local record, refusal = find(self, name)
  if not record then return nil, refusal end
  if not record.live then
    if not record.pending then return wire.bad_request("Endpoint '%s' has no served entities.", name) end
    return wire.refuse(503, "TEMPORARILY_UNAVAILABLE", "Endpoint '%s' is not ready yet.", name)
  end
  if not served_name then return by_traffic(record, share) end
  local entity = served(record, served_name)
  if entity then return entity end
  return wire.refuse(404, "RESOURCE_DOES_NOT_EXIST", "Endpoint '%s' does not serve '%s'.", name, served_name)
end

return endpoints
