#!/usr/bin/env sluice
-- SPDX-License-Identifier: MIT
-- Lets a warehouse ask an endpoint each row of a table of its own, and writes each answer, or its error, to a file.
--
--     sluice ai_query.lua --endpoint NAME --table CATALOG.SCHEMA.TABLE --output FILE [--prompt COLUMN] [--id COLUMN]
--     sluice --emulator scripts/ai_query.lua
--
-- The warehouse is DATABRICKS_WAREHOUSE_ID. Ctrl-C cancels the statement there. Exit status: 0 every row has an
-- answer, 3 some have errors.
local sluice = require "sluice"

local given, refuse = sluice.arguments.read {
  about = "Lets a warehouse ask an endpoint each row of a table of its own.",
  { "--endpoint NAME", "who is asked" },
  { "--table NAME", "CATALOG.SCHEMA.TABLE" },
  { "--output FILE", "a line for each row; - for standard output" },
  { "--prompt COLUMN", "of the table", default = "prompt" },
  { "--id COLUMN", "of the table, told with each answer" },
  notes = "Exit status: 0 every row has an answer, 3 some have errors.",
}

local workspace = assert(sluice.workspace())
if #arg == 0 then -- try it out: an endpoint whose own log is the table
  if not workspace:is_emulator() then refuse "--endpoint, --table and --output are missing" end
  given.endpoint, given.table, given.output = "rivers", "main.demo.rivers_payload", "-"
  given.prompt, given.id = "client_request_id", "client_request_id"
  assert(workspace.serving_endpoints:create_and_wait {
    name = "rivers",
    config = {
      served_entities = { { entity_name = "main.demo.echo", entity_version = "1",
        workload_size = "Small", scale_to_zero_enabled = true } },
      auto_capture_config = { enabled = true, catalog_name = "main", schema_name = "demo",
        table_name_prefix = "rivers" },
    },
  })
  local messages = { { role = "user", content = "hello" } }
  for i = 1, 5 do
    local request = { messages = messages, client_request_id = "question " .. i }
    assert(workspace.serving_endpoints:query("rivers", request))
  end
end
for _, name in ipairs { "endpoint", "table", "output" } do
  if not given[name] then refuse("--" .. name .. " is missing") end
end

local summary, err = sluice.batch.ai_query {
  workspace = workspace, endpoint = given.endpoint, input = given.table, output = given.output,
  prompt = given.prompt, id = given.id, progress = true,
}
if not summary then
  io.stderr:write(tostring(err), "\n")
  os.exit(1)
end
io.stderr:write(("%d rows: %d answered, %d failed\n"):format(summary.rows, summary.ok, summary.failed))
if summary.failed > 0 then os.exit(3) end
