-- SPDX-License-Identifier: MIT
-- A response as every transport gives it: real HTTP, an app in process, a cassette, a fault.

local errors = require "sluice.errors"
local headers = require "sluice.headers"
local task = require "sluice.task"

local response = {}

---@class sluice.Response
---@field status integer
---@field reason string the reason phrase, may be empty
---@field headers sluice.Headers
---@field body string? the whole body; reads the rest of a streamed one, and so may wait; raises err when that fails

---@class sluice.Response
local methods = {}
local metatable = { __name = "sluice.response" }

local function as_headers(given)
  return headers.is(given) and given or headers.new(given)
end

-- For sluice.meta.
function metatable.__facts(self)
  local later = rawget(self, "_later")
  return later and later.facts and later.facts(self._record)
end

function metatable.__index(self, key)
  local method = methods[key]
  if method then return method end
  if key == "headers" then
    self.headers = as_headers(rawget(self, "_later").headers(rawget(self, "_record")))
    return self.headers
  end
  if key == "reason" then
    self.reason = rawget(self, "_later").reason(self._record)
    return self.reason
  end
  if key == "body" then
    local body, err = methods.text(self)
    if not body then error(err, 2) end
    return body
  end
  return nil
end

function metatable.__tostring(self)
  return ("sluice.response: %d %s"):format(self.status, self.reason)
end

function metatable.__close(self)
  self:close()
end

---Makes a response. `headers` may be a function that gives them when they are first asked for. Either `body` (all of it) or `read` is given.
---@param fields { status: integer, reason?: string, headers?: table|function, body?: string, read?: fun(): (string?, table?), close?: fun() } `read` gives the next piece, nil at the end, or nil and err; it may wait
---@return sluice.Response
function response.new(fields)
  local is_lazy = type(fields.headers) == "function"
  return setmetatable({
    status = fields.status,
    reason = fields.reason or "",
    headers = not is_lazy and as_headers(fields.headers) or nil,
    _later = { headers = is_lazy and fields.headers or nil, read = fields.read, close = fields.close },
    _whole = fields.read == nil and (fields.body or ""), -- false, so that no metamethod is asked
    _ended = false,
    _closed = false,
    _handle = false,
  }, metatable)
end

---As response.new for a body that is there, without tables in between: for a transport in a hurry.
---@param status integer
---@param body string
---@param later { headers: function, reason: function, facts: function } gives each, and what sluice.meta shows, when it is first asked for
---@param record any what the functions of `later` get
---@return sluice.Response
function response.whole(status, body, later, record)
  return setmetatable({ status = status, _whole = body, _later = later, _record = record }, metatable)
end

---As response.whole for a body that comes in pieces: `later` also has `read(handle, response, seconds)`
---and `close(handle)`, as of response.new; with `keeps_time` its read heeds the seconds by itself, see
---response.late.
---@param status integer
---@param handle any
---@param later table
---@param record any
---@return sluice.Response
function response.streamed(status, handle, later, record)
  return setmetatable({
    status = status, _whole = false, _ended = false, _closed = false, _handle = handle, _later = later,
    _record = record,
  }, metatable)
end

---Whether the value is a response.
---@param value any
---@return boolean
function response.is(value)
  return getmetatable(value) == metatable
end

---The failure of a read that was given so many seconds.
---@param seconds number
---@return sluice.Error
function response.late(seconds)
  return errors.new("TimeoutError", {
    message = ("no data within %g s"):format(seconds), limit = "read", phase = "body",
  })
end

-- For a body that knows nothing of time.
local function read_within(self, seconds)
  local piece, err = task.timeout(seconds, self._later.read, self._handle, self)
  if not piece and errors.is(err) and err.limit == "task.timeout" then err = response.late(seconds) end
  return piece, err
end

---The next piece of the body, as it came; nil at the end; nil and err on failure. May wait.
---@param seconds? number to wait for it: then it has failed, with a TimeoutError whose `limit` is "read"
---@return string? piece
---@return table? err
function methods.read(self, seconds)
  if self._whole then
    local whole = self._whole
    if self._taken or whole == "" then return nil end
    self._taken = true
    return whole
  end
  if self._ended then return nil, self._failure end
  local later = self._later
  local piece, err
  if not seconds or later.keeps_time then
    piece, err = later.read(self._handle, self, seconds)
  else
    piece, err = read_within(self, seconds)
  end
  if not piece then
    self._ended, self._failure = true, err
    self:close()
  end
  return piece, err
end

---The whole body, or nil and err. May wait.
---@return string? body
---@return table? err
function methods.text(self)
  if self._whole then return self._whole end
  local pieces = {}
  while true do
    local piece, err = self:read()
    if err then return nil, err end
    if not piece then break end
    pieces[#pieces + 1] = piece
  end
  self._whole, self._taken = table.concat(pieces), true
  return self._whole
end

local json_decode

---The body decoded as JSON, or nil and err. May wait.
---@return any value
---@return table? err
function methods.json(self)
  local text, err = methods.text(self)
  if not text then return nil, err end
  json_decode = json_decode or require("sluice.json").decode
  return json_decode(text)
end

---Iterates over the pieces of the body as they come. Raises err. Closes the response at the end and on break.
---@return fun(): string?
function methods.chunks(self)
  local function step()
    local piece, err = self:read()
    if err then error(err, 0) end
    return piece
  end
  return step, nil, nil, self
end

---Iterates over the lines of the body, without their LF or CRLF. Raises err. Closes the response at the end and on break.
---@return fun(): string?
function methods.lines(self)
  local rest, at, ended = "", 1, false
  local function step()
    while true do
      local stop = rest:find("\n", at, true)
      if stop then
        local line = rest:sub(at, stop - 1)
        at = stop + 1
        return (line:gsub("\r$", ""))
      end
      if ended then
        if at > #rest then return nil end
        local line = rest:sub(at)
        at = #rest + 1
        return line
      end
      local piece, err = self:read()
      if err then error(err, 0) end
      if piece then rest, at = rest:sub(at) .. piece, 1 else ended = true end
    end
  end
  return step, nil, nil, self
end

---Iterates over the events of the body, read as an event stream (see sluice.sse): tables with `data`,
---`event`, `id`, `retry`, `at`. Raises err. Closes the response at the end and on break.
---@param given? sluice.SseOptions
---@return fun(): sluice.SseEvent?
function methods.events(self, given)
  local source = require("sluice.sse").open(self, given)
  local function step()
    local event, err = source:next()
    if err then error(err, 0) end
    return event
  end
  return step, nil, nil, self
end

---Lets go of the connection. What was read stays. Idempotent, never waits.
function methods.close(self)
  if self._closed ~= false then return end -- nil: all of it was there from the start
  self._closed, self._ended = true, true
  local close = self._later.close
  if close then close(self._handle) end
end

return response
