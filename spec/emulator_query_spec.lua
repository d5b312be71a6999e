-- SPDX-License-Identifier: MIT
-- Queries of the emulator beyond the plain answer: rate limits, unknown keys, tools, fallbacks, the list of models.

local answers = require "sluice.emulator.routes.answers"
local caller = require "emulator_caller"
local json = require "sluice.json"
local keys = require "sluice.emulator.keys"
local limits = require "sluice.emulator.limits"
local models = require "sluice.emulator.models"
local task = require "sluice.task"
local tools = require "sluice.emulator.tools"

local refused <const>, chat <const> = caller.refused, caller.chat
local invocations <const>, completions <const> = "/serving-endpoints/e/invocations",
  "/serving-endpoints/chat/completions"

local function start(options)
  options = options or {}
  options.deploy_time = 0
  return caller.start(options)
end

local function limited(limit, options)
  limit.renewal_period = "minute"
  local call = start(options)
  caller.create(call, "e", { caller.entity "echo" }, { ai_gateway = { rate_limits = { limit } } })
  return function(who, path)
    local headers = { authorization = "Bearer " .. (who or "any") }
    return call("POST", path or invocations, chat("hello", { model = "e" }), headers)
  end, call
end

describe("a rate limit", function()
  it("counts calls in a minute, and says when to come again", function()
    task.simulate(function()
      local query = limited { calls = 2 }
      assert.same({ 200, 200 }, { query().status, query().status })
      task.sleep(20)
      local res = query()
      refused(res, 429, "REQUEST_LIMIT_EXCEEDED", "User defined rate limit(s) exceeded")
      assert.equal("40", res.headers["retry-after"])
      task.sleep(40)
      assert.equal(200, query().status)
    end)
  end)

  it("can leave Retry-After out", function()
    local query = limited({ calls = 0 }, { retry_after = false })
    local res = query()
    assert.equal(429, res.status)
    assert.is_nil(res.headers["retry-after"])
  end)

  it("counts tokens of answers", function()
    task.simulate(function()
      local query = limited { tokens = 3 }
      assert.same({ 200, 200, 429 }, { query().status, query().status, query().status }) -- two tokens each
    end)
  end)

  it("counts the tokens of streams at their end", function()
    task.simulate(function()
      local query, call = limited { tokens = 1 }
      local res = call("POST", invocations, chat("hello", { stream = true }))
      assert.equal(200, query().status)
      assert.matches("%[DONE%]", res.body)
      res:close()
      assert.equal(429, query().status)
    end)
  end)

  it("holds for each user, or for one service principal", function()
    local query = limited { calls = 1, key = "user" }
    assert.same({ 200, 429, 200 }, { query("ann").status, query("ann").status, query("bob").status })
    query = limited { calls = 0, key = "service_principal", principal = "bot" }
    assert.equal(200, query("ann").status)
    local call = select(2, limited { calls = 0, key = "service_principal", principal = "bot" })
    local form = "grant_type=client_credentials&client_id=bot&client_secret=x"
    local text = call("POST", "/oidc/v1/token", form, {}):json().access_token
    local headers = { authorization = "Bearer " .. text }
    assert.equal(429, call("POST", invocations, chat "x", headers).status)
    query = limited { calls = 0, key = "user_group", principal = "all" }
    assert.equal(429, query("ann").status)
  end)

  it("of the old kind holds as well", function()
    local call = start()
    caller.create(call, "e", { caller.entity "echo" }, { rate_limits = { { calls = 0,
      renewal_period = "minute" } } })
    assert.equal(429, call("POST", invocations, chat "x").status)
  end)

  it("shows in headers on the OpenAI paths only", function()
    task.simulate(function()
      local query = limited { calls = 2, tokens = 100 }
      assert.is_nil(query().headers["x-ratelimit-limit-requests"])
      task.sleep(15)
      local headers = query(nil, completions).headers
      assert.same({ "2", "0", "45.000s" }, {
        headers["x-ratelimit-limit-requests"], headers["x-ratelimit-remaining-requests"],
        headers["x-ratelimit-reset-requests"],
      })
      assert.same({ "100", "96" }, {
        headers["x-ratelimit-limit-tokens"], headers["x-ratelimit-remaining-tokens"],
      })
      local res = query(nil, completions)
      assert.same({ 429, "0" }, { res.status, res.headers["x-ratelimit-remaining-requests"] })
    end)
  end)

  it("forgets who has not called for a minute (limits.new)", function()
    task.simulate(function()
      local counters = limits.new { retry_after = true }
      local record = { id = "1", name = "e", rate_limits = { { key = "user", calls = 5 } } }
      for index = 1, 1000 do assert(counters:enter(record, { key = "user" .. index, name = "u" })) end
      task.sleep(61)
      assert(counters:enter(record, { key = "another", name = "u" }))
      assert.equal(1, counters.count)
    end)
  end)
end)

