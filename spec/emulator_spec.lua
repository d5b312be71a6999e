-- SPDX-License-Identifier: MIT
-- The emulator's wire: what a client sees of endpoints, their states, queries and refusals. In process; deployments
-- take simulated time.

local command = require "sluice.emulator.command"
local emulator = require "sluice.emulator"
local entity_reader = require "sluice.emulator.entity"
local errors = require "sluice.errors"
local http = require "sluice.http"
local json = require "sluice.json"
local log = require "sluice.log"
local response = require "sluice.response"
local routes = require "sluice.emulator.routes"
local secret = require "sluice.secret"
local support = require "support"
local task = require "sluice.task"
local web = require "sluice.web"

local management <const> = "/api/2.0/serving-endpoints"

local function entity(name, more)
  local served = { entity_name = "main.default." .. name, entity_version = "1" }
  served.scale_to_zero_enabled = true
  for key, value in pairs(more or {}) do served[key] = value end
  return served
end

local function caller(emulated)
  local function call(method, path, body, headers)
    return assert(emulated.app:handle {
      method = method,
      path = path,
      headers = headers or { authorization = "Bearer any" },
      body = type(body) == "table" and json.encode(body) or body,
    })
  end
  return call
end

local function start(options) return caller(emulator.new(options)) end

local function create(call, name, ...)
  local res = call("POST", management, { name = name, config = { served_entities = { ... } } })
  assert.equal(200, res.status)
  return res:json()
end

local function refused(res, status, code, part)
  local body = res:json()
  assert.equal(status, res.status)
  assert.equal(code, body.error_code)
  assert.is_string(body.message)
  if part then assert.is_truthy(body.message:find(part, 1, true), body.message) end
end

-- An emulator with one endpoint that is ready at once.
local function ready(model, options)
  options = options or {}
  options.deploy_time = 0
  local call = start(options)
  create(call, "e", entity(model))
  return function(body, path) return call("POST", path or "/serving-endpoints/e/invocations", body) end, call
end

local hello = { messages = { { role = "user", content = "hello" } } }

