-- SPDX-License-Identifier: MIT
-- Spans as OTLP/HTTP sends them: JSON, by the names of opentelemetry.proto.

local encode = require("sluice.core.json").encode
local memo = require "sluice.memo"
local secret = require "sluice.secret"
local spans = require "sluice.trace.span"

local concat, find, math_type = table.concat, string.find, math.type

local otlp = {}

-- What stands before the values of an attribute.
local opening = memo.new(function(name) return '{"key":' .. encode(name) .. ',"value":' end)
local text_opening = memo.new(function(name) return opening[name] .. '{"stringValue":' end)
local plain_opening = memo.new(function(name) return text_opening[name] .. '"' end)
local integer_opening = memo.new(function(name) return opening[name] .. '{"intValue":"' end)

-- What JSON does not take as it is.
local SPECIAL <const> = '[^ !#-%[%]-~]'

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

-- Puts an attribute at the end of the pieces: the common kinds without texts in between.
local function add_attribute(pieces, count, name, value)
  if type(value) == "string" then
    if find(value, SPECIAL) then
      pieces[count + 1], pieces[count + 2], pieces[count + 3] = text_opening[name], encode(value), "}}"
    else
      pieces[count + 1], pieces[count + 2], pieces[count + 3] = plain_opening[name], value, '"}}'
    end
    return count + 3
  elseif math_type(value) == "integer" then
    pieces[count + 1], pieces[count + 2], pieces[count + 3] = integer_opening[name], value, '"}}'
    return count + 3
  end
  pieces[count + 1], pieces[count + 2], pieces[count + 3] = opening[name], value_of(value), "}"
  return count + 3
end

local function add_attributes(pieces, count, given)
  local is_first = true
  for index = 1, given and (given.n or #given) or 0, 2 do
    local value = given[index + 1]
    if value ~= nil then
      if not is_first then
        count = count + 1
        pieces[count] = ","
      end
      is_first = false
      count = add_attribute(pieces, count, given[index], value)
    end
  end
  return count
end

---Attributes, from name, value, name, value, ...
---@param given any[]
---@return string json
function otlp.attributes(given)
  local pieces = {}
  return "[" .. concat(pieces, "", 1, add_attributes(pieces, 0, given)) .. "]"
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
  return text .. "}"
end

-- The pieces of one span; nothing here waits, so there is one array for all.
local PIECES <const> = {}

local HEAD <const> = '{"traceId":"%s","spanId":"%s","parentSpanId":"%s","name":%s,"kind":%d,'
  .. '"startTimeUnixNano":"%d","endTimeUnixNano":"%d","attributes":['

---One span that has ended.
---@param span sluice.trace.Span
---@return string json
function otlp.span(span)
  local started = spans.wall(span, span.started)
  PIECES[1] = HEAD:format(span.trace_id, span.span_id, span.parent_id or "", encode(span.name), span.kind,
    nanoseconds(started), nanoseconds(started + span.duration))
  local count = add_attributes(PIECES, 1, span.attributes)
  PIECES[count + 1] = "]"
  PIECES[count + 2] = rest_of(span)
  return concat(PIECES, "", 1, count + 2)
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
