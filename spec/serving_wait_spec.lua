-- SPDX-License-Identifier: MIT
-- Waiting for a serving endpoint: how long, through what, and what a failure tells. All in simulated time.
local buildlog = require "sluice.serving.buildlog"
local client = require "sluice.endpoints.client"
local emulator = require "sluice.emulator"
local errors = require "sluice.errors"
local serving = require "sluice.serving"
local states = require "sluice.serving.state"
local system = require "sluice.core.system"
local task = require "sluice.task"
local waiter = require "sluice.serving.waiter"
local web = require "sluice.web"
local workspace = require "sluice.workspace"

local BASE <const> = "/api/2.0/serving-endpoints"

-- A served entity; an endpoint's config has the version of the first one.
local function entity(name, deployment, message, version)
  local state = { deployment = deployment, deployment_state_message = message }
  return { name = name, state = state, version = version }
end

local function endpoint(ready, update, live, pending)
  return {
    name = "e",
    state = { ready = ready, config_update = update },
    config = live and { served_entities = live, config_version = live[1].version },
    pending_config = pending and { served_entities = pending, config_version = pending[1].version } or nil,
  }
end

local CREATING <const> = endpoint("NOT_READY", "IN_PROGRESS", {
  entity("m-1", "DEPLOYMENT_CREATING", "pulling"),
})
local READY <const> = endpoint("READY", "NOT_UPDATING", { entity("m-1", "DEPLOYMENT_READY") })

