-- SPDX-License-Identifier: MIT
-- What a handler's `stream` becomes on the wire: frames of an event stream (WHATWG, server-sent events).

local options = require "sluice.options"

local stream = {}

---@class sluice.web.Event one of data, event, id and retry has to be there
---@field data? any a text, each line of which gets its own `data:`; anything else is encoded as JSON
---@field event? string nil means "message"
---@field id? string
---@field retry? integer milliseconds

-- What OpenAI's clients wait for; it comes only where the stream ended in order.
local DONE <const> = "data: [DONE]\n\n"

local EVENT_FIELDS <const> = { data = true, event = true, id = true, retry = true }

local json -- the module, once it is needed

local function encode(value)
  json = json or require "sluice.json"
  local text, err = json.encode(value)
  if not text then error(("a stream's value cannot be encoded: %s"):format(tostring(err)), 0) end
  return text
end

local function refuse(text, ...)
  error(("a stream's event: " .. text):format(...), 0)
end

local function check_line(name, value)
  if type(value) ~= "string" then refuse("%s is a string, got a %s", name, type(value)) end
  if value:find "[\r\n]" then refuse("%s is one line, got %q", name, value) end
  if name == "id" and value:find("\0", 1, true) then refuse "id holds no NUL" end
  return value
end

local function check_named(event)
  for name in pairs(EVENT_FIELDS) do
    if event[name] ~= nil then return end
  end
  for name in pairs(event) do
    refuse("it has no %s%s", tostring(name), options.hint(tostring(name), EVENT_FIELDS))
  end
  refuse "it is empty"
end

-- The lines before the data.
local function fields_of(event)
  local lines = {}
  if event.event ~= nil then lines[1] = "event: " .. check_line("event", event.event) .. "\n" end
  if event.id ~= nil then lines[#lines + 1] = "id: " .. check_line("id", event.id) .. "\n" end
  local retry = event.retry
  if retry ~= nil then
    if math.type(retry) ~= "integer" or retry < 0 then refuse("retry is a number of milliseconds") end
    lines[#lines + 1] = ("retry: %d\n"):format(retry)
  end
  return table.concat(lines)
end

-- A parser puts the lines together again with "\n", whatever stood between them.
local function data_lines(data)
  if data:find("\r", 1, true) then data = data:gsub("\r\n?", "\n") end
  if data:find("\n", 1, true) then data = data:gsub("\n", "\ndata: ") end
  return "data: " .. data
end

---An event as bytes. Raises plain text where it is none.
---@param event sluice.web.Event
---@return string
function stream.frame(event)
  local data = event.data
  local before = ""
  if event.event ~= nil or event.id ~= nil or event.retry ~= nil then
    before = fields_of(event)
  elseif data == nil then
    check_named(event)
  end
  if data == nil then return before .. "\n" end
  if type(data) ~= "string" then data = encode(data) end
  return before .. data_lines(data) .. "\n\n"
end

-- What goes out: next() gives the pieces, and nil or nil and err at the end, or raises.
---@class sluice.web.Frames a `<close>` value, too
---@field next fun(): string?, table?
---@field close fun() idempotent
---@field failure fun(body: string): string the frame that tells of a failure, from the JSON body that would have

local metatable = { __name = "sluice.web.frames", __close = function(self) self.close() end }

local function failure_frame(body)
  return "data: " .. body .. "\n\n"
end

-- A chunk that comes with its event is passed on byte for byte: a layer that changes chunks gives them
-- without one.
local function frame_of(chunk, event)
  if type(event) ~= "table" or type(event.data) ~= "string" then return "data: " .. encode(chunk) .. "\n\n" end
  return stream.frame { event = event.event, data = event.data }
end

local function of_chunks(source)
  local ended = false
  local function next_frame()
    if ended then return nil end
    local chunk, event = source:next()
    if chunk ~= nil then return frame_of(chunk, event) end
    if event ~= nil then return nil, event end
    ended = true
    return DONE
  end
  return { next = next_frame, failure = failure_frame }
end

-- Texts go out as they are: they may break off inside of an event, which an error must not join.
local function of_items(iterator)
  local last = ""
  local function next_piece()
    local item, err = iterator()
    local kind = type(item)
    if kind == "string" then
      last = item
      return item
    elseif kind == "table" then
      last = ""
      return stream.frame(item)
    elseif item == nil then
      return nil, err
    end
    error(("a stream's iterator gives texts and events, got a %s"):format(kind), 0)
  end
  local function failure(body)
    local is_whole = last == "" or last:find "\n\r?\n$"
    return (is_whole and "" or "\n\n") .. failure_frame(body)
  end
  return { next = next_piece, failure = failure }
end

local function is_object(given)
  return type(given) == "table" or type(given) == "userdata"
end

---What closes a stream, once, whatever it is.
---@param given any
---@param close? fun()
---@return fun()
function stream.closer(given, close)
  local source = is_object(given) and given.close and given
  return function()
    local inner, outer = source, close
    source, close = nil, nil
    if inner then inner:close() end
    if outer then outer() end
  end
end

---Opens a handler's `stream`. An object with next() and close(), as an endpoint gives, has chunks,
---which become JSON events (byte for byte as they came, where next() gives the event behind the chunk), and
---`[DONE]` after the last one; an iterator has texts, which are sent as they
---are, and events. Raises plain text where it is neither.
---@param given any
---@param close? fun() called once after the stream's own close
---@return sluice.web.Frames
function stream.open(given, close)
  local frames, kind = nil, getmetatable(given)
  if type(given) == "function" or (type(kind) == "table" and kind.__call) then
    frames = of_items(given)
  elseif is_object(given) and type(given.next) == "function" then
    frames = of_chunks(given)
  else
    error(("a handler's stream has next() and close(), or is an iterator; got a %s"):format(type(given)), 0)
  end
  frames.close = stream.closer(given, close)
  return setmetatable(frames, metatable)
end

return stream
