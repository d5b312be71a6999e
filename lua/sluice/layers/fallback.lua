-- SPDX-License-Identifier: MIT
-- The layer that asks other endpoints when the first one cannot answer: graceful degradation.

local errors = require "sluice.errors"
local layers = require "sluice.layers"
local meta = require "sluice.meta"
local options = require "sluice.options"
local task = require "sluice.task"

---One endpoint that was asked in vain.
---@class sluice.FallbackFailure
---@field endpoint string? its name
---@field error sluice.Error

---@class sluice.FallbackOptions
---@field [integer] sluice.Endpoint asked in this order
---@field on? string[]|fun(err: sluice.Error): boolean after which errors: kinds, with those below them, or a function; see layers.fallback
---@field on_fallback? fun(err: sluice.Error, endpoint: sluice.Endpoint) called before another endpoint is asked
---@field max_wait? number seconds that a request waits where all endpoints are left alone, 60; the limits `queue` and `total` of the request and deadlines around it hold as well
local FALLBACK = { on = "callable|table?", on_fallback = "callable?", max_wait = "seconds?" }

local MAX_WAIT <const> = 60

-- What another endpoint may do better: this one is in trouble, cannot be reached, is not there, or speaks
-- nonsense. Not what the request or the caller is to blame for: that would be hidden, and paid for.
local KINDS <const> = {
  ServiceError = true, TooManyRequests = true, NotFound = true, ConnectError = true, TLSError = true,
  TimeoutError = true, ProtocolError = true, QueueFull = true, CircuitOpen = true,
}

local function by_default(err)
  return err.retryable or errors.nearest(err.kind, KINDS) or false
end

local function by_kinds(kinds)
  if #kinds == 0 then options.misuse 'layers.fallback: option "on" must name kinds, or be a function' end
  for _, kind in ipairs(kinds) do
    local problem = errors.unknown_kind(kind)
    if problem then options.misuse("layers.fallback: on: %s", problem) end
  end
  return function(err)
    for _, kind in ipairs(kinds) do
      if err:is(kind) then return true end
    end
    return false
  end
end

local function rule_of(on)
  if on == nil then return by_default end
  if type(on) == "table" and not (getmetatable(on) or {}).__call then return by_kinds(on) end
  return on
end

-- The endpoints, and the options by name.
local function split(given)
  options.argument("layers.fallback", "endpoints", given, "table")
  local endpoints, named = {}, {}
  for key, value in pairs(given) do
    if math.type(key) ~= "integer" then named[key] = value end
  end
  for index, endpoint in ipairs(given) do
    local kind = type(endpoint)
    if (kind ~= "table" and kind ~= "userdata") or not endpoint.query then
      options.misuse("layers.fallback: %d must be an endpoint, got %s", index, options.type_name(endpoint))
    end
    endpoints[index] = endpoint
  end
  if #endpoints == 0 then options.misuse "layers.fallback: at least one endpoint is needed" end
  return endpoints, options.check("layers.fallback", named, FALLBACK)
end

-- A served model and a variant are of the first endpoint's.
local function options_for_others(given)
  if not given or given.served_model == nil and given.variant == nil then return given end
  local copy = {}
  for name, value in pairs(given) do
    if name ~= "served_model" and name ~= "variant" then copy[name] = value end
  end
  return copy
end

local function answered(value, endpoint, failures)
  local kind = type(value)
  if kind ~= "table" and kind ~= "userdata" then return value end
  local variant = failures and meta.get(failures[1].error).variant -- of a traffic.split, which is charged with it
  return meta.set(value, { answered_by = endpoint.name, degraded = failures, variant = variant })
end

local function failed(err, failures)
  if errors.is(err) and failures then
    err.fallbacks = failures
    if err.cause == nil then err.cause = failures[1].error end
  end
  return nil, err
end

-- ---- endpoints that are left alone ----

local function left_alone(endpoint, seconds, text, ...)
  return errors.new("CircuitOpen", {
    operation = "query", object = endpoint.name, retry_after = seconds, message = text:format(...),
  })
end

-- Asks one, unless it says that it is to be left alone. Its answer; or nil, its err, and where it turned the request
-- away for how many seconds.
local function ask_one(endpoint, method, request, given)
  local seconds = layers.available_in(endpoint)
  if seconds > 0 then
    return nil, left_alone(endpoint, seconds, "it is left alone for %.3g s more", seconds), seconds
  end
  local value, err = endpoint[method](endpoint, request, given)
  if value ~= nil or not errors.is(err) or err.kind ~= "CircuitOpen" then return value, err end
  return nil, err, err.retry_after or 1
