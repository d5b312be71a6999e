-- SPDX-License-Identifier: MIT
-- The emulator under requests that are nearly right: parts of good bodies replaced at random. It refuses or answers, and
-- never fails by itself.

local caller = require "emulator_caller"
local json = require "sluice.json"
local log = require "sluice.log"
local random = require "sluice.random"

local management <const> = caller.management

local odd <const> = {
  json.null, true, false, 0, -1, 1.5, 1e300, math.maxinteger, "", "x", "100", ("y"):rep(100), "\u{e9}/%s%d",
  json.array {}, {}, { 1 }, { { {} } }, { a = json.null }, json.array { json.null },
}

local chat = caller.chat("hello", {
  max_tokens = 5, temperature = 1, n = 1, stop = { "x" }, seed = 1, stream_options = { include_usage = true },
  tool_choice = "auto", response_format = { type = "json_schema",
    json_schema = { schema = { type = "object" } } },
  tools = { { type = "function", ["function"] = { name = "hello",
    parameters = { properties = { a = { enum = { 1 } } } } } } },
})
local served = {
  name = "one", entity_name = "main.default.echo", entity_version = "1", workload_size = "Small",
    workload_type = "CPU",
  scale_to_zero_enabled = true, environment_vars = { A = "b" }, min_provisioned_throughput = 1,
}
local config = {
  served_entities = { served },
  traffic_config = { routes = { { served_entity_name = "one", traffic_percentage = 100 } } },
  auto_capture_config = { enabled = true, catalog_name = "c" },
}
local gateway = {
  rate_limits = { { calls = 1000000, renewal_period = "minute", key = "user" } },
  guardrails = { input = { pii = { behavior = "NONE" } } }, fallback_config = { enabled = true },
  inference_table_config = { enabled = true, catalog_name = "c" },
}
local units = { entity_name = "system.ai.a", entity_version = "1", provisioned_model_units = 1 }
local invocations = "/serving-endpoints/e/invocations"

local requests = {
  { "POST", management, { name = "new", config = config, ai_gateway = gateway, tags = { { key = "a",
    value = "b" } },
    email_notifications = { on_update_success = { "a" } }, telemetry_config = { table_names = {} } } },
  { "POST", management, { name = "new", description = "d", config = { served_entities = { {
    name = "two", external_model = { name = "m", provider = "openai", task = "llm/v1/chat" },
  } } } } },
  { "POST", management .. "/pt", { name = "new", config = { served_entities = { units } } } },
  { "PUT", management .. "/e/config", { served_entities = { served },
    traffic_config = config.traffic_config } },
  { "PUT", management .. "/pt/p/config", { config = { served_entities = { units } } } },
  { "PATCH", management .. "/e/tags", { add_tags = { { key = "a", value = "b" } }, delete_tags = { "a" } } },
  { "PUT", management .. "/e/ai-gateway", gateway },
  { "PUT", management .. "/e/rate-limits", { rate_limits = { { calls = 1000000,
    renewal_period = "minute" } } } },
  { "PATCH", management .. "/e/notifications", { email_notifications = { on_update_failure = { "a" } } } },
  { "PATCH", management .. "/e/telemetry-config",
    { telemetry_config = { enabled_telemetry_features = { "x" } } } },
  { "PATCH", "/api/2.0/permissions/serving-endpoints/ID",
    { access_control_list = { { user_name = "a", permission_level = "CAN_QUERY" } } } },
  { "POST", invocations, chat },
  { "POST", invocations, caller.chat("hello", { stream = true, tools = chat.tools }) },
  { "POST", invocations, { prompt = "x", stream = true, max_tokens = 3 } },
  { "POST", invocations, { input = { "a", "b" }, encoding_format = "base64" } },
  { "POST", invocations, { dataframe_split = { columns = { "a" }, data = { { 1 } } } } },
  { "POST", invocations, { inputs = { a = { 1 } } } },
  { "POST", "/serving-endpoints/responses", { model = "e", input = { { role = "user", content = "x" } },
    stream = true,
    tools = { { type = "function", name = "x", parameters = {} } },
      text = { format = { type = "json_schema" } } } },
  { "POST", "/serving-endpoints/chat/completions", { model = "e", messages = chat.messages, stream = true } },
  { "POST", "/emulator/faults", { kind = "status", status = 200, times = 1, path = "/none",
    headers = { a = "b" } } },
  { "POST", "/emulator/faults", { { kind = "stream_error", chunks = 1, endpoint = "none",
    shape = "text" } } },
}

-- A copy of a value with one of its parts replaced; `left` counts down to that part.
local function spoilt(value, left, replacement)
  left[1] = left[1] - 1
  if left[1] == 0 then return replacement end
  if type(value) ~= "table" then return value end
  local copy = setmetatable({}, getmetatable(value))
  for key, inner in pairs(value) do copy[key] = spoilt(inner, left, replacement) end
  return copy
end

local function count(value)
  if type(value) ~= "table" then return 1 end
  local sum = 1
  for _, inner in pairs(value) do sum = sum + count(inner) end
  return sum
end

describe("the emulator, asked nearly right", function()
  it("answers or refuses, and does not fail", function()
    local previous = log.set_output(function() end)
    local draw = random.new(20260301)
    local call = caller.start { deploy_time = 0 }
    caller.create(call, "e", { caller.entity "some_model" })
    local id = caller.create(call, "p", { caller.entity "echo" }).id
    local statuses = {}
    local ok, problem = pcall(function()
      for round = 1, 2000 do
        local request = requests[round % #requests + 1]
        local left = { math.floor(draw() * 1.2 * count(request[3])) } -- sometimes none at all
        local body = json.encode(spoilt(request[3], left, odd[1 + math.floor(draw() * #odd)]))
        local res = assert(call(request[1], request[2]:gsub("ID", id), body))
        local text = res.body
        res:close()
        assert(res.status < 500, ("%s %s %s: %s"):format(request[1], request[2], body, text))
        statuses[res.status] = (statuses[res.status] or 0) + 1
        call("DELETE", management .. "/new")
        call("DELETE", "/emulator/faults")
        for _, path in ipairs { "", "/e", "/e/metrics", "/e/openapi" } do
          assert(call("GET", management .. path).status == 200, body)
        end
      end
    end)
    log.set_output(previous)
    assert(ok, problem)
    assert.is_true(statuses[200] > 300 and statuses[400] > 300, statuses[200] .. " " .. statuses[400])
  end)
end)
