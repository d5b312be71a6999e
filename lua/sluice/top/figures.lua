-- SPDX-License-Identifier: MIT
-- What `sluice top` shows, worked out of two pages of metrics: rates, times, states.

local names = require "sluice.metrics.names"
local pages = require "sluice.metrics.page"

local figures = {}

local DURATION <const> = names.histograms.duration.name
local FIRST_CHUNK <const> = names.histograms.first_chunk.name
local GAP <const> = names.histograms.gap.name
local TOKENS <const> = names.histograms.tokens.name
local MODEL <const> = "gen_ai_request_model"

-- How often something was counted since the page before; all of it where it began anew, or there is none.
local function grown(now, before)
  if not before or now < before then return now end
  return now - before
end

local function grown_sums(span, name, label, fits)
  local now = span.page:sums(name, label, fits)
  local before = span.before and span.before:sums(name, label, fits) or {}
  local sums = {}
  for key, value in pairs(now) do sums[key] = grown(value, before[key]) end
  return sums
end

local function rates(span, name, label, fits)
  local sums = grown_sums(span, name, label, fits)
  for key, value in pairs(sums) do sums[key] = value / span.seconds end
  return sums
end

local function grown_buckets(span, name)
  local now = span.page:buckets(name, MODEL)
  local before = span.before and span.before:buckets(name, MODEL) or {}
  for key, counts in pairs(now) do
    for bound, count in pairs(counts) do
      counts[bound] = grown(count, before[key] and before[key][bound])
    end
  end
  return now
end

-- ---- endpoints ----

local WORST <const> = { "open", "half_open", "closed" }

local function breaker_states(page)
  local states = {}
  for _, state in ipairs(WORST) do
    local counts = page:sums("sluice_breakers", "endpoint", function(labels) return labels.state == state end)
    for endpoint, count in pairs(counts) do
      if count > 0 and not states[endpoint] then states[endpoint] = state end
    end
  end
  return states
end

local function is_output(labels)
  return labels.gen_ai_token_type == "output"
end

local function is_outcome(outcome)
  return function(labels) return labels.outcome == outcome end
end

local function is_hit(labels)
  return labels.result == "hit" or labels.result == "stale" or labels.result == "join"
end

local function endpoint_rows(span)
  local page, requests = span.page, names.counters.requests.name
  local rows, rate = {}, rates(span, requests, "endpoint")
  local failed = rates(span, requests, "endpoint", is_outcome "error")
  local aborted = rates(span, requests, "endpoint", is_outcome "aborted")
  local durations, firsts = grown_buckets(span, DURATION), grown_buckets(span, FIRST_CHUNK)
  local gaps, active = grown_buckets(span, GAP), page:sums(names.gauges.active.name, "endpoint")
  local output = rates(span, TOKENS .. "_sum", MODEL, is_output)
  local retries = rates(span, names.counters.retries.name, "endpoint")
  local hits = rates(span, names.counters.cache.name, "endpoint", is_hit)
  local looked = rates(span, names.counters.cache.name, "endpoint")
  local states = breaker_states(page)
  for name, each in pairs(rate) do
    local times, first, gap = durations[name] or {}, firsts[name] or {}, gaps[name] or {}
    rows[#rows + 1] = {
      name = name, rate = each, failed = failed[name] or 0, aborted = aborted[name] or 0,
      p50 = pages.quantile(times, 0.5), p99 = pages.quantile(times, 0.99),
      first = pages.quantile(first, 0.5), gap = pages.quantile(gap, 0.99),
      active = active[name] or 0, output = output[name] or 0, retries = retries[name] or 0,
      hits = (looked[name] or 0) > 0 and (hits[name] or 0) / looked[name] or nil,
      breaker = states[name],
    }
  end
  table.sort(rows, function(a, b)
    if a.rate ~= b.rate then return a.rate > b.rate end
    return a.name < b.name
  end)
  return rows
end

