-- SPDX-License-Identifier: MIT
-- What a rollout is to do: its options, the endpoint as it is, and what an earlier run has left.

local errors = require "sluice.errors"
local gates = require "sluice.rollout.gate"
local options = require "sluice.options"
local shift = require "sluice.rollout.shift"
local states = require "sluice.rollout.state"

local plan = {}

---@class sluice.RolloutOptions
---@field workspace sluice.Workspace
---@field endpoint string
---@field candidate string the served entity that is to get the traffic; it is deployed, and may have none yet
---@field control? string the served entity that has the traffic; where there are two, the other one
---@field steps? integer[] percentages that rise to 100: {10, 25, 50, 100}
---@field bake? number seconds that each step is looked at, 600
---@field hold? number seconds that an inconclusive step is looked at beyond that, three times `bake`
---@field check? number seconds between two looks, a tenth of `bake`
---@field gate? sluice.RolloutGate|fun(report: sluice.Report?, step: table): "pass"|"hold"|"fail", string? what must hold, compared with the control by default
---@field source? sluice.ReportSource the inference log, see report.ab; without one the gate is a function that gets no report
---@field table? string see report.ab
---@field by? string see report.ab
---@field names? table<string, string> see report.ab
---@field state? string a file that keeps where the rollout is
---@field interrupted? "continue"|"roll_back" what to do with a rollout that was killed; "continue"
---@field retire? boolean whether the last step takes the old version away, false
---@field timeout? number seconds for each change of the traffic, 1200
---@field notify? fun(event: table) is told of what happens: `event.kind` is "step_started", "step_passed", "holding", "rolling_back", "rolled_back", "rollback_failed", "resumed" or "completed"; may wait
---@field progress? boolean|sluice.ProgressOutput true: a row on standard error
---@field dry_run? boolean whether to show the plan only: nothing is changed
local OPTIONS <const> = {
  workspace = "table", endpoint = "name", candidate = "name", control = "name?", steps = "table?",
  bake = "seconds?", hold = "seconds?", check = "positive?", gate = "table|callable?", source = "any?",
  table = "name?", by = "name?", names = "table?", state = "name?", retire = "boolean?",
  timeout = "positive?",
  notify = "callable?", progress = "boolean|table?", dry_run = "boolean?",
  interrupted = function(value)
    return value == "continue" or value == "roll_back", '"continue" or "roll_back"'
  end,
}

---What a rollout came to.
---@class sluice.RolloutSummary
---@field outcome "completed"|"planned"
---@field endpoint string
---@field candidate string
---@field control string
---@field steps table<integer, { percent: integer, outcome: string, reason: string, report: sluice.Report? }>
---@field resumed boolean whether it went on where an earlier run was
---@field retired boolean
---@field text string? of a plan: what would be done

local STEPS <const> = { 10, 25, 50, 100 }
local BAKE <const>, HOLDS <const>, LOOKS <const> = 600, 3, 10
local TIMEOUT <const> = 20 * 60
local LONGEST_CHECK <const> = 60

local function check_steps(steps)
  local before = 0
  for index, percent in ipairs(steps) do
    if math.type(percent) ~= "integer" or percent <= before or percent > 100 then
      options.misuse("rollout.run: steps must be whole percentages that rise to 100; step %d is %s", index,
        tostring(percent))
    end
    before = percent
  end
  if before ~= 100 then options.misuse("rollout.run: the last step must be 100, got %d", before) end
  return steps
end

---Reads the options. Raises where they are wrong.
---@param given sluice.RolloutOptions
---@return table rules
function plan.read(given)
  given = options.check("rollout.run", given, OPTIONS)
  if type(given.workspace.serving_endpoints) ~= "table" then
    options.misuse('rollout.run: option "workspace" must be a workspace, as sluice.workspace gives it')
  elseif given.source == nil and type(given.gate) ~= "function" then
    options.misuse('rollout.run: option "source" is missing: the log that the gate looks at')
  elseif given.control == given.candidate then
    options.misuse("rollout.run: control and candidate are the same")
  end
  local bake = given.bake or BAKE
  return {
    serving = given.workspace.serving_endpoints, endpoint = given.endpoint, candidate = given.candidate,
    control = given.control, steps = check_steps(given.steps or STEPS), bake = bake,
    hold = given.hold or bake * HOLDS,
    check = given.check or math.max(0.01, math.min(LONGEST_CHECK, bake / LOOKS)),
    gate = gates.read(given.gate), source = given.source, table = given.table,
    by = given.by, names = given.names, state = given.state,
    interrupted = given.interrupted or "continue", retire = given.retire or false,
    timeout = given.timeout or TIMEOUT, notify = given.notify, progress = given.progress,
    dry_run = given.dry_run,
  }
end

local function conflict(rules, message)
  return errors.new("RolloutConflict", {
    operation = "roll out", object = ("%s to %s"):format(rules.candidate, rules.endpoint), message = message,
  })
end

-- ---- what there is ----

