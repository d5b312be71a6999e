-- SPDX-License-Identifier: MIT
-- The endpoint objects of the wire, made of the store's records: detailed for one, short in a list.

local deployment = require "sluice.emulator.deployment"
local json = require "sluice.json"
local wire = require "sluice.emulator.wire"

local view = {}

-- The states of a version's entities: `creating`, `ready`, or how its deployment ended.
local function entity_state(version, made, phase)
  if phase == "ready" then return "DEPLOYMENT_READY", "" end
  if phase == "creating" then return "DEPLOYMENT_CREATING", "Creating resources for served entity." end
  local plan = version.plan
  if plan.entity and plan.entity ~= made.name then
    return "DEPLOYMENT_ABORTED", "The deployment of another served entity did not succeed."
  end
  return deployment.outcomes[plan.outcome].deployment, plan.message
end

local function entity_output(made, version, phase)
  local out = {}
  for key, value in pairs(made) do out[key] = value end
  out.creator, out.creation_timestamp = wire.user, version.start_time
  local state, message = entity_state(version, made, phase)
  out.state = { deployment = state, deployment_state_message = message }
  return out
end

-- The deprecated form of an entity.
local function as_model(out)
  local model = {}
  for key, value in pairs(out) do model[key] = value end
  model.model_name, model.model_version = model.entity_name, model.entity_version
  model.entity_name, model.entity_version = nil, nil
  return model
end

local function add_entities(out, settings, each)
  out.served_entities = json.array {}
  for index, made in ipairs(settings.served_entities) do out.served_entities[index] = each(made) end
  if not settings.as_models then return end
  out.served_models = json.array {}
  for index, entity in ipairs(out.served_entities) do out.served_models[index] = as_model(entity) end
end

local function config_output(version, phase)
  local out = {
    traffic_config = version.config.traffic_config,
    auto_capture_config = version.config.auto_capture_config,
    config_version = version.number,
  }
  add_entities(out, version.config, function(made) return entity_output(made, version, phase) end)
  return out
end

---The state of a record as the wire tells it.
---@param record table
---@return { ready: string, config_update: string }
function view.state(record)
  local update = record.pending and "IN_PROGRESS" or "NOT_UPDATING"
  if record.failed and not record.pending then
    update = deployment.outcomes[record.failed.plan.outcome].update
  end
  return { ready = record.live and "READY" or "NOT_READY", config_update = update }
end

local function common(record)
  return {
    name = record.name,
    id = record.id,
    creator = wire.user,
    creator_display_name = wire.user,
    creator_kind = "User",
    creation_timestamp = record.created,
    last_updated_timestamp = record.updated,
    state = view.state(record),
    description = record.description,
    tags = record.tags,
    ai_gateway = record.ai_gateway,
    email_notifications = record.email_notifications,
    effective_budget_policy_id = record.budget_policy_id,
    telemetry_config = record.telemetry_config,
    uc_system_metrics_export_state = record.uc_system_metrics_export_state,
    task = record.task,
  }
end

-- What shows that the endpoint has an address of its own.
local function add_data_plane(out, record, base)
  out.endpoint_url = ("%s/%s/serving-endpoints/%s/invocations"):format(base, wire.workspace_id, record.name)
  out.data_plane_info = {
    query_info = {
      endpoint_url = out.endpoint_url,
      authorization_details = json.encode(json.array {
        {
          type = "workspace_permission",
          object_type = "serving-endpoints",
          object_path = "/serving-endpoints/" .. record.id,
          actions = json.array { "query_inference_endpoint" },
        },
      }, { canonical = true }),
    },
  }
end

---ServingEndpointDetailed. While the first deployment runs there is no live config; the new one shows in both places,
---since clients look for the entities they just created under `config`. A deployment that did not succeed stays under
---`pending_config` until the next update, since only there its message can be read.
---@param record table
---@param base string the URL at which the caller reaches this server
---@return table
function view.detailed(record, base)
  local out = common(record)
  out.permission_level = "CAN_MANAGE"
  out.route_optimized = record.route_optimized
  local coming = record.pending or record.failed
  local phase = record.pending and "creating" or "ended"
  if record.live then
    out.config = config_output(record.live, "ready")
  elseif coming then
    out.config = config_output(coming, phase)
  end
  if coming then
    out.pending_config = config_output(coming, phase)
    out.pending_config.start_time = coming.start_time
  end
  if record.route_optimized then add_data_plane(out, record, base) end
  return out
end

local spec_keys = { "name", "entity_name", "entity_version", "external_model", "foundation_model" }

local function entity_spec(made)
  local spec = {}
  for _, key in ipairs(spec_keys) do spec[key] = made[key] end
  return spec
end

---ServingEndpoint, as a list has it.
---@param record table
---@return table
function view.summary(record)
  local out = common(record)
  local version = record.live or record.pending or record.failed
  if version then
    out.config = {}
    add_entities(out.config, version.config, entity_spec)
  end
  return out
end

return view
