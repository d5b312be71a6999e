-- SPDX-License-Identifier: MIT
local errors = require "sluice.errors"
local json = require "sluice.json"
local log = require "sluice.log"
local serving = require "sluice.serving"
local client = require "sluice.endpoints.client"
local states = require "sluice.serving.state"
local task = require "sluice.task"
local web = require "sluice.web"

local BASE = "/api/2.0/serving-endpoints"

local function state(ready, update, deployment, message)
  local entity = { name = "m-1", state = { deployment = deployment, deployment_state_message = message } }
  return {
    name = "e",
    state = { ready = ready, config_update = update },
    config = { served_entities = deployment and { entity } or nil },
  }
end

-- Serving endpoints against an app in process; `routes(app)` fills it.
local function endpoints_of(routes)
  local app = web.app()
  routes(app)
  return serving.new(client.new { base = "http://h", host = "h", transport = app })
end

-- A route that answers with each step in turn, the last one again and again: a table is JSON, a number
-- a status, a function is called.
local function steps(list)
  local count = 0
  return function(request)
    count = count + 1
    local step = list[math.min(count, #list)]
    if type(step) == "function" then return step(request) end
    if type(step) == "number" then return { status = step, json = { message = "status " .. step } } end
    return { json = step }
  end, function() return count end
end

describe("serving_endpoints", function()
  it("gets, lists, deletes and queries", function()
    task.simulate(function()
      local endpoints = endpoints_of(function(app)
        app:get(BASE .. "/:name", function(request) return { json = { name = request.params.name } } end)
        app:get(BASE, function() return { json = { endpoints = { { name = "a" }, { name = "b" } } } } end)
        app:delete(BASE .. "/:name", function() return { status = 200, body = "" } end)
        app:post("/serving-endpoints/:name/invocations", function(request)
          return { json = { name = request.params.name, got = assert(request:json()) } }
        end)
      end)
      assert.equal("a b", endpoints:get("a b").name)
      assert.equal("b", endpoints:list()[2].name)
      assert.same({}, endpoints:delete("a"))
      assert.same({ name = "q", got = { x = 1 } }, endpoints:query("q", { x = 1 }))
    end)
  end)

  it("takes an answer without a list for none", function()
    local endpoints = endpoints_of(function(app) app:get(BASE, function() return { body = "{}" } end) end)
    assert.same({}, endpoints:list())
  end)

  it("gives typed errors", function()
    local endpoints = endpoints_of(function(app)
      app:get(BASE .. "/:name", function()
        return { status = 404, json = { error_code = "RESOURCE_DOES_NOT_EXIST", message = "none" } }
      end)
      app:post(BASE, function()
        return { status = 409, json = { error_code = "RESOURCE_ALREADY_EXISTS", message = "taken" } }
      end)
    end)
    local _, err = endpoints:get("e")
    assert.is_true(err:is "NotFound")
    assert.matches("^get endpoint e: none", tostring(err))
    _, err = endpoints:create { name = "e" }
    assert.equal("ResourceAlreadyExists", err.kind)
    assert.matches("^create endpoint e: taken", tostring(err))
  end)

  it("reads again what failed for a moment", function()
    task.simulate(function()
      local handler, count = steps { 503, 429, 502, { name = "e" } }
      local endpoints = endpoints_of(function(app) app:get(BASE .. "/:name", handler) end)
      assert.equal("e", endpoints:get("e").name)
      assert.equal(4, count())
    end)
  end)

  it("creates again only what surely was not created", function()
    task.simulate(function()
      local handler, count = steps { 503, 429, { name = "e" } }
      local endpoints = endpoints_of(function(app) app:post(BASE, handler) end)
      assert.equal("e", endpoints:create({ name = "e" }).name)
      assert.equal(3, count())
      for _, status in ipairs { 500, 502, 504 } do
        handler, count = steps { status, { name = "e" } }
        endpoints = endpoints_of(function(app) app:post(BASE, handler) end)
        assert.is_nil((endpoints:create { name = "e" }))
        assert.equal(1, count())
      end
    end)
  end)

  it("creates again after a connection that failed, not after one that was cut", function()
    task.simulate(function()
      for _, case in ipairs {
        { { message = "refused" }, 2 }, { { message = "cut", maybe_executed = true }, 1 },
        { { message = "no such host", retryable = false }, 1 },
      } do
        local count, app = 0, web.app()
        app:post(BASE, function() return { json = { name = "e" } } end)
        local transport = {
          handle = function(_, request)
            count = count + 1
            if count == 1 then return nil, errors.new("ConnectError", case[1]) end
            return app:handle(request)
          end,
        }
        local endpoints = serving.new(client.new { base = "http://h", host = "h", transport = transport })
        local endpoint = endpoints:create { name = "e" }
        assert.equal(case[2], count)
        assert.equal(case[2] == 2, endpoint ~= nil)
      end
    end)
  end)

  it("does not repeat a query", function()
    task.simulate(function()
      local handler, count = steps { 503, {} }
      local endpoints = endpoints_of(function(app)
        app:post("/serving-endpoints/:name/invocations", handler)
      end)
      local _, err = endpoints:query("e", {})
      assert.equal("TemporarilyUnavailable", err.kind)
      assert.equal(1, count())
    end)
  end)

  it("takes a second delete that finds nothing for done", function()
    task.simulate(function()
      local handler = steps { 502, 404 }
      local endpoints = endpoints_of(function(app) app:delete(BASE .. "/:name", handler) end)
      assert.same({}, endpoints:delete("e"))
      handler = steps { 404 }
      endpoints = endpoints_of(function(app) app:delete(BASE .. "/:name", handler) end)
      local answer, err = endpoints:delete("e")
      assert.is_nil(answer)
      assert.is_true(err:is "NotFound")
    end)
  end)

  it("bounds a management call in time", function()
    finally(function() log.set_level("info") end)
    log.set_level("off")
    task.simulate(function()
      local started = task.now()
      local endpoints = endpoints_of(function(app)
        app:post(BASE, function() task.sleep(1e6) return {} end)
      end)
      local _, err = endpoints:create { name = "e" }
      assert.equal("TimeoutError", err.kind)
      assert.is_true(math.abs(task.now() - started - 60) < 0.01)
    end)
  end)

  it("refuses misuse at the caller's line", function()
    local endpoints = endpoints_of(function() end)
    for expected, misuse in pairs {
      ['serving_endpoints:get: argument "name" must be a string'] = function() endpoints:get(nil) end,
      ['serving_endpoints:get: argument "name" must be a string that'] = function() endpoints:get("") end,
      ['serving_endpoints:get: unknown option "timout"'] = function() endpoints:get("e", { timout = 1 }) end,
      ['serving_endpoints:create: argument "body"'] = function() endpoints:create("e") end,
      ['serving_endpoints:create: the body needs a name'] = function() endpoints:create {} end,
      ['serving_endpoints:create_and_wait: unknown option "time"'] = function()
        endpoints:create_and_wait({ name = "e" }, { time = 1 })
      end,
      ['serving_endpoints:wait: option "timeout"'] = function() endpoints:wait("e", { timeout = "1" }) end,
      ['serving_endpoints:query: argument "request"'] = function() endpoints:query("e") end,
      ['serving_endpoints:list: unknown option "x"'] = function() endpoints:list { x = 1 } end,
      ['serving_endpoints:delete: argument "name"'] = function() endpoints:delete() end,
      ['serving_endpoints:list is a method: call it with a colon'] = function() endpoints.list() end,
      ['serving_endpoints:get is a method'] = function() endpoints.get "e" end,
      ['serving_endpoints:create_and_wait is a method'] = function() endpoints.create_and_wait {} end,
    } do
      local ok, message = pcall(misuse)
      assert.is_false(ok)
      assert.matches("serving_spec.lua:%d+: " .. expected, message)
    end
  end)
end)

describe("states.judge", function()
  it("knows what the states mean", function()
    for _, case in ipairs {
      { "ready", state("READY", "NOT_UPDATING", "DEPLOYMENT_READY") },
      { "ready", state("READY", "NOT_UPDATING") },
      { "ready", state("READY", "SOMETHING_NEW") },
      { "failed", state("NOT_READY", "NOT_UPDATING"), "no served entities, so it cannot become ready" },
      { "waiting", state("READY", "IN_PROGRESS", "DEPLOYMENT_READY") },
      { "waiting", state("NOT_READY", "IN_PROGRESS", "DEPLOYMENT_CREATING") },
      { "waiting", state("NOT_READY", "IN_PROGRESS", "DEPLOYMENT_FAILED") },
      { "waiting", state("NOT_READY", "NOT_UPDATING", "DEPLOYMENT_CREATING") },
      { "waiting", state("NOT_READY", "NOT_UPDATING", "DEPLOYMENT_RECOVERING") },
      { "waiting", {} },
      { "failed", state("NOT_READY", "UPDATE_FAILED"), "config_update is UPDATE_FAILED" },
      { "failed", state("READY", "UPDATE_CANCELED"), "config_update is UPDATE_CANCELED" },
      { "failed", state("NOT_READY", "NOT_UPDATING", "DEPLOYMENT_FAILED", "no such version"),
        "m%-1 is DEPLOYMENT_FAILED: no such version" },
      { "failed", state("NOT_READY", "UPDATE_FAILED", "DEPLOYMENT_ABORTED"), "m%-1 is DEPLOYMENT_ABORTED" },
    } do
      local verdict, why = states.judge(case[2])
      assert.equal(case[1], verdict)
      if case[3] then assert.matches(case[3], why) end
    end
    local pending = state("READY", "UPDATE_FAILED", "DEPLOYMENT_READY")
    pending.pending_config = state("", "", "DEPLOYMENT_FAILED", "out of memory").config
    assert.matches("out of memory", select(2, states.judge(pending)))
    assert.equal("waiting", (states.judge(json.decode '{"state":null,"config":null}')))
  end)
end)

describe("serving_endpoints:create_and_wait", function()
  local CREATING = state("NOT_READY", "IN_PROGRESS", "DEPLOYMENT_CREATING")
  local READY = state("READY", "NOT_UPDATING", "DEPLOYMENT_READY")

  -- What it gives when the looks see `list`, how long it took, how often it looked.
  local function create(list, options)
    return task.simulate(function()
      local handler, count = steps(list)
      local endpoints = endpoints_of(function(app)
        app:post(BASE, function() return { json = CREATING } end)
        app:get(BASE .. "/:name", handler)
      end)
      local started = task.now()
      local endpoint, err = endpoints:create_and_wait({ name = "e" }, options)
      return endpoint, err, task.now() - started, count()
    end, { seed = 7 })
  end

  it("looks until the endpoint is ready", function()
    local seen = {}
    local endpoint, err, took, count = create({ CREATING, CREATING, READY }, {
      on_poll = function(now, elapsed) seen[#seen + 1] = { now.state.ready, elapsed } end,
    })
    assert.is_nil(err)
    assert.equal("READY", endpoint.state.ready)
    assert.equal(3, count)
    assert.is_true(took < 1, took)
    assert.same({ "NOT_READY", "NOT_READY", "READY" }, { seen[1][1], seen[2][1], seen[3][1] })
    assert.is_true(seen[1][2] < seen[2][2] and seen[2][2] < seen[3][2])
  end)

  it("looks less and less often, ten seconds apart at most", function()
    local list = {}
    for index = 1, 60 do list[index] = CREATING end
    list[61] = READY
    local endpoint, _, took = create(list)
    assert.is_table(endpoint)
    assert.is_true(took > 400 and took < 600, took)
  end)

  it("survives not being known right after the creation", function()
    local endpoint = create { 404, 404, CREATING, READY }
    assert.is_table(endpoint)
    local _, err, took = create { 404 }
    assert.is_true(err:is "NotFound")
    assert.is_true(took >= 30 and took < 45, took)
  end)

  it("outlasts a service that is away for a while", function()
    local list = { CREATING }
    for index = 2, 20 do list[index] = 503 end
    list[21] = READY
    assert.is_table((create(list)))
  end)

  it("does not outlast a refusal", function()
    local _, err, took = create { CREATING, 403 }
    assert.equal("PermissionDenied", err.kind)
    assert.is_true(took < 1)
  end)

  it("tells why the deployment failed", function()
    local failed = state("NOT_READY", "UPDATE_FAILED", "DEPLOYMENT_FAILED", "the container does not start")
    local _, err = create { CREATING, failed }
    assert.equal("OperationFailed", err.kind)
    assert.is_false(err.retryable)
    assert.equal("wait for endpoint e: m-1 is DEPLOYMENT_FAILED: the container does not start "
      .. "(OperationFailed)", tostring(err))
    assert.equal("UPDATE_FAILED", err.endpoint.state.config_update)
  end)

  it("says at once that nothing can become ready, and which key was meant", function()
    local function made(config)
      return task.simulate(function()
        local app = require("sluice.emulator").new({}).app
        local w = assert(require("sluice.workspace").open { transport = app, token = "dapi-spec-token" })
        local started = task.now()
        local endpoint, err = w.serving_endpoints:create_and_wait { name = "e", config = config }
        assert.is_true(task.now() - started < 1)
        return endpoint, err
      end)
    end
    local endpoint, err = made { served_entites = { { entity_name = "m" } } }
    assert.is_nil(endpoint)
    assert.equal("OperationFailed", err.kind)
    assert.equal("NOT_READY", err.endpoint.state.ready)
    assert.matches('no served entities, .*: the config has "served_entites" %(did you mean "served_entities"',
      tostring(err))
    for _, config in ipairs { false, {} } do
      _, err = made(config or nil)
      assert.matches("no served entities, so it cannot become ready %(OperationFailed%)", tostring(err))
    end
  end)

  it("gives up when the time is over", function()
    local _, err, took = create({ CREATING }, { timeout = 100 })
    assert.equal("OperationTimeout", err.kind)
    assert.is_true(err:is "TimeoutError")
    assert.is_true(took > 99.99 and took < 101, took)
    assert.matches("not ready after 100 s: ready NOT_READY, config_update IN_PROGRESS", tostring(err))
    _, err, took = create { CREATING }
    assert.equal("OperationTimeout", err.kind)
    assert.is_true(took > 1199.99 and took < 1201, took)
  end)

  it("waits for an endpoint that is there already, and not for one that is not", function()
    task.simulate(function()
      local handler = steps { CREATING, READY }
      local endpoints = endpoints_of(function(app) app:get(BASE .. "/there", handler) end)
      assert.is_table(endpoints:wait("there"))
      local _, err = endpoints:wait("nowhere")
      assert.is_true(err:is "NotFound")
      assert.is_true(errors.is(err))
    end)
  end)

  it("ends with the scope around it", function()
    task.simulate(function()
      local endpoints = endpoints_of(function(app)
        app:get(BASE .. "/:name", function() return { json = CREATING } end)
      end)
      local started = task.now()
      local endpoint, err = task.timeout(5, endpoints.wait, endpoints, "e")
      assert.is_nil(endpoint)
      assert.equal("TimeoutError", err.kind)
      assert.is_true(math.abs(task.now() - started - 5) < 1e-3)
    end)
  end)
end)
