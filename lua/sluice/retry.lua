-- SPDX-License-Identifier: MIT
-- Trying again: how often, how long to wait in between, and when another try would do harm.

local backoff = require "sluice.core.backoff"
local errors = require "sluice.errors"
local meta = require "sluice.meta"
local options = require "sluice.options"
local system = require "sluice.core.system"
local task = require "sluice.task"

local retry = {}

---One try of several.
---@class sluice.Attempt
---@field started number seconds, on the running clock
---@field duration number seconds
---@field kind string? the error's kind; nil for the try that succeeded
---@field status integer? the HTTP status, where there was an answer
---@field delay number? seconds waited after it

---@class sluice.RetryPolicy
local methods = {}
local metatable = { __name = "sluice.retry.policy", __index = methods }

---The shared allowance of retries for one host.
---@class sluice.RetryBudget
local budget_methods = {}
local budget_metatable = { __name = "sluice.retry.budget", __index = budget_methods }

local BUDGET = { ratio = "number?", min = "number?" }

-- An hour of good answers must not pay for a storm of retries: what is saved up is bounded.
local BUDGET_SAVES = 10

---Makes an allowance of retries, to be shared by all policies that call one host: each request adds
---`ratio` of a retry, each retry takes one, so that a host in trouble sees at most that much more load.
---@param given? { ratio?: number, min?: number } `ratio`: 0.2; `min`: retries allowed from the start, 3
---@return sluice.RetryBudget
function retry.budget(given)
  given = options.check("retry.budget", given, BUDGET)
  local min = given.min or 3
  return setmetatable({
    ratio = given.ratio or 0.2,
    left = min,
    most = math.max(min, BUDGET_SAVES),
  }, budget_metatable)
end

---Counts a request.
function budget_methods:add()
  self.left = math.min(self.most, self.left + self.ratio)
end

---Takes one retry; false when none is left.
---@return boolean
function budget_methods:take()
  if self.left < 1 then return false end
  self.left = self.left - 1
  return true
end

---@class sluice.RetryOptions
---@field attempts? integer tries in all, the first one too; 3
---@field total? number seconds over all tries and waits; the running try is cut there; none
---@field base? number seconds, 0.5
---@field cap? number seconds, 8
---@field max_hint? number the longest Retry-After that is obeyed, in seconds; 60
---@field resend? boolean whether to send again what may have been executed; false
---@field retry_on? (fun(err: sluice.Error, attempt: integer): boolean)|string[] what to retry, instead of `err.retryable`: a function, or kinds; `resend` goes before it
---@field on_retry? fun(err: sluice.Error, attempt: integer, delay: number) called before each wait
---@field budget? sluice.RetryBudget none
---@field random? fun(): number in [0, 1)
local POLICY = {
  attempts = "count?",
  total = "seconds?",
  base = "seconds?",
  cap = "seconds?",
  max_hint = "seconds?",
  resend = "boolean?",
  retry_on = "callable|table?",
  on_retry = "callable?",
  random = "callable?",
  budget = function(value)
    return getmetatable(value) == budget_metatable, "made by retry.budget"
  end,
}

local function check_kinds(where, kinds)
  if #kinds == 0 then options.misuse('%s: option "retry_on" must name kinds, or be a function', where) end
  for _, kind in ipairs(kinds) do
    local problem = errors.unknown_kind(kind)
    if problem then options.misuse("%s: retry_on: %s", where, problem) end
  end
end

local function kinds_test(kinds)
  return function(err)
    for _, kind in ipairs(kinds) do
      if err:is(kind) then return true end
    end
    return false
  end
end

---Makes a policy. Tries again what failed with `err.retryable`, at most `attempts` times in all.
---Between tries it waits a random part of `base * 2^n`, at most `cap` (full jitter); a server's
---Retry-After is obeyed, plus a little jitter. A hint longer than `max_hint` or than the time left
---is refused: the error is returned at once. What may have been executed (a time limit after sending,
---a cut connection) is not sent again without `resend`. Cancellation is never retried.
---@param given? sluice.RetryOptions
---@param where? string the public name, for messages of misuse
---@return sluice.RetryPolicy
function retry.policy(given, where)
  where = where or "retry.policy"
  given = options.check(where, given, POLICY)
  local retry_on = given.retry_on
  if type(retry_on) == "table" and not (getmetatable(retry_on) or {}).__call then
    check_kinds(where, retry_on)
    retry_on = kinds_test(retry_on)
  end
  return setmetatable({
    _attempts = given.attempts or 3,
    _total = given.total,
    _base = given.base or 0.5,
    _cap = given.cap or 8,
    _max_hint = given.max_hint or 60,
    _resend = given.resend or false,
    _retry_on = retry_on,
    _on_retry = given.on_retry,
    _budget = given.budget,
    _random = given.random or system.random_float,
  }, metatable)
