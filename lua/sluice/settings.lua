-- SPDX-License-Identifier: MIT
-- Configuration by name: what the host command set for this instance, then the environment.

local settings = {}

-- Of this Lua state alone: two instances in a process do not see each other's.
local overlay = {}

---Sets values that go before the environment, for this instance only; `false` hides a variable of
---the environment.
---@param values table<string, string|sluice.Secret|false>
function settings.set(values)
  for name, value in pairs(values) do overlay[name] = value end
end

---The value of a setting, and where it comes from; nil when it is unset or empty, or when the host does
---not let us read the environment.
---@param name string as an environment variable: `"DATABRICKS_HOST"`
---@return string|sluice.Secret|nil value
---@return "command"|"environment"|nil from "command": set for this instance, see settings.set
function settings.find(name)
  local value, from = overlay[name], "command"
  if value == nil then
    local allowed, found = pcall(require("sluice.core.system").getenv, name)
    value, from = allowed and found or nil, "environment"
  end
  if value == "" or value == false or value == nil then return nil end
  return value, from
end

---The value of a setting alone, as settings.find gives it.
---@param name string
---@return string|sluice.Secret|nil
function settings.get(name)
  local value = settings.find(name)
  return value
end

return settings
