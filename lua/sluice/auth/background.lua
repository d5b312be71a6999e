-- SPDX-License-Identifier: MIT
-- The scope in which a workspace does what belongs to no single call: fetching tokens.

local task = require "sluice.task"

local background = {}

---@class sluice.auth.Background
local methods = {}
local metatable = { __name = "sluice.auth.background", __index = methods }

---A scope that begins with its first task. What is never used costs nothing and need not be closed.
---@return sluice.auth.Background
function background.new()
  return setmetatable({ is_closed = false }, metatable)
end

---Starts a task that neither the deadline nor the cancellation of the caller reaches; nil once closed.
---@param f function must not raise
---@return sluice.Task?
function methods:spawn(f)
  if self.is_closed then return nil end
  self._group = self._group or task.group()
  return self._group:spawn(f)
end

---Cancels the tasks and waits for their ends. Idempotent.
function methods:close()
  self.is_closed = true
  local group = self._group
  self._group = nil
  if group then task.shield(group.close, group) end
end

return background