-- What there is by a label, most of it first, without nothing.
local function ranked(by_name)
  local rows = {}
  for name, value in pairs(by_name) do
    if value > 0 then rows[#rows + 1] = { name = name, value = value } end
  end
  table.sort(rows, function(a, b)
    if a.value ~= b.value then return a.value > b.value end
    return a.name < b.name
  end)
  return rows
end

local function error_rows(span)
  local function has_failed(labels) return labels.error_type ~= nil end
  return ranked(rates(span, DURATION .. "_count", "error_type", has_failed))
end

-- ---- the program, a batch ----

local function process_of(span)
  local page = span.page
  local cpu = grown_sums(span, "process_cpu_seconds_total")[""]
  local start = page:sum "process_start_time_seconds"
  return {
    tasks = page:sum "sluice_tasks", connections = page:sum "sluice_server_connections",
    memory = page:sum "process_resident_memory_bytes", lag = page:sum "sluice_loop_lag_seconds",
    cpu = cpu and cpu / span.seconds, uptime = start and span.at - start,
    retry_left = page:sum "sluice_retry_budget_left", waiting = page:sum "sluice_limiter_waiting",
  }
end

local function batch_of(span)
  local page = span.page
  local results = page:sums("sluice_batch_results_total", "result")
  if not next(results) then return nil end
  local done = (results.ok or 0) + (results.failed or 0)
  local rate = rates(span, "sluice_batch_results_total")[""]
  local rows = page:sum "sluice_batch_rows"
  return {
    done = done, failed = results.failed or 0, rows = rows, rate = rate,
    left = rows and rate > 0 and (rows - done) / rate or nil,
    busy = page:sum "sluice_batch_in_flight", limit = page:sum "sluice_batch_concurrency",
    retries = page:sum "sluice_batch_retries_total", tokens = rates(span, "sluice_batch_tokens_total")[""],
    paused = page:sum "sluice_batch_pause_seconds",
  }
end

-- ---- tasks ----

local function wait_rows(told)
  local by_wait, rows = {}, {}
  for _, task in ipairs(told and told.tasks or {}) do
    local what = type(task.waits_for) == "string" and task.waits_for or tostring(task.state)
    local row = by_wait[what]
    if not row then
      row = { what = what, count = 0, oldest = 0, name = task.name }
      by_wait[what], rows[#rows + 1] = row, row
    end
    row.count = row.count + 1
    local age = type(task.age) == "number" and task.age or 0
    if age > row.oldest then row.oldest, row.name = age, task.name end
  end
  table.sort(rows, function(a, b)
    if a.count ~= b.count then return a.count > b.count end
    return a.what < b.what
  end)
  return rows
end

---What was read of a program at one time.
---@class sluice.top.Reading
---@field page sluice.metrics.Page
---@field tasks? { total: integer, tasks: table[] }
---@field at number seconds since 1970
---@field started number seconds, on a clock that only goes forward

-- Where there is nothing to compare with, all that was counted since the program began.
local function span_of(reading, before)
  local start = reading.page:sum "process_start_time_seconds"
  local seconds = before and reading.started - before.started or start and reading.at - start or 0
  return {
    page = reading.page, before = before and before.page, at = reading.at,
    seconds = math.max(seconds, 0.001),
  }
end

---The figures of a reading, compared with one before; without one, since the start of the program.
---@param reading sluice.top.Reading
---@param before? sluice.top.Reading
---@return table figures
function figures.of(reading, before)
  local span = span_of(reading, before)
  return {
    seconds = span.seconds, is_total = before == nil,
    process = process_of(span), endpoints = endpoint_rows(span), errors = error_rows(span),
    variants = ranked(rates(span, names.counters.assignments.name, "variant")),
    batch = batch_of(span), waits = wait_rows(reading.tasks),
    tasks_told = reading.tasks ~= nil, tasks_total = reading.tasks and reading.tasks.total,
    samples = reading.page.count,
  }
end

return figures
