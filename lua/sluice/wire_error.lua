-- SPDX-License-Identifier: MIT
-- Reads what an error answer says: the shapes of body that model services send, and how long to wait.

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

---@class sluice.WireError
---@field message string
---@field code string?
---@field details table?

local function phrase(res)
  if type(res.reason) == "string" and res.reason ~= "" then return res.reason end
  return PHRASES[res.status] or ("HTTP " .. tostring(res.status))
end

local function text_of(value)
  if type(value) == "string" and value ~= "" and value ~= "null" then return value end
  if math.type(value) == "integer" then return tostring(value) end
  return nil
end

-- A proxy in front of an outside provider hides the useful part one level down.
local function external_message(body)
  local inner = body.external_model_message
  if type(inner) == "string" then return inner end
  if type(inner) ~= "table" then return nil end
  if type(inner.error) == "table" then inner = inner.error end
  return text_of(inner.message), text_of(inner.error_code) or text_of(inner.code)
end

-- OpenAI's { error = { message, type, code, param } }.
local function nested_error(inner)
  local code = text_of(inner.error_code) or text_of(inner.code) or text_of(inner.type)
  return { message = text_of(inner.message), code = code, details = inner.details }
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

local function object_error(body, res)
  if body.schemas ~= nil and body.detail ~= nil then return scim_error(body, res) end
  if type(body.error) == "table" then return nested_error(body.error) end
  local code = text_of(body.error_code) or (type(body.code) == "string" and text_of(body.code) or nil)
  local message = text_of(body.error) or text_of(body.message) or detail_text(body.detail)
  local outside, outside_code = external_message(body)
  if outside then
    message = message and (message .. ": " .. outside) or outside
    code = code or outside_code
  end
  return { message = message, code = code, details = body.details }
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

local function decode(body)
  local value = require("sluice.json").decode(body)
  return type(value) == "table" and value or nil
end

---What the body of an error answer says.
---@param res sluice.Response its status and reason
---@param body string
---@return sluice.WireError
function wire_error.read(res, body)
  if body:match("^%s*$") then return { message = phrase(res) } end
  local first = body:match("^%s*(.)")
  if first == "<" then return html_error(body, res) end
  local object = first == "{" and decode(body)
  if object then
    local found = object_error(object, res)
    if type(found.details) ~= "table" then found.details = nil end
    found.message = found.message or (phrase(res) .. ": " .. body)
    return found
  end
  local code, rest = body:match("^%s*([A-Z][A-Z0-9_]+): (.+)$")
  if code then return { message = rest, code = code } end
  return { message = phrase(res) .. ": " .. body }
end

-- google.rpc.RetryInfo: { retry_delay = "42.5s" }.
local function retry_info(details)
  for _, detail in ipairs(details or {}) do
    local kind = type(detail) == "table" and detail["@type"]
    if type(kind) == "string" and kind:find("google.rpc.RetryInfo", 1, true) then
      local delay = detail.retry_delay or detail.retryDelay
      local seconds = type(delay) == "string" and delay:match("^(%d+%.?%d*)s$")
      if seconds then return tonumber(seconds) end
    end
  end
  return nil
end

---How many seconds the server asks to wait: `retry-after-ms`, then `Retry-After` (seconds, fractions,
---dates), then a RetryInfo of the body; nil when it does not say.
---@param res sluice.Response
---@param details? table
---@return number? seconds
function wire_error.retry_after(res, details)
  local milliseconds = res.headers["retry-after-ms"]
  local exact = milliseconds and milliseconds:match("^%d+%.?%d*$")
  if exact and #exact <= 12 then return tonumber(exact) / 1000 end
  local text = res.headers["retry-after"]
  if text then
    local backoff = require "sluice.core.backoff"
    local seconds = backoff.retry_after(text, require("sluice.task").wall())
    if seconds then return seconds end
  end
  return retry_info(details)
end

return wire_error
