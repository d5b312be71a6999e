-- SPDX-License-Identifier: MIT
-- What counting costs where it happens, and what a page of 2,000 series costs.

local metrics = require "sluice.metrics"

local CALLS <const>, PAGES <const> = 500000, 20
local SERIES <const> = 2000

local DURATION <const> = {
  0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92,
}

-- Half of them the lines of histograms.
local function large_registry()
  local registry = metrics.registry()
  local busy = registry:gauge { name = "busy", help = "Under way.", labels = { "endpoint", "variant" } }
  for index = 1, SERIES // 2 do busy:labels("endpoint-" .. index, "b"):set(index * 0.1) end
  local times = registry:histogram {
    name = "time_seconds", help = "Time.", labels = { "endpoint", "variant" }, buckets = DURATION,
  }
  for index = 1, SERIES // 2 // (#DURATION + 3) do times:labels("endpoint-" .. index, "b"):observe(index) end
  return registry
end

-- Seconds that answers take: around 1 s, a third of them below half and above twice that.
local function answer_times()
  local times = {}
  for index = 1, 1000 do
    local normal = math.sqrt(-2 * math.log(1 - math.random())) * math.cos(2 * math.pi * math.random())
    times[index] = math.exp(0.7 * normal)
  end
  return times
end

-- Microseconds of processor time for each call.
local function cost_of(count, f)
  local started = os.clock()
  f(count)
  return (os.clock() - started) / count * 1e6
end

local function open()
  local registry, large = metrics.registry(), large_registry()
  local counter = registry:counter({ name = "a_total", help = "A.", labels = { "x" } }):labels "y"
  local family = registry:histogram {
    name = "h_seconds", help = "H.", labels = { "a", "b", "c", "d", "e" }, buckets = DURATION,
  }
  local histogram = family:labels("chat", "databricks", "rivers", "", "b")
  local times = answer_times()
  return { {
    name = "sluice",
    run = function()
      return {
        counter = cost_of(CALLS, function(n) for _ = 1, n do counter:inc() end end),
        histogram = cost_of(CALLS, function(n)
          for index = 1, n do histogram:observe(times[index % #times + 1]) end
        end),
        labels = cost_of(CALLS, function(n)
          for _ = 1, n do family:labels("chat", "databricks", "rivers", "", "b") end
        end),
        page = cost_of(PAGES, function(n) for _ = 1, n do large:text() end end) / 1000,
      }
    end,
  } }
end

local function row(key, label, unit, bar)
  return { key = key, label = label, unit = unit, digits = 3, better = "less", bar = bar }
end

return { {
  name = "metrics",
  open = open,
  rows = {
    row("counter", "a counter, one more", "us", 0.1),
    row("histogram", "a histogram of 14 buckets, one value", "us", 0.2),
    row("labels", "a series by 5 labels", "us"),
    row("page", "a page of 2,000 series", "ms", 5),
  },
} }