describe("a request's keys", function()
  it("must be known to a foundation model (keys.check)", function()
    local call = start()
    caller.create(call, "e", { { entity_name = "system.ai.echo", entity_version = "1" } })
    local res = call("POST", invocations, chat("x", { inputs = 1, custom = 2 }))
    assert.equal('Bad request: json: unknown field "custom"', refused(res, 400, "BAD_REQUEST").message)
    assert.equal(200, call("POST", invocations, chat("x", { temperature = 0,
      metadata = { a = "b" } })).status)
    caller.create(call, "free", { caller.entity "echo" })
    assert.equal(200, call("POST", "/serving-endpoints/free/invocations", chat("x", { custom = 2 })).status)
    assert.is_true(keys.check({}, "chat", { any = 1 }))
  end)

  it("decide its kind (models.kind_of)", function()
    assert.equal("chat", models.kind_of { messages = {} })
    assert.equal("table", models.kind_of { input = json.null })
  end)

  it("are those of an object (answers.read_object)", function()
    local request = { json = function() return 5 end }
    assert.is_nil(answers.read_object(request, "BAD_REQUEST"))
    assert.equal(404, answers.no_api({ method = "GET", path = "/" }).status)
  end)
end)

describe("a tool call", function()
  local weather = {
    type = "function",
    ["function"] = {
      name = "get_weather",
      description = "The current weather at a place",
      parameters = {
        type = "object",
        properties = {
          city = { type = "string" }, days = { type = "integer" }, unit = { enum = { "C", "F" } },
          exact = { type = "boolean" }, tags = { type = "array", items = { type = "string" } },
          where = { anyOf = { { type = "number" }, { type = "null" } } },
        },
      },
    },
  }
  local clock = { type = "function", ["function"] = { name = "tell_time" } }

  local function ask(content, more)
    local call = start()
    caller.create(call, "e", { caller.entity "echo" })
    more = more or {}
    more.tools = more.tools or { clock, weather }
    return call("POST", invocations, chat(content, more)):json().choices[1]
  end

  it("is made of the question, where its words name the tool", function()
    local choice = ask "How will the weather be in Paris for 3 days?"
    assert.equal("tool_calls", choice.finish_reason)
    local made = choice.message.tool_calls[1]
    assert.matches("^call_", made.id)
    assert.equal("get_weather", made["function"].name)
    assert.same({ city = "Paris", days = 3, unit = "C", exact = true, tags = { "Paris" }, where = 3 },
      json.decode(made["function"].arguments))
    assert.equal(json.null, choice.message.content)
  end)

  it("is not made where no word does, nor after its result", function()
    assert.equal("hello", ask "hello".message.content)
    assert.equal("weather", ask("weather", { tool_choice = "none" }).message.content)
    local call = start()
    caller.create(call, "e", { caller.entity "echo" })
    local body = chat("weather in Paris", { tools = { weather } })
    body.messages[2] = call("POST", invocations, body):json().choices[1].message
    body.messages[3] = { role = "tool", tool_call_id = "x", content = "sunny" }
    assert.equal("stop", call("POST", invocations, body):json().choices[1].finish_reason)
  end)

  it("can be asked for (tools.calls)", function()
    assert.equal("tell_time", ask("hello",
      { tool_choice = "required" }).message.tool_calls[1]["function"].name)
    local chosen = { type = "function", ["function"] = { name = "get_weather" } }
    local made = ask("hello", { tool_choice = chosen }).message.tool_calls[1]
    assert.equal("hello", json.decode(made["function"].arguments).city)
    chosen["function"].name = "none"
    assert.equal("hello", ask("hello", { tool_choice = chosen }).message.content)
    assert.is_nil(tools.calls({ tools = "x", messages = { {} } }, ""))
  end)

  it("has a sister: JSON by a schema (tools.structured)", function()
    local format = { type = "json_schema", json_schema = { name = "x",
      schema = weather["function"].parameters } }
    local choice = ask("In Rome", { tools = json.array {}, response_format = format })
    assert.equal("Rome", json.decode(choice.message.content).city)
    choice = ask("hello", { response_format = { type = "json_object" } })
    assert.same({ answer = "hello" }, json.decode(choice.message.content))
    assert.is_nil(tools.structured({ response_format = { type = "text" } }, ""))
  end)

  it("takes a schema that is none", function()
    for _, parameters in ipairs { 5, { properties = 1.5 }, { type = "none" }, { type = "array",
      items = 1 } } do
      local body = { tools = { { ["function"] = { name = "f", parameters = parameters } } },
        tool_choice = "required" }
      body.messages = { {} }
      assert.is_string(tools.calls(body, "x")[1]["function"].arguments)
    end
  end)

  it("ends where a schema has no end", function()
    local schema = { type = "object", properties = {} }
    schema.properties.again = schema
    local declared = { name = "f", parameters = schema }
    local body = { tools = { { ["function"] = declared } }, tool_choice = "required", messages = { {} } }
    assert.is_true(#tools.calls(body, "x")[1]["function"].arguments < 300)
  end)
end)

describe("a fallback", function()
  local function endpoint(enabled)
    local models_given = {
      bad = function() return nil, { status = 500, message = "broken" } end,
      slow = function() return nil, { status = 429, message = "busy" } end,
    }
    local call = start { models = models_given }
    local served = { caller.entity "bad", caller.entity "slow", caller.entity "echo" }
    local routes = {}
    for index, name in ipairs { "bad-1", "slow-1", "echo-1" } do
      routes[index] = { served_entity_name = name, traffic_percentage = index == 1 and 100 or 0 }
    end
    local config = { served_entities = served, traffic_config = { routes = routes } }
    call("POST", caller.management, {
      name = "e", config = config, ai_gateway = { fallback_config = { enabled = enabled } },
    })
    return call
  end

  it("asks the other entities in their order", function()
    local res = endpoint(true)("POST", invocations, chat "hello")
    assert.same({ 200, "echo-1" }, { res.status, res.headers["served-model-name"] })
  end)

  it("is there where it is enabled, and not for a query to one entity", function()
    assert.equal(500, endpoint(false)("POST", invocations, chat "hello").status)
    assert.equal(500, endpoint(true)("POST", "/serving-endpoints/e/served-models/bad-1/invocations",
      chat "x").status)
  end)
end)

describe("the list of models", function()
  it("has the endpoints that can be asked", function()
    local call = start()
    caller.create(call, "e", { caller.entity "echo" })
    call("POST", caller.management, { name = "empty" })
    for _, base in ipairs { "/serving-endpoints", "/serving-endpoints/v1", "/ai-gateway/mlflow/v1" } do
      local list = call("GET", base .. "/models"):json()
      assert.same({ "list", "e", 1 }, { list.object, list.data[1].id, #list.data })
    end
  end)
end)
