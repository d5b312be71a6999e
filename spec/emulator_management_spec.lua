-- SPDX-License-Identifier: MIT
-- The management API beside create and get: an endpoint's parts, deployments that fail, permissions, papers, metrics.

local caller = require "emulator_caller"
local config_reader = require "sluice.emulator.config"
local deployment = require "sluice.emulator.deployment"
local entity_reader = require "sluice.emulator.entity"
local features = require "sluice.emulator.features"
local gateway = require "sluice.emulator.gateway"
local json = require "sluice.json"
local metrics = require "sluice.emulator.metrics"
local papers = require "sluice.emulator.papers"
local permissions = require "sluice.emulator.permissions"
local task = require "sluice.task"
local view = require "sluice.emulator.view"
local wire = require "sluice.emulator.wire"

local management <const>, refused <const> = caller.management, caller.refused
local entity <const>, create <const> = caller.entity, caller.create
local external = { name = "gpt", provider = "openai", task = "llm/v1/chat" }

local function start(options)
  options = options or {}
  options.deploy_time = options.deploy_time or 0
  return caller.start(options)
end

describe("the parts of an endpoint", function()
  local call

  before_each(function()
    call = start()
    create(call, "e", { entity "echo" })
  end)

  local function get() return call("GET", management .. "/e"):json() end

  it("tags are added, changed and deleted (features.patch_tags)", function()
    local function patch(body) return call("PATCH", management .. "/e/tags", body) end
    local added = { add_tags = { { key = "team", value = "a" }, { key = "bare" } } }
    assert.same({ tags = { { key = "team", value = "a" }, { key = "bare" } } }, patch(added):json())
    assert.same({ { key = "team", value = "b" } },
      patch({ add_tags = { { key = "team", value = "b" } }, delete_tags = { "bare", "none" } }):json().tags)
    assert.same({ { key = "team", value = "b" } }, get().tags)
    refused(patch { add_tags = { { value = "x" } } }, 400, "INVALID_PARAMETER_VALUE")
    refused(patch { add_tags = "x" }, 400, "INVALID_PARAMETER_VALUE")
    refused(patch { delete_tags = 1 }, 400, "INVALID_PARAMETER_VALUE")
    refused(call("PATCH", management .. "/no/tags", added), 404, "RESOURCE_DOES_NOT_EXIST")
    assert.equal("[]", json.encode(patch { delete_tags = { "team" } }:json().tags))
  end)

  it("rate limits of the old kind are answered and do not show (features.put_rate_limits)", function()
    local body = { rate_limits = { { calls = 5, renewal_period = "minute" } } }
    local res = call("PUT", management .. "/e/rate-limits", body)
    assert.same({ { calls = 5, renewal_period = "minute", key = "endpoint" } }, res:json().rate_limits)
    assert.is_nil(get().rate_limits)
    for _, limit in ipairs {
      { renewal_period = "minute" }, { calls = 1 }, { calls = -1, renewal_period = "minute" },
      { calls = 1, renewal_period = "minute", key = "user_group" },
    } do
      refused(call("PUT", management .. "/e/rate-limits", { rate_limits = { limit } }), 400,
        "INVALID_PARAMETER_VALUE")
    end
    assert.is_nil(gateway.read_old_limits "x")
  end)

  it("an AI gateway is set and unset (features.put_ai_gateway)", function()
    local function put(body) return call("PUT", management .. "/e/ai-gateway", body) end
    local limit = { calls = "7", renewal_period = "minute" }
    local set = put {
      rate_limits = { limit }, usage_tracking_config = { enabled = true }, unknown = 1,
      guardrails = { input = { pii = { behavior = "BLOCK" } } },
    }:json()
    assert.same({ { calls = 7, renewal_period = "minute", key = "endpoint" } }, set.rate_limits)
    assert.is_nil(set.unknown)
    assert.same(set, get().ai_gateway)
    assert.same(set, call("GET", management):json().endpoints[1].ai_gateway)
    assert.same({}, put {}:json())
    assert.is_nil(get().ai_gateway)
    assert.same(set.rate_limits, gateway.read_limits(json.array { limit }))
  end)

  for part, body in pairs {
    ["renewal_period must be minute"] = { rate_limits = { { calls = 1 } } },
    ["needs calls or tokens"] = { rate_limits = { { renewal_period = "minute" } } },
    ["principal is required"] = { rate_limits = { { calls = 1, renewal_period = "minute",
      key = "user_group" } } },
    ["key nobody is unknown"] = { rate_limits = { { calls = 1, renewal_period = "minute",
      key = "nobody" } } },
    ["rate_limits must be a list"] = { rate_limits = { calls = 1 } },
    ["fallback_config.enabled must be a boolean"] = { fallback_config = {} },
    ["pii.behavior must be NONE, BLOCK or MASK"] = { guardrails = { output = { pii = { behavior = 1 } } } },
  } do
    it("an AI gateway is refused: " .. part, function()
      refused(call("PUT", management .. "/e/ai-gateway", body), 400, "INVALID_PARAMETER_VALUE", part)
    end)
  end

  it("an inference table keeps its names while it is enabled (gateway.read)", function()
    local function put(enabled, name)
      local config = { enabled = enabled, catalog_name = "c", schema_name = name, table_name_prefix = "p" }
      return call("PUT", management .. "/e/ai-gateway", { inference_table_config = config }).status
    end
    assert.same({ 200, 400, 200, 200 }, { put(true, "a"), put(true, "b"), put(false, "a"), put(true, "b") })
  end)

  it("notifications are set (features.patch_notifications)", function()
    local function patch(body) return call("PATCH", management .. "/e/notifications", body) end
    local addresses = { on_update_success = { "a@b.c" } }
    assert.same({ name = "e", email_notifications = addresses },
      patch({ email_notifications = addresses }):json())
    assert.same(addresses, get().email_notifications)
    assert.equal(200, patch {}.status)
    assert.is_nil(get().email_notifications)
    refused(patch { email_notifications = { on_update_success = "a@b.c" } }, 400, "INVALID_PARAMETER_VALUE")
    refused(patch { email_notifications = { on_update_success = { 1 } } }, 400, "INVALID_PARAMETER_VALUE")
  end)

  it("telemetry makes a profile of its tables, and is removed (features.patch_telemetry)", function()
    local function patch(body, name) return call("PATCH",
      management .. "/" .. (name or "e") .. "/telemetry-config", body) end
    local config = {
      enabled_telemetry_features = { "TELEMETRY_FEATURE_LOGS" }, table_names = { logs_table = "a.b.c" },
    }
    local made = patch { telemetry_config = config }:json()
    assert.is_string(made.telemetry_config.telemetry_profile_id)
    assert.is_nil(made.telemetry_config.table_names)
    assert.equal("e", made.name)
    assert.is_nil(patch {}:json().telemetry_config)
    refused(patch { telemetry_config = { enabled_telemetry_features = { "ALL" } } }, 400,
      "INVALID_PARAMETER_VALUE")
    create(call, "x", { { external_model = external } }, { telemetry_config = config })
    assert.is_nil(call("GET", management .. "/x"):json().telemetry_config)
    refused(patch({ telemetry_config = config }, "x"), 400, "INVALID_PARAMETER_VALUE")
    call("POST", management, { name = "empty", telemetry_config = config })
    refused(patch({ telemetry_config = config }, "empty"), 400, "INVALID_PARAMETER_VALUE")
  end)

  it("telemetry does not change while an update runs", function()
    task.simulate(function()
      local slow = start { deploy_time = 60 }
      create(slow, "e", { entity "echo" })
      refused(slow("PATCH", management .. "/e/telemetry-config", {}), 409, "RESOURCE_CONFLICT")
    end)
  end)

  it("the export of metrics is switched (features.patch_export)", function()
    local function patch(state)
      return call("PATCH", management .. "/e/system-metrics-export-state",
        { uc_system_metrics_export_state = state })
    end
    local state = "FIRST_PARTY_EXPORT_ENABLED"
    assert.equal(state, patch(state):json().uc_system_metrics_export_state)
    assert.equal(state, get().uc_system_metrics_export_state)
    refused(patch "ON", 400, "INVALID_PARAMETER_VALUE")
  end)

  it("come with create, and what the service hides does not show (features.of_create)", function()
    local made = create(call, "full", { entity "echo" }, {
      tags = { { key = "a" } },
      description = "words",
      budget_policy_id = "b-1",
      rate_limits = { { calls = 1, renewal_period = "minute" } },
      uc_system_metrics_export_state = "FIRST_PARTY_EXPORT_DISABLED",
    })
    assert.equal("words", made.description)
    assert.equal("b-1", made.effective_budget_policy_id)
    assert.is_nil(made.budget_policy_id)
    assert.is_nil(made.rate_limits)
    for _, wrong in ipairs {
      { tags = { { key = "" } } }, { description = 5 }, { ai_gateway = 5 }, { rate_limits = { {} } },
      { email_notifications = { 1 } }, { telemetry_config = "x" },
    } do
      wrong.name = "wrong"
      refused(call("POST", management, wrong), 400, "INVALID_PARAMETER_VALUE")
    end
    assert.is_nil(features.of_create { tags = 1 })
    local record = { telemetry_config = {} }
    features.drop_unsupported(record)
    assert.is_nil(record.telemetry_config)
  end)
end)

