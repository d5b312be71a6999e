-- SPDX-License-Identifier: MIT
-- The HTTP client: requests that wait, whole or streamed answers, clients with a pool of their own.

local core = require "sluice.core.http"
local errors = require "sluice.errors"
local headers = require "sluice.headers"
local meta = require "sluice.meta"
local observe = require "sluice.observe"
local options = require "sluice.options"
local redirect = require "sluice.redirect"
local response = require "sluice.response"
local secret = require "sluice.secret"
local spans = require "sluice.trace.span"
local task = require "sluice.task"

local http = {}

---@class sluice.HttpRequest
---@field url string with http:// or https://; user and password in it become basic authentication
---@field method? string "GET" without a body, else "POST"
---@field headers? table a map (a value may be an array of values), an array of { name, value }, or a header object. Content-Length and Transfer-Encoding are ours and left out
---@field body? string|fun(): string?, table? the bytes, or a function that gives the next piece, nil at the end, nil and err to give up; it may wait
---@field json? any encoded as the body, with content-type application/json
---@field form? table encoded as the body of a form: a map or an array of { name, value }, see sluice.url.form
---@field multipart? table encoded as parts: texts, and files { filename =, content_type =, body = }, see sluice.multipart.encode
---@field query? table added to the query of the URL: a map (a value may be an array) or an array of { name, value }, see sluice.url.query
---@field stream? boolean return once the head is there, and read the body piece by piece
---@field timeout? number|sluice.Timeout seconds; a number is `total`. Defaults: queue 60, connect 10, first_byte 300, total 600; of a stream idle 60 and no total. math.huge: none
---@field max_response? integer bytes of the answer's body, above which the request fails; 64 MiB, of a stream none
---@field decompress? boolean ask for gzip, deflate, br or zstd and give the body as it was before (true)
---@field verify? boolean check the certificate and the name in it (true)
---@field ca_file? string authorities in PEM
---@field redirects? integer how many are followed; of http.request and client:request 10 for GET and HEAD, else none
---@field redirect_to_http? boolean also from https to http (false)

---@class sluice.HttpClient
---@field _engine userdata
---@field _whole table the settings of a whole answer without options of its own
---@field _streamed table those of a streamed one
---@field _by_limits table<table, table> those of tables of time limits that were seen before

local function is_count_or_zero(value)
  return math.type(value) == "integer" and value >= 0, "an integer of at least 0"
end

local REQUEST = {
  method = "string?",
  url = "string",
  headers = "table?",
  body = "string|callable?",
  json = "any?",
  form = "table?",
  multipart = "table?",
  query = "table?",
  stream = "boolean?",
  timeout = "number|table?",
  max_response = "count?",
  decompress = "boolean?",
  verify = "boolean?",
  ca_file = "string?",
  redirects = is_count_or_zero,
  redirect_to_http = "boolean?",
}

local function is_proxy(value)
  local good = value == false or type(value) == "string" or secret.is(value)
  return good, "a string, a sluice.secret or false"
end

