-- SPDX-License-Identifier: MIT
-- Functions of the program that embeds libsluice: what its sluice_register() made callable.

local core = require "sluice.core.host"

---A function of the host's is `host.NAME(...)`: the arguments go over as JSON, the task waits until the
---host has an answer, and gets it as a value, or `nil, err`. Its kinds of errors are the host's own;
---"HostError" where it names none. A name that is not registered raises.
---@class sluice.Host
---@field [string] fun(...: any): any, sluice.Error?
local host = {}

local function no_function(_, name)
  local options = require "sluice.options"
  options.misuse("the host has no function %q%s", tostring(name), options.hint(tostring(name), core))
end

return setmetatable(host, {
  __name = "sluice.host",
  __index = function(self, name)
    return core[name] or no_function(self, name)
  end,
  __newindex = function(_, name)
    error(("host.%s: functions come from the host"):format(tostring(name)), 2)
  end,
  __pairs = function() return next, core, nil end,
})
