-- SPDX-License-Identifier: MIT
-- The store of serving endpoints and their states.
--
-- Nothing ticks: an endpoint knows when its deployment will be done, and its state is worked out when it is looked at.
-- So the states move with whatever clock is running, the simulated one too. A record is a plain table that a journal
-- can keep: `live`, `pending` and `failed` are versions of its config.

local config = require "sluice.emulator.config"
local deployment = require "sluice.emulator.deployment"
local entity = require "sluice.emulator.entity"
local features = require "sluice.emulator.features"
local task = require "sluice.task"
local wire = require "sluice.emulator.wire"

local endpoints = {}

---@class sluice.emulator.Endpoints
local methods = {}
local metatable = { __index = methods, __name = "sluice.emulator.endpoints" }

---A store.
---@param options table `deploy_time` (seconds), `task_of` (fun(entity): string|nil), `journal` (what keeps the records, see emulator/journal.lua; none)
---@return table store
function endpoints.new(options)
  local self = setmetatable({
    deploy_time = options.deploy_time,
    task_of = options.task_of,
    journal = options.journal,
    by_name = {},
    order = {},
  }, metatable)
  for _, record in ipairs(options.journal and options.journal.records or {}) do
    self.by_name[record.name] = record
    self.order[#self.order + 1] = record
  end
  return self
end

-- Ends an update whose time has come: a pending config that could be deployed is the live one from then on.
local function settle(record)
  local pending = record.pending
  if not pending or task.wall() < pending.ready_at then return record end
  record.pending = nil
  record.updated = math.max(record.updated, math.floor(pending.ready_at * 1000))
  if pending.plan.outcome then
    record.failed = pending
  else
    record.live = pending
  end
  return record
end

---The record of an endpoint.
---@param name string
---@return table|nil record
---@return sluice.emulator.refusal|nil
function methods:get(name)
  local record = self.by_name[name]
  if not record then
    return wire.refuse(404, "RESOURCE_DOES_NOT_EXIST", "Endpoint with name '%s' does not exist.", name)
  end
  return settle(record)
end

---The record of an endpoint, by its id.
---@param id string
---@return table|nil record
---@return sluice.emulator.refusal|nil
function methods:with_id(id)
  for _, record in ipairs(self.order) do
    if record.id == id then return settle(record) end
  end
  return wire.refuse(404, "RESOURCE_DOES_NOT_EXIST", "Serving endpoint with ID '%s' does not exist.", id)
end

---The records of all endpoints, oldest first.
---@return table[] records
function methods:list()
  local list = {}
  for index, record in ipairs(self.order) do list[index] = settle(record) end
  return list
end

---Notes that a record was changed, so that a journal keeps it.
---@param record table
---@return table record
function methods:save(record)
  if self.journal then self.journal:put(record) end
  return record
end

local function task_of(self, settings)
  local first = settings.served_entities[1]
  if not first then return nil end
  return first.external_model and first.external_model.task or self.task_of(first)
end

-- Begins the deployment of a config.
local function deploy(self, record, settings, rule)
  local live = record.live
  local plan = deployment.plan(settings, live and live.config, self.deploy_time, rule)
  record.pending = {
    config = settings,
    number = live and live.number + 1 or 1,
    start_time = wire.milliseconds(),
    ready_at = task.wall() + plan.seconds,
    plan = plan,
  }
  record.failed = nil
  record.task = task_of(self, settings)
  return settle(record)
end

-- A new record without its config. Secrets and limits of the old kind do not show, but they are kept.
local function new_record(body)
  local record, refusal = features.of_create(body)
  if not record then return nil, refusal end
  record.name, record.id = body.name, wire.hex(16)
  record.created = wire.milliseconds()
  record.updated = record.created
  return record
end

---Creates an endpoint.
---@param body table the decoded body of the create request
---@param rule table|nil a fault rule of kind "deployment"
---@return table|nil record
---@return sluice.emulator.refusal|nil
function methods:create(body, rule)
  local name, refusal = entity.check_name(wire.given(body.name), "The name of an endpoint")
  if not name then return nil, refusal end
  if self.by_name[name] then
    return wire.refuse(409, "RESOURCE_ALREADY_EXISTS", "Endpoint with name '%s' already exists.", name)
  end
  local settings, record
  if wire.given(body.config) ~= nil then
    settings, refusal = config.read(body.config)
    if not settings then return nil, refusal end
  end
  record, refusal = new_record(body)
  if not record then return nil, refusal end
  if settings and #settings.served_entities > 0 then deploy(self, record, settings, rule) end
  features.drop_unsupported(record)
  self.by_name[name] = record
  self.order[#self.order + 1] = record
  return self:save(record)
end

---Creates a provisioned throughput endpoint.
---@param body table the decoded body of the create request
---@param rule table|nil a fault rule of kind "deployment"
---@return table|nil record
---@return sluice.emulator.refusal|nil
function methods:create_pt(body, rule)
  local settings, refusal = config.of_pt(body.config)
  if not settings then return nil, refusal end
  local copy = {}
  for key, value in pairs(body) do copy[key] = value end
  copy.config = settings
  local record
  record, refusal = self:create(copy, rule)
  if not record then return nil, refusal end
  record.is_pt = true
  return self:save(record)
end

local function update(self, record, input, rule)
  local live = record.live and record.live.config
  if record.pending then
    return wire.refuse(409, "RESOURCE_CONFLICT", "Endpoint '%s' is being updated.", record.name)
  end
  local settings, refusal = config.read(config.of_update(input, live))
  if not settings then return nil, refusal end
  if #settings.served_entities == 0 then return wire.invalid("A config needs at least one served entity.") end
  local ok
  ok, refusal = config.check_switch(settings, live)
  if not ok then return nil, refusal end
  record.updated = wire.milliseconds()
  return self:save(deploy(self, record, settings, rule))
end

---Changes an endpoint's config. The old one serves until the new one's deploy time has passed.
---@param name string
---@param body table EndpointCoreConfigInput; without entities it keeps the live ones
---@param rule table|nil a fault rule of kind "deployment"
---@return table|nil record
---@return sluice.emulator.refusal|nil
function methods:update_config(name, body, rule)
  local record, refusal = self:get(name)
  if not record then return nil, refusal end
  return update(self, record, body, rule)
end

---Changes the config of a provisioned throughput endpoint.
---@param name string
---@param body table its `config` is a PtEndpointCoreConfig
---@param rule table|nil a fault rule of kind "deployment"
---@return table|nil record
---@return sluice.emulator.refusal|nil
function methods:update_pt_config(name, body, rule)
  local record, refusal = self:get(name)
  if not record then return nil, refusal end
  if not record.is_pt then
    return wire.invalid("Endpoint '%s' was not created with provisioned throughput.", name)
  end
  local input
  input, refusal = config.of_pt(body.config)
  if not input then return nil, refusal end
  return update(self, record, input, rule)
end

---Cancels the update under way: what no path of the service does, but its users see.
---@param name string
---@return table|nil record
---@return sluice.emulator.refusal|nil
function methods:cancel_update(name)
  local record, refusal = self:get(name)
  if not record then return nil, refusal end
  if not record.pending then
    return wire.refuse(409, "INVALID_STATE", "Endpoint '%s' is not being updated.", name)
  end
  local plan = record.pending.plan
  plan.outcome, plan.entity, plan.message = "canceled", nil, deployment.outcomes.canceled.message
  record.pending.ready_at = task.wall()
  return self:save(settle(record))
end

---Deletes an endpoint.
---@param name string
---@return table|nil nothing an empty object
---@return sluice.emulator.refusal|nil
function methods:delete(name)
  local record, refusal = self:get(name)
  if not record then return nil, refusal end
  self.by_name[name] = nil
  for index, each in ipairs(self.order) do
    if each == record then
      table.remove(self.order, index)
      break
    end
  end
  if self.journal then self.journal:delete(name) end
  return {}
end

local function served(record, name)
  for _, each in ipairs(record.live.config.served_entities) do
    if each.name == name then return each end
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
---@return sluice.emulator.refusal|table refusal or the endpoint's record
function methods:route(name, served_name, share)
  local record, refusal = self:get(name)
  if not record then return nil, refusal end
  if not record.live then
    if not record.pending then
      return wire.bad_request("Endpoint '%s' has no served entities that are ready.", name)
    end
    return wire.refuse(503, "TEMPORARILY_UNAVAILABLE", "Endpoint '%s' is not ready yet.", name)
  end
  if not served_name then return by_traffic(record, share), record end
  local found = served(record, served_name)
  if found then return found, record end
  return wire.refuse(404, "RESOURCE_DOES_NOT_EXIST", "Endpoint '%s' does not serve '%s'.", name, served_name)
end

return endpoints
