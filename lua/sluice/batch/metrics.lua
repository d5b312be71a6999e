-- SPDX-License-Identifier: MIT
-- Batches in a registry of metrics: what is done, what is left, how many requests are under way.

local task = require "sluice.task"

local batch_metrics = {}

-- By registry: the runs that go on, and what those before them counted.
local of_registries = setmetatable({}, { __mode = "k" })

local COUNTS <const> = { "ok", "failed", "retries", "tokens" }

local function total(kept, name)
  local sum = kept.ended[name]
  for run in next, kept.runs do sum = sum + run.engine.tally[name] end
  return sum
end

local function add_counters(registry, kept)
  registry:counter {
    name = "sluice_batch_results_total", labels = { "result" },
    help = "Rows with an answer (ok) or an error (failed), those of runs that were continued included.",
    read = function(add)
      add(total(kept, "ok"), "ok")
      add(total(kept, "failed"), "failed")
    end,
  }
  registry:counter {
    name = "sluice_batch_retries_total", help = "Tries beyond the first of each row.",
    read = function(add) add(total(kept, "retries")) end,
  }
  registry:counter {
    name = "sluice_batch_tokens_total", help = "Tokens that the answers tell of.",
    read = function(add) add(total(kept, "tokens")) end,
  }
end

local function add_gauge(registry, kept, name, help, value_of)
  registry:gauge {
    name = name, help = help, read = function(add)
      for run in next, kept.runs do
        local value = value_of(run)
        if value then add(value) end
      end
    end,
  }
end

local function add_gauges(registry, kept)
  add_gauge(registry, kept, "sluice_batch_rows", "Rows in all, where that is known.",
    function(run) return run.total end)
  add_gauge(registry, kept, "sluice_batch_in_flight", "Rows that are asked now.",
    function(run) return run.engine.busy end)
  add_gauge(registry, kept, "sluice_batch_concurrency", "Requests that may be under way at a time.",
    function(run) return run.engine.throttle.limit // 1 end)
  add_gauge(registry, kept, "sluice_batch_pause_seconds", "How long the server wants to be left alone.",
    function(run) return math.max(0, run.engine.throttle.paused_until - task.now()) end)
end

local function open(registry)
  local kept = { runs = {}, ended = { ok = 0, failed = 0, retries = 0, tokens = 0 } }
  of_registries[registry] = kept
  add_counters(registry, kept)
  add_gauges(registry, kept)
  return kept
end

---Has a registry read a run from now on; a `<close>` value keeps its counts and lets go of it.
---@param registry sluice.metrics.Registry
---@param run table with `engine`, and `total` once it is known
---@return table
function batch_metrics.watch(registry, run)
  local kept = of_registries[registry] or open(registry)
  kept.runs[run] = true
  return setmetatable({}, { __close = function()
    kept.runs[run] = nil
    for _, name in ipairs(COUNTS) do kept.ended[name] = kept.ended[name] + run.engine.tally[name] end
  end })
end

return batch_metrics
