-- SPDX-License-Identifier: MIT
-- The transports by name. A transport is anything with `handle(request) -> response | nil, err`.

local options = require "sluice.options"

---@class sluice.Transport
---@field handle fun(self: sluice.Transport, request: sluice.HttpRequest): sluice.Response?, sluice.Error?

---@class sluice.transports
---@field in_process fun(target: sluice.web.App|fun(request: sluice.web.Request): any, table?): sluice.Transport
---@field faults fun(given: sluice.FaultsOptions): sluice.Faults
---@field cassette fun(given: sluice.CassetteOptions): sluice.Cassette
local transports = {}

-- One file each; the other files of the room are what they are made of.
local NAMES = { in_process = true, faults = true, cassette = true }

local function load_transport(self, name)
  if type(name) ~= "string" then return nil end
  if not NAMES[name] then
    options.misuse('sluice.transports has no field "%s"%s', name, options.hint(name, NAMES))
  end
  local transport = require("sluice.transports." .. name)
  rawset(self, name, transport)
  return transport
end

return setmetatable(transports, { __index = load_transport })
