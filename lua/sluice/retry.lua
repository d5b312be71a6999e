-- SPDX-License-Identifier: MIT
-- Trying again: how often, how long to wait in between, and when another try would do harm.

local backoff = require "sluice.core.backoff"
local budgets = require "sluice.retry.budget"
local errors = require "sluice.errors"
local meta = require "sluice.meta"
local options = require "sluice.options"
local spans = require "sluice.trace.span"
local system = require "sluice.core.system"
local task = require "sluice.task"

local retry = {}

---An allowance of retries for several policies to share, see sluice.retry.budget.
---@type fun(given?: { ratio?: number, per_second?: number, burst?: number }): sluice.RetryBudget
retry.budget = budgets.new

---The allowance that a host has.
---@type fun(host: string): sluice.RetryBudget
retry.budget_of = budgets.of

---One try of several, and what was decided after it.
---@class sluice.Attempt
---@field started number seconds, on the running clock
---@field duration number seconds
---@field kind string? the error's kind; nil for the try that succeeded
---@field status integer? the HTTP status, where there was an answer
---@field request_id string? the server's name for it
---@field retry_after number? what the server asked for, seconds
---@field decision string "success"; "retry"; "not_retryable", or why there was no further try: see `gave_up` of sluice.Error
---@field delay number? seconds waited after it

---@class sluice.RetryPolicy
local methods = {}
local metatable = { __name = "sluice.retry.policy", __index = methods }

---@class sluice.RetryRule
---@field attempts? integer tries in all, once this kind has come; 1: none after it
---@field base? number seconds
---@field cap? number seconds
local RULE = { attempts = "count?", base = "seconds?", cap = "seconds?" }

---@class sluice.RetryOptions
---@field attempts? integer tries in all, the first one too; 3
---@field total? number seconds over all tries and waits; the running try is cut there; none
---@field base? number seconds, 0.5
---@field cap? number seconds, 8
---@field max_hint? number the longest wait a server may ask for, in seconds; 60
---@field long_hint? "refuse"|"cap"|"obey" what a longer one leads to: no further try (the default), `max_hint`, or as long as it says
---@field resend? boolean whether to send again what may have been executed; false
---@field retry_on? (fun(err: sluice.Error, attempt: integer): boolean)|string[] what to retry, instead of `err.retryable`: a function, or kinds; `resend` goes before it
---@field per_kind? table<string, sluice.RetryRule> rules for some kinds and those below them; the nearest one holds. Without `retry_on`, CircuitOpen has `attempts = 1`
---@field on_retry? fun(err: sluice.Error, attempt: integer, delay: number) called before each wait
---@field budget? sluice.RetryBudget|false none; of layers.retry the one that the endpoint's host has
---@field random? fun(): number in [0, 1)
local POLICY = {
  attempts = "count?",
  total = "seconds?",
  base = "seconds?",
  cap = "seconds?",
  max_hint = "seconds?",
  long_hint = function(value)
    return value == "refuse" or value == "cap" or value == "obey", '"refuse", "cap" or "obey"'
  end,
  resend = "boolean?",
  retry_on = "callable|table?",
  per_kind = "table?",
  on_retry = "callable?",
  random = "callable?",
  budget = function(value) return value == false or budgets.is(value), "made by retry.budget, or false" end,
}

local function check_kind(where, option, kind)
  local problem = errors.unknown_kind(kind)
  if problem then options.misuse("%s: %s: %s", where, option, problem) end
end

local function check_kinds(where, kinds)
  if #kinds == 0 then options.misuse('%s: option "retry_on" must name kinds, or be a function', where) end
  for _, kind in ipairs(kinds) do check_kind(where, "retry_on", kind) end
end

-- What a server says outright goes before a list of kinds.
local function kinds_test(kinds)
  return function(err)
    if not errors.is(err) then return false end
    if err.should_retry ~= nil then return err.should_retry end
    for _, kind in ipairs(kinds) do
      if err:is(kind) then return true end
    end
    return false
  end
