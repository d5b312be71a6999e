-- SPDX-License-Identifier: MIT
-- OAuth tokens of a workspace: where its token endpoint is, client credentials, exchange for the data plane.

local client = require "sluice.endpoints.client"
local credentials = require "sluice.auth.credentials"
local errors = require "sluice.errors"
local retry = require "sluice.retry"
local secret = require "sluice.secret"

local oauth = {}

---What was learned about a workspace on the way to its tokens.
---@class sluice.auth.Facts
---@field token_endpoint string?
---@field token_endpoint_source string?
---@field workspace_id string?

---@class sluice.auth.OAuth
---@field facts sluice.auth.Facts
local methods = {}
local metatable = { __name = "sluice.auth.oauth", __index = methods }

-- Seconds: of one look for the token endpoint, of one request for a token, of all its tries together.
local DISCOVERY_TOTAL <const> = 10
local TRY_TOTAL <const> = 30
local TOTAL <const> = 60
local TRIES <const> = 4

local METADATA_PATH <const> = "/.well-known/databricks-config"
local DISCOVERY_PATH <const> = "/.well-known/oauth-authorization-server"
local USUAL_PATH <const> = "/oidc/v1/token"

local SCOPE <const> = "all-apis"
local EXCHANGE_GRANT <const> = "urn:ietf:params:oauth:grant-type:jwt-bearer"

---A server of tokens. Sends nothing yet.
---@param given { base: string, transport?: table, discovery_url?: string, client_id?: string, client_secret?: sluice.Secret }
---@return sluice.auth.OAuth
function oauth.new(given)
  local self = {
    facts = {},
    _base = given.base,
    _transport = given.transport,
    _discovery_url = given.discovery_url,
    _id = given.client_id,
    _secret = given.client_secret,
    -- asking twice for a token does no harm, so a lost answer is no reason not to
    _policy = retry.policy { attempts = TRIES, total = TOTAL, resend = true },
  }
  return setmetatable(self, metatable)
end

-- ---- one request ----

-- A URL as base and path, and the authority; nil and why it cannot be used.
local function split(address)
  if type(address) ~= "string" then return nil, nil, "it is no text" end
  local base, authority = client.parse_base((address:gsub("[?#].*$", "")))
  if not base then return nil, nil, authority end
  local origin = base:match "^%a+://[^/]+"
  return origin, address:match "^%a[%w+.-]*://[^/?#]+(.*)$", authority
end

-- One call to any URL; what it answers is never quoted, for it may hold a token.
local function ask(self, address, call)
  local origin, path, authority = split(address)
  if not origin then
    return nil, errors.new("ProtocolError", {
      operation = call.operation, message = ("%s cannot be asked: %s"):format(tostring(address), authority),
    })
  end
  call.path, call.object, call.hides_answer = path, address, true
  local connection = client.new { base = origin, host = authority, transport = self._transport }
  return connection:call(call)
end

-- ---- where the token endpoint is ----

local function look(self, address)
  return ask(self, address, { method = "GET", operation = "discover", timeout = DISCOVERY_TOTAL })
end

-- Nobody answers there: the next address of the same host would tell no more.
local function is_unreachable(err)
  return errors.is(err) and (err:is "ConnectError" or err:is "TLSError")
end

local function is_secure(address)
  return address:find "^[hH][tT][tT][pP][sS]://" ~= nil
end

-- The secret of the client goes there: to https, unless the workspace itself is none.
local function usable_endpoint(self, found)
  local address = type(found) == "table" and found.token_endpoint
  if not address or not split(address) then return nil end
  if is_secure(self._base) and not is_secure(address) then return nil end
  return address
end

local function look_for_metadata(self)
  local found, err = look(self, self._base .. METADATA_PATH)
  if not found then return nil, err end
  local id = found.workspace_id
  id = math.type(id) == "integer" and tostring(id) or id
  if type(id) == "string" and id:find "^[%w-]+$" then self.facts.workspace_id = id end
  local issuer = found.oidc_endpoint
  return type(issuer) == "string" and issuer:gsub("/+$", "") or nil
end

