-- SPDX-License-Identifier: MIT

local ai_query = require "sluice.emulator.sql.ai_query"
local caller = require "emulator_caller"
local emulator = require "sluice.emulator"
local json = require "sluice.json"
local sluice = require "sluice"
local statements = require "sluice.emulator.sql.statements"
local support = require "support"
local tables = require "sluice.emulator.tables"
local task = require "sluice.task"

local describe_with_sqlite = support.needing("sqlite", describe, pending)

-- The query of the reference page, as it stands there.
-- luacheck: push ignore 613
local AB_RESULTS <const> = [[
-- Compare model versions using inference table
SELECT 
    get_json_object(response, '$.model') as model_version,
    count(*) as requests,
    avg(execution_time_ms) as avg_latency,
    percentile(execution_time_ms, 0.95) as p95_latency,
    sum(case when status_code = 200 then 1 else 0 end) / count(*) as success_rate
FROM catalog.schema.endpoint_logs_request_response
WHERE timestamp_ms > unix_timestamp(current_date() - INTERVAL 7 DAY) * 1000
GROUP BY 1;
]]
-- luacheck: pop

local function place(prefix)
  return { enabled = true, catalog_name = "catalog", schema_name = "schema", table_name_prefix = prefix }
end

-- A workspace on an emulator with two models: `fast` fails every fourth time, `slow` takes its time.
local function start(gateway)
  local asked = 0
  local made = assert(emulator.new {
    deploy_time = 0, seed = 7,
    models = {
      fast = function(request)
        asked = asked + 1
        task.sleep(0.1)
        if asked % 4 == 0 then return nil, { status = 500, message = "the model broke" } end
        return { model = "fast-1", choices = { { message = { content = request.messages[1].content } } } }
      end,
      slow = function()
        task.sleep(0.4)
        return { model = "slow-2", choices = { { message = { content = "slow" } } } }
      end,
    },
  })
  local w = assert(sluice.workspace { transport = made.app, token = "dapi-of-tables-spec",
    warehouse_id = "w" })
  assert(w.serving_endpoints:create_and_wait {
    name = "ab", ai_gateway = gateway and { inference_table_config = place "gw" } or nil,
    config = {
      served_entities = {
        { name = "control", entity_name = "main.d.fast", entity_version = "1" },
        { name = "treatment", entity_name = "main.d.slow", entity_version = "2" },
      },
      traffic_config = { routes = {
        { served_model_name = "control", traffic_percentage = 50 },
        { served_model_name = "treatment", traffic_percentage = 50 },
      } },
      auto_capture_config = place "endpoint_logs",
    },
  })
  return w, w:endpoint "ab", made
end

local function say(content, more)
  local request = { messages = { { role = "user", content = content } } }
  for name, value in pairs(more or {}) do request[name] = value end
  return request
end

local function rows_of(w, text, options)
  return assert(assert(w.sql:execute(text, options)):collect())
end