end

-- A circuit that is open is there to be told at once: waiting for it is for those who ask to.
local function rules_of(where, given)
  local rules = { CircuitOpen = not given.retry_on and { attempts = 1 } or nil }
  for kind, rule in pairs(given.per_kind or {}) do
    check_kind(where, "per_kind", kind)
    rules[errors.kind_named(kind)] = options.check(where .. ": per_kind: " .. kind, rule, RULE)
  end
  return rules
end

---Makes a policy. Tries again what failed with `err.retryable`, at most `attempts` times in all.
---Between tries it waits a random part of `base * 2^n`, at most `cap` (full jitter); a server's hint
---(Retry-After and the like) is obeyed, plus a little jitter, up to `max_hint`. A hint longer than what
---is left of `total` is refused: the error is returned at once. What may have been executed (a time
---limit after sending, a cut connection) is not sent again without `resend`. Cancellation is never
---retried.
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
    _long_hint = given.long_hint or "refuse",
    _resend = given.resend or false,
    _retry_on = retry_on,
    _rules = rules_of(where, given),
    _on_retry = given.on_retry,
    _budget = given.budget or nil,
    _random = given.random or system.random_float,
  }, metatable)
end

---The same policy with another allowance of retries.
---@param budget sluice.RetryBudget
---@return sluice.RetryPolicy
function methods:with_budget(budget)
  local copy = {}
  for name, value in next, self do copy[name] = value end
  copy._budget = budget
  return setmetatable(copy, metatable)
end

local NO_RULE <const> = {}

local function rule_for(policy, err)
  return errors.is(err) and errors.nearest(err.kind, policy._rules) or NO_RULE
end

-- Whether another try may mend it; false and why not.
local function is_worth_it(policy, err, attempt, attempts)
  local is_err = errors.is(err)
  if is_err and err.kind == "TaskCancelled" then return false, "not_retryable" end
  if is_err and err.maybe_executed and not policy._resend then
    return false, attempt < attempts and "maybe_executed" or "attempts"
  end
  local worth
  if policy._retry_on then worth = policy._retry_on(err, attempt) else worth = is_err and err.retryable end
  return worth and true or false, "not_retryable"
end

-- Jitter on a hint keeps the clients that were told the same from coming back as one.
local HINT_JITTER = 0.1

-- How long the server asks to wait; false where it is too long to be obeyed.
local function hint_of(policy, err)
  local hint = errors.is(err) and err.retry_after
  if type(hint) ~= "number" or not (hint > 0 and hint < math.huge) then return nil end
  if hint <= policy._max_hint or policy._long_hint == "obey" then return hint end
  return policy._long_hint == "cap" and policy._max_hint
end

-- What costs the host nothing: it named the time itself, or was not asked.
local function is_free(err, hint)
  if not errors.is(err) then return false end
  if err.kind == "QueueFull" or err.kind == "CircuitOpen" then return true end
  return hint ~= nil and err:is "TooManyRequests"
end

local function delay_after(policy, rule, hint, attempt)
  local base = rule.base or policy._base
  if hint then return hint + policy._random() * math.min(base, hint * HINT_JITTER) end
  return backoff.delay(attempt, base, rule.cap or policy._cap, policy._random())
end

-- How long to wait before the next try; nil and the reason when there is none.
local function next_delay(policy, err, attempt, stop_at)
  local rule = rule_for(policy, err)
  local attempts = rule.attempts or policy._attempts
  local worth, reason = is_worth_it(policy, err, attempt, attempts)
  if not worth then return nil, reason end
  if attempt >= attempts then return nil, "attempts" end
  local hint = hint_of(policy, err)
  if hint == false then return nil, "max_hint" end
  local delay = delay_after(policy, rule, hint, attempt)
  if stop_at and task.now() + delay >= stop_at then return nil, "total" end
  if policy._budget and not is_free(err, hint) and not policy._budget:take() then return nil, "budget" end
  return delay
