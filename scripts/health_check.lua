#!/usr/bin/env sluice
-- SPDX-License-Identifier: MIT
-- Whether endpoints are well, a line for each; the exit status is 0 when all are, 3 when one is not.
--
--     sluice health_check.lua [--probe] [--timeout SECONDS] ENDPOINT...
--     sluice --emulator scripts/health_check.lua                 # two endpoints of its own, one still deploying
--
-- The state costs no tokens; --probe also asks the model for one token, which wakes it where it is scaled to zero.
local sluice = require "sluice"
local health, task = sluice.health, sluice.task

local given, refuse = sluice.arguments.read {
  about = "Whether endpoints are well, a line for each.",
  { "ENDPOINT...", "who is looked at; in an emulator, without any, two of its own" },
  { "--probe", "asks the models for a token, too" },
  { "--timeout SECONDS", "of each look", type = "seconds", default = 10 },
  notes = "Exit status: 0 all are well, 3 one is not.",
}

local workspace, names = assert(sluice.workspace()), given.endpoint or {}
if #names == 0 then
  if not workspace:is_emulator() then refuse "ENDPOINT is missing" end
  names = { "ready", "deploying" }
  for _, name in ipairs(names) do
    local body = { name = name, config = { served_entities = { { entity_name = "main.demo.rivers",
      entity_version = "1", workload_size = "Small", scale_to_zero_enabled = true } } } }
    assert(workspace.serving_endpoints:create(body))
    if name == "ready" then assert(workspace.serving_endpoints:wait(name)) end
  end
end

local looks = task.map(names, function(name)
  return health.check(workspace:endpoint(name), { probe = given.probe, timeout = given.timeout })
end)

local all_well = true
for _, look in ipairs(looks) do
  local found = look.ok and look.value or error(look.error, 0)
  all_well = all_well and found.ready
  print(("%-20s %-9s %6.0f ms  %s"):format(found.endpoint, found.status, found.latency * 1000,
    found.error or found.state))
end
os.exit(all_well and 0 or 3)
