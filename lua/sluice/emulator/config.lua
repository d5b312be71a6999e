-- SPDX-License-Identifier: MIT
-- What a create request may say, and what the service fills in: endpoint name, served entities, traffic.
--
-- The rules and defaults are those of the serving API; the error texts are ours, and so is the code
-- INVALID_PARAMETER_VALUE where the service's own is not known.

local json = require "sluice.json"
local wire = require "sluice.emulator.wire"

local config = {}

local longest_name <const> = 63

local function set(words)
  local members = {}
  for word in words:gmatch "%S+" do members[word] = true end
  return members
end

local workload_types = set [[
  CPU CPU_MEDIUM CPU_LARGE GPU_SMALL GPU_MEDIUM GPU_LARGE GPU_XLARGE GPU_XLARGE_8 MULTIGPU_MEDIUM]]
local external_tasks = set "llm/v1/chat llm/v1/completions llm/v1/embeddings"
local providers = set [[
  ai21labs amazon-bedrock anthropic cohere custom databricks-model-serving google-cloud-vertex-ai openai
  palm]]

-- The entity's input keys that come back unchanged; burst_scaling_enabled is one that does not.
local echoed_keys = {
  "entity_name", "entity_version", "workload_size", "environment_vars", "instance_profile_arn",
  "min_provisioned_concurrency", "max_provisioned_concurrency", "min_provisioned_throughput",
  "max_provisioned_throughput", "provisioned_model_units",
}

---Refuses a name that is not 1 to 63 letters, digits, - or _.
---@param name any
---@param what string what the name is of
---@return string|nil
---@return sluice.emulator.refusal|nil
function config.check_name(name, what)
  if type(name) ~= "string" or #name > longest_name or not name:find("^[%w_-]+$") then
    return wire.invalid("%s must be 1 to %d letters, digits, dashes and underscores.", what, longest_name)
  end
  return name
end

-- Secrets arrive as X_plaintext and are never given back.
local function without_secrets(value)
  if type(value) ~= "table" then return value end
  local copy = wire.is_list(value) and json.array {} or {}
  for key, inner in pairs(value) do
    if not (type(key) == "string" and key:find("_plaintext$")) then copy[key] = without_secrets(inner) end
  end
  return copy
end

local function read_external(model)
  if not wire.is_object(model) then return wire.invalid("external_model must be an object.") end
  if type(model.name) ~= "string" or model.name == "" then
    return wire.invalid("external_model.name is required.")
  end
  if not providers[model.provider] then
    return wire.invalid("external_model.provider %s is unknown.", tostring(model.provider))
  end
  if not external_tasks[model.task] then
    return wire.invalid("external_model.task must be llm/v1/chat, llm/v1/completions or llm/v1/embeddings.")
  end
  return without_secrets(model)
end

-- Default names: an external model's with . and : as -; else the last part of the entity's name, and its version.
local function default_name(entity)
  if entity.external_model then
    return (entity.external_model.name:gsub("[^%w_-]", "-"))
  end
  local base = entity.entity_name:match("[^.]*$"):gsub("[^%w_-]", "-")
  return entity.entity_version and base .. "-" .. entity.entity_version or base
end

local function check_kind(input)
  local external = wire.given(input.external_model) ~= nil
  local name = wire.given(input.entity_name)
  if external then
    for _, key in ipairs { "entity_name", "entity_version", "workload_size", "workload_type" } do
      if wire.given(input[key]) ~= nil then
        return wire.invalid("external_model and %s exclude each other.", key)
      end
    end
  end
  if not external and (type(name) ~= "string" or name == "") then
    return wire.invalid("A served entity needs entity_name or external_model.")
  end
  return true
end

-- Keys whose type the API fixes. `workload_size` is any text: which ones there are differs between workspaces.
local typed_keys = { entity_version = "string", workload_size = "string", scale_to_zero_enabled = "boolean" }

local function check_types(input)
  for key, wanted in pairs(typed_keys) do
    local value = wire.given(input[key])
    if value ~= nil and type(value) ~= wanted then
      return wire.invalid("%s must be a %s.", key, wanted)
    end
  end
  return true
end

local function check_workload(input)
  local kind = wire.given(input.workload_type)
  if kind and not workload_types[kind] then
    return wire.invalid("workload_type %s is unknown.", tostring(kind))
  end
  local low = wire.given(input.min_provisioned_concurrency)
  local high = wire.given(input.max_provisioned_concurrency)
  if (low or high) and wire.given(input.workload_size) then
    return wire.invalid("workload_size and provisioned concurrency exclude each other.")
  end
  return true
