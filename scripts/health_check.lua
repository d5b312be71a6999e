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

local probe, timeout, names = false, 10, {}
while arg[1] do
  local word = table.remove(arg, 1)
  if word == "--probe" then
    probe = true
  elseif word == "--timeout" then
    timeout = assert(tonumber(table.remove(arg, 1)), "--timeout: seconds are needed")
  else
    names[#names + 1] = word
  end
end

local workspace = assert(sluice.workspace())
if #names == 0 then
  names = { "ready", "deploying" }
  for _, name in ipairs(names) do
    local body = { name = name, config = { served_entities = { { entity_name = "main.demo.rivers",
      entity_version = "1", workload_size = "Small", scale_to_zero_enabled = true } } } }
    assert(workspace.serving_endpoints:create(body))
    if name == "ready" then assert(workspace.serving_endpoints:wait(name)) end
  end
end

local looks = task.map(names, function(name)
  return health.check(workspace:endpoint(name), { probe = probe, timeout = timeout })
end)

local all_well = true
for _, look in ipairs(looks) do
  local found = look.ok and look.value or error(look.error, 0)
  all_well = all_well and found.ready
  print(("%-20s %-9s %6.0f ms  %s"):format(found.endpoint, found.status, found.latency * 1000,
    found.error or found.state))
end
os.exit(all_well and 0 or 3)
