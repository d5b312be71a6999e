-- SPDX-License-Identifier: MIT
-- Route-optimised endpoints: looked up once, asked at their own URL with a token exchanged for it.
local data_plane = require "sluice.endpoints.data_plane"
local response = require "sluice.response"
local secret = require "sluice.secret"
local sluice = require "sluice"
local task = require "sluice.task"
local web = require "sluice.web"

local DETAILS <const> = '[{"type":"workspace_permission","object_path":"/serving-endpoints/1"}]'

-- A workspace with one endpoint `e` on its data plane at /dp/1; all on one host of plain http.
local function new_service()
  local app = web.app()
  local service = {
    info = { endpoint_url = "http://dp.example:81/dp/1?x=y", authorization_details = DETAILS },
    looked = 0, exchanged = {}, asked = {}, tokens = 0, lifetime = 3600, dead = {},
  }
  app:post("/oidc/v1/token", function(request)
    service.tokens = service.tokens + 1
    local form = request.body
    if form:find("grant_type=client_credentials", 1, true) then
      return { json = { access_token = "control-" .. service.tokens, expires_in = 3600 } }
    end
    service.exchanged[#service.exchanged + 1] = form
    local refusal = service.refusal
    service.refusal = nil
    if refusal then return refusal end
    local token = "data-" .. service.tokens
    return { json = { access_token = token, token_type = "Special", expires_in = service.lifetime } }
  end)
  app:get("/api/2.0/serving-endpoints/e", function()
    service.looked = service.looked + 1
    return { json = { name = "e", data_plane_info = service.info and { query_info = service.info } } }
  end)
  app:post("/dp/:id", function(request)
    service.asked[#service.asked + 1] = {
      path = request.path, query = request.query.x, token = secret.reveal(request.headers.authorization),
      host = request.url,
    }
    if service.dead[request.params.id] then return { status = service.dead[request.params.id], json = {} } end
    return { json = { path = request.path } }
  end)
  return app, service
end

local function open(app, more)
  local given = { host = "http://h", transport = app, client_id = "i", client_secret = "a-secret" }
  for name, value in pairs(more or {}) do given[name] = value end
  return assert(sluice.workspace(given))
end

local function simulated(f)
  return function() task.simulate(f) end
end

describe("serving_endpoints_data_plane", function()
  it("looks up once, exchanges once and asks at the endpoint's own URL", simulated(function()
    local app, service = new_service()
    local w <close> = open(app)
    for _ = 1, 3 do
      local answer = assert(w.serving_endpoints_data_plane:query("e", { prompt = "p" }))
      assert.equal("/dp/1", answer.path)
    end
    assert.same({ 1, 1, 3 }, { service.looked, #service.exchanged, #service.asked })
    assert.same({ "y", "Special data-2" }, { service.asked[3].query, service.asked[3].token })
    assert.is_truthy(service.exchanged[1]:find("assertion=control-1", 1, true))
    assert.is_truthy(service.exchanged[1]:find("jwt-bearer", 1, true))
    assert.is_truthy(service.exchanged[1]:find("workspace_permission", 1, true))
  end))

  it("renews the token of the endpoint before it ends, and where it is refused", simulated(function()
    local app, service = new_service()
    service.lifetime = 100
    local w <close> = open(app)
    assert(w.serving_endpoints_data_plane:query("e", {}))
    task.sleep(80)
    assert(w.serving_endpoints_data_plane:query("e", {}))
    assert.equal(2, #service.exchanged)
    service.dead["1"] = 401
    local _, err = w.serving_endpoints_data_plane:query("e", {})
    assert.equal("Unauthenticated", err.kind)
    assert.same({ 3, 2 }, { #service.exchanged, service.looked })
    assert.equal(4, #service.asked)
  end))

  it("looks again, once, when the endpoint was made again elsewhere", simulated(function()
    local app, service = new_service()
    local w <close> = open(app)
    assert(w.serving_endpoints_data_plane:query("e", {}))
    service.dead["1"] = 404
    local _, err = w.serving_endpoints_data_plane:query("e", {})
    assert.equal("NotFound", err.kind)
    assert.same({ 2, 2 }, { service.looked, #service.asked })
    service.info = { endpoint_url = "http://dp.example/dp/2", authorization_details = "[]" }
    assert.equal("/dp/2", assert(w.serving_endpoints_data_plane:query("e", {})).path)
    assert.same({ 3, 2 }, { service.looked, #service.exchanged })
    assert(w.serving_endpoints_data_plane:query("e", {}))
    assert.equal(3, service.looked)
  end))

  it("renews the token of the workspace where the exchange refuses it", simulated(function()
    local by_code = { status = 400, json = { error = "invalid_grant" } }
    for _, refusal in ipairs { { status = 401, json = {} }, by_code } do
      local app, service = new_service()
      service.refusal = refusal
      local w <close> = open(app)
      assert(w.serving_endpoints_data_plane:query("e", {}))
      assert.equal(2, #service.exchanged)
      assert.is_truthy(service.exchanged[2]:find("assertion=control-3", 1, true))
    end
    local app, service = new_service()
    service.refusal = { status = 400, json = { error = "invalid_request" } }
    local w <close> = open(app)
    local _, err = w.serving_endpoints_data_plane:query("e", {})
    assert.equal("invalid_request", err.code)
    assert.equal(1, #service.exchanged)
  end))

  it("says what is missing", simulated(function()
    local app, service = new_service()
    local pat <close> = assert(sluice.workspace { host = "http://h", transport = app, token = "dapi-spec" })
    local _, err = pat.serving_endpoints_data_plane:query("e", {})
    assert.equal("ConfigError", err.kind)
    assert.matches("the data plane takes OAuth tokens only, and the .* method is pat", tostring(err))
    service.info = nil
    local w <close> = open(app)
    _, err = w.serving_endpoints_data_plane:query("e", {})
    assert.equal("OperationFailed", err.kind)
    assert.matches("query endpoint e: the endpoint has no data plane", tostring(err))
    _, err = w.serving_endpoints_data_plane:query("nobody", {})
    assert.equal("NotFound", err.kind)
    service.info = { endpoint_url = "no url" }
    _, err = w.serving_endpoints_data_plane:query("e", {})
    assert.equal("ProtocolError", err.kind)
  end))

  it("does not send a token of https over http", simulated(function()
    local endpoint = { data_plane_info = { query_info = { endpoint_url = "http://x/y" } } }
    local plane = data_plane.new {
      base = "https://h", credentials = { kind = "oauth-m2m", source = {} },
      endpoints = { get = function() return endpoint end },
      transport = { handle = function() return response.new { status = 200, body = "{}" } end },
    }
    local _, err = plane:query("e", {})
    assert.equal("ProtocolError", err.kind)
    assert.matches("no https", tostring(err))
  end))

  it("keeps to the time limit over all it does, and refuses misuse", simulated(function()
    local app = new_service()
    app:get("/api/2.0/serving-endpoints/slow", function() task.sleep(50) return { json = {} } end)
    local w <close> = open(app)
    local started = task.now()
    local _, err = w.serving_endpoints_data_plane:query("slow", {}, { timeout = 2 })
    assert.equal("TimeoutError", err.kind)
    assert.same({ "total", 2 }, { err.limit, task.now() - started })
    for _, misuse in ipairs {
      function(plane) plane:query("e", {}, { served_model = "m" }) end,
      function(plane) plane:query("", {}) end,
      function(plane) plane:query("e") end,
      function(plane) plane:stream("e") end,
      function(plane) plane.query("e", {}) end,
      function(plane) plane:ask() end,
    } do
      local ok, message = pcall(misuse, w.serving_endpoints_data_plane)
      assert.is_false(ok)
      assert.matches("data_plane_spec.lua:%d+: serving_endpoints_data_plane", message)
    end
  end))
end)
