-- SPDX-License-Identifier: MIT
-- A batch on a progress bar.

local progress = require "sluice.progress"
local task = require "sluice.task"

local view = {}

---@class sluice.batch.View
local methods = {}
local metatable = { __name = "sluice.batch.view", __index = methods }

---@class sluice.batch.ViewOptions
---@field bar? sluice.ProgressBar one of the caller's, which stays open
---@field total? integer rows
---@field done integer rows that were done before
---@field tokens integer that were counted before

---Begins to show a batch.
---@param given sluice.batch.ViewOptions
---@return sluice.batch.View
function view.new(given)
  local bar = given.bar
  if not bar then
    bar = progress.bar { total = given.total, done = given.done, label = "batch", unit = "rows" }
  end
  return setmetatable({
    _bar = bar, _is_own = not given.bar, _started = task.now(), _tokens = given.tokens,
  }, metatable)
end

local function pause_text(throttle)
  local left = throttle.paused_until - task.now()
  return left > 0 and ("%.0f s"):format(left) or false
end

---Shows how things stand.
---@param engine sluice.batch.Engine
function methods:show(engine)
  local tally, throttle = engine.tally, engine.throttle
  local seconds = task.now() - self._started
  local tokens = tally.tokens - self._tokens
  self._bar:set {
    done = tally.ok + tally.failed, ok = tally.ok, failed = tally.failed,
    ["at once"] = engine.alive > 0 and ("%d/%d"):format(engine.busy, throttle.limit // 1) or false,
    ["tokens/s"] = tokens > 0 and seconds > 0 and ("%.0f"):format(tokens / seconds) or false,
    retried = tally.retries > 0 and ("%d"):format(tally.retries) or false,
    paused = pause_text(throttle),
    stopping = engine.stopped and engine.stopped or false,
  }
end

---Leaves the last line.
---@param engine sluice.batch.Engine
function methods:close(engine)
  self:show(engine)
  if self._is_own then self._bar:close() end
end

return view
