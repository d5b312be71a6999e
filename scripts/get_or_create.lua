#!/usr/bin/env sluice
-- SPDX-License-Identifier: MIT
-- An endpoint that must be there: found, or created and waited for. Run it as often as you like.
--
--     sluice --emulator scripts/get_or_create.lua [ENDPOINT] [MODEL] [VERSION]
--
-- Against a workspace of yours: set DATABRICKS_HOST and DATABRICKS_TOKEN, leave --emulator out.
-- What is there is never changed; where it differs from what this script wants, it says how and exits 3.
local sluice = require "sluice"

local given = sluice.arguments.read {
  about = "Finds an endpoint, or creates it and waits for it. What is there is never changed.",
  { "ENDPOINT", default = "rivers" },
  { "MODEL", default = "main.demo.rivers" },
  { "VERSION", default = "1" },
  notes = "Exit status: 3 where it differs from what is wanted.",
}
local name = given.endpoint
local serving = assert(sluice.workspace()).serving_endpoints

local endpoint = assert(serving:get_or_create({
  name = name,
  config = { served_entities = { {
    entity_name = given.model,
    entity_version = given.version,
    workload_size = "Small",
    scale_to_zero_enabled = true,
  } } },
}, { progress = true }))

local facts = sluice.meta(endpoint)
print(("%s is %s, %s"):format(endpoint.name, endpoint.state.ready, facts.created and "created" or "found"))
for _, difference in ipairs(facts.drift or {}) do print(difference) end
if facts.drift then os.exit(3) end

local reply = assert(serving:query(name, { messages = { { role = "user", content = "What is a sluice?" } } }))
print(reply.choices[1].message.content)
