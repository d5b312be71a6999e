#!/usr/bin/env sluice
-- SPDX-License-Identifier: MIT
-- Asks on while the best endpoint is down: another one answers, and in the end a sentence of our own.
--
--     sluice degrade.lua ENDPOINT CHEAPER_ENDPOINT
--     sluice --emulator scripts/degrade.lua
local sluice = require "sluice"
local layers, task, transports = sluice.layers, sluice.task, sluice.transports

local given, refuse = sluice.arguments.read {
  about = "Asks on while the best endpoint is down.",
  { "ENDPOINT", "the best one; in an emulator, without both, two of its own that fail for a while" },
  { "CHEAPER_ENDPOINT", "asked where it fails" },
}
local best, cheaper = given.endpoint, given.cheaper_endpoint
local wire -- the HTTP client, unless we try it out: then both endpoints fail for a while
if best and not cheaper then refuse "CHEAPER_ENDPOINT is missing" end
if not cheaper then
  best, cheaper = "best", "cheaper"
  local function fails(name, skip, times)
    return { kind = "status", status = 503, path = ("/serving-endpoints/%s/invocations"):format(name),
      skip = skip, times = times }
  end
  wire = transports.faults { rules = { fails(best, 3, 3), fails(cheaper, 2, 2) } }
end
local workspace = assert(sluice.workspace { transport = wire })
if wire then
  if not workspace:is_emulator() then refuse "ENDPOINT and CHEAPER_ENDPOINT are missing" end
  for _, name in ipairs { best, cheaper } do
    assert(workspace.serving_endpoints:create_and_wait {
      name = name,
      config = { served_entities = { { entity_name = "main.demo." .. name, entity_version = "1",
        workload_size = "Small", scale_to_zero_enabled = true } } },
    })
  end
end

local sorry = { -- an endpoint of our own: anything with `query`
  name = "sorry",
  query = function()
    return { choices = { { message = { role = "assistant", content = "Ask me later, please." } } } }
  end,
}

local chat = sluice.pipeline(workspace:endpoint(best), {
  layers.fallback { workspace:endpoint(cheaper), sorry },
  layers.breaker { minimum = 2, cooldown = 0.5 }, -- leaves an endpoint that fails alone for a while
  layers.hedge { delay = 5 }, -- asks a second time where the first answer takes longer
  layers.timeout { total = 30 },
})

for row = 1, 12 do
  local answer = assert(chat:query { messages = { { role = "user", content = "How high is the water?" } },
    max_tokens = 8 })
  local facts = sluice.meta(answer)
  local reasons = {}
  for at, failure in ipairs(facts.degraded or {}) do
    reasons[at] = ("%s: %s"):format(failure.endpoint, failure.error.kind)
  end
  local why = #reasons > 0 and (" (%s)"):format(table.concat(reasons, ", ")) or ""
  print(("%2d %s%s: %s"):format(row, facts.answered_by, why, answer.choices[1].message.content))
  task.sleep(0.1)
end
