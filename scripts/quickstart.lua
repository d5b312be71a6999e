#!/usr/bin/env sluice
-- SPDX-License-Identifier: MIT
-- Creates a serving endpoint, waits until it is ready, asks it many things at once, sums up.
--
--     sluice --emulator scripts/quickstart.lua [ENDPOINT] [QUERIES]
--
-- Against a workspace of yours: set DATABRICKS_HOST and DATABRICKS_TOKEN, leave --emulator out.
local sluice = require "sluice"
local layers, progress, task = sluice.layers, sluice.progress, sluice.task

local given = sluice.arguments.read {
  about = "Creates an endpoint, asks it many things at once, sums up, and deletes it.",
  { "ENDPOINT", default = "quickstart" }, { "QUERIES", "how many", type = "count", default = 200 },
}
local name, count = given.endpoint, given.queries
local workspace = assert(sluice.workspace())

print(("creating the endpoint %q"):format(name))
local endpoint = assert(workspace.serving_endpoints:create_and_wait({
  name = name,
  config = {
    served_entities = { {
      entity_name = "main.demo.rivers",
      entity_version = "1",
      workload_size = "Small",
      scale_to_zero_enabled = true,
    } },
  },
}, { timeout = 20 * 60 }))
print(("%s is %s"):format(endpoint.name, endpoint.state.ready))

local chat = sluice.pipeline(workspace:endpoint(name), {
  layers.retry { attempts = 3 },
  layers.timeout { total = 30 }, -- innermost: for each try
})

local bar <close> = progress.bar { total = count, label = "asking" }
local tally = { ok = 0, failed = 0, tokens = 0 }

local function ask(question)
  local reply, err = chat:query { messages = { { role = "user", content = question } }, max_tokens = 40 }
  if reply then
    tally.ok, tally.tokens = tally.ok + 1, tally.tokens + reply.usage.total_tokens
  else
    tally.failed, tally.error = tally.failed + 1, err
  end
  bar:add()
  bar:set { ok = tally.ok, failed = tally.failed }
  return reply, err
end

local questions, started = {}, task.now()
for i = 1, count do questions[i] = ("Tell me about the river, part %d."):format(i) end
local results = task.map(questions, ask, { concurrency = 16 })
bar:close()

local seconds = task.now() - started
print(("%d answers, %d failed, %d tokens, %.2f s, %.0f answers/s"):format(
  tally.ok, tally.failed, tally.tokens, seconds, tally.ok / seconds))
if results[1] and results[1].ok then print("the first: " .. results[1].value.choices[1].message.content) end

assert(workspace.serving_endpoints:delete(name))
if tally.failed > 0 then error(tally.error, 0) end
