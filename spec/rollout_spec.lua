-- SPDX-License-Identifier: MIT
-- Rollouts in simulated time, against an emulator in process that callers ask all the time.

local errors = require "sluice.errors"
local fixture = require "server_fixture"
local gate = require "sluice.rollout.gate"
local json = require "sluice.json"
local log = require "sluice.log"
local plan = require "sluice.rollout.plan"
local rollout = require "sluice.rollout"
local service = require "rollout_service"
local shift = require "sluice.rollout.shift"
local states = require "sluice.rollout.state"
local support = require "support"
local task = require "sluice.task"

local RATE <const> = 25 -- requests a second

local function options_of(s, more)
  local given = {
    workspace = s.workspace, endpoint = "chat", candidate = "new", source = s.log, bake = 60, check = 10,
  }
  for name, value in pairs(more or {}) do given[name] = value end
  return given
end

-- Runs f(service) in simulated time, with callers; the deployment of a config takes two seconds.
local function with_service(f)
  return task.simulate(function()
    local s = service.new { deploy_time = 2, seed = 5 }
    return service.with_callers(s, RATE, f)
  end, { seed = 3 })
end

-- Runs a rollout, and notes what it tells and the most that the candidate got.
local function run(s, more)
  local kinds, most = {}, 0
  local given = options_of(s, more)
  local inner = given.notify
  function given.notify(event)
    kinds[#kinds + 1] = event.kind
    most = math.max(most, service.share(s))
    if inner then inner(event) end
  end
  local done, err = rollout.run(given)
  return done, err, kinds, most
end

describe("rollout.run", function()
  it("brings a good version in, step by step", function()
    with_service(function(s)
      local started = task.now()
      local done, err, kinds = run(s)
      assert.is_nil(err)
      assert.same({ "completed", "old", 4, false }, { done.outcome, done.control, #done.steps, done.resumed })
      assert.equal(100, service.share(s))
      assert.same({ 10, "pass" }, { done.steps[1].percent, done.steps[1].outcome })
      assert.is_true(done.steps[2].report.variants[2].requests > 200)
      assert.equal("step_started step_passed", table.concat(kinds, " ", 1, 2))
      assert.equal("completed", kinds[#kinds])
      assert.is_true(task.now() - started < 4 * 240 and task.now() - started > 4 * 60)
    end)
  end)

  it("takes a version with 20 % of errors back before half of the traffic reaches it", function()
    with_service(function(s)
      s.emulated:fault { kind = "status", status = 500, probability = 0.2, served_entity = "new" }
      local done, err, kinds, most = run(s)
      assert.is_nil(done)
      assert.same({ "RolledBack", false }, { err.kind, err.retryable })
      assert.matches("success rate is lower by", err.message)
      assert.equal("worse", err.report.verdict)
      assert.is_true(most <= 25 and err.percent <= 25)
      assert.equal(0, service.share(s))
      assert.equal("rolling_back rolled_back", table.concat(kinds, " ", #kinds - 1))
    end)
  end)

  it("takes a version of twice the latency back before half of the traffic reaches it", function()
    with_service(function(s)
      s.emulated:fault { kind = "delay", seconds = 0.02, served_entity = "new" }
      local done, err, _, most = run(s)
      assert.is_nil(done)
      assert.matches("answers take longer by", err.message)
      assert.is_true(most <= 25)
      assert.equal(0, service.share(s))
    end)
  end)

  it("goes by limits, and by a function", function()
    with_service(function(s)
      local _, err = run(s, { gate = { latency_p50 = 0.005, compare = false } })
      assert.matches("latency p50, at most 5 ms: %d+ of %d+ took longer", err.message)
      _, err = run(s, { gate = { error_rate = 0.05, latency_p99 = 1, ttft_p95 = 1 }, hold = 30 })
      assert.matches("inconclusive after %d+ s: TTFT p95.*nothing is known", err.message)
      local asked = {}
      local done = run(s, { bake = 20, steps = { 50, 100 }, gate = function(made, step)
        asked[#asked + 1] = ("%d %s"):format(step.percent, made.control)
        return "pass"
      end })
      assert.equal("completed", done.outcome)
      assert.same({ "50 old", "50 old", "100 old", "100 old" }, asked)
    end)
  end)

  it("waits while it is inconclusive, and no longer than it is told", function()
    with_service(function(s)
      local done, err, kinds = run(s, { gate = { minimum = 100000 }, hold = 100 })
      assert.is_nil(done)
      assert.matches("inconclusive after 160 s: the candidate has %d+ of 100000 requests", err.message)
      assert.same({ "step_started", "holding", "rolling_back", "rolled_back" }, kinds)
    end)
  end)

  it("goes back when it is cancelled, when its gate raises, and past a deadline", function()
    with_service(function(s)
      local kinds = {}
      local function is_told() assert.equal("rolled_back", kinds[#kinds]) end
      local function notify(event) kinds[#kinds + 1] = event.kind end
      local running = task.spawn(rollout.run, options_of(s, { notify = notify }))
      task.sleep(90)
      assert.is_true(service.share(s) > 0)
      running:cancel "Ctrl-C"
      local ok, err = pcall(running.join, running)
      assert.same({ false, "TaskCancelled" }, { ok, err.kind })
      assert.equal(0, service.share(s))
      is_told()
      for _, bad in ipairs { function() error("a fault", 0) end, function() return "maybe" end } do
        ok, err = pcall(rollout.run, options_of(s, { gate = bad, notify = notify }))
        assert.is_false(ok)
        assert.is_truthy(tostring(err):find "a fault" or tostring(err):find 'must return "pass"')
        assert.equal(0, service.share(s))
        is_told()
      end
      local done
      done, err = task.timeout(30, rollout.run, options_of(s, { notify = notify }))
      assert.same({ nil, "TimeoutError" }, { done, err.kind })
      assert.equal(0, service.share(s))
    end)
  end)

  it("goes back when a change of the traffic fails, and says so when it cannot", function()
    with_service(function(s)
      s.emulated:fault { kind = "deployment", outcome = "fails", skip = 1, times = 1 }
      local done, err = run(s)
      assert.same({ nil, "RolledBack", "OperationFailed" }, { done, err.kind, err.cause.kind })
      assert.equal(0, service.share(s))
      s.emulated.faults:clear()
      s.emulated:fault { kind = "status", status = 500, served_entity = "new" }
      s.emulated:fault { kind = "deployment", outcome = "fails", skip = 1, message = "no room" }
      local kinds
      done, err, kinds = run(s)
      assert.same({ nil, "RollbackFailed", "rollback_failed" }, { done, err.kind, kinds[#kinds] })
      assert.matches("could not be given back", err.message)
      assert.matches("no room", tostring(err.cause))
    end)
  end)

  it("takes the old version away at the end, and a failing notification is no failure", function()
    with_service(function(s)
      local lines = {}
      local previous = log.set_output(function(line) lines[#lines + 1] = line end)
      local done = fixture.need(rollout.run(options_of(s, {
        retire = true, bake = 5, steps = { 100 }, gate = { compare = false },
        notify = function() error "deaf" end,
      })))
      log.set_output(previous)
      assert.is_true(done.retired)
      assert.same({ "new" }, shift.entities(fixture.need(s.workspace.serving_endpoints:get "chat")))
      assert.matches("notification failed.*deaf", table.concat(lines))
    end)
  end)

  it("shows a plan, and changes nothing", function()
    task.simulate(function()
      local s = service.new { deploy_time = 0 }
      local done = fixture.need(rollout.run(options_of(s, {
        dry_run = true, retire = true, gate = { error_rate = 0.02, latency_p99 = 2 },
        state = "/nonexistent/state",
      })))
      assert.equal("planned", done.outcome)
      for _, part in ipairs {
        "new to chat, in place of old", "has 0 %% now", "10 %%, looked at for 60 s, at most 240 s", "100 %%",
        "error rate, at most 2.00 %%", "latency p99, at most 2.00 s", "old is taken away", "back to 0 %%",
      } do
        assert.matches(part, done.text)
      end
      assert.equal(0, service.share(s))
    end)
  end)

  it("survives a clock that is set", function()
    with_service(function(s)
      local wall, offset = task.wall, 0
      task.wall = function() return wall() + offset end -- luacheck: ignore 122
      local jumps = { 3600, -7200, 100000, -5 }
      local done, err = run(s, { notify = function(event)
        if event.kind == "step_started" then offset = offset + table.remove(jumps) end
      end })
      task.wall = wall -- luacheck: ignore 122
      assert.is_nil(err)
      assert.equal("completed", done.outcome)
    end)
  end)
end)

describe("a rollout that was killed", function()
  -- Runs f(service, path of a state file).
  local function with_state(f)
    support.with_file("", function(path)
      os.remove(path)
      with_service(function(s) f(s, path) end)
      os.remove(path .. ".lock")
    end)
  end

  local function record(s, phase, step, more)
    local state = {
      endpoint = "chat", candidate = "new", control = "old", steps = { 10, 25, 50, 100 },
      before = { { "old", 100 }, { "new", 0 } }, phase = phase, step = step, since = task.wall(),
    }
    for name, value in pairs(more or {}) do state[name] = value end
    return state, s
  end

  it("goes on where it was, at every step", function()
    with_state(function(s, path)
      for step, percent in ipairs { 10, 25, 50, 100 } do
        for _, phase in ipairs { "shifting", "baking" } do
          local kinds
          local shares = { { "old", 100 - percent }, { "new", percent } }
          fixture.need(shift.to(s.workspace.serving_endpoints, "chat", shares, 60))
          fixture.need(states.write(path, (record(s, phase, step))))
          local done, err
          local easy = { compare = false, minimum = 5 }
          done, err, kinds = run(s, { state = path, bake = 8, check = 4, gate = easy })
          assert.is_nil(err)
          assert.same({ true, "resumed", 100 }, { done.resumed, kinds[1], service.share(s) })
          assert.is_nil(done.steps[step - 1])
          assert.equal("completed", fixture.need(states.read(path)).phase)
        end
      end
    end)
  end)

  it("goes back, where that was begun or is asked for", function()
    with_state(function(s, path)
      for _, more in ipairs { { "rolling_back" }, { "baking", interrupted = "roll_back" } } do
        fixture.need(shift.to(s.workspace.serving_endpoints, "chat", { { "old", 90 }, { "new", 10 } }, 60))
        fixture.need(states.write(path, (record(s, more[1], 1, { reason = "it was bad" }))))
        local done, err = run(s, { state = path, interrupted = more.interrupted })
        assert.same({ nil, "RolledBack", 0 }, { done, err.kind, service.share(s) })
        assert.matches("it was bad", err.message)
        assert.equal("rolled_back", fixture.need(states.read(path)).phase)
      end
      fixture.need(states.write(path, (record(s, "retiring", 4))))
      local done = fixture.need(run(s, { state = path, retire = true }))
      assert.is_true(done.retired)
    end)
  end)

  it("is left alone where it is another one, or somebody changed the traffic", function()
    with_state(function(s, path)
      local cases = {
        { record(s, "baking", 2), "somebody else has changed it" },
        { record(s, "baking", 1, { candidate = "newer" }), "that did not end" },
        { record(s, "baking", 1, { steps = { 50, 100 } }), "that did not end" },
        { { version = 2 }, "version" }, { "text", "no state of a rollout" },
        { record(s, "baking", 9), "no state of a rollout" },
        { record(s, "baking", 1, { before = { { "old", "100" } } }), "no state of a rollout" },
      }
      for _, case in ipairs(cases) do
        local file <close> = fixture.need(io.open(path, "w"))
        if type(case[1]) == "table" and case[1].phase then case[1].version = 1 end
        file:write(json.encode(case[1]))
        file:close()
        local done, err, kinds = run(s, { state = path })
        assert.same({ nil, "RolloutConflict", {} }, { done, err.kind, kinds })
        assert.matches(case[#case], err.message)
      end
      os.remove(path)
      local lock <close> = fixture.need(states.lock(path))
      assert.matches("another program", select(2, run(s, { state = path })).message)
      assert.is_not_nil(lock)
      assert.equal(0, service.share(s))
    end)
  end)
end)

describe("options and endpoints of a rollout", function()
  it("that are wrong are told before anything is changed", function()
    task.simulate(function()
      local s = service.new { deploy_time = 0 }
      for _, case in ipairs {
        { { steps = { 10, 5, 100 } }, "rise to 100" }, { { steps = { 10, 50 } }, "last step must be 100" },
        { { steps = {} }, "last step must be 100" }, { { steps = { 0, 100 } }, "rise to 100" },
        { { steps = { 10, 110 } }, "rise to 100" }, { { steps = { -10, 100 } }, "rise to 100" },
        { { steps = { 12.5, 100 } }, "rise to 100" }, { { control = "new" }, "the same" },
        { { gate = { eror_rate = 1 } }, 'did you mean "error_rate"' },
        { { gate = { error_rate = 5 } }, "below 1" },
        { { bake = -1 }, "bake" }, { { interrupted = "wait" }, '"continue" or "roll_back"' },
        { { workspace = {} }, "must be a workspace" }, { { candidat = "x" }, "candidate" },
        { { source = 5 }, "source" },
      } do
        local ok, message = pcall(rollout.run, options_of(s, case[1]))
        assert.is_false(ok, case[2])
        assert.matches(case[2], tostring(message))
      end
      local given = options_of(s)
      given.source = nil
      assert.is_false((pcall(plan.read, given)))
      for _, case in ipairs {
        { { candidate = "newer" }, 'does not serve "newer" %(did you mean "new"' },
        { { control = "odl" }, 'does not serve "odl" %(did you mean "old"' },
      } do
        local done, err = rollout.run(options_of(s, case[1]))
        assert.same({ nil, "RolloutConflict" }, { done, err.kind })
        assert.matches(case[2], err.message)
      end
      local _, err = rollout.run(options_of(s, { endpoint = "nowhere" }))
      assert.equal("ResourceDoesNotExist", err.kind)
      assert.equal(0, service.share(s))
    end)
  end)

  it("are read as they are", function()
    assert.same({ { "a", 90 }, { "b", 10 } }, shift.traffic { config = { traffic_config = { routes = {
      { served_entity_name = "a", traffic_percentage = 90 },
      { served_model_name = "b", traffic_percentage = "10" },
    } } } })
    assert.same({}, shift.traffic {})
    assert.equal(10, shift.share({ { "b", 10 } }, "b"))
    local rules = gate.read { error_rate = 0.02, ttft_p50 = 1 }
    assert.same({ 2, true, 100 }, { #rules.limits, rules.compare, rules.minimum })
    assert.is_false(states.read "/nonexistent/file")
    local _, err = states.write("/nonexistent/file", {})
    assert.is_true(errors.is(err) and err.kind == "FileError")
    assert.is_function(shift.retire)
    assert.is_function(shift.settled)
    assert.is_function(plan.begin)
    assert.is_function(plan.show)
    assert.is_function(gate.decide)
  end)
end)
