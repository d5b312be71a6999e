-- SPDX-License-Identifier: MIT
-- What all specs share: a limit for each, for a wait that never ends must not hold up the run, and none of
-- the settings of whoever runs them.

local busted = require "busted"
local settings = require "sluice.settings"
local task = require "sluice.task"

-- Seconds; the sanitizers are slow.
local limit <const> = os.getenv "SLUICE_SLOW" and 180 or 60

local running = {}

local function report()
  io.stderr:write(("\nspec/guard.lua: no end after %d s: %s\n"):format(limit, running.name))
  for _, row in ipairs(task.tree()) do
    io.stderr:write(("  "):rep(row.depth), row.name, " ", row.state, ": ", row.waits_for or "", "\n")
  end
end

settings.set(require("sluice.auth.config").only(false, false))
settings.set { HOME = false } -- where .databrickscfg is

local watchdog = task.group()
watchdog:spawn(function()
  while true do
    task.sleep(1)
    if running.name and task.now() - running.since > limit then
      report()
      os.exit(1)
    end
  end
end)

busted.subscribe({ "test", "start" }, function(element)
  running.name, running.since = element.name, task.now()
  return nil, true
end)

busted.subscribe({ "test", "end" }, function()
  running.name = nil
  return nil, true
end)
