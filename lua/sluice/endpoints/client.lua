-- SPDX-License-Identifier: MIT
-- JSON calls to one server: what every endpoint and the workspace client send and read alike.

local errors = require "sluice.errors"
local meta = require "sluice.meta"
local options = require "sluice.options"
local secret = require "sluice.secret"
local task = require "sluice.task"

local client = {}

---Who calls: a client asks it for header fields before each call, and tells it of each answer.
---@class sluice.Credentials
---@field kind string "pat", "oauth-m2m", ...; in the User-Agent
---@field authorize fun(self: sluice.Credentials, fields: table<string, any>, within?: number): any, sluice.Error? adds the fields that say who calls; gives a handle, or nil and err; waits, `within` seconds at most, for a token that must be fetched
---@field answered fun(self: sluice.Credentials, handle: any, status: integer): boolean hears the status; whether the call is worth another try, with new credentials

---@class sluice.endpoints.Client
---@field base string the URL before every path, without a slash at its end
---@field host string the authority of the base
local methods = {}
local metatable = { __name = "sluice.endpoints.client", __index = methods }

---Splits a base URL: `scheme://authority/path`; nil and the reason when it is none.
---@param url string
---@return string? base without a slash at its end
---@return string host or the reason
function client.parse_base(url)
  if url:find("[%c%s]") then return nil, "it holds blanks or control characters" end
  local scheme, authority, path = url:match("^(%a[%w+.-]*)://([^/?#]+)([^?#]*)$")
  if not scheme then return nil, "it must look like https://HOST" end
  scheme = scheme:lower()
  if scheme ~= "http" and scheme ~= "https" then return nil, "only http and https are spoken" end
  if authority:find("@", 1, true) then return nil, "credentials do not belong into it" end
  return scheme .. "://" .. authority .. path:gsub("/+$", ""), authority
end

---A path segment with everything but unreserved characters percent-encoded (RFC 3986, section 2.3).
---@param text string
---@return string
function client.escape(text)
  return (text:gsub("[^%w%-._~]", function(char) return ("%%%02X"):format(char:byte()) end))
end

---The request that asks for a stream: a copy, unless it does already.
---@param request table
---@return table
function client.streamed(request)
  if request.stream == true then return request end
  local copy = {}
  for name, value in pairs(request) do copy[name] = value end
  copy.stream = true
  return copy
end

-- Only the real transport keeps to time limits by itself.
local function is_http(transport)
  if transport == nil then return true end
  local its = getmetatable(transport)
  return type(its) == "table" and its.__name == "sluice.http.client"
end

-- As the official SDKs write theirs: product/version, then what it runs on and who calls.
local function user_agent(credentials)
  local text = ("sluice/%s %s os/linux"):format(require("sluice").version, _VERSION:lower():gsub(" ", "/"))
  return credentials and text .. " auth/" .. credentials.kind or text
end

---Makes a client. Without a transport it is the shared HTTP client, asked for at the first call.
---@param given { base: string, host: string, token?: string|sluice.Secret, credentials?: sluice.Credentials, transport?: table, headers?: table, settings?: sluice.Setting[]|fun(): sluice.Setting[] } `token`: a bearer token; `settings`: for errors
---@return sluice.endpoints.Client
function client.new(given)
  -- kept by itself as well: as long as it lives, it is masked wherever it comes up alone
  local token = given.token and secret.new(given.token)
  return setmetatable({
    base = given.base,
    host = given.host,
    honours_timeout = is_http(given.transport),
    _transport = given.transport,
    _token = token,
    _credentials = given.credentials,
    _authorization = token and secret.join("Bearer ", token),
    _user_agent = user_agent(given.credentials),
    _headers = given.headers,
    _settings = given.settings,
  }, metatable)
end

local function type_of(call)
  if call.form then return "application/x-www-form-urlencoded" end
  return call.body ~= nil and "application/json" or nil
end

local function add_headers(fields, more)
  for name, value in next, more do fields[name] = value end
end

-- Made in one piece: a table that grows costs more than all else here.
local function headers_of(self, call)
  local fields = {
    ["accept"] = call.text and "text/plain" or "application/json",
    ["user-agent"] = self._user_agent,
    ["authorization"] = self._authorization,
    ["content-type"] = type_of(call),
    ["x-request-id"] = call.request_id,
  }
  if self._headers then add_headers(fields, self._headers) end
  if call.headers then add_headers(fields, call.headers) end
  return fields
end

-- Sends and reads the whole answer.
local function exchange(transport, request)
  local res, err = transport:handle(request)
  if not res then return nil, err end
  local body
  body, err = res:text()
  if not body then return nil, err end
  return res, body
