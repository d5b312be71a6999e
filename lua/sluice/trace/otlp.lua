-- SPDX-License-Identifier: MIT
-- Spans as OTLP/HTTP sends them: JSON, by the names of opentelemetry.proto.

local encode = require("sluice.core.json").encode
local secret = require "sluice.secret"

local otlp = {}

local parts = {} -- of each name, what stands before its value

local function opening(name)
  local text = parts[name]
  if not text then
    text = '{"key":' .. encode(name) .. ',"value":'
    parts[name] = text
  end
  return text
end

local value_of

local function array_of(value)
  local all = {}
  for index, item in ipairs(value) do all[index] = value_of(item) end
  return '{"arrayValue":{"values":[' .. table.concat(all, ",") .. "]}}"
end

function value_of(value)
  local kind = type(value)
  if kind == "string" then return '{"stringValue":' .. encode(value) .. "}" end
  if kind == "boolean" then return value and '{"boolValue":true}' or '{"boolValue":false}' end
  if math.type(value) == "integer" then return ('{"intValue":"%d"}'):format(value) end
  -- JSON has no number for these
  if kind == "number" and value == value and value < math.huge and value > -math.huge then
    return ('{"doubleValue":%.14g}'):format(value)
  end
  if kind == "table" and getmetatable(value) == nil then return array_of(value) end
  return '{"stringValue":' .. encode(tostring(value)) .. "}"
end

---Attributes, from name, value, name, value, ...
---@param given any[]
---@return string json
function otlp.attributes(given)
  local all = {}
  for index = 1, #given, 2 do
    all[#all + 1] = opening(given[index]) .. value_of(given[index + 1]) .. "}"
  end
  return "[" .. table.concat(all, ",") .. "]"
end

local function nanoseconds(seconds)
  return ("%d"):format(seconds * 1e9 // 1 | 0)
end

local function events_of(span)
  local all = {}
  for index, event in ipairs(span.events) do
    all[index] = ('{"timeUnixNano":"%s","name":%s}'):format(
      nanoseconds(span.started_at + event[2] - span.started), encode(event[1]))
  end
  return ',"events":[' .. table.concat(all, ",") .. "]"
end

local ERROR <const> = 2

---One span.
---@param span sluice.trace.Span
---@return string json
function otlp.span(span)
  local parent = span.parent_id and ',"parentSpanId":"' .. span.parent_id .. '"' or ""
  local state = span.state and ',"traceState":' .. encode(span.state) or ""
  local failure, status = span.failure, ""
  if failure then status = (',"status":{"code":%d,"message":%s}'):format(ERROR, encode(failure)) end
  return '{"traceId":"' .. span.trace_id .. '","spanId":"' .. span.span_id .. '"' .. parent .. state
    .. ',"name":' .. encode(span.name) .. ',"kind":' .. span.kind
    .. ',"startTimeUnixNano":"' .. nanoseconds(span.started_at)
    .. '","endTimeUnixNano":"' .. nanoseconds(span.started_at + span.duration)
    .. '","attributes":' .. otlp.attributes(span.attributes)
    .. (span.events and events_of(span) or "") .. status .. "}"
end

---What is sent to a collector. What is known to be a secret is masked, wherever it stands.
---@param given sluice.trace.Span[]
---@param resource string attributes of the program, as JSON
---@param version string of the library
---@return string json
function otlp.request(given, resource, version)
  local all = {}
  for index, span in ipairs(given) do all[index] = otlp.span(span) end
  return secret.mask_json('{"resourceSpans":[{"resource":{"attributes":' .. resource
    .. '},"scopeSpans":[{"scope":{"name":"sluice","version":"' .. version .. '"},"spans":['
    .. table.concat(all, ",") .. "]}]}]}")
end

return otlp
