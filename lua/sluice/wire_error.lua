-- SPDX-License-Identifier: MIT
-- Reads what a server says about an error: the shapes of body and of stream frame, and how long to wait.

local secret = require "sluice.secret"

local wire_error = {}

local PHRASES = {
  [400] = "Bad Request", [401] = "Unauthorized", [402] = "Payment Required", [403] = "Forbidden",
  [404] = "Not Found", [405] = "Method Not Allowed", [406] = "Not Acceptable", [408] = "Request Timeout",
  [409] = "Conflict", [410] = "Gone", [411] = "Length Required", [412] = "Precondition Failed",
  [413] = "Content Too Large", [414] = "URI Too Long", [415] = "Unsupported Media Type",
  [421] = "Misdirected Request", [422] = "Unprocessable Content", [425] = "Too Early",
  [426] = "Upgrade Required", [428] = "Precondition Required", [429] = "Too Many Requests",
  [431] = "Request Header Fields Too Large", [499] = "Client Closed Request",
  [500] = "Internal Server Error", [501] = "Not Implemented", [502] = "Bad Gateway",
  [503] = "Service Unavailable", [504] = "Gateway Timeout", [505] = "HTTP Version Not Supported",
  [529] = "Overloaded",
}

-- More than this is no error message: it is quoted, not taken apart.
local MAX_BODY <const> = 1 << 20

-- Envelopes in envelopes: one is what servers send.
local MAX_ENVELOPES <const> = 4

-- Of a `details` tree; what is deeper is dropped.
local MAX_DEPTH <const> = 16

---@class sluice.WireError
---@field message string? nil: nothing was said
---@field code string? the wire's own code, as it came
---@field type string? OpenAI's `type`, when there is a `code` as well
---@field param string? OpenAI's `param`: which part of the request is meant
---@field number integer? a status that the body itself names
---@field status integer? the status that the answer stands for, where its own is another
---@field details table?
---@field envelope { message: string?, code: string? }? what a proxy wrote around the provider's own error

local function phrase(res)
  if type(res.reason) == "string" and res.reason ~= "" then return res.reason end
  return PHRASES[res.status] or ("HTTP " .. tostring(res.status))
end

local function text_of(value)
  if type(value) == "string" and value ~= "" and value ~= "null" then return value end
  local whole = math.type(value) and math.tointeger(value)
  return whole and tostring(whole) or nil
end

-- A status, as a number or in digits.
local function status_of(value)
  local number = math.tointeger(tonumber(value))
  return number and number >= 400 and number <= 599 and number or nil
end

-- A word rather than a number: "rate_limit_exceeded".
local function word_of(value)
  return type(value) == "string" and not tonumber(value) and text_of(value) or nil
end

local TOLERANT <const> = { invalid_utf8 = "replace" }

local function decode(text)
  if not text:find("^%s*{") then return nil end
  local value = require("sluice.json").decode(text, TOLERANT)
  return type(value) == "table" and value or nil
end

-- The code of an object, and which status it names: OpenAI has `code` and `type`, Google `code` (a
-- number) and `status`, others `error_code`.
local function codes_of(object)
  local code = text_of(object.error_code) or word_of(object.code)
  local kind = word_of(object.type)
  local number = status_of(object.error_code) or status_of(object.code) or status_of(object.status)
  local word = code or word_of(object.status) or kind
  return word, number, word ~= kind and kind or nil
end

-- OpenAI's { error = { message, type, code, param } }.
local function nested_error(inner)
  local code, number, kind = codes_of(inner)
  return {
    message = text_of(inner.message) or text_of(inner.error) or text_of(inner.detail),
    code = code or text_of(inner.code), number = number, type = kind,
    param = text_of(inner.param), details = inner.details,
  }
end

local function scim_error(body, res)
  local detail = text_of(body.detail) or "SCIM API Internal Error"
  local kind = text_of(body.scimType)
  local status = text_of(body.status) or tostring(res.status)
  return { message = kind and (kind .. " " .. detail) or detail, code = "SCIM_" .. status }
end

-- `detail` is a text, or the array of { loc, msg, type } that FastAPI servers send with a 422.
local function detail_text(detail)
  if type(detail) ~= "table" then return text_of(detail) end
  local first = detail[1]
  return type(first) == "table" and text_of(first.msg) or nil
end

-- { error_code, message, details }; { error = "text" }, where `error` goes before `message`.
local function flat_error(body)
  local code = text_of(body.error_code) or word_of(body.code)
  return {
    message = text_of(body.error) or text_of(body.message) or detail_text(body.detail),
    code = code,
    number = status_of(body.error_code) or status_of(body.code) or status_of(body.status),
    param = text_of(body.param),
    details = body.details,
  }
end

local function plain_error(body, res)
  if body.schemas ~= nil and body.detail ~= nil then return scim_error(body, res) end
  if type(body.error) == "table" then return nested_error(body.error) end
  return flat_error(body)
end

