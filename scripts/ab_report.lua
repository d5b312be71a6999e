#!/usr/bin/env sluice
-- SPDX-License-Identifier: MIT
-- Which version is better, from a log of requests: SQLite's, as layers.capture writes it, or a table of a warehouse.
--
--     sluice ab_report.lua LOG.db CONTROL [DAYS] [PAGE.html]
--     sluice ab_report.lua CATALOG.SCHEMA.TABLE CONTROL [DAYS] [PAGE.html]
--     sluice --emulator scripts/ab_report.lua
--
-- Of a table in a warehouse the versions are those of the model: "1", "2". PAGE.html gets the report with plots.
local sluice = require "sluice"
local report, task, traffic = sluice.report, sluice.task, sluice.traffic

local given, refuse = sluice.arguments.read {
  about = "Which version is better, from a log of requests.",
  { "LOG", "a SQLite file that ends in .db, or CATALOG.SCHEMA.TABLE; in an emulator one of its own" },
  { "CONTROL", "the version that the others are compared with", default = "1" },
  { "DAYS", "that the report goes back", type = "number", default = 7 },
  { "PAGE.html", "gets the report with plots" },
}
local log, control, days, page = given.log, given.control, given.days, given.page
local workspace = (not log or not log:find "%.db$") and assert(sluice.workspace()) or nil

if not log then -- try it out: an endpoint of our own that writes such a table
  if not workspace:is_emulator() then refuse "LOG is missing" end
  log = "main.logs.demo_payload"
  local entities = {}
  for number, name in ipairs { "old", "new" } do
    entities[number] = { name = name, entity_name = "main.demo.echo", entity_version = tostring(number),
      workload_size = "Small", scale_to_zero_enabled = true,
      environment_vars = { SLUICE_EMULATOR_DELAY_MS = tostring(40 / number) } }
  end
  assert(workspace.serving_endpoints:create_and_wait { name = "demo", config = {
    served_entities = entities, traffic_config = traffic.config { { "old", 50 }, { "new", 50 } },
    auto_capture_config = {
      enabled = true, catalog_name = "main", schema_name = "logs", table_name_prefix = "demo" },
  } })
  local chat, request = workspace:endpoint "demo", { messages = { { role = "user", content = "How high?" } } }
  local function ask() return chat:query(request) end
  task.scope(function(scope)
    for _ = 1, 20 do
      scope:spawn(function() for _ = 1, 30 do ask() end end)
    end
  end)
end

local source = workspace and workspace.sql or assert(sluice.sqlite.open(log, { read_only = true }))
local made = assert(report.ab {
  source = source, table = workspace and log or nil,
  by = workspace and "request_metadata.model_version" or nil,
  control = control, since = task.wall() - days * 86400, title = log,
})
io.write(made:text())
if page then
  local file <close> = assert(io.open(page, "w"))
  assert(file:write(made:html()))
end
