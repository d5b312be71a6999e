-- SPDX-License-Identifier: MIT
-- What a task costs: to start and end, to go on, to keep waiting.

local process = require "process"

-- Each kind of figure is a process of its own: a heap that others have grown tells nothing.
local function prober(name, kind, program, script)
  if not program then return { name = name, missing = "not installed" } end
  return { name = name, run = function() return process.measure { program, script, kind } end }
end

local function opener(kind)
  return function(bench)
    local python = process.find("/usr/bin/python3", "python3")
    return {
      prober("sluice", kind, bench.binary, bench.here .. "task_probe.lua"),
      prober("lua5.4 coroutines", kind, process.find "lua5.4", bench.here .. "task_coroutines.lua"),
      prober("python3 asyncio", kind, python, bench.here .. "task_asyncio.py"),
    }
  end
end

local function cost(name, label, bar)
  local row = { key = "us", label = label, unit = "us", digits = 3, better = "less", bar = bar }
  return { name = name, open = opener(name), rows = { row } }
end

return {
  cost("spawn", "spawn a task, run it, join it", 0.5),
  cost("switch", "switch from task to task", 0.2),
  {
    name = "waiting",
    open = opener "waiting",
    rows = {
      { key = "heap", label = "a task on a timer: Lua heap", unit = "B", better = "less", bar = 1536 },
      { key = "rss", label = "the same: resident", unit = "B", better = "less", bar = 1536 },
    },
  },
}
