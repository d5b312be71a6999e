-- SPDX-License-Identifier: MIT
-- What the next request is when an answer points elsewhere (RFC 9110, 15.4); what may not go along.

local core = require "sluice.core.http"

local redirect = {}

---One request of a chain.
---@class sluice.Hop
---@field method string
---@field url string
---@field fields string[] { name, value, name, value, ... }
---@field body string|true|nil true: by an iterator, which can be read once only
---@field to_http boolean? from https to http is allowed

-- 300 and 304 to 306 say something else.
local REDIRECTS = { [301] = true, [302] = true, [303] = true, [307] = true, [308] = true }

-- What goes to another origin. Any other header may be a credential: servers take keys in headers of
-- every name.
local HARMLESS = {
  ["accept"] = true, ["accept-language"] = true, ["accept-encoding"] = true, ["cache-control"] = true,
  ["content-type"] = true, ["content-language"] = true, ["content-encoding"] = true, ["pragma"] = true,
  ["range"] = true, ["user-agent"] = true,
}

---Whether a status asks to go elsewhere, if there is a Location.
---@param status integer
---@return boolean
function redirect.is(status)
  return REDIRECTS[status] or false
end

local function keep_fields(fields, keeps)
  local kept = {}
  for index = 1, #fields, 2 do
    if keeps(fields[index]:lower()) then
      kept[#kept + 1], kept[#kept + 2] = fields[index], fields[index + 1]
    end
  end
  return kept
end

local function is_of_body(name)
  return name:sub(1, 8) == "content-"
end

-- 303 is always a GET; 301 and 302 make one of a POST, as every client does (RFC 9110, 15.4.2).
local function becomes_get(status, method)
  if method == "GET" or method == "HEAD" then return false end
  return status == 303 or ((status == 301 or status == 302) and method == "POST")
end

---The request that follows `hop`, or nil, a code and a text. Never waits.
---@param status integer
---@param location string
---@param hop sluice.Hop
---@param is_secret fun(name: string): boolean whether the field of this name, in lower case, is a sluice.secret
---@return sluice.Hop? next
---@return string? code
---@return string? message
function redirect.follow(status, location, hop, is_secret)
  local url, same, downgrade = core.join(hop.url, location)
  if not url then return nil, "REDIRECT_REFUSED", "redirect refused: " .. same end
  if downgrade and not hop.to_http then
    return nil, "REDIRECT_REFUSED", "redirect refused: it leads from https to http (see redirect_to_http)"
  end
  local method, fields, body = hop.method, hop.fields, hop.body
  if becomes_get(status, method) then
    method, body = "GET", nil
    fields = keep_fields(fields, function(name) return not is_of_body(name) end)
  elseif body == true then
    return nil, "BODY_IS_SPENT", "redirect refused: the body came from an iterator and cannot be sent again"
  end
  if not same then
    fields = keep_fields(fields, function(name) return HARMLESS[name] and not is_secret(name) end)
  end
  return { method = method, url = url, fields = fields, body = body, to_http = hop.to_http }
end

return redirect
