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

local given, refuse = sluice.arguments.read {
  about = "Tells load balancers and monitors whether endpoints are well: /health, /ready and /live.",
  { "ENDPOINT...", "who is looked at; in an emulator, without any, an endpoint of its own" },
  { "--listen HOST:PORT", "port 0: a free one", default = "127.0.0.1:8080" },
  { "--every SECONDS", "between two looks", type = "seconds", default = 30 },
  { "--drain SECONDS", "that it is alive but not ready after SIGTERM", type = "seconds", default = 5 },
  { "--probe", "asks the models for a token, too" },
}

local workspace, names = assert(sluice.workspace()), given.endpoint or {}
if #names == 0 then
  if not workspace:is_emulator() then refuse "ENDPOINT is missing" end
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
