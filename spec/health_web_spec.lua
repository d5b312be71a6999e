-- SPDX-License-Identifier: MIT
-- Health over HTTP: looks at an emulator, the routes for load balancers, and the scripts.

local emulator = require "sluice.emulator"
local errors = require "sluice.errors"
local fixture = require "server_fixture"
local health = require "sluice.health"
local http = require "sluice.http"
local layers = require "sluice.layers"
local log = require "sluice.log"
local sluice = require "sluice"
local support = require "support"
local task = require "sluice.task"
local web = require "sluice.web"
local web_health = require "sluice.web.health"

local describe = support.needing("server", describe, pending)
local it_of_program = support.about_program(it, pending)

local function get(url, path)
  local res = fixture.need(http.request { url = url .. path })
  return res.status, fixture.need(res:json()), res.headers
end

-- Runs f(workspace, url) with an emulator on a socket that has an endpoint "chat".
local function with_emulator(options, f)
  local previous = log.set_output(function() end)
  local server <close> = fixture.need(emulator.new(options):listen "127.0.0.1:0")
  local workspace = fixture.need(sluice.workspace { host = server.url, token = "any" })
  local served = { entity_name = "main.default.echo", entity_version = "1" }
  local body = { name = "chat", config = { served_entities = { served } } }
  fixture.need(workspace.serving_endpoints:create(body))
  local ok, message = xpcall(f, debug.traceback, workspace, server.url)
  log.set_output(previous)
  if not ok then error(message, 0) end
end

describe("health, of an emulator over HTTP", function()
  it("is told by the endpoint itself, without tokens", function()
    with_emulator({ deploy_time = 0 }, function(workspace)
      local state = fixture.need(workspace:endpoint("chat"):serving_state { timeout = 5 })
      assert.same({ true, "READY" }, { state.ready, state.state })
      local found = health.check(workspace:endpoint "chat", { probe = true })
      assert.same({ "healthy", "READY", "probe" }, { found.status, found.state, found.source })
      found = health.check(workspace:endpoint "nowhere", { probe = true })
      assert.same({ "error", "ResourceDoesNotExist" }, { found.status, found.kind })
    end)
    with_emulator({ deploy_time = 60 }, function(workspace)
      local found = health.check(workspace:endpoint "chat", { probe = true })
      assert.same({ "not_ready", "NOT_READY" }, { found.status, found.state })
      assert.matches("config_update IN_PROGRESS", found.error)
    end)
  end)

  it("gives up a probe that hangs, in its own time", function()
    local app, left = web.app {}, false
    app:get("/api/2.0/serving-endpoints/:name", function()
      return { json = { state = { ready = "READY" } } }
    end)
    app:post("/serving-endpoints/:name/invocations", function()
      local _ <close> = setmetatable({}, { __close = function() left = true end })
      task.sleep(60)
    end)
    local server <close> = fixture.need(app:listen "127.0.0.1:0")
    local workspace = fixture.need(sluice.workspace { host = server.url, token = "any" })
    local found = health.check(workspace:endpoint "chat", { probe = true, timeout = 0.2 })
    assert.same({ "error", "TimeoutError", "READY" }, { found.status, found.kind, found.state })
    assert.is_true(found.latency < 1)
    assert.is_true(fixture.eventually(function() return left end))
  end)
end)

local function plain(server)
  return { name = "plain", query = function()
    if server.err then return nil, server.err end
    return {}
  end }
end