end

local function total_of(timeout)
  if timeout == nil then return nil end
  return type(timeout) == "number" and timeout or timeout.total
end

local function exchange_in_time(transport, request, total)
  local started = task.now()
  local res, body = task.timeout(total, exchange, transport, request)
  -- whatever comes at the limit or after it: a server in process makes an answer even of its own end
  if task.now() - started < total then return res, body end
  return nil, errors.new("TimeoutError", {
    message = ("no answer within %g s"):format(total), limit = "total", maybe_executed = true,
  })
end

local function send(self, request, timeout)
  if not self._transport then self._transport = require("sluice.http") end
  local total = not self.honours_timeout and total_of(timeout)
  if total then return exchange_in_time(self._transport, request, total) end
  return exchange(self._transport, request)
end

-- The error of a transport knows the connection; which call it was, we know.
local function name_call(err, call)
  if not errors.is(err) then return err end
  if err.operation and err.object then
    err.message = secret.mask(("%s %s: %s"):format(err.operation, err.object, err.message))
  end
  err.operation, err.object = call.operation, call.object
  return err
end

local function unusable(call, res, kind, message, body, settings)
  if call.hides_answer then body = nil end
  return errors.new(kind, {
    operation = call.operation,
    object = call.object,
    status = res.status,
    request_id = res.headers["x-request-id"],
    message = body and body ~= "" and ("%s: %s"):format(message, errors.excerpt(body)) or message,
    response = not call.hides_answer and res or nil,
    settings = errors.settings(settings),
  })
end

local function page(self, call, res, body)
  local message = "the answer is an HTML page, not what was asked for: a wrong host, or a login page"
  return nil, unusable(call, res, "ProtocolError", message, body, self._settings)
end

local OBJECT <const> = ("{"):byte()

-- What of an answer is no JSON at all: a login page, or nothing.
local function no_json(self, call, res, body)
  if body:find("^%s*<") then return page(self, call, res, body) end
  if body:find("%S") then return nil end
  if call.may_be_empty then return {} end
  return nil, unusable(call, res, "ProtocolError", "the answer is empty where JSON is expected")
end

local json_decode -- once it is needed

local function decode(self, call, res, body)
  if body:byte() ~= OBJECT then
    local none, failure = no_json(self, call, res, body)
    if none or failure then return none, failure end
  end
  json_decode = json_decode or require("sluice.json").decode
  local value, err = json_decode(body)
  if value == nil then
    local reason = errors.is(err) and err.message or tostring(err)
    if call.hides_answer then reason = "which is not shown" end
    return nil, unusable(call, res, "JsonError", "the answer is malformed JSON, " .. reason, body)
  end
  if type(value) ~= "table" then
    return nil, unusable(call, res, "ProtocolError", "the answer is JSON but no object", body)
  end
  return value
end

local function facts_of(res, body)
  local fields = res.headers
  return {
    status = res.status,
    headers = fields,
    request_id = fields["x-request-id"] or fields["x-databricks-request-id"],
    served_model = fields["served-model-name"],
    timing = meta.get(res).timing,
    raw = body,
  }
end

local function refuse(self, call, res)
  return errors.from_response(res, {
    operation = call.operation, object = call.object, settings = self._settings,
  })
end

local function encode(call)
  if call.form then return require("sluice.url").form(call.form) end
  if call.body == nil then return nil end
  local raw = meta.get(call.body).raw
  if raw then return raw end
  local encoded, text = pcall(require("sluice.json").encode, call.body)
  if encoded then return text end
  if type(text) ~= "string" then error(text, 0) end
  local object = tostring(call.object)
  options.misuse("%s %s: the request cannot be written as JSON: %s", call.operation, object, text)
end

-- Seconds. Less is no waiting, but the work of getting here.
local MOMENT <const> = 0.001

---What is left of the time limits of something that has been under way since `started`.
---@param timeout number|sluice.Timeout|nil
---@param started number as task.now() gave it
---@return number|sluice.Timeout|nil
function client.limits_left(timeout, started)
  local total = total_of(timeout)
  local spent = total and task.now() - started or 0
  if spent < MOMENT then return timeout end
  local left = math.max(0, total - spent)
  if type(timeout) == "number" then return left end
  local limits = {}
  for name, value in pairs(timeout) do limits[name] = value end
  limits.total = left
  return limits
end

-- Nothing was sent: what went wrong is told by the cause.
local function no_access(self, err, call)
  if not errors.is(err) then return err end
  return errors.new(err.kind, {
    operation = call.operation,
    object = call.object,
    message = "no access token",
    status = err.status,
    code = err.code,
    retryable = err.retryable,
    retry_after = err.retry_after,
    maybe_executed = false,
    limit = err.limit,
    settings = errors.settings(self._settings),
    cause = err,
  })
