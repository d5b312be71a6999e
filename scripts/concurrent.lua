#!/usr/bin/env sluice
-- SPDX-License-Identifier: MIT
-- Asks one endpoint many things at once, through one connection pool, and prints the answers in order.
--
--     sluice concurrent.lua ENDPOINT [CONCURRENCY] <questions.txt
--     sluice --emulator scripts/concurrent.lua
--
-- One question a line. Standard output gets one JSON line for each, in the order of the questions.
local sluice = require "sluice"
local json, layers, task = sluice.json, sluice.layers, sluice.task

local given, refuse = sluice.arguments.read {
  about = "Asks an endpoint each line of standard input; prints a JSON line for each, in their order.",
  { "ENDPOINT", "who is asked; in an emulator, without it, one of its own, and questions of its own" },
  { "CONCURRENCY", "requests at a time", type = "count", default = 8 },
}
local name = given.endpoint
local workspace = assert(sluice.workspace())
local questions = {}

if name then
  for line in io.lines() do questions[#questions + 1] = line end
else -- try it out: an endpoint and questions of our own
  if not workspace:is_emulator() then refuse "ENDPOINT is missing" end
  name = "concurrent"
  assert(workspace.serving_endpoints:create_and_wait {
    name = name,
    config = { served_entities = { { entity_name = "main.demo.echo", entity_version = "1",
      workload_size = "Small", scale_to_zero_enabled = true } } },
  })
  for i = 1, 20 do questions[i] = "question " .. i end
end

local chat = sluice.pipeline(workspace:endpoint(name), {
  layers.retry { attempts = 3 },
  layers.limit { rate = 100 }, -- requests a second; inside retry, so that every try counts
  layers.timeout { total = 30 },
})

local results = task.map(questions, function(question)
  return chat:query { messages = { { role = "user", content = question } } }
end, { concurrency = given.concurrency })

local failed = 0
for row, result in ipairs(results) do
  if result.ok then
    print(json.encode { row = row, answer = result.value.choices[1].message.content })
  else
    failed = failed + 1
    print(json.encode { row = row, error = { kind = result.error.kind, message = tostring(result.error) } })
  end
end
if failed > 0 then os.exit(3) end
