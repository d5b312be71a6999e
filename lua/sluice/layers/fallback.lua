-- SPDX-License-Identifier: MIT
-- The layer that asks other endpoints when the first one cannot answer: graceful degradation.

local errors = require "sluice.errors"
local layers = require "sluice.layers"
local meta = require "sluice.meta"
local options = require "sluice.options"

---One endpoint that was asked in vain.
---@class sluice.FallbackFailure
---@field endpoint string? its name
---@field error sluice.Error

---@class sluice.FallbackOptions
---@field [integer] sluice.Endpoint asked in this order
---@field on? string[]|fun(err: sluice.Error): boolean after which errors: kinds, with those below them, or a function; see layers.fallback
---@field on_fallback? fun(err: sluice.Error, endpoint: sluice.Endpoint) called before another endpoint is asked
local FALLBACK = { on = "callable|table?", on_fallback = "callable?" }

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

-- A served model is one of the first endpoint's.
local function options_for_others(given)
  if not given or given.served_model == nil then return given end
  local copy = {}
  for name, value in pairs(given) do
    if name ~= "served_model" then copy[name] = value end
  end
  return copy
end

local function answered(value, endpoint, failures)
  local kind = type(value)
  if kind ~= "table" and kind ~= "userdata" then return value end
  return meta.set(value, { answered_by = endpoint.name, degraded = failures })
end

local function failed(err, failures)
  if errors.is(err) and failures then
    err.fallbacks = failures
    if err.cause == nil then err.cause = failures[1].error end
  end
  return nil, err
end

---Makes a layer that asks the given endpoints, one after the other, when the one inside fails: after
---429, 5xx, no connection, a time limit, a broken answer, an endpoint or model that is not there, a full
---queue, an open circuit. Not after a request that is wrong or not allowed. Of a stream, until its first
---content, never after. The first to answer is `answered_by` in the meta of its answer, and those before
---it are `degraded`, an array of { endpoint, error }. When nobody answers, the last err has them as
---`fallbacks`, the first of them as `cause`.
---@param given sluice.FallbackOptions
---@return sluice.Layer
local function fallback_layer(given)
  local endpoints, named = split(given)
  local on, on_fallback = rule_of(named.on), named.on_fallback

  local function ask(method)
    return function(inner, request, query_options)
      local endpoint, failures, at = inner, nil, 0
      while true do
        local value, err = endpoint[method](endpoint, request, query_options)
        if value ~= nil then return answered(value, endpoint, failures), err end
        repeat at = at + 1 until not endpoints[at] or endpoints[at][method]
        local following = endpoints[at]
        if not following or not errors.is(err) or err.kind == "TaskCancelled" or not on(err) then
          return failed(err, failures)
        end
        failures = failures or {}
        failures[#failures + 1] = { endpoint = endpoint.name, error = err }
        if on_fallback then on_fallback(err, following) end
        endpoint, query_options = following, options_for_others(query_options)
      end
    end
  end

  return layers.around { query = ask "query", stream = ask "stream" }
end

return fallback_layer
