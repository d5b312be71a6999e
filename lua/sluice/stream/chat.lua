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

---@class sluice.stream.Chat: sluice.ChunkSource
local methods = {}
local metatable = { __name = "sluice.stream.chat", __index = methods }

-- Seconds: a served model may take 297 s to begin; once it speaks, a minute of silence is its end.
local LIMITS <const> = { first_event = 300, idle = 60, total = math.huge }

-- Bytes of an answer that is no stream, to be read for its error and quoted.
local MAX_REFUSED <const> = 64 << 10

-- Seconds that it may take to come.
local REFUSED_SECONDS <const> = 5

-- Seconds and bytes that what follows the end mark may take, so that the connection can serve again.
local DRAIN_SECONDS <const>, DRAIN_BYTES <const> = 0.02, 4096

local function limit_of(timeout, name)
  if type(timeout) == "number" then timeout = { total = timeout } end
  return timeout and timeout[name] or LIMITS[name]
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

-- ---- the body ----

-- What no event stream begins with: JSON, or a page.
local function begins_otherwise(piece)
  return piece:find "^%s*[{%[<]" ~= nil
end

-- The body for the reader of events; keeps what turns out to be no stream.
local function open_body(res)
  local body = {}
  function body.read()
    local piece, err = res:read()
    if piece and begins_otherwise(piece) then
      body.refused = piece
      return nil
    end
    if piece and piece:find "%S" then body.read = function() return res:read() end end
    return piece, err
  end
  function body.close()
    if not body.refused then res:close() end
  end
  return body
end

-- ---- errors ----

local function make_error(self, kind, fields)
  for name, value in pairs(self._context) do
    if fields[name] == nil then fields[name] = value end
  end
  fields.events, fields.bytes = self._events.events, self._events.bytes
  return errors.new(kind, fields)
end

local function so_far(self)
  return ("after %d events and %d bytes"):format(self._events.events, self._events.bytes)
end

-- The error of a transport, or of the reader of events, which know nothing of the call.
local function name_error(self, err)
  local context = self._context
  if not errors.is(err) or err.operation == context.operation then return err end
  if err.operation and err.object then
    err.message = ("%s %s: %s"):format(err.operation, err.object, err.message)
  end
  for name, value in pairs(context) do err[name] = value end
  err.events, err.bytes = self._events.events, self._events.bytes
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
  local context = {}
  for name, value in pairs(self._context) do context[name] = value end
  local value = text:find "^%s*{" and json.decode(text)
  local err = type(value) == "table" and wire_error.from_frame(value, context)
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

-- ---- time ----

-- Seconds to wait for the next event, and the limit that this is. What counts is how long the server was
-- waited for, not how long the reader took.
local function patience(self, now)
  local limit, left = "idle", self._limits.idle - self._waited
  if not self._first then limit, left = "first_event", self._sent + self._limits.first_event - now end
  local total = self._started + self._limits.total - now
  if total < left then return "total", total end
  return limit, left
end

local function next_event(self)
  local from = task.now()
  local limit, left = patience(self, from)
  local event, err = self._events:next(math.max(left, 0))
  local now = task.now()
  self._waited = self._waited + now - from
  local is_late = errors.is(err) and err.limit == "idle" and now - from >= left
  if is_late then return nil, late(self, limit) end
  return event, err
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
  local timing = { total = task.now() - self._started }
  for name, value in pairs(meta.get(self._res).timing or {}) do
    if name ~= "total" then timing[name] = value end
  end
  meta.set(self, { timing = timing, events = self._events.events, bytes = self._events.bytes })
  return nil, err
end

-- No further event: whether that is an end, or a failure.
local function finish_without_mark(self, err)
  if err then return finish(self, name_error(self, err)) end
  if self._body.refused then return finish(self, refusal(self, read_some(self._res, self._body.refused))) end
  local is_whole = self._is_last or (not self._end_mark and self._chunks > 0)
  return finish(self, not is_whole and truncated(self) or nil)
end

