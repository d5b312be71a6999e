-- SPDX-License-Identifier: MIT
local client = require "sluice.endpoints.client"
local databricks = require "sluice.endpoints.databricks"
local errors = require "sluice.errors"
local json = require "sluice.json"
local meta = require "sluice.meta"
local openai = require "sluice.endpoints.openai"
local query_options = require "sluice.endpoints.query_options"
local response = require "sluice.response"
local secret = require "sluice.secret"
local settings = require "sluice.settings"
local task = require "sluice.task"

-- A transport that keeps what it is given and answers with `reply`, fields of a response or nil, err.
local function recorder(reply, err)
  local transport = { requests = {} }
  function transport:handle(request)
    self.requests[#self.requests + 1] = request
    self.last = request
    if reply == nil then return nil, err end
    return response.new(type(reply) == "function" and reply(request) or reply)
  end
  return transport
end

local OK = { status = 200, body = '{"choices":[],"unknown_key":{"kept":[]}}' }

local function connect(transport)
  return client.new { base = "http://h", host = "h", token = "dapi-spec-token", transport = transport }
end

describe("client.parse_base", function()
  it("splits what can be a base", function()
    for url, expected in pairs {
      ["https://h"] = "https://h", ["HTTP://h:80/v1/"] = "http://h:80/v1",
      ["http://[::1]:8080//"] = "http://[::1]:8080",
    } do
      assert.equal(expected, (client.parse_base(url)))
    end
    assert.equal("h:80", select(2, client.parse_base("http://h:80/v1")))
  end)

  it("says what is wrong with others", function()
    for url, expected in pairs {
      h = "look like https://HOST", ["ftp://h"] = "only http and https", ["https://u:p@h"] = "credentials",
      ["https://h\r\nx: y"] = "control characters", ["https://"] = "look like", ["https://h?x"] = "look like",
    } do
      local base, reason = client.parse_base(url)
      assert.is_nil(base)
      assert.matches(expected, reason)
    end
  end)

  it("escapes a segment of a path", function()
    assert.equal("a%20b%2Fc%3F%C3%A4-_.~", client.escape("a b/c?ä-_.~"))
  end)
end)

describe("client.limits_left", function()
  it("takes what has been spent off the total", function()
    task.simulate(function()
      local started = task.now()
      local limits = { total = 5, idle = 3 }
      assert.equal(limits, client.limits_left(limits, started))
      task.sleep(2)
      assert.same({ total = 3, idle = 3 }, client.limits_left(limits, started))
      assert.equal(3, client.limits_left(5, started))
      assert.equal(0, client.limits_left(1, started))
      assert.is_nil(client.limits_left(nil, started))
      assert.same({ idle = 3 }, client.limits_left({ idle = 3 }, started))
    end)
  end)
end)

describe("endpoints.databricks", function()
  it("sends the request as it is, and none of our options", function()
    local transport = recorder(OK)
    local endpoint = databricks.new(connect(transport), "my endpoint")
    local request = { messages = json.array(), temperature = 0.5, odd = { key = json.null } }
    local given = { request_id = "r-1", timeout = 5, cache = false, progress = {} }
    task.simulate(function() assert.is_table(endpoint:query(request, given)) end) -- no time passes
    local sent = transport.last
    assert.equal("POST", sent.method)
    assert.equal("http://h/serving-endpoints/my%20endpoint/invocations", sent.url)
    assert.same({ messages = {}, temperature = 0.5, odd = { key = json.null } }, json.decode(sent.body))
    assert.equal("r-1", sent.headers["x-request-id"])
    assert.equal("application/json", sent.headers["content-type"])
    assert.equal("***", tostring(sent.headers["authorization"]))
    assert.is_true(secret.equals(sent.headers["authorization"], "Bearer dapi-spec-token"))
    assert.equal(5, sent.timeout)
    assert.equal("sluice.endpoint: my endpoint", tostring(endpoint))
  end)

  it("asks one served model", function()
    local transport = recorder(OK)
    databricks.new(connect(transport), "e"):query({}, { served_model = "m/1" })
    assert.equal("http://h/serving-endpoints/e/served-models/m%2F1/invocations", transport.last.url)
  end)

  it("gives the decoded answer, and what else is known by meta", function()
    local transport = recorder {
      status = 200, body = OK.body,
      headers = { ["Served-Model-Name"] = "m-2", ["X-Request-Id"] = "r-2" },
    }
    local answer = databricks.new(connect(transport), "e"):query {}
    assert.same({}, answer.unknown_key.kept)
    assert.equal("[]", json.encode(answer.unknown_key.kept))
    local facts = meta.get(answer)
    assert.same({ 200, "r-2", "m-2", OK.body },
      { facts.status, facts.request_id, facts.served_model, facts.raw })
    assert.equal("m-2", facts.headers["served-model-name"])
    assert.is_nil(answer["served-model-name"])
  end)

  it("makes a typed error of every status that is no success", function()
    local body = '{"error_code":"RESOURCE_DOES_NOT_EXIST","message":"none"}'
    local answer, err = databricks.new(connect(recorder { status = 404, body = body }), "e"):query {}
    assert.is_nil(answer)
    local expected = "query endpoint e: none (ResourceDoesNotExist, HTTP 404, RESOURCE_DOES_NOT_EXIST)"
    assert.equal(expected, tostring(err))
  end)

  it("knows what is no answer", function()
    for _, case in ipairs {
      { "", "ProtocolError", "empty" }, { " \n", "ProtocolError", "empty" },
      { "<html>login</html>", "ProtocolError", "HTML page.*login" },
      { '{"cut', "JsonError", "malformed JSON" },
      { "42", "ProtocolError", "no object: 42" }, { "null", "ProtocolError", "no object" },
      { '"text"', "ProtocolError", "no object" },
    } do
      local answer, err = databricks.new(connect(recorder { status = 200, body = case[1] }), "e"):query {}
      assert.is_nil(answer)
      assert.equal(case[2], err.kind)
      assert.is_true(err:is "ProtocolError")
      assert.matches(case[3], err.message)
      assert.same({ 200, "e", false }, { err.status, err.object, err.retryable })
    end
  end)

  it("sees the login page of a private link", function()
    local place = "https://h/login.html?o=1&error=private-link-validation-error:77"
    local transport = recorder { status = 302, headers = { location = place }, body = "" }
    local _, err = databricks.new(connect(transport), "e"):query {}
    assert.equal("PrivateLinkValidationError", err.kind)
    assert.is_true(err:is "PermissionDenied")
  end)

  it("tells of a refusal, and of an HTML page, what it was set to", function()
    local given = { { name = "host", value = "http://h", source = "argument" } }
    for _, reply in ipairs { { status = 401, body = "" }, { status = 200, body = "<html>x</html>" } } do
      local connection = client.new {
        base = "http://h", host = "h", transport = recorder(reply), settings = function() return given end,
      }
      local _, err = databricks.new(connection, "e"):query {}
      assert.matches("; called with host http://h %(argument%)$", tostring(err))
    end
  end)

  it("names the call in the error of the transport", function()
    local refused = errors.new("ConnectError", {
      operation = "POST", object = "http://h/x", message = "refused",
    })
    local _, err = databricks.new(connect(recorder(nil, refused)), "e"):query {}
    assert.equal("query endpoint e: POST http://h/x: refused (ConnectError)", tostring(err))
    assert.is_true(err.retryable)
  end)

  it("gives the error of a body that breaks off", function()
    local transport = recorder(function()
      local pieces = { '{"choices":', false }
      return {
        status = 200,
        read = function()
          local piece = table.remove(pieces, 1)
          if piece then return piece end
          return nil, errors.new("TruncatedStream", { message = "the connection was cut" })
        end,
      }
    end)
    local _, err = databricks.new(connect(transport), "e"):query {}
    assert.equal("TruncatedStream", err.kind)
    assert.is_true(err.maybe_executed)
    assert.equal("query endpoint", err.operation)
  end)

  it("keeps to the total where the transport does not", function()
    task.simulate(function()
      local transport = recorder(function() task.sleep(100) return OK end)
      local endpoint = databricks.new(connect(transport), "e")
      assert.is_false(endpoint.honours_timeout)
      for _, timeout in ipairs { 3, { total = 3 } } do
        local started = task.now()
        local answer, err = endpoint:query({}, { timeout = timeout })
        assert.is_nil(answer)
        assert.same({ "TimeoutError", "total", "e" }, { err.kind, err.limit, err.object })
        assert.matches("no answer within 3 s", err.message)
        assert.is_true(math.abs(task.now() - started - 3) < 1e-3)
      end
    end)
  end)

  it("leaves it to the real one", function()
    assert.is_true(databricks.new(connect(nil), "e").honours_timeout)
    local own = client.new { base = "b", host = "h", transport = require("sluice.http").client() }
    assert.is_true(own.honours_timeout)
  end)

  it("refuses misuse at the caller's line", function()
    local endpoint = databricks.new(connect(recorder(OK)), "e")
    for _, case in ipairs {
      { "text", nil, 'argument "request" must be a table, got string' },
      { {}, { timout = 5 }, 'unknown option "timout" %(did you mean "timeout"' },
      { {}, { timeout = { totl = 5 } }, 'timeout: unknown option "totl"' },
      { {}, { request_id = 5 }, 'option "request_id" must be a string' },
      { {}, { request_id = "r\r\nx: y" }, 'option "request_id" must be a string without control' },
    } do
      local ok, message = pcall(function() endpoint:query(case[1], case[2]) end)
      assert.is_false(ok)
      assert.matches("endpoints_spec.lua:%d+: endpoint:query: " .. case[3], message)
    end
    assert.has_error(function() endpoint:query { f = print } end)
    assert.is_string(query_options.timeout)
  end)
end)

describe("endpoints.openai", function()
  local function asking(given, request, options)
    local transport = recorder(OK)
    given.transport = transport
    given.base_url = given.base_url or "http://h/v1"
    assert(openai.new(given):query(request, options))
    return transport.last, json.decode(transport.last.body)
  end

  it("chooses the path by the request's keys", function()
    assert.equal("http://h/v1/chat/completions", asking({}, { messages = json.array() }).url)
    assert.equal("http://h/v1/completions", asking({}, { prompt = "x" }).url)
    assert.equal("http://h/v1/embeddings", asking({}, { input = "x" }).url)
    assert.equal("http://h/v1/responses", asking({ path = "responses" }, { input = "x" }).url)
  end)

  it("adds the model where it is missing, to a copy", function()
    local request = { prompt = "x" }
    local _, body = asking({ model = "m" }, request)
    assert.equal("m", body.model)
    assert.is_nil(request.model)
    _, body = asking({ model = "m" }, { prompt = "x", model = "own" })
    assert.equal("own", body.model)
    _, body = asking({ model = "m" }, request, { served_model = "s" })
    assert.equal("s", body.model)
    _, body = asking({}, request)
    assert.is_nil(body.model)
  end)

  it("sends the key as a secret, and further fields", function()
    local sent = asking({ api_key = "sk-spec-key-1", headers = { ["x-team"] = "t" } }, { prompt = "x" })
    assert.is_true(secret.equals(sent.headers["authorization"], "Bearer sk-spec-key-1"))
    assert.equal("t", sent.headers["x-team"])
    assert.is_nil(asking({}, { prompt = "x" }).headers["authorization"])
  end)

  it("takes the environment's key to the environment's server only", function()
    finally(function() settings.set { OPENAI_API_KEY = false, OPENAI_BASE_URL = false } end)
    settings.set { OPENAI_API_KEY = "sk-environment-key", OPENAI_BASE_URL = "http://env/v1" }
    assert.is_nil(asking({ base_url = "http://other/v1" }, { prompt = "x" }).headers["authorization"])
    local transport = recorder(OK)
    assert(openai.new({ transport = transport }):query { prompt = "x" })
    assert.equal("http://env/v1/completions", transport.last.url)
    assert.is_true(secret.equals(transport.last.headers["authorization"], "Bearer sk-environment-key"))
  end)

  it("refuses a base that is none, and unknown options", function()
    assert.has_error(function() openai.new { base_url = "nowhere" } end)
    assert.has_error(function() openai.new { base_ulr = "http://h" } end)
    assert.equal("sluice.endpoint: m", tostring(openai.new { base_url = "http://h", model = "m" }))
  end)
end)
