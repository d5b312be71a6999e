#!/usr/bin/env sluice
-- SPDX-License-Identifier: MIT
-- Two versions on one endpoint, half of the traffic each: asks it many things, and says which version is better.
--
--     sluice --emulator scripts/ab_test.lua [ERROR_RATE] [DELAY_MS] [REQUESTS]
--
-- The second version fails in that share of its answers, and takes that much longer. In a workspace of yours these two
-- arguments change nothing: set DATABRICKS_HOST, DATABRICKS_TOKEN and DATABRICKS_WAREHOUSE_ID, leave --emulator out.
-- Exits 3 where the second version is worse.
local sluice = require "sluice"
local report, task, traffic = sluice.report, sluice.task, sluice.traffic

local given = sluice.arguments.read {
  about = "Two versions on one endpoint, half of the traffic each: which one is better?",
  { "ERROR_RATE", "of the second version, in the emulator", type = "number", default = 0 },
  { "DELAY_MS", "that it takes longer, in the emulator", type = "number", default = 0 },
  { "REQUESTS", "how many", type = "count", default = 800 },
  notes = "Exit status: 3 where the second version is worse.",
}
local error_rate, delay, count = tostring(given.error_rate), given.delay_ms, given.requests
local name, catalog, schema = "ab-test-endpoint", "main", "logs"
local workspace = assert(sluice.workspace())

local function version(served_name, number, errors, milliseconds)
  return {
    name = served_name, entity_name = "main.demo.echo", entity_version = number, workload_size = "Small",
    scale_to_zero_enabled = true,
    environment_vars = {
      SLUICE_EMULATOR_ERROR_RATE = errors, SLUICE_EMULATOR_DELAY_MS = tostring(milliseconds) },
  }
end

assert(workspace.serving_endpoints:get_or_create({
  name = name,
  config = {
    served_entities = {
      version("model-control", "1", "0", 20), version("model-treatment", "2", error_rate, 20 + delay) },
    traffic_config = traffic.config { { "model-control", 50 }, { "model-treatment", 50 } },
    auto_capture_config = {
      enabled = true, catalog_name = catalog, schema_name = schema, table_name_prefix = "ab" },
  },
}, { progress = true }))

local chat, questions = workspace:endpoint(name), {}
for row = 1, count do questions[row] = "How high is the water at lock " .. row .. "?" end
task.map(questions, function(question)
  return chat:query { messages = { { role = "user", content = question } } }
end, { concurrency = 32 })

local made = assert(report.ab {
  source = workspace.sql, table = ("%s.%s.ab_payload"):format(catalog, schema),
  by = "request_metadata.model_version", names = { ["1"] = "model-control", ["2"] = "model-treatment" },
  control = "model-control", split = { ["model-control"] = 50, ["model-treatment"] = 50 },
  since = task.wall() - 7 * 86400, title = name,
})
io.write(made:text())
if made.verdict == "worse" then os.exit(3) end
