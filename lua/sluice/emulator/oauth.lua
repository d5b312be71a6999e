-- SPDX-License-Identifier: MIT
-- The tokens of an emulated workspace: who calls, and the OAuth server that makes tokens which expire.
--
-- A token is a random name for what is noted here. It looks like a JWT, since clients look into them.

local base64 = require "sluice.base64"
local json = require "sluice.json"
local secret = require "sluice.secret"
local task = require "sluice.task"
local wire = require "sluice.emulator.wire"

local oauth = {}

---@class sluice.emulator.caller
---@field name string a user's, or the client's id
---@field key string what limits per user count by
---@field is_client boolean|nil a service principal
---@field endpoint_id string|nil the only endpoint that the token is good for
---@field is_oauth boolean|nil

local jwt_bearer <const> = "urn:ietf:params:oauth:grant-type:jwt-bearer"

---@class sluice.emulator.OAuth
local methods = {}
local metatable = { __index = methods, __name = "sluice.emulator.oauth" }

---The tokens of an emulator.
---@param options table `token` (a sluice.secret that callers may send; nil accepts any text), `clients` (client id -> secret; nil accepts any where `token` is nil), `lifetime` (seconds of an OAuth token)
---@return table oauth
function oauth.new(options)
  return setmetatable({
    token = options.token,
    clients = options.clients,
    lifetime = options.lifetime,
    issued = {},
    count = 0,
  }, metatable)
end

-- Forgets expired tokens, now and then: an expired one is refused for as long as it is known, and for an hour at least.
local function sweep(self)
  self.count = self.count + 1
  if self.count % 1000 ~= 0 then return end
  for text, token in pairs(self.issued) do
    if task.wall() > token.expires + 3600 then self.issued[text] = nil end
  end
end

local function issue(self, claims, caller)
  local expires = task.wall() + self.lifetime
  claims.exp, claims.iat, claims.jti = math.floor(expires), wire.seconds(), wire.uuid()
  local parts = { json.encode { alg = "none", typ = "JWT" }, json.encode(claims), wire.hex(16) }
  for index, part in ipairs(parts) do
    parts[index] = base64.encode(part):gsub("[+/=]", { ["+"] = "-", ["/"] = "_", ["="] = "" })
  end
  local text = table.concat(parts, ".")
  self.issued[text] = { caller = caller, expires = expires, scope = claims.scope }
  sweep(self)
  return {
    access_token = text,
    token_type = "Bearer",
    expires_in = math.floor(self.lifetime),
    scope = claims.scope,
  }
end

local function refuse(status, code, message)
  return nil, { status = status, json = { error = code, error_description = message } }
end

local function is_client(self, id, given)
  if self.clients then
    local known = self.clients[id]
    return known ~= nil and secret.equals(known, given)
  end
  return self.token == nil and id ~= "" and given ~= ""
end

-- The client id and secret of HTTP Basic, percent-decoded (RFC 6749, 2.3.1), else those of the form.
local function credentials(header, form)
  local encoded = type(header) == "string" and header:match("^[Bb][Aa][Ss][Ii][Cc] +(%S+)$")
  local text = encoded and base64.decode(encoded)
  local id, given = (text or ""):match("^([^:]*):(.*)$")
  if id then return id, given end
  return form.client_id or "", form.client_secret or ""
end

local grants = {}

function grants.client_credentials(self, form, header)
  local id, given = credentials(header, form)
  if not is_client(self, id, given) then
    return refuse(401, "invalid_client", "Client authentication failed")
  end
  local caller = { name = id, key = "client:" .. id, is_client = true, is_oauth = true }
  return issue(self, { sub = id, client_id = id, scope = form.scope or "all-apis" }, caller)
end

-- A token for the data plane: good for one endpoint, in exchange for one for everything.
grants[jwt_bearer] = function(self, form)
  local known = self.issued[form.assertion or ""]
  if not known or task.wall() >= known.expires or known.caller.endpoint_id then
    return refuse(400, "invalid_grant", "The assertion is not a valid access token of this workspace")
  end
  local details = json.decode(form.authorization_details or "")
  local first = type(details) == "table" and details[1]
  local path = type(first) == "table" and first.object_path
  local id = type(path) == "string" and path:match("^/serving%-endpoints/(%S+)$")
  if not id then
    return refuse(400, "invalid_request", "authorization_details must name a serving endpoint")
  end
  local caller = {}
  for key, value in pairs(known.caller) do caller[key] = value end
  caller.endpoint_id = id
  return issue(self, { sub = caller.name, authorization_details = details, scope = known.scope }, caller)
end

---Answers a token request.
---@param form table<string, string> the decoded form
---@param header string|nil of Authorization, revealed
---@return table|nil answer
---@return table|nil refusal `status` and `json`, in the shape of RFC 6749
function methods:grant(form, header)
  local grant = grants[form.grant_type or ""]
  if not grant then return refuse(400, "unsupported_grant_type", "The grant type is not supported") end
  return grant(self, form, header)
end

---Who sends an Authorization header.
---@param header any of Authorization; may be a sluice.secret
---@return sluice.emulator.caller|nil
---@return sluice.emulator.refusal|nil
function methods:caller(header)
  local given = secret.reveal(header)
  local bearer = type(given) == "string" and given:match("^[Bb][Ee][Aa][Rr][Ee][Rr] +(%S+)$")
  if not bearer then
    return wire.refuse(401, "UNAUTHENTICATED",
      "Credential was not sent or was of an unsupported type for this API.")
  end
  local known = self.issued[bearer]
  if known then
    if task.wall() < known.expires then return known.caller end
    return wire.refuse(401, "UNAUTHENTICATED", "The access token expired.")
  end
  if self.token and not secret.equals(bearer, self.token) then
    return wire.refuse(403, "PERMISSION_DENIED", "Invalid access token.")
  end
  return { name = wire.user, key = bearer }
end

return oauth
