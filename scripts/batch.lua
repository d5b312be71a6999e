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

local given, refuse = sluice.arguments.read {
  about = "Asks an endpoint every line of a JSONL file. Run again with the same files it continues.",
  { "--endpoint NAME", "who is asked" },
  { "--input FILE", "a request a line; - for standard input" },
  { "--output FILE", "a line for each; - for standard output" },
  { "--concurrency N", "requests at a time (10)", type = "count" },
  { "--max-concurrency N", "what it may grow to while the server keeps up", type = "count" },
  { "--order ORDER", "of the results", choices = { "input", "completion" }, default = "input" },
  { "--report FILE", "gets the summary, as JSON" },
  { "--max-failures N", "stops when so many rows have failed", type = "count" },
  { "--max-tokens N", "stops when the answers have taken so many", type = "count" },
  { "--metrics HOST:PORT", "serves /metrics there, for Prometheus and sluice top" },
  notes = "Exit status: 0 every row has an answer, 3 some have errors or are left, 130 interrupted.",
}

local workspace = assert(sluice.workspace())
if #arg == 0 then -- try it out: an endpoint and rows of our own
  if not workspace:is_emulator() then refuse "--endpoint, --input and --output are missing" end
  given.endpoint, given.output, given.input = "rivers", "-", {}
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
  if not given[name] then refuse("--" .. name .. " is missing") end
end

local found, wrong = workspace.serving_endpoints:get(given.endpoint)
if not found and wrong:is "ResourceDoesNotExist" then refuse(wrong.message) end -- else each row would say so

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
  concurrency = given.concurrency, max_concurrency = given.max_concurrency,
  max_failures = given.max_failures, max_tokens = given.max_tokens,
  progress = true,
}
if not summary then
  io.stderr:write(tostring(err), "\n")
  os.exit(1)
end
local stopped = summary.stopped and "; stopped: " .. summary.stopped or ""
local before = summary.resumed > 0 and ("; of earlier runs %d rows, %d tokens"):format(
  summary.resumed, summary.tokens.resumed) or ""
io.stderr:write(("%d rows: %d answered, %d failed; %d tokens%s%s\n"):format(
  summary.rows, summary.ok, summary.failed, summary.tokens.total, before, stopped))
if not summary.complete or summary.failed > 0 then os.exit(3) end