end

-- Sleeping for exactly what is missing may wake a rounding error too early.
local SLACK <const> = 1e-6

-- Waits for the first to return; nothing is waited for, and the result is false, where that is too late for the request.
local function wait_for_first(self, seconds, given, started)
  local timeout = given and given.timeout
  if type(timeout) == "number" then timeout = { total = timeout } end
  local most = self.max_wait
  if timeout then most = math.min(most, timeout.queue or math.huge, timeout.total or math.huge) end
  if seconds > math.min(started + most - task.now(), task.time_left()) then return false end
  task.sleep(seconds + SLACK)
  return true
end

-- ---- the layer ----

local function following_of(self, method, at)
  repeat at = at + 1 until not self.endpoints[at] or self.endpoints[at][method]
  return self.endpoints[at], at
end

-- Asks one after the other. What came of it; where all of them turned the request away, in how many seconds the
-- first one will not, and those they are.
local function ask_all(self, method, inner, request, given)
  local endpoint, failures, at, soonest = inner, nil, 0, math.huge
  while true do
    local value, err, seconds = ask_one(endpoint, method, request, given)
    if value ~= nil then return answered(value, endpoint, failures), err end
    soonest = seconds and soonest and math.min(soonest, seconds)
    local following
    following, at = following_of(self, method, at)
    local goes_on = errors.is(err) and err.kind ~= "TaskCancelled" and self.on(err)
    if not goes_on or not following and not soonest then return failed(err, failures) end
    failures = failures or {}
    failures[#failures + 1] = { endpoint = endpoint.name, error = err }
    if not following then return nil, nil, soonest, failures end
    if self.on_fallback then self.on_fallback(err, following) end
    endpoint, given = following, options_for_others(given)
  end
end

local function time_left(given, started)
  if not given or not given.timeout then return given end
  local limits = require("sluice.endpoints.client").limits_left(given.timeout, started)
  return layers.with_options(given, { timeout = limits })
end

local function ask(self, method, inner, request, given)
  local value, err, soonest, failures = ask_all(self, method, inner, request, given)
  if not soonest then return value, err end
  local started, first = task.now(), given
  repeat
    if not wait_for_first(self, soonest, first, started) then
      local text = "all %d endpoints are left alone; the first one returns in %.3g s"
      return failed(left_alone(inner, soonest, text, #failures, soonest), failures)
    end
    given = time_left(first, started)
    value, err, soonest, failures = ask_all(self, method, inner, request, given)
  until not soonest
  return value, err
end

---Makes a layer that asks the given endpoints, one after the other, when the one inside fails: after
---429, 5xx, no connection, a time limit, a broken answer, an endpoint or model that is not there, a full
---queue, an open circuit. Not after a request that is wrong or not allowed. Of a stream, until its first
---content, never after. One that is to be left alone (an open breaker, a pause after a 429, one that a monitor knows
---to be down) is passed over; where all are, the request waits for the first to return, at most `max_wait` seconds.
---The first to answer is `answered_by` in the meta of its answer, and those before
---it are `degraded`, an array of { endpoint, error }. When nobody answers, the last err has them as
---`fallbacks`, the first of them as `cause`.
---@param given sluice.FallbackOptions
---@return sluice.Layer
local function fallback_layer(given)
  local endpoints, named = split(given)
  local self = {
    endpoints = endpoints, on = rule_of(named.on), on_fallback = named.on_fallback,
    max_wait = named.max_wait or MAX_WAIT,
  }

  local function available_in(inner)
    local seconds = layers.available_in(inner)
    for _, endpoint in ipairs(endpoints) do
      if seconds <= 0 then break end
      seconds = math.min(seconds, layers.available_in(endpoint))
    end
    return seconds
  end

  return function(inner)
    return layers.around {
      query = function(_, request, query_options)
        if query_options and query_options.probe then return inner:query(request, query_options) end
        return ask(self, "query", inner, request, query_options)
      end,
      stream = function(_, request, query_options)
        return ask(self, "stream", inner, request, query_options)
      end,
      fields = { available_in = function() return available_in(inner) end },
    } (inner)
  end
end

return fallback_layer
