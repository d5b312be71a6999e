-- SPDX-License-Identifier: MIT
-- One statement from its submission to its end: looking at it, its errors, and cancelling it when nobody waits any more.

local errors = require "sluice.errors"
local system = require "sluice.core.system"
local task = require "sluice.task"

local statement = {}

---What makes the calls.
---@class sluice.sql.Calls
---@field submit fun(body: table): table?, sluice.Error?
---@field get fun(id: string): table?, sluice.Error?
---@field cancel fun(id: string): table?, sluice.Error?

-- Seconds between looks: a warehouse answers in a second, a batch of prompts in an hour.
local DELAYS <const> = { 0.05, 0.1, 0.2, 0.4, 0.8, 1.5, 3, 5 }

-- What is new may be unknown to a server for so many seconds.
local NEW_GRACE <const> = 5

-- How long a cancelled task waits for the id of what it has just submitted, and for the cancellation itself.
local GRACE <const> = 3

-- What the error codes of statements mean.
local KINDS <const> = {
  ABORTED = "Aborted", ALREADY_EXISTS = "AlreadyExists", BAD_REQUEST = "BadRequest", CANCELLED = "Cancelled",
  DEADLINE_EXCEEDED = "DeadlineExceeded", INTERNAL_ERROR = "InternalError", IO_ERROR = "InternalError",
  NOT_FOUND = "NotFound", RESOURCE_EXHAUSTED = "ResourceExhausted",
  SERVICE_UNDER_MAINTENANCE = "TemporarilyUnavailable", TEMPORARILY_UNAVAILABLE = "TemporarilyUnavailable",
  UNAUTHENTICATED = "Unauthenticated", UNKNOWN = "Unknown",
  WORKSPACE_TEMPORARILY_UNAVAILABLE = "TemporarilyUnavailable",
}

local STATES <const> = {
  PENDING = "waiting", RUNNING = "waiting", SUCCEEDED = "done", FAILED = "failed", CANCELED = "failed",
  CLOSED = "failed",
}

local function table_of(value) return type(value) == "table" and value or {} end

local function text_of(value) return type(value) == "string" and value or nil end

-- An answer with status 200 tells of a failure in its body.
local function failure(answer)
  local status = table_of(answer.status)
  local told = table_of(status.error)
  local code, state = text_of(told.error_code), status.state
  local kind, message = KINDS[code] or "APIError", text_of(told.message)
  if state == "CANCELED" then kind, message = "Cancelled", message or "the statement was cancelled" end
  if state == "CLOSED" then kind, message = "OperationFailed", message or "its result is no longer kept" end
  return errors.new(kind, {
    operation = "execute SQL statement", object = answer.statement_id, code = code,
    message = message and errors.excerpt(message) or "the statement has failed",
    sql_state = text_of(status.sql_state) or text_of(told.sql_state),
    statement_id = answer.statement_id, retryable = kind == "TemporarilyUnavailable" or nil,
  })
end

local function state_of(answer) return table_of(answer.status).state end

-- "waiting", "done", "failed"; nil and err for an answer that says none of it.
local function judge(answer)
  local verdict = STATES[state_of(answer)]
  if verdict and text_of(answer.statement_id) then return verdict end
  return nil, errors.new("ProtocolError", {
    operation = "execute SQL statement", object = answer.statement_id,
    message = verdict and "the answer names no statement_id"
      or ("the state of the statement is %s"):format(tostring(state_of(answer))),
  })
end

-- ---- cancelling ----

-- Whatever ends the wait before the statement ends, the warehouse shall not go on working for nobody.
local guarding = {
  __close = function(guard)
    local id = guard.id
    if not id then return end
    task.shield(task.timeout, GRACE, pcall, guard.calls.cancel, id)
  end,
}

-- Who is cancelled while the submission is under way does not know what to cancel: its answer is waited for.
local function submit(guard, body)
  local group <close> = task.group()
  local got
  local job = group:spawn(function() got = table.pack(pcall(guard.calls.submit, body)) end)
  local ok, raised = pcall(job.join, job)
  if not ok then task.shield(task.timeout, GRACE, pcall, job.join, job) end
  local answer = got and got[1] and got[2]
  if answer and STATES[state_of(answer)] == "waiting" then guard.id = text_of(answer.statement_id) end
  if not ok then error(raised, 0) end
  if not got[1] then error(got[2], 0) end
  return answer, got[3]
end

-- ---- waiting ----

local function look(guard, id, since)
  local answer, err = guard.calls.get(id)
  if answer then return answer end
  local is_new = task.now() - since < NEW_GRACE
  if is_new and errors.is(err) and err:is "NotFound" then return guard.last end
  return nil, err
end

local function pause(count)
  local delay = DELAYS[math.min(count, #DELAYS)]
  task.sleep(delay + system.random_float() * delay / 4)
end

local function follow(guard, answer)
  local since, count = task.now(), 0
  while true do
    local verdict, err = judge(answer)
    if not verdict then return nil, err end
    if guard.on_poll then guard.on_poll(answer, task.now() - since) end
    if verdict ~= "waiting" then
      guard.id = nil
      if verdict == "done" then return answer end
      return nil, failure(answer)
    end
    guard.last, count = answer, count + 1
    pause(count)
    answer, err = look(guard, answer.statement_id, since)
    if not answer then return nil, err end
  end
end

local function run(calls, body, on_poll)
  local guard <close> = setmetatable({ calls = calls, on_poll = on_poll }, guarding)
  local answer, err = submit(guard, body)
  if not answer then return nil, err end
  answer, err = follow(guard, answer)
  return answer, err -- no tail call: the guard closes after it
end

---Submits a statement and waits for its end. Whoever stops waiting before (cancelled, a deadline, an error) cancels the
---statement. Waits.
---@param calls sluice.sql.Calls
---@param body table
---@param timeout? number seconds for all of it
---@param on_poll? fun(answer: table, elapsed: number)
---@return table? answer its state is SUCCEEDED
---@return sluice.Error? err of a statement that failed by its error_code, with `sql_state` and `statement_id`; OperationTimeout
function statement.run(calls, body, timeout, on_poll)
  if not timeout then return run(calls, body, on_poll) end
  local started = task.now()
  local answer, err = task.timeout(timeout, run, calls, body, on_poll)
  local is_over = not answer and errors.is(err) and err.limit == "task.timeout"
    and task.now() - started >= timeout
  if not is_over then return answer, err end
  return nil, errors.new("OperationTimeout", {
    operation = "execute SQL statement", message = ("not done after %g s; it was cancelled"):format(timeout),
    limit = "timeout", cause = err,
  })
end

return statement
