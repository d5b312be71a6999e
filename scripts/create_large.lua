#!/usr/bin/env sluice
-- SPDX-License-Identifier: MIT
-- Creates an endpoint for a large model, and has an hour's patience. Shows meanwhile how it stands.
--
--     sluice --emulator scripts/create_large.lua [ENDPOINT] [MODEL] [VERSION]
--
-- Against a workspace of yours: set DATABRICKS_HOST and DATABRICKS_TOKEN, leave --emulator out. It costs money
-- from then on, until `serving:delete(name)`.
local sluice = require "sluice"

local given = sluice.arguments.read {
  about = "Creates an endpoint for a large model, and has an hour's patience.",
  { "ENDPOINT", default = "large" },
  { "MODEL", default = "main.demo.large_model" },
  { "VERSION", default = "1" },
}
local name = given.endpoint
local serving = assert(sluice.workspace()).serving_endpoints

local endpoint, err = serving:create_and_wait({
  name = name,
  config = { served_entities = { {
    entity_name = given.model,
    entity_version = given.version,
    workload_type = "GPU_LARGE",
    workload_size = "Medium",
    scale_to_zero_enabled = false,
  } } },
}, { timeout = 60 * 60, progress = true })

if not endpoint then
  io.stderr:write(tostring(err), "\n") -- with what the deployment says, and the end of its build log
  if err:is "OperationTimeout" then
    io.stderr:write(("it may still become ready: serving:wait(%q) goes on waiting\n"):format(name))
  end
  os.exit(1)
end

for _, entity in ipairs(endpoint.config.served_entities) do
  print(("%s serves %s %s on %s"):format(
    name, entity.entity_name, entity.entity_version, entity.workload_type))
end
