-- SPDX-License-Identifier: MIT
-- Signing in to the emulator: discovery, OAuth tokens that expire, and the data plane that wants them.

local answers = require "sluice.emulator.routes.answers"
local base64 = require "sluice.base64"
local caller = require "emulator_caller"
local json = require "sluice.json"
local login = require "sluice.emulator.routes.login"
local oauth = require "sluice.emulator.oauth"
local secret = require "sluice.secret"
local task = require "sluice.task"
local web = require "sluice.web"
local wire = require "sluice.emulator.wire"

local management <const>, refused <const> = caller.management, caller.refused

local function start(options)
  options = options or {}
  options.deploy_time = 0
  return caller.start(options)
end

local function basic(id, given) return { authorization = "Basic " .. base64.encode(id .. ":" .. given) } end

local function token(call, form, headers)
  return call("POST", "/oidc/v1/token", form, headers or {})
end

local client_form <const> = "grant_type=client_credentials&scope=all-apis"

local function bearer(text) return { authorization = "Bearer " .. text, host = "emulator.test" } end

local function exchange_form(assertion, details)
  local encoded = details:gsub("[^%w]", function(c) return ("%%%02X"):format(c:byte()) end)
  return "grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Ajwt-bearer&assertion=" .. assertion
    .. "&authorization_details=" .. encoded
end

describe("discovery", function()
  it("needs no token, and names this host", function()
    local call = start()
    local config = call("GET", "/.well-known/databricks-config", nil, { host = "h:1" }):json()
    assert.equal("http://h:1/oidc", config.oidc_endpoint)
    assert.equal(wire.workspace_id, config.workspace_id)
    local server = call("GET", "/oidc/.well-known/oauth-authorization-server", nil, { host = "h:1" }):json()
    assert.equal("http://h:1/oidc/v1/token", server.token_endpoint)
    assert.equal("http://h:1/oidc/v1/authorize", server.authorization_endpoint)
  end)

  it("names the URL that it was told (answers.base_of)", function()
    local call, emulated = start { base_url = "https://name.test/" }
    assert.equal("https://name.test/oidc",
      call("GET", "/.well-known/databricks-config", nil, {}):json().oidc_endpoint)
    assert.equal("https://name.test", answers.base_of(emulated, {}))
  end)

  it("comes with the page for people", function()
    local app = web.app {}
    login.add(app, select(2, start()))
    assert.matches("^<!DOCTYPE html>", app:handle { path = "/login.html" }.body)
  end)
end)

