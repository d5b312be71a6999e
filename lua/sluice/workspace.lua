-- SPDX-License-Identifier: MIT
-- A workspace: where it is, who calls, and what can be reached in it.

local background = require "sluice.auth.background"
local client = require "sluice.endpoints.client"
local config = require "sluice.auth.config"
local data_plane = require "sluice.endpoints.data_plane"
local databricks = require "sluice.endpoints.databricks"
local description = require "sluice.auth.description"
local hosts = require "sluice.auth.host"
local auth_methods = require "sluice.auth.methods"
local meta = require "sluice.meta"
local options = require "sluice.options"
local serving = require "sluice.serving"
local token_command = require "sluice.auth.token_command"

local workspace = {}

---@class sluice.Workspace
---@field host string `https://...`
---@field serving_endpoints sluice.ServingEndpoints
---@field serving_endpoints_data_plane sluice.ServingEndpointsDataPlane
---@field sql sluice.Sql statements for a warehouse
local methods = {}
local find = options.strict("workspace", methods,
  { "host", "serving_endpoints", "serving_endpoints_data_plane", "sql" })
local metatable = { __name = "sluice.workspace" }

-- Few scripts ask a warehouse: its client is made when it is first asked for.
function metatable.__index(self, name)
  local given = name == "sql" and rawget(self, "_sql")
  if not given then return find(self, name) end
  local made = require("sluice.sql").new(self._client, given)
  rawset(self, "sql", made)
  return made
end

function metatable.__tostring(self)
  return "sluice.workspace: " .. self.host
end

function metatable.__close(self)
  self:close()
end

---@class sluice.WorkspaceOptions
---@field host? string DATABRICKS_HOST; with or without a scheme and the path of a page
---@field token? string|sluice.Secret a personal access token; DATABRICKS_TOKEN
---@field client_id? string of a service principal (OAuth); DATABRICKS_CLIENT_ID
---@field client_secret? string|sluice.Secret DATABRICKS_CLIENT_SECRET
---@field token_command? { [integer]: string, timeout: number? } a program and its arguments; it prints a token. `timeout`: seconds, 60
---@field token_file? string a file that holds a token
---@field username? string DATABRICKS_USERNAME
---@field password? string|sluice.Secret DATABRICKS_PASSWORD
---@field auth_type? "pat"|"oauth-m2m"|"token-command"|"token-file"|"basic" which of several; DATABRICKS_AUTH_TYPE
---@field profile? string of the configuration file; DATABRICKS_CONFIG_PROFILE
---@field config_file? string ~/.databrickscfg; DATABRICKS_CONFIG_FILE
---@field workspace_id? string|integer sent as X-Databricks-Workspace-Id; DATABRICKS_WORKSPACE_ID
---@field account_id? string DATABRICKS_ACCOUNT_ID
---@field discovery_url? string of the OAuth server's metadata; DATABRICKS_DISCOVERY_URL
---@field warehouse_id? string where statements of workspace.sql run; DATABRICKS_WAREHOUSE_ID
---@field transport? table what carries the requests, instead of the shared HTTP client
---@field timeout? number|sluice.Timeout of management calls, 60 s in total
local WORKSPACE = {
  host = "string?",
  token = "text?",
  client_id = "text?",
  client_secret = "text?",
  token_command = "table?",
  token_file = "string?",
  username = "string?",
  password = "text?",
  auth_type = "string?",
  profile = "string?",
  config_file = "string?",
  workspace_id = "string|integer?",
  account_id = "string?",
  discovery_url = "string?",
  warehouse_id = "string?",
  transport = "table|userdata?",
  timeout = "table|number?",
}

local HOW_TO_SET_HOST = "no workspace host is set: give host=, set DATABRICKS_HOST (such as https://"
  .. "my-workspace.cloud.databricks.com), name a profile of ~/.databrickscfg with profile=, or run the "
  .. "script against the built-in emulator with `sluice --emulator FILE.lua`"

local HOW_TO_SAY_WHO = "no token is set for %s, and nothing else that says who calls: give token=, set "
  .. "DATABRICKS_TOKEN, give client_id= and client_secret=, token_command= or token_file=, name a profile of "
  .. "~/.databrickscfg with profile=, or run the script against the built-in emulator with "
  .. "`sluice --emulator FILE.lua`"

-- An app in this process needs no host, and no settings of whoever runs the script.
local function is_in_process(transport)
  local its = transport and getmetatable(transport)
  local name = type(its) == "table" and its.__name
  return name == "sluice.web.app" or name == "sluice.transports.in_process"
end

local IN_PROCESS_HOST <const> = "http://localhost"