describe("a served entity", function()
  local function create_with(more)
    return start()("POST", management, { name = "e", config = { served_entities = { entity("m", more) } } })
  end

  for part, more in pairs {
    ["min_provisioned_concurrency must be a whole number"] = { min_provisioned_concurrency = "many" },
    ["min_provisioned_throughput is above"] = { min_provisioned_throughput = 9,
      max_provisioned_throughput = 1 },
    ["environment_vars must be an object"] = { environment_vars = { "x" } },
    ["environment_vars.A must be a string"] = { environment_vars = { A = 1 } },
    ["burst_scaling_enabled must be a boolean"] = { burst_scaling_enabled = 1 },
  } do
    it("is refused: " .. part, function() refused(create_with(more), 400, "INVALID_PARAMETER_VALUE",
      part) end)
  end

  it("may have 30 environment variables", function()
    local variables = {}
    for index = 1, 30 do variables["V" .. index] = "{{secrets/a/b}}" end
    local served = create_with { environment_vars = variables }:json().config.served_entities[1]
    assert.equal("{{secrets/a/b}}", served.environment_vars.V30)
    variables.V31 = ""
    refused(create_with { environment_vars = variables }, 400, "INVALID_PARAMETER_VALUE",
      "30 environment variables")
  end)

  it("of system.ai is a foundation model", function()
    local made = assert(entity_reader.read { entity_name = "system.ai.some_model", entity_version = "1" })
    assert.equal("system.ai.some_model", made.foundation_model.name)
    assert.is_nil(assert(entity_reader.read(entity "m")).foundation_model)
    assert.equal("m", entity_reader.model_name(entity "m"))
  end)

  it("shows in the deprecated form too where that was used (entity.of_model)", function()
    local call = start()
    local model = { model_name = "a.b.m", model_version = "3" }
    local made = call("POST", management, { name = "e",
      config = { served_models = { model } } }):json().config
    local shown = made.served_models[1]
    assert.same({ "m-3", "a.b.m", "3" }, { shown.name, shown.model_name, shown.model_version })
    assert.equal("a.b.m", made.served_entities[1].entity_name)
    assert.equal("a.b.m", call("GET", management):json().endpoints[1].config.served_models[1].model_name)
    assert.equal("x", entity_reader.of_model { model_name = "x" }.entity_name)
  end)

  it("is one of 15 at most, and has one route at most", function()
    local entities, routes = {}, {}
    for index = 1, 16 do
      entities[index] = entity("m", { name = "m" .. index })
      routes[index] = { served_entity_name = "m1", traffic_percentage = index == 1 and 100 or 0 }
    end
    local config = { served_entities = entities, traffic_config = { routes = routes } }
    refused(start()("POST", management, { name = "e", config = config }), 400, "INVALID_PARAMETER_VALUE",
      "15 entities")
    table.remove(entities)
    refused(start()("POST", management, { name = "e", config = config }), 400, "INVALID_PARAMETER_VALUE",
      "Two routes")
  end)
end)

