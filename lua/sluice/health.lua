-- SPDX-License-Identifier: MIT
-- Whether endpoints are well: a look at one, and a monitor that keeps looking.

local check = require "sluice.health.check"
local options = require "sluice.options"

local health = {}

---Looks at an endpoint. Where it can tell its serving state it is asked for that, which costs no tokens; with
---`probe` it is also sent a request for one token, which is not tried again, hedged, kept, or answered by
---another endpoint. Waits, at most `timeout` in all; raises misuse, and where the caller is cancelled.
---@param endpoint sluice.Endpoint
---@param given? sluice.HealthCheckOptions `probe` is needed for an endpoint without `serving_state`
---@return sluice.Health found whatever came of it
function health.check(endpoint, given)
  given = options.check("health.check", given, check.OPTIONS)
  check.endpoint("health.check", endpoint, given.probe)
  local found = check.run(endpoint, given)
  found.err = nil
  return found
end

---Starts to look at endpoints again and again, in the background; see sluice.Monitor. Close it in the end.
---@param given? sluice.MonitorOptions
---@return sluice.Monitor
function health.monitor(given)
  local monitor = require("sluice.health.monitor").new(given)
  return monitor
end

return setmetatable(health, { __index = options.strict("sluice.health", health) })
