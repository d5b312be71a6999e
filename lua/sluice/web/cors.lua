-- SPDX-License-Identifier: MIT
-- Cross-origin requests (CORS, the Fetch standard): which pages of other origins may call an app.

local options = require "sluice.options"

local cors = {}

---@class sluice.web.CorsOptions
---@field origins "*"|string[]|fun(origin: string): boolean whose pages may call: any, these ("https://a.example"), or those that the function says
---@field methods? string[] what they may use; GET, HEAD, POST, PUT, PATCH and DELETE by default
---@field headers? string[] request headers that they may send; what they ask for by default
---@field expose? string[] response headers that they may read beside the simple ones
---@field credentials? boolean whether cookies and Authorization of the browser go along; not with "*"
---@field max_age? integer seconds that a browser may remember this, 600 by default
local OPTIONS <const> = {
  origins = function(value)
    return value == "*" or type(value) == "table" or type(value) == "function",
      '"*", an array of origins or a function'
  end,
  methods = "table?", headers = "table?", expose = "table?", credentials = "boolean?", max_age = "integer?",
}

local METHODS <const> = { "GET", "HEAD", "POST", "PUT", "PATCH", "DELETE" }
local MAX_AGE <const> = 600

local function judge_of(origins)
  if origins == "*" then return function() return true end end
  if type(origins) == "function" then return origins end
  local known = {}
  for _, origin in ipairs(origins) do known[origin] = true end
  return function(origin) return known[origin] end
end

local function joined(list)
  return list and table.concat(list, ", ")
end

-- The answer to a preflight, of which all else is in answer_headers.
local function preflight(request, given)
  return {
    status = 204,
    headers = {
      ["access-control-allow-methods"] = joined(given.methods or METHODS),
      ["access-control-allow-headers"] = joined(given.headers)
        or request.headers["access-control-request-headers"],
      ["access-control-max-age"] = tostring(given.max_age or MAX_AGE),
    },
  }
end

---Makes the middleware: `app:use(web.cors{ origins = { "https://a.example" } })`. It answers preflights
---itself; an origin that is not allowed gets the usual answer, which its browser keeps from the page. Failures
---and unknown paths are told to those that are allowed.
---@param given sluice.web.CorsOptions
---@return fun(next: function): fun(request: sluice.web.Request): any, table?
function cors.new(given)
  given = options.check("web.cors", given, OPTIONS)
  if given.origins == nil then options.misuse 'web.cors: option "origins" is missing' end
  if given.origins == "*" and given.credentials then
    options.misuse 'web.cors: with credentials = true "origins" cannot be "*": browsers refuse it'
  end
  local allows, exposed = judge_of(given.origins), joined(given.expose)
  local function fields_for(origin)
    return {
      ["access-control-allow-origin"] = given.origins == "*" and "*" or origin,
      ["access-control-allow-credentials"] = given.credentials and "true" or nil,
      ["access-control-expose-headers"] = exposed,
      vary = given.origins ~= "*" and "Origin" or nil,
    }
  end
  return function(inner)
    return function(request)
      local origin = request.headers.origin
      local allowed = origin and allows(origin)
      local fields = allowed and fields_for(origin) or { vary = given.origins ~= "*" and "Origin" or nil }
      request:add_answer_headers(fields)
      local is_preflight = request.method == "OPTIONS" and request.headers["access-control-request-method"]
      if allowed and is_preflight then return preflight(request, given) end
      return inner(request)
    end
  end
end

return cors
