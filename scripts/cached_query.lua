#!/usr/bin/env sluice
-- SPDX-License-Identifier: MIT
-- Asks the same things again and again, and pays for each once: answers are kept, and shared while they come.
--
--     sluice cached_query.lua [--redis URL] ENDPOINT [ROUNDS]
--     sluice --emulator scripts/cached_query.lua [--redis URL]
local sluice = require "sluice"
local cache, layers, task = sluice.cache, sluice.layers, sluice.task

local given, refuse = sluice.arguments.read {
  about = "Asks the same things again and again, and pays for each once.",
  { "ENDPOINT", "who is asked; in an emulator, without it, one of its own" },
  { "ROUNDS", "how often", type = "count", default = 3 },
  { "--redis URL", "keeps answers there, for all processes" },
}

local name, url = given.endpoint, given.redis
local workspace = assert(sluice.workspace())
if not name then -- try it out: an endpoint of our own
  if not workspace:is_emulator() then refuse "ENDPOINT is missing" end
  name = "cached"
  assert(workspace.serving_endpoints:create_and_wait {
    name = name,
    config = { served_entities = { { entity_name = "main.demo.rivers", entity_version = "1",
      workload_size = "Small", scale_to_zero_enabled = true } } },
  })
end

local near = cache.lru { max_entries = 10000, max_bytes = 64 << 20 }
local stores = { near, url and sluice.redis.connect { url = url } } -- Redis: what all processes share
local chat = sluice.pipeline(workspace:endpoint(name), {
  layers.cache { -- outermost: what is kept costs no retry, no rate and no time
    store = stores, ttl = 3600, -- seconds that an answer is fresh
    stale_while_revalidate = 600, -- then it is given that long while a new one is asked for,
    stale_if_error = 86400, -- and for a day where none is to be had
  },
  layers.retry { attempts = 3 },
  layers.timeout { total = 30 },
})

-- Each question three times at once: as a query, once more, and as a stream.
local function ask(question)
  local request = { messages = { { role = "user", content = question } }, temperature = 0, max_tokens = 20 }
  local answers = task.map({ "query", "query", "stream" }, function(method)
    local answer, err = chat[method](chat, request)
    if answer and method == "stream" then assert(answer:collect()) end
    return answer, err
  end)
  local words = {}
  for index, answer in ipairs(answers) do
    words[index] = answer.ok and sluice.meta(answer.value).cache.result or answer.error.kind
  end
  return table.concat(words, ", ")
end

for round = 1, given.rounds do
  for _, question in ipairs { "What is a sluice?", "Who opens it?" } do
    local from = task.now()
    print(("round %d: %s %s in %.1f ms"):format(round, question, ask(question), (task.now() - from) * 1e3))
  end
end

local kept, counts = near:stats(), chat.cache
local requests = counts.hits + counts.joins + counts.misses
print(("%d calls for %d requests: %d hits, %d joined; %d answers kept in %d bytes"):format(
  counts.misses, requests, counts.hits, counts.joins, kept.entries, kept.bytes))
