-- SPDX-License-Identifier: MIT
-- A/B reports over the inference tables of an endpoint that splits its traffic, by the SQL route of an emulator.

local caller = require "emulator_caller"
local columns = require "sluice.report.columns"
local emulator = require "sluice.emulator"
local fixture = require "server_fixture"
local report = require "sluice.report"
local rows = require "sluice.report.rows"
local sluice = require "sluice"
local support = require "support"
local task = require "sluice.task"
local warehouse = require "sluice.report.warehouse"

local describe = support.needing("sqlite", describe, pending)

local CAPTURE <const> = {
  enabled = true, catalog_name = "main", schema_name = "logs", table_name_prefix = "chat",
}

-- A workspace whose endpoint "chat" has answered so many requests; its second version fails half of the time.
local function workspace_of(requests)
  local emulated = fixture.need(emulator.new { deploy_time = 0, seed = 8 })
  local workspace = fixture.need(sluice.workspace {
    host = "http://emulator.test", token = "any", warehouse_id = "w", transport = emulated.app,
  })
  local config = { served_entities = {}, traffic_config = { routes = {} }, auto_capture_config = CAPTURE }
  for index, name in ipairs { "old", "new" } do
    config.served_entities[index] = caller.entity("echo", { name = name, entity_version = tostring(index) })
    config.traffic_config.routes[index] = { served_entity_name = name, traffic_percentage = 50 }
  end
  local gateway = { inference_table_config = {
    enabled = true, catalog_name = "main", schema_name = "gateway", table_name_prefix = "chat",
  } }
  local body = { name = "chat", config = config, ai_gateway = gateway }
  fixture.need(workspace.serving_endpoints:create_and_wait(body))
  emulated:fault { kind = "status", status = 500, probability = 0.5, served_entity = "new", json = {} }
  local chat = workspace:endpoint "chat"
  for _ = 1, requests do chat:query { messages = { { role = "user", content = "x" } } } end
  return workspace
end

describe("report.ab over a warehouse", function()
  it("reads both kinds of inference tables", function()
    local started = task.wall()
    local workspace = workspace_of(600)
    local by, names = "request_metadata.model_version", { ["1"] = "old", ["2"] = "new" }
    for _, case in ipairs {
      { table = "main.logs.chat_payload", by = by, names = names },
      { table = "main.logs.`chat_request_response`", by = by, names = names },
      { table = "main.gateway.chat_payload", by = "served_entity_id" },
    } do
      case.source, case.control, case.since = workspace.sql, "old", started - 1
      local made = fixture.need(report.ab(case))
      assert.equal("worse", made.verdict, made:text())
      assert.equal(600, made.variants[1].requests + made.variants[2].requests)
      assert.equal(1, made.variants[1].success.value)
      assert.is_true(made.variants[2].success.value < 0.6)
      assert.equal(made.variants[1].successes, made.variants[1].latency.count)
      case.since = started + 3600
      assert.equal("inconclusive", fixture.need(report.ab(case)).verdict)
      case.since, case.before = nil, started - 1
      assert.same({ "the log has no rows in this time" }, { fixture.need(report.ab(case)).notes[1] })
    end
    local made, err = report.ab { source = workspace.sql, table = "main.logs.nowhere", control = "old" }
    assert.is_nil(made)
    assert.matches("nowhere", err.message)
    made, err = report.ab { source = workspace.sql, table = "main.logs.chat_payload", control = "old" }
    assert.same({ nil, "SchemaMismatch" }, { made, err.kind })
  end)

  it("wants a table by its name", function()
    for _, name in ipairs { false, "a b", "a; DROP", "a..b" } do
      assert.has_error(function() warehouse.of("report.ab", {}, name or nil) end)
    end
    assert.has_error(function()
      report.ab { source = {}, control = "a", names = { ["1"] = "a", ["2"] = "a" } }
    end)
    local found, missing = columns.find("t", { by = { "v" } }, { v = 1, status_code = 1, request_time = 1 })
    assert.same({ "request_time", 4 }, { found.timestamp_ms, #missing })
    assert.equal("SchemaMismatch", columns.mismatch("t", "m").kind)
    local counted = { tallies = { ["1"] = "one", other = "two" } }
    rows.rename(counted, { ["1"] = "a" })
    assert.same({ a = "one", other = "two" }, counted.tallies)
  end)
end)
