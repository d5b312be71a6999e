-- SPDX-License-Identifier: MIT
-- How many requests a batch has under way: more while all goes well, half when the server is overloaded, none while it
-- asks for a pause.

local errors = require "sluice.errors"
local task = require "sluice.task"

local throttle = {}

local LONGEST_PAUSE <const> = 600 -- seconds: a server that asks for more is asked again after this

---@class sluice.batch.Throttle
---@field limit number requests at a time
---@field paused_until number as task.now() gives it
---@field pauses integer
---@field decreases integer
local methods = {}
local metatable = { __name = "sluice.batch.throttle", __index = methods }

---One for a run.
---@param start integer requests at a time in the beginning
---@param most integer
---@return sluice.batch.Throttle
function throttle.new(start, most)
  return setmetatable({
    limit = start, most = most, paused_until = -math.huge, pauses = 0, decreases = 0, _decreased = -math.huge,
  }, metatable)
end

---Whether an err says that the server, or a limit of ours, cannot take more now, and that nothing was done.
---@param err any
---@return boolean
function throttle.is_refusal(err)
  if not errors.is(err) or err.maybe_executed or not err.retryable then return false end
  return err.status == 429 or err.status == 503 or err.kind == "QueueFull" or err.kind == "CircuitOpen"
    or err:is "TooManyRequests" or err:is "TemporarilyUnavailable"
end

---Hears of an answer to a request while so many were under way: one more at a time after a round of answers.
---@param busy integer
function methods:succeeded(busy)
  local limit = self.limit
  if limit < self.most and busy >= limit - 1 then self.limit = math.min(self.most, limit + 1 / limit) end
end

---Hears of an overload: half as many from now on, once for all requests that were under way then.
---@param started number when the request began that was refused
function methods:overloaded(started)
  if started < self._decreased then return end
  self._decreased = task.now()
  self.limit = math.max(1, self.limit / 2)
  self.decreases = self.decreases + 1
end

---Hears of a time to wait that the server asks for: nobody is asked before.
---@param seconds number
---@return boolean longer whether the pause is longer now
function methods:pause(seconds)
  local stop = task.now() + math.min(seconds, LONGEST_PAUSE)
  if stop <= self.paused_until then return false end
  if self.paused_until < task.now() then self.pauses = self.pauses + 1 end
  self.paused_until = stop
  return true
end

---Hears of an answer that its endpoint got after several tries: an overload that it saw and waited for counts.
---@param attempts sluice.Attempt[]
---@param started number
---@return integer tries beyond the first
function methods:tries_before(attempts, started)
  for _, attempt in ipairs(attempts) do
    if attempt.status == 429 or attempt.status == 503 then
      self:overloaded(started)
      break
    end
  end
  return math.max(#attempts - 1, 0)
end

return throttle