local function resolve_host(resolved, transport)
  local host = resolved.values.host
  if not host and transport then
    host, resolved.sources.host = IN_PROCESS_HOST, "default of a transport"
  end
  if not host then
    local note = resolved.file_note and (" (%s)"):format(resolved.file_note) or ""
    return config.fail("%s%s", HOW_TO_SET_HOST, note)
  end
  local address, reason = hosts.parse(host)
  if not address then
    return config.fail("the host %q (%s) cannot be used: %s", host, resolved.sources.host, reason)
  end
  resolved.values.host = address.base
  for _, name in ipairs { "workspace_id", "account_id" } do
    if address[name] and not resolved.values[name] then
      resolved.values[name], resolved.sources[name] = address[name], "query of the host"
    end
  end
  return address
end

local function check_workspace_id(resolved)
  local id = resolved.values.workspace_id
  if not id or id:find "^[%w-]+$" then return true end
  local source = resolved.sources.workspace_id
  return config.fail("the workspace_id (%s) holds more than letters, digits and -", source)
end

-- A server of this machine and an app in this process may be asked by anybody.
local function choose_method(resolved, address, transport)
  local kind, err = auth_methods.choose(resolved)
  if err then return nil, err end
  if not kind and not transport and not hosts.is_loopback(address.authority) then
    return config.fail(HOW_TO_SAY_WHO, address.base)
  end
  if not resolved.values.auth_type then
    resolved.values.auth_type = kind or "none"
    resolved.sources.auth_type = kind and "what is set" or "nothing is set"
  end
  return kind or "none"
end

local function make_credentials(resolved, address, given, scope)
  local ok, err = check_workspace_id(resolved)
  if not ok then return nil, err end
  local kind
  kind, err = choose_method(resolved, address, given.transport)
  if not kind then return nil, err end
  return auth_methods.make(kind, resolved, {
    base = address.base, transport = given.transport, background = scope,
  })
end

---Opens a workspace. Sends nothing and never waits; may read the configuration file. What is not given
---comes from the environment, then from a profile of the file, then from the emulator that the host
---command runs. A transport in process needs no host and nobody who calls; a server on the loopback
---needs nobody.
---@param given? sluice.WorkspaceOptions
---@return sluice.Workspace?
---@return sluice.Error? err kind ConfigError
function workspace.open(given)
  given = options.check("sluice.workspace", given, WORKSPACE)
  options.timeout("sluice.workspace", given.timeout)
  token_command.check("sluice.workspace", given.token_command)
  local resolved, err = config.resolve(given, not is_in_process(given.transport))
  if not resolved then return nil, err end
  local address, who
  address, err = resolve_host(resolved, given.transport)
  if not address then return nil, err end
  local scope = background.new()
  who, err = make_credentials(resolved, address, given, scope)
  if not who then return nil, err end
  local function shown() return description.list(resolved, who.facts) end
  local connection = client.new {
    base = address.base, host = address.authority, credentials = who, transport = given.transport,
    settings = shown,
    headers = { ["x-databricks-workspace-id"] = resolved.values.workspace_id },
  }
  local endpoints = serving.new(connection, given.timeout)
  return setmetatable({
    host = address.base,
    serving_endpoints = endpoints,
    serving_endpoints_data_plane = data_plane.new {
      endpoints = endpoints, credentials = who, base = address.base, transport = given.transport,
      background = scope, settings = shown,
    },
    _client = connection,
    _sql = {
      timeout = given.timeout, transport = given.transport, warehouse_id = resolved.values.warehouse_id,
    },
    _background = scope,
    _resolved = resolved,
    _who = who,
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

---What the workspace was set to, and where each setting came from, secrets masked. A table by name; its
---tostring is a line for each. Sends nothing.
---@return sluice.WorkspaceDescription
function methods:describe()
  options.method("workspace:describe", self, "serving_endpoints")
  return description.new(self._resolved, self._who.facts)
end

---Whether it is an emulator, where a script may try things out: a list of the endpoints is asked for. Waits.
---@return boolean? is_emulator
---@return sluice.Error? err as of serving_endpoints:list
function methods:is_emulator()
  options.method("workspace:is_emulator", self, "serving_endpoints")
  local list, err = self.serving_endpoints:list()
  if not list then return nil, err end
  return meta.get(list).headers["x-sluice-emulator"] ~= nil
end

---Ends the fetching of tokens in the background; calls with tokens that have to be fetched fail from then
---on. Only a workspace with OAuth, a token command or a token file has something to end. Idempotent.
function methods:close()
  options.method("workspace:close", self, "serving_endpoints")
  self._background:close()
end

return workspace
