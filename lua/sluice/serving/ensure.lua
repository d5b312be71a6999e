-- SPDX-License-Identifier: MIT
-- An endpoint that must be there, however it came to be: get_or_create, create_or_update, exists.

local config = require "sluice.serving.config"
local drift = require "sluice.serving.drift"
local errors = require "sluice.errors"
local meta = require "sluice.meta"
local state = require "sluice.serving.state"
local task = require "sluice.task"
local waiter = require "sluice.serving.waiter"

local ensure = {}

-- Whether the server says that there is no such endpoint, rather than no such path.
local function is_missing(err)
  return errors.is(err) and err:is "NotFound" and err.code ~= "ENDPOINT_NOT_FOUND"
end

---Whether there is an endpoint of this name. Waits.
---@param endpoints sluice.ServingEndpoints
---@param name string
---@param given? table
---@return boolean? there
---@return sluice.Error? err
function ensure.exists(endpoints, name, given)
  local endpoint, err = endpoints:get(name, given)
  if endpoint then return true end
  if is_missing(err) then return false end
  return nil, err
end

local function report(endpoint, wanted, created)
  local differences = not created and drift.between(wanted, endpoint) or nil
  if differences then
    local fields = { endpoint = wanted.name, drift = differences }
    require("sluice.log").warn("endpoint differs from what is wanted", fields)
  end
  return meta.set(endpoint, { created = created, drift = differences })
end

-- What is left of the time for all.
local function rest_of(given, started)
  local rest = {}
  for name, value in pairs(given) do rest[name] = value end
  if given.timeout then rest.timeout = math.max(0, given.timeout - (task.now() - started)) end
  return rest
end

-- An endpoint that answers is taken as it is, though the last update of it may have failed.
local function until_ready(endpoints, wanted, endpoint, given, started, created)
  local err
  if not (endpoint and state.of(endpoint) == "READY") then
    local origin = { started = started, is_new = endpoint == nil, config = created and wanted.config or nil }
    endpoint, err = waiter.wait(endpoints, wanted.name, given, origin)
    if not endpoint then return nil, err end
  end
  return report(endpoint, wanted, created)
end

-- Somebody else was faster; or our own creation was, whose answer was lost.
local function may_be_there(err)
  if not errors.is(err) or err.kind == "OperationTimeout" then return false end
  return err:is "ResourceConflict" or err.maybe_executed == true
end

---The endpoint of this name, created where there is none. Waits until it is ready.
---@param endpoints sluice.ServingEndpoints
---@param wanted table the body for `create`
---@param given sluice.WaitOptions
---@return table? endpoint
---@return sluice.Error? err
function ensure.get_or_create(endpoints, wanted, given)
  local started = task.now()
  local endpoint, err = endpoints:get(wanted.name)
  if endpoint then return until_ready(endpoints, wanted, endpoint, given, started, false) end
  if not is_missing(err) then return nil, err end
  endpoint, err = endpoints:create_and_wait(wanted, rest_of(given, started))
  if endpoint then return report(endpoint, wanted, true) end
  if not may_be_there(err) then return nil, err end
  local reason = err
  endpoint, err = until_ready(endpoints, wanted, nil, given, started, false)
  if not endpoint and is_missing(err) then err = reason end
  return endpoint, err
end

-- ---- create_or_update ----

-- Parts that a call of their own changes, in the order in which they are changed; then the config.
local CHANGES <const> = {
  { part = "tags", change = function(endpoints, wanted)
    return endpoints:patch(wanted.name, { add_tags = wanted.tags })
  end },
  { part = "ai_gateway", change = function(endpoints, wanted)
    return endpoints:put_ai_gateway(wanted.name, wanted.ai_gateway)
  end },
  { part = "email_notifications", change = function(endpoints, wanted)
    return endpoints:update_notifications(wanted.name, { email_notifications = wanted.email_notifications })
  end },
}
local FIXED <const> = { "description", "route_optimized" }

local function touches(differences, part)
  for _, each in ipairs(differences or {}) do
    if each.path:match("^[^.]*") == part then return each end
  end
  return nil
end

local function refuse_fixed(wanted, differences)
  for _, part in ipairs(FIXED) do
    local found = touches(differences, part)
    if found then
      return errors.new("OperationFailed", {
        operation = "update endpoint",
        object = wanted.name,
        message = ("%s; the service fixes this at the creation: delete the endpoint and create it again")
          :format(tostring(found)),
      })
    end
  end
  return nil
end

-- An update under way ends first: another one meanwhile is a conflict. How it ends does not matter here.
local function settled(endpoints, wanted, endpoint, given, started)
  local _, update = state.of(endpoint)
  if endpoint and update ~= "IN_PROGRESS" then return endpoint end
  local origin = { started = started, is_new = endpoint == nil }
  local ready, err = waiter.wait(endpoints, wanted.name, given, origin)
  if ready then return ready end
  if errors.is(err) and err.kind == "OperationFailed" then return err.endpoint end
  return nil, err
end

local function apply(endpoints, wanted, endpoint, given, started)
  local differences = drift.between(wanted, endpoint)
  local err = refuse_fixed(wanted, differences)
  if err then return nil, err end
  for _, each in ipairs(CHANGES) do
    if touches(differences, each.part) then
      local done, failure = each.change(endpoints, wanted)
      if not done then return nil, failure end
    end
  end
  local is_broken = config.given(wanted.config) ~= nil and state.judge(endpoint) == "failed"
  local after
  if touches(differences, "config") or is_broken then
    after, err = endpoints:update_config_and_wait(wanted.name, wanted.config, rest_of(given, started))
  elseif differences or state.judge(endpoint) ~= "ready" then
    after, err = waiter.wait(endpoints, wanted.name, given, { started = started })
  else
    after = endpoint
  end
  if not after then return nil, err end
  return meta.set(after, { created = false, updated = differences or is_broken or false })
end

---The endpoint of this name as the body says: created where there is none, changed where it differs. Waits until it
---is ready.
---@param endpoints sluice.ServingEndpoints
---@param wanted table the body for `create`
---@param given sluice.WaitOptions
---@return table? endpoint
---@return sluice.Error? err
function ensure.create_or_update(endpoints, wanted, given)
  local started = task.now()
  local endpoint, err = endpoints:get(wanted.name)
  if not endpoint then
    if not is_missing(err) then return nil, err end
    endpoint, err = endpoints:create_and_wait(wanted, rest_of(given, started))
    if endpoint then return meta.set(endpoint, { created = true, updated = false }) end
    if not may_be_there(err) then return nil, err end
  end
  endpoint, err = settled(endpoints, wanted, endpoint, given, started)
  if not endpoint then return nil, err end
  return apply(endpoints, wanted, endpoint, given, started)
end

return ensure
