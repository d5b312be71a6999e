-- SPDX-License-Identifier: MIT
-- What a running program tells of itself: the page of its metrics, the figures of its runtime, its tasks.

local core = require "sluice.core.task"
local http = require "sluice.http"
local json = require "sluice.json"
local metrics = require "sluice.metrics"
local runtime = require "sluice.metrics.runtime"
local support = require "support"
local task = require "sluice.task"
local web = require "sluice.web"

local function value_of(page, series)
  local text = ("\n" .. page):match("\n" .. series:gsub("%p", "%%%0") .. " ([^\n]+)\n")
  return text and tonumber(text)
end

-- An app as a user writes it, asked in process.
local function new_app(registry)
  local app = web.app()
  app:get("/metrics", web.metrics(registry))
  app:get("/debug/tasks", web.tasks())
  return app
end

local function get(app, path, headers)
  return assert(app:handle { method = "GET", url = "http://x" .. path, headers = headers or {} })
end

local describe_served = support.needing("server", describe, pending)

describe("web.metrics", function()
  it("answers with the page of a registry", function()
    local registry = metrics.registry()
    registry:counter({ name = "a_total", help = "A." }):inc(5)
    local answer = get(new_app(registry), "/metrics")
    assert.equal(200, answer.status)
    assert.equal("text/plain; version=0.0.4; charset=utf-8", answer.headers["content-type"])
    assert.equal(5, value_of(answer.body, "a_total"))
    assert.equal(1, value_of(answer.body, 'sluice_build_info{version="' .. require("sluice").version .. '"}'))
  end)

  it("adds nothing where it is told so, and nothing twice", function()
    local registry = metrics.registry()
    local app = web.app():get("/metrics", web.metrics(registry, { runtime = false }))
    assert.equal("", get(app, "/metrics").body)
    runtime.add(registry)
    runtime.add(registry)
    assert.equal(1, select(2, get(app, "/metrics").body:gsub("# TYPE sluice_tasks ", "")))
  end)

  it("refuses what is no registry", function()
    for _, wrong in ipairs { "x", {}, 1 } do
      local ok, message = pcall(web.metrics, wrong)
      assert.is_false(ok)
      assert.matches("a registry is needed", message)
    end
  end)
end)

describe("the metrics of the runtime", function()
  it("are what the core, the system and Lua say", function()
    local registry = metrics.registry()
    runtime.add(registry)
    local before = registry:text()
    local waiting = { task.spawn(task.sleep, 5), task.spawn(task.sleep, 5) }
    local after = registry:text()
    assert.equal(2, value_of(after, "sluice_tasks") - value_of(before, "sluice_tasks"))
    local heap = value_of(after, "sluice_lua_heap_bytes")
    assert.is_true(math.abs(heap - collectgarbage "count" * 1024) < heap / 2)
    assert.is_true(value_of(after, "process_resident_memory_bytes") > 1 << 20)
    assert.is_true(value_of(after, "process_cpu_seconds_total") > 0)
    assert.is_true(math.abs(value_of(after, "process_start_time_seconds") - os.time()) < 3600)
    for _, each in ipairs(waiting) do each:cancel() end
  end)

  it("tell how busy the loop is, and how long it kept others waiting", function()
    local before = core.stats()
    for _ = 1, 5 do task.sleep(0.001) end
    local stop = os.clock() + 0.06
    while os.clock() < stop do end
    task.sleep(0.001)
    local after = core.stats()
    assert.is_true(after.turns - before.turns >= 6)
    assert.is_true(after.busy - before.busy >= 0.06)
    assert.is_true(after.lag >= 0.06)
  end)
end)

describe("web.tasks", function()
  it("tells every task, as many as are wanted", function()
    local app, waiting = new_app(metrics.registry()), task.spawn(task.sleep, 5)
    task.sleep(0)
    local told = assert(json.decode(get(app, "/debug/tasks").body))
    assert.equal(#told.tasks, told.total)
    local found
    for _, row in ipairs(told.tasks) do
      found = found or row.waits_for == "task.sleep" and row.state == "waiting"
    end
    assert.is_true(found)
    for limit, count in pairs { ["1"] = 1, ["0"] = 0, ["-5"] = 0, x = told.total } do
      told = assert(json.decode(get(app, "/debug/tasks?limit=" .. limit).body))
      assert.equal(count, #told.tasks)
    end
    waiting:cancel()
  end)

  it("tells nobody who comes through a proxy", function()
    local app = new_app(metrics.registry())
    for _, name in ipairs { "X-Forwarded-For", "Forwarded", "Via", "X-Real-IP" } do
      local answer = get(app, "/debug/tasks", { [name] = "127.0.0.1" })
      assert.equal(403, answer.status)
      assert.is_nil(answer.body:find("waits_for", 1, true))
    end
  end)
end)

describe_served("metrics over a socket", function()
  it("tell of connections, and tasks to callers of this machine alone", function()
    local app = new_app(metrics.registry())
    local server <close> = assert(app:listen "127.0.0.1:0")
    local page = assert(http.request { url = server.url .. "/metrics" }).body
    assert.equal(1, value_of(page, "sluice_server_connections"))
    assert.equal(1, value_of(page, "http_server_active_requests"))
    assert.equal(1, value_of(page, 'http_client_open_connections{http_connection_state="active"}'))
    assert.equal(0, value_of(page, "sluice_http_client_waiting"))
    assert.equal(200, assert(http.request { url = server.url .. "/debug/tasks" }).status)
    local far = web.app()
    far:get("/", web.tasks())
    local address = support.shell("hostname -I").out:match "^%d+%.%d+%.%d+%.%d+"
    if not address or address:find "^127%." then return end
    local open <close> = assert(far:listen("0.0.0.0:0"))
    local url = ("http://%s:%s/"):format(address, open.address:match ":(%d+)$")
    local answer = assert(http.request { url = url })
    assert.equal(403, answer.status)
  end)

  it("forget servers that are closed", function()
    local registry = metrics.registry()
    local server = assert(new_app(registry):listen "127.0.0.1:0")
    assert(http.request { url = server.url .. "/metrics" })
    assert.equal(1, (require("sluice.web.server").counts()))
    server:close()
    assert.equal(0, value_of(registry:text(), "sluice_server_connections"))
    assert.equal(0, value_of(registry:text(), "http_server_active_requests"))
  end)

  it("are none of a client that was not used", function()
    assert.same({ "active", "idle", "open", "waiting" }, (function()
      local names = {}
      for name in pairs(http.stats()) do names[#names + 1] = name end
      table.sort(names)
      return names
    end)())
  end)
end)
