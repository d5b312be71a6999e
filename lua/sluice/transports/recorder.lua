-- SPDX-License-Identifier: MIT
-- Writes exchanges to a cassette while they pass: a line for each, when it has ended.

local errors = require "sluice.errors"
local headers = require "sluice.headers"
local log = require "sluice.log"
local meta = require "sluice.meta"
local response = require "sluice.response"
local tape = require "sluice.transports.tape"
local task = require "sluice.task"

local recorder = {}

---@class sluice.cassette.Recorder
local methods = {}
local metatable = { __name = "sluice.transports.recorder", __index = methods }

---Makes a recorder.
---@param file file* open for writing, behind its first line; the recorder's from now on
---@param redactor sluice.Redactor
---@param last integer the highest number of a record that is there
---@param written fun() called for each record that was written
---@return sluice.cassette.Recorder
function recorder.new(file, redactor, last, written)
  return setmetatable({
    _file = file, _redactor = redactor, _last = last, _written = written, _open = {},
  }, metatable)
end

local ERROR_FIELDS = {
  "kind", "message", "code", "phase", "limit", "retryable", "maybe_executed", "retry_after", "status",
}

local function error_fields(redactor, err)
  if not errors.is(err) then return { kind = "ConnectError", message = redactor:text(tostring(err)) } end
  local fields = {}
  for _, name in ipairs(ERROR_FIELDS) do
    local value = err[name]
    if type(value) == "string" then value = redactor:text(value) end
    fields[name] = value
  end
  return fields
end

-- Times are written to the microsecond.
local function since(start)
  return math.floor((task.now() - start) * 1e6 + 0.5) / 1e6
end

local function redact_pieces(redactor, pieces, content_type)
  local bytes, shown = {}, {}
  for index, piece in ipairs(pieces) do bytes[index] = piece[2] end
  for index, text in ipairs(redactor:pieces(bytes, content_type)) do
    shown[index] = { pieces[index][1], text }
  end
  return shown
end

-- The length of a body out of which secrets were taken is another one.
local function without_length(fields)
  local kept = {}
  for _, field in ipairs(fields) do
    if field[1]:lower() ~= "content-length" then kept[#kept + 1] = field end
  end
  return kept
end

local function length_of(pieces)
  local length = 0
  for _, piece in ipairs(pieces) do length = length + #piece[2] end
  return length
end

local function response_of(redactor, exchange)
  local head = exchange.head
  local fields = redactor:headers(headers.list(head.headers))
  local pieces = redact_pieces(redactor, exchange.pieces, head.headers["content-type"])
  if length_of(pieces) ~= length_of(exchange.pieces) then fields = without_length(fields) end
  return { status = head.status, reason = head.reason, at = exchange.at, headers = fields, pieces = pieces }
end

-- Writes the record, once.
local function finish(self, exchange, outcome, err)
  if not self._open[exchange] then return end
  self._open[exchange] = nil
  local record = {
    n = exchange.n, request = exchange.request, ended = since(exchange.started), outcome = outcome,
    error = outcome == "failed" and error_fields(self._redactor, err) or nil,
    response = exchange.head and response_of(self._redactor, exchange),
  }
  local good, problem = self._file:write(tape.line(record), "\n")
  if good then good, problem = self._file:flush() end
  if good then
    self._written()
  else
    log.error("a cassette cannot be written", { error = tostring(problem) })
  end
end

-- Calls a function of the exchange that may raise: cancellation ends the record as well.
local function guarded(self, exchange, f, ...)
  local good, value, err = pcall(f, ...)
  if good then return value, err end
  local is_end = not errors.is(value) or value.kind == "TaskCancelled" or task.cancelled()
  finish(self, exchange, is_end and "aborted" or "failed", value)
  error(value, 0)
end

local function wrap(self, exchange, res)
  local outer
  outer = response.new {
    status = res.status, reason = res.reason, headers = res.headers,
    read = function()
      local piece, err = guarded(self, exchange, res.read, res)
      if piece then
        exchange.pieces[#exchange.pieces + 1] = { since(exchange.started), piece }
        return piece
      end
      finish(self, exchange, err == nil and "whole" or "failed", err)
      meta.set(outer, meta.get(res))
      return nil, err
    end,
    close = function()
      finish(self, exchange, "aborted")
      res:close()
    end,
  }
  return meta.set(outer, meta.get(res))
end

---Sends a request and records it. Waits.
---@param inner sluice.Transport
---@param request sluice.HttpRequest
---@param shown table the request as it is written
---@return sluice.Response? response
---@return sluice.Error? err
function methods:record(inner, request, shown)
  self._last = self._last + 1
  local exchange = { n = self._last, request = shown, started = task.now(), pieces = {} }
  self._open[exchange] = true
  local res, err = guarded(self, exchange, inner.handle, inner, request)
  if not res then
    finish(self, exchange, "failed", err)
    return nil, err
  end
  exchange.head, exchange.at = res, since(exchange.started)
  local outer = wrap(self, exchange, res)
  if request.stream then return outer end
  local body
  body, err = outer:text()
  if not body then return nil, err end
  return outer
end

---Writes what is under way as aborted, and closes the file.
function methods:close()
  local open = {}
  for exchange in pairs(self._open) do open[#open + 1] = exchange end
  table.sort(open, function(a, b) return a.n < b.n end)
  for _, exchange in ipairs(open) do finish(self, exchange, "aborted") end
  self._file:close()
end

return recorder
