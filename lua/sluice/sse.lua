-- SPDX-License-Identifier: MIT
-- Reads event streams (server-sent events): bytes in, events out, by the WHATWG's rules.

local core = require "sluice.core.sse"
local errors = require "sluice.errors"
local options = require "sluice.options"
local task = require "sluice.task"

local sse = {}

local now = task.now

---One event of a stream.
---@class sluice.SseEvent
---@field data string the data lines, joined by line feeds
---@field event string? its type; nil: "message"
---@field id string? the stream's last event id, once it has named one; "" where it took that back
---@field retry integer? milliseconds, where a line of this event said so
---@field at number when its last byte was fed: seconds, as task.now()

-- Tokens are some hundred bytes; a picture in a tool's answer is a few hundred thousand.
local MAX_EVENT <const> = 1 << 20

local function too_large(max_event, events)
  return errors.new("EventTooLarge", {
    message = ("an event of more than %d bytes (max_event)"):format(max_event),
    events = events,
  })
end

-- ---- readers ----

---@class sluice.SseReader
---@field last_event_id string? of the last event, or of the stream before where that was given
---@field retry integer? milliseconds to wait before connecting again, where the stream has said so
local methods = {}
local metatable = { __name = "sluice.sse.reader" }

function metatable.__index(self, key)
  local method = methods[key]
  if method then return method end
  local id, wait = self._core:state()
  if key == "last_event_id" then return id end
  if key == "retry" then return wait end
  return nil
end

---@class sluice.SseReaderOptions
---@field max_event? integer bytes of an event's lines, comments and line ends aside; 1 MiB
---@field last_event_id? string what a stream before this one ended with
local READER = { max_event = "count?", last_event_id = "string?" }

---Makes a reader. It decodes UTF-8 (what is broken becomes U+FFFD), drops one byte order mark, and
---holds no more than one unfinished event.
---@param given? sluice.SseReaderOptions
---@return sluice.SseReader
function sse.reader(given)
  given = options.check("sse.reader", given, READER)
  local max_event = given.max_event or MAX_EVENT
  local reader = { _core = core.reader(max_event, given.last_event_id), _max_event = max_event }
  return setmetatable(reader, metatable)
end

