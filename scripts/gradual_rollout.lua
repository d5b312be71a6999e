#!/usr/bin/env sluice
-- SPDX-License-Identifier: MIT
-- Gives a new version the traffic step by step, and takes it back by itself where that version is worse.
--
--     sluice gradual_rollout.lua ENDPOINT CANDIDATE TABLE [--seconds S] [--state FILE]
--     sluice --emulator scripts/gradual_rollout.lua [--error-rate P] [--delay MS]
--
-- TABLE is the endpoint's inference table. Both versions are of one model. The second form tries it out: the endpoint is
-- our own, callers ask it all the time, and the candidate fails in that share of its answers, and takes that much longer.
-- Killed, run it again with the same --state: it goes on where it was.
local sluice = require "sluice"
local rollout, task, traffic = sluice.rollout, sluice.task, sluice.traffic

local given, refuse = sluice.arguments.read {
  about = "Gives a new version the traffic step by step, and takes it back by itself where it is worse.",
  { "ENDPOINT", "with two versions of a model; in an emulator, without it, one of its own" },
  { "CANDIDATE", "the name of the new one" },
  { "TABLE", "the endpoint's inference table" },
  { "--seconds S", "that each step is looked at: longer than rows take to come (3600)", type = "seconds" },
  { "--state FILE", "keeps how far it is" },
  { "--error-rate P", "of the candidate, in the emulator", type = "number", default = 0 },
  { "--delay MS", "that it takes longer, in the emulator", type = "number", default = 0 },
}
local is_trial = not given.endpoint
if not (is_trial or given.table) then refuse "CANDIDATE or TABLE is missing" end
local name, candidate, log = given.endpoint, given.candidate, given.table
local seconds = given.seconds or is_trial and 3 or 3600
local workspace = assert(sluice.workspace())
local serving = workspace.serving_endpoints

if is_trial then
  if not workspace:is_emulator() then refuse "ENDPOINT, CANDIDATE and TABLE are missing" end
  name, candidate, log = "rivers", "model-2", "main.logs.rivers_payload"
  local function version(number, errors, milliseconds)
    return { name = "model-" .. number, entity_name = "main.demo.echo", entity_version = tostring(number),
      workload_size = "Small", scale_to_zero_enabled = true, environment_vars = {
        SLUICE_EMULATOR_ERROR_RATE = errors, SLUICE_EMULATOR_DELAY_MS = tostring(milliseconds) } }
  end
  assert(serving:get_or_create { name = name, config = {
    served_entities = { version(1, "0", 20), version(2, tostring(given.error_rate), 20 + given.delay) },
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
    bake = seconds, hold = is_trial and 60 or 3 * seconds,
    gate = { error_rate = 0.05, latency_p99 = 10, minimum = is_trial and 50 or 100 },
    source = workspace.sql, table = log, by = "request_metadata.model_version", names = versions,
    state = given.state, progress = true,
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
