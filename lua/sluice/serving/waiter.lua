-- SPDX-License-Identifier: MIT
-- Waiting for a serving endpoint: how often to look, how long, and what is told meanwhile and at a failure.

local buildlog = require "sluice.serving.buildlog"
local config = require "sluice.serving.config"
local errors = require "sluice.errors"
local options = require "sluice.options"
local state = require "sluice.serving.state"
local system = require "sluice.core.system"
local task = require "sluice.task"

local waiter = {}

---@class sluice.WaitOptions
---@field timeout? number seconds for all of it, 1200; large models take longer
---@field on_poll? fun(endpoint: table, elapsed: number) called after each look that was answered, the last one too
---@field progress? boolean|sluice.ProgressOutput true: the state on standard error, as a row of a terminal that is redrawn, or a line at each change; false
---@type sluice.OptionSpec
waiter.OPTIONS = { timeout = "seconds?", on_poll = "callable?", progress = "boolean|table?" }

local DEFAULT_TIMEOUT <const> = 20 * 60

-- Seconds between looks: an emulator is ready in no time, a real deployment takes minutes.
local DELAYS <const> = { 0.2, 0.3, 0.5, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10 }

-- For how long the server that is asked may still know nothing of a creation or an update.
local NEW_GRACE <const> = 30

-- For how long an update may go on after a deployment of it has failed: it ends by itself, or never.
local STUCK_GRACE <const> = 60

-- Of one look, and the least that the first and the last one get.
local LOOK <const>, SHORT_LOOK <const> = 60, 1

-- Less than this is no time to wait: a sleep of under a microsecond does not move the clock.
local MOMENT <const> = 0.001

-- What task.timeout calls its limit: of a look that the end of the wait cut off.
local OWN_LIMIT <const> = "task.timeout"

---What is known of the operation that is waited for.
---@class sluice.serving.Origin
---@field started number when it began
---@field is_new? boolean whether it is a creation
---@field config? any what was sent
---@field version? integer the config_version that the update leads to

local ENTITIES <const> = { "served_entities", "served_models" }

-- The service ignores keys that it does not know, so a misspelt `served_entities` shows only here.
local function misspelt(sent)
  for key in pairs(config.table_of(sent)) do
    local near = type(key) == "string" and options.nearest(key, ENTITIES)
    if near and near ~= key then return (': the config has "%s" (did you mean "%s"?)'):format(key, near) end
  end
  return ""
end

-- After a failure the pending config may be gone; what the last look at it showed is the best that is known.
local function failure(watch, endpoint, why)
  local entities = state.entities(endpoint)
  if #state.failed(entities) == 0 and watch.pending then entities = watch.pending end
  local failed = state.failed(entities)
  if #failed > 0 and not why:find(failed[1].text, 1, true) then why = why .. ": " .. failed[1].text end
  local name, log = buildlog.tail(watch.endpoints, watch.name, entities)
  return errors.new("OperationFailed", {
    operation = "wait for endpoint",
    object = watch.name,
    message = why .. misspelt(watch.origin.config),
    endpoint = endpoint,
    served_entity = name or (failed[1] and failed[1].name),
    build_log = log,
    cause = log and ("the build log of %s ends with\n%s"):format(name, log),
  })
end

local function timed_out(name, timeout, last, last_error)
  return errors.new("OperationTimeout", {
    operation = "wait for endpoint",
    object = name,
    message = ("not ready after %g s: %s"):format(timeout, state.describe(last)),
    limit = "wait",
    endpoint = last,
    cause = last_error,
  })
end

-- Whether an answer is from before the update that is waited for.
local function is_stale(watch, endpoint)
  local version = watch.origin.version
  if not version or watch.elapsed >= NEW_GRACE then return false end
  if config.given(endpoint.pending_config) ~= nil then return false end
  local its = math.tointeger(tonumber(config.table_of(endpoint.config).config_version))
  return its ~= nil and its < version
end

-- Whether an update has gone on for long although a deployment of it has failed.
local function is_stuck(watch, endpoint)
  if #state.failed(state.entities(endpoint)) == 0 then
    watch.failing_since = nil
    return false
  end
  watch.failing_since = watch.failing_since or watch.elapsed
  return watch.elapsed - watch.failing_since >= STUCK_GRACE
end

local function verdict_on(watch, endpoint)
  local verdict, why = state.judge(endpoint)
  if verdict == "ready" and is_stale(watch, endpoint) then return "waiting" end
  if verdict == "waiting" and is_stuck(watch, endpoint) then
    return "failed", state.failed(state.entities(endpoint))[1].text
  end
  return verdict, why
end

