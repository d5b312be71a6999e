-- SPDX-License-Identifier: MIT
-- Waiting for a serving endpoint: how often to look, and what the states mean.

local errors = require "sluice.errors"
local options = require "sluice.options"
local system = require "sluice.core.system"
local task = require "sluice.task"

local waiter = {}

---@class sluice.WaitOptions
---@field timeout? number seconds for all of it, 1200; large models take longer
---@field on_poll? fun(endpoint: table, elapsed: number) called after each look, the last one too

local DEFAULT_TIMEOUT <const> = 20 * 60

-- Seconds between looks: an emulator is ready in no time, a real deployment takes minutes.
local DELAYS <const> = { 0.2, 0.3, 0.5, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10 }

-- For how long a new endpoint may still be unknown to the server that is asked.
local NEW_GRACE <const> = 30

-- Less than this is no time to wait: a sleep of under a microsecond does not move the clock.
local MOMENT <const> = 0.001

local FAILED_UPDATES = { UPDATE_FAILED = true, UPDATE_CANCELED = true }
local FAILED_DEPLOYMENTS = { DEPLOYMENT_FAILED = true, DEPLOYMENT_ABORTED = true }

local function table_of(value)
  return type(value) == "table" and value or {}
end

-- All served entities, those of a pending update first: why it failed stands there.
local function entities_of(endpoint)
  local all = {}
  for _, config in ipairs { table_of(endpoint.pending_config), table_of(endpoint.config) } do
    for _, key in ipairs { "served_entities", "served_models" } do
      for _, entity in ipairs(table_of(config[key])) do all[#all + 1] = table_of(entity) end
    end
  end
  return all
end

local function failed_deployment(endpoint)
  for _, entity in ipairs(entities_of(endpoint)) do
    local state = table_of(entity.state)
    if FAILED_DEPLOYMENTS[state.deployment] then
      local message = state.deployment_state_message
      return ("%s is %s%s"):format(tostring(entity.name), state.deployment,
        type(message) == "string" and message ~= "" and ": " .. message or "")
    end
  end
  return nil
end

---What the states of an endpoint mean: "ready", "failed" with a text, or "waiting".
---@param endpoint table as the server tells it
---@return "ready"|"failed"|"waiting" verdict
---@return string? why
function waiter.judge(endpoint)
  local state = table_of(endpoint.state)
  local update = state.config_update
  if FAILED_UPDATES[update] then
    return "failed", failed_deployment(endpoint) or ("config_update is " .. update)
  end
  if update == "IN_PROGRESS" then return "waiting" end
  if state.ready == "READY" then return "ready" end
  -- the update is over and it is not ready: with a failed deployment it will never be
  local failed = failed_deployment(endpoint)
  if failed then return "failed", failed end
  if update == "NOT_UPDATING" and #entities_of(endpoint) == 0 then
    return "failed", "it has no served entities, so it cannot become ready"
  end
  return "waiting"
end

local function describe(endpoint)
  local state = table_of(endpoint and endpoint.state)
  return ("ready %s, config_update %s"):format(tostring(state.ready), tostring(state.config_update))
end

local function failure(name, endpoint, why)
  return errors.new("OperationFailed", {
    operation = "wait for endpoint", object = name, message = why, endpoint = endpoint,
  })
end

local ENTITIES <const> = { "served_entities", "served_models" }

-- The service ignores keys that it does not know, so a misspelt `served_entities` shows only here.
local function misspelt(config)
  for key in pairs(table_of(config)) do
    local near = type(key) == "string" and options.nearest(key, ENTITIES)
    if near and near ~= key then return (': the config has "%s" (did you mean "%s"?)'):format(key, near) end
  end
  return ""
end

local function timed_out(name, timeout, last, last_error)
  return errors.new("OperationTimeout", {
    operation = "wait for endpoint",
    object = name,
    message = ("not ready after %g s: %s"):format(timeout, describe(last)),
    limit = "wait",
    endpoint = last,
    cause = last_error,
  })
end

local function pause_before(look)
  local delay = DELAYS[math.min(look, #DELAYS)]
  return delay + system.random_float() * math.min(1, delay / 4)
end

-- Whether the wait goes on after a look that failed: what is new may be unknown for a moment, and a
-- service that is away for a minute does not end a deployment of twenty.
local function goes_on(err, origin, elapsed)
  if not errors.is(err) then return false end
  if err:is "NotFound" then return origin.is_new and elapsed < NEW_GRACE end
  return err.retryable
end

---Looks at an endpoint until it is ready, has failed, or the time is over. Waits.
---@param endpoints sluice.ServingEndpoints
---@param name string
---@param given sluice.WaitOptions
---@param origin { started: number, is_new?: boolean, config?: any } when the operation began; whether it was a creation, and of what
---@return table? endpoint
---@return sluice.Error? err
function waiter.wait(endpoints, name, given, origin)
  local timeout = given.timeout or DEFAULT_TIMEOUT
  local look, last, last_error = 0, nil, nil
  while true do
    local left = origin.started + timeout - task.now()
    if look > 0 and left < MOMENT then return nil, timed_out(name, timeout, last, last_error) end
    local endpoint, err = endpoints:get(name, { timeout = math.max(1, math.min(60, left)) })
    local elapsed = task.now() - origin.started
    if endpoint then
      last, last_error = endpoint, nil
      if given.on_poll then given.on_poll(endpoint, elapsed) end
      local verdict, why = waiter.judge(endpoint)
      if verdict == "ready" then return endpoint end
      if verdict == "failed" then return nil, failure(name, endpoint, why .. misspelt(origin.config)) end
    elseif goes_on(err, origin, elapsed) then
      last_error = err
    else
      return nil, err
    end
    look = look + 1
    task.sleep(math.min(pause_before(look), math.max(0, origin.started + timeout - task.now())))
  end
end

return waiter