describe_with_sqlite("the inference tables of the emulator", function()
  it("answer the reference page's A/B query as it stands", function()
    task.simulate(function()
      local w, ab = start()
      local counts, failed = { control = 0, treatment = 0 }, 0
      for index = 1, 40 do
        local response, err = ab:query(say("question " .. index))
        local name = response and sluice.meta(response).served_model or "control"
        counts[name] = counts[name] + 1
        if err then failed = failed + 1 end
      end
      assert.is_true(failed > 2)
      local by_model = {}
      for _, row in ipairs(rows_of(w, AB_RESULTS)) do by_model[row.model_version or "none"] = row end
      assert.same({
        model_version = "slow-2", requests = counts.treatment, avg_latency = 400.0, p95_latency = 400.0,
          success_rate = 1.0,
      }, by_model["slow-2"])
      assert.same({ counts.control - failed, 1.0 }, { by_model["fast-1"].requests,
        by_model["fast-1"].success_rate })
      assert.same({ failed, 0.0 }, { by_model.none.requests, by_model.none.success_rate })
      local all = AB_RESULTS:gsub("GROUP BY 1", ""):gsub("get_json_object%(response, '%$.model'%)", "'all'")
      assert.equal((40 - failed) / 40, rows_of(w, all)[1].success_rate)
      task.sleep(9 * 86400)
      assert.same({}, rows_of(w, AB_RESULTS))
    end)
  end)

  it("have the columns of both kinds", function()
    task.simulate(function()
      local w, ab = start(true)
      assert(ab:query(say("hello", { client_request_id = "c-1" }), { served_model = "control" }))
      local legacy = rows_of(w, "SELECT * FROM catalog.schema.endpoint_logs_payload")
      local row = legacy[1]
      assert.same({ 1, "c-1", "2026-01-01", 200, 1.0, 100, 1767225600000 }, {
        #legacy, row.client_request_id, row.date, row.status_code, row.sampling_fraction,
          row.execution_time_ms,
        row.timestamp_ms,
      })
      assert.equal("hello", json.decode(row.request).messages[1].content)
      assert.equal("fast-1", json.decode(row.response).model)
      assert.same({ endpoint_name = "ab", model_name = "main.d.fast", model_version = "1" },
        row.request_metadata)
      local gateway = rows_of(w, "SELECT * FROM `catalog`.`schema`.`GW_Payload`")[1]
      assert.same({
        row.databricks_request_id, "2026-01-01", "2026-01-01T00:00:00.000Z", 200, 100, "control",
          "emulator@sluice.invalid",
      }, {
        gateway.databricks_request_id, gateway.request_date, gateway.request_time, gateway.status_code,
        gateway.execution_duration_ms, gateway.served_entity_id, gateway.requester,
      })
      assert.is_nil(gateway.logging_error_codes)
    end)
  end)

  it("are found by names in full, in part, and in any case", function()
    task.simulate(function()
      local w, ab = start()
      assert(ab:query(say "hello", { served_model = "treatment" }))
      for text, options in pairs {
        ["SELECT count(*) AS n FROM CATALOG.Schema.ENDPOINT_logs_PAYLOAD"] = {},
        ["SELECT count(*) AS n FROM schema.endpoint_logs_payload"] = { catalog = "catalog" },
        ["SELECT count(*) AS n FROM endpoint_logs_payload AS p WHERE p.date > '2025-12-31'"] =
          { catalog = "Catalog", schema = "schema" },
        ["SELECT count(endpoint_logs_payload.date) AS n FROM catalog.schema.endpoint_logs_payload"] = {},
        ["SELECT count(`catalog`.schema.endpoint_logs_payload.date) AS n FROM \z
          catalog.schema.endpoint_logs_payload"] = {},
        ["SELECT count(request_metadata.model_name) AS n FROM catalog.schema.endpoint_logs_payload"] = {},
      } do
        assert.same({ { n = 1 } }, rows_of(w, text, options), text)
      end
      local _, err = w.sql:execute "SELECT 1 FROM endpoint_logs_payload"
      assert.matches("TABLE_OR_VIEW_NOT_FOUND", err.message)
      _, err = w.sql:execute "SELECT 1 FROM catalog.schema.endpoint_log_payload"
      assert.matches("Did you mean `catalog`.`schema`.`endpoint_logs_payload`", err.message)
      assert.equal("42P01", err.sql_state)
    end)
  end)

  it("keep streams as the list of their events, and the ends of endpoints", function()
    task.simulate(function()
      local w, ab = start()
      local stream = assert(ab:stream(say "hello", { served_model = "control" }))
      assert(stream:collect())
      stream:close()
      w.serving_endpoints:delete "ab"
      local row = rows_of(w, [[SELECT get_json_object(response, '$[0].model') AS model,
        execution_time_ms AS ms,
        get_json_object(response,
          '$[1].choices[0].delta.content') AS text FROM catalog.schema.endpoint_logs_payload]])[1]
      assert.same({ "fast-1", 100, "hello" }, { row.model, row.ms, row.text })
    end)
  end)

  it("leave out what is too long, with its code", function()
    task.simulate(function()
      local w, ab = start(true)
      assert(ab:query(say(("x"):rep(2 << 20)), { served_model = "treatment" }))
      local row = rows_of(w, "SELECT *, logging_error_codes[0] AS code FROM catalog.schema.gw_payload")[1]
      assert.is_nil(row.request)
      assert.equal("slow-2", json.decode(row.response).model)
      assert.same({ { "MAX_REQUEST_SIZE_EXCEEDED" }, "MAX_REQUEST_SIZE_EXCEEDED" },
        { row.logging_error_codes, row.code })
    end)
  end)

  it("are written only where a config asks for them", function()
    task.simulate(function()
      local call, made = caller.start { deploy_time = 0 }
      caller.create(call, "plain", { caller.entity "echo" })
      assert.equal(200, call("POST", "/serving-endpoints/plain/invocations", caller.chat "hi").status)
      assert.is_nil(made.tables.database)
      assert.is_nil(made.tables:begin(made.endpoints:get "plain", {}, {}))
      assert.is_table(tables.new(made.endpoints))
      assert.is_table(statements.new(made, { chunk_rows = 1, statement_time = 0 }))
    end)
  end)
end)

describe_with_sqlite("ai_query in the emulator", function()
  it("asks the endpoint for each row, errors beside answers", function()
    task.simulate(function()
      local w = start(true)
      local rows = rows_of(w, [[SELECT pos, ai_query('ab', col, failOnError => false,
        modelParameters => named_struct('max_tokens', 5, 'temperature', 0.5)) AS answer
        FROM posexplode(from_json(:rows, 'ARRAY<STRING>')) ORDER BY pos]], {
        parameters = { rows = json.encode { "a", "b", "c", "d", "e", "f", "g", "h", "i", "j" } },
      })
      assert.equal(10, #rows)
      local right, wrong = 0, 0
      for index, row in ipairs(rows) do
        assert.equal(index - 1, row.pos)
        if row.answer.errorMessage == json.null then right = right + 1 else wrong = wrong + 1 end
        if row.answer.result == json.null then
          assert.matches("INTERNAL_ERROR: the model broke", row.answer.errorMessage)
        end
      end
      assert.is_true(right > 0 and wrong > 0)
      local logged = rows_of(w,
        "SELECT count(*) n, max(get_json_object(request, '$.max_tokens')) m FROM catalog.schema.gw_payload")
      assert.same({ { n = 10, m = "5" } }, logged)
      assert.is_function(ai_query.translate)
      assert.is_function(ai_query.answer)
    end)
  end)

  it("fails as a whole where it is not told otherwise", function()
    task.simulate(function()
      local w = start()
      local _, err = w.sql:execute "SELECT ai_query('nowhere', 'hi')"
      assert.equal("BadRequest", err.kind)
      assert.matches("AI_FUNCTION_HTTP_REQUEST_ERROR.*nowhere.*RESOURCE_DOES_NOT_EXIST", err.message)
      for text, part in pairs {
        ["SELECT upper(ai_query('ab', 'x'))"] = "ai_query anywhere but",
        ["SELECT 1 WHERE ai_query('ab', 'x') = 'y'"] = "ai_query anywhere but",
        ["SELECT ai_query('ab')"] = "needs an endpoint and a request",
        ["SELECT ai_query('ab', 7)"] = "is a STRING, not a BIGINT",
        ["SELECT ai_query('ab', 'x', returnType => 'INT')"] = "The argument returntype of ai_query",
        ["SELECT ai_query(upper('ab'), 'x')"] = "that is no literal",
        ["SELECT ai_query('ab', 'x', modelParameters => 7)"] = "no named_struct",
      } do
        _, err = w.sql:execute(text)
        assert.is_truthy(err and err.message:find(part, 1, true), text .. ": " .. tostring(err))
      end
    end)
  end)
end)

local over_http = support.has "server" and describe_with_sqlite or support.needing("server", describe,
  pending)

over_http("SQL over HTTP", function()
  it("comes in chunks and by links", function()
    local made = assert(emulator.new { deploy_time = 0, chunk_rows = 2, token = "dapi-of-sql-over-http" })
    local server = assert(made:listen())
    local w = assert(sluice.workspace {
      host = "http://" .. server.address, token = "dapi-of-sql-over-http", warehouse_id = "any",
    })
    local text = "SELECT pos, col FROM posexplode(from_json(:rows, 'ARRAY<STRING>'))"
    local parameters = { rows = json.encode { "a", "b", "c", "d", "e" } }
    for _, disposition in ipairs { "INLINE", "EXTERNAL_LINKS" } do
      local list = {}
      for index, row in ipairs(rows_of(w, text, { parameters = parameters, disposition = disposition })) do
        list[index] = row.pos .. row.col
      end
      assert.same({ "0a", "1b", "2c", "3d", "4e" }, list)
    end
    server:stop(0)
  end)

  it("is cancelled when its time is over", function()
    local made = assert(emulator.new { deploy_time = 0, statement_time = 60 })
    local server = assert(made:listen())
    local w = assert(sluice.workspace { host = "http://" .. server.address, token = "any",
      warehouse_id = "any" })
    local id
    local _, err = w.sql:execute("SELECT 1", {
      timeout = 0.3, on_poll = function(answer) id = answer.statement_id end,
    })
    assert.equal("OperationTimeout", err.kind)
    assert.equal("CANCELED", assert(w.sql:get_statement(id)).status.state)
    server:stop(0)
  end)

  it("needs no settings in a script with an emulator of its own", function()
    support.with_file([[
      local workspace = assert(require "sluice".workspace())
      print(assert(workspace.sql:execute "SELECT 1 / 2 AS half"):next().half)
    ]], function(path)
      local run = support.sluice("--emulator", path)
      assert.equal("0.5\n", run.out, run.err)
    end)
  end)
end)