describe("a deployment", function()
  local function put(call, name) return call("PUT", management .. "/e/config",
    { served_entities = { entity(name) } }) end
  local function get(call) return call("GET", management .. "/e"):json() end

  it("fails and takes its time by the entity's name", function()
    task.simulate(function()
      local call = start { deploy_time = 10 }
      create(call, "e", { entity "echo_deploy_600s_fails" })
      task.sleep(599)
      assert.equal("IN_PROGRESS", get(call).state.config_update)
      task.sleep(1)
      local found = get(call)
      assert.same({ ready = "NOT_READY", config_update = "UPDATE_FAILED" }, found.state)
      local state = found.config.served_entities[1].state
      assert.equal("DEPLOYMENT_FAILED", state.deployment)
      assert.matches("^Failed to deploy", state.deployment_state_message)
      refused(call("POST", "/serving-endpoints/e/invocations", caller.chat "x"), 400, "BAD_REQUEST")
    end)
  end)

  it("that fails leaves the old config live, until one succeeds", function()
    task.simulate(function()
      local call = start { deploy_time = 10 }
      create(call, "e", { entity "echo" })
      task.sleep(10)
      put(call, "echo-deploy-fails")
      task.sleep(10)
      local found = get(call)
      assert.same({ ready = "READY", config_update = "UPDATE_FAILED" }, found.state)
      assert.same({ 1, "echo-1" }, { found.config.config_version, found.config.served_entities[1].name })
      assert.equal("DEPLOYMENT_READY", found.config.served_entities[1].state.deployment)
      assert.equal("DEPLOYMENT_FAILED", found.pending_config.served_entities[1].state.deployment)
      assert.equal(200, call("POST", "/serving-endpoints/e/invocations", caller.chat "x").status)
      put(call, "ngram")
      task.sleep(10)
      found = get(call)
      assert.same({ ready = "READY", config_update = "NOT_UPDATING" }, found.state)
      assert.same({ 2, "ngram-1" }, { found.config.config_version, found.config.served_entities[1].name })
      assert.is_nil(found.pending_config)
    end)
  end)

  it("can die without a failed update, and can be canceled", function()
    task.simulate(function()
      local call = start { deploy_time = 10 }
      create(call, "e", { entity "m_deploy_dies" })
      task.sleep(10)
      assert.same({ ready = "NOT_READY", config_update = "NOT_UPDATING" }, get(call).state)
      assert.equal("DEPLOYMENT_FAILED", get(call).config.served_entities[1].state.deployment)
      put(call, "m_deploy_canceled")
      task.sleep(10)
      assert.equal("UPDATE_CANCELED", get(call).state.config_update)
      put(call, "m")
      task.sleep(10)
      put(call, "n")
      local canceled = call("POST", "/emulator/endpoints/e/cancel-update"):json()
      assert.same({ ready = "READY", config_update = "UPDATE_CANCELED" }, canceled.state)
      assert.equal("DEPLOYMENT_ABORTED", canceled.pending_config.served_entities[1].state.deployment)
      refused(call("POST", "/emulator/endpoints/e/cancel-update"), 409, "INVALID_STATE")
      refused(call("POST", "/emulator/endpoints/no/cancel-update"), 404, "RESOURCE_DOES_NOT_EXIST")
    end)
  end)

  it("fails by a fault rule", function()
    task.simulate(function()
      local call, emulated = start { deploy_time = 10 }
      emulated:fault { kind = "deployment", endpoint = "e", outcome = "fails", message = "no GPU",
        seconds = 30, times = 1 }
      create(call, "other", { entity "echo" })
      call("PUT", management .. "/e/ai-gateway", {})
      create(call, "e", { entity "echo" })
      task.sleep(29)
      assert.equal("IN_PROGRESS", get(call).state.config_update)
      task.sleep(1)
      assert.equal("no GPU", get(call).config.served_entities[1].state.deployment_state_message)
      put(call, "echo")
      task.sleep(10)
      assert.equal("READY", get(call).state.ready)
      assert.equal("READY", call("GET", management .. "/other"):json().state.ready)
    end)
  end)

  it("aborts the entities beside the one that fails", function()
    local call = start()
    local routes = {
      { served_entity_name = "a-1", traffic_percentage = 50 },
      { served_entity_name = "b_deploy_fails-1", traffic_percentage = 50 },
    }
    local config = { served_entities = { entity "a", entity "b_deploy_fails" },
      traffic_config = { routes = routes } }
    local made = call("POST", management, { name = "e", config = config }):json().config.served_entities
    assert.same({ "DEPLOYMENT_ABORTED", "DEPLOYMENT_FAILED" }, { made[1].state.deployment,
      made[2].state.deployment })
  end)

  it("is planned for what changes only (deployment.plan)", function()
    local bad, good = { entity "m_deploy_fails" }, { entity "m" }
    assert.equal("fails", deployment.plan({ served_entities = bad }, nil, 5).outcome)
    assert.is_nil(deployment.plan({ served_entities = bad }, { served_entities = bad }, 5).outcome)
    assert.same({ seconds = 5 }, deployment.plan({ served_entities = good }, nil, 5))
    assert.equal("m_deploy_x", deployment.model_name(entity "m_deploy_x"))
    assert.equal("m", deployment.model_name(entity "m_deploy_5s_dies"))
  end)

  it("cannot turn an endpoint of external models into another", function()
    local call = start()
    create(call, "e", { { external_model = external } })
    refused(put(call, "m"), 400, "INVALID_PARAMETER_VALUE", "External models cannot")
  end)
end)

