-- SPDX-License-Identifier: MIT
-- What a split and a captured row cost the loop's thread, a query; and that the loop never waits for the disk.

local sluice = require "sluice"
local layers, task, traffic = sluice.layers, sluice.task, sluice.traffic
local meta = require "sluice.meta"

local QUERIES <const> = 200000
-- So few at once that the writer's queue keeps up, as it does behind a real endpoint.
local AT_ONCE <const> = 500

local REQUEST <const> = { messages = { { role = "user", content = "hello" } }, user = "user-123456" }

local function facts()
  return { status = 200, served_model = "entity-1" }
end

local function answer()
  local usage = { prompt_tokens = 9, completion_tokens = 20 }
  return meta.later({ choices = {}, model = "m", usage = usage }, facts)
end

local function arm(name)
  return { name = name, query = answer }
end

-- Nanoseconds that this thread has run, which leaves the writer's out. A wait brings it up to date.
local function thread_time()
  task.sleep(0.001)
  local file <close> = assert(io.open "/proc/thread-self/schedstat")
  return file:read "n"
end

-- Microseconds a query, and the most milliseconds that the loop was away.
local function cost_of(endpoint)
  local longest, before = 0, thread_time()
  for _ = 1, QUERIES // AT_ONCE do
    local started = task.now()
    for _ = 1, AT_ONCE do endpoint:query(REQUEST) end
    longest = math.max(longest, task.now() - started)
    task.sleep(0.002)
  end
  return (thread_time() - before) / QUERIES / 1000, longest * 1000
end

local function captured(f)
  local path = os.tmpname()
  local store = assert(sluice.capture.open(path))
  local cost, longest = f(sluice.pipeline(arm "a", { layers.capture { store = store } }))
  store:flush()
  local lost = store:stats()
  store:close()
  for _, suffix in ipairs { "", "-wal", "-shm" } do os.remove(path .. suffix) end
  return cost, longest, lost.dropped + lost.failed
end

local function run()
  local bare, usual = cost_of(arm "a")
  local drawn = cost_of(traffic.split { { arm "a", 90 }, { arm "b", 10 } })
  local by_key = cost_of(traffic.split {
    { arm "a", 90 }, { arm "b", 10 }, key = function(request) return request.user end,
  })
  local capture, longest, lost = captured(cost_of)
  return {
    drawn = drawn - bare, by_key = by_key - bare, capture = capture - bare, longest = longest, usual = usual,
    lost = lost,
  }
end

local function row(key, label, unit, bar, digits)
  return { key = key, label = label, unit = unit, digits = digits or 2, better = "less", bar = bar }
end

return { {
  name = "traffic",
  open = function() return { { name = "sluice", run = run } } end,
  rows = {
    row("drawn", "traffic.split, drawn", "us", 0.5),
    row("by_key", "traffic.split, by a key of 11 bytes", "us", 0.5),
    row("capture", "layers.capture, on the loop's thread", "us", 6),
    row("longest", "500 captured queries, the longest", "ms"),
    row("usual", "500 queries, the longest", "ms"),
    row("lost", "rows lost", "", 0, 0),
  },
} }
