-- SPDX-License-Identifier: MIT
-- The streamed answer of a model: from the events of a response to chunks, and how it may end.

local delta = require "sluice.stream.delta"
local errors = require "sluice.errors"
local json = require "sluice.json"
local meta = require "sluice.meta"
local sse = require "sluice.sse"
local task = require "sluice.task"
local wire_error = require "sluice.wire_error"

local chat = {}

local decode, plain = json.decode, delta.plain

---@class sluice.stream.Chat: sluice.ChunkSource
local methods = {}
local metatable = { __name = "sluice.stream.chat", __index = methods }

local huge, now = math.huge, task.now

-- Seconds: a served model may take 297 s to begin; once it speaks, a minute of silence is its end.
local LIMITS <const> = { first_event = 300, idle = 60, total = math.huge }

-- Bytes of an answer that is no stream, to be read for its error and quoted.
local MAX_REFUSED <const> = 64 << 10

-- Seconds that it may take to come.
local REFUSED_SECONDS <const> = 5

-- Seconds and bytes that what follows the end mark may take, so that the connection can serve again.
local DRAIN_SECONDS <const>, DRAIN_BYTES <const> = 0.02, 4096

local function limits_of(timeout)
  if timeout == nil then return LIMITS end
  if type(timeout) == "number" then timeout = { total = timeout } end
  local limits = {}
  for name, seconds in pairs(LIMITS) do limits[name] = timeout[name] or seconds end
  return limits
end

---The limits that are the transport's to keep: not those of events, which count content.
---@param timeout number|sluice.Timeout|nil
---@return sluice.Timeout
function chat.transport_limits(timeout)
  local limits = { idle = math.huge }
  if type(timeout) == "number" then timeout = { total = timeout } end
  for name, seconds in pairs(timeout or {}) do
    if name ~= "idle" and name ~= "first_event" then limits[name] = seconds end
  end
  return limits
end

-- Whether a piece of a body may begin an event stream; nil: it does not tell. JSON and pages never do.
local function looks_like_events(piece)
  local first = piece:match "%S"
  if not first then return nil end
  return not first:find '[{%["<]'
end

-- ---- errors ----

local function request_id_of(res)
  return res.headers["x-request-id"] or res.headers["x-databricks-request-id"]
end

-- What every err of this call says.
local function context_of(self)
  local call, events = self._call, self._events
  return {
    operation = call.operation, object = call.object, request_id = request_id_of(self._res),
    events = events.events, bytes = events.bytes,
  }
end

local function make_error(self, kind, fields)
  local all = context_of(self)
  for name, value in pairs(fields) do all[name] = value end
  return errors.new(kind, all)
end

local function so_far(self)
  return ("after %d events and %d bytes"):format(self._events.events, self._events.bytes)
end

-- The error of a transport, or of the reader of events, which know nothing of the call.
local function name_error(self, err)
  if not errors.is(err) then return err end
  if err.operation and err.object then
    err.message = ("%s %s: %s"):format(err.operation, err.object, err.message)
  end
  for name, value in pairs(context_of(self)) do err[name] = value end
  return err
end

local function late(self, limit)
  local what = limit == "total" and "not complete" or "no content"
  return make_error(self, "TimeoutError", {
    message = ("%s within %g s, %s"):format(what, self._limits[limit], so_far(self)),
    limit = limit, phase = "body",
  })
end

local function truncated(self)
  local what = self._chunks > 0 and "without its end mark" or "before it had begun"
  return make_error(self, "TruncatedStream", {
    message = ("the stream ended %s, %s"):format(what, so_far(self)), phase = "body",
  })
end

local function malformed(self, data, err)
  local reason = errors.is(err) and err.message or tostring(err)
  return make_error(self, "JsonError", {
    message = ("event %d is malformed JSON, %s: %s"):format(self._events.events, reason,
      errors.excerpt(data)),
    phase = "body",
  })
end

