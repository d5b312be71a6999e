-- SPDX-License-Identifier: MIT
-- The ways to say who calls: which one the settings mean, and the credentials that it makes of them.

local config = require "sluice.auth.config"
local credentials = require "sluice.auth.credentials"
local oauth = require "sluice.auth.oauth"
local options = require "sluice.options"
local secret = require "sluice.secret"

local methods = {}

-- `needs`: settings without which the method is none; `made_of`: those that say that it is meant.
local METHODS <const> = {
  ["pat"] = { needs = { "token" } },
  ["basic"] = { needs = { "username", "password" } },
  ["oauth-m2m"] = { needs = { "client_id", "client_secret" } },
  ["token-command"] = { needs = { "token_command" } },
  ["token-file"] = { needs = { "token_file" } },
}
local ORDER <const> = { "pat", "basic", "oauth-m2m", "token-command", "token-file" }

-- Names of the official SDKs for what other programs do better; these print a token.
local BY_COMMAND <const> = {
  ["databricks-cli"] = '{ "databricks", "auth", "token", "--host", HOST }',
  ["external-browser"] = '{ "databricks", "auth", "token", "--host", HOST }',
  ["azure-cli"] = '{ "az", "account", "get-access-token", "--resource", '
    .. '"2ff814a6-3304-4ab8-85cb-cd0e6f879c1d" }',
  ["google-credentials"] = '{ "gcloud", "auth", "print-identity-token" }',
}

local function with_sources(resolved, names)
  local parts = {}
  for _, name in ipairs(names) do
    local source = resolved.sources[name]
    if source then parts[#parts + 1] = ("%s: %s"):format(name, source) end
  end
  return table.concat(parts, ", ")
end

local function is_meant(resolved, kind)
  for _, name in ipairs(METHODS[kind].needs) do
    if resolved.values[name] ~= nil then return true end
  end
  return false
end

local function check_complete(resolved, kind)
  for _, name in ipairs(METHODS[kind].needs) do
    if resolved.values[name] == nil then
      local there = with_sources(resolved, METHODS[kind].needs)
      return config.fail("%s is missing for the authorization method %s (%s)", name, kind,
        there == "" and "auth_type: " .. tostring(resolved.sources.auth_type) or there)
    end
  end
  return kind
end

local function pinned(resolved)
  local kind = resolved.values.auth_type
  if METHODS[kind] then return check_complete(resolved, kind) end
  local command = BY_COMMAND[kind]
  local hint = command and (": use token_command = %s"):format(command) or options.hint(kind, METHODS)
  local source = resolved.sources.auth_type
  return config.fail("auth_type %q (%s) is no authorization method here%s", kind, source, hint)
end

---The method that the settings mean; nil alone where they mean none.
---@param resolved sluice.auth.Config
---@return string? kind
---@return sluice.Error? err
function methods.choose(resolved)
  if resolved.values.auth_type then return pinned(resolved) end
  local meant = {}
  for _, kind in ipairs(ORDER) do
    if is_meant(resolved, kind) then meant[#meant + 1] = kind end
  end
  if #meant == 0 then return nil end
  if #meant == 1 then return check_complete(resolved, meant[1]) end
  local found = {}
  for index, kind in ipairs(meant) do
    found[index] = ("%s (%s)"):format(kind, with_sources(resolved, METHODS[kind].needs))
  end
  return config.fail("more than one authorization method is configured: %s; set one of them only, or say "
    .. "which with auth_type", table.concat(found, " and "))
end

-- What a header field can hold: visible ASCII.
local function check_visible(resolved, name)
  local value = secret.reveal(resolved.values[name])
  if value:find "^[\33-\126]+$" then return true end
  local what = value == "" and "is empty" or "holds blanks, line ends or other bytes that cannot be sent"
  return config.fail("the %s (%s) %s", name, resolved.sources[name], what)
end

local makers = {}

makers["none"] = function() return credentials.none() end

makers["pat"] = function(resolved)
  local ok, err = check_visible(resolved, "token")
  if not ok then return nil, err end
  return credentials.bearer(resolved.values.token)
end

makers["basic"] = function(resolved)
  local username = resolved.values.username
  if username == "" or username:find "[:%c]" then
    local source = resolved.sources.username
    return config.fail("the username (%s) is empty, or holds a colon or a line end", source)
  end
  return credentials.basic(username, resolved.values.password)
end

makers["oauth-m2m"] = function(resolved, given)
  for _, name in ipairs { "client_id", "client_secret" } do
    local ok, err = check_visible(resolved, name)
    if not ok then return nil, err end
  end
  local server = oauth.new {
    base = given.base, transport = given.transport, discovery_url = resolved.values.discovery_url,
    client_id = resolved.values.client_id, client_secret = resolved.values.client_secret,
  }
  local source = require("sluice.auth.token_source").new {
    background = given.background, fetch = function() return server:client_credentials() end,
  }
  return credentials.renewed("oauth-m2m", source, server.facts)
end

makers["token-command"] = function(resolved, given)
  local make = require("sluice.auth.token_command").source
  local source = make(resolved.values.token_command, given.background)
  return credentials.renewed("token-command", source)
end

makers["token-file"] = function(resolved, given)
  local source = require("sluice.auth.token_file").source(resolved.values.token_file, given.background)
  return credentials.renewed("token-file", source)
end

---Makes the credentials of a method. Sends nothing, and reads no file yet.
---@param kind string as methods.choose gives it, or "none"
---@param resolved sluice.auth.Config
---@param given { base: string, transport?: table, background: sluice.auth.Background }
---@return sluice.Credentials?
---@return sluice.Error?
function methods.make(kind, resolved, given)
  return makers[kind](resolved, given)
end

return methods
