-- SPDX-License-Identifier: MIT
-- A token that is fetched and lasts for a while: one fetch at a time for all tasks, renewed before it ends.

local errors = require "sluice.errors"
local task = require "sluice.task"

local token_source = {}

---A token as a source keeps it.
---@class sluice.auth.Token
---@field value sluice.Secret
---@field type string "Bearer"
---@field lifetime number? seconds; nil: until it is refused
---@field stamp any? of a source that looks whether it has changed

---@class sluice.auth.TokenSource
local methods = {}
local metatable = { __name = "sluice.auth.token_source", __index = methods }

-- Seconds. A token is given up this long before its end, for a request takes time to arrive; one that
-- lives shorter than four times this, a quarter of its life before.
local EARLY <const> = 40

-- Seconds. In the last half of its life, and at most this long before its end, it is renewed while the
-- old one is still used. Where that fails, it is tried again after RETRY_STALE.
local STALE_BEFORE <const> = 20 * 60
local RETRY_STALE <const> = 60

---Makes a source. Fetches nothing yet.
---@param given { fetch: fun(): sluice.auth.Token?, sluice.Error?; background: sluice.auth.Background, has_changed?: fun(token: sluice.auth.Token): boolean } `fetch` may wait and has its own retries and time limit
---@return sluice.auth.TokenSource
function token_source.new(given)
  return setmetatable({
    _fetch = given.fetch,
    _background = given.background,
    _has_changed = given.has_changed,
    _retry_at = 0,
  }, metatable)
end

-- `began`: before the fetch, for that is the earliest moment at which the server may count from.
local function keep(self, token, began, forced)
  local lifetime = token.lifetime or math.huge
  token.expires_at = began + lifetime - math.min(EARLY, lifetime / 4)
  token.stale_at = began + lifetime - math.min(STALE_BEFORE, lifetime / 2)
  token.ends_at = began + lifetime
  token.is_forced = forced
  self._token = token
end

local function closed_error()
  return errors.new("ConfigError", { operation = "get a token", message = "the workspace is closed" })
end

local function run_fetch(self, flight)
  local began = task.now()
  local ok, token, err = pcall(self._fetch)
  if self._flight == flight then self._flight = nil end
  if ok and token then
    keep(self, token, began, flight.is_forced)
    flight.token = token
    return
  end
  self._retry_at = task.now() + RETRY_STALE
  flight.err = ok and err or token
  if not ok and not errors.is(token) then error(token, 0) end
end

local function start(self)
  local flight = { is_forced = self._was_refused }
  flight.job = self._background:spawn(function() run_fetch(self, flight) end)
  if flight.job then
    self._flight, self._was_refused = flight, nil
  else
    flight.err = closed_error()
  end
  return flight
end

-- Raises what ends the caller, and what the fetch raised; the end of the workspace is an err.
local function join(flight)
  if not flight.job then return end
  local ok, err = pcall(flight.job.join, flight.job)
  if not ok and (task.cancelled() or not errors.is(err)) then error(err, 0) end
  local failure = flight.err
  if not flight.token and (not failure or errors.is(failure) and failure.kind == "TaskCancelled") then
    flight.err = closed_error()
  end
end

local function wait(self, within)
  local flight = self._flight or start(self)
  if within then
    task.timeout(within, join, flight)
    if not flight.token and not flight.err then
      return nil, errors.new("TimeoutError", {
        operation = "get a token", message = ("no token within %g s"):format(within), limit = "total",
        maybe_executed = false,
      })
    end
  else
    join(flight)
  end
  return flight.token, flight.err
end

---The token. Waits where there is none, or none that is good: for the one fetch that is under way for all.
---@param within? number seconds
---@return sluice.auth.Token?
---@return sluice.Error?
function methods:get(within)
  local now, token = task.now(), self._token
  if token and self._has_changed and self._has_changed(token) then token, self._token = nil, nil end
  if token and now < token.stale_at then return token end
  if token and now < token.expires_at then
    if not self._flight and now >= self._retry_at then start(self) end
    return token
  end
  return wait(self, within)
end

---Hears the status of an answer to a call with this token. True: the token was refused, and another one
---is there or will be fetched. One that was fetched because of a refusal, and was never taken, is not
---replaced again: who calls is not known there, and a fresh token does not change that.
---@param token sluice.auth.Token
---@param status integer
---@return boolean
function methods:answered(token, status)
  if status ~= 401 then
    token.was_taken = true
    return false
  end
  if token ~= self._token then return true end
  if token.is_forced and not token.was_taken then return false end
  self._token = nil
  if self._flight then self._flight.is_forced = true else self._was_refused = true end
  return true
end

return token_source