describe("creating an endpoint", function()
  it("fills in what the service fills in", function()
    local made = create(start { deploy_time = 0 }, "e", entity "m")
    assert.is_truthy(made.id:find "^%x+$")
    assert.not_equal(made.id, made.name)
    assert.equal("CAN_MANAGE", made.permission_level)
    assert.equal("", made.description)
    assert.is_false(made.route_optimized)
    assert.is_true(math.type(made.creation_timestamp) == "integer" and made.creation_timestamp > 1e12)
    assert.equal(made.creation_timestamp, made.last_updated_timestamp)
    assert.equal(1, made.config.config_version)
    local served = made.config.served_entities[1]
    assert.equal("m-1", served.name)
    assert.equal("main.default.m", served.entity_name)
    assert.equal("1", served.entity_version)
    assert.equal("CPU", served.workload_type)
    assert.is_true(served.scale_to_zero_enabled)
    assert.equal("DEPLOYMENT_READY", served.state.deployment)
    assert.same({ { served_entity_name = "m-1", served_model_name = "m-1", traffic_percentage = 100 } },
      made.config.traffic_config.routes)
  end)

  it("takes the deprecated form with served_models", function()
    local call = start {}
    local model = { model_name = "m", model_version = "3", scale_to_zero_enabled = true }
    local res = call("POST", management, {
      name = "e",
      config = {
        served_models = { model },
        traffic_config = { routes = { { served_model_name = "m-3", traffic_percentage = 100 } } },
      },
    })
    assert.equal(200, res.status)
    local served = res:json().config.served_entities[1]
    assert.same({ "m-3", "m", "3" }, { served.name, served.entity_name, served.entity_version })
  end)

  it("keeps an endpoint without a config NOT_READY, and refuses its queries", function()
    local call = start { deploy_time = 0 }
    local empty = '{"name":"c","config":{"served_entities":[]}}'
    for _, body in ipairs { '{"name":"a"}', '{"name":"b","config":{}}', empty } do
      local made = call("POST", management, body):json()
      assert.same({ ready = "NOT_READY", config_update = "NOT_UPDATING" }, made.state)
      assert.is_nil(made.config)
    end
    refused(call("POST", "/serving-endpoints/a/invocations", hello), 400, "BAD_REQUEST")
  end)

  it("never gives a secret of an external model back", function()
    local made = create(start {}, "e", {
      external_model = {
        name = "gpt-3.5:x",
        provider = "openai",
        task = "llm/v1/chat",
        openai_config = { openai_api_key_plaintext = "planted", openai_api_base = "https://api.test" },
      },
    })
    assert.is_nil(json.encode(made):find("planted", 1, true))
    local served = made.config.served_entities[1]
    assert.equal("gpt-3-5-x", served.name)
    assert.equal("https://api.test", served.external_model.openai_config.openai_api_base)
    assert.equal("llm/v1/chat", made.task)
  end)

  it("refuses a second endpoint of the same name", function()
    local call = start {}
    create(call, "e", entity "m")
    refused(call("POST", management, { name = "e" }), 409, "RESOURCE_ALREADY_EXISTS")
  end)

  it("refuses bad names", function()
    local call = start {}
    for _, name in ipairs { "", "a b", "a/b", "a.b", ("x"):rep(64), 5 } do
      refused(call("POST", management, { name = name }), 400, "INVALID_PARAMETER_VALUE")
    end
    refused(call("POST", management, {}), 400, "INVALID_PARAMETER_VALUE")
    assert.equal("a_B-9", entity_reader.check_name("a_B-9", "It"))
    assert.equal(200, call("POST", management, { name = ("x"):rep(63) }).status)
  end)

  it("refuses bodies that are no JSON objects", function()
    local call = start {}
    for _, body in ipairs { "", "{", "[1]", "5", "null", "<html>" } do
      refused(call("POST", management, body), 400, "MALFORMED_REQUEST")
    end
  end)

  local external = { name = "x", provider = "openai", task = "llm/v1/chat" }
  local two = { entity "a", entity "b" }
  local bad_configs = {
    ["served_entities or served_models"] = { served_entities = { entity "a" }, served_models = { {} } },
    ["must be a list"] = { served_entities = "a" },
    ["must be an object"] = { served_entities = { "a" } },
    ["needs entity_name or external_model"] = { served_entities = { {} } },
    ["external_model and entity_name"] = { served_entities = { entity("a", { external_model = external }) } },
    ["external_model must be an object"] = { served_entities = { { external_model = false } } },
    ["external_model.provider"] = {
      served_entities = { { external_model = { name = "x", provider = "nobody" } } },
    },
    ["external_model.task"] = {
      served_entities = { { external_model = { name = "x", provider = "openai" } } },
    },
    ["cannot be served by one endpoint"] = {
      served_entities = { entity "a", { external_model = external } },
    },
    ["workload_type HUGE"] = { served_entities = { entity("a", { workload_type = "HUGE" }) } },
    ["exclude each other"] = {
      served_entities = { entity("a", { workload_size = "Small", min_provisioned_concurrency = 4 }) },
    },
    ["entity_version must be a string"] = { served_entities = { entity("a", { entity_version = 1 }) } },
    ["scale_to_zero_enabled must be a boolean"] = {
      served_entities = { entity("a", { scale_to_zero_enabled = "yes" }) },
    },
    ["workload_size must be a string"] = { served_entities = { entity("a", { workload_size = 1 }) } },
    ["Two served entities"] = { served_entities = { entity "a", entity "a" } },
    ["name of a served entity"] = { served_entities = { entity("a", { name = "not good" }) } },
    ["traffic_config is required"] = { served_entities = two },
    ["sum to 90"] = {
      served_entities = two,
      traffic_config = {
        routes = {
          { served_entity_name = "a-1", traffic_percentage = 50 },
          { served_entity_name = "b-1", traffic_percentage = 40 },
        },
      },
    },
    ["names c, which is no served entity"] = {
      served_entities = two,
      traffic_config = { routes = { { served_entity_name = "c", traffic_percentage = 100 } } },
    },
    ["whole number from 0 to 100"] = {
      served_entities = two,
      traffic_config = { routes = { { served_entity_name = "a-1", traffic_percentage = 100.5 } } },
    },
  }
  for part, config in pairs(bad_configs) do
    it("refuses a config: " .. part, function()
      local res = start {}("POST", management, { name = "e", config = config })
      refused(res, 400, "INVALID_PARAMETER_VALUE", part)
    end)
  end
end)