describe("web.health", function()
  it("answers for load balancers, with reasons and Retry-After", function()
    local state = {}
    local watched = { plain(state) }
    local monitor <close> = health.monitor { endpoints = watched, probe = true, fall = 1, every = 60 }
    local app = web.app {}
    assert.is_function(web.health(monitor, app).health)
    local server <close> = fixture.need(app:listen "127.0.0.1:0")
    local url = server.url
    monitor:check()
    local status, body, headers = get(url, "/health")
    assert.same({ 200, "healthy", true, "plain", "no-store", nil }, { status, body.status, body.ready,
      body.endpoints[1].endpoint, headers["cache-control"], headers["retry-after"] })
    assert.same({ ready = true }, select(2, get(url, "/ready")))
    state.err = errors.new("TemporarilyUnavailable", { message = "busy", retry_after = 20 })
    monitor:check()
    for _, path in ipairs { "/health", "/ready" } do
      status, body, headers = get(url, path)
      assert.equal(503, status)
      assert.matches("plain: busy", body.reasons[1])
      local seconds = tonumber(headers["retry-after"])
      assert.is_true(seconds > 10 and seconds <= 66, seconds)
    end
    assert.equal(200, (get(url, "/live")))
  end)

  it("is alive but not ready while a server of the app drains", function()
    local monitor <close> = health.monitor { endpoints = { plain {} }, probe = true }
    local app = web.app {}
    web.health(monitor, app)
    local server <close> = fixture.need(app:listen("127.0.0.1:0", { drain = 0.5 }))
    local url = server.url
    monitor:check()
    assert.equal(200, (get(url, "/ready")))
    assert.is_false(app:is_stopping())
    local stopping = task.spawn(server.stop, server, 1)
    task.sleep(0.05)
    assert.is_true(app:is_stopping())
    local status, body = get(url, "/ready")
    assert.same({ 503, { "it is about to end" } }, { status, body.reasons })
    assert.equal(200, (get(url, "/live")))
    stopping:join()
    assert.is_nil((http.request { url = url .. "/live" }))
  end)

  it("gives the handlers alone, and drains by hand", function()
    local monitor <close> = health.monitor { endpoints = { plain {} }, probe = true }
    monitor:check()
    local handlers = web_health.new(monitor)
    assert.equal(200, handlers.ready().status)
    monitor.draining = true
    assert.same({ 503, 200 }, { handlers.health().status, handlers.live().status })
    assert.has_error(function() web.health {} end)
  end)

  it("can be asked without a key where web.api_keys leaves it open", function()
    local app = web.app {}
    app:use(web.api_keys({ alice = "k" }, { open = { "/live" } }))
    local monitor <close> = health.monitor {}
    web.health(monitor, app)
    assert.equal(200, app:handle({ path = "/live?x=1" }).status)
    assert.equal(401, app:handle({ path = "/ready" }).status)
    assert.has_error(function() web.api_keys({}, { opened = {} }) end)
  end)
end)

describe("the layers under a monitor, over HTTP", function()
  it("leave a server alone for as long as it asks, and come back", function()
    local hits, app = 0, web.app {}
    app:post("/serving-endpoints/:name/invocations", function()
      hits = hits + 1
      if hits > 1 then return { json = { ok = true } } end
      return { status = 503, headers = { ["retry-after"] = "1" }, json = { message = "busy" } }
    end)
    local server <close> = fixture.need(app:listen "127.0.0.1:0")
    local workspace = fixture.need(sluice.workspace { host = server.url, token = "any" })
    local breaker = layers.breaker { minimum = 1, cooldown = 0.2, random = function() return 0 end }
    local first = breaker(workspace:endpoint "a")
    local chat = layers.fallback { first } (first)
    assert.is_nil((chat:query({}, { timeout = 0.5 })))
    local started = task.now()
    assert.is_table((chat:query {}))
    assert.is_true(task.now() - started > 0.7)
    assert.equal(2, hits)
  end)
end)

describe("scripts/health_check.lua", function()
  it("tells by its exit status", function()
    local result = support.sluice("--emulator", "scripts/health_check.lua")
    assert.equal(3, result.status, result.err)
    assert.matches("^ready +healthy +%d+ ms  READY\n", result.out)
    assert.matches("\ndeploying +not_ready +%d+ ms  ready NOT_READY", result.out)
    with_emulator({ deploy_time = 0 }, function(_, url)
      support.with_file("", function(out)
        local command = "( DATABRICKS_HOST=%s DATABRICKS_TOKEN=any timeout 10 %s scripts/health_check.lua "
          .. "--probe --timeout 5 chat; echo status $? ) >%s 2>&1 &"
        os.execute(command:format(url, support.quote(support.binary), out))
        assert.is_true(fixture.eventually(function()
          return support.read_file(out):find "status %d"
        end))
        assert.matches("^chat +healthy +%d+ ms  READY\nstatus 0\n", support.read_file(out))
      end)
    end)
  end)
end)

describe("scripts/health_server.lua", function()
  it_of_program("serves the health of an endpoint, and is alive but not ready while it ends", function()
    with_emulator({ deploy_time = 0 }, function(_, url)
      local words = "scripts/health_server.lua --listen 127.0.0.1:0 --drain 0.6 --every 1 --probe chat"
      fixture.with_script(url, words, function(address, pid)
        assert.is_true(fixture.eventually(function() return get(address, "/health") == 200 end))
        os.execute(("kill %d"):format(pid))
        assert.is_true(fixture.eventually(function() return get(address, "/ready") == 503 end))
        assert.equal(200, (get(address, "/live")))
        assert.is_true(fixture.eventually(function()
          return http.request { url = address .. "/live" } == nil
        end))
      end)
    end)
  end)
end)
