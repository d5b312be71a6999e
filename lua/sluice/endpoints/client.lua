-- SPDX-License-Identifier: MIT
-- JSON calls to one server: what every endpoint and the workspace client send and read alike.

local errors = require "sluice.errors"
local meta = require "sluice.meta"
local options = require "sluice.options"
local secret = require "sluice.secret"
local task = require "sluice.task"

local client = {}

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

---Makes a client. Without a transport it is the shared HTTP client, asked for at the first call.
---@param given { base: string, host: string, token?: string|sluice.Secret, transport?: table, headers?: table, settings?: sluice.Setting[]|fun(): sluice.Setting[] } `token`: sent as a bearer token; `settings`: told by the errors of a refusal
---@return sluice.endpoints.Client
function client.new(given)
  local fields = { ["accept"] = "application/json", ["user-agent"] = "sluice" }
  for name, value in pairs(given.headers or {}) do fields[name] = value end
  -- kept by itself as well: as long as it lives, it is masked wherever it comes up alone
  local token = given.token and secret.new(given.token)
  if token then fields["authorization"] = secret.join("Bearer ", token) end
  return setmetatable({
    base = given.base,
    host = given.host,
    honours_timeout = is_http(given.transport),
    _transport = given.transport,
    _token = token,
    _headers = fields,
    _settings = given.settings,
  }, metatable)
end

local function headers_of(self, call)
  local fields = {}
  for name, value in pairs(self._headers) do fields[name] = value end
  if call.body ~= nil then fields["content-type"] = "application/json" end
  if call.text then fields["accept"] = "text/plain" end
  if call.request_id then fields["x-request-id"] = call.request_id end
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
  if type(timeout) == "number" then return timeout end
  return timeout and timeout.total
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
  return errors.new(kind, {
    operation = call.operation,
    object = call.object,
    status = res.status,
    request_id = res.headers["x-request-id"],
    message = body and body ~= "" and ("%s: %s"):format(message, errors.excerpt(body)) or message,
    response = res,
    settings = errors.settings(settings),
  })
end

local function page(self, call, res, body)
  local message = "the answer is an HTML page, not what was asked for: a wrong host, or a login page"
  return nil, unusable(call, res, "ProtocolError", message, body, self._settings)
end

local function decode(self, call, res, body)
  if body:match("^%s*$") then
    if call.may_be_empty then return {} end
    return nil, unusable(call, res, "ProtocolError", "the answer is empty where JSON is expected")
  end
  if body:match("^%s*<") then return page(self, call, res, body) end
  local value, err = require("sluice.json").decode(body)
  if value == nil then
    local reason = errors.is(err) and err.message or tostring(err)
    return nil, unusable(call, res, "JsonError", "the answer is malformed JSON, " .. reason, body)
  end
  if type(value) ~= "table" then
    return nil, unusable(call, res, "ProtocolError", "the answer is JSON but no object", body)
  end
  return value
end

local function describe(value, res, body)
  local facts = meta.get(res)
  return meta.set(value, {
    status = res.status,
    headers = res.headers,
    request_id = res.headers["x-request-id"] or res.headers["x-databricks-request-id"],
    served_model = res.headers["served-model-name"],
    timing = facts.timing,
    raw = body,
  })
end

local function refuse(self, call, res)
  return errors.from_response(res, {
    operation = call.operation, object = call.object, settings = self._settings,
  })
end

local function encode(call)
  local encoded, text = pcall(require("sluice.json").encode, call.body)
  if encoded then return text end
  if type(text) ~= "string" then error(text, 0) end
  local object = tostring(call.object)
  options.misuse("%s %s: the request cannot be written as JSON: %s", call.operation, object, text)
end

---Makes one call. Waits. Raises for a body that JSON cannot hold.
---@param call { method: string, path: string, body?: table, operation: string, object?: string, timeout?: number|sluice.Timeout, request_id?: string, may_be_empty?: boolean, text?: boolean } `text`: the answer is text, not JSON
---@return table|string|nil value the decoded answer, described by sluice.meta; of a text call its text
---@return sluice.Error? err
function methods:call(call)
  local body = call.body ~= nil and encode(call) or nil
  local res, answer = send(self, {
    method = call.method,
    url = self.base .. call.path,
    headers = headers_of(self, call),
    body = body,
    timeout = call.timeout,
  }, call.timeout)
  if not res then return nil, name_call(answer, call) end
  if res.status < 200 or res.status > 299 then return nil, refuse(self, call, res) end
  if call.text then
    if answer:match("^%s*<") then return page(self, call, res, answer) end
    return answer
  end
  local value, err = decode(self, call, res, answer)
  if value == nil then return nil, err end
  return describe(value, res, answer)
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

local abandoned = { __close = function(guard) if guard.res then guard.res:close() end end }

---Makes one call whose answer comes as an event stream. Waits for the first content, the end or an err.
---@param call { method: string, path: string, body: table, operation: string, object?: string, timeout?: number|sluice.Timeout, request_id?: string, end_mark?: boolean }
---@return sluice.Stream? stream
---@return sluice.Error? err
function methods:stream(call)
  local chat, started = require "sluice.stream.chat", task.now()
  local fields = headers_of(self, call)
  fields["accept"] = "text/event-stream"
  local res, err = open(self, {
    method = call.method, url = self.base .. call.path, headers = fields, body = encode(call),
    stream = true, timeout = chat.transport_limits(call.timeout),
  }, call.timeout)
  if not res then return nil, name_call(err, call) end
  local guard <close> = setmetatable({ res = res }, abandoned)
  if res.status < 200 or res.status > 299 then return nil, refuse(self, call, res) end
  local source = chat.new(res, {
    started = started, timeout = call.timeout, end_mark = call.end_mark,
    operation = call.operation, object = call.object,
  })
  local ready, failure = describe(source, res):begin()
  if not ready then return nil, failure end
  guard.res = nil
  return require("sluice.stream").wrap(source)
end

return client