end

local function record(list, started, err)
  local is_err = errors.is(err)
  list[#list + 1] = {
    started = started,
    duration = task.now() - started,
    kind = is_err and err.kind or nil,
    status = is_err and err.status or nil,
    request_id = is_err and err.request_id or nil,
    retry_after = is_err and err.retry_after or nil,
    decision = "success",
  }
  return list[#list]
end

-- One try; it ends with what is left of the total.
local function try_in_time(policy, f, attempt, stop_at, ...)
  if not stop_at then return f(attempt, ...) end
  local value, err = task.timeout(math.max(0, stop_at - task.now()), f, attempt, ...)
  if value == nil and errors.is(err) and err.limit == "task.timeout" and task.now() >= stop_at then
    err = errors.new("TimeoutError", {
      message = ("no answer within the %g s for all tries"):format(policy._total),
      limit = "total",
      maybe_executed = true,
    })
  end
  return value, err
end

local NAMES <const> = { "attempt 1", "attempt 2", "attempt 3" }

local function try_traced(policy, f, attempt, stop_at, ...)
  local span <close> = spans.inside(NAMES[attempt] or "attempt " .. attempt, spans.INTERNAL)
  if not span then return try_in_time(policy, f, attempt, stop_at, ...) end
  return span:done(try_in_time(policy, f, attempt, stop_at, ...))
end

local function try_once(policy, f, attempt, stop_at, ...)
  if spans.is_on then return try_traced(policy, f, attempt, stop_at, ...) end
  return try_in_time(policy, f, attempt, stop_at, ...)
end

-- A deadline around it that ends the wait says what was waited for.
local function sleep(delay, err, attempts)
  local slept, raised = pcall(task.sleep, delay)
  if slept then return end
  if errors.is(raised) and raised.kind == "TimeoutError" and raised.cause == nil then
    raised.cause, raised.attempts = err, attempts
  end
  error(raised, 0)
end

-- Where the time for all tries cut the last one, what failed before it tells more.
local function give_up(err, reason, attempts, before)
  if not errors.is(err) then return nil, err end
  err.attempts = attempts
  if reason ~= "not_retryable" then err.gave_up = reason end
  if err.limit == "total" and err.cause == nil then err.cause = before end
  return nil, err
end

-- Everything but a first try that succeeds.
local function try_again(policy, f, started, stop_at, err, ...)
  local attempts, attempt, value, before = {}, 1, nil, nil
  while true do
    local entry = record(attempts, started, err)
    if value ~= nil then
      if type(value) == "table" then meta.set(value, { attempts = attempts }) end
      return value, err
    end
    local delay, reason = next_delay(policy, err, attempt, stop_at)
    entry.decision, entry.delay = reason or "retry", delay
    if not delay then return give_up(err, reason, attempts, before) end
    if policy._on_retry then policy._on_retry(err, attempt, delay) end
    sleep(delay, err, attempts)
    attempt, started, before = attempt + 1, task.now(), err
    value, err = try_once(policy, f, attempt, stop_at, ...)
  end
end

local now = task.now

---Calls `f` until it succeeds or another try is not allowed. Waits.
---@param f fun(attempt: integer, ...): any, sluice.Error? returns a value, or nil and err
---@param ... any given to f after the number of the try
---@return any value what f returned; sluice.meta(value).attempts tells of the tries when there were several
---@return sluice.Error? err the last one, with `attempts`, and `gave_up` ("attempts", "maybe_executed", "total", "max_hint", "budget") when another try was not made
function methods:run(f, ...)
  local budget, total = self._budget, self._total
  if budget then budget:add() end
  local started = now()
  local stop_at = total and started + total
  local value, err = try_once(self, f, 1, stop_at, ...)
  if value ~= nil then return value, err end
  return try_again(self, f, started, stop_at, err, ...)
end

return retry
