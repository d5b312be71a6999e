-- SPDX-License-Identifier: MIT
-- What a load balancer asks: /health, /live and /ready, from what a monitor knows.

local options = require "sluice.options"

local health = {}

---Handlers for the routes of an app.
---@class sluice.web.HealthHandlers
---@field health fun(request: sluice.web.Request): sluice.web.Result how each endpoint is; 503 with the reasons and Retry-After where the whole is not ready
---@field ready fun(request: sluice.web.Request): sluice.web.Result whether to send requests here: the same in short
---@field live fun(request: sluice.web.Request): sluice.web.Result 200 as long as the program answers, also while it drains

-- Nobody is to keep an answer of yesterday.
local FRESH <const> = "no-store"

local function answer(report, json)
  local headers = { ["cache-control"] = FRESH }
  if not report.ready and report.retry_after then
    headers["retry-after"] = tostring(math.ceil(report.retry_after))
  end
  return { status = report.ready and 200 or 503, headers = headers, json = json }
end

---Makes the handlers. With an app they become its routes /health, /ready and /live, and while a server of it stops it
---is alive but not ready.
---@param monitor sluice.Monitor
---@param app? sluice.web.App
---@return sluice.web.HealthHandlers
function health.new(monitor, app)
  local its = getmetatable(monitor)
  if type(its) ~= "table" or its.__name ~= "sluice.monitor" then
    local got = options.type_name(monitor)
    options.misuse("web.health: a monitor is needed, made by health.monitor, got %s", got)
  end
  local handlers = {}

  local function report()
    if app and app:is_stopping() then monitor.draining = true end
    return monitor:report()
  end

  function handlers.health()
    local found = report()
    return answer(found, found)
  end

  function handlers.ready()
    local found = report()
    return answer(found, { ready = found.ready, reasons = found.reasons })
  end

  function handlers.live()
    return { status = 200, headers = { ["cache-control"] = FRESH }, json = { alive = true } }
  end

  if app then
    for name, handler in pairs(handlers) do app:get("/" .. name, handler) end
  end
  return handlers
end

return health