-- An answer of the list for each look, the last one again and again: a table is JSON, a number a status, an err is
-- returned by the transport.
local function server(list, logs)
  local looks, app = 0, web.app()
  local step
  app:get(BASE .. "/:name", function()
    if type(step) == "number" then return { status = step, json = { message = "status " .. step } } end
    if type(step) == "string" then return { body = step } end
    return { json = step }
  end)
  app:post(BASE, function() return { json = CREATING } end)
  app:put(BASE .. "/:name/config", function() return { json = list.put or CREATING } end)
  app:get(BASE .. "/:name/served-models/:served/build-logs", function(request)
    local log = logs and logs[request.params.served]
    if type(log) == "function" then return log() end
    return log and { json = { logs = log } } or { status = 404, json = {} }
  end)
  local transport = {
    handle = function(_, request)
      if request.method == "GET" and request.url:find("/e$") then
        looks = looks + 1
        step = list[math.min(looks, #list)]
        if errors.is(step) then return nil, step end
      end
      return app:handle(request)
    end,
  }
  local connection = client.new { base = "http://h", host = "h", transport = transport }
  return serving.new(connection), function() return looks end
end

-- What `act(endpoints)` gives in simulated time, the seconds it took there, and how often was looked.
local function simulate(list, logs, act)
  return task.simulate(function()
    local endpoints, looks = server(list, logs)
    local started = task.now()
    local got, err = act(endpoints)
    return got, err, task.now() - started, looks()
  end, { seed = 3 })
end

local function create(list, options, logs)
  return simulate(list, logs, function(endpoints)
    return endpoints:create_and_wait({ name = "e" }, options)
  end)
end

local function update(list, options, logs)
  return simulate(list, logs, function(endpoints)
    return endpoints:update_config_and_wait("e", { served_entities = {} }, options)
  end)
end

local function wait(list, options, logs)
  return simulate(list, logs, function(endpoints) return endpoints:wait("e", options) end)
end

describe("a wait of twenty minutes", function()
  local function slow_creation()
    local app = emulator.new({ deploy_time = 1190 }).app
    local w = assert(workspace.open { transport = app, token = "dapi-spec" })
    local at = task.now()
    local got = assert(w.serving_endpoints:create_and_wait {
      name = "slow", config = { served_entities = { { entity_name = "a.b.m", entity_version = "1" } } },
    })
    assert.equal("READY", got.state.ready)
    assert.is_true(task.now() - at >= 1190)
  end

  it("takes less than 50 ms of the processor, against the emulator", function()
    local best, best_wall = math.huge, math.huge
    for _ = 1, 5 do -- other programs may have the processor for a moment
      local started, wall = os.clock(), system.wall()
      task.simulate(slow_creation)
      best, best_wall = math.min(best, os.clock() - started), math.min(best_wall, system.wall() - wall)
    end
    assert.is_true(best < (os.getenv "SLUICE_SLOW" and 0.5 or 0.05), best .. " s")
    assert.is_true(best_wall < 2, best_wall .. " s")
  end)

  it("is the default, and may be hours", function()
    local got, err, took = create { CREATING }
    assert.is_nil(got)
    assert.equal("OperationTimeout", err.kind)
    assert.is_true(took >= 1199.99 and took < 1201, took)
    for _, timeout in ipairs { 5 * 3600, math.huge } do
      local list = {}
      for index = 1, 1500 do list[index] = CREATING end
      list[1501] = READY
      got, err, took = create(list, { timeout = timeout })
      assert.equal("READY", got and got.state.ready, tostring(err))
      assert.is_true(took > 4 * 3600, took)
    end
  end)

  it("looks once more shortly before it gives up", function()
    for seed = 1, 20 do
      local got, err = task.simulate(function()
        local app = emulator.new({ deploy_time = 298.9 }).app
        local w = assert(workspace.open { transport = app, token = "dapi-spec" })
        return w.serving_endpoints:create_and_wait({
          name = "e", config = { served_entities = { { entity_name = "a.b.m", entity_version = "1" } } },
        }, { timeout = 300 })
      end, { seed = seed })
      assert.equal("READY", got and got.state.ready, tostring(err))
    end
  end)

  it("bounds the call that begins it, and a look that hangs", function()
    for _, hangs in ipairs { "POST", "GET" } do
      local err, took = task.simulate(function()
        local app = web.app()
        app:any("/*", function(request)
          if request.method == hangs then task.sleep(1e6) end
          return { json = CREATING }
        end)
        local endpoints = serving.new(client.new {
          base = "http://h", host = "h",
          transport = { handle = function(_, request)
            if request.method == hangs then task.sleep(1e6) end
            return app:handle(request)
          end },
        })
        local started = task.now()
        local _, err = endpoints:create_and_wait({ name = "e" }, { timeout = 20 })
        return err, task.now() - started
      end)
      assert.equal("OperationTimeout", err.kind, hangs)
      assert.is_true(took > 19.9 and took < 20.1, took)
      assert.matches("wait for endpoint e: not ready after 20 s", tostring(err))
    end
  end)

  it("ends with the deadline around it", function()
    local _, err, took = simulate({ CREATING }, nil, function(endpoints)
      return task.timeout(7, endpoints.create_and_wait, endpoints, { name = "e" })
    end)
    assert.equal("TimeoutError", err.kind)
    assert.is_true(math.abs(took - 7) < 0.01, took)
  end)

  it("spreads the looks of many", function()
    local gaps = {}
    task.simulate(function()
      local endpoints = server { CREATING, CREATING, CREATING, CREATING, CREATING, READY }
      local last = task.now()
      endpoints:wait("e", { on_poll = function()
        gaps[#gaps + 1] = task.now() - last
        last = task.now()
      end })
    end)
    local expected = { 0, 0.2, 0.3, 0.5, 1, 2 }
    for index, least in ipairs(expected) do
      assert.is_true(gaps[index] >= least - 1e-6 and gaps[index] <= least * 1.25 + 1e-6, gaps[index])
    end
    assert.not_equal(0.2, gaps[2])
  end)
end)

describe("the states", function()
  it("are judged by the entities of the update that is under way", function()
    local failed = {
      entity("m-2", "DEPLOYMENT_FAILED", "out of memory"), entity("m-3", "DEPLOYMENT_ABORTED"),
    }
    local live = { entity("m-1", "DEPLOYMENT_READY") }
    for _, case in ipairs {
      { "waiting", endpoint("READY", "IN_PROGRESS", failed, live) },
      { "failed", endpoint("READY", "UPDATE_FAILED", live, failed),
        "m-2 is DEPLOYMENT_FAILED: out of memory; m-3 is DEPLOYMENT_ABORTED" },
      { "failed", endpoint("READY", "UPDATE_CANCELED", live), "config_update is UPDATE_CANCELED" },
      -- an endpoint of which a part is dead is not what was asked for
      { "failed", endpoint("READY", "NOT_UPDATING", { live[1], failed[2] }), "m-3 is DEPLOYMENT_ABORTED" },
      { "ready", endpoint("READY", "NOT_UPDATING", { entity("m-1", "DEPLOYMENT_RECOVERING") }) },
      { "ready", endpoint("READY", nil, { { name = "external" } }) },
      { "waiting", { state = { ready = "READY", update_state = "IN_PROGRESS" } } },
    } do
      local verdict, why = states.judge(case[2])
      assert.equal(case[1], verdict)
      assert.equal(case[3], why)
    end
  end)

  it("may be of any type", function()
    for _, body in ipairs { '{"state":7,"config":[1]}', '{"state":{"ready":{},"config_update":[]}}', "[]",
      '{"config":{"served_entities":{"a":1}},"pending_config":"x"}',
      '{"config":{"served_entities":[7,null,{"name":{},"state":{"deployment":{}}},'
        .. '{"state":{"deployment":"DEPLOYMENT_CREATING","deployment_state_message":[]}}]}}',
      '{"state":{"ready":"NOT_READY","config_update":"IN_PROGRESS"},"config":{"config_version":"x"}}',
    } do
      local got, err = wait({ body }, { timeout = 5 })
      assert.is_nil(got)
      assert.equal("OperationTimeout", err.kind, body)
      assert.matches("not ready after 5 s: ready ", tostring(err), 1, true)
    end
    assert.equal("ready nil, config_update nil", states.describe("x"))
    assert.equal("nil, nil", states.summary(7))
    assert.same({}, states.entities(nil))
    assert.same({}, states.failed { { state = "x" } })
    assert.same({ nil, nil }, { states.of(7) })
  end)
end)

describe("a wait", function()
  it("does not take for done what is from before the update", function()
    local before = endpoint("READY", "NOT_UPDATING", { entity("m-1", "DEPLOYMENT_READY", nil, 1) })
    local during = endpoint("READY", "IN_PROGRESS", { entity("m-1", "DEPLOYMENT_READY", nil, 1) },
      { entity("m-2", "DEPLOYMENT_CREATING", nil, "2") })
    local after = endpoint("READY", "NOT_UPDATING", { entity("m-2", "DEPLOYMENT_READY", nil, 2) })
    local got, _, _, looks = update { before, before, during, after, put = during }
    assert.equal("m-2", got.config.served_entities[1].name)
    assert.equal(4, looks)
    -- a server that does not count its versions is not waited for
    local took
    got, _, took = update { before, put = during }
    assert.equal("m-1", got.config.served_entities[1].name)
    assert.is_true(took >= 30 and took < 45, took)
  end)

  it("survives a network that is away, once the server has answered", function()
    local gone = errors.new("ConnectError", { message = "no such host", retryable = false })
    local list = { CREATING }
    for index = 2, 40 do list[index] = index % 2 == 0 and gone or "<html>gateway</html>" end
    list[41] = READY
    assert.is_table((create(list)))
    table.remove(list, 1)
    assert.is_table((create(list)), "the answer to the creation counts")
    local got, err, took = wait { gone, READY }
    assert.is_nil(got)
    assert.equal("ConnectError", err.kind)
    assert.is_true(took < 1)
  end)

  it("tells what the last look met when the time is over", function()
    local _, err = create({ CREATING, 503 }, { timeout = 60 })
    assert.equal("OperationTimeout", err.kind)
    assert.equal("TemporarilyUnavailable", err.cause.kind)
    assert.matches("m-1 DEPLOYMENT_CREATING (pulling) (OperationTimeout); because: ", tostring(err), 1, true)
    assert.equal("e", err.endpoint.name)
    assert.is_false(err.retryable)
  end)

  it("does not wait for ever for a deployment that has failed while the update stays under way", function()
    local stuck = endpoint("NOT_READY", "IN_PROGRESS", {
      entity("m-1", "DEPLOYMENT_FAILED", "no such version"),
    })
    local _, err, took = create { CREATING, stuck }
    assert.equal("OperationFailed", err.kind)
    assert.matches("m-1 is DEPLOYMENT_FAILED: no such version", tostring(err), 1, true)
    assert.is_true(took >= 60 and took < 80, took)
    -- one that comes back has not failed
    local list = {}
    for index = 1, 25 do list[index] = index > 14 and index ~= 20 and stuck or CREATING end
    list[26] = READY
    assert.is_table((create(list)))
  end)

  it("keeps what it saw of an update whose failure tells nothing", function()
    local live = { entity("m-1", "DEPLOYMENT_READY") }
    local failing = endpoint("READY", "IN_PROGRESS", live, {
      entity("m-2", "DEPLOYMENT_FAILED", "no memory"),
    })
    local _, err = update({ failing, endpoint("READY", "UPDATE_FAILED", live) }, nil, { ["m-2"] = "killed" })
    assert.equal("OperationFailed", err.kind)
    assert.matches("config_update is UPDATE_FAILED: m-2 is DEPLOYMENT_FAILED: no memory",
      tostring(err), 1, true)
    assert.equal("killed", err.build_log)
  end)
end)

describe("a failure", function()
  local FAILED <const> = endpoint("NOT_READY", "UPDATE_FAILED", {
    entity("good", "DEPLOYMENT_READY"), entity("m-1", "DEPLOYMENT_FAILED", "the container does not start"),
  })

  it("carries the end of the build log", function()
    local log = {}
    for index = 1, 5000 do log[index] = "step " .. index .. (" x"):rep(20) end
    log[5001] = "\27[31mModuleNotFoundError: No module named 'torch'\27[0m\r\n\n"
    local _, err = create({ CREATING, FAILED }, nil, { ["m-1"] = table.concat(log, "\n") })
    assert.equal("OperationFailed", err.kind)
    assert.equal("m-1", err.served_entity)
    assert.matches("\n [31mModuleNotFoundError: No module named 'torch' [0m", err.build_log, 1, true)
    assert.equal(20, select(2, err.build_log:gsub("[^\n]+", "")))
    assert.is_true(#err.build_log <= 2048)
    assert.matches("^wait for endpoint e: m%-1 is DEPLOYMENT_FAILED: the container does not start "
      .. "%(OperationFailed%); because: the build log of m%-1 ends with\nstep 4982 ", tostring(err))
  end)

  it("does without the log where there is none, or none in time", function()
    for _, log in pairs {
      "", "\n \n", 7, { 1 }, false,
      function() return { status = 500, json = {} } end,
      function() return { body = "<html>" } end,
      function() task.sleep(1e6) end,
    } do
      local got, err, took = create({ FAILED }, nil, { ["m-1"] = log or nil })
      assert.is_nil(got)
      assert.equal("OperationFailed", err.kind)
      assert.is_nil(err.build_log)
      assert.is_nil(err.cause)
      assert.equal("m-1", err.served_entity)
      assert.is_true(took < 11, took)
    end
  end)

  it("shows whole characters of the last lines", function()
    assert.is_nil(buildlog.last_lines(nil))
    assert.is_nil(buildlog.last_lines "")
    assert.equal("a\nb", buildlog.last_lines "a\r\n\r\nb\n")
    local long = buildlog.last_lines("first\n" .. ("é"):rep(3000))
    assert.is_true(#long <= 2048 and #long > 2000)
    assert.is_truthy(utf8.len(long))
    local lines = buildlog.last_lines((("y"):rep(700) .. "\n"):rep(10))
    assert.equal(2, select(2, lines:gsub("[^\n]+", "")))
  end)

  it("asks for the log of what has failed, at most twice", function()
    task.simulate(function()
      local asked = {}
      local fake = { build_logs = function(_, name, served)
        asked[#asked + 1] = name .. "/" .. served
        return { logs = "" }
      end }
      assert.is_nil((buildlog.tail(fake, "e", {})))
      assert.is_nil((buildlog.tail(fake, "e", {
        entity("a", "DEPLOYMENT_READY"), entity("b"), entity("c", "DEPLOYMENT_ABORTED"), entity("d"),
        entity(7),
      })))
      assert.same({ "e/c", "e/b" }, asked)
    end)
  end)
end)

describe("progress of a wait", function()
  it("is a line at each change of the state", function()
    local text = ""
    local output = { write = function(bytes) text = text .. bytes end }
    assert(create({ CREATING, CREATING, CREATING, 503, 503, 503, 503, 503, READY }, { progress = output }))
    assert.matches("^e: NOT_READY, IN_PROGRESS, m%-1 CREATING %(pulling%), 0:00\n"
      .. "e: NOT_READY, .*no answer just now: status 503, 0:%d%d\n"
      .. "e: READY, NOT_UPDATING, m%-1 READY, 0:%d%d\n$", text)
  end)

  it("is a row of a terminal, with the seconds on it", function()
    local rows = {}
    local output = {
      write = function(bytes) rows[#rows + 1] = bytes:gsub("\27%[%d*%a", ""):gsub("[\r\n]", "") end,
      size = function() return 120, 24 end,
    }
    local list = {}
    for index = 1, 12 do list[index] = CREATING end
    list[13] = READY
    local _, _, took = create(list, { progress = output })
    assert.is_true(#rows > took, #rows .. " redraws")
    assert.matches("^e: NOT_READY, .* 0:31$", table.concat(rows, "\n"):match("[^\n]*0:31"))
    assert.matches("^e: READY, NOT_UPDATING, .* in 0:%d%d$", rows[#rows])
  end)

  it("is taken off when the wait is cancelled", function()
    local text = ""
    local output = { write = function(bytes) text = text .. bytes end, size = function() return 80, 24 end }
    simulate({ CREATING }, nil, function(endpoints)
      return task.timeout(5, endpoints.wait, endpoints, "e", { progress = output })
    end)
    assert.matches(" in 0:05", text, 1, true)
  end)

  it("goes with on_poll", function()
    local seen = 0
    assert(wait({ CREATING, 503, READY }, { progress = false, on_poll = function() seen = seen + 1 end }))
    assert.equal(2, seen)
    assert.equal("callable?", waiter.OPTIONS.on_poll)
  end)
end)
