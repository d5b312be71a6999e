-- SPDX-License-Identifier: MIT
-- One look at an endpoint: its serving state first, which costs no tokens, then a probe where one is asked for.

local errors = require "sluice.errors"
local options = require "sluice.options"
local task = require "sluice.task"

local check = {}

---How an endpoint is.
---@class sluice.Health
---@field endpoint string? its name
---@field status "healthy"|"not_ready"|"error" not_ready: it says so itself; error: it cannot be told, or a probe failed
---@field ready boolean
---@field state string? what the endpoint says of itself: "READY", "NOT_READY"
---@field error string? why it is not ready
---@field kind string? of the error
---@field retry_after number? seconds that the server asks to wait
---@field source "state"|"probe"|"traffic" what it is known from
---@field latency number seconds that the look took
---@field age number seconds since then

---What an endpoint says of itself: `endpoint:serving_state()`.
---@class sluice.ServingState
---@field ready boolean
---@field state string in the server's words
---@field detail? string why it is not ready

---@class sluice.HealthCheckOptions
---@field probe? boolean|table ask the model too: true for a chat of one token, or a request of your own (false)
---@field timeout? number seconds for all of it, 10

---What health.check takes.
---@type sluice.OptionSpec
check.OPTIONS = { probe = "boolean|table?", timeout = "positive?" }

local TIMEOUT <const> = 10

-- One token, and nothing that an answer kept, another endpoint or a second try could stand in for.
local PROBE <const> = { messages = { { role = "user", content = "ping" } }, max_tokens = 1 }

---Raises where an endpoint can tell nothing and no probe is asked for.
---@param where string
---@param endpoint any
---@param probe any
function check.endpoint(where, endpoint, probe)
  local kind = type(endpoint)
  if (kind ~= "table" and kind ~= "userdata") or not endpoint.query then
    local got = options.type_name(endpoint)
    options.misuse("%s: an endpoint is needed, with the method query, got %s", where, got)
  end
  if not probe and not endpoint.serving_state then
    options.misuse("%s: %s cannot tell its serving state: ask for a probe with probe = true", where,
      endpoint.name and ('the endpoint "%s"'):format(endpoint.name) or "the endpoint")
  end
end

local function failed(err, state, source)
  local is_err = errors.is(err)
  return {
    status = "error", ready = false, state = state, error = tostring(err), source = source,
    kind = is_err and err.kind or nil, retry_after = is_err and err.retry_after or nil, err = err,
  }
end

-- `known.state`: what it said, also where the time is over before an answer to the probe.
local function look(endpoint, probe, deadline, known)
  local state
  if endpoint.serving_state then
    local told, err = endpoint:serving_state { timeout = deadline - task.now() }
    if not told then return failed(err, nil, "state") end
    state = told.state
    known.state = state
    if not told.ready then
      local why = told.detail or tostring(state)
      return { status = "not_ready", ready = false, state = state, error = why, source = "state" }
    end
  end
  if not probe then return { status = "healthy", ready = true, state = state, source = "state" } end
  local request = probe == true and PROBE or probe
  local value, err = endpoint:query(request, {
    timeout = math.max(0, deadline - task.now()), cache = "no-store", probe = true,
  })
  if value == nil then return failed(err, state, "probe") end
  return { status = "healthy", ready = true, state = state, source = "probe" }
end

---Looks once, whatever comes of it a table; its `err` is the err itself. Waits; raises what the endpoint raises.
---@param endpoint sluice.Endpoint
---@param given sluice.HealthCheckOptions
---@return sluice.Health
function check.run(endpoint, given)
  local started, seconds, known = task.now(), given.timeout or TIMEOUT, {}
  local found, late = task.timeout(seconds, look, endpoint, given.probe, started + seconds, known)
  if not found then found = failed(late, known.state, given.probe and "probe" or "state") end
  if errors.is(found.err) and found.err.limit == "task.timeout" then
    found.error = ("no answer within %g s (TimeoutError)"):format(seconds)
  end
  found.endpoint, found.latency, found.age = endpoint.name, task.now() - started, 0
  return found
end

return check
