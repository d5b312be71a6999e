-- SPDX-License-Identifier: MIT
-- Traces: spans by OpenTelemetry's conventions, told on by W3C's traceparent, sent to a collector by OTLP.

local contexts = require "sluice.trace.context"
local options = require "sluice.options"
local spans = require "sluice.trace.span"

local trace = {}

---Makes an exporter: who is given the spans, and sends them to a collector. Sends nothing yet.
---@param given? sluice.trace.ExporterOptions
---@return sluice.trace.Exporter
function trace.exporter(given)
  local exporter = require("sluice.trace.exporter").new(given)
  return exporter
end

---The exporter of the whole program, as OTEL_EXPORTER_OTLP_ENDPOINT and its relatives say; nil where no collector is
---named. Never waits.
---@return sluice.trace.Exporter?
function trace.shared()
  return require("sluice.trace.exporter").shared()
end

---Reads the header fields of who called, strictly by W3C's Trace Context.
---@param traceparent any
---@param tracestate? any
---@return sluice.trace.Context? context nil where the first is none; its `state` is nil where the second is none
function trace.parse(traceparent, tracestate)
  local context = contexts.parse(traceparent, tracestate)
  return context
end

---The context that whoever the running task asks is told: the span that the task works for, or who called. Never waits.
---@return sluice.trace.Context?
function trace.current()
  return spans.active()
end

---Makes a context the one that the running task works for, and the tasks that it spawns: that of a message that came
---with one, for instance. Never waits.
---@param context? sluice.trace.Context from trace.parse; nil: none
---@return sluice.trace.Context? before what it was
function trace.adopt(context)
  options.argument("trace.adopt", "context", context, "table|userdata?")
  spans.is_on = true
  return require("sluice.task").set_local(spans.LOCAL, context)
end

---Begins a span of one's own, inside of the active one; nil where nothing is recorded. Ends with its block:
---`local span <close> = trace.span "look up"`. `span:set(name, value)` notes attributes. Never waits.
---@param name string
---@return sluice.trace.Span? span a `<close>` value
function trace.span(name)
  options.argument("trace.span", "name", name, "name")
  return spans.inside(name, spans.INTERNAL)
end

return setmetatable(trace, { __index = options.strict("sluice.trace", trace) })
