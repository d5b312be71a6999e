-- SPDX-License-Identifier: MIT
-- One served entity of a config: what a request may say of it, and what the service fills in.
--
-- The rules and defaults are those of the serving API; the error texts are ours, and so is the code
-- INVALID_PARAMETER_VALUE where the service's own is not known.

local json = require "sluice.json"
local wire = require "sluice.emulator.wire"

local entity = {}

local longest_name <const> = 63
local most_variables <const> = 30

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

-- Input keys that come back unchanged; burst_scaling_enabled is one that does not.
local echoed_keys = {
  "entity_name", "entity_version", "workload_size", "environment_vars", "instance_profile_arn",
}

-- Keys that hold whole numbers; of a pair the first must not be above the second.
local number_keys = {
  "min_provisioned_concurrency", "max_provisioned_concurrency", "min_provisioned_throughput",
  "max_provisioned_throughput", "provisioned_model_units",
}

---Refuses a name that is not 1 to 63 letters, digits, - or _.
---@param name any
---@param what string what the name is of
---@return string|nil
---@return sluice.emulator.refusal|nil
function entity.check_name(name, what)
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
local function default_name(made)
  if made.external_model then return (made.external_model.name:gsub("[^%w_-]", "-")) end
  local base = made.entity_name:match("[^.]*$"):gsub("[^%w_-]", "-")
  return made.entity_version and base .. "-" .. made.entity_version or base
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
local typed_keys = {
  entity_version = "string", workload_size = "string", scale_to_zero_enabled = "boolean",
  burst_scaling_enabled = "boolean", instance_profile_arn = "string",
}

local function check_types(input)
  for key, wanted in pairs(typed_keys) do
    local value = wire.given(input[key])
    if value ~= nil and type(value) ~= wanted then
      return wire.invalid("%s must be a %s.", key, wanted)
    end
  end
  return true
end

local function check_variables(input)
  local variables = wire.given(input.environment_vars)
  if variables == nil then return true end
  if not wire.is_object(variables) then return wire.invalid("environment_vars must be an object.") end
  local count = 0
  for name, value in pairs(variables) do
    if type(value) ~= "string" then return wire.invalid("environment_vars.%s must be a string.", name) end
    count = count + 1
  end
  if count > most_variables then
    return wire.invalid("A served entity may have %d environment variables, not %d.", most_variables, count)
  end
  return true
end

local function read_numbers(input, made)
  for _, key in ipairs(number_keys) do
    local value = wire.given(input[key])
    made[key] = wire.integer(value)
    if value ~= nil and (not made[key] or made[key] < 0) then
      return wire.invalid("%s must be a whole number of at least 0.", key)
    end
  end
  for _, what in ipairs { "concurrency", "throughput" } do
    local low, high = made["min_provisioned_" .. what], made["max_provisioned_" .. what]
    if low and high and low > high then
      return wire.invalid("min_provisioned_%s is above max_provisioned_%s.", what, what)
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

local checks = { check_types, check_kind, check_workload, check_variables, read_numbers }

-- The models of `system.ai` are the workspace's own foundation models.
local function foundation_model(name)
  local base = name:match("^system%.ai%.(.+)$")
  return base and { name = name, display_name = base, description = "A model of this emulator.", docs = "" }
end

---Reads a served entity and fills in what the service fills in.
---@param input any ServedEntityInput
---@return table|nil made without its state
---@return sluice.emulator.refusal|nil
function entity.read(input)
  if not wire.is_object(input) then return wire.invalid("A served entity must be an object.") end
  local made = {}
  for _, check in ipairs(checks) do
    local ok, refusal = check(input, made)
    if not ok then return nil, refusal end
  end
  for _, key in ipairs(echoed_keys) do made[key] = wire.given(input[key]) end
  if wire.given(input.external_model) ~= nil then
    local external, refusal = read_external(input.external_model)
    if not external then return nil, refusal end
    made.external_model = external
  else
    made.workload_type = wire.given(input.workload_type) or "CPU"
    made.scale_to_zero_enabled = wire.given(input.scale_to_zero_enabled) == true
    made.foundation_model = foundation_model(made.entity_name)
  end
  local wanted = wire.given(input.name) or default_name(made)
  local name, refusal = entity.check_name(wanted, "The name of a served entity")
  if not name then return nil, refusal end
  made.name = name
  return made
end

---The deprecated form: model_name and model_version instead of entity_name and entity_version.
---@param input any ServedModelInput
---@return any input a ServedEntityInput
function entity.of_model(input)
  if not wire.is_object(input) then return input end
  local copy = {}
  for key, value in pairs(input) do copy[key] = value end
  copy.entity_name, copy.entity_version, copy.model_name, copy.model_version =
    input.model_name, input.model_version, nil, nil
  return copy
end

---The name by which an entity says what it serves: the last part of `entity_name`, or the external model's name.
---@param made table a served entity
---@return string
function entity.model_name(made)
  if made.external_model then return made.external_model.name end
  return made.entity_name:match("[^.]*$")
end

return entity
