-- SPDX-License-Identifier: MIT
-- sluice.health in simulated time: looks, the monitor, and the layers that go by what is known.

local check = require "sluice.health.check"
local errors = require "sluice.errors"
local health = require "sluice.health"
local layers = require "sluice.layers"
local monitors = require "sluice.health.monitor"
local sluice = require "sluice"
local stream = require "sluice.stream"
local task = require "sluice.task"
local verdict = require "sluice.health.verdict"

local function none() return 0 end -- no jitter

-- An endpoint that does as `server` says: `server.state`, `.state_err`, `.err`, `.takes` seconds; it counts.
local function endpoint_of(server, name)
  server.calls, server.looks = 0, 0
  local function answer(request, given)
    server.calls, server.request, server.given = server.calls + 1, request, given
    if server.takes then task.sleep(server.takes) end
    if server.err then return nil, server.err end
    return { ok = true }
  end
  local endpoint = { name = name or "e", query = function(_, ...) return answer(...) end }
  function endpoint.stream(_, ...)
    local value, err = answer(...)
    if not value then return nil, err end
    local left = { "a" }
    return stream.wrap {
      next = function() return table.remove(left), server.breaks end,
      close = function() end,
    }
  end
  function endpoint.serving_state(_, given)
    server.looks, server.limit = server.looks + 1, given.timeout
    if server.raises then error "broken" end
    if server.state_takes then task.sleep(server.state_takes) end
    if server.state_err then return nil, server.state_err end
    local state = server.state or "READY"
    return { ready = state == "READY", state = state, detail = "it is " .. state }
  end
  return endpoint
end

local function unavailable(fields) return errors.new("TemporarilyUnavailable", fields) end

local function about(expected, actual)
  assert.is_true(math.abs(expected - actual) < 1e-3, ("%s is not %s"):format(actual, expected))
end

local function simulated(name, f)
  it(name, function() task.simulate(f) end)
end

describe("health.check", function()
  simulated("asks for the serving state, and nothing else", function()
    local server = {}
    local found = sluice.health.check(endpoint_of(server))
    assert.same({
      endpoint = "e", status = "healthy", ready = true, state = "READY", source = "state", age = 0,
      latency = 0,
    }, found)
    assert.same({ 1, 0 }, { server.looks, server.calls })
    about(10, server.limit)
    server.state = "NOT_READY"
    found = health.check(endpoint_of(server), { probe = true })
    assert.same({ "not_ready", false, "NOT_READY", "it is NOT_READY", 0 },
      { found.status, found.ready, found.state, found.error, server.calls })
    server.state_err = errors.new("ResourceDoesNotExist", { message = "no such endpoint", retry_after = 3 })
    found = health.check(endpoint_of(server))
    assert.same({ "error", false, nil, "ResourceDoesNotExist", 3 },
      { found.status, found.ready, found.state, found.kind, found.retry_after })
    assert.matches("no such endpoint", found.error)
    assert.is_nil(found.err)
  end)

  simulated("sends a probe of one token that is not kept, retried, hedged or answered by another", function()
    local server, other = { takes = 0.5 }, {}
    local chat = sluice.pipeline(endpoint_of(server), {
      layers.cache {}, layers.fallback { endpoint_of(other, "other") }, layers.hedge { delay = 0.1 },
      layers.retry { attempts = 3 },
    })
    for _ = 1, 2 do
      local found = health.check(chat, { probe = true, timeout = 2 })
      assert.same({ "healthy", "probe", "READY" }, { found.status, found.source, found.state })
      about(0.5, found.latency)
    end
    assert.same({ 2, 1, true }, { server.calls, server.request.max_tokens, server.given.probe })
    about(2, server.given.timeout)
    server.err, server.calls = unavailable { message = "busy" }, 0
    local found = health.check(chat, { probe = true })
    assert.same({ "error", "READY", "TemporarilyUnavailable", 1, 0 },
      { found.status, found.state, found.kind, server.calls, other.calls })
    server.err = nil
    health.check(chat, { probe = { input = "ping" } })
    assert.same({ input = "ping" }, server.request)
  end)

  simulated("is bounded in time, and cancelled cleanly", function()
    local server = { takes = 1e6 }
    local endpoint = endpoint_of(server)
    local found = health.check(endpoint, { probe = true, timeout = 3 })
    assert.same({ "error", "TimeoutError" }, { found.status, found.kind })
    assert.matches("no answer within 3 s", found.error)
    about(3, found.latency)
    local job = task.spawn(health.check, endpoint, { probe = true })
    task.sleep(1)
    job:cancel "enough"
    local ok, raised = pcall(job.join, job)
    assert.same({ false, "TaskCancelled" }, { ok, raised.kind })
    local value, err = task.timeout(1, health.check, endpoint, { probe = true })
    assert.same({ nil, "TimeoutError" }, { value, err.kind })
    server.state_takes = 1e6
    assert.equal("TimeoutError", health.check(endpoint).kind)
  end)

  it("wants a probe where there is no state to ask for, and checks its options", function()
    local plain = { name = "plain", query = function() return {} end }
    assert.has_error(function() health.check(plain) end)
    assert.equal("healthy", health.check(plain, { probe = true }).status)
    for _, wrong in ipairs { { probe = 1 }, { timeout = 0 }, { prob = true } } do
      assert.has_error(function() health.check(plain, wrong) end)
    end
    assert.has_error(function() health.check {} end)
    assert.has_error(function() health.check() end)
    assert.has_error(function() check.endpoint("x", 5, true) end)
    assert.is_string(check.OPTIONS.timeout)
    assert.equal("error", check.run({ query = function() return nil, "a text" end }, { probe = true }).status)
  end)
end)

