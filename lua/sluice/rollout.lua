-- SPDX-License-Identifier: MIT
-- Gradual rollouts: traffic goes to a new version step by step, a gate looks at each, and what fails goes back.

local errors = require "sluice.errors"
local gates = require "sluice.rollout.gate"
local log = require "sluice.log"
local plan = require "sluice.rollout.plan"
local report = require "sluice.report"
local shift = require "sluice.rollout.shift"
local states = require "sluice.rollout.state"
local task = require "sluice.task"

local rollout = {}

-- Less than this is no time to wait: a sleep of under a microsecond does not move the clock.
local MOMENT <const> = 0.001

-- ---- telling ----

local function tell(run, kind, more)
  local notify = run.rules.notify
  if not notify then return end
  local event = {
    kind = kind, endpoint = run.rules.endpoint, candidate = run.rules.candidate,
    percent = run.state.steps[run.state.step],
  }
  for name, value in pairs(more or {}) do event[name] = value end
  local ok, problem = pcall(notify, event)
  if not ok then log.warn("a rollout's notification failed", { error = problem, kind = kind }) end
end

local function show(run, text, ...)
  if run.status then run.status:set(text:format(...)) end
end

local function save(run, phase, more)
  local state = run.state
  state.phase = phase
  for name, value in pairs(more or {}) do state[name] = value end
  if not run.rules.state then return true end
  return states.write(run.rules.state, state)
end

-- ---- one step ----

local function look(run, percent, began)
  local rules = run.rules
  local step = {
    candidate = rules.candidate, control = run.state.control, endpoint = rules.endpoint, percent = percent,
    elapsed = task.now() - began,
  }
  if not rules.source then return nil, gates.decide(rules.gate, nil, step) end
  local split = percent < 100 and { [step.control] = 100 - percent, [step.candidate] = percent } or nil
  local made, err = report.ab {
    source = rules.source, table = rules.table, by = rules.by, names = rules.names,
    control = step.control, split = split,
    minimum = rules.gate.minimum, title = ("%s at %d %%"):format(rules.endpoint, percent),
    -- of this step, by the clock as it is now: it may have been set
    since = task.wall() - step.elapsed,
  }
  if not made then return nil, "hold", "no report: " .. tostring(err) end
  return made, gates.decide(rules.gate, made, step)
end

local function note(run, percent, made, outcome, reason)
  run.last = made
  run.steps[run.state.step] = {
    percent = percent, outcome = outcome, reason = reason, report = made,
  }
end

-- Looks at a step until its gate passes or fails, or nothing is known for too long.
local function bake(run, percent)
  local rules = run.rules
  local gone = math.max(0, task.wall() - run.state.since)
  local began = task.now() - gone
  local baked_at = task.now() + rules.bake - math.min(gone, rules.bake)
  local give_up_at, is_holding = baked_at + rules.hold, false
  while true do
    local next_at = is_holding and give_up_at or baked_at
    task.sleep(math.max(0, math.min(rules.check, next_at - task.now())))
    local made, outcome, reason = look(run, percent, began)
    note(run, percent, made, outcome, reason)
    if outcome == "fail" then return false, reason end
    local now = task.now() + MOMENT
    if now >= baked_at then
      if outcome == "pass" then return true end
      if now >= give_up_at then
        return false, ("inconclusive after %.0f s: %s"):format(now - began, reason)
      end
      if not is_holding then tell(run, "holding", { reason = reason, report = made }) end
      is_holding = true
    end
    show(run, "%d %%, %s for %.0f s: %s", percent, is_holding and "held" or "baking", now - began, reason)
  end
end

local function shares_at(state, percent)
  return { { state.control, 100 - percent }, { state.candidate, percent } }
end

-- Has the step's traffic changed, unless that was done before, and looks at it.
local function take_step(run)
  local state, rules = run.state, run.rules
  local percent = state.steps[state.step]
  if state.phase ~= "baking" then
    local ok, err = save(run, "shifting")
    if not ok then return nil, err end
    show(run, "%d %%: changing the traffic", percent)
    ok, err = shift.to(rules.serving, rules.endpoint, shares_at(state, percent), rules.timeout)
    if not ok then return nil, err end
    ok, err = save(run, "baking", { since = task.wall() })
    if not ok then return nil, err end
    tell(run, "step_started")
  end
  local passed, reason = bake(run, percent)
  if not passed then return false, reason end
  tell(run, "step_passed", { report = run.last, reason = run.steps[state.step].reason })
  return true
end