end

-- One try: what `carry` gives, and whether new credentials are worth another one.
local function attempt(self, call, body, carry, started)
  local credentials, fields, handle = self._credentials, headers_of(self, call), nil
  local timeout, total = call.timeout, total_of(call.timeout)
  if credentials then
    local err
    if total then timeout = client.limits_left(call.timeout, started) end
    handle, err = credentials:authorize(fields, total and total_of(timeout))
    if not handle then return nil, no_access(self, err, call) end
  end
  if total then timeout = client.limits_left(call.timeout, started) end
  local request = {
    method = call.method, url = self.base .. call.path, headers = fields, body = body, timeout = timeout,
  }
  local res, answer = carry(self, request, timeout)
  if not res then return nil, name_call(answer, call) end
  return res, answer, credentials and credentials:answered(handle, res.status)
end

-- A 401 means that nothing was done: with a new token the same call is sent once more.
local function perform(self, call, carry)
  local started, body = call.timeout and task.now(), encode(call)
  local res, answer, again = attempt(self, call, body, carry, started)
  if not again then return res, answer end
  res:close()
  res, answer = attempt(self, call, body, carry, started)
  return res, answer
end

---One call of a client.
---@class sluice.endpoints.Call
---@field method string
---@field path string
---@field body? table written as JSON; as its own bytes where sluice.meta(body).raw has them, see request:json
---@field form? table the body instead: of a form
---@field headers? table<string, string|sluice.Secret> more fields
---@field operation string for errors
---@field object? string for errors
---@field timeout? number|sluice.Timeout
---@field request_id? string
---@field may_be_empty? boolean whether an empty answer is one
---@field text? boolean the answer is text, not JSON
---@field hides_answer? boolean it is never quoted, for it may hold a secret
---@field end_mark? boolean of a stream: false where none is sent

---Makes one call. Waits. Raises for a body that JSON cannot hold.
---@param call sluice.endpoints.Call
---@return table|string|nil value the decoded answer, described by sluice.meta; of a text call its text
---@return sluice.Error? err
function methods:call(call)
  local res, answer = perform(self, call, send)
  if not res then return nil, answer end
  if res.status < 200 or res.status > 299 then return nil, refuse(self, call, res) end
  if call.text then
    if answer:match("^%s*<") then return page(self, call, res, answer) end
    return answer
  end
  local value, err = decode(self, call, res, answer)
  if value == nil then return nil, err end
  return meta.later(value, function() return facts_of(res, answer) end)
end

-- The head of an answer that comes piece by piece, within the limits that a head has.
local function open(self, request, timeout)
  if not self._transport then self._transport = require("sluice.http") end
  local transport = self._transport
  local total, first_byte = total_of(timeout), type(timeout) == "table" and timeout.first_byte
  local seconds, limit = total or math.huge, "total"
  if first_byte and first_byte < seconds then seconds, limit = first_byte, "first_byte" end
  if self.honours_timeout or seconds == math.huge then return transport:handle(request) end
  local started = task.now()
  local res, err = task.timeout(seconds, transport.handle, transport, request)
  if task.now() - started < seconds then return res, err end
  return nil, errors.new("TimeoutError", {
    message = ("no answer within %g s"):format(seconds), limit = limit, maybe_executed = true,
  })
end

local function carry_streamed(self, request, timeout)
  request.headers["accept"] = "text/event-stream"
  request.stream = true
  request.timeout = require("sluice.stream.chat").transport_limits(timeout)
  return open(self, request, timeout)
end

local abandoned = { __close = function(guard) if guard.res then guard.res:close() end end }

---Makes one call whose answer comes as an event stream. Waits for the first content, the end or an err.
---@param call sluice.endpoints.Call
---@return sluice.Stream? stream
---@return sluice.Error? err
function methods:stream(call)
  local chat, started = require "sluice.stream.chat", task.now()
  local res, err = perform(self, call, carry_streamed)
  if not res then return nil, err end
  local guard <close> = setmetatable({ res = res }, abandoned)
  if res.status < 200 or res.status > 299 then return nil, refuse(self, call, res) end
  local source = chat.new(res, {
    started = started, facts = facts_of, timeout = call.timeout, end_mark = call.end_mark,
    operation = call.operation, object = call.object,
  })
  local ready, failure = source:begin()
  if not ready then return nil, failure end
  guard.res = nil
  return require("sluice.stream").wrap(source)
end

return client