end

local function read_entity(input)
  if not wire.is_object(input) then return wire.invalid("A served entity must be an object.") end
  local ok, refusal = check_types(input)
  if ok then ok, refusal = check_kind(input) end
  if ok then ok, refusal = check_workload(input) end
  if not ok then return nil, refusal end
  local entity = {}
  for _, key in ipairs(echoed_keys) do entity[key] = wire.given(input[key]) end
  if wire.given(input.external_model) then
    entity.external_model, refusal = read_external(input.external_model)
    if refusal then return nil, refusal end
  else
    entity.workload_type = wire.given(input.workload_type) or "CPU"
    entity.scale_to_zero_enabled = wire.given(input.scale_to_zero_enabled) == true
  end
  local name = wire.given(input.name) or default_name(entity)
  name, refusal = config.check_name(name, "The name of a served entity")
  if not name then return nil, refusal end
  entity.name = name
  return entity
end

-- The deprecated form: model_name and model_version instead of entity_name and entity_version.
local function entity_of_model(input)
  if not wire.is_object(input) then return input end
  local copy = {}
  for key, value in pairs(input) do copy[key] = value end
  copy.entity_name, copy.entity_version, copy.model_name, copy.model_version =
    input.model_name, input.model_version, nil, nil
  return copy
end

local function given_entities(input)
  local entities, models = wire.given(input.served_entities), wire.given(input.served_models)
  if entities and models then return wire.invalid("Give served_entities or served_models, not both.") end
  local list = entities or models or json.array {}
  if not wire.is_list(list) then return wire.invalid("served_entities must be a list.") end
  if not models then return list end
  local converted = {}
  for index, model in ipairs(list) do converted[index] = entity_of_model(model) end
  return converted
end

local function check_same_kind(entities)
  for _, entity in ipairs(entities) do
    local first, this = entities[1].external_model, entity.external_model
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
  local entities, seen = json.array {}, {}
  for index, each in ipairs(list) do
    local entity, why = read_entity(each)
    if not entity then return nil, why end
    if seen[entity.name] then return wire.invalid("Two served entities have the name %s.", entity.name) end
    seen[entity.name] = true
    entities[index] = entity
  end
  local ok
  ok, refusal = check_same_kind(entities)
  if not ok then return nil, refusal end
  return entities
end

-- The entity a route names: by its name, or by entity_name-version in full where the name is the default one.
local function find_entity(entities, name)
  for _, entity in ipairs(entities) do
    if entity.name == name then return entity end
  end
  for _, entity in ipairs(entities) do
    local full = entity.entity_name and ("%s-%s"):format(entity.entity_name, entity.entity_version)
    if name == full then return entity end
  end
end

local function read_route(route, entities)
  if not wire.is_object(route) then return wire.invalid("A route must be an object.") end
  local share = math.tointeger(wire.given(route.traffic_percentage))
  if not share or share < 0 or share > 100 then
    return wire.invalid("traffic_percentage must be a whole number from 0 to 100.")
  end
  local name = wire.given(route.served_entity_name) or wire.given(route.served_model_name)
  local entity = type(name) == "string" and find_entity(entities, name)
  if not entity then return wire.invalid("A route names %s, which is no served entity.", tostring(name)) end
  return { served_entity_name = entity.name, served_model_name = entity.name, traffic_percentage = share }
end

local function read_routes(list, entities)
  if not wire.is_list(list) then return wire.invalid("traffic_config.routes must be a list.") end
  local routes, sum = json.array {}, 0
  for index, each in ipairs(list) do
    local route, refusal = read_route(each, entities)
    if not route then return nil, refusal end
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

---Reads an endpoint's config and fills in what the service fills in.
---@param input table EndpointCoreConfigInput
---@return table|nil config served entities (without their state) and traffic; `served_entities` may be empty
---@return sluice.emulator.refusal|nil
function config.read(input)
  if not wire.is_object(input) then return wire.invalid("config must be an object.") end
  local entities, refusal = read_entities(input)
  if not entities then return nil, refusal end
  local result = { served_entities = entities }
  result.auto_capture_config = wire.given(input.auto_capture_config)
  if #entities > 0 then
    result.traffic_config, refusal = read_traffic(input, entities)
    if refusal then return nil, refusal end
  end
  return result
end

return config
