#!/usr/bin/env sluice
-- SPDX-License-Identifier: MIT
-- Tells load balancers and monitors whether endpoints are well: /health, /ready and /live.
--
--     sluice health_server.lua [--listen HOST:PORT] [--every SECONDS] [--drain SECONDS] [--probe] ENDPOINT...
--     sluice --emulator scripts/health_server.lua                # with an endpoint of its own, "demo"
--
-- After SIGTERM it is alive but not ready for --drain seconds, so that load balancers see it leave.
local sluice = require "sluice"
local health, log, web = sluice.health, sluice.log, sluice.web

local given, names = { listen = "127.0.0.1:8080", every = 30, drain = 5 }, {}
while arg[1] do
  local word = table.remove(arg, 1)
  local option = word:match "^%-%-(%a+)$"
  if option == "probe" then
    given.probe = true
  elseif option and given[option] then
    local value = table.remove(arg, 1)
    given[option] = option == "listen" and value or assert(tonumber(value), word .. ": seconds are needed")
  else
    names[#names + 1] = word
  end
end

local workspace = assert(sluice.workspace())
if #names == 0 then
  names[1] = "demo"
  assert(workspace.serving_endpoints:create { name = "demo", config = { served_entities = { {
    entity_name = "main.demo.chat", entity_version = "1",
    workload_size = "Small", scale_to_zero_enabled = true,
  } } } })
end

local endpoints = {}
for index, name in ipairs(names) do endpoints[index] = workspace:endpoint(name) end
local monitor <close> = health.monitor {
  endpoints = endpoints, every = given.every, probe = given.probe,
  on_change = function(name, found)
    log.info("an endpoint has changed", { endpoint = name, status = found.status, error = found.error })
  end,
}

local app = web.app {}
web.health(monitor, app)
local server = assert(app:listen(given.listen, { drain = given.drain }))
print("http://" .. server.address)
server:serve()