end

-- Whether another try may mend it; false and the reason where it might and is not allowed.
local function is_worth_it(policy, err, attempt)
  if not errors.is(err) or err.kind == "TaskCancelled" then return false end
  if err.maybe_executed and not policy._resend then
    return false, attempt < policy._attempts and "maybe_executed" or "attempts"
  end
  if policy._retry_on then return policy._retry_on(err, attempt) and true or false end
  return err.retryable
end

-- Jitter on a hint keeps the clients that were told the same from coming back as one.
local HINT_JITTER = 0.1

local function delay_after(policy, err, attempt)
  local hint = err.retry_after
  if type(hint) == "number" and hint > 0 then
    return hint + policy._random() * math.min(policy._base, hint * HINT_JITTER), hint
  end
  return backoff.delay(attempt, policy._base, policy._cap, policy._random())
end

-- How long to wait before the next try; nil and the reason when there is none.
local function next_delay(policy, err, attempt, stop_at)
  if attempt >= policy._attempts then return nil, "attempts" end
  local delay, hint = delay_after(policy, err, attempt)
  if hint and hint > policy._max_hint then return nil, "max_hint" end
  if stop_at and task.now() + delay >= stop_at then return nil, "total" end
  if policy._budget and not policy._budget:take() then return nil, "budget" end
  return delay
end

local function record(list, started, err)
  list[#list + 1] = {
    started = started,
    duration = task.now() - started,
    kind = errors.is(err) and err.kind or nil,
    status = errors.is(err) and err.status or nil,
  }
  return list[#list]
end

-- Everything but a first try that succeeds.
local function try_again(policy, f, started, stop_at, err)
  local attempts, attempt, value = {}, 1, nil
  while true do
    local entry = record(attempts, started, err)
    if value ~= nil then
      if type(value) == "table" then meta.set(value, { attempts = attempts }) end
      return value
    end
    local delay
    local worth, reason = is_worth_it(policy, err, attempt)
    if worth then delay, reason = next_delay(policy, err, attempt, stop_at) end
    if not delay then
      if errors.is(err) then
        err.attempts = attempts
        if reason then err.gave_up = reason end
      end
      return nil, err
    end
    entry.delay = delay
    if policy._on_retry then policy._on_retry(err, attempt, delay) end
    task.sleep(delay)
    attempt, started = attempt + 1, task.now()
    value, err = policy:_try(f, attempt, stop_at)
  end
end

-- One try; it ends with what is left of the total.
function methods:_try(f, attempt, stop_at)
  if not stop_at then return f(attempt) end
  local value, err = task.timeout(stop_at - task.now(), f, attempt)
  if value == nil and errors.is(err) and err.limit == "task.timeout" and task.now() >= stop_at then
    err = errors.new("TimeoutError", {
      message = ("no answer within the %g s for all tries"):format(self._total),
      limit = "total",
      maybe_executed = true,
    })
  end
  return value, err
end

---Calls `f` until it succeeds or another try is not allowed. Waits.
---@param f fun(attempt: integer): any, sluice.Error? returns a value, or nil and err
---@return any value what f returned; sluice.meta(value).attempts tells of the tries when there were several
---@return sluice.Error? err the last one, with `attempts`, and `gave_up` ("attempts", "maybe_executed", "total", "max_hint", "budget") when another try was not made
function methods:run(f)
  if self._budget then self._budget:add() end
  local started = task.now()
  local stop_at = self._total and started + self._total
  local value, err = self:_try(f, 1, stop_at)
  if value ~= nil then return value, err end
  return try_again(self, f, started, stop_at, err)
end

return retry