---Takes the next bytes, split wherever they may be. Never waits.
---@param bytes string
---@return sluice.SseEvent[]? events those that these bytes complete, maybe none
---@return sluice.Error? err kind EventTooLarge, again at each further call; `events` are those before it
function methods:feed(bytes)
  options.argument("reader:feed", "bytes", bytes, "string")
  local events, goes_on = self._core:feed(bytes, task.now())
  if goes_on then return events end
  return nil, too_large(self._max_event, #events > 0 and events or nil)
end

---Ends the stream: an unfinished event is dropped. The next feed begins another stream, which keeps
---the last event id. Never waits.
---@return sluice.SseEvent[]? events none, ever
function methods:finish()
  self._core:reset()
  return {}
end

-- ---- the events of a response ----

---The events of a response, one after the other. Its body is read as they are asked for, so that the
---pace of who reads reaches the socket.
---@class sluice.SseSource
---@field events integer events so far
---@field bytes integer bytes of the body so far
---@field fed number when the last event came
---@field has_more boolean whether ready() may have one
---@field began number when the last wait for more began
---@field refused string? see `accept`
local source_methods = {}
local source_metatable = { __name = "sluice.sse.source", __index = source_methods }

function source_metatable.__close(self)
  self:close()
end

---@class sluice.SseOptions: sluice.SseReaderOptions
---@field idle? number seconds to wait for an event, any number; comments are none
---@field accept? fun(piece: string): boolean? called with each piece of the body until it says true; false: no event stream, which ends it with `refused` = the piece and leaves the response open
local SOURCE = { max_event = "count?", last_event_id = "string?", idle = "seconds?", accept = "callable?" }

---Reads the body of a response as an event stream, whatever its status and type are. Never waits.
---@param res sluice.Response
---@param given? sluice.SseOptions
---@return sluice.SseSource
function sse.open(res, given)
  given = options.check("sse.open", given, SOURCE)
  local max_event = given.max_event or MAX_EVENT
  return setmetatable({
    _res = res,
    _read = res.read, -- a response finds its methods by a function
    _core = core.reader(max_event, given.last_event_id),
    _max_event = max_event,
    _idle = given.idle or false,
    _accept = given.accept or false,
    _ended = false,
    _failure = nil,
    events = 0,
    bytes = 0,
    fed = 0,
    began = 0,
    has_more = false,
  }, source_metatable)
end

local function fail(source, err)
  source._ended, source._failure = true, err
  source._res:close()
  return nil, err
end

local function silent(source, seconds)
  local text = "no event for %g s, after %d events and %d bytes"
  return errors.new("TimeoutError", {
    message = text:format(seconds, source.events, source.bytes),
    limit = "idle", phase = "body", events = source.events, bytes = source.bytes,
  })
end

-- The body gave no piece in time: it has ended, failed, or is late.
local function finish(source, err, seconds)
  source._core:reset()
  local is_late = seconds and errors.is(err) and err.limit == "read"
  return fail(source, is_late and silent(source, seconds) or err)
end

-- Whether the body may be an event stream, as far as this piece tells.
local function accept(source, piece)
  local said = source._accept(piece)
  if said then source._accept = false end
  if said ~= false then return true end
  source._ended, source.refused = true, piece
  return false
end

---The next event, if no more bytes are needed for it; nil else. Never waits.
---@return sluice.SseEvent|nil|false event false: it is too large; next() gives the err
function source_methods:ready()
  if not self.has_more then return nil end
  local event, has_more = self._core:take(nil, self.fed)
  self.has_more = has_more
  if event then self.events = self.events + 1 end
  return event
end

---The next event that needs more bytes; nil at the end; nil and err. Waits.
---@param seconds? number how long it waits for one, comments or not
---@return sluice.SseEvent? event
---@return sluice.Error? err as of next
function source_methods:wait(seconds)
  if self._ended then return nil, self._failure end
  local res, read_piece, core_reader, left = self._res, self._read, self._core, seconds
  local from = now()
  self.began = from
  while true do
    local piece, err = read_piece(res, left)
    if not piece then return finish(self, err, seconds) end
    self.bytes = self.bytes + #piece
    if self._accept and not accept(self, piece) then return nil end
    local event, has_more = core_reader:take(piece)
    if event then
      self.events, self.fed, self.has_more = self.events + 1, event.at, has_more
      return event
    end
    if event == false then return fail(self, too_large(self._max_event)) end
    if seconds then left = from + seconds - now() end
  end
end

---The next event; nil at the end; nil and err. Waits for `idle` seconds at the most, comments or not.
---@return sluice.SseEvent? event
---@return sluice.Error? err of the transport, EventTooLarge, or TimeoutError (`limit` "idle") with `events` and `bytes` so far
function source_methods:next()
  if self._ended then return nil, self._failure end
  local event = self:ready()
  if event then return event end
  if event == false then return fail(self, too_large(self._max_event)) end
  local idle = self._idle
  return self:wait(idle and idle < math.huge and idle or nil)
end

---What a client needs to connect again.
---@return string? last_event_id
---@return integer? retry milliseconds
function source_methods:state()
  return self._core:state()
end

---Lets go of the response. Idempotent, never waits.
function source_methods:close()
  self._ended = true
  self._res:close()
end

---Connects to an event stream with GET, and again whenever it ends or breaks off, with the
---Last-Event-ID, after the time that the server says: `connection:next()`, `for event in
---connection:events()`, `connection:close()`. What the first connection fails with is returned; later a
---refusal (204, 4xx, another type of answer) ends it, while 429, 5xx and a lost connection are tried
---again. Waits.
---@param given sluice.SseConnectOptions
---@return sluice.SseConnection? connection
---@return sluice.Error? err
function sse.connect(given)
  return require("sluice.sse.connection").new(given)
end

return sse
