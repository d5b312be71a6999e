-- SPDX-License-Identifier: MIT
-- The library under one name; its parts are loaded when first asked for.

---@class sluice
---@field task table waiting, and doing several things at once
---@field http table the HTTP client
---@field web table web apps
---@field json table the JSON codec
---@field log table log lines
---@field retry table policies of trying again
---@field layers table what goes around an endpoint
---@field transports table what carries requests: an app in process, faults, cassettes
---@field errors table failures as values
---@field progress table progress bars
---@field sse table event streams
---@field stream table answers as they are made
local sluice = {}

---@type string
sluice.version = "0.1.0"

-- Fields that are functions: the module and the function in it.
local functions = {
  workspace = { "sluice.workspace", "open" },
  openai = { "sluice.endpoints.openai", "new" },
  pipeline = { "sluice.pipeline", "new" },
  meta = { "sluice.meta", "get" },
  secret = { "sluice.secret", "new" },
  run = { "sluice.core.task", "run" },
}

local modules = {
  task = true, http = true, web = true, json = true, log = true, retry = true, layers = true, errors = true,
  progress = true, sse = true, stream = true, headers = true, response = true, transports = true,
}

local function unknown(name)
  local options, names = require "sluice.options", { version = true }
  for _, some in ipairs { functions, modules } do
    for each in pairs(some) do names[each] = true end
  end
  options.misuse('sluice has no field "%s"%s', name, options.hint(name, names))
end

local function load_field(self, name)
  if type(name) ~= "string" then return nil end
  local value
  if functions[name] then
    value = require(functions[name][1])[functions[name][2]]
  elseif modules[name] then
    value = require("sluice." .. name)
  else
    unknown(name)
  end
  rawset(self, name, value)
  return value
end

return setmetatable(sluice, { __name = "sluice", __index = load_field })
