-- SPDX-License-Identifier: MIT
-- What a handler may return, brought to one shape.

local headers = require "sluice.headers"
local options = require "sluice.options"
local response = require "sluice.response"
local streams = require "sluice.web.stream"

local result = {}

---@class sluice.web.Result
---@field status? integer default 200, or 204 where there is no body
---@field headers? table as for sluice.headers.new
---@field json? any a value to encode
---@field body? string|fun(): string? all of it, or an iterator of its pieces; it may wait, raise err, or return nil and err
---@field stream? any an event stream: an endpoint's stream, or an iterator of texts and events; see stream.open
---@field keep_alive? number|false with `stream`: seconds of silence after which a comment is sent (15); false for never
---@field close? fun() called once when an iterator or a stream is not needed any more, however it ended
local FIELDS <const> = {
  status = true, headers = true, json = true, body = true, stream = true, keep_alive = true, close = true,
}

-- WHATWG's advice for event streams; proxies cut a connection that is silent for 60 seconds.
local KEEP_ALIVE <const> = 15

local TEXT = "text/plain; charset=utf-8"
local JSON = "application/json"
local EVENTS = "text/event-stream"

-- The second one keeps nginx from collecting an answer before it passes it on.
local STREAM_FIELDS <const> = { ["cache-control"] = "no-cache", ["x-accel-buffering"] = "no" }

-- Fields that belong to one connection (RFC 9110, 7.6.1) and do not pass through us.
local HOP_BY_HOP = {
  ["connection"] = true, ["keep-alive"] = true, ["proxy-authenticate"] = true,
  ["proxy-authorization"] = true, ["proxy-connection"] = true, ["te"] = true, ["trailer"] = true,
  ["transfer-encoding"] = true, ["upgrade"] = true, ["content-length"] = true, ["date"] = true,
}

local json -- the module, once it is needed

local function is_events(kind)
  return type(kind) == "string" and kind:lower():find("^text/event%-stream%f[;%s\0]") ~= nil
end

local function with_defaults(fields, defaults)
  for name, value in pairs(defaults) do
    if not fields[name] then fields[name] = value end
  end
  return fields
end

local function pass_on(from)
  local kept = {}
  for name, value in pairs(from.headers) do
    if not HOP_BY_HOP[name:lower()] then kept[#kept + 1] = { name, value } end
  end
  local fields = headers.new(kept)
  if is_events(fields["content-type"]) then with_defaults(fields, STREAM_FIELDS) end
  local function read() return from:read() end
  return from.status, fields, read, nil, function() from:close() end
end

local function encode(value)
  json = json or require "sluice.json"
  local body, err = json.encode(value)
  if not body then error(("the handler's json cannot be encoded: %s"):format(tostring(err)), 0) end
  return body
end

-- What nobody will read is closed.
local function refuse(given, text, ...)
  pcall(streams.close, given.stream, given.close)
  error(text:format(...), 0)
end

local function check_names(given)
  for name in next, given do
    if not FIELDS[name] then
      name = tostring(name)
      refuse(given, "a handler's result has no %s%s", name, options.hint(name, FIELDS))
    end
  end
end

local function silence_of(given)
  local keep_alive = given.keep_alive
  if keep_alive == nil then return KEEP_ALIVE end
  if keep_alive == false then return 0 end
  if type(keep_alive) == "number" and keep_alive > 0 and keep_alive < 1e9 then return keep_alive end
  refuse(given, "a handler's keep_alive is a number of seconds, or false, got %s", tostring(keep_alive))
end

local function of_stream(status, given)
  if given.body ~= nil or given.json ~= nil then
    refuse(given, "a handler's result has one of stream, body and json, not two of them")
  end
  local fields, silence = STREAM_FIELDS, silence_of(given)
  local frames = streams.open(given.stream, given.close)
  if given.headers then
    fields = with_defaults(headers.new(given.headers), STREAM_FIELDS)
    local kind = fields["content-type"]
    if kind and not is_events(kind) then silence, frames.has_events = 0, false end
  end
  return status, fields, frames, EVENTS, nil, silence
end

local function of_table(given)
  local status, body, value, kind = given.status, given.body, given.json, nil
  check_names(given)
  if status == nil then
    status = 200
  elseif math.type(status) ~= "integer" or status < 200 or status > 599 then
    refuse(given, "a handler's status is an integer from 200 to 599, got %s", tostring(status))
  end
  if given.stream ~= nil then return of_stream(status, given) end
  if value ~= nil then body, kind = encode(value), JSON end
  if kind == nil and body ~= nil and type(body) ~= "string" and type(body) ~= "function" then
    error(("a handler's body is a string or an iterator, got a %s"):format(type(body)), 0)
  end
  return status, given.headers, body or "", kind, given.close
end

---What a handler returned, in parts. Raises plain text where a handler's author went wrong.
---@param given any
---@return integer status
---@return table? fields
---@return string|function|sluice.web.Frames body
---@return string? type the Content-Type where the fields have none
---@return function? close
---@return number? silence of a stream: seconds until a comment is sent, 0 for never
function result.parts(given)
  local kind = type(given)
  if kind == "string" then return 200, nil, given, TEXT end
  if kind ~= "table" then
    error(("a handler returned %s: it returns a table, a text, or nil and err"):format(
      given == nil and "nothing" or "a " .. kind), 0)
  end
  if response.is(given) then return pass_on(given) end
  return of_table(given)
end

---The same as a table, with headers as an object of its own, so that they may be changed: for
---middleware.
---@param given any
---@return table
function result.open(given)
  if type(given) == "table" and given.stream ~= nil and not response.is(given) then
    local copy = {}
    for name, value in pairs(given) do copy[name] = value end
    copy.headers = with_defaults(headers.new(given.headers), STREAM_FIELDS)
    if not copy.headers["content-type"] then copy.headers["content-type"] = EVENTS end
    return copy
  end
  local status, given_fields, body, kind, close = result.parts(given)
  local fields = headers.new(given_fields)
  if kind and not fields["content-type"] then fields["content-type"] = kind end
  return { status = status, headers = fields, body = body, close = close }
end

---What is wrong with the headers of an answer, nil if nothing is. In process; the server checks what
---it sends by itself.
---@param fields? table
---@return string? problem
function result.wrong_header(fields)
  for name, value in pairs(fields and headers.new(fields) or {}) do
    local kind = type(value)
    if type(name) ~= "string" or (kind ~= "string" and kind ~= "number") then
      return "a header is a name and a text or a number"
    end
    if name == "" or name:find("[^%w!#$%%&'*+%-.^_`|~]") then
      return ("the name of a header holds a character that may not stand there: %q"):format(name)
    end
    if tostring(value):find("[\0-\8\10-\31\127]") then
      return ("the value of header %s holds a line break or a control character"):format(name)
    end
  end
  return nil
end

return result