describe("the states of an endpoint", function()
  it("move to READY when the deploy time has passed, on the simulated clock", function()
    task.simulate(function()
      local call = start { deploy_time = 1200 }
      local made = create(call, "e", entity "echo")
      assert.same({ ready = "NOT_READY", config_update = "IN_PROGRESS" }, made.state)
      assert.equal(1, made.pending_config.config_version)
      assert.equal("DEPLOYMENT_CREATING", made.pending_config.served_entities[1].state.deployment)
      assert.is_true(made.pending_config.start_time > 1e12)
      task.sleep(1199)
      assert.equal("NOT_READY", call("GET", management .. "/e"):json().state.ready)
      refused(call("POST", "/serving-endpoints/e/invocations", hello), 503, "TEMPORARILY_UNAVAILABLE")
      task.sleep(1)
      local found = call("GET", management .. "/e"):json()
      assert.same({ ready = "READY", config_update = "NOT_UPDATING" }, found.state)
      assert.is_nil(found.pending_config)
      assert.equal("DEPLOYMENT_READY", found.config.served_entities[1].state.deployment)
      assert.equal(200, call("POST", "/serving-endpoints/e/invocations", hello).status)
    end)
  end)
end)

describe("updating a config", function()
  local function put(call, config) return call("PUT", management .. "/e/config", config) end

  it("leaves the old config serving until the new one is deployed", function()
    task.simulate(function()
      local call = start { deploy_time = 60 }
      create(call, "e", entity "echo")
      task.sleep(60)
      local made = put(call, { served_entities = { entity("echo", { entity_version = "2" }) } }):json()
      assert.same({ ready = "READY", config_update = "IN_PROGRESS" }, made.state)
      assert.same({ 1, "echo-1" }, { made.config.config_version, made.config.served_entities[1].name })
      local pending = made.pending_config
      assert.same({ 2, "echo-2" }, { pending.config_version, pending.served_entities[1].name })
      local function serving()
        return call("POST", "/serving-endpoints/e/invocations", hello).headers["served-model-name"]
      end
      assert.equal("echo-1", serving())
      refused(put(call, { served_entities = { entity "m" } }), 409, "RESOURCE_CONFLICT")
      task.sleep(60)
      assert.equal("echo-2", serving())
      local found = call("GET", management .. "/e"):json()
      assert.same({ ready = "READY", config_update = "NOT_UPDATING" }, found.state)
      assert.equal(2, found.config.config_version)
      assert.is_nil(found.pending_config)
    end)
  end)

  it("keeps the entities when only traffic is given", function()
    local call = start { deploy_time = 0 }
    local function split(a, b)
      return {
        routes = {
          { served_entity_name = "a-1", traffic_percentage = a },
          { served_entity_name = "b-1", traffic_percentage = b },
        },
      }
    end
    local served = { entity "a", entity("b", { workload_size = "Small" }) }
    local config = { served_entities = served, traffic_config = split(90, 10) }
    assert.equal(200, call("POST", management, { name = "e", config = config }).status)
    local changed = put(call, { traffic_config = split(0, 100) }):json().config
    assert.same({ "a-1", "b-1" }, { changed.served_entities[1].name, changed.served_entities[2].name })
    assert.equal("Small", changed.served_entities[2].workload_size)
    assert.equal(100, changed.traffic_config.routes[2].traffic_percentage)
    refused(put(call, { traffic_config = split(1, 100) }), 400, "INVALID_PARAMETER_VALUE", "sum to 101")
  end)

  it("gives an endpoint its first config", function()
    local call = start { deploy_time = 0 }
    call("POST", management, { name = "e" })
    refused(put(call, {}), 400, "INVALID_PARAMETER_VALUE")
    local made = put(call, { served_entities = { entity "echo" } }):json()
    assert.same({ "READY", 1 }, { made.state.ready, made.config.config_version })
    refused(call("PUT", management .. "/no/config", {}), 404, "RESOURCE_DOES_NOT_EXIST")
  end)
end)

