-- SPDX-License-Identifier: MIT
-- An event stream that is connected again where it broke off: what browsers call an EventSource.

local errors = require "sluice.errors"
local headers = require "sluice.headers"
local options = require "sluice.options"
local sse = require "sluice.sse"
local task = require "sluice.task"

local connection = {}

---An event stream over many connections; a `<close>` value.
---@class sluice.SseConnection
---@field connects integer connections made so far
---@field last_event_id string? what the next one would go on from
local methods = {}
local metatable = { __name = "sluice.sse.connection", __index = methods }

function metatable.__close(self)
  self:close()
end

---@class sluice.SseConnectOptions
---@field url string
---@field headers? table more header fields
---@field last_event_id? string to go on from
---@field reconnect? boolean whether to connect again when the stream ends or breaks off; true
---@field retry? number seconds to wait before that, where the server says nothing; 3
---@field max_wait? number seconds; what failed connections in a row double the wait to, 60
---@field attempts? integer connections that may fail in a row; any number
---@field on_retry? fun(err: sluice.Error?, delay: number) called before each wait; no err: the stream had ended
---@field max_event? integer see sse.reader
---@field idle? number see sse.open
---@field timeout? number|sluice.Timeout of each connection
---@field transport? sluice.Transport the HTTP client that the program shares
local CONNECT = {
  url = "string",
  headers = "table?",
  last_event_id = "string?",
  reconnect = "boolean?",
  retry = "seconds?",
  max_wait = "seconds?",
  attempts = "count?",
  on_retry = "callable?",
  max_event = "count?",
  idle = "seconds?",
  timeout = "number|table?",
  transport = "table|userdata?",
}

local function request_of(self)
  local given = self._given
  local fields = headers.new(given.headers)
  fields["accept"] = "text/event-stream"
  fields["cache-control"] = "no-store"
  local id = self.last_event_id
  if id and id ~= "" then fields["last-event-id"] = id end
  return {
    method = "GET", url = given.url, headers = fields, stream = true, timeout = given.timeout, redirects = 10,
  }
end

-- 204 is how a server says that it wants no further connection.
local function refusal(self, res)
  local context = { operation = "event stream", object = (self._given.url:gsub("[?#].*$", "")) }
  if res.status ~= 200 and (res.status < 200 or res.status > 299) then
    return errors.from_response(res, context)
  end
  local kind = res.headers["content-type"] or "nothing"
  if res.status == 200 and kind:lower():find "^%s*text/event%-stream%f[;%s\0]" then return nil end
  res:close()
  context.status, context.response, context.code = res.status, res, "NOT_A_STREAM"
  context.message = ("the answer is %s where an event stream is expected"):format(
    res.status == 200 and errors.excerpt(kind) or "HTTP " .. res.status)
  return errors.new("ProtocolError", context)
end

local function open(self)
  local transport = self._given.transport or require "sluice.http"
  local res, err = transport:handle(request_of(self))
  if not res then return nil, err end
  err = refusal(self, res)
  if err then return nil, err end
  self.connects = self.connects + 1
  self._source = sse.open(res, {
    max_event = self._given.max_event, idle = self._given.idle, last_event_id = self.last_event_id,
  })
  return true
end

-- Whether another connection may be better: not after a refusal, nor after an event too large to read.
local function is_worth_it(err)
  if err == nil then return true end
  if not errors.is(err) or err.kind == "TaskCancelled" then return false end
  return err.retryable or err:is "TimeoutError"
end

local function delay_of(self, err)
  local base = self._retry * 2 ^ math.min(math.max(self._failed - 1, 0), 30)
  local delay = math.min(base, math.max(self._max_wait, self._retry))
  local hint = errors.is(err) and err.retry_after
  return type(hint) == "number" and math.max(hint, delay) or delay
end

-- Connects again after a while; nil and the err that ends it all.
local function reconnect(self, err)
  while true do
    if err then self._failed = self._failed + 1 end
    if not self._reconnect or not is_worth_it(err) or self._failed >= self._attempts then return nil, err end
    local delay = delay_of(self, err)
    if self._given.on_retry then self._given.on_retry(err, delay) end
    task.sleep(delay)
    local opened
    opened, err = open(self)
    if opened then return true end
  end
end

-- Seconds. A server that says 0 and ends each stream at once must not have us spin.
local LEAST_RETRY <const> = 0.1

local function remember(self)
  local id, wait = self._source:state()
  self.last_event_id = id or self.last_event_id
  if wait then self._retry = math.max(wait / 1000, LEAST_RETRY) end
end

---The next event; nil once it has been closed, or has ended with `reconnect = false`; nil and err. Waits,
---and connects again where that is needed.
---@return sluice.SseEvent? event
---@return sluice.Error? err
function methods:next()
  if self._ended then return nil, self._failure end
  while true do
    local event, err = self._source:next()
    remember(self)
    if event then
      self._failed = 0
      return event
    end
    local again, failure = reconnect(self, err)
    if not again then
      self._ended, self._failure = true, failure
      return nil, failure
    end
  end
end

---Iterates over the events. Raises err. Closes the connection on break.
---@return fun(): sluice.SseEvent?
function methods:events()
  local function step()
    local event, err = self:next()
    if err then error(err, 0) end
    return event
  end
  return step, nil, nil, self
end

---Closes it. Idempotent, never waits.
function methods:close()
  self._ended = true
  self._source:close()
end

---Connects to an event stream; see sse.connect.
---@param given sluice.SseConnectOptions
---@return sluice.SseConnection?
---@return sluice.Error? err
function connection.new(given)
  options.argument("sse.connect", "options", given, "table")
  given = options.check("sse.connect", given, CONNECT)
  options.timeout("sse.connect", given.timeout)
  local self = setmetatable({
    connects = 0,
    last_event_id = given.last_event_id,
    _given = given,
    _reconnect = given.reconnect ~= false,
    _retry = given.retry or 3,
    _max_wait = given.max_wait or 60,
    _attempts = given.attempts or math.huge,
    _failed = 0,
    _ended = false,
  }, metatable)
  local opened, err = open(self)
  if not opened then return nil, err end
  return self
end

return connection
