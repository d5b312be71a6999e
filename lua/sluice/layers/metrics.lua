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

local function endpoint_of(facts)
  local name = facts.endpoint or facts.model
  return type(name) == "string" and name or ""
end

local function text(value)
  return type(value) == "string" and value or ""
end

local function count_tokens(kit, facts, endpoint, served, variant)
  local operation, provider, family = facts.operation, kit.provider, kit.tokens
  if facts.input_tokens then
    family:labels(operation, provider, endpoint, served, variant, "input"):observe(facts.input_tokens)
  end
  if facts.output_tokens then
    family:labels(operation, provider, endpoint, served, variant, "output"):observe(facts.output_tokens)
  end
end

local function count_events(kit, facts, endpoint, variant)
  if facts.attempts > 1 then kit.retries:labels(endpoint):inc(facts.attempts - 1) end
  if facts.cache then kit.cache:labels(endpoint, facts.cache):inc() end
  if variant ~= "" then kit.assignments:labels(endpoint, variant):inc() end
  if facts.error_kind == "TruncatedStream" then kit.truncated:labels(endpoint):inc() end
  if facts.degraded then
    kit.degraded:labels(endpoint, text(facts.answered_by), text(facts.degraded)):inc()
  end
end

local function count_wait(kit, facts, endpoint)
  local known = facts.value ~= nil and meta.at_hand(facts.value)
  local wait = known and known.timing and known.timing.queue
  if wait then kit.pool_wait:labels(endpoint):observe(wait) end
end

local function count(kit, facts)
  local endpoint, variant = endpoint_of(facts), text(facts.variant)
  kit.active:labels(endpoint):dec()
  kit.requests:labels(endpoint, facts.outcome):inc()
  count_events(kit, facts, endpoint, variant)
  if facts.outcome == "aborted" then return end
  local served = text(facts.served_model or facts.answer_model)
  local operation, provider = facts.operation, kit.provider
  local kind = facts.outcome == "error" and text(facts.error_kind) or ""
  kit.duration:labels(operation, provider, endpoint, served, variant, kind):observe(facts.duration)
  if facts.streamed and facts.ttft then
    kit.first_chunk:labels(operation, provider, endpoint, served, variant):observe(facts.ttft)
  end
  count_tokens(kit, facts, endpoint, served, variant)
  count_wait(kit, facts, endpoint)
end

-- The time between chunks is the reader's too: a stream is held back by who reads it slowly.
local function watch_chunks(kit, facts, opened)
  local known = meta.get(opened)
  local gap = kit.gap:labels(facts.operation, kit.provider, endpoint_of(facts), text(known.served_model),
    text(known.variant))
  local last
  stream.watch(opened, nil, function()
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
    kit.active:labels(type(inner.name) == "string" and inner.name or "")
    local its = setmetatable({ provider = given.provider or text(inner.provider) }, { __index = kit })
    return observation.layer {
      identify = false,
      started = function(facts) its.active:labels(endpoint_of(facts)):inc() end,
      opened = function(facts) watch_chunks(its, facts, facts.value) end,
      ended = function(facts) count(its, facts) end,
    } (inner)
  end
end

return metrics_layer