-- The first part of a body, at most MAX_REFUSED bytes, as far as it comes.
local function read_some(res, first)
  local pieces, size = { first }, #first
  task.timeout(REFUSED_SECONDS, function()
    while size < MAX_REFUSED do
      local piece = res:read()
      if not piece then break end
      pieces[#pieces + 1], size = piece, size + #piece
    end
  end)
  return table.concat(pieces)
end

local function refusal(self, text)
  local value = text:find "^%s*{" and json.decode(text)
  local err = type(value) == "table" and wire_error.from_frame(value, context_of(self))
  if err then return err end
  local what = "something else"
  if type(value) == "table" and value.choices ~= nil then
    what = "one whole JSON answer"
  elseif text:find "^%s*[{%[]" then
    what = "JSON"
  elseif text:find "^%s*<" then
    what = "an HTML page"
  end
  return make_error(self, "ProtocolError", {
    code = "NOT_A_STREAM", maybe_executed = true,
    message = ("the answer is %s where an event stream is expected: %s"):format(what,
      errors.excerpt(text)),
  })
end

-- A body of some other type in which no event was.
local function not_a_stream(self)
  local kind = self._res.headers["content-type"]
  if not kind or kind:lower():find "^%s*text/event%-stream" then return nil end
  return make_error(self, "ProtocolError", {
    code = "NOT_A_STREAM", maybe_executed = true,
    message = ("the answer is %s where an event stream is expected, %s"):format(errors.excerpt(kind),
      so_far(self)),
  })
end

-- ---- time ----

-- Seconds to wait for the next event, and the limit that this is. What counts is how long the server was
-- waited for, not how long the reader took.
local function patience(self)
  local limits = self._limits
  local limit, left = "idle", limits.idle - self._waited
  if not self._first then limit, left = "first_event", self._sent + limits.first_event - now() end
  if limits.total < huge then
    local total = self._call.started + limits.total - now()
    if total < left then limit, left = "total", total end
  end
  return limit, left > 0 and left or 0
end

-- Why no event came within the limit.
local function name_wait(self, err, limit)
  local is_ours = errors.is(err) and err.limit == "idle" and err.operation == nil
  return is_ours and late(self, limit) or err and name_error(self, err)
end

-- ---- chunks ----

-- What follows the end mark is the end of the body: read, it leaves a connection that can serve again.
local function drain(res)
  local read = 0
  repeat
    local piece = res:read()
    read = read + (piece and #piece or 0)
  until not piece or read > DRAIN_BYTES
end

local function finish(self, err)
  self._ended, self._failure = true, err
  if not err and self._is_done then task.timeout(DRAIN_SECONDS, drain, self._res) end
  self._res:close()
  local timing = { total = now() - self._call.started }
  for name, value in pairs(meta.get(self._res).timing or {}) do
    if name ~= "total" then timing[name] = value end
  end
  meta.set(self, { timing = timing, events = self._events.events, bytes = self._events.bytes })
  return nil, err
end

-- No further event: whether that is an end, or a failure.
local function finish_without_mark(self)
  local refused = self._events.refused
  if refused then return finish(self, refusal(self, read_some(self._res, refused))) end
  local may_end = self._is_last or self._call.end_mark == false and self._chunks > 0
  if may_end then return finish(self) end
  return finish(self, self._chunks == 0 and not_a_stream(self) or truncated(self))
end

-- The err in a frame; nil for a chunk.
local function error_of(self, value, event)
  if type(value) == "table" and value.choices ~= nil and value.error == nil and not event.event then
    return nil
  end
  local context = context_of(self)
  context.event = event.event
  return wire_error.from_frame(value, context)
end

local function note_content(self)
  self._waited = 0
  if not self._first then self._first = now() end
end

-- What an event holds that is no plain text: a chunk; nil and err.
local function read_event(self, event, chunk, err)
  local data = event.data
  if chunk == nil then
    return nil, event.event and error_of(self, data, event) or malformed(self, data, err)
  end
  local failure = error_of(self, chunk, event)
  if failure then return nil, failure end
  if type(chunk) ~= "table" then return nil, malformed(self, data, "it is no object") end
  if delta.has_content(chunk) then note_content(self) end
  if not self._is_last then self._is_last = delta.is_last(chunk) end
  return chunk, event
end

local function read_chunk(self)
  local events = self._events
  while true do
    local event, err
    if events.has_more then event = events:ready() end
    if event == nil then
      local limit, left = patience(self)
      event, err = events:wait(left < huge and left or nil)
      if event then
        self._waited = self._waited + events.fed - events.began
      else
        err = name_wait(self, err, limit)
      end
    end
    if not event then
      if event == false then err = name_error(self, select(2, events:next())) end
      if err then return finish(self, err) end
      return finish_without_mark(self)
    end
    local data = event.data
    if data == "[DONE]" then
      self._is_done = true
      return finish(self)
    end
    if data ~= "" then
      local chunk, behind = decode(data)
      self._chunks = self._chunks + (chunk == nil and 0 or 1)
      local text = not event.event and plain(chunk)
      if text then
        self._waited = 0
        self._first = self._first or now()
        return chunk, event, text
      end
      chunk, behind = read_event(self, event, chunk, behind)
      if chunk == nil then return finish(self, behind) end
      return chunk, behind
    end
  end
end

---The next chunk; nil at the end mark; nil and err. Waits.
---@return table? chunk
---@return any event of a chunk; else err
---@return string? text see sluice.ChunkSource
function methods:next()
  local ahead = self._ahead
  if ahead then
    local entry = ahead[ahead.first]
    ahead[ahead.first], ahead.first = nil, ahead.first + 1
    if ahead.first > ahead.last then self._ahead = false end
    return entry[1], entry[2], entry[3]
  end
  if self._ended then return nil, self._failure end
  return read_chunk(self)
end

---Lets go of the response. Idempotent, never waits.
function methods:close()
  self._ahead, self._ended = false, true
  self._res:close()
end

-- Chunks without content that are kept: a role, a usage. A stream of nothing else counts as begun.
local MAX_AHEAD <const> = 100

---Reads until the first content, the end, or a failure; next() gives again what was read. Waits.
---@return boolean? ready true; nil and err
---@return sluice.Error? err
function methods:begin()
  local ahead = { first = 1, last = 0 }
  while not self._first and ahead.last < MAX_AHEAD do
    local chunk, event, text = read_chunk(self)
    if chunk == nil then
      if event then return nil, event end
      break
    end
    ahead.last = ahead.last + 1
    ahead[ahead.last] = { chunk, event, text }
  end
  if ahead.last > 0 then self._ahead = ahead end
  return true
end

---@class sluice.stream.ChatCall
---@field started number when the call began
---@field facts fun(res: sluice.Response): table what sluice.meta knows from the start
---@field timeout? number|sluice.Timeout
---@field end_mark? boolean whether a stream without [DONE] and without a finish reason is cut short; true
---@field max_event? integer
---@field operation string
---@field object? string

-- Made when somebody asks: headers and times of most streams are never looked at.
function metatable.__facts(self)
  local facts = self._call.facts(self._res)
  facts.ttft = self._first and self._first - self._call.started or nil
  return facts
end

-- Seconds. A head that is there sooner was not held up by a queue or a handshake.
local SOON <const> = 0.1

-- Time in queues and handshakes is not the model's.
local function sent_at(res, call)
  if now() - call.started < SOON then return call.started end
  local timing = meta.get(res).timing
  if not timing then return call.started end
  return call.started + timing.queue + timing.resolve + timing.connect + timing.tls
end

---Makes the chunks of a response whose status is a success. Never waits.
---@param res sluice.Response
---@param call sluice.stream.ChatCall
---@return sluice.stream.Chat
function chat.new(res, call)
  return setmetatable({
    _res = res,
    _call = call,
    _events = sse.open(res, { max_event = call.max_event, accept = looks_like_events }),
    _limits = limits_of(call.timeout),
    _sent = sent_at(res, call),
    _waited = 0, -- seconds since the last content, without those that the reader took
    _chunks = 0,
    _first = false, -- when the first content came
    _is_last = false,
    _is_done = false,
    _ended = false,
    _ahead = false, -- what begin() has read
  }, metatable)
end

return chat