---@class sluice.HttpClientOptions
---@field max_connections? integer requests at once; the others wait, see timeout.queue; no limit
---@field max_per_host? integer of them to one host; no limit
---@field max_waiting? integer how many may wait; those beyond it fail at once with QueueFull; no limit
---@field timeout? number|sluice.Timeout seconds; what its requests have when they say nothing
---@field max_response? integer bytes; what its requests have when they say nothing
---@field redirects? integer how many are followed, as in a request; for :handle too
---@field proxy? string|sluice.Secret|false "http://user:password@host:port", https:// or socks5h://; false: none; not given: http_proxy, https_proxy and all_proxy, where we may read the environment
---@field no_proxy? string "host,.domain,10.0.0.0/8,*"; not given: no_proxy of the environment
---@field unix? string a socket's path: every request goes there
---@field verify? boolean check the certificate and the name in it (true)
---@field ca_file? string authorities in PEM
---@field cert? string our own certificate in PEM, for each server that asks
---@field key? string its key, in PEM
---@field key_password? string|sluice.Secret of the key
---@field http2? boolean where a TLS server offers it (false)
---@field dns_servers? string "ADDRESS[:PORT],..." instead of the system's
---@field dns_over_tcp? boolean false
local CLIENT = {
  max_connections = "count?",
  max_per_host = "count?",
  max_waiting = "count?",
  cert = "string?",
  key = "string?",
  key_password = "text?",
  proxy = is_proxy,
  no_proxy = "string?",
  unix = "string?",
  http2 = "boolean?",
  ca_file = "string?",
  verify = "boolean?",
  timeout = "number|table?",
  max_response = "count?",
  dns_servers = "string?",
  dns_over_tcp = "boolean?",
  redirects = is_count_or_zero,
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
  options.check(where, given, REQUEST)
  options.timeout(where, given.timeout)
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

-- `compiled`: as the engine takes them.
local function compile(settings)
  settings.compiled = core.settings(settings)
  return settings
end

-- For an answer of this kind.
local function make_settings(defaults, given, stream)
  local settings = { stream = stream, verify = true, decompress = true }
  add_limits(settings, stream and LIMITS_STREAM or LIMITS_WHOLE)
  if not stream then settings.max_response = MAX_RESPONSE end
  for _, source in ipairs { defaults, given } do
    add_limits(settings, source.timeout)
    if source.max_response then settings.max_response = source.max_response end
    if source.verify ~= nil then settings.verify = source.verify end
  end
  if given.decompress ~= nil then settings.decompress = given.decompress end
  settings.ca_file = given.ca_file
  return compile(settings)
end

local LIMITS = { "queue", "connect", "first_byte", "first_event", "idle", "total" }

local function is_unchanged(kept, limits)
  for index = 1, #LIMITS do
    local name = LIMITS[index]
    if kept[name] ~= limits[name] then return false end
  end
  return true
end

-- A layer gives the same table of limits with each request: settings are made of it once, and again when
-- it has changed.
local function settings_by_limits(self, given)
  local limits, key = given.timeout, given.stream and "streamed" or "whole"
  local kept = self._by_limits[limits]
  if kept and kept[key] and is_unchanged(kept, limits) then return kept[key] end
  if not kept or not is_unchanged(kept, limits) then
    kept = {}
    for _, name in ipairs(LIMITS) do kept[name] = limits[name] end
    self._by_limits[limits] = kept
  end
  kept[key] = make_settings(self._defaults, given, given.stream == true)
  return kept[key]
end

local function settings_of(self, given)
  if given.max_response ~= nil or given.verify ~= nil or given.ca_file ~= nil or given.decompress ~= nil then
    return make_settings(self._defaults, given, given.stream == true)
  end
  if given.timeout == nil then return given.stream and self._streamed or self._whole end
  if type(given.timeout) == "table" then return settings_by_limits(self, given) end
  return make_settings(self._defaults, given, given.stream == true)
end

-- Levels of error(): the public functions end in `return perform(...)`, a tail call, so the caller of
-- perform is theirs.
local CALLER_OF_PERFORM = 2

local function add_field(flat, where, name, value, level)
  if type(value) == "number" then
    value = tostring(value)
  elseif type(value) ~= "string" then
    value = secret.reveal(value)
  end
  if type(name) ~= "string" or type(value) ~= "string" then
    local text = "%s: header %s must be a string, a number or a sluice.secret"
    error(text:format(where, tostring(name)), level + 1)
  end
  local count = #flat
  flat[count + 1], flat[count + 2] = name, value
end

-- The header fields as { name, value, name, value, ... }, secrets as bytes: for the engine only.
local function flatten(where, given, level)
  local flat = { nil, nil, nil, nil, nil, nil, nil, nil, nil, nil } -- room for five, rather than growing
  level = level + 1
  if headers.is(given) then
    for name, value in pairs(given) do add_field(flat, where, name, value, level) end
  elseif type(given[1]) == "table" then
    for _, field in ipairs(given) do add_field(flat, where, field[1], field[2], level) end
  else
    local count = 0
    for name, value in pairs(given) do
      if type(value) == "string" and type(name) == "string" then
        flat[count + 1], flat[count + 2] = name, value
      elseif type(value) == "table" and not secret.is(value) then
        for _, one in ipairs(value) do add_field(flat, where, name, one, level) end
      else
        add_field(flat, where, name, value, level)
      end
      count = #flat
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

local json_encode

-- How each shorthand of a body becomes the body and its content type.
local encoders = {
  json = function(value)
    json_encode = json_encode or require("sluice.json").encode
    return json_encode(value), "application/json"
  end,
  form = function(value) return require("sluice.url").form(value), "application/x-www-form-urlencoded" end,
  multipart = function(value) return require("sluice.multipart").encode(value) end,
}

-- The body as it was given or by one of the shorthands, and its content type where that is ours to say.
local function body_of(where, given, level)
  local body, content_type = given.body, nil
  if given.json == nil and given.form == nil and given.multipart == nil then return body end
  if body == nil and given.form == nil and given.multipart == nil then return encoders.json(given.json) end
  for name, encode in next, encoders do
    local value = given[name]
    if value ~= nil then
      if body ~= nil then
        error(where .. ': give one of "body", "json", "form" and "multipart"', level + 1)
      end
      body, content_type = encode(value)
    end
  end
  return body, content_type
end

-- The header fields of a request that has none but the type of its body.
local TYPE_ALONE = { ["application/json"] = { "content-type", "application/json" } }

-- The fields, and the body as the engine takes it: `true` for one that comes piece by piece, from the
-- function that is the third result.
local function prepare(where, given, level)
  local flat = given.headers and flatten(where, given.headers, level + 1) or NO_FIELDS
  local body, content_type = body_of(where, given, level + 1)
  if flat == NO_FIELDS and content_type then
    flat = TYPE_ALONE[content_type] or { "content-type", content_type }
  elseif content_type and not has_content_type(flat) then
    flat[#flat + 1], flat[#flat + 2] = "content-type", content_type
  end
  if body ~= nil and type(body) ~= "string" then return flat, true, body end
  return flat, body
end

local function make_error(failure)
  local facts = failure.facts
  failure.facts = nil
  failure.timing = facts.timing
  return meta.set(errors.new(failure.kind, failure), facts)
end

-- What is made of the record of an answer when it is asked for: most are read for their status and
-- body alone.
local later = {
  reason = core.reason,
  facts = core.facts,
  headers = function(record) return headers.adopt(core.fields(record)) end,
}

later.keeps_time = true

function later.read(transfer, res, seconds)
  local piece, failure = transfer:read(seconds)
  if piece then return piece end
  if piece == false then return nil, response.late(seconds) end
  meta.set(res, transfer:facts())
  if failure then return nil, make_error(failure) end
  return nil
end

function later.close(transfer)
  transfer:close()
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

-- One request and its answer: a response; nil and err; or false and what is wrong with the request.
local function exchange(self, method, url, fields, body, next_piece, settings)
  local status, record, content
  if body == true then
    local transfer, wrong = self._engine:start(method, url, fields, true, settings.compiled)
    if not transfer then return false, wrong end
    status, record, content = upload(transfer, next_piece)
    if status == false then return nil, record end
  else
    status, record, content = self._engine:perform(method, url, fields, body, settings.compiled)
  end
  if status then
    if settings.stream then return response.streamed(status, content, later, record) end
    return response.whole(status, content, later, record)
  end
  if type(record) == "string" then return false, record end
  return nil, make_error(record)
end

-- Without user, password, query and fragment.
local function label_of(url)
  return (url:gsub("[?#].*$", ""):gsub("^(%a+://)[^/]*@", "%1"))
end

-- The fields of a request whose values are secrets, by their names in lower case.
local function secret_fields(given)
  local names = {}
  for name, value in pairs(headers.new(given)) do
    if secret.is(value) then names[name:lower()] = true end
  end
  return function(name) return names[name] or false end
end

-- Bytes of a redirect's body that are read so that the connection can serve again.
local MAX_DISCARDED = 16 << 10

local function discard(res)
  local length = tonumber(res.headers["content-length"])
  if length and length <= MAX_DISCARDED then res:text() end
  res:close()
end

local function refuse(hop, res, code, message)
  return errors.new("ProtocolError", {
    code = code, message = message, operation = hop.method, object = label_of(hop.url), phase = "head",
    response = res, timing = meta.get(res).timing, maybe_executed = true,
  })
end

-- The settings with what is left of the total.
local function remaining(settings, deadline)
  if not settings.total then return settings end
  local left = {}
  for name, value in pairs(settings) do left[name] = value end
  left.total = math.max(deadline - task.now(), 0)
  return compile(left)
end

-- Follows redirects, at most so many, from an answer that may be one.
local function chase(self, given, hop, settings, res, most)
  local trail, is_secret = {}, secret_fields(given.headers)
  local deadline = settings.total and task.now() + settings.total - meta.get(res).timing.total
  while redirect.is(res.status) and res.headers.location do
    if #trail == most then
      res:close()
      return nil, refuse(hop, res, "TOO_MANY_REDIRECTS", ("redirected more than %d times"):format(most))
    end
    local following, code, message = redirect.follow(res.status, res.headers.location, hop, is_secret)
    if not following then
      res:close()
      return nil, refuse(hop, res, code, message)
    end
    trail[#trail + 1] = { status = res.status, url = label_of(following.url) }
    discard(res)
    local reached, err = exchange(self, following.method, following.url, following.fields, following.body,
      nil, remaining(settings, deadline))
    if reached == false then return nil, refuse(hop, res, "REDIRECT_REFUSED", "redirect refused: " .. err) end
    if not reached then return nil, err end
    hop, res = following, reached
  end
  return #trail > 0 and meta.set(res, { redirects = trail }) or res
end

-- How many are followed where nothing is said: a GET has no effect that a second one could double.
local FOLLOWED = { GET = 10, HEAD = 10 }

local traced -- the module, once something is traced

-- `followed`: by method, for a request that says nothing.
local function perform(self, where, given, followed)
  local flat, body, next_piece = prepare(where, given, CALLER_OF_PERFORM)
  local url = given.query and require("sluice.url").with_query(given.url, given.query) or given.url
  local method = given.method and given.method:upper() or (body and "POST" or "GET")
  local settings = settings_of(self, given)
  local res, err
  if spans.is_on then
    traced = traced or require "sluice.trace.http"
    res, err = traced.exchange(exchange, self, method, url, flat, body, next_piece, settings)
  else
    res, err = exchange(self, method, url, flat, body, next_piece, settings)
  end
  local told = observe.on_request
  if told then told(method, label_of(url), res or nil, err) end
  if not res then
    if res == false then error(where .. ": " .. err, CALLER_OF_PERFORM) end
    return nil, err
  end
  if res.status < 300 or res.status >= 400 then return res end
  local most = given.redirects or self._redirects or followed[method] or 0
  if most == 0 then return res end
  local hop = {
    method = method, url = url, fields = flat, body = body, to_http = given.redirect_to_http,
  }
  return chase(self, given, hop, settings, res, most)
end

---@class sluice.HttpClient
local methods = {}
local metatable = { __name = "sluice.http.client", __index = methods }

function metatable.__close(self)
  self:close()
end

-- No proxy reaches what is on this machine: an emulator, a model beside us.
local LOOPBACK = "localhost,127.0.0.0/8,[::1]"

-- The proxies for the engine, by option or from the environment: in lower case first, as curl does;
-- HTTP_PROXY is not read, because a web server makes one of a caller's "Proxy:" header.
local function proxies_of(given)
  if given.proxy ~= nil or given.unix then
    local proxy = given.proxy or nil
    return proxy, proxy, given.no_proxy
  end
  local get = require("sluice.settings").get
  local all = get "all_proxy" or get "ALL_PROXY"
  local exempt = given.no_proxy or get "no_proxy" or get "NO_PROXY"
  exempt = exempt and exempt .. "," .. LOOPBACK or LOOPBACK
  return get "http_proxy" or all, get "https_proxy" or get "HTTPS_PROXY" or all, exempt
end

-- What core.open reads.
local ENGINE = {
  "max_connections", "max_per_host", "max_waiting", "ca_file", "cert", "key", "unix", "http2", "dns_servers",
  "dns_over_tcp",
}

local BY_LIMITS = { __mode = "k" }

local function engine_options(given)
  local made = {}
  for _, name in ipairs(ENGINE) do made[name] = given[name] end
  local http_proxy, https_proxy, no_proxy = proxies_of(given)
  made.http_proxy, made.https_proxy = secret.reveal(http_proxy), secret.reveal(https_proxy)
  made.no_proxy, made.key_password = no_proxy, secret.reveal(given.key_password)
  return made
end

---Makes a client with a pool of its own. Never waits.
---@param given? sluice.HttpClientOptions
---@return sluice.HttpClient
function http.client(given)
  given = options.check("http.client", given, CLIENT)
  options.timeout("http.client", given.timeout)
  local engine, reason = core.open(engine_options(given))
  if not engine then error("http.client: " .. reason, 2) end
  local defaults = { timeout = given.timeout, max_response = given.max_response, verify = given.verify }
  return setmetatable({
    _engine = engine,
    _defaults = defaults,
    _redirects = given.redirects,
    _by_limits = setmetatable({}, BY_LIMITS),
    _whole = make_settings(defaults, {}, false),
    _streamed = make_settings(defaults, {}, true),
  }, metatable)
end

---Sends a request and waits for its answer: all of it, or with `stream = true` its head. Any status
---is a response. In the meta of a response: `timing` (seconds of each phase: queue, resolve, connect,
---tls, first_byte, total; `reused`, `bytes_in`), `remote_address`, and `redirects` where some were
---followed: an array of { status, url }.
---
---Errors: ConnectError (`phase` "resolve", "connect", "send" or "first_byte"), TLSError, TimeoutError
---(`limit`), TruncatedStream, ProtocolError (`code` "RESPONSE_TOO_LARGE", "HEAD_TOO_LARGE",
---"TOO_MANY_REDIRECTS", "REDIRECT_REFUSED" or "BODY_IS_SPENT"); each with `operation`, `object`,
---`phase`, `timing`, `retryable`, `maybe_executed`.
---@param given sluice.HttpRequest
---@return sluice.Response? response
---@return sluice.Error? err
function methods:request(given)
  check("client:request", given)
  return perform(self, "client:request", given, FOLLOWED)
end

---The client as a transport: as request, but takes what it does not know without a word, since a
---request may have passed through layers, and follows redirects only where that is asked for. Waits.
---@param given sluice.HttpRequest
---@return sluice.Response? response
---@return sluice.Error? err
function methods:handle(given)
  return perform(self, "client:handle", given, NO_FIELDS)
end

---What the pool does: connections `open` and, of them, `idle`; requests `active` and `waiting` for a
---slot. Never waits.
---@return { open: integer, idle: integer, active: integer, waiting: integer }
function methods:stats()
  return self._engine:stats()
end

---Does now what the first TLS connection would: reads the file of authorities, about 20 ms. Never waits.
function methods:warm_up()
  self._engine:warm_up()
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

---As client:warm_up, for the client that the whole program shares.
function http.warm_up()
  shared_client():warm_up()
end

local UNUSED <const> = { open = 0, idle = 0, active = 0, waiting = 0 }

---As client:stats, for the client that the whole program shares. Never waits.
---@return { open: integer, idle: integer, active: integer, waiting: integer }
function http.stats()
  if not (shared and shared._engine:is_open()) then return UNUSED end
  return shared:stats()
end

---As client:request, with the client that the whole program shares. Waits.
---@param given sluice.HttpRequest
---@return sluice.Response? response
---@return sluice.Error? err
function http.request(given)
  check("http.request", given)
  return perform(shared_client(), "http.request", given, FOLLOWED)
end

---The shared client as a transport: see client:handle. Waits.
---@param given sluice.HttpRequest
---@return sluice.Response? response
---@return sluice.Error? err
function http.handle(_, given)
  return perform(shared_client(), "http.handle", given, NO_FIELDS)
end

return http