describe("client credentials", function()
  it("give a token that is good everywhere", function()
    local call = start { clients = { id = "planted-secret" } }
    local answer = token(call, client_form, basic("id", "planted-secret")):json()
    assert.same({ "Bearer", 3600, "all-apis" }, { answer.token_type, answer.expires_in, answer.scope })
    local res = call("GET", management, nil, bearer(answer.access_token))
    assert.equal(200, res.status)
    local me = call("GET", "/api/2.0/preview/scim/v2/Me", nil, bearer(answer.access_token)):json()
    assert.equal("id", me.userName)
    local payload = answer.access_token:match "^[^.]+%.([^.]+)%."
    payload = payload .. ("="):rep(-#payload % 4)
    assert.equal("id", json.decode(base64.decode(payload:gsub("-", "+"):gsub("_", "/"))).sub)
  end)

  it("are wanted right, in the header or in the form", function()
    local call = start { clients = { id = "planted-secret" } }
    local form = client_form .. "&client_id=id&client_secret=planted-secret"
    assert.equal(200, token(call, form).status)
    local res = token(call, client_form, basic("id", "wrong"))
    assert.equal(401, res.status)
    assert.same({ error = "invalid_client", error_description = "Client authentication failed" }, res:json())
    assert.equal(401, token(call, client_form, basic("other", "planted-secret")).status)
    assert.equal(400, token(call, "grant_type=password").status)
    assert.equal("unsupported_grant_type", token(call, ""):json().error)
  end)

  it("may be any where any token is right, and none where one is set", function()
    assert.equal(200, token(start(), client_form, basic("a", "b")).status)
    assert.equal(401, token(start(), client_form, basic("", "")).status)
    assert.equal(401, token(start { token = "planted-token" }, client_form, basic("a", "b")).status)
    local both = start { token = "planted-token", clients = { a = secret.new "planted-secret" } }
    local answer = token(both, client_form, basic("a", "planted-secret")):json()
    assert.equal(200, both("GET", management, nil, bearer(answer.access_token)).status)
  end)

  it("give tokens that expire", function()
    task.simulate(function()
      local call = start { token_lifetime = 60 }
      local answer = token(call, client_form, basic("a", "b")):json()
      assert.equal(60, answer.expires_in)
      task.sleep(59)
      assert.equal(200, call("GET", management, nil, bearer(answer.access_token)).status)
      task.sleep(1)
      refused(call("GET", management, nil, bearer(answer.access_token)), 401, "UNAUTHENTICATED", "expired")
    end)
  end)

  it("are kept for a time only (oauth.new)", function()
    task.simulate(function()
      local tokens = oauth.new { lifetime = 1 }
      local form = { grant_type = "client_credentials", client_id = "a", client_secret = "b" }
      for _ = 1, 999 do assert(tokens:grant(form)) end
      task.sleep(3602)
      assert(tokens:grant(form))
      local count = 0
      for _ in pairs(tokens.issued) do count = count + 1 end
      assert.equal(1, count)
    end)
  end)
end)

describe("the data plane", function()
  local function prepare(options)
    local call = start(options)
    local made = caller.create(call, "e", { caller.entity "echo" }, { route_optimized = true })
    local control = token(call, client_form, basic("a", "b")):json().access_token
    return call, made, control
  end

  local function query(call, made, text)
    local path = made.endpoint_url:match "^http://[^/]+(/.*)$"
    return call("POST", path, caller.chat "hello", bearer(text))
  end

  it("takes a token in exchange for one endpoint", function()
    local call, made, control = prepare()
    local info = made.data_plane_info.query_info
    assert.equal(made.endpoint_url, info.endpoint_url)
    local form = exchange_form(control, info.authorization_details)
    local answer = token(call, form):json()
    local res = query(call, made, answer.access_token)
    assert.equal("hello", res:json().choices[1].message.content)
    refused(call("GET", management, nil, bearer(answer.access_token)), 403, "PERMISSION_DENIED")
    local other = caller.create(call, "other", { caller.entity "echo" }, { route_optimized = true })
    refused(query(call, other, answer.access_token), 403, "PERMISSION_DENIED", "another endpoint")
  end)

  it("takes no other token, and is the only place of a route-optimised endpoint", function()
    local call, made, control = prepare()
    refused(query(call, made, "dapi-any"), 403, "PERMISSION_DENIED", "OAuth tokens only")
    assert.equal(200, query(call, made, control).status)
    refused(call("POST", "/serving-endpoints/e/invocations", caller.chat "x"), 400, "BAD_REQUEST",
      made.endpoint_url)
    local plain = caller.create(call, "plain", { caller.entity "echo" })
    assert.is_nil(plain.data_plane_info)
    plain.endpoint_url = made.endpoint_url:gsub("/e/", "/plain/")
    refused(query(call, plain, control), 404, "RESOURCE_DOES_NOT_EXIST", "not route optimized")
    plain.endpoint_url = made.endpoint_url:gsub("/e/", "/none/")
    refused(query(call, plain, control), 404, "RESOURCE_DOES_NOT_EXIST")
  end)

  it("refuses assertions and details that are none", function()
    local call, made, control = prepare()
    local details = made.data_plane_info.query_info.authorization_details
    assert.equal("invalid_grant", token(call, exchange_form("nobody", details)):json().error)
    for _, wrong in ipairs { "", "[]", "{}", "5", "[5]", '[{"object_path":"/x"}]' } do
      assert.equal("invalid_request", token(call, exchange_form(control, wrong)):json().error)
    end
    local narrow = token(call, exchange_form(control, details)):json().access_token
    assert.equal("invalid_grant", token(call, exchange_form(narrow, details)):json().error)
  end)
end)
