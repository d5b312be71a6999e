#!/usr/bin/env sluice
-- SPDX-License-Identifier: MIT
-- Asks an endpoint with structured logging: a line when each query starts, and one when it has ended.
--
--     sluice logged_query.lua [--file PATH] [--content] ENDPOINT [QUESTION...]
--     sluice --emulator scripts/logged_query.lua
--
-- On a terminal the lines are for people, elsewhere they are JSON:
--     sluice logged_query.lua my-endpoint 2>&1 >/dev/null | jq 'select(.event == "query_error")'
local sluice = require "sluice"
local layers, log = sluice.layers, sluice.log

local given, refuse = sluice.arguments.read {
  about = "Asks an endpoint with structured logging.",
  { "ENDPOINT", "who is asked; in an emulator, without it, one of its own" },
  { "QUESTION..." },
  { "--file PATH", "gets the log instead of standard error" },
  { "--content", "logs prompts and answers too: mind who reads the log" },
}
if given.file then assert(log.to_file(given.file)) end     -- moved away, it is made anew; SIGHUP does so at once

local workspace, name = assert(sluice.workspace()), given.endpoint
if not name then -- try it out: an endpoint of our own
  if not workspace:is_emulator() then refuse "ENDPOINT is missing" end
  name = "demo"
  assert(workspace.serving_endpoints:get_or_create { name = name, config = { served_entities = {
    { entity_name = "main.demo.rivers", entity_version = "1", workload_size = "Small" },
  } } })
end
local questions = given.question or { "What is a sluice?" }

local chat = sluice.pipeline(workspace:endpoint(name), {
  layers.log { content = given.content, fields = { app = "logged_query" } },
  layers.retry { attempts = 3 },
  layers.timeout { total = 60 },
})

-- The fields of log.bind are on all lines of this task and of those it starts, layers.log's too.
log.bind { run = os.date "!%Y%m%dT%H%M%SZ" }
log.info("started", { questions = #questions })

local results = sluice.task.map(questions, function(question)
  return chat:query { messages = { { role = "user", content = question } }, max_tokens = 60 }
end)

local failed = 0
for _, result in ipairs(results) do
  if not result.ok then failed = failed + 1 end
  print(result.ok and result.value.choices[1].message.content or "no answer: " .. tostring(result.error))
end
log.info("ended", { answered = #results - failed, failed = failed })
os.exit(failed == 0)
