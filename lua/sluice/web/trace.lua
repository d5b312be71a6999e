-- SPDX-License-Identifier: MIT
-- A span for each request that an app answers, within the trace of who asks.

local contexts = require "sluice.trace.context"
local exporters = require "sluice.trace.exporter"
local headers = require "sluice.headers"
local options = require "sluice.options"
local samplers = require "sluice.trace.sampler"
local spans = require "sluice.trace.span"
local streams = require "sluice.web.stream"
local task = require "sluice.task"

local traced = {}

---@class sluice.web.TraceOptions
---@field exporter? sluice.trace.Exporter who is given the spans; what OTEL_EXPORTER_OTLP_ENDPOINT says; where nobody is, no span is made
---@field sample? number which share of new traces is recorded; what OTEL_TRACES_SAMPLER says, else 1
local TRACE <const> = {
  exporter = "table|userdata?",
  sample = function(value) return value == nil or samplers.check(value), "a number from 0 to 1" end,
}

-- A traceparent that came twice is nobody's.
local function caller_of(request)
  local given = request:field "traceparent"
  if not given then return nil end
  local context = contexts.parse(given)
  if not context then return nil end
  context.state = contexts.state(table.concat(headers.all(request.headers, "tracestate"), ","))
  return context
end

local function describe(span, request, status)
  local route = request.route
  if route then span.name = request.method .. " " .. route end
  span.attributes = {
    "http.request.method", request.method, "url.path", request.path, "http.route", route,
    "http.response.status_code", status, "sluice.request_id", request.id, "error.type", nil, n = 10,
  }
end

-- Where the caller leaves, or the server closes, this is the end.
local guard_metatable = { __close = function(guard, err)
  if err == nil then return end
  describe(guard.span, guard.request)
  guard.span:finish(spans.kind_of(err))
end }

local function failure_of(status)
  return status >= 500 and tostring(status) or nil
end

-- The end of an answer is that of its body.
local function finish(span, request, status, fields, body, kind, close, silence)
  describe(span, request, status)
  if type(body) == "string" then
    spans.finish(span, failure_of(status))
    return status, fields, body, kind, close, silence
  end
  span:leave()
  local function ended() span:finish(failure_of(status)) end
  if silence then
    streams.on_close(body, ended)
    return status, fields, body, kind, close, silence
  end
  return status, fields, body, kind, function()
    ended()
    if close then close() end
  end, silence
end

local restored = { __close = function(guard) task.set_local(spans.LOCAL, guard.before) end }

-- What a handler asks belongs to the context, of which nothing is recorded here.
local function within(context, app, request, run)
  local _ <close> = setmetatable({ before = task.set_local(spans.LOCAL, context) }, restored)
  return run(app, request)
end

local function recording(exporter, is_recorded)
  return function(app, request, run)
    local caller = caller_of(request)
    if caller and not caller.sampled then return within(caller, app, request, run) end
    local sampled = caller ~= nil or is_recorded()
    local span = spans.start(request.method, spans.SERVER, caller, exporter, sampled)
    if not sampled then return within(span, app, request, run) end
    local _ <close> = setmetatable({ span = spans.enter(span), request = request }, guard_metatable)
    return finish(span, request, run(app, request))
  end
end

-- Nobody wants spans: what handlers ask belongs to the caller's trace all the same.
local function adopting(app, request, run)
  return within(caller_of(request), app, request, run)
end

---Puts the spans around an app; see web.trace.
---@param app sluice.web.App
---@param given? sluice.web.TraceOptions
---@return sluice.web.App
function traced.around(app, given)
  options.argument("web.trace", "app", app, "table")
  given = options.check("web.trace", given, TRACE)
  local exporter = given.exporter or exporters.shared()
  spans.is_on = true
  app._around = exporter and recording(exporter, samplers.new(given.sample)) or adopting
  return app
end

return traced
