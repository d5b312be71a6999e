-- SPDX-License-Identifier: MIT
-- The HTTP client: requests that wait, whole or streamed answers, clients with a pool of their own.

local core = require "sluice.core.http"
local errors = require "sluice.errors"
local headers = require "sluice.headers"
local meta = require "sluice.meta"
local options = require "sluice.options"
local response = require "sluice.response"
local secret = require "sluice.secret"

local http = {}

---@class sluice.HttpRequest
---@field url string with http:// or https://; user and password in it become basic authentication
---@field method? string "GET" without a body, else "POST"
---@field headers? table a map (a value may be an array of values), an array of { name, value }, or a header object. Content-Length and Transfer-Encoding are ours and left out
---@field body? string|fun(): string?, table? the bytes, or a function that gives the next piece, nil at the end, nil and err to give up; it may wait
---@field json? any encoded as the body, with content-type application/json
---@field stream? boolean return once the head is there, and read the body piece by piece
---@field timeout? number|sluice.Timeout seconds; a number is `total`. Defaults: queue 60, connect 10, first_byte 300, total 600; of a stream idle 60 and no total. math.huge: none
---@field max_response? integer bytes of the answer's body, above which the request fails; 64 MiB, of a stream none
---@field verify? boolean check the certificate and the name in it (true)
---@field ca_file? string authorities in PEM

---@class sluice.HttpClient
---@field _engine userdata
---@field _whole table the settings of a whole answer without options of its own
---@field _streamed table those of a streamed one

local REQUEST = {
  method = "string?",
  url = "string",
  headers = "table?",
  body = "string|callable?",
  json = "any?",
  stream = "boolean?",
  timeout = "number|table?",
  max_response = "count?",
  verify = "boolean?",
  ca_file = "string?",
}

local CLIENT = {
  max_connections = "count?",
  max_per_host = "count?",
  ca_file = "string?",
  verify = "boolean?",
  timeout = "number|table?",
  max_response = "count?",
  dns_servers = "string?",
  dns_over_tcp = "boolean?",
}

-- The types of nearly every request: where all fit, there is nothing more to check.
local PLAIN = {
  method = "string",
  url = "string",
  headers = "table",
  body = "string",
  json = "table",
  stream = "boolean",
}

local function check(where, given)
  if type(given) == "table" and given.url then
    local plain = true
    for name, value in next, given do
      if type(value) ~= PLAIN[name] then
        plain = false
        break
      end
    end
    if plain then return end
  end
  -- levels: check, the public function, its caller
  options.check(where, given, REQUEST, 4)
  options.timeout(where, given.timeout, 4)
end

-- Seconds. 300 for the head: a served model is allowed 297 s before its first byte.
local LIMITS_WHOLE = { queue = 60, connect = 10, first_byte = 300, total = 600 }
local LIMITS_STREAM = { queue = 60, connect = 10, first_byte = 300, idle = 60 }

-- Bytes. An answer is held in memory: this much of it is a mistake, or an attack.
local MAX_RESPONSE = 64 << 20

local NO_FIELDS = {}

local function add_limits(settings, given)
  if type(given) == "number" then given = { total = given } end
  for name, value in pairs(given or {}) do settings[name] = value end
end

-- What the engine reads, for an answer of this kind.
local function make_settings(defaults, given, stream)
  local settings = { stream = stream, verify = true }
  add_limits(settings, stream and LIMITS_STREAM or LIMITS_WHOLE)
  if not stream then settings.max_response = MAX_RESPONSE end
  for _, source in ipairs { defaults, given } do
    add_limits(settings, source.timeout)
    if source.max_response then settings.max_response = source.max_response end
    if source.verify ~= nil then settings.verify = source.verify end
  end
  settings.ca_file = given.ca_file
  return settings
end

local function settings_of(self, given)
  local has_limits = given.timeout ~= nil or given.max_response ~= nil
  if not has_limits and given.verify == nil and given.ca_file == nil then
    return given.stream and self._streamed or self._whole
  end
  return make_settings(self._defaults, given, given.stream == true)
