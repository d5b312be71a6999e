-- SPDX-License-Identifier: MIT
-- A workspace: where it is, who calls, and what can be reached in it.

local client = require "sluice.endpoints.client"
local databricks = require "sluice.endpoints.databricks"
local errors = require "sluice.errors"
local options = require "sluice.options"
local serving = require "sluice.serving"
local settings = require "sluice.settings"

local workspace = {}

---@class sluice.Workspace
---@field host string `https://...`
---@field serving_endpoints sluice.ServingEndpoints
local methods = {}
local metatable = {
  __name = "sluice.workspace",
  __index = options.strict("workspace", methods, { "host", "serving_endpoints" }),
}

function metatable.__tostring(self)
  return "sluice.workspace: " .. self.host
end

local WORKSPACE = {
  host = "string?",
  token = "text?",
  profile = "string?",
  transport = "table|userdata?",
  timeout = "table|number?",
}

local HOW_TO_SET_HOST = "no workspace host is set: give host=, set DATABRICKS_HOST (such as https://"
  .. "my-workspace.cloud.databricks.com), or run the script against the built-in emulator with "
  .. "`sluice --emulator FILE.lua`"

local HOW_TO_SET_TOKEN = "no token is set for %s: give token=, set DATABRICKS_TOKEN, or run the script "
  .. "against the built-in emulator with `sluice --emulator FILE.lua`"

local function config_error(message)
  return nil, errors.new("ConfigError", { operation = "open workspace", message = message })
end

-- A host may come without a scheme, and with the path of a page that was open in a browser.
local function parse_host(text)
  if not text:find("://", 1, true) then text = "https://" .. text end
  local base, authority = client.parse_base((text:gsub("[?#].*$", "")))
  if not base then return nil, authority end
  return base:match("^%a+://") .. authority, authority
end

local function is_loopback(authority)
  local name = authority:match("^%[(.*)%]") or authority:match("^[^:]*")
  return name == "localhost" or name == "::1" or name:find("^127%.%d+%.%d+%.%d+$") ~= nil
end

---Opens a workspace. Sends nothing and never waits. What is not given comes from DATABRICKS_HOST and
---DATABRICKS_TOKEN, or from the emulator that the host command runs. A transport in process needs
---neither; a server on the loopback needs no token.
---@param given? { host?: string, token?: string|sluice.Secret, profile?: string, transport?: table, timeout?: number|sluice.Timeout } `timeout`: of management calls, 60 s in total
---@return sluice.Workspace?
---@return sluice.Error? err kind ConfigError
function workspace.open(given)
  given = options.check("sluice.workspace", given, WORKSPACE)
  options.timeout("sluice.workspace", given.timeout)
  if given.profile then
    return config_error("profiles of .databrickscfg are not read by this version: give host= and token=")
  end
  local host = given.host or settings.get("DATABRICKS_HOST") or (given.transport and "http://localhost")
  if not host then return config_error(HOW_TO_SET_HOST) end
  local base, authority = parse_host(host)
  if not base then return config_error(("the host %q cannot be used: %s"):format(host, authority)) end
  local token = given.token or settings.get("DATABRICKS_TOKEN")
  if not token and not given.transport and not is_loopback(authority) then
    return config_error(HOW_TO_SET_TOKEN:format(base))
  end
  local connection = client.new {
    base = base, host = authority, token = token, transport = given.transport,
  }
  return setmetatable({
    host = base,
    serving_endpoints = serving.new(connection, given.timeout),
    _client = connection,
  }, metatable)
end

---One endpoint of the workspace, for the layers. Sends nothing.
---@param name string
---@param given? sluice.EndpointOptions
---@return sluice.endpoints.Databricks
function methods:endpoint(name, given)
  options.method("workspace:endpoint", self, "serving_endpoints")
  options.argument("workspace:endpoint", "name", name, "name")
  return databricks.new(self._client, name, given)
end

return workspace
