-- SPDX-License-Identifier: MIT
-- Spans as OTLP/HTTP sends them: JSON, by the names of opentelemetry.proto.

local encode = require("sluice.core.json").encode
local secret = require "sluice.secret"
local spans = require "sluice.trace.span"

local concat, math_type = table.concat, math.type

local otlp = {}

local value_of

local function array_of(value)
  local all = {}
  for index, item in ipairs(value) do all[index] = value_of(item) end
  return '{"arrayValue":{"values":[' .. concat(all, ",") .. "]}}"
end

function value_of(value)
  local kind = type(value)
  if kind == "string" then return '{"stringValue":' .. encode(value) .. "}" end
  if kind == "boolean" then return value and '{"boolValue":true}' or '{"boolValue":false}' end
  if math_type(value) == "integer" then return ('{"intValue":"%d"}'):format(value) end
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
    all[#all + 1] = '{"key":' .. encode(given[index]) .. ',"value":' .. value_of(given[index + 1]) .. "}"
  end
  return "[" .. concat(all, ",") .. "]"
end

local function nanoseconds(seconds)
  return seconds * 1e9 // 1 | 0
end

local function events_of(span)
  local all = {}
  for index, event in ipairs(span.events) do
    local at = nanoseconds(spans.wall(span, event[2]))
    all[index] = ('{"timeUnixNano":"%d","name":%s}'):format(at, encode(event[1]))
  end
  return ',"events":[' .. concat(all, ",") .. "]"
end

local ERROR <const> = 2

-- What few spans have.
local function rest_of(span)
  local failure, state = span.failure, span.state
  local text = span.events and events_of(span) or ""
  if failure then text = text .. (',"status":{"code":%d,"message":%s}'):format(ERROR, encode(failure)) end
  if state then text = text .. ',"traceState":' .. encode(state) end
  return text
end

---One span that has ended.
---@param span sluice.trace.Span
---@return string json
function otlp.span(span)
  return spans.json(span, rest_of, value_of)
end

---What is sent to a collector. What is known to be a secret is masked, wherever it stands.
---@param given string[] spans as otlp.span gives them
---@param resource string attributes of the program, as JSON
---@param version string of the library
---@return string json
function otlp.request(given, resource, version)
  return secret.mask_json('{"resourceSpans":[{"resource":{"attributes":' .. resource
    .. '},"scopeSpans":[{"scope":{"name":"sluice","version":"' .. version .. '"},"spans":['
    .. concat(given, ",") .. "]}]}]}")
end

return otlp