describe("provisioned throughput", function()
  local function pt(name) return { entity_name = "system.ai." .. name, entity_version = "1",
    provisioned_model_units = 50 } end

  it("has its own way to create and update", function()
    local call = start()
    local res = call("POST", management .. "/pt", { name = "p", config = { served_entities = { pt "a" } } })
    local made = res:json()
    assert.equal(50, made.config.served_entities[1].provisioned_model_units)
    assert.equal("a-1", made.config.served_entities[1].name)
    local update = { config = { served_entities = { pt "b" } } }
    local changed = call("PUT", management .. "/pt/p/config", update):json()
    assert.same({ 2, "b-1" }, { changed.config.config_version, changed.config.served_entities[1].name })
    create(call, "e", { entity "echo" })
    refused(call("PUT", management .. "/pt/e/config", update), 400, "INVALID_PARAMETER_VALUE")
    refused(call("PUT", management .. "/pt/no/config", update), 404, "RESOURCE_DOES_NOT_EXIST")
    for _, config in ipairs { {}, { served_entities = json.array {} },
      { served_entities = { entity "m" } } } do
      refused(call("POST", management .. "/pt", { name = "q", config = config }), 400,
        "INVALID_PARAMETER_VALUE")
    end
  end)
end)

describe("permissions", function()
  local call, path

  before_each(function()
    call = start()
    path = "/api/2.0/permissions/serving-endpoints/" .. create(call, "e", { entity "echo" }).id
  end)

  local function levels(answer)
    local found = {}
    for _, entry in ipairs(answer.access_control_list) do
      local name = entry.user_name or entry.group_name or entry.service_principal_name
      found[name] = entry.all_permissions[1].permission_level
    end
    return found
  end

  it("are the creator's and the admins' at first (permissions.get)", function()
    local found = call("GET", path):json()
    assert.matches("^/serving%-endpoints/%x+$", found.object_id)
    assert.equal("serving-endpoint", found.object_type)
    assert.same({ [wire.user] = "CAN_MANAGE", admins = "CAN_MANAGE" }, levels(found))
    assert.is_true(found.access_control_list[2].all_permissions[1].inherited)
    assert.same({ "/serving-endpoints/" },
      found.access_control_list[2].all_permissions[1].inherited_from_object)
    assert.equal(3, #call("GET", path .. "/permissionLevels"):json().permission_levels)
    assert.equal("CAN_QUERY", permissions.levels().permission_levels[2].permission_level)
  end)

  it("PUT replaces (permissions.set), PATCH adds and changes (permissions.update)", function()
    local function entry(name, level) return { user_name = name, permission_level = level } end
    local put = call("PUT", path, { access_control_list = { entry("ann", "CAN_QUERY") } }):json()
    assert.same({ ann = "CAN_QUERY", admins = "CAN_MANAGE" }, levels(put))
    local more = { entry("ann", "CAN_VIEW"), { group_name = "users", permission_level = "CAN_QUERY" } }
    local patched = call("PATCH", path, { access_control_list = more }):json()
    assert.same({ ann = "CAN_VIEW", users = "CAN_QUERY", admins = "CAN_MANAGE" }, levels(patched))
    assert.same(patched, call("GET", path):json())
  end)

  it("refuse what they do not know", function()
    for _, entry in ipairs {
      { user_name = "a" }, { permission_level = "CAN_QUERY" }, { user_name = "a",
        permission_level = "OWNER" },
      { user_name = "a", group_name = "b", permission_level = "CAN_QUERY" }, 5,
    } do
      refused(call("PATCH", path, { access_control_list = { entry } }), 400, "INVALID_PARAMETER_VALUE")
    end
    refused(call("PATCH", path, { access_control_list = "x" }), 400, "INVALID_PARAMETER_VALUE")
    refused(call("GET", "/api/2.0/permissions/serving-endpoints/e"), 404, "RESOURCE_DOES_NOT_EXIST")
  end)
end)

describe("the papers of an endpoint", function()
  it("openapi has a path for each served entity (papers.openapi)", function()
    local call, emulated = start()
    create(call, "e", { entity "echo" })
    local document = call("GET", management .. "/e/openapi"):json()
    assert.equal("http://emulator.test/serving-endpoints/e", document.servers[1].url)
    assert.is_table(document.paths["/served-models/echo-1/invocations"].post)
    assert.equal("e", papers.openapi(assert(emulated.endpoints:get "e"), "").info.title)
  end)

  it("build logs end in the reason of a failure (papers.build_logs)", function()
    local call = start()
    create(call, "e", { entity "m_deploy_fails" })
    local logs = call("GET", management .. "/e/served-models/m_deploy_fails-1/build-logs"):json().logs
    assert.matches("ERROR Failed to deploy", logs)
    refused(call("GET", management .. "/e/served-models/no/build-logs"), 404, "RESOURCE_DOES_NOT_EXIST")
    assert.equal("", call("GET", management .. "/e/served-models/m_deploy_fails-1/logs"):json().logs)
  end)

  it("logs are there when the entity is (papers.logs)", function()
    local call = start()
    create(call, "e", { entity "echo" })
    assert.matches("Listening at", call("GET", management .. "/e/served-models/echo-1/logs"):json().logs)
    assert.matches("container was built", call("GET",
      management .. "/e/served-models/echo-1/build-logs"):json().logs)
    refused(call("GET", management .. "/e/served-models/no/logs"), 404, "RESOURCE_DOES_NOT_EXIST")
  end)
end)

describe("metrics", function()
  local function value(text, name)
    return tonumber(text:match("\n" .. name .. "{[^}]*} ([%d.]+)"))
  end

  it("count the last minute's queries by their status", function()
    task.simulate(function()
      local call = start { latency = 0.02 }
      create(call, "e", { entity "echo" })
      local function query(body) return call("POST", "/serving-endpoints/e/invocations", body) end
      query(caller.chat "one")
      query(caller.chat "two")
      query { input = "no text model" }
      local res = call("GET", management .. "/e/metrics")
      assert.equal("text/plain; version=0.0.4; charset=utf-8", res.headers["content-type"])
      local text = res.body
      assert.equal(3, value(text, "request_count_total"))
      assert.equal(1, value(text, "request_4xx_count_total"))
      assert.equal(0, value(text, "request_5xx_count_total"))
      assert.equal(3, value(text, "request_latency_ms_count"))
      assert.matches("# TYPE request_count_total gauge\n", text, 1, true)
      assert.matches('served_model="echo-1"', text, 1, true)
      task.sleep(61)
      text = call("GET", management .. "/e/metrics").body
      assert.equal(0, value(text, "request_count_total"))
      assert.equal(3, value(text, "request_latency_ms_count"))
    end)
  end)

  it("begin anew with a new endpoint (metrics.new)", function()
    local counts = metrics.new()
    local record = { id = "1", name = "e", live = { config = { served_entities = { { name = "a" } } } } }
    counts:begin("1", "a")(200)
    assert.equal(1, value(counts:text(record), "request_count_total"))
    counts:forget "1"
    assert.equal(0, value(counts:text(record), "request_count_total"))
  end)
end)

describe("the views of a record", function()
  it("are detailed for one and short in a list (view.detailed, view.summary, view.state)", function()
    local _, emulated = start()
    assert(emulated.endpoints:create { name = "e", route_optimized = true })
    local record = assert(emulated.endpoints:with_id(emulated.endpoints:get("e").id))
    assert.equal("NOT_READY", view.state(record).ready)
    assert.equal("http://h/" .. wire.workspace_id .. "/serving-endpoints/e/invocations",
      view.detailed(record, "http://h").endpoint_url)
    for _, absent in ipairs { "endpoint_url", "data_plane_info", "route_optimized", "permission_level" } do
      assert.is_nil(view.summary(record)[absent])
    end
  end)
end)

describe("the store, without HTTP", function()
  it("creates, updates and cancels", function()
    task.simulate(function()
      local _, emulated = start { deploy_time = 10 }
      local store = emulated.endpoints
      local units = { entity_name = "system.ai.m", entity_version = "1", provisioned_model_units = 1 }
      assert(store:create_pt { name = "p", config = { served_entities = { units } } })
      assert.is_not_nil(store:cancel_update("p").failed)
      assert(store:update_pt_config("p", { config = { served_entities = { units } } }))
      task.sleep(10)
      local record = assert(store:get "p")
      assert.equal(record, store:save(record))
      assert.equal("DEPLOYMENT_ABORTED", deployment.outcomes.canceled.deployment)
    end)
  end)
end)

describe("a config", function()
  local external_config = { served_entities = { { external_model = external } } }
  local own = { served_entities = { entity "m" } }

  it("of an update keeps the entities that it does not name (config.of_update)", function()
    local kept = config_reader.of_update({ traffic_config = { routes = {} } }, own)
    assert.equal(own.served_entities, kept.served_entities)
    assert.equal(external_config, config_reader.of_update(external_config, own))
  end)

  it("keeps to its kind (config.check_switch)", function()
    assert.is_true(config_reader.check_switch(own, own))
    assert.is_true(config_reader.check_switch(external_config, nil))
    assert.is_nil((config_reader.check_switch(external_config, own)))
  end)

  it("of provisioned throughput has its own keys (config.of_pt)", function()
    local units = { entity_name = "a", provisioned_model_units = 1, workload_size = "Small" }
    local input = assert(config_reader.of_pt { served_entities = { units } })
    assert.same({ { entity_name = "a", provisioned_model_units = 1 } }, input.served_entities)
  end)
end)

describe("who one is", function()
  it("is answered for clients that ask first", function()
    assert.equal(wire.user, start()("GET", "/api/2.0/preview/scim/v2/Me"):json().userName)
  end)
end)
