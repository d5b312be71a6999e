-- SPDX-License-Identifier: MIT
-- An emulator with two versions of a model, callers that ask it all the time, and the log of what they got.

local caller = require "emulator_caller"
local emulator = require "sluice.emulator"
local fixture = require "server_fixture"
local random = require "sluice.random"
local sluice = require "sluice"
local task = require "sluice.task"

local rollout_service = {}

-- The config that an endpoint begins with: `old` has all of the traffic.
function rollout_service.config()
  local config = { served_entities = {}, traffic_config = { routes = {} } }
  for index, name in ipairs { "old", "new" } do
    config.served_entities[index] = caller.entity("echo", { name = name })
    local share = name == "old" and 100 or 0
    config.traffic_config.routes[index] = { served_entity_name = name, traffic_percentage = share }
  end
  return config
end

-- A workspace with the endpoint "chat"; `given`: of the emulator; `transport`: how it is reached.
function rollout_service.new(given, transport_of)
  local emulated = fixture.need(emulator.new(given))
  local workspace = fixture.need(sluice.workspace {
    host = "http://emulator.test", token = "any",
    transport = transport_of and transport_of(emulated) or emulated.app,
  })
  local body = { name = "chat", config = rollout_service.config() }
  fixture.need(workspace.serving_endpoints:create_and_wait(body))
  return { emulated = emulated, workspace = workspace, log = {}, draw = random.new(11) }
end

-- The percentage that the candidate has.
function rollout_service.share(service)
  local endpoint = fixture.need(service.workspace.serving_endpoints:get "chat")
  for _, route in ipairs(endpoint.config.traffic_config.routes) do
    if route.served_entity_name == "new" then return route.traffic_percentage end
  end
  return 0
end

local REQUEST <const> = { messages = { { role = "user", content = "high water" } } }

function rollout_service.ask(service)
  local chat = service.workspace:endpoint "chat"
  local started, wall = task.now(), task.wall()
  service.emulated.latency = 0.01 + 0.02 * service.draw() -- of the next request, which is this one
  local reply, err = chat:query(REQUEST)
  local name = reply and sluice.meta(reply).served_model
    or err.response and err.response.headers["served-model-name"]
  service.log[#service.log + 1] = {
    variant = name, timestamp_ms = wall * 1000, execution_time_ms = (task.now() - started) * 1000,
    status_code = reply and 200 or err.status, error_kind = err and err.kind,
  }
end

-- Asks so many times a second until the task that runs `f(service)` is through.
function rollout_service.with_callers(service, rate, f)
  return task.scope(function(scope)
    local callers = scope:spawn(function()
      while true do
        scope:spawn(rollout_service.ask, service)
        task.sleep(1 / rate)
      end
    end)
    local results = table.pack(f(service))
    callers:cancel "enough"
    return table.unpack(results, 1, results.n)
  end)
end

return rollout_service
