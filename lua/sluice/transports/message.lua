-- SPDX-License-Identifier: MIT
-- A client's request with its shorthands worked out, for transports that look at it.

local headers = require "sluice.headers"
local options = require "sluice.options"

local message = {}

local encoders = {
  json = function(value) return require("sluice.json").encode(value), "application/json" end,
  form = function(value) return require("sluice.url").form(value), "application/x-www-form-urlencoded" end,
  multipart = function(value) return require("sluice.multipart").encode(value) end,
}

local FIELDS = {
  { "method", "string?" }, { "url", "string?" }, { "path", "string?" }, { "headers", "table?" },
  { "body", "string|callable?" }, { "stream", "boolean?" }, { "max_response", "count?" },
  { "query", "table?" },
}

local function check(where, given)
  options.argument(where, "request", given, "table")
  for _, field in ipairs(FIELDS) do options.argument(where, field[1], given[field[1]], field[2]) end
  if not given.url and not given.path then options.misuse("%s: one of url and path is needed", where) end
end

local function encode_body(where, copy)
  for name, encode in pairs(encoders) do
    local value = copy[name]
    if value ~= nil then
      if copy.body ~= nil then
        options.misuse('%s: give one of "body", "json", "form" and "multipart"', where)
      end
      local content_type
      copy.body, content_type = encode(value)
      if not copy.headers["content-type"] then copy.headers["content-type"] = content_type end
      copy[name] = nil
    end
  end
end

---A copy with `method` in capitals, `headers` as a header object, `query` within the URL and the body as
---`body` alone. Raises for what is no request.
---@param where string the public name, for messages of misuse
---@param given sluice.HttpRequest
---@return sluice.HttpRequest
function message.normal(where, given)
  check(where, given)
  local copy = {}
  for name, value in pairs(given) do copy[name] = value end
  copy.headers = headers.new(given.headers)
  encode_body(where, copy)
  copy.method = given.method and given.method:upper() or (copy.body and "POST" or "GET")
  if given.query then
    local name = given.url and "url" or "path"
    copy[name] = require("sluice.url").with_query(given[name], given.query)
    copy.query = nil
  end
  return copy
end

return message