end

-- Levels of error(): the public functions end in `return perform(...)`, a tail call, so the caller of
-- perform is theirs.
local CALLER_OF_PERFORM = 2

local function add_field(flat, where, name, value, level)
  if type(value) == "number" then value = tostring(value) end
  value = secret.reveal(value)
  if type(name) ~= "string" or type(value) ~= "string" then
    local text = "%s: header %s must be a string, a number or a sluice.secret"
    error(text:format(where, tostring(name)), level + 1)
  end
  local count = #flat
  flat[count + 1], flat[count + 2] = name, value
end

-- The header fields as { name, value, name, value, ... }, secrets as bytes: for the engine only.
local function flatten(where, given, level)
  local flat = {}
  level = level + 1
  if headers.is(given) then
    for name, value in pairs(given) do add_field(flat, where, name, value, level) end
  elseif type(given[1]) == "table" then
    for _, field in ipairs(given) do add_field(flat, where, field[1], field[2], level) end
  else
    for name, value in pairs(given) do
      if type(value) == "table" and not secret.is(value) then
        for _, one in ipairs(value) do add_field(flat, where, name, one, level) end
      else
        add_field(flat, where, name, value, level)
      end
    end
  end
  return flat
end

local function has_content_type(flat)
  for index = 1, #flat, 2 do
    if #flat[index] == 12 and flat[index]:lower() == "content-type" then return true end
  end
  return false
end