local function discovery_addresses(self)
  if self._discovery_url then return { self._discovery_url } end
  local issuer, err = look_for_metadata(self)
  if is_unreachable(err) then return nil, err end
  local usual = self._base .. "/oidc" .. DISCOVERY_PATH
  if not issuer or issuer .. DISCOVERY_PATH == usual then return { usual } end
  return { issuer .. DISCOVERY_PATH, usual }
end

-- The token endpoint that the workspace tells; else where it usually is.
local function discover(self)
  local addresses, err = discovery_addresses(self)
  if not addresses then return nil, err end
  for _, address in ipairs(addresses) do
    local found, failure = look(self, address)
    if is_unreachable(failure) then return nil, failure end
    local endpoint = usable_endpoint(self, found)
    if endpoint then return endpoint, address end
  end
  return self._base .. USUAL_PATH, "the usual place"
end

local function token_endpoint(self)
  local facts = self.facts
  if facts.token_endpoint then return facts.token_endpoint end
  local endpoint, source = discover(self)
  if not endpoint then return nil, source end
  -- a guess is not kept: what could not be found out this time may be found out the next time
  facts.token_endpoint_source = source
  if source ~= "the usual place" then facts.token_endpoint = endpoint end
  return endpoint
end

-- ---- tokens ----

local function lifetime_of(value)
  local seconds = tonumber(value)
  return seconds and seconds > 0 and seconds < math.huge and seconds or nil
end

local function malformed(address, message)
  return nil, errors.new("ProtocolError", {
    operation = "get OAuth token", object = address, message = message,
  })
end

-- RFC 6749, section 5.1. A token without an end is taken for an hour, which is how long they live.
local USUAL_LIFETIME <const> = 3600

local function read_token(answer, address)
  local value, kind = answer.access_token, answer.token_type
  if type(value) ~= "string" or not value:find "^[\33-\126]+$" then
    return malformed(address, "the answer holds no access_token")
  end
  value = secret.new(value)
  if kind ~= nil and (type(kind) ~= "string" or not kind:find "^[%w-]+$") then
    return malformed(address, "the token_type of the answer is none")
  end
  if not kind or kind:lower() == "bearer" then kind = "Bearer" end
  return { value = value, type = kind, lifetime = lifetime_of(answer.expires_in) or USUAL_LIFETIME }
end

-- { error, error_description } (RFC 6749, section 5.2), or errorCode and errorSummary. The answer itself
-- does not stay with the err: it may tell what the request told.
local function describe_refusal(err)
  local res = errors.is(err) and err.response
  if not res then return err end
  err.response = nil
  local body = res:json()
  if type(body) ~= "table" then return err end
  local code = body.error or body.errorCode
  local text = body.error_description or body.errorSummary
  if type(code) ~= "string" then return err end
  err.code = errors.excerpt(code)
  err.message = errors.excerpt(type(text) == "string" and ("%s: %s"):format(code, text) or code)
  return err
end

local function request_token(self, address, call)
  call.method, call.operation, call.timeout = "POST", "get OAuth token", TRY_TOTAL
  local answer, err = ask(self, address, call)
  if not answer then return nil, describe_refusal(err) end
  return read_token(answer, address)
end

---A token for the client's own id and secret. Tries again what may pass, for a minute. Waits.
---@return sluice.auth.Token?
---@return sluice.Error?
function methods:client_credentials()
  return self._policy:run(function()
    local address, err = token_endpoint(self)
    if not address then return nil, err end
    local token, failure = request_token(self, address, {
      form = { grant_type = "client_credentials", scope = SCOPE },
      headers = { authorization = (credentials.basic_header(self._id, self._secret)) },
    })
    if not token then self.facts.token_endpoint = nil end
    return token, failure
  end)
end

---A token for one endpoint of the data plane, in exchange for one of the workspace. Waits.
---@param assertion sluice.Secret
---@param details string the endpoint's `authorization_details`
---@return sluice.auth.Token?
---@return sluice.Error?
function methods:exchange(assertion, details)
  return self._policy:run(function()
    return request_token(self, self._base .. USUAL_PATH, {
      form = { grant_type = EXCHANGE_GRANT, authorization_details = details, assertion = assertion },
    })
  end)
end

return oauth
