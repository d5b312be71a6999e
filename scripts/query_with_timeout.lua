#!/usr/bin/env sluice
-- SPDX-License-Identifier: MIT
-- Asks an endpoint within limits of time, and says which of them was over.
--
--     sluice query_with_timeout.lua ENDPOINT [SECONDS]
--     sluice --emulator scripts/query_with_timeout.lua
local sluice = require "sluice"
local layers, task = sluice.layers, sluice.task

local given, refuse = sluice.arguments.read {
  about = "Asks an endpoint within limits of time, and says which of them was over.",
  { "ENDPOINT", "who is asked; in an emulator, without it, one of its own that keeps silent twice" },
  { "SECONDS", "until the answer begins", type = "seconds", default = 30 },
}
local name, seconds = given.endpoint, given.seconds
local transport

if not name then -- try it out: an endpoint of our own that keeps silent twice
  name, seconds = "slow", 0.3
  local emulated = assert(sluice.workspace())
  if not emulated:is_emulator() then refuse "ENDPOINT is missing" end
  assert(emulated.serving_endpoints:create_and_wait {
    name = name,
    config = { served_entities = { { entity_name = "main.demo.rivers", entity_version = "1",
      workload_size = "Small", scale_to_zero_enabled = true } } },
  })
  transport = require "sluice.transports.faults" { rules = { { kind = "stall", times = 2 } } }
end

local endpoint = assert(sluice.workspace { transport = transport }):endpoint(name)
local request = { messages = { { role = "user", content = "What is a sluice?" } }, max_tokens = 40 }

-- Each phase has a limit of its own; see docs/http.md.
local limits = { queue = 5, connect = 5, first_byte = seconds, total = 2 * seconds }

local function ask(chat)
  local started = task.now()
  local reply, err = chat:query(request, { timeout = limits })
  if reply then
    print(("answered after %.1f s"):format(task.now() - started))
    return print(reply.choices[1].message.content)
  end
  print(("%s after %.1f s, limit %s; not sent again: %s"):format(
    err.kind, task.now() - started, err.limit, err.gave_up))
  return err
end

-- A query that timed out may have been executed, and billed: it is not sent again by itself.
local err = ask(sluice.pipeline(endpoint, { layers.retry {} }))

-- Where that is harmless, say so; `total` bounds all tries together.
local patient = layers.retry { resend = true, base = 0.1, total = 300 }
if err then err = ask(sluice.pipeline(endpoint, { patient })) end
if err then error(err, 0) end
