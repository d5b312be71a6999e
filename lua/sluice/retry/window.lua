-- SPDX-License-Identifier: MIT
-- Counts of what succeeded and failed in the last seconds: a ring of slots, each for a part of the window.

local window = {}

-- How finely the window slides: what is older than it by less than a tenth may still count.
local SLOTS <const> = 10

---@class sluice.retry.Window
local methods = {}
local metatable = { __name = "sluice.retry.window", __index = methods }

---Makes an empty window.
---@param seconds number
---@return sluice.retry.Window
function window.new(seconds)
  local self = { _slot = seconds / SLOTS, _turns = {}, _passed = {}, _failed = {} }
  for index = 1, SLOTS do
    self._turns[index], self._passed[index], self._failed[index] = -1, 0, 0
  end
  return setmetatable(self, metatable)
end

---Counts one outcome.
---@param now number seconds
---@param failed boolean
function methods:add(now, failed)
  local turn = now // self._slot
  local index = math.tointeger(turn % SLOTS) + 1
  if self._turns[index] ~= turn then
    self._turns[index], self._passed[index], self._failed[index] = turn, 0, 0
  end
  local counts = failed and self._failed or self._passed
  counts[index] = counts[index] + 1
end

---What is in the window.
---@param now number seconds
---@return integer passed
---@return integer failed
function methods:counts(now)
  local oldest = now // self._slot - SLOTS
  local passed, failed = 0, 0
  for index = 1, SLOTS do
    if self._turns[index] > oldest then
      passed, failed = passed + self._passed[index], failed + self._failed[index]
    end
  end
  return passed, failed
end

---Forgets everything.
function methods:clear()
  for index = 1, SLOTS do self._turns[index] = -1 end
end

return window
