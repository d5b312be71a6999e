#!/usr/bin/env sluice
-- SPDX-License-Identifier: MIT
-- Asks an endpoint every line of a JSONL file, and writes each line's answer, or its error, to another one.
--
--     sluice batch.lua --endpoint NAME --input FILE --output FILE [--concurrency N] [--metrics HOST:PORT]
--     sluice --emulator scripts/batch.lua
--
-- Run again with the same files it continues, whatever ended it. Exit status: 0 every row has an answer, 3 some have
-- errors or are left, 130 interrupted (once: what runs is finished; twice: at once).
local sluice = require "sluice"

local NUMBERS <const> = {
  concurrency = true, ["max-concurrency"] = true, ["max-failures"] = true, ["max-tokens"] = true,
}
local TEXTS <const> = {
  endpoint = true, input = true, output = true, order = true, report = true, metrics = true,
}

local function bad_usage(text)
  io.stderr:write("batch.lua: ", text, "\nusage: sluice batch.lua --endpoint NAME --input FILE --output FILE",
    " [--concurrency N]\n       [--max-concurrency N] [--order input|completion] [--report FILE]",
    " [--max-failures N] [--max-tokens N]\n       [--metrics HOST:PORT]\n")
  os.exit(2)
end

local given, at = {}, 1
while arg[at] do
  local name, value = arg[at]:match "^%-%-([%a-]+)=?(.*)$"
  if not (NUMBERS[name] or TEXTS[name]) then bad_usage("unknown option " .. arg[at]) end
  if value == "" then at, value = at + 1, arg[at + 1] end
  if NUMBERS[name] then value = math.tointeger(tonumber(value)) end
  if not value then bad_usage("--" .. name .. " needs a value") end
  given[name], at = value, at + 1
end

local workspace = assert(sluice.workspace())
if #arg == 0 then -- try it out: an endpoint and rows of our own
  given = { endpoint = "rivers", output = "-", input = {} }
  assert(workspace.serving_endpoints:create_and_wait {
    name = "rivers",
    config = { served_entities = { { entity_name = "main.demo.echo", entity_version = "1",
      workload_size = "Small", scale_to_zero_enabled = true } } },
  })
  for i = 1, 20 do
    given.input[i] = { id = i, messages = { { role = "user", content = "question " .. i } } }
  end
end
for _, name in ipairs { "endpoint", "input", "output" } do
  if not given[name] then bad_usage("--" .. name .. " is needed") end
end

-- For `sluice top` and Prometheus.
local function serve_metrics(registry)
  local app = sluice.web.app()
  app:get("/metrics", sluice.web.metrics(registry)):get("/debug/tasks", sluice.web.tasks())
  local server = assert(app:listen(given.metrics))
  io.stderr:write("metrics: ", server.url, "/metrics\n")
  return server
end

local endpoint, registry = workspace:endpoint(given.endpoint), sluice.metrics.registry()
local server <close> = given.metrics and serve_metrics(registry) -- luacheck: ignore
if server then endpoint = sluice.pipeline(endpoint, { sluice.layers.metrics { registry = registry } }) end
local summary, err = sluice.batch.run {
  endpoint = endpoint, metrics = given.metrics and registry,
  input = given.input, output = given.output, order = given.order, report = given.report,
  concurrency = given.concurrency, max_concurrency = given["max-concurrency"],
  max_failures = given["max-failures"], max_tokens = given["max-tokens"],
  progress = true,
}
if not summary then
  io.stderr:write(tostring(err), "\n")
  os.exit(1)
end
local stopped = summary.stopped and "; stopped: " .. summary.stopped or ""
io.stderr:write(("%d rows: %d answered, %d failed; %d tokens%s\n"):format(
  summary.rows, summary.ok, summary.failed, summary.tokens.total, stopped))
if not summary.complete or summary.failed > 0 then os.exit(3) end
