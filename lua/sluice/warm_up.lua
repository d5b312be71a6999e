-- SPDX-License-Identifier: MIT
-- What the first requests of a program would load and open, done beforehand: for sluice_warm_up().

local warm_up = {}

-- What chats and streams with the usual layers take.
local MODULES <const> = {
  "sluice", "sluice.task", "sluice.json", "sluice.errors", "sluice.meta", "sluice.secret", "sluice.http",
  "sluice.sse", "sluice.stream", "sluice.pipeline", "sluice.endpoints.openai", "sluice.workspace",
  "sluice.layers.retry", "sluice.layers.timeout", "sluice.layers.limit", "sluice.layers.fallback",
}

---Loads the modules that most programs need and, where it may connect, opens the shared client and
---reads the authorities of TLS. Blocks for about 50 ms the first time.
---@param connects boolean whether TLS is wanted
function warm_up.run(connects)
  for _, name in ipairs(MODULES) do require(name) end
  if connects then require("sluice.http").warm_up() end
  collectgarbage()
end

return warm_up
