-- SPDX-License-Identifier: MIT
-- The layer that makes a span of each query and each stream.

local attributes = require "sluice.trace.attributes"
local exporters = require "sluice.trace.exporter"
local meta = require "sluice.meta"
local observation = require "sluice.observation"
local options = require "sluice.options"
local samplers = require "sluice.trace.sampler"
local spans = require "sluice.trace.span"
local task = require "sluice.core.task"

---@class sluice.TraceOptions
---@field exporter? sluice.trace.Exporter|false who is given the spans: anything with `export(self, span)`; what OTEL_EXPORTER_OTLP_ENDPOINT says; false: nobody
---@field sample? number which share of new traces is recorded: what OTEL_TRACES_SAMPLER says, else 1; where who called has decided, that holds
---@field contents? boolean also what is asked and answered (false)
---@field provider? string gen_ai.provider.name; that of the endpoint
local TRACE <const> = {
  exporter = function(value)
    local kind = type(value)
    return value == false or (kind == "table" or kind == "userdata") and value.export ~= nil,
      "an object with the method export, or false"
  end,
  sample = function(value)
    return value == nil or samplers.check(value), "a number from 0 to 1"
  end,
  contents = "boolean?",
  provider = "name?",
}

local function name_of(facts)
  local model = type(facts.model) == "string" and facts.model or facts.endpoint
  return model and facts.operation .. " " .. model or facts.operation
end

-- What follows the first content of a stream is a part of its own.
local function add_stream(span, facts)
  local opened = span.opened
  if not opened then return end
  local part = spans.start("stream", spans.INTERNAL, span)
  part.started = opened
  part:finish(facts.outcome == "error" and facts.error_kind or nil)
end

-- The task goes on to something else.
local function open(span, facts)
  span.opened = task.now()
  span:leave()
  if span.sampled then meta.set(facts.value, { trace = span }) end
end

local function finish(span, facts, provider, contents)
  if span.sampled then
    attributes.of_query(span, facts, provider, contents)
    local of = facts.value
    if of == nil then of = facts.error end
    if type(of) == "table" then meta.set(of, { trace = span }) end
    if facts.streamed then add_stream(span, facts) end
  end
  spans.finish(span, facts.outcome == "error" and facts.error_kind or nil)
end

---Makes a layer that makes a span of each query and each stream, by OpenTelemetry's conventions for generative AI, and
---within it one for each try, each look into a cache and each request over the wire, to whom the trace is told by
---traceparent. It goes around those layers. In the meta of an answer, or of an err: `trace`, the span, whose tostring
---is a waterfall. Neither contents nor secrets are noted, unless `contents` says so.
---@param given? sluice.TraceOptions
---@return sluice.Layer
local function trace_layer(given)
  given = options.check("layers.trace", given, TRACE)
  local exporter, contents, is_recorded = given.exporter, given.contents, samplers.new(given.sample)
  if exporter == nil then exporter = exporters.shared() end
  exporter = exporter or nil
  spans.is_on = true

  return function(inner)
    local provider = given.provider or inner.provider
    local own <const> = {} -- the key of this layer's span in the facts, which other layers share

    local function started(facts)
      local around = spans.active()
      if around and not around.sampled then return end
      local sampled = around ~= nil or is_recorded()
      facts[own] = spans.enter(spans.start(name_of(facts), spans.CLIENT, around, exporter, sampled))
    end

    local function opened(facts)
      if facts[own] then open(facts[own], facts) end
    end

    local function ended(facts)
      if facts[own] then finish(facts[own], facts, provider, contents) end
    end

    return observation.layer { started = started, opened = opened, ended = ended } (inner)
  end
end

return trace_layer
