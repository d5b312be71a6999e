-- SPDX-License-Identifier: MIT
-- The layer that counts requests, and what the layers inside of it do.

local meta = require "sluice.meta"
local metrics = require "sluice.metrics"
local names = require "sluice.metrics.names"
local observation = require "sluice.observation"
local options = require "sluice.options"
local sources = require "sluice.metrics.sources"
local stream = require "sluice.stream"
local core = require "sluice.core.task"

local now = core.now

---@class sluice.MetricsOptions
---@field registry sluice.metrics.Registry
---@field provider? string who serves the model, as OpenTelemetry's gen_ai.provider.name; what the endpoint says of itself
local METRICS <const> = {
  registry = function(value) return metrics.is_registry(value), "made by metrics.registry" end,
  provider = "name?",
}

-- The metrics in a registry, by our own names for them.
local function kit_of(registry)
  local kit = {}
  for kind, list in pairs { histogram = names.histograms, counter = names.counters, gauge = names.gauges } do
    for key, given in pairs(list) do kit[key] = registry[kind](registry, given) end
  end
  return kit
end

local function text(value)
  return type(value) == "string" and value or ""
end

local function endpoint_of(facts)
  return text(facts.endpoint or facts.model)
end

-- ---- the series of an endpoint, once they are known ----

-- Of those that are kept here; more are looked up each time. What there may be of them the registry says.
local MOST_KEPT <const> = 200

-- A table that makes what it does not have, and keeps the first of it.
local function kept(make)
  local count = 0
  return setmetatable({}, { __index = function(self, key)
    local made = make(key)
    if count < MOST_KEPT then self[key], count = made, count + 1 end
    return made
  end })
end

-- The distributions of one operation, by one served model, in one variant.
local function new_operation(its, endpoint, operation, served, variant)
  local kit, provider = its.kit, its.provider
  local function series(family, ...)
    return family:labels(operation, provider, endpoint, served, variant, ...)
  end
  local self = kept(function(key)
    if key == "input" or key == "output" then return series(kit.tokens, key) end
    return series(kit[key]) -- gap or first_chunk
  end)
  self.durations = kept(function(error_type) return series(kit.duration, error_type) end)
  return self
end

local function new_endpoint(its, endpoint)
  local kit = its.kit
  local self = {
    active = kit.active:labels(endpoint), pool_wait = kit.pool_wait:labels(endpoint),
    outcomes = kept(function(outcome) return kit.requests:labels(endpoint, outcome) end),
  }
  self.operations = kept(function(operation)
    return kept(function(served)
      return kept(function(variant) return new_operation(its, endpoint, operation, served, variant) end)
    end)
  end)
  return self
end

-- ---- counting ----

local function count_events(kit, facts, endpoint, variant)
  if facts.attempts > 1 then kit.retries:labels(endpoint):inc(facts.attempts - 1) end
  if facts.cache then kit.cache:labels(endpoint, facts.cache):inc() end
  if variant ~= "" then kit.assignments:labels(endpoint, variant):inc() end
  if facts.error_kind == "TruncatedStream" then kit.truncated:labels(endpoint):inc() end
  if facts.degraded then
    kit.degraded:labels(endpoint, text(facts.answered_by), text(facts.degraded)):inc()
  end
end

local function count_times(mine, facts, variant)
  local served = text(facts.served_model or facts.answer_model)
  local series = mine.operations[facts.operation][served][variant]
  series.durations[facts.outcome == "error" and text(facts.error_kind) or ""]:observe(facts.duration)
  if facts.streamed and facts.ttft then series.first_chunk:observe(facts.ttft) end
  local input, output = facts.input_tokens, facts.output_tokens
  if input then series.input:observe(input) end
  if output then series.output:observe(output) end
  local known = facts.value ~= nil and meta.at_hand(facts.value)
  local wait = known and known.timing and known.timing.queue
  if wait then mine.pool_wait:observe(wait) end
end

local function count(its, facts)
  local endpoint, variant = endpoint_of(facts), text(facts.variant)
  local mine = its.endpoints[endpoint]
  mine.active:dec()
  mine.outcomes[facts.outcome]:inc()
  count_events(its.kit, facts, endpoint, variant)
  if facts.outcome ~= "aborted" then count_times(mine, facts, variant) end
end

-- The time between chunks is the reader's too: a stream is held back by who reads it slowly.
local function watch_chunks(its, facts)
  local known, last = meta.get(facts.value), nil
  local mine = its.endpoints[endpoint_of(facts)]
  local gap = mine.operations[facts.operation][text(known.served_model)][text(known.variant)].gap
  stream.watch(facts.value, nil, function()
    local at = now()
    if last then gap:observe(at - last) end
    last = at
  end)
end

---Makes a layer that counts requests into a registry: times, tokens, outcomes, retries, cache results, variants,
---broken streams; and that has the registry read what the layers inside of it know: breakers, budgets of retries,
---hedges, limits. A caller who leaves is no error. docs/metrics.md lists the metrics.
---@param given sluice.MetricsOptions
---@return sluice.Layer
local function metrics_layer(given)
  given = options.check("layers.metrics", given, METRICS)
  local registry = given.registry
  if not registry then options.misuse 'layers.metrics: option "registry" is missing' end
  local kit = kit_of(registry)

  return function(inner)
    sources.add(registry, inner)
    local its = { kit = kit, provider = given.provider or text(inner.provider) }
    its.endpoints = kept(function(endpoint) return new_endpoint(its, endpoint) end)
    local _ = its.endpoints[text(inner.name)] -- shown before it is asked
    return observation.layer {
      identify = false,
      started = function(facts) its.endpoints[endpoint_of(facts)].active:inc() end,
      opened = function(facts) watch_chunks(its, facts) end,
      ended = function(facts) count(its, facts) end,
    } (inner)
  end
end

return metrics_layer