-- The fields and the body as the engine takes them: `true` for a body that comes piece by piece.
local function prepare(where, given, level)
  local flat = given.headers and flatten(where, given.headers, level + 1) or NO_FIELDS
  local body = given.body
  if given.json ~= nil then
    if body ~= nil then error(where .. ': give one of "body" and "json"', level + 1) end
    body = require("sluice.json").encode(given.json)
    if not has_content_type(flat) then
      if flat == NO_FIELDS then flat = {} end
      flat[#flat + 1], flat[#flat + 2] = "content-type", "application/json"
    end
  elseif body ~= nil and type(body) ~= "string" then
    body = true
  end
  return flat, body
end

local function make_error(failure)
  local facts = failure.facts
  failure.facts = nil
  failure.timing = facts.timing
  return meta.set(errors.new(failure.kind, failure), facts)
end

-- Made when the first header is asked for: most answers are read for their status and body alone.
local function fields_of(head)
  local flat, fields = core.fields(head), {}
  for index = 1, #flat, 2 do fields[#fields + 1] = { flat[index], flat[index + 1] } end
  return fields
end

local function make_streamed(status, reason, head, transfer, facts)
  local res
  res = response.new {
    status = status,
    reason = reason,
    headers = function() return fields_of(head) end,
    read = function()
      local piece, failure = transfer:read()
      if piece then return piece end
      meta.set(res, transfer:facts())
      if failure then return nil, make_error(failure) end
      return nil
    end,
    close = function() transfer:close() end,
  }
  return meta.set(res, facts)
end

local function make_response(stream, status, reason, head, body, facts)
  if stream then return make_streamed(status, reason, head, body, facts) end
  return meta.set(response.whole(status, reason, fields_of, head, body), facts)
end

local abandoned = { __close = function(guard) if guard.transfer then guard.transfer:close() end end }

-- Sends the pieces; true when all were sent or the server has heard enough, else nil and err.
local function feed(transfer, next_piece)
  while true do
    local piece, err = next_piece()
    if err ~= nil then return nil, err end
    if piece == nil then break end
    if not transfer:send(piece) then break end
  end
  transfer:send(nil)
  return true
end

-- As engine:perform; false and err when next_piece gives up.
local function upload(transfer, next_piece)
  local guard <close> = setmetatable({ transfer = transfer }, abandoned)
  local fed, err = feed(transfer, next_piece)
  if not fed then return false, err end
  guard.transfer = nil
  return transfer:answer()
end

local function perform(self, where, given)
  local flat, body = prepare(where, given, CALLER_OF_PERFORM)
  local method = given.method and given.method:upper() or (body and "POST" or "GET")
  local settings = settings_of(self, given)
  local status, reason, head, content, facts
  if body == true then
    local transfer, wrong = self._engine:start(method, given.url, flat, true, settings)
    if not transfer then error(where .. ": " .. wrong, CALLER_OF_PERFORM) end
    status, reason, head, content, facts = upload(transfer, given.body)
    if status == false then return nil, reason end
  else
    status, reason, head, content, facts = self._engine:perform(method, given.url, flat, body, settings)
  end
  if status then return make_response(settings.stream, status, reason, head, content, facts) end
  -- a string: the request itself is wrong
  if type(reason) == "string" then error(where .. ": " .. reason, CALLER_OF_PERFORM) end
  return nil, make_error(reason)
end

local methods = {}
local metatable = { __name = "sluice.http.client", __index = methods }

function metatable.__close(self)
  self:close()
end

---Makes a client with a pool of its own.
---
---Options: `max_connections` and `max_per_host` (requests at once; the others wait, see
---timeout.queue; no limit), `ca_file` (authorities in PEM), `verify`, `timeout` and `max_response`
---(what its requests have when they say nothing), `dns_servers` ("ADDRESS[:PORT],..." instead of the
---system's), `dns_over_tcp` (false).
---@param given? table
---@return sluice.HttpClient
function http.client(given)
  given = options.check("http.client", given, CLIENT)
  options.timeout("http.client", given.timeout)
  local engine, reason = core.open(given)
  if not engine then error("http.client: " .. reason, 2) end
  local defaults = { timeout = given.timeout, max_response = given.max_response, verify = given.verify }
  return setmetatable({
    _engine = engine,
    _defaults = defaults,
    _whole = make_settings(defaults, {}, false),
    _streamed = make_settings(defaults, {}, true),
  }, metatable)
end

---Sends a request and waits for its answer: all of it, or with `stream = true` its head. Any status
---is a response; redirects are not followed. In the meta of a response: `timing` (seconds of each
---phase: queue, resolve, connect, tls, first_byte, total; `reused`, `bytes_in`), `remote_address`.
---
---Errors: ConnectError (`phase` "resolve", "connect", "send" or "first_byte"), TLSError, TimeoutError
---(`limit`), TruncatedStream, ProtocolError (`code` "RESPONSE_TOO_LARGE" or "HEAD_TOO_LARGE"); each
---with `operation`, `object`, `phase`, `timing`, `retryable`, `maybe_executed`.
---@param given sluice.HttpRequest
---@return sluice.Response? response
---@return sluice.Error? err
function methods:request(given)
  check("client:request", given)
  return perform(self, "client:request", given)
end

---The client as a transport: as request, but takes what it does not know without a word, since a
---request may have passed through layers. Waits.
---@param given sluice.HttpRequest
---@return sluice.Response? response
---@return sluice.Error? err
function methods:handle(given)
  return perform(self, "client:handle", given)
end

---What the pool does: connections `open` and, of them, `idle`; requests `active` and `waiting` for a
---slot. Never waits.
---@return { open: integer, idle: integer, active: integer, waiting: integer }
function methods:stats()
  return self._engine:stats()
end

---Closes every connection; requests under way fail. Idempotent, never waits.
function methods:close()
  self._engine:close()
end

-- The client behind http.request: made at the first request, again when its loop has ended.
local shared

local function shared_client()
  if not (shared and shared._engine:is_open()) then shared = http.client() end
  return shared
end

---As client:request, with the client that the whole program shares. Waits.
---@param given sluice.HttpRequest
---@return sluice.Response? response
---@return sluice.Error? err
function http.request(given)
  check("http.request", given)
  return perform(shared_client(), "http.request", given)
end

---The shared client as a transport: see client:handle. Waits.
---@param given sluice.HttpRequest
---@return sluice.Response? response
---@return sluice.Error? err
function http.handle(_, given)
  return perform(shared_client(), "http.handle", given)
end

return http
