-- SPDX-License-Identifier: MIT
-- What an endpoint's queries cost, counted for the metrics text: a sliding minute, and histograms since the start.

local task = require "sluice.task"
local wire = require "sluice.emulator.wire"

local metrics = {}

local minute <const> = 60

-- Upper bounds of the histograms, in milliseconds.
local bounds = { 5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 10000, 60000 }

---@class sluice.emulator.Metrics
local methods = {}
local metatable = { __index = methods, __name = "sluice.emulator.metrics" }

---Counters of all endpoints.
---@return table metrics
function metrics.new() return setmetatable({ series = {} }, metatable) end

local function histogram()
  local made = { sum = 0, count = 0 }
  for at = 1, #bounds do made[at] = 0 end
  return made
end

local function observe(into, milliseconds)
  into.sum, into.count = into.sum + milliseconds, into.count + 1
  for at = #bounds, 1, -1 do
    if milliseconds > bounds[at] then return end
    into[at] = into[at] + 1
  end
end

-- The counters of a served entity; an endpoint that is made again begins at zero, since its id is another.
local function series_of(self, id, entity)
  local of_endpoint = self.series[id] or {}
  self.series[id] = of_endpoint
  local series = of_endpoint[entity]
  if not series then
    series = { seconds = {}, latency = histogram() }
    of_endpoint[entity] = series
  end
  return series
end

-- The counts of this second; those older than a minute go.
local function slot(series)
  local now = math.floor(task.now())
  local place = now % minute
  local counts = series.seconds[place]
  if not counts or counts.at ~= now then
    counts = { at = now, total = 0, client = 0, server = 0 }
    series.seconds[place] = counts
  end
  return counts
end

---Notes the beginning of a query.
---@param id string of the endpoint
---@param entity string the served entity's name
---@return fun(status: integer) done to be called at its end
function methods:begin(id, entity)
  local series, started = series_of(self, id, entity), task.now()
  return function(status)
    observe(series.latency, (task.now() - started) * 1000)
    local counts = slot(series)
    counts.total = counts.total + 1
    if status >= 500 then
      counts.server = counts.server + 1
    elseif status >= 400 then
      counts.client = counts.client + 1
    end
  end
end

---Forgets an endpoint.
---@param id string
function methods:forget(id) self.series[id] = nil end

local function last_minute(series, key)
  local sum, now = 0, math.floor(task.now())
  for _, counts in pairs(series.seconds) do
    if now - counts.at < minute then sum = sum + counts[key] end
  end
  return sum
end

-- What an idle process of its own would show; the emulator's models have none.
local gauges = {
  { "cpu_usage_percentage", "CPU use of the served entity.", function() return 0.0 end },
  { "mem_usage_percentage", "Memory use of the served entity.", function() return 0.0 end },
  { "provisioned_concurrent_requests_total", "Requests that can be served at a time.", function()
    return 4
  end },
  { "request_count_total", "Requests in the last minute.", function(s)
    return last_minute(s, "total")
  end },
  { "request_4xx_count_total", "Requests in the last minute that were refused.", function(s)
    return last_minute(s, "client")
  end },
  { "request_5xx_count_total", "Requests in the last minute that failed.", function(s)
    return last_minute(s, "server")
  end },
}

local histograms = {
  { "request_latency_ms", "Milliseconds from request to answer.", "latency" },
  { "model_queue_time_ms", "Milliseconds a request waited for its model.", "waits" },
}

local function add_histogram(lines, name, labels, made)
  for at, bound in ipairs(bounds) do
    lines[#lines + 1] = ('%s_bucket{%s,le="%d.0"} %d'):format(name, labels, bound, made[at])
  end
  lines[#lines + 1] = ('%s_bucket{%s,le="+Inf"} %d'):format(name, labels, made.count)
  lines[#lines + 1] = ("%s_sum{%s} %.3f"):format(name, labels, made.sum)
  lines[#lines + 1] = ("%s_count{%s} %d"):format(name, labels, made.count)
end

-- No request waits for its model here.
local function no_waits(count)
  local made = { sum = 0, count = count }
  for at = 1, #bounds do made[at] = count end
  return made
end

local function add_head(lines, name, help, kind)
  lines[#lines + 1] = ("# HELP %s %s"):format(name, help)
  lines[#lines + 1] = ("# TYPE %s %s"):format(name, kind)
end

---The metrics of an endpoint in the Prometheus text format. The `*_count_total` are gauges, as those of the service.
---@param record table the endpoint's record
---@return string
function methods:text(record)
  local lines, rows = {}, {}
  for _, made in ipairs(record.live and record.live.config.served_entities or {}) do
    local labels = ('workspaceId="%s",endpoint="%s",served_model="%s"'):format(
      wire.workspace_id, record.name, made.name)
    rows[#rows + 1] = { labels = labels, series = series_of(self, record.id, made.name) }
  end
  for _, gauge in ipairs(gauges) do
    add_head(lines, gauge[1], gauge[2], "gauge")
    for _, row in ipairs(rows) do
      lines[#lines + 1] = ("%s{%s} %s"):format(gauge[1], row.labels, gauge[3](row.series))
    end
  end
  for _, each in ipairs(histograms) do
    add_head(lines, each[1], each[2], "histogram")
    for _, row in ipairs(rows) do
      add_histogram(lines, each[1], row.labels, row.series[each[3]] or no_waits(row.series.latency.count))
    end
  end
  return table.concat(lines, "\n") .. "\n"
end

return metrics
