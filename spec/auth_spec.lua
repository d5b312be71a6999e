-- SPDX-License-Identifier: MIT
-- OAuth of service principals: where the token server is, one fetch for all, renewal, refusals.
local background = require "sluice.auth.background"
local base64 = require "sluice.base64"
local credentials = require "sluice.auth.credentials"
local emulator = require "sluice.emulator"
local errors = require "sluice.errors"
local json = require "sluice.json"
local oauth = require "sluice.auth.oauth"
local secret = require "sluice.secret"
local settings = require "sluice.settings"
local sluice = require "sluice"
local support = require "support"
local task = require "sluice.task"
local token_source = require "sluice.auth.token_source"
local url = require "sluice.url"
local web = require "sluice.web"
local wire = require "sluice.emulator.wire"

local BASIC <const> = "Basic " .. base64.encode "an-id:a-secret-of-the-spec"

-- A workspace with its token server, as an app: `app.log` has every request for a token.
local function new_server(given)
  given = given or {}
  local app = web.app()
  local state = { log = {}, looked = {}, valid = {}, count = 0, answers = given.answers or {} }
  local function issue(request)
    state.log[#state.log + 1] = request
    state.count = state.count + 1
    if given.delay then task.sleep(given.delay) end
    local answer = state.answers[state.count]
    if answer then return answer end
    local token = "token-of-the-spec-" .. state.count
    state.valid = { ["Bearer " .. token] = true }
    return { json = { access_token = token, token_type = "Bearer", expires_in = given.expires_in or 3600 } }
  end
  for _, path in ipairs { "/oidc/v1/token", "/other/token" } do app:post(path, issue) end
  app:get("/.well-known/databricks-config", function()
    state.looked[#state.looked + 1] = "metadata"
    return given.metadata or { status = 404 }
  end)
  app:get("/*", function(request)
    state.looked[#state.looked + 1] = request.path
    return (given.discovery or {})[request.path] or { status = 404 }
  end)
  app:post("/serving-endpoints/e/invocations", function(request)
    local header = tostring(secret.reveal(request.headers.authorization))
    state.seen = header
    state.workspace_id = request.headers["x-databricks-workspace-id"]
    if state.valid[header] then return { json = { ok = true } } end
    return { status = 401, json = { error_code = "UNAUTHENTICATED", message = "expired" } }
  end)
  return app, state
end

local function open(app, more)
  local given = { host = "http://h", transport = app }
  given.client_id, given.client_secret = "an-id", "a-secret-of-the-spec"
  for name, value in pairs(more or {}) do given[name] = value end
  return assert(sluice.workspace(given))
end

local function simulated(f)
  return function() task.simulate(f) end
end

local function clean_environment()
  settings.set(require("sluice.auth.config").only(false, false))
  settings.set { HOME = false }
end

describe("OAuth of a service principal", function()
  before_each(clean_environment)

  it("asks for a token as the service wants it, when the first call needs one", simulated(function()
    local app, state = new_server()
    local w <close> = open(app)
    assert.equal(0, #state.looked + #state.log)
    assert(w:endpoint("e"):query {})
    local request = state.log[1]
    assert.equal(BASIC, secret.reveal(request.headers.authorization))
    assert.equal("application/x-www-form-urlencoded", request.headers["content-type"])
    assert.equal("grant_type=client_credentials&scope=all-apis", request.body)
    assert.equal("Bearer token-of-the-spec-1", state.seen)
    assert(w:endpoint("e"):query {})
    assert.equal(1, #state.log)
  end))

  it("finds the token server by the host's metadata, at its usual place, or without", simulated(function()
    local found = { json = { token_endpoint = "http://h/other/token" } }
    for _, case in ipairs {
      { looked = "metadata /oidc/.well-known/oauth-authorization-server", path = "/oidc/v1/token" },
      {
        metadata = { json = { oidc_endpoint = "http://h/o/", workspace_id = 42 } },
        discovery = { ["/o/.well-known/oauth-authorization-server"] = found },
        looked = "metadata /o/.well-known/oauth-authorization-server", path = "/other/token", id = "42",
      },
      {
        metadata = { body = "<html>login</html>", headers = { ["content-type"] = "text/html" } },
        discovery = { ["/oidc/.well-known/oauth-authorization-server"] = found },
        looked = "metadata /oidc/.well-known/oauth-authorization-server", path = "/other/token",
      },
      {
        metadata = { json = { oidc_endpoint = 5, workspace_id = "a\nb" } },
        discovery = {
          ["/oidc/.well-known/oauth-authorization-server"] = { json = { token_endpoint = "no url" } },
        },
        looked = "metadata /oidc/.well-known/oauth-authorization-server", path = "/oidc/v1/token",
      },
      {
        given = { discovery_url = "http://h/my/own" }, discovery = { ["/my/own"] = found },
        looked = "/my/own", path = "/other/token",
      },
    } do
      local app, state = new_server(case)
      local w <close> = open(app, case.given)
      assert(w:endpoint("e"):query {})
      assert.equal(case.looked, table.concat(state.looked, " "))
      assert.equal(case.path, state.log[1].path)
      assert.equal(case.id, state.workspace_id)
      local description = w:describe()
      assert.equal(case.id, description.workspace_id and description.workspace_id.value)
      assert.equal(case.path == "/other/token" and "http://h/other/token" or nil,
        description.token_endpoint and description.token_endpoint.value)
    end
  end))

  it("never sends the secret to plain http from a workspace on https", simulated(function()
    local server = oauth.new {
      base = "https://h", client_id = "i", client_secret = secret.new "a-secret-of-the-spec",
      transport = { handle = function(_, request)
        assert.is_truthy(request.url:find "^https://h/")
        return require("sluice.response").new {
          status = 200, body = '{"token_endpoint":"http://h/t","access_token":"t","expires_in":"3600"}',
        }
      end },
    }
    local token = assert(server:client_credentials())
    assert.equal("t", secret.reveal(token.value))
    assert.equal(3600, token.lifetime)
  end))

  it("tries again what may pass, and only that", simulated(function()
    local app, state = new_server { answers = {
      { status = 503, headers = { ["retry-after"] = "7" } }, { status = 500, body = "<html>oops</html>" },
    } }
    local w <close> = open(app)
    local started = task.now()
    assert(w:endpoint("e"):query {})
    assert.equal(3, #state.log)
    assert.is_true(task.now() - started >= 7)

    local body = { error = "invalid_client", error_description = "no such principal" }
    local refusal = { status = 401, json = body }
    app, state = new_server { answers = { refusal, refusal, refusal } }
    local refused <close> = open(app)
    local _, err = refused:endpoint("e"):query {}
    assert.equal(1, #state.log)
    assert.equal("Unauthenticated", err.kind)
    assert.is_false(err.retryable)
    assert.equal("invalid_client", err.code)
    local text = tostring(err)
    assert.matches("^query endpoint e: no access token .*client_secret %*%*%* %(argument%)", text)
    assert.matches("because: get OAuth token http://h/oidc/v1/token: invalid_client: no such principal", text)
  end))

  it("asks again where the answer was lost", simulated(function()
    local app, state = new_server()
    local lost = 0
    local w <close> = open { handle = function(_, request)
      if request.url:find("/oidc/v1/token", 1, true) and lost < 2 then
        lost = lost + 1
        return nil, errors.new("TimeoutError", { message = "late", limit = "first_byte" })
      end
      return app:handle(request)
    end }
    assert(w:endpoint("e"):query {})
    assert.same({ 2, 1 }, { lost, #state.log })
  end))

  it("looks no further where nobody answers", simulated(function()
    local tried = {}
    local w <close> = open { handle = function(_, request)
      tried[#tried + 1] = request.url
      return nil, errors.new("ConnectError", { message = "refused" })
    end }
    local _, err = w:endpoint("e"):query {}
    assert.equal("ConnectError", err.kind)
    assert.equal(4, #tried) -- the tries of one token, each at the first address
    assert.equal("http://h/.well-known/databricks-config", tried[4])
  end))

  it("says what was wrong with an answer, and never shows it", simulated(function()
    for body, kind in pairs {
      ["<html>token-in-html</html>"] = "ProtocolError", ['{"access_token":"token-cut'] = "JsonError",
      ['"token-alone"'] = "ProtocolError", [""] = "ProtocolError", ['{"access_token":5}'] = "ProtocolError",
      ['{"token":"token-elsewhere"}'] = "ProtocolError", ['{"access_token":"token a"}'] = "ProtocolError",
      ['{"access_token":"token-a","token_type":"a b"}'] = "ProtocolError",
    } do
      local answer = { body = body, headers = { ["content-type"] = "application/json" } }
      local app = new_server { answers = { answer } }
      local w <close> = open(app)
      local _, err = w:endpoint("e"):query {}
      assert.equal(kind, err.kind, body)
      assert.is_nil(tostring(err):find "token%-", tostring(err))
      assert.is_nil(json.encode(err):find "token%-")
      assert.is_nil(err.cause.response)
    end
  end))

  it("fetches once for a hundred tasks, and does not end with the first of them", simulated(function()
    local app, state = new_server { delay = 5 }
    local w <close> = open(app)
    local first = task.spawn(function() return w:endpoint("e"):query({}, { timeout = 1 }) end)
    local items = {}
    for index = 1, 100 do items[index] = index end
    local function ask() return w:endpoint("e"):query {} end
    for _, result in ipairs(task.map(items, ask, { concurrency = 100 })) do assert.is_true(result.ok) end
    local _, err = first:join()
    assert.equal("TimeoutError", err.kind)
    assert.equal("total", err.limit)
    assert.equal(1, #state.log)
  end))

  it("renews a token in the background while the old one is good, else waits", simulated(function()
    local app, state = new_server { delay = 3, expires_in = "3600" }
    local w <close> = open(app)
    local function call()
      local started = task.now()
      assert(w:endpoint("e"):query {})
      return state.seen:match "%d+$", task.now() - started
    end
    assert.same({ "1", 3 }, { call() })
    task.sleep(2396 - 3)
    assert.same({ "1", 0 }, { call() }) -- 2400 s after the fetch began it turns stale
    assert.equal(1, #state.log)
    task.sleep(5)
    assert.same({ "1", 0 }, { call() })
    task.sleep(4)
    assert.equal(2, #state.log)
    assert.same({ "2", 0 }, { call() })
    task.sleep(3600)
    assert.same({ "3", 3 }, { call() })
  end))

  it("keeps a stale token while the server of tokens is away, and asks once a minute", simulated(function()
    local broken = { status = 400, json = { error = "out_of_order" } }
    local app, state = new_server { answers = { [2] = broken, [3] = broken } }
    local w <close> = open(app)
    local function call()
      assert(w:endpoint("e"):query {})
      task.sleep(1)
      return #state.log
    end
    call()
    task.sleep(2500)
    assert.equal(2, call())
    assert.equal(2, call())
    task.sleep(60)
    assert.equal(3, call())
    task.sleep(61)
    assert.equal(4, call())
    assert.equal("Bearer token-of-the-spec-1", state.seen)
    call()
    assert.equal("Bearer token-of-the-spec-4", state.seen)
  end))

  it("uses a short-lived token for most of its life", simulated(function()
    local app, state = new_server { expires_in = 20 }
    local w <close> = open(app)
    assert(w:endpoint("e"):query {})
    task.sleep(9)
    assert(w:endpoint("e"):query {})
    assert.equal(1, #state.log)
    task.sleep(7)
    assert(w:endpoint("e"):query {})
    assert.equal(2, #state.log)
    assert.equal("Bearer token-of-the-spec-2", state.seen)
  end))

  it("renews a refused token once for all calls, and not one that was never taken", simulated(function()
    local app, state = new_server { delay = 1 }
    local w <close> = open(app)
    assert(w:endpoint("e"):query {})
    state.valid = {}
    local items = { 1, 2, 3, 4, 5 }
    for _, result in ipairs(task.map(items, function() return w:endpoint("e"):query {} end)) do
      assert.is_true(result.ok)
    end
    assert.equal(2, #state.log)
    state.valid = {}
    assert(w:endpoint("e"):query {})
    assert.equal(3, #state.log)
    state.valid = setmetatable({}, { __index = function() return false end })
    app:post("/serving-endpoints/closed/invocations", function()
      return { status = 401, json = { message = "never" } }
    end)
    local _, err = w:endpoint("closed"):query {}
    assert.equal("Unauthenticated", err.kind)
    assert.equal(4, #state.log)
    _, err = w:endpoint("closed"):query {}
    assert.equal("Unauthenticated", err.kind)
    assert.equal(4, #state.log)
    assert.matches("called with host http://h %(argument%), auth_type oauth%-m2m", tostring(err))
  end))

  it("sends the same body once more, and no more than once", simulated(function()
    local bodies = {}
    local app = new_server()
    app:post("/serving-endpoints/twice/invocations", function(request)
      bodies[#bodies + 1] = request.body
      return { status = 401, json = { message = "no" } }
    end)
    local w <close> = open(app)
    local _, err = w:endpoint("twice"):query { prompt = "p" }
    assert.equal("Unauthenticated", err.kind)
    assert.same({ '{"prompt":"p"}', '{"prompt":"p"}' }, bodies)
  end))

  it("ends with the workspace", simulated(function()
    local app, state = new_server { delay = 100 }
    local w = open(app)
    local waiting = task.spawn(function() return w:endpoint("e"):query {} end)
    task.sleep(1)
    w:close()
    local _, err = waiting:join()
    assert.equal("ConfigError", err.kind)
    assert.matches("the workspace is closed", tostring(err))
    _, err = w:endpoint("e"):query {}
    assert.matches("the workspace is closed", tostring(err))
    assert.equal(1, #state.log)
  end))
end)

support.needing("server", describe, pending)("OAuth over a socket", function()
  it("gets its token and renews it", function()
    local app, state = new_server()
    local server <close> = assert(app:listen "127.0.0.1:0")
    local w <close> = open(nil, { host = "http://" .. server.address })
    assert(w:endpoint("e"):query({}, { timeout = 10 }))
    state.valid = {}
    assert(w:endpoint("e"):query({}, { timeout = 10 }))
    assert.equal(2, #state.log)
  end)
end)

describe("OAuth of the emulator", function()
  before_each(clean_environment)

  it("serves a script for hours, its data plane too", simulated(function()
    local emulated = assert(emulator.new {
      clients = { ["an-id"] = "a-secret-of-the-spec" }, token_lifetime = 600, deploy_time = 0,
    })
    local w <close> = open(emulated.app)
    assert(w.serving_endpoints:create_and_wait {
      name = "fast", route_optimized = true,
      config = { served_entities = { { entity_name = "main.default.echo", entity_version = "1" } } },
    })
    local request = { messages = { { role = "user", content = "ping" } } }
    local plane = w.serving_endpoints_data_plane
    for _ = 1, 12 do
      assert(plane:query("fast", request))
      task.sleep(580)
    end
    local text = {}
    for delta in assert(plane:stream("fast", request)):text() do text[#text + 1] = delta end
    assert.matches("ping", table.concat(text))
    assert.equal(wire.workspace_id, w:describe().workspace_id.value)

    -- the clock does not say that they ended, the server does
    for _, issued in pairs(emulated.oauth.issued) do issued.expires = 0 end
    assert(assert(plane:stream("fast", request)):collect())
    for _, issued in pairs(emulated.oauth.issued) do issued.expires = 0 end
    assert.equal(1, #assert(w.serving_endpoints:list()))

    assert(w.serving_endpoints:delete "fast")
    assert(w.serving_endpoints:create_and_wait {
      name = "fast", route_optimized = true,
      config = { served_entities = { { entity_name = "main.default.echo", entity_version = "1" } } },
    })
    assert(plane:query("fast", request))
  end))
end)

describe("token_source", function()
  it("does not give up a new token for an old refusal", simulated(function()
    local scope, count = background.new(), 0
    local source = token_source.new { background = scope, fetch = function()
      count = count + 1
      return { value = secret.new("token-" .. count), type = "Bearer" }
    end }
    local first = source:get()
    assert.is_true(source:answered(first, 401))
    local second = source:get()
    assert.is_true(source:answered(first, 401))
    assert.equal(second, (source:get()))
    assert.equal(2, count)
    scope:close()
  end))

  it("raises the fault of a fetch, and hands on its err", simulated(function()
    local scope = background.new()
    local source = token_source.new { background = scope, fetch = function() error "a fault" end }
    local ok, message = pcall(source.get, source)
    assert.is_false(ok)
    assert.matches("a fault", message)
    source = token_source.new {
      background = scope, fetch = function() return nil, errors.new "ConnectError" end,
    }
    local _, err = source:get(5)
    assert.equal("ConnectError", err.kind)
    scope:close()
    assert.is_nil(scope:spawn(function() end))
    scope:close()
  end))
end)

describe("credentials", function()
  it("are fixed, or those of a source", simulated(function()
    local fields = {}
    assert.is_true(credentials.none():authorize(fields))
    assert.same({}, fields)
    credentials.bearer(secret.new "dapi-spec"):authorize(fields)
    assert.equal("Bearer dapi-spec", secret.reveal(fields.authorization))
    credentials.basic("u", secret.new "p"):authorize(fields)
    assert.equal("Basic dTpw", secret.reveal(fields.authorization))
    assert.equal("dTpw", secret.reveal(select(2, credentials.basic_header("u", "p"))))
    local scope = background.new()
    local made = credentials.renewed("kind", token_source.new {
      background = scope, fetch = function() return { value = secret.new "t", type = "Special" } end,
    })
    local token = made:authorize(fields)
    assert.equal("Special t", secret.reveal(fields.authorization))
    assert.is_true(made:answered(token, 401))
    scope:close()
  end))

  it("are exchanged for one endpoint", simulated(function()
    local app, state = new_server()
    local server = oauth.new { base = "http://h", transport = app }
    assert(server:exchange(secret.new "an-assertion", '[{"type":"x y"}]'))
    assert.equal(url.form {
      grant_type = "urn:ietf:params:oauth:grant-type:jwt-bearer", assertion = "an-assertion",
      authorization_details = '[{"type":"x y"}]',
    }, state.log[1].body)
    assert.is_nil(state.log[1].headers.authorization)
  end))
end)
