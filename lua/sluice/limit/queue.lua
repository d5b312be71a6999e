-- SPDX-License-Identifier: MIT
-- Those who wait for a limit, first come first served: the first asks, the others wait for their turn.

local core = require "sluice.core.task"
local task = require "sluice.task"

local queue = {}

---@class sluice.limit.Queue
local methods = {}
local metatable = { __name = "sluice.limit.queue", __index = methods }

-- Sleeping for exactly what is missing may wake a rounding error too early.
local SLACK = 1e-6

---Makes a queue before a state. Belongs to the clock of the task that makes it.
---@param state sluice.limit.State
---@return sluice.limit.Queue
function queue.new(state)
  return setmetatable({
    _state = state,
    _turn = task.semaphore(1),
    _change = core.condition "layers.limit",
  }, metatable)
end

---Waits until the state lets the request through.
---@param tokens number
---@return sluice.limit.Ticket
function methods:wait(tokens)
  local _ <close> = self._turn:acquire()
  while true do
    local seconds, ticket = self._state:take(tokens)
    if seconds <= 0 then return ticket end
    task.timeout(seconds + SLACK, self._change.wait, self._change)
  end
end

---Lets the first look again: something was given back, or the server told something.
function methods:changed()
  self._change:broadcast()
end

return queue
