-- SPDX-License-Identifier: MIT
-- Sends spans to a collector: in batches, in the background, never more than a queue holds.

local backoff = require "sluice.core.backoff"
local core = require "sluice.core.task"
local errors = require "sluice.errors"
local json = require "sluice.core.json"
local log = require "sluice.log"
local options = require "sluice.options"
local otlp = require "sluice.trace.otlp"
local secret = require "sluice.secret"
local settings = require "sluice.settings"
local system = require "sluice.core.system"
local task = require "sluice.task"
local wire_error = require "sluice.wire_error"

local exporters = {}

---@class sluice.trace.ExporterOptions
---@field endpoint? string of the collector, "http://localhost:4318"; /v1/traces is added; what OTEL_EXPORTER_OTLP_ENDPOINT says
---@field headers? table<string, string|sluice.Secret> more fields; what OTEL_EXPORTER_OTLP_HEADERS says
---@field service? string service.name; what OTEL_SERVICE_NAME says, else "sluice"
---@field attributes? table<string, any> more of the resource
---@field batch? integer spans in a request, 512
---@field queue? integer spans that may wait, 2048; one more is dropped, and counted
---@field every? number seconds that a span waits at most for its batch to fill, 5
---@field timeout? number seconds for a request, 10
---@field attempts? integer tries for a batch, 5; each waits twice as long as the one before, or as the collector says
---@field flush? number seconds that the end of the program waits for what is queued, 2
---@field transport? table what carries requests; the HTTP client
local EXPORTER <const> = {
  endpoint = "string?",
  headers = "table?",
  service = "name?",
  attributes = "table?",
  batch = "count?",
  queue = "count?",
  every = "positive?",
  timeout = "positive?",
  attempts = "count?",
  flush = "seconds?",
  transport = "table|userdata?",
}

---An exporter; a `<close>` value.
---@class sluice.trace.Exporter
---@field exported integer spans that a collector has taken
---@field dropped integer spans that found the queue full, or came after its end
---@field failed integer spans of batches that could not be sent, or that the collector rejected
local methods = {}
local metatable = { __name = "sluice.trace.exporter", __index = methods }

function metatable.__tojson(self)
  return { exported = self.exported, dropped = self.dropped, failed = self.failed, queued = self:queued() }
end

local PATH <const> = "/v1/traces"

