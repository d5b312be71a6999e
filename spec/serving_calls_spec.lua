-- SPDX-License-Identifier: MIT
-- The calls of the serving API: what each sends, and what it makes of the answer.
local client = require "sluice.endpoints.client"
local errors = require "sluice.errors"
local json = require "sluice.json"
local meta = require "sluice.meta"
local serving = require "sluice.serving"
local task = require "sluice.task"
local web = require "sluice.web"

local BASE <const> = "/api/2.0/serving-endpoints"
local PERMISSIONS <const> = "/api/2.0/permissions/serving-endpoints"

-- Serving endpoints of a server that answers as `answer(request)` says, and what it was sent.
local function recorded(answer)
  local app, seen = web.app(), {}
  app:any("/*", function(request)
    seen[#seen + 1] = {
      call = request.method .. " " .. request.path,
      accept = request.headers["accept"],
      id = request.headers["x-request-id"],
      body = request.method ~= "GET" and request:json() or nil,
    }
    return answer(request, #seen)
  end)
  return serving.new(client.new { base = "http://h", host = "h", transport = app }), seen
end

local function ok() return { json = { name = "e" } } end

describe("the calls of the serving API", function()
  -- What is called with what, and the method and path that must come of it.
  local CASES <const> = {
    { "GET " .. BASE, "list" },
    { "GET " .. BASE .. "/e", "get", "e" },
    { "POST " .. BASE, "create", { name = "e", new_key = { 1 } } },
    { "DELETE " .. BASE .. "/e", "delete", "e" },
    { "PUT " .. BASE .. "/e/config", "update_config", "e", { served_entities = { { name = "m" } } } },
    { "POST " .. BASE .. "/pt", "create_provisioned_throughput_endpoint", { name = "e" } },
    { "PUT " .. BASE .. "/pt/e/config", "update_provisioned_throughput_endpoint_config", "e",
      { config = { served_entities = {} } } },
    { "PATCH " .. BASE .. "/e/tags", "patch", "e", { add_tags = { { key = "a" } } } },
    { "PUT " .. BASE .. "/e/rate-limits", "put", "e", { rate_limits = { { calls = 1 } } } },
    { "PUT " .. BASE .. "/e/ai-gateway", "put_ai_gateway", "e", {} },
    { "PATCH " .. BASE .. "/e/notifications", "update_notifications", "e", { email_notifications = {} } },
    { "PATCH " .. BASE .. "/e/telemetry-config", "patch_telemetry_config", "e", {} },
    { "PATCH " .. BASE .. "/e/system-metrics-export-state", "patch_system_metrics_export_state", "e",
      { uc_system_metrics_export_state = "FIRST_PARTY_EXPORT_ENABLED" } },
    { "GET " .. BASE .. "/e/served-models/m-1/build-logs", "build_logs", "e", "m-1" },
    { "GET " .. BASE .. "/e/served-models/m-1/logs", "logs", "e", "m-1" },
    { "GET " .. PERMISSIONS .. "/0123", "get_permissions", "0123" },
    { "PUT " .. PERMISSIONS .. "/0123", "set_permissions", "0123", { access_control_list = {} } },
    { "PATCH " .. PERMISSIONS .. "/0123", "update_permissions", "0123", { access_control_list = {} } },
    { "GET " .. PERMISSIONS .. "/0123/permissionLevels", "get_permission_levels", "0123" },
  }

  it("have the SDKs' names, methods and paths; bodies go through untouched", function()
    for _, case in ipairs(CASES) do
      local endpoints, seen = recorded(ok)
      local arguments = table.pack(table.unpack(case, 3))
      arguments[arguments.n + 1] = { request_id = "r-1", timeout = 5 }
      local answer, err = endpoints[case[2]](endpoints, table.unpack(arguments, 1, arguments.n + 1))
      assert(answer, case[2] .. ": " .. tostring(err))
      assert.equal(1, #seen, case[2])
      assert.equal(case[1], seen[1].call)
      assert.equal("application/json", seen[1].accept)
      assert.equal("r-1", seen[1].id)
      local body = case[#case]
      if type(body) == "table" then
        assert.equal(json.encode(body, { canonical = true }), json.encode(seen[1].body, { canonical = true }))
      end
    end
  end)

  it("escape the names in paths", function()
    local endpoints, seen = recorded(ok)
    assert(endpoints:get "a/b c?d#e")
    assert(endpoints:build_logs("a/b", "../m"))
    assert.equal("GET " .. BASE .. "/a%2Fb%20c%3Fd%23e", seen[1].call)
    assert.equal("GET " .. BASE .. "/a%2Fb/served-models/..%2Fm/build-logs", seen[2].call)
  end)

  it("keep answers as they come, with what is known of them", function()
    local endpoints = recorded(function()
      return { headers = { ["x-request-id"] = "q-7" }, json = { name = "e", new_key = { deep = { 1, 2 } } } }
    end)
    for _, answer in ipairs { endpoints:get "e", (endpoints:put_ai_gateway("e", {})) } do
      assert.same({ name = "e", new_key = { deep = { 1, 2 } } }, answer)
      assert.equal("q-7", meta.get(answer).request_id)
    end
  end)

  it("give text where the answer is text", function()
    local metrics = "# HELP cpu_usage_percentage x\ncpu_usage_percentage{a=\"b\"} 1.5\n"
    local endpoints, seen = recorded(function() return { body = metrics } end)
    assert.equal(metrics, endpoints:export_metrics "e")
    assert.equal(metrics, endpoints:get_open_api "e")
    assert.equal("GET " .. BASE .. "/e/metrics", seen[1].call)
    assert.equal("GET " .. BASE .. "/e/openapi", seen[2].call)
    assert.equal("text/plain", seen[1].accept)
    endpoints = recorded(function() return { body = "" } end)
    assert.equal("", endpoints:export_metrics "e")
    endpoints = recorded(function() return { body = " <html>log in</html>" } end)
    local text, err = endpoints:export_metrics "e"
    assert.is_nil(text)
    assert.equal("ProtocolError", err.kind)
    assert.matches("^export metrics of endpoint e: the answer is an HTML page", tostring(err))
  end)

  it("read tags from an object and from an array", function()
    for text, expected in pairs {
      ['{"tags":[{"key":"a","value":"b"}]}'] = { tags = { { key = "a", value = "b" } } },
      ['[{"key":"a"}]'] = { tags = { { key = "a" } } },
      ["[]"] = { tags = {} },
      ["{}"] = { tags = {} },
      ['{"other":1}'] = { other = 1 },
    } do
      local endpoints = recorded(function() return { body = text } end)
      local answer = assert(endpoints:patch("e", { delete_tags = { "c" } }))
      assert.same(expected, answer)
      assert.equal(200, meta.get(answer).status)
    end
  end)

  it("take a list without entries in three forms, and no other type", function()
    local answers = { ["{}"] = 0, ['{"endpoints":null}'] = 0, ['{"endpoints":[{"name":"a"}]}'] = 1 }
    for text, count in pairs(answers) do
      local endpoints = recorded(function() return { body = text } end)
      assert.equal(count, #assert(endpoints:list()))
    end
    for _, text in ipairs { '{"endpoints":"none"}', '{"endpoints":7}', '{"endpoints":true}' } do
      local endpoints = recorded(function() return { body = text } end)
      local list, err = endpoints:list()
      assert.is_nil(list)
      assert.equal("ProtocolError", err.kind)
      assert.matches("list endpoints: the answer's endpoints are a %a+ and no list", tostring(err))
    end
  end)

  it("are sent again where twice is as good as once", function()
    task.simulate(function()
      for _, case in ipairs(CASES) do
        local endpoints, seen = recorded(function(_, count)
          return count == 1 and { status = 502, body = "" } or ok()
        end)
        endpoints[case[2]](endpoints, table.unpack(case, 3))
        local once = {
          create = true, update_config = true, patch = true, create_provisioned_throughput_endpoint = true,
          update_provisioned_throughput_endpoint_config = true,
        }
        assert.equal(once[case[2]] and 1 or 2, #seen, case[2])
        endpoints, seen = recorded(function(_, count)
          return count == 1 and { status = 429, body = "" } or ok()
        end)
        assert(endpoints[case[2]](endpoints, table.unpack(case, 3)))
        assert.equal(2, #seen, case[2])
      end
    end)
  end)

  it("tell the server's refusals", function()
    local refusals = {
      { "update_config", "e", { served_entities = {}, traffic_config = { routes = {} } },
        message = "The traffic percentages sum to 90 and not to 100." },
      { "create", { name = "e", config = {} }, message = "workload_type GPU_HUGE is unknown." },
    }
    for _, case in ipairs(refusals) do
      local endpoints = recorded(function()
        return { status = 400, json = { error_code = "INVALID_PARAMETER_VALUE", message = case.message } }
      end)
      local answer, err = endpoints[case[1]](endpoints, table.unpack(case, 2))
      assert.is_nil(answer)
      assert.equal("InvalidParameterValue", err.kind)
      assert.matches(case.message, tostring(err), 1, true)
      assert.is_true(errors.is(err))
    end
  end)

  it("refuse misuse at the caller's line", function()
    local endpoints = recorded(ok)
    for expected, misuse in pairs {
      ['serving_endpoints:get: argument "name" must be a name, got "%.%."'] = function()
        endpoints:get ".."
      end,
      ['serving_endpoints:create: argument "body.name" must be a name, got "%."'] = function()
        endpoints:create { name = "." }
      end,
      ['serving_endpoints:logs: argument "served_model_name" must be a string'] = function()
        endpoints:logs("e", nil)
      end,
      ['serving_endpoints:update_config: argument "body" must be a table'] = function()
        endpoints:update_config "e"
      end,
      ['serving_endpoints:get_permissions: argument "endpoint_id"'] = function()
        endpoints:get_permissions()
      end,
      ['serving_endpoints:put: unknown option "tmeout" %(did you mean "timeout"'] = function()
        endpoints:put("e", {}, { tmeout = 1 })
      end,
      ['serving_endpoints:patch: timeout: unknown option "totl"'] = function()
        endpoints:patch("e", {}, { timeout = { totl = 1 } })
      end,
      ['serving_endpoints:update_config_and_wait: unknown option "request_id"'] = function()
        endpoints:update_config_and_wait("e", {}, { request_id = "r" })
      end,
      ["serving_endpoints:export_metrics is a method"] = function() endpoints.export_metrics "e" end,
      ['serving_endpoints has no field "update_confg" %(did you mean "update_config"'] = function()
        endpoints:update_confg("e", {})
      end,
    } do
      local fine, message = pcall(misuse)
      assert.is_false(fine)
      assert.matches("serving_calls_spec.lua:%d+: " .. expected, message)
    end
  end)
end)

describe("serving_endpoints", function()
  it("asks as the endpoint does, whole and as it is made, one served entity too", function()
    local endpoints, seen = recorded(function(_, count)
      if count == 1 then return { json = { choices = {} } } end
      local chunk = '{"choices":[{"index":0,"delta":{"content":"%s"},"finish_reason":%s}]}'
      local events = { chunk:format("a", "null"), chunk:format("b", '"stop"'), "[DONE]" }
      local body = "data: " .. table.concat(events, "\n\ndata: ") .. "\n\n"
      return { headers = { ["content-type"] = "text/event-stream" }, body = body }
    end)
    assert.is_table(endpoints:query("a/b", { messages = {}, new_key = 1 }, { served_model = "m 1" }))
    local stream <close> = assert(endpoints:stream("e", { messages = {} }))
    local text = ""
    for delta in stream:text() do text = text .. delta end
    assert.equal("ab", text)
    assert.equal("POST /serving-endpoints/a%2Fb/served-models/m%201/invocations", seen[1].call)
    assert.same({ messages = {}, new_key = 1 }, seen[1].body)
    assert.equal("POST /serving-endpoints/e/invocations", seen[2].call)
    assert.same({ messages = {}, stream = true }, seen[2].body)
    for expected, misuse in pairs {
      ['serving_endpoints:stream: argument "request" must be a table'] = function() endpoints:stream "e" end,
      ['serving_endpoints:stream: unknown option "servd_model" %(did you mean "served_model"'] = function()
        endpoints:stream("e", {}, { servd_model = "m" })
      end,
    } do
      local fine, message = pcall(misuse)
      assert.is_false(fine)
      assert.matches("serving_calls_spec.lua:%d+: " .. expected, message)
    end
  end)
end)

describe("serving_endpoints:update_config", function()
  local LIVE <const> = [[{ "name": "e", "config": { "config_version": 3,
    "served_entities": [
      { "name": "a", "entity_name": "c.s.m", "entity_version": "1", "workload_type": "CPU", "creator": "x",
        "scale_to_zero_enabled": true, "creation_timestamp": 1, "new_key": { "kept": true },
        "state": { "deployment": "DEPLOYMENT_READY" }, "foundation_model": { "name": "f" } },
      { "name": "b", "external_model": { "name": "gpt", "provider": "openai" }, "state": {} } ],
    "served_models": [ { "name": "a" }, { "name": "b" } ],
    "traffic_config": { "routes": [ { "served_model_name": "a", "traffic_percentage": 100 } ] },
    "auto_capture_config": { "catalog_name": "c", "schema_name": "s", "enabled": true, "state": {} } } }]]
  local ENTITIES <const> = {
    { name = "a", entity_name = "c.s.m", entity_version = "1", workload_type = "CPU",
      scale_to_zero_enabled = true, new_key = { kept = true } },
    { name = "b", external_model = { name = "gpt", provider = "openai" } },
  }
  local CAPTURE <const> = { catalog_name = "c", schema_name = "s", enabled = true }

  local function sent(body, live)
    local endpoints, seen = recorded(function(request)
      return { body = request.method == "GET" and (live or LIVE) or '{"name":"e"}' }
    end)
    assert(endpoints:update_config("e", body))
    return seen[#seen].body, #seen
  end

  it("keeps the live entities where the body only moves traffic", function()
    for _, key in ipairs { "served_model_name", "served_entity_name" } do
      local routes = { { [key] = "a", traffic_percentage = 90 }, { [key] = "b", traffic_percentage = 10 } }
      local body = { traffic_config = { routes = routes } }
      local got, count = sent(body)
      assert.equal(2, count)
      assert.same({
        served_entities = ENTITIES, traffic_config = { routes = routes }, auto_capture_config = CAPTURE,
      }, got)
      assert.is_nil(body.served_entities)
    end
  end)

  it("keeps the live traffic, and the table of answers", function()
    local capture = { catalog_name = "d", enabled = false }
    local got = sent { auto_capture_config = capture, served_entities = json.null }
    assert.same(ENTITIES, got.served_entities)
    assert.same({ routes = { { served_model_name = "a", traffic_percentage = 100 } } }, got.traffic_config)
    assert.same(capture, got.auto_capture_config)
  end)

  it("fills in nothing where the body says what is to be served", function()
    for _, key in ipairs { "served_entities", "served_models" } do
      local body = { [key] = { { name = "n" } } }
      local got, count = sent(body)
      assert.same(body, got)
      assert.equal(1, count)
    end
  end)

  it("fills in the older form where the service tells only that", function()
    local got = sent({ traffic_config = { routes = {} } },
      '{"config":{"served_models":[{"name":"a","model_name":"m","state":{}}]}}')
    assert.same({ { name = "a", model_name = "m" } }, got.served_models)
    assert.is_nil(got.served_entities)
  end)

  it("lets the service judge where nothing is live, or nothing can be read", function()
    for _, live in ipairs { "{}", '{"config":null}', '{"config":"x"}', '{"config":{"served_entities":"x"}}',
      '{"config":{"served_entities":[]}}' } do
      local got = sent({ traffic_config = { routes = { 1 } } }, live)
      assert.same({ traffic_config = { routes = { 1 } } }, got)
    end
  end)

  it("tells that there is no such endpoint", function()
    local endpoints, seen = recorded(function()
      return { status = 404, json = { error_code = "RESOURCE_DOES_NOT_EXIST", message = "none" } }
    end)
    local answer, err = endpoints:update_config("e", { traffic_config = {} })
    assert.is_nil(answer)
    assert.equal("ResourceDoesNotExist", err.kind)
    assert.equal(1, #seen)
  end)
end)
