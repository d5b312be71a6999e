-- SPDX-License-Identifier: MIT
-- What the states of a serving endpoint mean. Tolerates whatever a server sends: what has not the type that it
-- should have counts as missing.

local config = require "sluice.serving.config"

local state = {}

local table_of = config.table_of

local FAILED_UPDATES = { UPDATE_FAILED = true, UPDATE_CANCELED = true }
local FAILED_DEPLOYMENTS = { DEPLOYMENT_FAILED = true, DEPLOYMENT_ABORTED = true }

---`ready` and `config_update` of an endpoint.
---@param endpoint any as the server tells it
---@return any ready
---@return any config_update which older answers call `update_state`
function state.of(endpoint)
  local its = table_of(table_of(endpoint).state)
  return its.ready, its.config_update or its.update_state
end

---The entities of an endpoint to look at: those of a pending update, else the live ones.
---@param endpoint any as the server tells it
---@return table[]
function state.entities(endpoint)
  endpoint = table_of(endpoint)
  local pending = config.entities(endpoint.pending_config)
  if #pending > 0 then return pending end
  return config.entities(endpoint.config)
end

local function is_text(value)
  return type(value) == "string" and value ~= ""
end

---The deployments of these entities that have failed.
---@param entities table[]
---@return { name: string, text: string }[]
function state.failed(entities)
  local failed = {}
  for _, entity in ipairs(entities) do
    local its = table_of(entity.state)
    if FAILED_DEPLOYMENTS[its.deployment] then
      local message = is_text(its.deployment_state_message) and ": " .. its.deployment_state_message or ""
      local name = tostring(entity.name)
      failed[#failed + 1] = { name = name, text = ("%s is %s%s"):format(name, its.deployment, message) }
    end
  end
  return failed
end

local function why(failed, otherwise)
  if #failed == 0 then return otherwise end
  local texts = {}
  for index, each in ipairs(failed) do texts[index] = each.text end
  return table.concat(texts, "; ")
end

---What the states of an endpoint mean: "ready", "failed" with a text, or "waiting".
---@param endpoint table as the server tells it
---@return "ready"|"failed"|"waiting" verdict
---@return string? why
function state.judge(endpoint)
  local ready, update = state.of(endpoint)
  if update == "IN_PROGRESS" then return "waiting" end
  local failed = state.failed(state.entities(endpoint))
  if FAILED_UPDATES[update] then return "failed", why(failed, "config_update is " .. update) end
  -- no update is under way: a deployment that has failed stays so, even where others answer
  if #failed > 0 then return "failed", why(failed) end
  if ready == "READY" then return "ready" end
  if update == "NOT_UPDATING" and #state.entities(endpoint) == 0 then
    return "failed", "it has no served entities, so it cannot become ready"
  end
  return "waiting"
end

local function describe_entity(entity)
  local its = table_of(entity.state)
  if its.deployment == nil then return nil end
  local message = is_text(its.deployment_state_message) and (" (%s)"):format(its.deployment_state_message)
  return tostring(entity.name), tostring(its.deployment), message or ""
end

local function describe_entities(endpoint, parts, prefix)
  for _, entity in ipairs(state.entities(endpoint)) do
    local name, deployment, message = describe_entity(entity)
    if name then parts[#parts + 1] = ("%s %s%s"):format(name, deployment:gsub(prefix, ""), message) end
  end
  return table.concat(parts, ", ")
end

---The states of an endpoint in one line.
---@param endpoint any
---@return string
function state.describe(endpoint)
  local ready, update = state.of(endpoint)
  local parts = { ("ready %s, config_update %s"):format(tostring(ready), tostring(update)) }
  return describe_entities(endpoint, parts, "^$")
end

---The same, short enough for a row of a terminal.
---@param endpoint any
---@return string
function state.summary(endpoint)
  local ready, update = state.of(endpoint)
  return describe_entities(endpoint, { tostring(ready), tostring(update) }, "^DEPLOYMENT_")
end

return state
