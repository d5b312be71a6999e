-- SPDX-License-Identifier: MIT
-- Where the settings of a workspace come from: arguments, the environment, a profile of .databrickscfg.

local config_file = require "sluice.auth.config_file"
local errors = require "sluice.errors"
local options = require "sluice.options"
local secret = require "sluice.secret"
local settings = require "sluice.settings"
local system = require "sluice.core.system"

local config = {}

---What was resolved: values by name, secrets hidden, and where each came from.
---@class sluice.auth.Config
---@field values table<string, any>
---@field sources table<string, string>
---@field file_note string? why no configuration file was read, for the error that this leads to

-- In the order of workspace:describe(). `secret`: hidden at once. `is_auth`: says who calls.
local ATTRIBUTES <const> = {
  { name = "host", env = "DATABRICKS_HOST" },
  { name = "auth_type", env = "DATABRICKS_AUTH_TYPE" },
  { name = "token", env = "DATABRICKS_TOKEN", is_auth = true, secret = true },
  { name = "username", env = "DATABRICKS_USERNAME", is_auth = true },
  { name = "password", env = "DATABRICKS_PASSWORD", is_auth = true, secret = true },
  { name = "client_id", env = "DATABRICKS_CLIENT_ID", is_auth = true },
  { name = "client_secret", env = "DATABRICKS_CLIENT_SECRET", is_auth = true, secret = true },
  { name = "token_command", is_auth = true, only_argument = true },
  { name = "token_file", is_auth = true },
  { name = "discovery_url", env = "DATABRICKS_DISCOVERY_URL" },
  { name = "account_id", env = "DATABRICKS_ACCOUNT_ID" },
  { name = "workspace_id", env = "DATABRICKS_WORKSPACE_ID" },
  { name = "warehouse_id", env = "DATABRICKS_WAREHOUSE_ID" },
  { name = "profile", env = "DATABRICKS_CONFIG_PROFILE", only_before_file = true },
  { name = "config_file", env = "DATABRICKS_CONFIG_FILE", only_before_file = true },
}

---The names of all settings, in the order in which they are shown.
---@type string[]
config.names = {}
for index, attribute in ipairs(ATTRIBUTES) do config.names[index] = attribute.name end

local SETTINGS_SECTION <const> = "__settings__"
local DEFAULT_PROFILE <const> = "DEFAULT"

-- errno values that mean: there is no such file.
local NOT_THERE <const> = { [2] = true, [20] = true }

local function config_error(text, ...)
  return nil, errors.new("ConfigError", { operation = "open workspace", message = text:format(...) })
end

---A ConfigError of opening a workspace, as `nil, err`.
---@param text string a format string
---@param ... any
---@return nil
---@return sluice.Error
function config.fail(text, ...)
  return config_error(text, ...)
end

local function text_of(value)
  if math.type(value) == "integer" then return tostring(value) end
  if type(value) ~= "string" and not secret.is(value) then return value end
  -- a file or a variable often ends with a newline that nobody sees
  return secret.reveal(value):match "^%s*(.*%S)" or ""
end

local function take(self, attribute, value, source)
  if value == nil then return end
  value = text_of(value)
  -- known from here on, it is masked wherever it comes up
  if attribute.secret then value = secret.new(value) end
  self.values[attribute.name], self.sources[attribute.name] = value, source
end

local function take_arguments(self, given)
  for _, attribute in ipairs(ATTRIBUTES) do take(self, attribute, given[attribute.name], "argument") end
end

local function take_environment(self)
  for _, attribute in ipairs(ATTRIBUTES) do
    if attribute.env and self.values[attribute.name] == nil then
      local value, from = settings.find(attribute.env)
      take(self, attribute, value, from == "command" and attribute.env .. " of this run" or attribute.env)
    end
  end
end

-- ---- the file ----

local function file_path(self)
  local path = self.values.config_file
  local home = settings.get "HOME"
  if not path then return home and home .. "/.databrickscfg" end
  if path:find "^~/" and home then path = home .. path:sub(2) end
  return path
