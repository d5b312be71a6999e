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
local DONE <const> = "[DONE]"

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

---An event as bytes; a text is one with that data. Raises plain text where it is none.
---@param event sluice.web.Event|string
---@return string
function stream.frame(event)
  if type(event) == "string" then return data_lines(event) .. "\n\n" end
  if type(event) ~= "table" then
    error(("a stream's iterator gives texts and events, got a %s"):format(type(event)), 0)
  end
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

-- What goes out. The items are texts and events; of texts it says what they are.
---@class sluice.web.Frames a `<close>` value, too
---@field item fun(): any, table? the next one; nil or nil and err at the end; may raise, and wait
---@field is_data boolean texts are the data of events, rather than sent as they are
---@field has_events boolean it is an event stream, in which a failure can be told
local methods = {}
local metatable = { __name = "sluice.web.frames", __index = methods }

---The next item as bytes; nil or nil and err at the end. May raise, and wait.
---@return string?
---@return table? err
function methods:next()
  local item, err = self.item()
  if item == nil then return nil, err end
  if type(item) == "string" and not self.is_data then return item end
  return stream.frame(item)
end

---The frame that tells of a failure. Texts may have broken off inside of an event, which it must not join.
---@param body string the JSON that would have been an answer's body
---@return string
function methods:failure(body)
  return (self.is_data and "data: " or "\n\ndata: ") .. body .. "\n\n"
end

-- A chunk that comes with its event is passed on byte for byte: a layer that changes chunks gives them
-- without one.
local function item_of(chunk, event)
  if type(event) ~= "table" or type(event.data) ~= "string" then return encode(chunk) end
  return event.event and { event = event.event, data = event.data } or event.data
end

local function of_chunks(source)
  local ended = false
  return function()
    if ended then return nil end
    local chunk, event = source:next()
    if chunk ~= nil then return item_of(chunk, event) end
    if event ~= nil then return nil, event end
    ended = true
    return DONE
  end
end

local function is_object(given)
  return type(given) == "table" or type(given) == "userdata"
end

---Closes a handler's `stream`, whatever it is, and calls its `close`.
---@param given any
---@param close? fun()
function stream.close(given, close)
  if is_object(given) and given.close then given:close() end
  if close then close() end
end

---Lets go of what the items come from. Idempotent.
function methods:close()
  local source, close = self._source, self._close
  self._source, self._close = nil, nil
  stream.close(source, close)
end

metatable.__close = methods.close

---Has a function called when the frames are closed, before what the handler gave for that.
---@param frames sluice.web.Frames
---@param ended fun()
function stream.on_close(frames, ended)
  local close = frames._close
  frames._close = function()
    ended()
    if close then close() end
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
  local item, kind = nil, getmetatable(given)
  if type(given) == "function" or (type(kind) == "table" and kind.__call) then
    item = given
  elseif is_object(given) and type(given.next) == "function" then
    item = of_chunks(given)
  else
    error(("a handler's stream has next() and close(), or is an iterator; got a %s"):format(type(given)), 0)
  end
  return setmetatable({
    item = item, is_data = item ~= given, has_events = true, _source = given, _close = close,
  }, metatable)
end

return stream