-- What an outside provider said, which the proxy in front of it hides one level down, as an object or
-- as a text of JSON.
local function provider_error(body)
  local inner = body.external_model_message
  if inner == nil then inner = body.external_model_error end
  if inner == nil and type(body.message) == "string" and body.message:find("external_model_", 1, true) then
    inner = decode(body.message)
  end
  if type(inner) == "string" then inner = decode(inner) or { message = inner } end
  return type(inner) == "table" and inner or nil
end

-- What the provider said, and what the proxy wrote around it.
local function opened(body, res)
  local found = plain_error(body, res)
  local envelope
  for _ = 1, MAX_ENVELOPES do
    body = provider_error(body)
    if not body then break end
    local inner = plain_error(body, res)
    if inner.message or inner.code or provider_error(body) then
      envelope = envelope or { message = found.message, code = found.code }
      inner.details = inner.details or found.details
      found = inner
    end
  end
  found.envelope = envelope
  return found
end

-- A decoded tree with every secret in it masked: a server may send back what it was sent, anywhere.
local function masked(value, depth)
  if type(value) == "string" then return secret.mask(value) end
  if type(value) ~= "table" then return value end
  if depth >= MAX_DEPTH then return nil end
  local copy = setmetatable({}, getmetatable(value))
  for key, inner in next, value do copy[masked(key, depth)] = masked(inner, depth + 1) end
  return copy
end

local function object_error(body, res)
  local found = opened(body, res)
  found.details = type(found.details) == "table" and masked(found.details, 0) or nil
  found.envelope = masked(found.envelope, 0)
  return found
end

local entities = { amp = "&", lt = "<", gt = ">", quot = '"', nbsp = " ", ["#39"] = "'" }

local function html_error(body, res)
  local lower = body:lower()
  local inner
  for _, tag in ipairs { "pre", "title", "h1" } do
    local _, from = lower:find("<" .. tag .. "[^>]*>")
    local to = from and lower:find("</" .. tag .. ">", from, true)
    inner = inner or (to and body:sub(from + 1, to - 1))
  end
  inner = inner and inner:gsub("<[^>]*>", ""):gsub("&(#?%w+);", entities):gsub("%s+", " ")
  if not inner or inner:match("^%s*$") then inner = phrase(res) .. " (an HTML page)" end
  return { message = inner, code = (phrase(res):upper():gsub("[^%w]+", "_")) }
end

local function text_error(text)
  local code, rest = text:match("^%s*([A-Z][A-Z0-9_]+): (.+)$")
  return code and { message = rest, code = code } or nil
end

---What a redirect to a login page says; nil for any other answer. Clients of ours do not follow it.
---@param res sluice.Response
---@return sluice.WireError?
function wire_error.login_page(res)
  local place = res.headers["location"]
  if type(place) ~= "string" then return nil end
  if place:find("error=private-link-validation-error", 1, true) then
    return {
      message = "the workspace takes requests from its private network only, not from here",
      code = "PRIVATE_LINK_VALIDATION_ERROR", status = 403,
    }
  end
  local path = place:match "^%a[%w+.-]*://[^/?#]*([^?#]*)" or place:match "^[^?#]*"
  if path:find "^/login%f[^%w_-]" then
    return { message = "the server sends to its login page: it does not know who calls", status = 401 }
  end
  return nil
end

---What the body of an error answer says.
---@param res sluice.Response its status, reason and headers
---@param body string
---@return sluice.WireError
function wire_error.read(res, body)
  local page = wire_error.login_page(res)
  if page then return page end
  if #body > MAX_BODY then body = body:sub(1, MAX_BODY) end
  if body:match("^%s*$") then return { message = phrase(res) } end
  if body:match("^%s*<") then return html_error(body, res) end
  local object = decode(body)
  if object then
    local found = object_error(object, res)
    found.message = found.message or (phrase(res) .. ": " .. body)
    return found
  end
  return text_error(body) or { message = phrase(res) .. ": " .. body }
end

-- ---- frames of a stream ----

-- Which status a word of a frame stands for: those of google.rpc.Code, of OpenAI and of Anthropic. A
-- frame has no status of its own.
local STATUS_OF_WORD <const> = {
  bad_request = 400, invalid_argument = 400, invalid_request_error = 400, invalid_prompt = 400,
  context_length_exceeded = 400, content_filter = 400, failed_precondition = 400,
  unauthenticated = 401, authentication_error = 401, invalid_api_key = 401,
  permission_denied = 403, permission_error = 403,
  not_found = 404, not_found_error = 404, model_not_found = 404, endpoint_not_found = 404,
  resource_conflict = 409, request_too_large = 413,
  too_many_requests = 429, rate_limit_error = 429, rate_limit_exceeded = 429, insufficient_quota = 429,
  cancelled = 499,
  internal = 500, internal_error = 500, internal_server_error = 500, server_error = 500, api_error = 500,
  not_implemented = 501, unimplemented = 501, upstream_error = 502,
  unavailable = 503, temporarily_unavailable = 503, service_unavailable = 503,
  deadline_exceeded = 504, timeout = 504, timeout_error = 504, overloaded_error = 529,
}

