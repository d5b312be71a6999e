#!/usr/bin/env sluice
-- SPDX-License-Identifier: MIT
-- Asks an endpoint many things without running into its rate limit, and without a storm when it says 429.
--
--     sluice rate_limits.lua ENDPOINT [QUESTIONS]
--     sluice --emulator scripts/rate_limits.lua
local sluice = require "sluice"
local layers, task, transports = sluice.layers, sluice.task, sluice.transports

local given, refuse = sluice.arguments.read {
  about = "Asks an endpoint many things without running into its rate limit.",
  { "ENDPOINT", "who is asked; in an emulator, without it, one of its own" },
  { "QUESTIONS", "how many", type = "count", default = 40 },
}
local name, count = given.endpoint, given.questions
local wire -- the HTTP client, unless we try it out: then three answers on the way are a 429
if not name then
  wire = transports.faults { rules = { { kind = "status", status = 429, headers = { ["retry-after"] = "0.5" },
    path = "/serving-endpoints/*/invocations", skip = 20, times = 3 } } }
end
local workspace = assert(sluice.workspace { transport = wire })
if not name then
  if not workspace:is_emulator() then refuse "ENDPOINT is missing" end
  name = "limited"
  assert(workspace.serving_endpoints:create_and_wait {
    name = name,
    config = { served_entities = { { entity_name = "main.demo.echo", entity_version = "1",
      workload_size = "Small", scale_to_zero_enabled = true } } },
  })
end

local chat = sluice.pipeline(workspace:endpoint(name), {
  layers.retry { attempts = 5 },
  layers.limit { -- inside the retry: every try counts, and one 429 holds all tasks back until its time
    rate = 50, burst = 10, -- a second; as many at once after a rest
    tokens = 100000, period = 60, -- questions and answers together, in any minute
    max_queue = 1000, queue_timeout = 60, -- seconds
  },
  layers.timeout { total = 30 },
})

local questions, started = {}, task.now()
for row = 1, count do questions[row] = ("What is in row %d?"):format(row) end
local results = task.map(questions, function(question)
  return chat:query { messages = { { role = "user", content = question } }, max_tokens = 50 }
end, { concurrency = 16 })

local ok, again, problem = 0, 0, nil
for _, result in ipairs(results) do
  if result.ok then ok = ok + 1 else problem = result.error end
  local attempts = sluice.meta(result.value).attempts or {}
  again = again + math.max(#attempts - 1, 0)
end
local limiter, seconds = chat.limiter, task.now() - started
print(("%d of %d answered in %.1f s, %d tries again"):format(ok, count, seconds, again))
print(("%d requests let through, %d had to wait, %.1f s together"):format(
  limiter.passed, limiter.waited, limiter.waited_seconds))
print(("%d pauses after a 429, %d turned away, %d tokens"):format(
  limiter.pauses, limiter.refused, limiter.tokens))
if problem then error(problem, 0) end
