-- SPDX-License-Identifier: MIT
-- get_or_create, create_or_update and exists: against the emulator in process, with others in between.
local client = require "sluice.endpoints.client"
local config = require "sluice.serving.config"
local emulator = require "sluice.emulator"
local ensure = require "sluice.serving.ensure"
local errors = require "sluice.errors"
local json = require "sluice.json"
local log = require "sluice.log"
local meta = require "sluice.meta"
local serving = require "sluice.serving"
local task = require "sluice.task"
local web = require "sluice.web"
local workspace = require "sluice.workspace"

local BASE <const> = "/api/2.0/serving-endpoints"

local function body(changes)
  local made = { name = "e", config = { served_entities = { {
    entity_name = "main.demo.echo", entity_version = "1", workload_size = "Small",
    scale_to_zero_enabled = true,
  } } } }
  for key, value in pairs(changes or {}) do made.config.served_entities[1][key] = value end
  return made
end

-- Runs f(endpoints, calls) against an emulator; `between(request, forward)` may do something else than to forward.
local function against_emulator(between, f)
  return task.simulate(function()
    local app, calls = emulator.new({ deploy_time = 60 }).app, {}
    local transport = {
      handle = function(_, request)
        calls[#calls + 1] = request.method .. " " .. request.url:match("endpoints(.*)$")
        local function forward(other) return app:handle(other or request) end
        if between then return between(request, forward, #calls) end
        return forward()
      end,
    }
    local w = assert(workspace.open { transport = transport, token = "dapi-spec" })
    return f(w.serving_endpoints, calls)
  end)
end

-- A network between: all that is sent at one time arrives before the first answer does.
local function slowly(_, forward)
  task.sleep(0.1)
  local res, err = forward()
  task.sleep(0.1)
  return res, err
end

-- The lines that are logged meanwhile.
local function logged(f)
  local lines = {}
  local previous = log.set_output(function(line) lines[#lines + 1] = line end)
  local ok, err = pcall(f)
  log.set_output(previous)
  if not ok then error(err, 0) end
  return table.concat(lines)
end

describe("serving_endpoints:exists", function()
  it("tells yes, no, and that it cannot be known", function()
    against_emulator(nil, function(endpoints)
      assert.is_false(endpoints:exists "e")
      assert(endpoints:create(body()))
      assert.is_true(endpoints:exists("e", { timeout = 5 }))
    end)
    for _, answer in ipairs {
      { status = 403, json = {} },
      -- a wrong host or prefix is no answer to the question
      { status = 404, json = { error_code = "ENDPOINT_NOT_FOUND", message = "No API found" } },
    } do
      local app = web.app()
      app:any("/*", function() return answer end)
      local endpoints = serving.new(client.new { base = "http://h", host = "h", transport = app })
      local there, err = endpoints:exists "e"
      assert.is_nil(there)
      assert.equal(answer.status, err.status)
      there, err = ensure.exists(endpoints, "e")
      assert.is_nil(there)
      assert.is_true(errors.is(err))
    end
  end)
end)

describe("serving_endpoints:get_or_create", function()
  it("creates what is not there and waits, and leaves alone what is", function()
    against_emulator(nil, function(endpoints, calls)
      local started, looks = task.now(), 0
      local endpoint = assert(endpoints:get_or_create(body(), { on_poll = function() looks = looks + 1 end }))
      assert.equal("READY", endpoint.state.ready)
      assert.is_true(task.now() - started >= 60)
      assert.is_true(looks > 3)
      assert.is_true(meta.get(endpoint).created)
      assert.is_nil(meta.get(endpoint).drift)
      assert.equal("POST ", calls[2])
      local count = #calls
      local again = assert(endpoints:get_or_create(body()))
      assert.equal(count + 1, #calls)
      assert.equal(endpoint.id, again.id)
      assert.is_false(meta.get(again).created)
      assert.is_nil(meta.get(again).drift)
    end)
  end)

  it("reports how the endpoint differs, and does not change it", function()
    against_emulator(nil, function(endpoints, calls)
      assert(endpoints:create_and_wait(body()))
      local endpoint
      local lines = logged(function()
        endpoint = assert(endpoints:get_or_create(body { entity_version = "2", workload_size = "Large" }))
      end)
      local drift = meta.get(endpoint).drift
      assert.equal(2, #drift)
      assert.equal('config.served_entities.echo-1.entity_version: wanted "2", found "1"', tostring(drift[1]))
      assert.matches('"level":"warn","event":"endpoint differs from what is wanted"', lines, 1, true)
      assert.matches('workload_size: wanted \\"Large\\", found \\"Small\\"', lines, 1, true)
      assert.matches("^GET ", calls[#calls])
      assert.equal("1", endpoints:get("e").config.served_entities[1].entity_version)
    end)
  end)

  it("is one creation, however many are in the race", function()
    against_emulator(slowly, function(endpoints, calls)
      local results = task.map({ 1, 2, 3, 4, 5, 6, 7, 8 }, function()
        return endpoints:get_or_create(body())
      end, { concurrency = 8 })
      local created, posts, id = 0, 0, nil
      for _, result in ipairs(results) do
        assert.is_true(result.ok, tostring(result.error))
        assert.equal("READY", result.value.state.ready)
        assert.equal(id or result.value.id, result.value.id)
        id = result.value.id
        if meta.get(result.value).created then created = created + 1 end
      end
      for _, call in ipairs(calls) do if call == "POST " then posts = posts + 1 end end
      assert.equal(8, posts)
      assert.equal(1, created)
    end)
  end)

  it("finds its own creation whose answer was lost", function()
    against_emulator(function(request, forward)
      if request.method ~= "POST" then return forward() end
      assert(forward())
      return nil, errors.new("ConnectError", { message = "reset", maybe_executed = true })
    end, function(endpoints)
      local endpoint = assert(endpoints:get_or_create(body()))
      assert.equal("READY", endpoint.state.ready)
    end)
    -- and tells what happened where there is none
    against_emulator(function(request, forward)
      if request.method ~= "POST" then return forward() end
      return nil, errors.new("ConnectError", { message = "reset", maybe_executed = true })
    end, function(endpoints)
      local endpoint, err = endpoints:get_or_create(body())
      assert.is_nil(endpoint)
      assert.matches("create endpoint e: reset", tostring(err), 1, true)
    end)
  end)

  it("takes one that answers as it is, and never one that is dead", function()
    local function with(answer)
      local app = web.app()
      app:get(BASE .. "/:name", function() return { json = answer } end)
      local endpoints = serving.new(client.new { base = "http://h", host = "h", transport = app })
      return task.simulate(function() return endpoints:get_or_create({ name = "e" }, { timeout = 100 }) end)
    end
    local states = { ready = "READY", config_update = "UPDATE_FAILED" }
    assert.is_table(with { name = "e", state = states })
    states = { ready = "NOT_READY", config_update = "NOT_UPDATING" }
    local dead = { served_entities = { { name = "m", state = { deployment = "DEPLOYMENT_FAILED" } } } }
    local endpoint, err = with { name = "e", state = states, config = dead }
    assert.is_nil(endpoint)
    assert.equal("OperationFailed", err.kind)
    states.config_update = "IN_PROGRESS"
    endpoint, err = with { name = "e", state = states }
    assert.is_nil(endpoint)
    assert.equal("OperationTimeout", err.kind)
  end)

  it("tells what goes wrong", function()
    for step, expected in ipairs { "PermissionDenied", "PermissionDenied", "PermissionDenied" } do
      against_emulator(function(_, forward, count)
        if count < step then return forward() end
        local app = web.app()
        app:any("/*", function() return { status = 403, json = { message = "no" } } end)
        return app:handle { method = "GET", url = "http://h/", headers = {} }
      end, function(endpoints)
        local endpoint, err = endpoints:get_or_create(body())
        assert.is_nil(endpoint)
        assert.equal(expected, err.kind)
      end)
    end
    against_emulator(nil, function(endpoints)
      local _, err = endpoints:get_or_create(body { workload_type = "GPU_HUGE" })
      assert.matches("workload_type GPU_HUGE is unknown", tostring(err), 1, true)
      _, err = endpoints:get_or_create(body(), { timeout = 10 })
      assert.equal("OperationTimeout", err.kind)
    end)
  end)

  it("refuses misuse", function()
    against_emulator(nil, function(endpoints)
      for expected, misuse in pairs {
        ["get_or_create: the body needs a name"] = function() endpoints:get_or_create {} end,
        ['get_or_create: unknown option "tiemout" %(did you mean "timeout"'] = function()
          endpoints:get_or_create(body(), { tiemout = 1 })
        end,
        ['create_or_update: argument "body" must be a table'] = function() endpoints:create_or_update "e" end,
        ['exists: argument "name"'] = function() endpoints:exists() end,
      } do
        local ok, message = pcall(misuse)
        assert.is_false(ok)
        assert.matches("serving_ensure_spec.lua:%d+: serving_endpoints:" .. expected, message)
      end
    end)
  end)
end)

describe("serving_endpoints:create_or_update", function()
  it("creates, does nothing, or changes the config", function()
    against_emulator(nil, function(endpoints, calls)
      local endpoint = assert(endpoints:create_or_update(body()))
      assert.is_true(meta.get(endpoint).created)
      assert.is_false(meta.get(endpoint).updated)
      local count = #calls
      endpoint = assert(endpoints:create_or_update(body()))
      assert.equal(count + 1, #calls)
      assert.is_false(meta.get(endpoint).updated)
      endpoint = assert(endpoints:create_or_update(body { entity_version = "2" }))
      assert.equal("echo-2", endpoint.config.served_entities[1].name)
      assert.equal(2, math.tointeger(endpoint.config.config_version))
      assert.equal("READY", endpoint.state.ready)
      assert.equal(1, #meta.get(endpoint).updated)
    end)
  end)

  it("waits for the end of another's update first", function()
    against_emulator(nil, function(endpoints)
      assert(endpoints:create(body()))
      local endpoint = assert(endpoints:create_or_update(body { entity_version = "2" }))
      assert.equal("2", endpoint.config.served_entities[1].entity_version)
      assert.equal(2, math.tointeger(endpoint.config.config_version))
    end)
  end)

  it("goes on where a creation was faster", function()
    against_emulator(slowly, function(endpoints)
      local results = task.map({ "1", "2" }, function(version)
        return endpoints:create_or_update(body { entity_version = version })
      end)
      local oks = 0
      for _, result in ipairs(results) do
        assert.is_true(result.ok, tostring(result.error))
        oks = oks + 1
      end
      assert.equal(2, oks)
      assert.equal("2", endpoints:get("e").config.served_entities[1].entity_version)
    end)
  end)

  -- An endpoint of which every part can be changed, and what was sent for it.
  local function changeable(endpoint)
    local app, sent = web.app(), {}
    app:get(BASE .. "/:name", function() return { json = endpoint } end)
    local parts = { tags = "patch", ["ai-gateway"] = "put", notifications = "patch", config = "put" }
    for part, method in pairs(parts) do
      app[method](app, BASE .. "/:name/" .. part, function(request)
        sent[#sent + 1] = { part, assert(request:json()) }
        endpoint.state = { ready = "READY", config_update = "NOT_UPDATING" }
        return { json = part == "config" and endpoint or {} }
      end)
    end
    return serving.new(client.new { base = "http://h", host = "h", transport = app }), sent
  end

  it("changes tags, gateway, config and notifications, one after the other", function()
    task.simulate(function()
      local state = { ready = "READY", config_update = "NOT_UPDATING" }
      local endpoints, sent = changeable { name = "e", state = state }
      local wanted = body()
      wanted.tags = { { key = "a", value = "b" } }
      wanted.ai_gateway = { usage_tracking_config = { enabled = true } }
      wanted.email_notifications = { on_update_failure = { "x@y" } }
      assert(endpoints:create_or_update(wanted))
      assert.same({
        { "tags", { add_tags = wanted.tags } },
        { "ai-gateway", wanted.ai_gateway },
        { "notifications", { email_notifications = wanted.email_notifications } },
        { "config", wanted.config },
      }, sent)
    end)
  end)

  it("sets up again what has failed", function()
    task.simulate(function()
      local wanted = body()
      local failed = json.decode(json.encode(wanted.config))
      failed.served_entities[1].name = "echo-1"
      failed.served_entities[1].state = { deployment = "DEPLOYMENT_FAILED" }
      local endpoint = {
        name = "e", state = { ready = "NOT_READY", config_update = "UPDATE_FAILED" }, config = failed,
      }
      local endpoints, sent = changeable(endpoint)
      local done, err = endpoints:create_or_update(wanted)
      assert.is_nil(done) -- this server's deployment fails again
      assert.equal("OperationFailed", err.kind)
      assert.same({ { "config", wanted.config } }, sent)
    end)
  end)

  it("refuses what cannot be changed, before it changes anything", function()
    task.simulate(function()
      local state = { ready = "READY", config_update = "NOT_UPDATING" }
      local endpoints, sent = changeable { name = "e", state = state, description = "old" }
      local wanted = body()
      wanted.description = "new"
      local endpoint, err = ensure.create_or_update(endpoints, wanted, {})
      assert.is_nil(endpoint)
      assert.equal("OperationFailed", err.kind)
      assert.matches('update endpoint e: description: wanted "new", found "old"; the service fixes this',
        tostring(err), 1, true)
      assert.same({}, sent)
    end)
  end)

  it("tells which change failed", function()
    against_emulator(function(request, forward)
      if not request.url:find("/tags$") then return forward() end
      local app = web.app()
      app:any("/*", function() return { status = 403, json = { message = "no tags" } } end)
      return app:handle(request)
    end, function(endpoints)
      assert(endpoints:create_and_wait(body()))
      local wanted = body()
      wanted.tags = { { key = "a" } }
      local endpoint, err = endpoints:create_or_update(wanted)
      assert.is_nil(endpoint)
      assert.matches("^patch tags of endpoint e: no tags", tostring(err))
    end)
  end)
end)

describe("serving.config", function()
  it("reads what may be missing", function()
    assert.same({}, config.table_of "x")
    assert.is_nil(config.given(json.null))
    assert.is_false(config.given(false))
    assert.is_false(config.names_entities { served_entities = json.null })
    assert.is_true(config.names_entities { served_models = {} })
    assert.same({ { name = "a" } }, config.entities { served_models = { 1, { name = "a" } } })
    assert.same({ traffic_config = 1 }, config.completed({ traffic_config = 1 }, nil))
  end)
end)

describe("ensure", function()
  it("is what the methods are made of", function()
    against_emulator(nil, function(endpoints)
      assert.is_true(meta.get(assert(ensure.get_or_create(endpoints, body(), {}))).created)
    end)
  end)
end)