local function url_of(given)
  local own = not given and settings.get "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"
  if own then return secret.reveal(own) end
  local base = given or secret.reveal(settings.get "OTEL_EXPORTER_OTLP_ENDPOINT")
  if not base then return nil end
  base = base:gsub("/+$", "")
  return base:sub(-#PATH) == PATH and base or base .. PATH
end

local function decoded(text)
  return (text:gsub("%%(%x%x)", function(digits) return string.char(tonumber(digits, 16)) end))
end

-- "name=value,name=value", percent-encoded; each may be a token.
local function headers_of(given)
  local fields = { ["content-type"] = "application/json" }
  local text = not given and secret.reveal(settings.get "OTEL_EXPORTER_OTLP_HEADERS") or ""
  for name, value in text:gmatch "%s*([^=,%s]+)%s*=%s*([^,]*)" do
    fields[name:lower()] = secret.new(decoded(value:gsub("%s+$", "")))
  end
  for name, value in pairs(given or {}) do fields[name:lower()] = value end
  return fields
end

local function resource_of(given)
  local service = given.service or secret.reveal(settings.get "OTEL_SERVICE_NAME") or "sluice"
  local flat = { "service.name", service, "telemetry.sdk.name", "sluice", "telemetry.sdk.language", "lua" }
  for name, value in pairs(given.attributes or {}) do
    flat[#flat + 1], flat[#flat + 2] = tostring(name), value
  end
  return otlp.attributes(flat)
end

-- ---- sending ----

local RETRIED <const> = { [408] = true, [429] = true, [502] = true, [503] = true, [504] = true }
local LONGEST_ANSWER <const> = 1 << 20

-- What is wrong with an answer of 200: nil, or a text; and how many spans the collector did not want.
local function problem_of(body)
  if not body:find "%S" then return nil, 0 end
  local ok, answer = pcall(json.decode, body)
  if not ok or type(answer) ~= "table" then return "it answers no JSON: is it a collector?" end
  local part = answer.partialSuccess
  return nil, type(part) == "table" and math.tointeger(tonumber(part.rejectedSpans)) or 0
end

-- true and how many were rejected; or false, why, and whether another try may help, after how many seconds.
local function post(self, body)
  local transport = self._transport or require "sluice.http"
  local res, err = transport:handle {
    method = "POST", url = self._url, headers = self._headers, body = body, max_response = LONGEST_ANSWER,
    timeout = { total = self._timeout },
  }
  if not res then return false, tostring(err), true, errors.is(err) and err.retry_after end
  local text
  text, err = res:text()
  if not text then return false, tostring(err), true end
  if res.status >= 200 and res.status < 300 then
    local problem, rejected = problem_of(text)
    if problem then return false, problem, false end
    return true, rejected
  end
  return false, "it answers " .. res.status, RETRIED[res.status] or false, wire_error.retry_after(res)
end

local BASE <const>, CAP <const> = 1, 30

local function came_back(self)
  if not self._is_down then return end
  self._is_down, self._is_full = false, false
  log.info("spans are exported again", {
    collector = self._label, dropped = self.dropped, failed = self.failed,
  })
end

-- One line when it begins, whatever follows.
local function went_down(self, why)
  if self._is_down then return end
  self._is_down = true
  log.warn("spans cannot be exported", { collector = self._label, error = why })
end

local function send(self, batch)
  local body = otlp.request(batch, self._resource, self._version)
  for attempt = 1, self._attempts do
    local ok, why, again, seconds = post(self, body)
    if ok then
      local rejected = math.min(why, #batch)
      self.exported, self.failed = self.exported + #batch - rejected, self.failed + rejected
      return came_back(self)
    end
    went_down(self, why)
    if not again or attempt == self._attempts then break end
    local delay = backoff.delay(attempt, BASE, CAP, system.random_float())
    task.sleep(math.max(delay, math.min(seconds or 0, CAP)))
  end
  self.failed = self.failed + #batch
end

-- The oldest ones; what is being sent stays known, for the end of the program.
local function take(self)
  local batch, first = self._sending, self._first
  while #batch < self._batch and first <= self._last do
    batch[#batch + 1], self._queue[first] = self._queue[first], nil
    first = first + 1
  end
  self._first = first
  return batch
end

local function send_next(self)
  local batch = take(self)
  if #batch == 0 then return false end
  send(self, batch)
  self._sending = {}
  self._emptied:broadcast()
  return true
end

local function wait_for_more(self)
  while self:queued() == 0 do self._filled:wait() end
  local due = task.now() + self._every
  while self:queued() < self._batch and not self._hurries and task.now() < due do
    task.timeout(due - task.now(), self._filled.wait, self._filled)
  end
end

local function drain(self)
  while send_next(self) do end -- luacheck: ignore
end

-- What it sends is no part of a trace. At the end of the program it is cancelled, and sends what is left.
local function run(self)
  task.set_local("trace", nil)
  task.set_local("log", nil)
  local ok, err = pcall(function()
    while true do
      wait_for_more(self)
      send_next(self)
    end
  end)
  if ok or not (errors.is(err) and err.kind == "TaskCancelled") then error(err, 0) end
  task.shield(task.timeout, self._flush, drain, self)
  self.failed = self.failed + #self._sending + self:queued()
  error(err, 0)
end

local function say_full(self)
  if self._is_full then return end
  self._is_full = true
  log.warn("spans are dropped: the queue is full", { collector = self._label, queue = self._most })
end

-- ---- the face ----

---How many spans wait to be sent. Never waits.
---@return integer
function methods:queued()
  return self._last - self._first + 1
end

---Takes a span that has ended. Never waits; where the queue is full, the span is dropped and counted.
---@param span sluice.trace.Span
function methods:export(span)
  local count = self._last - self._first + 1
  if count >= self._most or self._is_closed then
    self.dropped = self.dropped + 1
    say_full(self)
  else
    local last = self._last + 1
    self._last, self._queue[last] = last, otlp.span(span) -- a text: what the span knows is not held
    if not self._group then
      self._group = task.group()
      self._group:spawn(run, self)
    end
    if count == 0 or count + 1 == self._batch then self._filled:broadcast() end
  end
end

---Sends what is queued now. Waits until it is sent, or could not be.
---@param seconds? number at most, 2
---@return boolean in_time
function methods:flush(seconds)
  options.method("exporter:flush", self, "_queue")
  options.argument("exporter:flush", "seconds", seconds, "seconds?")
  local in_time = task.timeout(seconds or self._flush, function()
    while self:queued() > 0 or #self._sending > 0 do
      self._hurries = true
      self._filled:broadcast()
      self._emptied:wait()
    end
    return true
  end)
  self._hurries = false
  return in_time == true
end

---Flushes, and ends the sending; what could not be sent is counted as failed. Idempotent. Waits.
---@param seconds? number at most, 2
function methods:close(seconds)
  options.method("exporter:close", self, "_queue")
  if self._is_closed then return end
  if self._group then task.shield(self.flush, self, seconds) end
  self._is_closed, self._flush = true, 0
  if self._group then task.shield(self._group.close, self._group) end
end

metatable.__close = function(self) self:close() end

---Makes an exporter; nothing is sent, and no task runs, before there is a span.
---@param given? sluice.trace.ExporterOptions
---@return sluice.trace.Exporter
function exporters.new(given)
  given = options.check("trace.exporter", given, EXPORTER)
  local url = url_of(given.endpoint)
  if not url then
    options.misuse 'trace.exporter: option "endpoint" is missing, and OTEL_EXPORTER_OTLP_ENDPOINT is not set'
  end
  return setmetatable({
    exported = 0, dropped = 0, failed = 0,
    _url = url, _label = url:gsub("[?#].*$", ""):gsub("^(%a+://)[^/]*@", "%1"),
    _headers = headers_of(given.headers),
    _resource = resource_of(given),
    _version = require("sluice").version,
    _batch = given.batch or 512,
    _most = given.queue or 2048,
    _every = given.every or 5,
    _timeout = given.timeout or 10,
    _attempts = given.attempts or 5,
    _flush = given.flush or 2,
    _transport = given.transport,
    _queue = {}, _first = 1, _last = 0, _sending = {}, _hurries = false,
    _filled = core.condition "trace.exporter", _emptied = core.condition "exporter:flush",
    _is_closed = false, _is_down = false, _is_full = false,
  }, metatable)
end

local shared

---The exporter of the program, as the settings say; nil where they name no collector. Never waits.
---@return sluice.trace.Exporter?
function exporters.shared()
  if shared == nil or shared and shared._is_closed then
    local off = settings.get "OTEL_SDK_DISABLED" == "true"
    shared = not off and url_of() and exporters.new() or false
  end
  return shared or nil
end

return exporters