local function find_control(rules, names, shares)
  if rules.control then return rules.control end
  local others = {}
  for _, name in ipairs(names) do
    if name ~= rules.candidate then others[#others + 1] = name end
  end
  if #others == 1 then return others[1] end
  local busy = {}
  for _, name in ipairs(others) do
    if shift.share(shares, name) > 0 then busy[#busy + 1] = name end
  end
  if #busy == 1 then return busy[1] end
  return nil, ("it serves %s: say which one is the control"):format(table.concat(names, ", "))
end

local function check_endpoint(rules, endpoint)
  local names, shares, there = shift.entities(endpoint), shift.traffic(endpoint), {}
  for _, name in ipairs(names) do there[name] = true end
  local control, problem = find_control(rules, names, shares)
  if there[rules.candidate] and not control then return nil, conflict(rules, problem) end
  for _, name in ipairs { rules.candidate, control } do
    if not there[name] then
      return nil, conflict(rules, ('it does not serve "%s"%s'):format(name, options.hint(name, there)))
    end
  end
  for _, share in ipairs(shares) do
    if share[2] > 0 and share[1] ~= rules.candidate and share[1] ~= control then
      local text = "%s has %d %% of the traffic, and is no part of this"
      return nil, conflict(rules, text:format(share[1], share[2]))
    end
  end
  return control, shares
end

-- ---- an earlier run ----

local OVER <const> = { completed = true, rolled_back = true }

local function is_same_list(one, other)
  return table.concat(one, " ") == table.concat(other, " ")
end

local function check_state(rules, state)
  local is_same = state.endpoint == rules.endpoint and state.candidate == rules.candidate
    and (rules.control == nil or state.control == rules.control) and is_same_list(state.steps, rules.steps)
  if is_same then return true end
  local text = "%s has a rollout of %s to %s by %s %% that did not end: finish it, or remove the file"
  return nil, conflict(rules, text:format(
    rules.state, state.candidate, state.endpoint, table.concat(state.steps, ", ")))
end

-- The traffic must be as one of the two steps left it between which a kill may have come.
local function check_traffic(rules, state, shares)
  local now, wanted = shift.share(shares, rules.candidate), state.steps[state.step]
  local previous = state.steps[state.step - 1] or shift.share(state.before, rules.candidate)
  if state.phase == "rolling_back" or now == wanted then return true end
  if now == previous then
    if state.phase == "baking" then state.phase = "shifting" end
    return true
  end
  local text = "it has %d %% of the traffic, where %s left it %d or %d: somebody else has changed it"
  return nil, conflict(rules, text:format(now, rules.state, previous, wanted))
end

local function new_state(rules, control, shares)
  local now, first = shift.share(shares, rules.candidate), 1
  while rules.steps[first] < now do first = first + 1 end
  return {
    endpoint = rules.endpoint, candidate = rules.candidate, control = control, steps = rules.steps,
    before = shares, phase = "shifting", step = first,
  }
end

local function earlier(rules)
  if not rules.state then return false end
  local state, err = states.read(rules.state)
  if state == nil then return nil, err end
  if not state or OVER[state.phase] then return false end
  local ok
  ok, err = check_state(rules, state)
  if not ok then return nil, err end
  return state
end

---Looks at the endpoint and the state file. Waits, also for the end of an update that an earlier run has begun.
---@param rules table
---@return table? run
---@return sluice.Error? err
function plan.begin(rules)
  local state, err = earlier(rules)
  if state == nil then return nil, err end
  local endpoint
  endpoint, err = shift.settled(rules.serving, rules.endpoint, rules.timeout)
  if not endpoint then return nil, err end
  if state and state.phase == "retiring" then
    return { rules = rules, state = state, steps = {}, resumed = true }
  end
  local control, shares = check_endpoint(rules, endpoint)
  if not control then return nil, shares end
  if state then
    local ok
    ok, err = check_traffic(rules, state, shares)
    if not ok then return nil, err end
  end
  return {
    rules = rules, state = state or new_state(rules, control, shares), steps = {}, resumed = state ~= false,
  }
end

-- ---- a plan ----

local function add_gate(lines, rules)
  if rules.gate.decide then
    lines[#lines + 1] = "  gate: a function"
    return
  end
  if rules.gate.compare then lines[#lines + 1] = "  gate: not worse than the control" end
  for _, limit in ipairs(rules.gate.limits) do lines[#lines + 1] = "  gate: " .. limit.text end
  lines[#lines + 1] = ("  gate: at least %d requests of each version"):format(rules.gate.minimum)
end

---What a run would do.
---@param run table
---@return sluice.RolloutSummary
function plan.show(run)
  local rules, state = run.rules, run.state
  local now = shift.share(state.before, rules.candidate)
  local lines = { ("%s to %s, in place of %s"):format(rules.candidate, rules.endpoint, state.control) }
  lines[2] = run.resumed and ("  goes on at %d %% (%s)"):format(state.steps[state.step], state.phase)
    or ("  has %d %% now"):format(now)
  for index = state.step, #state.steps do
    lines[#lines + 1] = ("  %3d %%, looked at for %g s, at most %g s"):format(
      state.steps[index], rules.bake, rules.bake + rules.hold)
  end
  add_gate(lines, rules)
  lines[#lines + 1] = rules.retire and ("  then %s is taken away"):format(state.control) or nil
  lines[#lines + 1] = ("  back to %d %% where a gate fails"):format(now)
  return {
    outcome = "planned", endpoint = rules.endpoint, candidate = rules.candidate, control = state.control,
    steps = {}, resumed = run.resumed, retired = false, text = table.concat(lines, "\n"),
  }
end

return plan