end

local function read_sections(path)
  local allowed, bytes, reason, code = pcall(system.read_file, path)
  if not allowed then bytes, reason, code = nil, bytes, 2 end
  if not bytes then
    local _, err = config_error("reading %s: %s", path, reason)
    return nil, err, NOT_THERE[code]
  end
  local sections, fault = config_file.parse(bytes)
  if sections then return sections end
  return config_error("%s, line %d, column %d: %s", path, fault.line, fault.column, fault.message)
end

local function profile_names(sections)
  local names = {}
  for name in pairs(sections) do
    if name ~= SETTINGS_SECTION then names[name] = true end
  end
  return names
end

-- The name of the profile to read; nil and err where it is missing, nil alone where none was asked for.
local function choose_profile(self, sections, path, is_asked)
  local name = self.values.profile
  if not name then
    name = (sections[SETTINGS_SECTION] or {}).default_profile
    if name then self.sources.profile = ("default_profile of %s"):format(path) end
  end
  if not name and not sections[DEFAULT_PROFILE] and not is_asked then return nil end
  name = name or DEFAULT_PROFILE
  if sections[name] and name ~= SETTINGS_SECTION then return name end
  return config_error("%s has no profile %q%s", path, name, options.hint(name, profile_names(sections)))
end

local function take_profile(self, sections, path, is_asked)
  local name, err = choose_profile(self, sections, path, is_asked)
  if not name then
    self.file_note = ("%s has no profile [DEFAULT]"):format(path)
    return err == nil, err
  end
  local source = ("profile %s of %s"):format(name, path)
  self.values.profile = name
  self.values.config_file = path
  self.sources.config_file = self.sources.config_file or "default"
  self.sources.profile = self.sources.profile or "default"
  for _, attribute in ipairs(ATTRIBUTES) do
    local value = sections[name][attribute.name]
    local is_open = self.values[attribute.name] == nil and not attribute.only_argument
    if attribute.only_before_file or value == "" then is_open = false end
    if is_open then take(self, attribute, value, source) end
  end
  return true
end

-- What is set already makes the file unnecessary, unless a profile of it was asked for.
local function needs_file(self)
  if self.values.host ~= nil then return false end
  for _, attribute in ipairs(ATTRIBUTES) do
    if attribute.is_auth and self.values[attribute.name] ~= nil then return false end
  end
  return true
end

local function take_file(self, is_needed)
  local is_asked = self.values.profile ~= nil or self.sources.config_file == "argument"
  if not is_asked and not (is_needed and needs_file(self)) then return true end
  local path = file_path(self)
  if not path then
    if not is_asked then return true end
    return config_error "a profile is asked for, and HOME does not say where .databrickscfg is"
  end
  local sections, err, is_missing = read_sections(path)
  if sections then return take_profile(self, sections, path, is_asked) end
  if is_asked or not is_missing then return nil, err end
  self.file_note = err.message
  return true
end

---Resolves the settings: `given`, then the environment, then the file. Never waits; reads the file where
---one is needed.
---@param given table by the names of config.names
---@param is_needed boolean whether the file is looked for though nobody asked for a profile of it
---@return sluice.auth.Config?
---@return sluice.Error? err kind ConfigError
function config.resolve(given, is_needed)
  local self = { values = {}, sources = {} }
  take_arguments(self, given)
  take_environment(self)
  local ok, err = take_file(self, is_needed)
  if not ok then return nil, err end
  return self
end

---What settings.set needs so that this instance has these settings and no others of the environment, and
---no file is read unless a script asks for a profile of it. With false for both it has none at all.
---@param host string|false
---@param token string|sluice.Secret|false
---@return table<string, string|sluice.Secret|false>
function config.only(host, token)
  local values = {}
  for _, attribute in ipairs(ATTRIBUTES) do
    if attribute.env then values[attribute.env] = false end
  end
  values.DATABRICKS_HOST, values.DATABRICKS_TOKEN, values.DATABRICKS_AUTH_TYPE = host, token, token and "pat"
  return values
end

return config
