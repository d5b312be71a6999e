-- SPDX-License-Identifier: MIT
-- Middleware: a span for each request that a server answers, within the trace of who asks.

local contexts = require "sluice.trace.context"
local exporters = require "sluice.trace.exporter"
local headers = require "sluice.headers"
local options = require "sluice.options"
local spans = require "sluice.trace.span"
local task = require "sluice.task"

local traced = {}

local TRACE <const> = { exporter = "table|userdata?" }

-- One that came twice is nobody's.
local function caller_of(request)
  local given = headers.all(request.headers, "traceparent")
  if #given ~= 1 then return nil end
  return contexts.parse(given[1], table.concat(headers.all(request.headers, "tracestate"), ","))
end

local function describe(span, request, status)
  local route = request.route
  if route then span.name = request.method .. " " .. route end
  span.attributes = { "http.request.method", request.method, "url.path", request.path }
  span:set("http.route", route)
  span:set("http.response.status_code", status)
  span:set("sluice.request_id", request.id)
end

-- Where a handler raises, or is cancelled, this is the end.
local raised = { __close = function(guard, err)
  if err == nil then return end
  if guard.span.sampled then describe(guard.span, guard.request) end
  guard.span:finish(spans.kind_of(err))
end }

-- Its end is that of the answer's body.
local function finish(span, request, given, err)
  local status = given and given.status or nil
  if span.sampled then describe(span, request, given and (status or 200)) end
  local failure = given == nil and spans.kind_of(err) or status and status >= 500 and tostring(status) or nil
  if not given or given.stream == nil and type(given.body) ~= "function" then return span:finish(failure) end
  span:leave()
  local close = given.close
  given.close = function()
    span:finish(failure)
    if close then close() end
  end
end

-- Nobody wants spans: what handlers ask belongs to the caller's trace all the same.
local function adopting(next_handler)
  return function(request)
    local before = task.set_local(spans.LOCAL, caller_of(request))
    local _ <close> = setmetatable({}, { __close = function() task.set_local(spans.LOCAL, before) end })
    return next_handler(request)
  end
end

---Makes the middleware; see web.trace.
---@param given? { exporter?: sluice.trace.Exporter }
---@return fun(next: function): fun(request: sluice.web.Request): any, table?
function traced.new(given)
  local exporter = options.check("web.trace", given, TRACE).exporter or exporters.shared()
  spans.is_on = true
  return function(next_handler)
    if not exporter then return adopting(next_handler) end
    return function(request)
      local span = spans.start(request.method, spans.SERVER, caller_of(request), exporter):enter()
      local _ <close> = setmetatable({ span = span, request = request }, raised)
      local answer, err = next_handler(request)
      finish(span, request, answer, err)
      return answer, err
    end
  end
end

return traced