-- The err in a frame; nil for a chunk.
local function error_of(self, value, event)
  if type(value) == "table" and value.choices ~= nil and value.error == nil and not event.event then
    return nil
  end
  local context = { event = event.event }
  for name, field in pairs(self._context) do context[name] = field end
  local err = wire_error.from_frame(value, context)
  if err then err.events, err.bytes = self._events.events, self._events.bytes end
  return err
end

local function decode(self, event)
  local data = event.data
  local value, err = json.decode(data)
  if value == nil then
    return nil, event.event and error_of(self, data, event) or malformed(self, data, err)
  end
  local failure = error_of(self, value, event)
  if failure then return nil, failure end
  if type(value) ~= "table" then return nil, malformed(self, data, "it is no object") end
  return value
end

local function note(self, chunk)
  self._chunks = self._chunks + 1
  if delta.has_content(chunk) then
    self._waited = 0
    if not self._first then
      self._first = task.now()
      meta.set(self, { ttft = self._first - self._started })
    end
  end
  if not self._is_last then self._is_last = delta.is_last(chunk) end
end

local function read_chunk(self)
  while true do
    local event, err = next_event(self)
    if not event then return finish_without_mark(self, err) end
    local data = event.data
    if data == "[DONE]" then
      self._is_done = true
      return finish(self)
    end
    if data ~= "" then
      local chunk, failure = decode(self, event)
      if not chunk then return finish(self, failure) end
      note(self, chunk)
      return chunk, event
    end
  end
end

---The next chunk; nil at the end mark; nil and err. Waits.
---@return table? chunk
---@return any event, or err
function methods:next()
  local ahead = self._ahead
  if ahead then
    local entry = ahead[ahead.first]
    ahead[ahead.first], ahead.first = nil, ahead.first + 1
    if ahead.first > ahead.last then self._ahead = nil end
    return entry[1], entry[2]
  end
  if self._ended then return nil, self._failure end
  return read_chunk(self)
end

---Lets go of the response. Idempotent, never waits.
function methods:close()
  self._ahead, self._ended = nil, true
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
    local chunk, event = read_chunk(self)
    if chunk == nil then
      if event then return nil, event end
      break
    end
    ahead.last = ahead.last + 1
    ahead[ahead.last] = { chunk, event }
  end
  if ahead.last > 0 then self._ahead = ahead end
  return true
end

local function kind_of(res)
  local kind = res.headers["content-type"]
  return kind and kind:match "^%s*([^%s;]+)":lower()
end

-- Types that say themselves that no events will come.
local OTHER <const> = {
  ["application/json"] = true, ["application/problem+json"] = true, ["text/html"] = true,
}

---@class sluice.stream.ChatCall
---@field started number when the call began
---@field timeout? number|sluice.Timeout
---@field end_mark? boolean whether a stream without [DONE] and without a finish reason is cut short; true
---@field max_event? integer
---@field operation string
---@field object? string

---Makes the chunks of a response whose status is a success. Never waits.
---@param res sluice.Response
---@param call sluice.stream.ChatCall
---@return sluice.stream.Chat
function chat.new(res, call)
  local facts, body = meta.get(res), open_body(res)
  local timing = facts.timing or {}
  local self = setmetatable({
    _res = res,
    _body = body,
    _events = sse.open(body, { max_event = call.max_event }),
    _context = {
      operation = call.operation, object = call.object,
      request_id = res.headers["x-request-id"] or res.headers["x-databricks-request-id"],
    },
    _end_mark = call.end_mark ~= false,
    _limits = {},
    _started = call.started,
    -- time in queues and handshakes is not the model's
    _sent = call.started + (timing.queue or 0) + (timing.resolve or 0) + (timing.connect or 0)
      + (timing.tls or 0),
    _waited = 0,
    _chunks = 0,
  }, metatable)
  for name in pairs(LIMITS) do self._limits[name] = limit_of(call.timeout, name) end
  if OTHER[kind_of(res)] then body.read = function() body.refused = "" end end
  return self
end

return chat