describe("get, list and delete", function()
  it("list is an array of summaries, also when empty", function()
    local call = start { deploy_time = 0 }
    assert.equal('{"endpoints":[]}', call("GET", management).body)
    create(call, "one", entity "a")
    create(call, "two", entity "b")
    local list = call("GET", management):json().endpoints
    assert.same({ "one", "two" }, { list[1].name, list[2].name })
    assert.same({ { name = "a-1", entity_name = "main.default.a", entity_version = "1" } },
      list[1].config.served_entities)
    assert.equal("READY", list[1].state.ready)
    for _, absent in ipairs { "pending_config", "permission_level", "route_optimized" } do
      assert.is_nil(list[1][absent])
    end
    assert.is_nil(list[1].config.traffic_config)
  end)

  it("list shows no pending config of an endpoint that is being deployed", function()
    local call = start { deploy_time = 1000 }
    create(call, "e", entity "a")
    local listed = call("GET", management):json().endpoints[1]
    assert.equal("IN_PROGRESS", listed.state.config_update)
    assert.is_nil(listed.pending_config)
  end)

  it("answer 404 in the service's words for what does not exist", function()
    local call = start {}
    local text = "Endpoint with name 'nope' does not exist."
    refused(call("GET", management .. "/nope"), 404, "RESOURCE_DOES_NOT_EXIST", text)
    refused(call("DELETE", management .. "/nope"), 404, "RESOURCE_DOES_NOT_EXIST", text)
    refused(call("POST", "/serving-endpoints/nope/invocations", hello), 404, "RESOURCE_DOES_NOT_EXIST", text)
  end)

  it("delete makes the name free", function()
    local call = start {}
    local first = create(call, "e", entity "a")
    assert.equal(200, call("DELETE", management .. "/e").status)
    assert.equal(404, call("GET", management .. "/e").status)
    assert.equal('{"endpoints":[]}', call("GET", management).body)
    assert.not_equal(first.id, create(call, "e", entity "a").id)
  end)
end)

