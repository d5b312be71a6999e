#!/usr/bin/env sluice
-- SPDX-License-Identifier: MIT
-- Tells a story as it is made: the text on standard output, the figures on standard error.
--
--     sluice stream.lua ENDPOINT [QUESTION]
--     sluice --emulator scripts/stream.lua
local sluice = require "sluice"
local layers = sluice.layers

local given, refuse = sluice.arguments.read {
  about = "Tells a story as it is made: the text on standard output, the figures on standard error.",
  { "ENDPOINT", "who is asked; in an emulator, without it, one of its own" },
  { "QUESTION", default = "Tell me a story about a river and a mill." },
}
local name = given.endpoint
local workspace = assert(sluice.workspace())
if not name then
  if not workspace:is_emulator() then refuse "ENDPOINT is missing" end
  name = "story"
  assert(workspace.serving_endpoints:create_and_wait {
    name = name,
    config = { served_entities = { { entity_name = "main.demo.rivers", entity_version = "1",
      workload_size = "Small", scale_to_zero_enabled = true } } },
  })
end

local chat = sluice.pipeline(workspace:endpoint(name), {
  layers.retry { attempts = 3 }, -- until the first word, never after it
  layers.timeout { first_event = 120, idle = 30 }, -- seconds to the first word, and from one to the next
})

local stream <close> = assert(chat:stream {
  messages = { { role = "user", content = given.question } },
  max_tokens = 200,
})
for piece in stream:text() do -- raises when the stream breaks off: err.partial is what came until then
  io.write(piece)
  io.flush()
end
io.write("\n")

local answer = assert(stream:collect()) -- nothing is read again
local facts = sluice.meta(answer)
io.stderr:write(("%s after %.2f s, the first word after %.0f ms; %d tokens\n"):format(
  answer.choices[1].finish_reason, facts.timing.total, facts.ttft * 1000, answer.usage.total_tokens))
