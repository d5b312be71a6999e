#!/usr/bin/env sluice
-- SPDX-License-Identifier: MIT
-- Asks an endpoint once, and tries again what may be mended by it. Says what it decided.
--
--     sluice query_with_retry.lua ENDPOINT [QUESTION]
--     sluice --emulator scripts/query_with_retry.lua
local sluice = require "sluice"
local layers, meta = sluice.layers, sluice.meta

local given, refuse = sluice.arguments.read {
  about = "Asks an endpoint once, and tries again what may be mended by it.",
  { "ENDPOINT", "who is asked; in an emulator, without it, one of its own that fails three times" },
  { "QUESTION", default = "What is a sluice?" },
}
local name, transport = given.endpoint, nil

if not name then -- try it out: an endpoint of our own, behind a wire that fails three times
  name = "flaky"
  local emulated = assert(sluice.workspace())
  if not emulated:is_emulator() then refuse "ENDPOINT is missing" end
  assert(emulated.serving_endpoints:create_and_wait {
    name = name,
    config = { served_entities = { { entity_name = "main.demo.rivers", entity_version = "1",
      workload_size = "Small", scale_to_zero_enabled = true } } },
  })
  transport = require "sluice.transports.faults" { rules = {
    { kind = "status", times = 1, status = 503, json = { message = "busy" } },
    { kind = "status", times = 1, status = 429, headers = { ["retry-after-ms"] = "250" } },
    { kind = "refuse", times = 1 },
  } }
end

local workspace = assert(sluice.workspace { transport = transport })

local chat = sluice.pipeline(workspace:endpoint(name), {
  layers.breaker {}, -- a server that is down is left alone for a while
  layers.retry {
    attempts = 5,
    total = 120, -- seconds, for all tries
    base = 0.2, -- the first wait is up to this, the next one up to twice as long, ...
    per_kind = { TooManyRequests = { attempts = 8 } },
    on_retry = function(err, attempt, delay)
      print(("try %d: %s; again in %.2f s"):format(attempt, err.kind, delay))
    end,
  },
  layers.timeout { total = 60 }, -- for each try
})

local reply, err = chat:query { messages = { { role = "user", content = given.question } }, max_tokens = 40 }
if not reply then
  print(("no answer after %d tries (%s)"):format(#err.attempts, err.gave_up or "another one mends nothing"))
  error(err, 0)
end
print(("answered at try %d"):format(#(meta(reply).attempts or { true })))
print(reply.choices[1].message.content)