describe("a query", function()
  it("answers in the shape of a chat", function()
    local res = ready "echo"(hello)
    assert.equal(200, res.status)
    assert.equal("echo-1", res.headers["served-model-name"])
    local answer = res:json()
    assert.equal("chat.completion", answer.object)
    assert.is_truthy(answer.id:find "^chatcmpl_")
    assert.is_true(math.type(answer.created) == "integer")
    assert.equal("sluice-emulator-echo", answer.model)
    local message = { role = "assistant", content = "hello" }
    assert.same({ { index = 0, finish_reason = "stop", message = message } }, answer.choices)
    assert.same({ prompt_tokens = 1, completion_tokens = 1, total_tokens = 2 }, answer.usage)
  end)

  it("takes the endpoint's name from model on the OpenAI paths", function()
    local query = ready "echo"
    for _, base in ipairs { "/serving-endpoints", "/serving-endpoints/v1" } do
      local chat = query({ model = "e", messages = hello.messages }, base .. "/chat/completions")
      assert.equal("hello", chat:json().choices[1].message.content)
      local completion = query({ model = "e", prompt = "hello" }, base .. "/completions")
      assert.equal("hello", completion:json().choices[1].text)
      refused(query({ messages = hello.messages }, base .. "/chat/completions"), 400, "BAD_REQUEST", "model")
      refused(query({ model = "no", messages = hello.messages }, base .. "/chat/completions"), 404,
        "RESOURCE_DOES_NOT_EXIST")
    end
    query = ready "embedding"
    local answer = query({ model = "e", input = { "a", "b" } }, "/serving-endpoints/embeddings"):json()
    assert.equal(2, #answer.data)
  end)

  it("is answered by its kind where the entity's name says nothing", function()
    local query = ready "some_model"
    assert.equal("sluice-emulator-ngram", query(hello):json().model)
    assert.equal("text_completion", query { prompt = "The keeper" }:json().object)
    assert.equal("list", query { input = "a" }:json().object)
    assert.same({ 2 }, query { dataframe_records = { { a = 1 } } }:json().predictions)
    refused(query { other = 1 }, 400, "BAD_REQUEST", "exactly one of the input fields")
  end)

  it("is refused where the model cannot answer its kind", function()
    refused(ready "echo" { input = "a" }, 400, "BAD_REQUEST", "embedding requests")
    refused(ready "embedding"(hello), 400, "BAD_REQUEST", "chat requests")
  end)

  it("is refused when it is no JSON object", function()
    local query = ready "echo"
    for _, body in ipairs { "", "{", "[1]", "<html>" } do refused(query(body), 400, "BAD_REQUEST") end
  end)

  it("goes to the entities by their share of the traffic", function()
    local call = start { deploy_time = 0, seed = 1 }
    local served = { entity "echo", entity("echo", { name = "other" }), entity("echo", { name = "idle" }) }
    local shares = {
      { served_entity_name = "main.default.echo-1", traffic_percentage = 80 },
      { served_entity_name = "other", traffic_percentage = 20 },
      { served_entity_name = "idle", traffic_percentage = 0 },
    }
    local config = { served_entities = served, traffic_config = { routes = shares } }
    assert.equal(200, call("POST", management, { name = "e", config = config }).status)
    local count = { ["echo-1"] = 0, other = 0 }
    for _ = 1, 500 do
      local name = call("POST", "/serving-endpoints/e/invocations", hello).headers["served-model-name"]
      count[name] = count[name] + 1
    end
    assert.is_true(math.abs(count["echo-1"] - 400) < 40, tostring(count["echo-1"]))
    local function direct(name)
      return call("POST", ("/serving-endpoints/e/served-models/%s/invocations"):format(name), hello)
    end
    assert.equal("idle", direct "idle".headers["served-model-name"])
    refused(direct "no", 404, "RESOURCE_DOES_NOT_EXIST")
  end)

  it("waits for the latency", function()
    task.simulate(function()
      local query, call = ready("echo", { latency = 0.25 })
      local before = task.now()
      query(hello)
      assert.is_true(math.abs(task.now() - before - 0.25) < 1e-6)
      call("GET", management)
      assert.is_true(math.abs(task.now() - before - 0.25) < 1e-6)
    end)
  end)
end)

describe("a model of the user's", function()
  local function with(run) return (ready("mine", { models = { mine = run } })) end

  it("answers with a text, or with a table as it is", function()
    local query = with(function(request, context)
      if request.raw then return { predictions = { 1, 2 } } end
      return ("%s for %s by %s"):format(context.kind, context.endpoint, context.served_entity)
    end)
    local answer = query(hello):json()
    assert.equal("chat for e by mine-1", answer.choices[1].message.content)
    assert.equal("sluice-emulator-mine", answer.model)
    assert.equal(5, answer.usage.completion_tokens)
    assert.same({ 1, 2 }, query { raw = true }:json().predictions)
    assert.same({ "table for e by mine-1" }, query { instances = { 1 } }:json().predictions)
  end)

  it("refuses with its error, and is not trusted not to raise", function()
    refused(with(function() return nil, "no answer today" end)(hello), 400, "BAD_REQUEST", "no answer today")
    local limit = { status = 429, error_code = "REQUEST_LIMIT_EXCEEDED", message = "slow", retry_after = 2 }
    local res = with(function() return nil, limit end)(hello)
    refused(res, 429, "REQUEST_LIMIT_EXCEEDED", "slow")
    assert.equal("2", res.headers["retry-after"])
    refused(with(function() error "broken" end)(hello), 400, "BAD_REQUEST", "broken")
    for _, err in ipairs { { status = 422 }, { code = 1 } } do
      res = with(function() return nil, err end)(hello)
      refused(res, err.status or 400, "BAD_REQUEST", "refused the request")
      assert.not_matches("table: 0x", res.body)
    end
  end)
end)

describe("an upstream", function()
  -- The upstream is another emulator: its endpoint "big" answers for the entity main.default.big of the first.
  local function chain(upstream_options, key)
    upstream_options.deploy_time = 0
    local behind = emulator.new(upstream_options)
    local seen = {}
    local transport = {}
    function transport.handle(_, request)
      seen[#seen + 1] = request
      return behind.app:handle(request)
    end
    create(function(method, path, body)
      local headers = { authorization = "Bearer upstream-key" }
      return caller(behind)(method, path, body, headers)
    end, "big", entity "echo")
    local query = ready("big", {
      upstream = "http://upstream.test/serving-endpoints/v1/",
      upstream_key = key,
      upstream_transport = transport,
    })
    return query, seen
  end

  it("answers text and embeddings, under the entity's name", function()
    local query, seen = chain({}, "upstream-key")
    local answer = query { messages = hello.messages, max_tokens = 5, unknown_key = "kept" }:json()
    assert.equal("hello", answer.choices[1].message.content)
    assert.equal("http://upstream.test/serving-endpoints/v1/chat/completions", seen[1].url)
    assert.same({ model = "big", messages = hello.messages, max_tokens = 5, unknown_key = "kept" },
      json.decode(seen[1].body))
    assert.equal("hello", query { prompt = "hello" }:json().choices[1].text)
    assert.same({ 2 }, query { instances = { 1 } }:json().predictions)
    assert.equal(2, #seen)
  end)

  it("refuses as the upstream refuses, but keeps the credentials to itself", function()
    refused(chain({}, "upstream-key") { messages = {} }, 400, "BAD_REQUEST", "The upstream answered 400: ")
    local query = chain({ token = "upstream-key" }, "not-the-key")
    refused(query(hello), 502, "TEMPORARILY_UNAVAILABLE", "The upstream answered 403: Invalid access token.")
    query = chain({ token = "upstream-key" }, nil)
    refused(query(hello), 502, "TEMPORARILY_UNAVAILABLE", "The upstream answered 401")
  end)

  it("that cannot be reached, or that sends no JSON, is a bad gateway", function()
    local function with(handle)
      local transport = { handle = handle }
      return ready("m", { upstream = "http://upstream.test", upstream_transport = transport })
    end
    local failure = errors.new("ConnectError", { message = "connection refused" })
    local query = with(function() return nil, failure end)
    refused(query(hello), 502, "BAD_GATEWAY", "connection refused")
    query = with(function() return response.new { status = 200, body = "<html>" } end)
    refused(query(hello), 502, "BAD_GATEWAY", "not JSON")
    query = with(function()
      return response.new { status = 429, headers = { ["retry-after"] = "7" }, body = "slow down" }
    end)
    local res = query(hello)
    refused(res, 429, "REQUEST_LIMIT_EXCEEDED", "slow down")
    assert.equal("7", res.headers["retry-after"])
  end)
end)

describe("the command", function()
  local function run(...)
    local written, before = {}, io.stderr
    local function write(_, ...) written[#written + 1] = table.concat { ... } end
    io.stderr = { write = write } -- luacheck: ignore 122
    local ok, status = pcall(command.run, { ... })
    io.stderr = before -- luacheck: ignore 122
    assert(ok, status)
    return status, table.concat(written)
  end

  for part, arguments in pairs {
    ["unknown argument --sate"] = { "--sate", "x" },
    ["unknown argument x"] = { "x" },
    ["--latency needs a number of at least 0, got fast"] = { "--latency", "fast" },
    ["--deploy-time needs a number of at least 0, got -1"] = { "--deploy-time=-1" },
    ["--listen needs HOST:PORT, got 8080"] = { "--listen", "8080" },
    ["--listen needs a value"] = { "--listen" },
    ["--listen: "] = { "--listen", "127.0.0.1:123456" },
    ["--dialect needs KEY=VALUE, got done"] = { "--dialect", "done" },
    ["the dialect's done is one of sent, absent"] = { "--dialect", "done=maybe" },
    ["--token-time needs a number of at least 0, got x"] = { "--token-time", "x" },
    ["--state needs a value"] = { "--no-retry-after", "--state" },
    ["--upstream needs an http or https URL, got localhost"] = { "--upstream", "localhost" },
    ["--fault: "] = { "--fault", "{" },
    ['--fault: fault rule: unknown kind "stauts"'] = { "--fault", '{"kind":"stauts"}' },
    ["--model: cannot open"] = { "--model", "/nonexistent/model.lua" },
    ["must return a function, got a table"] = { "--model", "lua/sluice/emulator/wire.lua" },
  } do
    it("is bad usage: " .. table.concat(arguments, " "), function()
      local status, text = run(table.unpack(arguments))
      assert.equal(2, status)
      assert.is_truthy(text:find(part, 1, true), text)
    end)
  end
end)

describe("the command, with a state file of no use", function()
  it("fails and says why", function()
    local result = support.sluice("emulate", "--state", "/nonexistent/state")
    assert.equal(1, result.status)
    assert.matches("No such file", result.err)
  end)
end)

support.needing("server", describe, pending)("the command, serving", function()
  -- Runs the command as a task; gives what it wrote to standard output, line by line.
  local function serve(arguments, use)
    local lines, written = task.channel(10), io.stdout
    local function write(_, ...) lines:send(table.concat { ... }) end
    io.stdout = { write = write, flush = function() end } -- luacheck: ignore 122
    local previous = log.set_output(function() end)
    local running = task.spawn(command.run, arguments)
    local ok, err = pcall(use, lines, running)
    running:cancel "the spec is over"
    pcall(running.join, running)
    log.set_output(previous)
    io.stdout = written -- luacheck: ignore 122
    if not ok then error(err, 0) end
    return running
  end

  it("prints one line with its address, serves there, and stops when cancelled", function()
    local address
    serve({ "--deploy-time", "0", "--latency=1" }, function(lines)
      local line = lines:receive()
      address = line:match "^(http://127%.0%.0%.1:%d+)\n$"
      assert.is_string(address, line)
      local headers = { authorization = "Bearer any" }
      local made = assert(http.request {
        url = address .. management,
        headers = headers,
        json = { name = "e", config = { served_entities = { entity "echo" } } },
      })
      assert.equal(200, made.status)
      local res = assert(http.request {
        url = address .. "/serving-endpoints/e/invocations",
        headers = headers,
        json = hello,
      })
      assert.equal("hello", res:json().choices[1].message.content)
      assert.equal("true", res.headers["x-sluice-emulator"])
    end)
    local res, err = http.request { url = address .. management }
    assert.is_nil(res)
    assert.is_true(err:is "ConnectError")
  end)
end)

describe("the store", function()
  it("can be used without HTTP", function()
    local store = emulator.new { deploy_time = 0 }.endpoints
    assert(store:create { name = "e", config = { served_entities = { entity "echo" } } })
    assert.equal("echo-1", assert(store:route("e", nil, 0.5)).name)
    assert(store:update_config("e", { served_entities = { entity("echo", { name = "new" }) } }))
    assert.equal("new", assert(store:route("e", nil, 0.5)).name)
    local nothing, refusal = store:route("no", nil, 0)
    assert.is_nil(nothing)
    assert.equal(404, refusal.status)
  end)
end)

describe("the emulator", function()
  it("can be a part of another app", function()
    local app = web.app {}
    routes.add(app, emulator.new { deploy_time = 0 })
    local res = app:handle { method = "GET", path = management, headers = { authorization = "Bearer x" } }
    assert.equal('{"endpoints":[]}', res.body)
  end)

  it("says in every answer that it is one", function()
    local call = start {}
    for _, path in ipairs { management, management .. "/nope", "/unknown" } do
      local res = call("GET", path)
      assert.equal("true", res.headers["x-sluice-emulator"])
      assert.is_truthy(res.headers.server:find "^sluice%-emulator/")
    end
  end)

  it("answers unknown paths and methods in the service's shape", function()
    local call = start {}
    local text = "No API found for 'GET /api/2.0/unknown'"
    refused(call("GET", "/api/2.0/unknown"), 404, "ENDPOINT_NOT_FOUND", text)
    refused(call("PUT", management), 404, "ENDPOINT_NOT_FOUND")
  end)

  it("wants a bearer token, any where it was given none", function()
    local call = start {}
    for _, headers in ipairs { {}, { authorization = "Basic x" }, { authorization = "Bearer " } } do
      refused(call("GET", management, nil, headers), 401, "UNAUTHENTICATED")
      refused(call("POST", "/serving-endpoints/e/invocations", hello, headers), 401, "UNAUTHENTICATED")
    end
    assert.equal(200, call("GET", management, nil, { authorization = "bearer x" }).status)
  end)

  it("wants its own token where it has one, and never shows it", function()
    local call = start { token = "dapi-planted-token" }
    local res = call("GET", management, nil, { authorization = "Bearer dapi-planted-toker" })
    refused(res, 403, "PERMISSION_DENIED")
    assert.is_nil(res.body:find("planted", 1, true))
    assert.equal(200, call("GET", management, nil, { authorization = "Bearer dapi-planted-token" }).status)
    local hidden = secret.join("Bearer ", "dapi-planted-token")
    assert.equal(200, call("GET", management, nil, { authorization = hidden }).status)
  end)

  it("makes a token of its own when asked to", function()
    local one, two = emulator.new { token = true }, emulator.new { token = true }
    assert.is_true(secret.is(one.token))
    assert.is_false(secret.equals(one.token, two.token))
    local headers = { authorization = secret.join("Bearer ", one.token) }
    assert.equal(200, caller(one)("GET", management, nil, headers).status)
    assert.equal(403, caller(two)("GET", management, nil, headers).status)
  end)

  it("refuses options it does not know", function()
    assert.has_error(function() emulator.new { deploytime = 1 } end)
    assert.has_error(function() emulator.new { latency = "fast" } end)
  end)
end)