local function finish(run)
  local rules = run.rules
  if rules.retire then
    local ok, err = save(run, "retiring")
    if not ok then return nil, err end
    show(run, "taking %s away", run.state.control)
    ok, err = shift.retire(rules.serving, rules.endpoint, rules.candidate, rules.timeout)
    if not ok then return nil, err end
  end
  local ok, err = save(run, "completed")
  if not ok then return nil, err end
  tell(run, "completed", { report = run.last })
  return true
end

-- Goes on from where the state says; false and a reason where the gate fails.
local function advance(run)
  local state = run.state
  while state.phase ~= "retiring" do
    local passed, reason = take_step(run)
    if not passed then return passed, reason end
    if state.step == #state.steps then break end
    state.step, state.phase = state.step + 1, "shifting"
  end
  return finish(run)
end

-- ---- back ----

local function roll_back(run, reason)
  local rules, state = run.rules, run.state
  tell(run, "rolling_back", { reason = reason, report = run.last })
  show(run, "rolling back: %s", reason)
  -- a state that cannot be written must not keep the traffic where it is
  local noted, problem = save(run, "rolling_back", { reason = reason })
  local ok, err = shift.to(rules.serving, rules.endpoint, state.before, rules.timeout)
  if not ok then
    tell(run, "rollback_failed", { reason = reason, error = err })
    return nil, err
  end
  if noted then noted, problem = save(run, "rolled_back") end
  if not noted then log.warn("the state of a rollout could not be written", { error = problem }) end
  tell(run, "rolled_back", { reason = reason, report = run.last })
  return true
end

local function failure(run, kind, message, cause)
  return errors.new(kind, {
    operation = "roll out", object = ("%s to %s"):format(run.rules.candidate, run.rules.endpoint),
    message = message, cause = cause, retryable = false, report = run.last, steps = run.steps,
    percent = run.state.steps[run.state.step],
  })
end

-- Rolls back whatever happens meanwhile; the err of the whole rollout.
local function go_back(run, reason, cause)
  local ok, err = task.shield(roll_back, run, reason)
  if ok then return failure(run, "RolledBack", reason, cause) end
  local text = "%s; and the traffic could not be given back, so %s may still have some"
  return failure(run, "RollbackFailed", text:format(reason, run.rules.candidate), err)
end

local function summary(run)
  return {
    outcome = "completed", endpoint = run.rules.endpoint, candidate = run.rules.candidate,
    control = run.state.control, steps = run.steps, resumed = run.resumed, retired = run.rules.retire,
  }
end

-- Runs from the state to an end.
local function carry_out(run)
  local state = run.state
  if state.phase == "rolling_back" or run.rules.interrupted == "roll_back" and run.resumed then
    return nil, go_back(run, state.reason or "the rollout was interrupted")
  end
  local ok, done, reason = pcall(advance, run)
  if not ok then
    local err = go_back(run, "the rollout ended: " .. tostring(done))
    if err.kind == "RollbackFailed" then log.error("a rollback failed", { error = err }) end
    error(done, 0) -- cancelled, past a deadline, or a fault of the gate's
  end
  if done then return summary(run) end
  if done == false then return nil, go_back(run, reason) end
  return nil, go_back(run, tostring(reason), reason)
end

local function open_status(rules)
  if not rules.progress then return nil end
  local output = type(rules.progress) == "table" and rules.progress or nil
  return require("sluice.progress").status { label = rules.endpoint, output = output }
end

local NO_LOCK <const> = setmetatable({}, { __close = function() end })

local function take_lock(rules)
  if not rules.state or rules.dry_run then return NO_LOCK end
  return states.lock(rules.state)
end

---Rolls a new version out: for each step changes the traffic and waits until that is live, looks at it for `bake`
---seconds, and goes on where the gate passes; what fails, stays inconclusive for longer than `hold`, raises, or is
---cancelled goes back to the traffic there was. Waits.
---
---With `state`, a rollout whose program was killed goes on (or back) where it was when it is run again.
---@param given sluice.RolloutOptions
---@return sluice.RolloutSummary?
---@return sluice.Error? err RolledBack, with `report` and `percent`; RollbackFailed; RolloutConflict where the endpoint or the state file is not as the rollout needs it; or as of the calls it begins with
function rollout.run(given)
  local rules = plan.read(given)
  local lock, problem = take_lock(rules)
  if not lock then return nil, problem end
  local _ <close> = lock
  local run, err = plan.begin(rules)
  if not run then return nil, err end
  if rules.dry_run then return plan.show(run) end
  local status <close> = open_status(rules)
  run.status = status
  if run.resumed then tell(run, "resumed") end
  return carry_out(run)
end

return rollout
