-- SPDX-License-Identifier: MIT
-- What a client asks for header fields: fixed ones, or those of a token that is renewed.

local base64 = require "sluice.base64"
local secret = require "sluice.secret"

local credentials = {}

-- ---- fixed ----

local function never()
  return false
end

-- `hidden`: the parts, kept by themselves as well: as long as they live, they are masked wherever they come up.
local function fixed(kind, header, hidden)
  local function authorize(_, fields)
    fields.authorization = header
    return true
  end
  return { kind = kind, authorize = authorize, answered = never, _hidden = hidden }
end

---Of a server that does not ask who calls.
---@return sluice.Credentials
function credentials.none()
  return fixed("none", nil, {})
end

---A personal access token.
---@param token sluice.Secret
---@return sluice.Credentials
function credentials.bearer(token)
  return fixed("pat", secret.join("Bearer ", token), { token })
end

---A user's name and password (RFC 7617).
---@param username string
---@param password sluice.Secret
---@return sluice.Credentials
function credentials.basic(username, password)
  local header, encoded = credentials.basic_header(username, password)
  return fixed("basic", header, { password, encoded })
end

---The value of the header field for basic authentication.
---@param username string
---@param password string|sluice.Secret
---@return sluice.Secret header
---@return sluice.Secret encoded what follows "Basic "
function credentials.basic_header(username, password)
  local encoded = secret.new(base64.encode(username .. ":" .. secret.reveal(password)))
  return secret.join("Basic ", encoded), encoded
end

-- ---- renewed ----

local function authorize_with_token(self, fields, within)
  local token, err = self.source:get(within)
  if not token then return nil, err end
  -- joined once: every call sends the same
  if not token.header then token.header = secret.join(token.type .. " ", token.value) end
  fields.authorization = token.header
  local id = self.facts.workspace_id
  if id and not fields["x-databricks-workspace-id"] then fields["x-databricks-workspace-id"] = id end
  return token
end

local function tell_source(self, token, status)
  return self.source:answered(token, status)
end

---Tokens of a source.
---@param kind string
---@param source sluice.auth.TokenSource
---@param facts? sluice.auth.Facts
---@return sluice.Credentials
function credentials.renewed(kind, source, facts)
  return {
    kind = kind, source = source, facts = facts or {},
    authorize = authorize_with_token, answered = tell_source,
  }
end

return credentials
