#!/usr/bin/env sluice
-- SPDX-License-Identifier: MIT
-- A tour of what can go wrong: one line for each failure, with its kind and what to do about it.
--
--     sluice --emulator scripts/errors.lua
local sluice = require "sluice"
local errors, task = sluice.errors, sluice.task
local faults = require "sluice.transports.faults"

local _, refuse = sluice.arguments.read { about = "A tour of what can go wrong, against an emulator." }

local emulated = assert(sluice.workspace())
if not emulated:is_emulator() then refuse "an emulator is missing" end
local serving = emulated.serving_endpoints
local config = { served_entities = { { entity_name = "main.demo.rivers", entity_version = "1",
  workload_size = "Small", scale_to_zero_enabled = true } } }
assert(serving:create_and_wait { name = "tour", config = config })

local hello = { messages = { { role = "user", content = "hello" } } }

-- The endpoint behind a wire that answers, or fails, as the rule says.
local function behind(rule)
  local workspace = assert(sluice.workspace { transport = faults { rules = { rule } } })
  return workspace:endpoint("tour"):query(hello, { timeout = 0.5 })
end

local function answer(status, json, headers)
  return behind { kind = "status", status = status, json = json, headers = headers }
end

local provider = { error_code = "INVALID_PARAMETER_VALUE", message = "max_tokens is too large" }
local cases = {
  { "an endpoint that is not there", function() return serving:query("nowhere", hello) end },
  { "a name that is taken", function() return serving:create { name = "tour", config = config } end },
  { "a request without its key", function() return serving:query("tour", { question = "hello" }) end },
  { "no credentials", function() return answer(401, { message = "who are you?" }) end },
  { "a rate limit, by its code", function() return answer(400, { error_code = "RESOURCE_EXHAUSTED" }) end },
  { "a rate limit, with a time", function() return answer(429, nil, { ["retry-after"] = "1.5" }) end },
  { "a provider's error, opened", function()
    return answer(400, { error = "Received error from acme", external_model_message = provider })
  end },
  { "no capacity", function() return answer(503, { error = { message = "busy", type = "overloaded" } }) end },
  { "a proxy's page", function() return behind { kind = "html", status = 502 } end },
  { "a page where JSON should be", function() return behind { kind = "html" } end },
  { "JSON that is none", function() return behind { kind = "bad_json" } end },
  { "nobody there", function() return behind { kind = "refuse" } end },
  { "an answer cut short", function() return behind { kind = "truncate", bytes = 10 } end },
  { "silence", function() return behind { kind = "stall" } end },
  { "too little time", function() return task.timeout(0.01, task.sleep, 1) end },
}

for _, case in ipairs(cases) do
  local value, err = case[2]()
  assert(value == nil and errors.is(err), case[1])
  local advice = err.maybe_executed and "may have been executed" or err.retryable and "try again" or "mend it"
  if err.retry_after then advice = ("%s in %g s"):format(advice, err.retry_after) end
  print(("%-30s %-22s %s"):format(case[1], err.kind, advice))
  print("    " .. tostring(err))
end
assert(serving:delete "tour")
