-- SPDX-License-Identifier: MIT
-- What a handler may return, brought to one shape.

local headers = require "sluice.headers"
local response = require "sluice.response"

local result = {}

---@class sluice.web.Result
---@field status? integer default 200, or 204 where there is no body
---@field headers? table as for sluice.headers.new
---@field json? any a value to encode
---@field body? string|fun(): string? all of it, or an iterator of its pieces; it may wait, raise err, or return nil and err
---@field close? fun() called once when an iterator is not needed any more, however it ended

local TEXT = "text/plain; charset=utf-8"
local JSON = "application/json"

-- Fields that belong to one connection (RFC 9110, 7.6.1) and do not pass through us.
local HOP_BY_HOP = {
  ["connection"] = true, ["keep-alive"] = true, ["proxy-authenticate"] = true,
  ["proxy-authorization"] = true, ["proxy-connection"] = true, ["te"] = true, ["trailer"] = true,
  ["transfer-encoding"] = true, ["upgrade"] = true, ["content-length"] = true, ["date"] = true,
}

local json -- the module, once it is needed

local function pass_on(from)
  local kept = {}
  for name, value in pairs(from.headers) do
    if not HOP_BY_HOP[name:lower()] then kept[#kept + 1] = { name, value } end
  end
  local function read() return from:read() end
  return from.status, headers.new(kept), read, nil, function() from:close() end
end

local function encode(value)
  json = json or require "sluice.json"
  local body, err = json.encode(value)
  if not body then error(("the handler's json cannot be encoded: %s"):format(tostring(err)), 0) end
  return body
end

local function of_table(given)
  local status, body, value, kind = given.status, given.body, given.json, nil
  if value ~= nil then body, kind = encode(value), JSON end
  if status == nil then
    status = 200
  elseif math.type(status) ~= "integer" or status < 200 or status > 599 then
    error(("a handler's status is an integer from 200 to 599, got %s"):format(tostring(status)), 0)
  end
  if kind == nil and body ~= nil and type(body) ~= "string" and type(body) ~= "function" then
    error(("a handler's body is a string or an iterator, got a %s"):format(type(body)), 0)
  end
  return status, given.headers, body or "", kind, given.close
end

---What a handler returned, in parts. Raises plain text where a handler's author went wrong.
---@param given any
---@return integer status
---@return table? fields
---@return string|function body
---@return string? type the Content-Type where the fields have none
---@return function? close
function result.parts(given)
  local kind = type(given)
  if kind == "string" then return 200, nil, given, TEXT end
  if kind ~= "table" then
    error(("a handler returned %s: it returns a table, a text, or nil and err"):format(
      given == nil and "nothing" or "a " .. kind), 0)
  end
  if response.is(given) then return pass_on(given) end
  return of_table(given)
end

---The same as a table, with headers as an object of its own, so that they may be changed: for
---middleware.
---@param given any
---@return table
function result.open(given)
  local status, given_fields, body, kind, close = result.parts(given)
  local fields = headers.new(given_fields)
  if kind and not fields["content-type"] then fields["content-type"] = kind end
  return { status = status, headers = fields, body = body, close = close }
end

---What is wrong with the headers of an answer, nil if nothing is. In process; the server checks what
---it sends by itself.
---@param fields? table
---@return string? problem
function result.wrong_header(fields)
  for name, value in pairs(fields and headers.new(fields) or {}) do
    local kind = type(value)
    if type(name) ~= "string" or (kind ~= "string" and kind ~= "number") then
      return "a header is a name and a text or a number"
    end
    if name == "" or name:find("[^%w!#$%%&'*+%-.^_`|~]") then
      return ("the name of a header holds a character that may not stand there: %q"):format(name)
    end
    if tostring(value):find("[\0-\8\10-\31\127]") then
      return ("the value of header %s holds a line break or a control character"):format(name)
    end
  end
  return nil
end

return result
