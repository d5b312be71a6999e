-- SPDX-License-Identifier: MIT
-- API keys: which callers an app answers.

local failure = require "sluice.web.failure"
local options = require "sluice.options"
local secret = require "sluice.secret"

local api_keys = {}

local API_KEYS <const> = { open = "table?" }

-- The key of a request: `Authorization: Bearer KEY` (RFC 6750), or `x-api-key: KEY`.
local function key_of(request)
  local field = secret.reveal(request.headers.authorization)
  local key = type(field) == "string" and field:match "^[Bb][Ee][Aa][Rr][Ee][Rr] +(%S+) *$"
  return key or secret.reveal(request.headers["x-api-key"])
end

-- Every key is compared, so that the time taken does not tell which one was nearly right.
local function caller_of(callers, given)
  local found
  for name, key in pairs(callers) do
    if secret.equals(given, key) then found = name end
  end
  return found
end

local function refuse(message)
  local body = failure.body("Unauthenticated", message)
  body.error.code = "invalid_api_key"
  return { status = 401, headers = { ["www-authenticate"] = "Bearer" }, json = body }
end

local function kept(callers)
  options.argument("web.api_keys", "callers", callers, "table")
  local keys = {}
  for name, key in pairs(callers) do
    if type(name) ~= "string" or not (secret.is(key) or type(key) == "string") or key == "" then
      options.misuse("web.api_keys: callers are names with a key each, got %s for %s",
        options.type_name(key), tostring(name))
    end
    keys[name] = secret.new(key)
  end
  return keys
end

---Makes the middleware: `app:use(web.api_keys { alice = "sk-..." })`. A request with the key of a caller, as
---`Authorization: Bearer KEY` or as `x-api-key: KEY`, goes on with `request.caller` set to the name; any
---other gets 401. A preflight of CORS has no key: put web.cors before it.
---@param callers table<string, string|sluice.Secret> by name; a key of a caller is kept as a secret
---@param given? { open?: string[] } `open`: paths that anyone may ask, such as "/health"
---@return fun(next: function): fun(request: sluice.web.Request): any, table?
function api_keys.new(callers, given)
  local keys, open = kept(callers), {}
  for _, path in ipairs(options.check("web.api_keys", given, API_KEYS).open or {}) do open[path] = true end
  return function(next_handler)
    return function(request)
      if open[request.path] then return next_handler(request) end
      local key = key_of(request)
      if type(key) ~= "string" or key == "" then
        return refuse "an API key is needed: send Authorization: Bearer KEY"
      end
      local caller = caller_of(keys, key)
      if not caller then return refuse "the API key is not known here" end
      request.caller = caller
      return next_handler(request)
    end
  end
end

return api_keys