-- Whether the wait goes on after a look that failed: what is new may be unknown for a moment, and a service that is
-- away for a minute does not end a deployment of twenty. A server that has answered once is no wrong address.
local function goes_on(watch, err)
  if not errors.is(err) then return false end
  if err.limit == OWN_LIMIT then return true end
  if err:is "NotFound" then return watch.origin.is_new and watch.elapsed < NEW_GRACE end
  if err.retryable then return true end
  local has_answered = watch.last ~= nil or watch.origin.is_new or watch.origin.version ~= nil
  return has_answered and (err:is "ConnectError" or err:is "ProtocolError")
end

local function look(watch)
  local left = watch.stop_at - task.now()
  local seconds = watch.looks == 0 and math.max(SHORT_LOOK, left) or left
  watch.looks = watch.looks + 1
  local given = { timeout = math.min(LOOK, seconds) }
  local endpoint, err = task.timeout(seconds, watch.endpoints.get, watch.endpoints, watch.name, given)
  watch.elapsed = task.now() - watch.origin.started
  return endpoint, err
end

local function tell(watch, endpoint, err)
  if endpoint and watch.given.on_poll then watch.given.on_poll(endpoint, watch.elapsed) end
  if not watch.status then return end
  local text = (endpoint or watch.last) and state.summary(endpoint or watch.last)
  if err then text = (text and text .. ", " or "") .. "no answer just now: " .. tostring(err.message) end
  watch.status:set(text)
end

-- Sleeps until the next look; a status line shows the seconds meanwhile.
local function pause(watch)
  local delay = DELAYS[math.min(watch.looks, #DELAYS)]
  delay = delay + system.random_float() * math.min(1, delay / 4)
  local next_look, last_look = task.now() + delay, watch.stop_at - SHORT_LOOK
  -- once more shortly before the end: what became ready since the look before must not be given up
  local is_before = task.now() < last_look - MOMENT
  next_look = math.min(next_look, is_before and last_look or watch.stop_at)
  repeat
    local left = math.max(0, next_look - task.now())
    task.sleep(watch.status and math.min(1, left) or left)
    if watch.status then watch.status:set() end
  until next_look - task.now() < MOMENT
end

local function follow(watch)
  while true do
    local endpoint, err = look(watch)
    if endpoint then
      watch.last, watch.last_error = endpoint, nil
      tell(watch, endpoint)
      local verdict, why = verdict_on(watch, endpoint)
      if verdict == "ready" then return endpoint end
      if verdict == "failed" then return nil, failure(watch, endpoint, why) end
      if type(endpoint.pending_config) == "table" then watch.pending = state.entities(endpoint) end
    elseif goes_on(watch, err) then
      -- a look that the end of the wait cut off tells less than the one before
      if err.limit ~= OWN_LIMIT or not watch.last_error then watch.last_error = err end
      tell(watch, nil, err)
    else
      return nil, err
    end
    if watch.stop_at - task.now() >= MOMENT then pause(watch) end
    if watch.stop_at - task.now() < MOMENT then
      return nil, timed_out(watch.name, watch.timeout, watch.last, watch.last_error)
    end
  end
end

local function open_status(name, given)
  if not given.progress then return nil end
  local output = type(given.progress) == "table" and given.progress or nil
  return require("sluice.progress").status { label = name, output = output }
end

---Looks at an endpoint until it is ready, has failed, or the time is over. Waits.
---@param endpoints sluice.ServingEndpoints
---@param name string
---@param given sluice.WaitOptions
---@param origin sluice.serving.Origin
---@return table? endpoint
---@return sluice.Error? err
function waiter.wait(endpoints, name, given, origin)
  local timeout = given.timeout or DEFAULT_TIMEOUT
  local status <close> = open_status(name, given)
  return follow {
    endpoints = endpoints,
    name = name,
    given = given,
    origin = origin,
    timeout = timeout,
    stop_at = origin.started + timeout,
    looks = 0,
    elapsed = 0,
    status = status,
  }
end

---Starts an operation, and waits for the endpoint it is about. Waits.
---@param endpoints sluice.ServingEndpoints
---@param name string
---@param given sluice.WaitOptions
---@param kind "new"|"update"
---@param sent any the config
---@param start fun(): table?, sluice.Error? makes the call
---@return table? endpoint
---@return sluice.Error? err
function waiter.after(endpoints, name, given, kind, sent, start)
  local started, timeout = task.now(), given.timeout or DEFAULT_TIMEOUT
  local answer, err = task.timeout(timeout, start)
  if not answer then
    local is_over = errors.is(err) and err.limit == OWN_LIMIT and task.now() - started >= timeout
    return nil, is_over and timed_out(name, timeout, nil, err) or err
  end
  return waiter.wait(endpoints, name, given, {
    started = started,
    is_new = kind == "new",
    config = sent,
    version = math.tointeger(tonumber(config.table_of(answer.pending_config).config_version)),
  })
end

return waiter