-- Runs f(monitor, server, watched endpoint) in simulated time.
local function with_monitor(options, f)
  task.simulate(function()
    local server = options.server or {}
    options.server, options.random = nil, none
    local monitor <close> = monitors.new(options)
    f(monitor, server, monitor:watch(endpoint_of(server)))
  end)
end

describe("health.monitor", function()
  it("is not ready before its first look, and keeps ages", function()
    with_monitor({ every = 30 }, function(monitor, server)
      local report = monitor:report()
      assert.same({ false, "not_ready", { "e: not looked at yet" } },
        { report.ready, report.status, report.reasons })
      assert.is_nil(monitor:get("e").age)
      task.sleep(10)
      report = monitor:report()
      assert.same({ true, "healthy" }, { report.ready, report.status })
      assert.same({ nil, nil }, { report.reasons, report.retry_after })
      local each = report.endpoints[1]
      assert.same({ "e", "healthy", "READY", "state" },
        { each.endpoint, each.status, each.state, each.source })
      about(10, each.age)
      task.sleep(25)
      assert.equal(2, server.looks)
      about(5, monitor:get("e").age)
      assert.is_nil(monitor:get "other")
    end)
  end)

  it("takes endpoints as an array and by name, and needs all of them or any", function()
    task.simulate(function()
      local well, ill = {}, { state = "NOT_READY" }
      local monitor <close> = health.monitor {
        endpoints = { endpoint_of(well, "first"), second = endpoint_of(ill) }, random = none,
      }
      local report = monitor:check()
      assert.same({ false, "not_ready", { "second: it is NOT_READY" } },
        { report.ready, report.status, report.reasons })
      local any <close> = health.monitor {
        endpoints = { endpoint_of(well, "first"), endpoint_of(ill, "second") }, needs = "any", random = none,
      }
      report = any:check()
      assert.same({ true, "healthy", 1, "first" },
        { report.ready, report.status, #report.reasons, report.endpoints[1].endpoint })
    end)
  end)

  it("believes a NOT_READY at once, a failure when it comes twice, and looks sooner meanwhile", function()
    local changes = {}
    local function note(name, found) changes[#changes + 1] = name .. found.status end
    local options = { every = 50, on_change = note }
    with_monitor(options, function(monitor, server)
      task.sleep(1)
      server.state_err = unavailable {}
      task.sleep(50)
      assert.same({ true, 2 }, { monitor:get("e").ready, server.looks })
      task.sleep(10)
      local found = monitor:get "e"
      assert.same({ false, "error", "TemporarilyUnavailable" }, { found.ready, found.status, found.kind })
      local report = monitor:report()
      assert.equal("error", report.status)
      about(9, report.retry_after)
      server.state_err = nil
      task.sleep(10)
      assert.is_true(monitor:get("e").ready)
      server.state = "NOT_READY"
      task.sleep(51)
      assert.equal("not_ready", monitor:get("e").status)
      assert.same({ "ehealthy", "eerror", "ehealthy", "enot_ready" }, changes)
    end)
  end)

  it("hears live traffic: failures in a row, answers, and never who leaves", function()
    with_monitor({ every = 1000 }, function(monitor, server, chat)
      task.sleep(1)
      server.err = unavailable {}
      chat:query {}
      assert.is_true(monitor:get("e").ready)
      chat:query {}
      assert.same({ "error", "traffic" }, { monitor:get("e").status, monitor:get("e").source })
      server.err = nil
      chat:query {}
      assert.same({ "healthy", 0 }, { monitor:get("e").status, monitor:get("e").age })
      server.err = errors.new "BadRequest"
      chat:query {}
      for _, kind in ipairs { "Cancelled", "QueueFull", "NotFound", "PermissionDenied", "TooManyRequests" } do
        server.err = errors.new(kind)
        for _ = 1, 3 do chat:query {} end
        assert.is_true(monitor:get("e").ready, kind)
      end
      server.err, server.takes = unavailable {}, 100
      for _ = 1, 3 do task.timeout(1, chat.query, chat, {}) end
      local job = task.spawn(chat.query, chat, {})
      task.sleep(1)
      job:cancel()
      pcall(job.join, job)
      assert.is_true(monitor:get("e").ready)
    end)
  end)

  it("hears how streams end", function()
    with_monitor({ every = 1000, fall = 1 }, function(monitor, server, chat)
      task.sleep(1)
      local left = assert(chat:stream {})
      server.breaks = errors.new "TruncatedStream"
      left:close()
      assert.is_true(monitor:get("e").ready)
      local broken = assert(chat:stream {})
      broken:collect()
      assert.equal("TruncatedStream", monitor:get("e").kind)
      server.breaks = nil
      assert(chat:stream {}):collect()
      assert.is_true(monitor:get("e").ready)
      server.err = unavailable {}
      chat:stream {}
      assert.is_false(monitor:get("e").ready)
    end)
  end)

  it("looks soon when traffic begins to fail, and not where it shows that all is well", function()
    with_monitor({ every = 100 }, function(monitor, server, chat)
      task.sleep(50)
      server.err, server.state = unavailable {}, "NOT_READY"
      chat:query {}
      task.sleep(0.01)
      assert.same({ "not_ready", 2 }, { monitor:get("e").status, server.looks })
      server.err, server.state = nil, nil
      for _ = 1, 30 do
        chat:query {}
        task.sleep(10)
      end
      assert.same({ "healthy", 2 }, { monitor:get("e").status, server.looks })
    end)
  end)

  it("takes what went by its layer, from monitor:record", function()
    with_monitor({ fall = 1 }, function(monitor, _, chat)
      assert.is_table(chat)
      monitor:record("e", unavailable {})
      assert.equal("error", monitor:get("e").status)
      monitor:record("e", nil)
      assert.is_true(monitor:get("e").ready)
      assert.has_error(function() monitor:record("other") end)
    end)
  end)

  it("goes on where a look raises, and where one hangs", function()
    with_monitor({ every = 10, timeout = 5, fall = 1 }, function(monitor, server)
      task.sleep(1)
      server.state_takes = 1e9
      task.sleep(15)
      assert.matches("no answer within 5 s", monitor:get("e").error)
      server.state_takes, server.raises = nil, true
      task.sleep(10)
      assert.matches("broken", monitor:get("e").error)
      server.raises = nil
      task.sleep(10)
      assert.is_true(monitor:get("e").ready)
    end)
  end)

  it("ends with its close, hung looks too", function()
    with_monitor({}, function(monitor, server, chat)
      server.state_takes = 1e9
      task.sleep(1)
      monitor:close()
      monitor:close()
      local looks = server.looks
      task.sleep(1000)
      assert.equal(looks, server.looks)
      assert.is_table((chat:query {}))
    end)
  end)

  it("keeps the later of two times to come back", function()
    with_monitor({}, function(monitor, server, chat)
      task.sleep(1)
      server.err = errors.new("TooManyRequests", { retry_after = 30 })
      chat:query {}
      about(30, chat:available_in())
      server.err = errors.new("TooManyRequests", { retry_after = 5 })
      chat:query {}
      about(30, chat:available_in())
      about(30, monitor:get("e").cooling)
      task.sleep(10)
      server.err = errors.new("TooManyRequests", { retry_after = 60 })
      chat:query {}
      about(60, chat:available_in())
      assert.is_true(monitor:get("e").ready)
    end)
  end)

  it("tells of an open circuit, which its probes can close", function()
    task.simulate(function()
      local server = {}
      local guarded = layers.breaker { minimum = 1, cooldown = 20, random = none } (endpoint_of(server))
      local monitor <close> = health.monitor { probe = true, every = 30, fall = 1, random = none }
      local chat = monitor:watch(guarded)
      task.sleep(1)
      assert.is_true(monitor:get("e").ready)
      server.err = unavailable {}
      chat:query {}
      server.err = nil
      task.sleep(0)
      local report = monitor:report()
      assert.same({ false, "open" }, { report.ready, guarded.breaker.state })
      assert.is_true(report.retry_after > 1)
      task.sleep(40) -- nobody asks
      assert.same({ true, "closed" }, { monitor:report().ready, guarded.breaker.state })
    end)
  end)

  it("is a layer too, and checks what it is given", function()
    task.simulate(function()
      local server = {}
      local monitor <close> = health.monitor { probe = true }
      local chat = sluice.pipeline(endpoint_of(server), { monitor:layer "chat" })
      chat:query {}
      assert.equal("healthy", monitor:get("chat").status)
      assert.equal(chat.name, monitor:watch(endpoint_of(server), "chat").name)
      assert.equal(1, #monitor:report().endpoints)
      for _, wrong in ipairs {
        { every = 0 }, { needs = "some" }, { fall = 0 }, { endpoints = { 5 } }, { on = 1 },
      } do
        assert.has_error(function() health.monitor(wrong) end)
      end
      assert.has_error(function() health.monitor { endpoints = { { query = print } } } end)
      assert.has_error(function() monitor.report() end)
      assert.has_error(function() return health.chek end)
    end)
  end)
end)

describe("layers.fallback, where endpoints are left alone", function()
  local function setup(options)
    local servers, targets = {}, {}
    for index = 1, 2 do
      servers[index] = {}
      local given = { minimum = 1, cooldown = 10 * index, random = none }
      targets[index] = layers.breaker(given)(endpoint_of(servers[index], "e" .. index))
    end
    options = options or {}
    options[1] = targets[2]
    return layers.fallback(options)(targets[1]), servers
  end

  local function break_both(chat, servers)
    servers[1].err, servers[2].err = unavailable {}, unavailable {}
    assert.is_nil((chat:query {}))
    servers[1].err, servers[2].err = nil, nil
  end

  simulated("passes over one without asking it", function()
    local chat, servers = setup()
    servers[1].err = unavailable {}
    assert(chat:query {})
    servers[1].calls = 0
    local answer = assert(chat:query {})
    local facts = sluice.meta(answer)
    assert.same({ "e2", "CircuitOpen", 0 },
      { facts.answered_by, facts.degraded[1].error.kind, servers[1].calls })
    about(10, facts.degraded[1].error.retry_after)
    assert.equal(0, chat:available_in())
  end)

  simulated("waits for the first one to return", function()
    for _, method in ipairs { "query", "stream" } do
      local chat, servers = setup()
      break_both(chat, servers)
      about(10, chat:available_in())
      local started = task.now()
      local answer = assert(chat[method](chat, {}))
      about(10, task.now() - started)
      assert.equal("e1", sluice.meta(answer).answered_by)
    end
  end)

  simulated("lets many wait, of whom one probes", function()
    local chat, servers = setup()
    break_both(chat, servers)
    servers[1].takes, servers[1].calls = 3, 0
    local results = task.map({ 1, 2, 3, 4, 5 }, function() return chat:query {} end, { concurrency = 5 })
    for _, result in ipairs(results) do assert.is_true(result.ok) end
    about(13 + 3, task.now()) -- the others asked while it probed, and a little after
  end)

  simulated("fails at once with the true Retry-After where that is too late", function()
    local cases = {
      { nil, function(chat) return task.timeout(5, chat.query, chat, {}) end },
      { nil, function(chat) return chat:query({}, { timeout = 5 }) end },
      { nil, function(chat) return chat:query({}, { timeout = { queue = 7 } }) end },
      { { max_wait = 0 }, function(chat) return chat:query {} end },
    }
    for _, case in ipairs(cases) do
      local chat, servers = setup(case[1])
      break_both(chat, servers)
      task.sleep(2)
      local started = task.now()
      local answer, err = case[2](chat)
      assert.is_nil(answer)
      assert.same({ "CircuitOpen", 2, started }, { err.kind, #err.fallbacks, task.now() })
      about(8, err.retry_after)
      assert.matches("all 2 endpoints are left alone; the first one returns in 8 s", tostring(err))
    end
  end)

  simulated("takes the wait off the time for the answer", function()
    local chat, servers = setup()
    break_both(chat, servers)
    assert(chat:query({}, { timeout = { total = 15, first_byte = 3 } }))
    about(5, servers[1].given.timeout.total)
    assert.equal(3, servers[1].given.timeout.first_byte)
  end)

  simulated("heeds the pause of a rate limit, and what a monitor knows", function()
    local one, two = { err = errors.new("TooManyRequests", { retry_after = 20 }) }, {}
    local limited = layers.limit { random = none } (endpoint_of(one, "one"))
    local chat = layers.fallback { endpoint_of(two, "two") } (limited)
    assert(chat:query {})
    about(20, layers.available_in(limited))
    chat:query {}
    assert.same({ 1, 2 }, { one.calls, two.calls })
    local monitor <close> = health.monitor { random = none, every = 60 }
    local down = { state = "NOT_READY" }
    local watched = monitor:watch(endpoint_of(down, "down"))
    task.sleep(1)
    local either = layers.fallback { endpoint_of(two, "two") } (watched)
    assert.equal("two", sluice.meta(either:query {}).answered_by)
    assert.equal(0, down.calls)
    about(11, layers.available_in(watched))
    assert.equal(0, layers.available_in { query = print })
  end)
end)

describe("sluice.health.verdict", function()
  it("tells trouble from refusals, and from what is ours", function()
    assert.is_true(verdict.is_failure(errors.new "ConnectError"))
    assert.is_false(verdict.is_failure(errors.new("TimeoutError", { limit = "queue" })))
    assert.is_false(verdict.is_failure "a text")
    assert.is_true(verdict.is_answer(errors.new "BadRequest"))
    assert.is_false(verdict.is_answer(errors.new "Cancelled"))
    assert.is_false(verdict.is_answer(errors.new "QueueFull"))
  end)
end)
