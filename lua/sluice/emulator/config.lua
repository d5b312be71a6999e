-- SPDX-License-Identifier: MIT
-- What an endpoint's config may say, and what the service fills in: served entities and traffic.

local entity = require "sluice.emulator.entity"
local json = require "sluice.json"
local wire = require "sluice.emulator.wire"

local config = {}

local most_entities <const> = 15 -- the documents say 10, the service takes 15

local function given_entities(input)
  local entities, models = wire.given(input.served_entities), wire.given(input.served_models)
  if entities and models then return wire.invalid("Give served_entities or served_models, not both.") end
  local list = entities or models or json.array {}
  if not wire.is_list(list) then return wire.invalid("served_entities must be a list.") end
  if not models then return list end
  local converted = {}
  for index, model in ipairs(list) do converted[index] = entity.of_model(model) end
  return converted
end

local function check_same_kind(entities)
  for _, each in ipairs(entities) do
    local first, this = entities[1].external_model, each.external_model
    if (first == nil) ~= (this == nil) then
      return wire.invalid("External models and other entities cannot be served by one endpoint.")
    end
    if first and first.task ~= this.task then
      return wire.invalid("All external models of an endpoint must have the same task.")
    end
  end
  return true
end

local function read_entities(input)
  local list, refusal = given_entities(input)
  if not list then return nil, refusal end
  if #list > most_entities then
    return wire.invalid("An endpoint may serve %d entities, not %d.", most_entities, #list)
  end
  local entities, seen = json.array {}, {}
  for index, each in ipairs(list) do
    local made, why = entity.read(each)
    if not made then return nil, why end
    if seen[made.name] then return wire.invalid("Two served entities have the name %s.", made.name) end
    seen[made.name] = true
    entities[index] = made
  end
  local ok
  ok, refusal = check_same_kind(entities)
  if not ok then return nil, refusal end
  return entities
end

-- The entity a route names: by its name, or by entity_name-version in full where the name is the default one.
local function find_entity(entities, name)
  for _, each in ipairs(entities) do
    if each.name == name then return each end
  end
  for _, each in ipairs(entities) do
    local full = each.entity_name and ("%s-%s"):format(each.entity_name, each.entity_version)
    if name == full then return each end
  end
end

local function read_route(route, entities)
  if not wire.is_object(route) then return wire.invalid("A route must be an object.") end
  local share = wire.integer(route.traffic_percentage)
  if not share or share < 0 or share > 100 then
    return wire.invalid("traffic_percentage must be a whole number from 0 to 100.")
  end
  local name = wire.given(route.served_entity_name) or wire.given(route.served_model_name)
  local found = type(name) == "string" and find_entity(entities, name)
  if not found then return wire.invalid("A route names %s, which is no served entity.", tostring(name)) end
  return { served_entity_name = found.name, served_model_name = found.name, traffic_percentage = share }
end

local function read_routes(list, entities)
  if not wire.is_list(list) then return wire.invalid("traffic_config.routes must be a list.") end
  local routes, sum, seen = json.array {}, 0, {}
  for index, each in ipairs(list) do
    local route, refusal = read_route(each, entities)
    if not route then return nil, refusal end
    local name = route.served_entity_name
    if seen[name] then return wire.invalid("Two routes name the served entity %s.", name) end
    seen[name] = true
    routes[index] = route
    sum = sum + route.traffic_percentage
  end
  if sum ~= 100 then return wire.invalid("The traffic percentages sum to %d and not to 100.", sum) end
  return routes
end

local function read_traffic(input, entities)
  local traffic = wire.given(input.traffic_config)
  if traffic == nil then
    if #entities > 1 then
      return wire.invalid("traffic_config is required with more than one served entity.")
    end
    traffic = { routes = { { served_entity_name = entities[1].name, traffic_percentage = 100 } } }
  end
  if not wire.is_object(traffic) then return wire.invalid("traffic_config must be an object.") end
  local routes, refusal = read_routes(wire.given(traffic.routes), entities)
  if not routes then return nil, refusal end
  return { routes = routes }
end

-- The older inference table, with the table that it writes.
local function read_capture(input)
  if input == nil then return nil end
  if not wire.is_object(input) then return wire.invalid("auto_capture_config must be an object.") end
  local made = { enabled = wire.given(input.enabled) == true }
  for _, key in ipairs { "catalog_name", "schema_name", "table_name_prefix" } do
    made[key] = wire.given(input[key])
    if made[key] ~= nil and type(made[key]) ~= "string" then
      return wire.invalid("auto_capture_config.%s must be a string.", key)
    end
  end
  if made.enabled then
    local name = (made.table_name_prefix or "endpoint") .. "_payload"
    made.state = { payload_table = { name = name, status = "READY", status_message = "" } }
  end
  return made
end

---Reads an endpoint's config and fills in what the service fills in.
---@param input any EndpointCoreConfigInput
---@return table|nil config served entities (without their state) and traffic; `served_entities` may be empty; `as_models` where the deprecated form was used
---@return sluice.emulator.refusal|nil
function config.read(input)
  if not wire.is_object(input) then return wire.invalid("config must be an object.") end
  local entities, refusal = read_entities(input)
  if not entities then return nil, refusal end
  local result = { served_entities = entities, as_models = wire.given(input.served_models) and true }
  result.auto_capture_config, refusal = read_capture(wire.given(input.auto_capture_config))
  if refusal then return nil, refusal end
  if #entities > 0 then
    result.traffic_config, refusal = read_traffic(input, entities)
    if refusal then return nil, refusal end
  end
  return result
end

---The config of an update. A body that names no entities keeps those there are: it moves traffic only.
---@param body table EndpointCoreConfigInput
---@param live table|nil the config that is served now
---@return table input for config.read
function config.of_update(body, live)
  if wire.given(body.served_entities) ~= nil or wire.given(body.served_models) ~= nil then return body end
  return {
    served_entities = live and live.served_entities,
    traffic_config = wire.given(body.traffic_config),
    auto_capture_config = wire.given(body.auto_capture_config) or live and live.auto_capture_config,
  }
end

---Refuses what no update may change: external models stay external, other entities stay others.
---@param settings table the new config
---@param live table|nil the config that is served now
---@return true|nil
---@return sluice.emulator.refusal|nil
function config.check_switch(settings, live)
  local before, after = live and live.served_entities[1], settings.served_entities[1]
  if not before or (before.external_model == nil) == (after.external_model == nil) then return true end
  return wire.invalid("External models cannot replace other entities of an endpoint, nor these those.")
end

-- The keys of a provisioned throughput entity; every other key is ignored, as by the service.
local pt_keys = {
  "entity_name", "entity_version", "name", "provisioned_model_units", "burst_scaling_enabled",
}

local function pt_entity(input)
  if not wire.is_object(input) then return wire.invalid("A served entity must be an object.") end
  if wire.given(input.provisioned_model_units) == nil then
    return wire.invalid("provisioned_model_units is required for provisioned throughput.")
  end
  local copy = {}
  for _, key in ipairs(pt_keys) do copy[key] = wire.given(input[key]) end
  return copy
end

---The config of a provisioned throughput endpoint, in the form that config.read takes.
---@param input any PtEndpointCoreConfig
---@return table|nil input
---@return sluice.emulator.refusal|nil
function config.of_pt(input)
  if not wire.is_object(input) then return wire.invalid("config must be an object.") end
  local list = wire.given(input.served_entities)
  if not wire.is_list(list) or #list == 0 then
    return wire.invalid("served_entities must be a list of at least one entity.")
  end
  local entities = json.array {}
  for index, each in ipairs(list) do
    local made, refusal = pt_entity(each)
    if not made then return nil, refusal end
    entities[index] = made
  end
  return { served_entities = entities, traffic_config = wire.given(input.traffic_config) }
end

return config