local function is_said(value)
  if type(value) == "table" then return next(value) ~= nil end
  return type(value) == "string" and value ~= ""
end

local function is_error_object(value)
  if is_said(value.error) or is_said(value.external_model_message) then return true end
  if value.object == "error" or value.type == "error" then return true end
  return value.choices == nil and text_of(value.error_code) ~= nil
end

-- The object in a frame that tells of an error; nil for a frame that tells of none.
local function error_object(value, event)
  if type(value) == "string" then
    if event ~= "error" then return nil end
    return decode(value) or text_error(value) or { message = value }
  end
  if type(value) ~= "table" then return nil end
  local answer = value.response -- of OpenAI's Responses API
  local is_failed = value.type == "response.failed" and type(answer) == "table"
  if is_failed and is_said(answer.error) then return answer end
  return (event == "error" or is_error_object(value)) and value or nil
end

local function kind_of_frame(errors, found)
  for _, word in ipairs { found.code or "", found.type or "" } do
    local kind = errors.kind_of_code(word)
    if kind then return kind end
    local status = STATUS_OF_WORD[word:lower()]
    if status then return errors.kind_of(status) end
  end
  -- the answer had begun with a 200: what breaks off after that is the server's doing
  return found.number and errors.kind_of(found.number) or "ServiceError"
end

---The err that a frame of a stream means: `{"error":{...}}`, `{"error":"text"}`,
---`{"error_code":..., "message":...}`, OpenAI's and Anthropic's `{"type":"error", ...}`, and whatever
---comes under `event: error`. nil for a frame that tells of no error. Never waits.
---@param value any the decoded data of the frame, or its text where it is no JSON
---@param context? table fields to add, as for errors.from_response; `event`: the frame's own, is not added
---@return sluice.Error?
function wire_error.from_frame(value, context)
  local object = error_object(value, context and context.event)
  if not object then return nil end
  local errors = require "sluice.errors"
  local found = object_error(object, { status = 0, reason = "the stream ended with an error" })
  local fields = errors.wire_fields(found)
  fields.status = found.number
  fields.message = errors.excerpt(found.message or "the stream ended with an error that says nothing")
  fields.retry_after = wire_error.retry_hint(found.details)
  for name, given in pairs(context or {}) do
    if name ~= "event" then fields[name] = given end
  end
  return errors.new(kind_of_frame(errors, found), fields)
end

-- ---- how long to wait ----

-- RFC 9111, section 1.2.2: the largest number of seconds that means anything.
local MAX_SECONDS <const> = 2147483648

-- Loaded when there is something to wait for.
local function backoff()
  return require "sluice.core.backoff"
end

local function detail_of(details, name)
  if type(details) ~= "table" then return nil end
  for _, detail in ipairs(details) do
    local kind = type(detail) == "table" and detail["@type"]
    if type(kind) == "string" and kind:match("[^./]+$") == name then return detail end
  end
  return nil
end

---The first of google.rpc's details of this name: "ErrorInfo", "RequestInfo", "RetryInfo".
---@param details any
---@param name string
---@return table?
function wire_error.detail(details, name)
  return detail_of(details, name)
end

---Seconds to wait by a google.rpc.RetryInfo: `{ retry_delay = "42.5s" }`; nil where there is none.
---@param details any
---@return number? seconds
function wire_error.retry_hint(details)
  local info = detail_of(details, "RetryInfo")
  local delay = info and (info.retry_delay or info.retryDelay)
  if type(delay) == "string" then return backoff().decimal(delay:match "^(%d.*)s$" or "") end
  if type(delay) ~= "table" then return nil end
  local seconds, nanos = tonumber(delay.seconds or 0), tonumber(delay.nanos or 0)
  local sum = seconds and nanos and seconds + nanos / 1e9
  return sum and sum >= 0 and math.min(sum, MAX_SECONDS) or nil
end

-- In this order: the finer one first.
local IN_MILLISECONDS <const> = { "retry-after-ms", "x-ms-retry-after-ms" }

---How many seconds the server asks to wait: `retry-after-ms`, `x-ms-retry-after-ms`, then `Retry-After`
---(seconds, fractions, dates), then a RetryInfo of the body; nil when it does not say, or says what
---cannot be read.
---@param res sluice.Response
---@param details? table
---@return number? seconds
function wire_error.retry_after(res, details)
  for _, name in ipairs(IN_MILLISECONDS) do
    local text = res.headers[name]
    local milliseconds = text and backoff().decimal(text)
    if milliseconds then return milliseconds / 1000 end
  end
  local text = res.headers["retry-after"]
  local seconds = text and backoff().retry_after(text, require("sluice.task").wall())
  if seconds then return seconds end
  return wire_error.retry_hint(details)
end

return wire_error
