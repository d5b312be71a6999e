#!/usr/bin/env sluice
-- SPDX-License-Identifier: MIT
-- Gives a new version the traffic step by step, and takes it back by itself where that version is worse.
--
--     sluice gradual_rollout.lua ENDPOINT CANDIDATE TABLE SECONDS [STATE.json]
--     sluice --emulator scripts/gradual_rollout.lua --try [ERROR_RATE] [DELAY_MS] [SECONDS] [STATE.json]
--
-- TABLE is the endpoint's inference table; SECONDS is how long each step is looked at: longer than rows take to come.
-- Both versions are of one model. With --try the endpoint is our own, callers ask it all the time, and the candidate
-- fails in that share of its answers, and takes that much longer. Killed, run it again: it goes on where it was.
local sluice = require "sluice"
local rollout, task, traffic = sluice.rollout, sluice.task, sluice.traffic

if not arg[1] then error("gradual_rollout: ENDPOINT CANDIDATE TABLE SECONDS expected, or --try", 0) end
local workspace = assert(sluice.workspace())
local serving, is_trial = workspace.serving_endpoints, arg[1] == "--try"
local name, candidate, log, seconds, state = table.unpack(arg)

if is_trial then
  name, candidate, log, seconds, state = "rivers", "model-2", "main.logs.rivers_payload", arg[4] or 3, arg[5]
  local function version(number, errors, milliseconds)
    return { name = "model-" .. number, entity_name = "main.demo.echo", entity_version = tostring(number),
      workload_size = "Small", scale_to_zero_enabled = true, environment_vars = {
        SLUICE_EMULATOR_ERROR_RATE = errors, SLUICE_EMULATOR_DELAY_MS = tostring(milliseconds) } }
  end
  assert(serving:get_or_create { name = name, config = {
    served_entities = { version(1, "0", 20), version(2, arg[2] or "0", 20 + (arg[3] or 0)) },
    traffic_config = traffic.config { { "model-1", 100 }, { "model-2", 0 } },
    auto_capture_config = {
      enabled = true, catalog_name = "main", schema_name = "logs", table_name_prefix = name },
  } })
end

local versions = {} -- the names of the served entities by the version that the table tells
for _, entity in ipairs(assert(serving:get(name)).config.served_entities) do
  versions[entity.entity_version] = entity.name
end

local function roll_out()
  return rollout.run {
    workspace = workspace, endpoint = name, candidate = candidate, steps = { 10, 25, 50, 100 },
    bake = tonumber(seconds), hold = is_trial and 60 or 3 * seconds,
    gate = { error_rate = 0.05, latency_p99 = 10, minimum = is_trial and 50 or 100 },
    source = workspace.sql, table = log, by = "request_metadata.model_version", names = versions,
    state = state, progress = true,
    notify = function(event)
      print(("%s at %d %%%s"):format(event.kind, event.percent, event.reason and ": " .. event.reason or ""))
    end,
  }
end

local done, err
task.scope(function(scope)
  for row = 1, is_trial and 16 or 0 do
    scope:spawn(function()
      local request = { messages = { { role = "user", content = "lock " .. row } } }
      while not (done or err) do workspace:endpoint(name):query(request) end
    end)
  end
  done, err = roll_out()
end)
if not done then error(err, 0) end
print(("%s has all of the traffic"):format(candidate))
