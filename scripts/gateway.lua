#!/usr/bin/env sluice
-- SPDX-License-Identifier: MIT
-- An OpenAI-compatible gateway over serving endpoints; each layer is a line to switch on or off.
--     sluice --emulator scripts/gateway.lua              # with an endpoint of its own, "demo"; --help tells more
local sluice = require "sluice"
local json, layers, web, tracing = sluice.json, sluice.layers, sluice.web, sluice.trace.shared()
local monitor <close> = sluice.health.monitor { needs = "any" } -- asks for states: no tokens
local registry, wanted = sluice.metrics.registry(), {}

local given, bad_usage = sluice.arguments.read {
  about = "An OpenAI-compatible gateway over serving endpoints.",
  { "MODEL=ENDPOINT[,FALLBACK]...", "what callers ask for, and who answers; in an emulator one of its own" },
  { "--listen HOST:PORT", "port 0: a free one", default = "127.0.0.1:8080" },
  { "--keys FILE", "a line NAME KEY for each caller; without it anyone may ask" },
  { "--capture DB", "a SQLite file, gets a row for each request" },
  { "--debug", "lets sluice top on this machine see the tasks" },
}

for _, word in ipairs(given.model or {}) do
  local model, names = word:match "^([^=,]+)=(.+)$"
  if not model then bad_usage("MODEL=ENDPOINT expected, got " .. word) end
  wanted[model] = {}
  for name in names:gmatch "[^,]+" do table.insert(wanted[model], name) end
end

local function read_keys(path)
  local keys = {}
  for line in assert(io.open(path)):lines() do
    local name, key = line:match "^%s*(%w%S*)%s+(%S+)%s*$"
    if name then keys[name] = sluice.secret(key) end
  end
  return keys
end
local callers = given.keys and read_keys(given.keys)
local captured = given.capture and layers.capture { store = given.capture } -- rows: docs/ab.md
local workspace = assert(sluice.workspace())
if not next(wanted) then
  if not workspace:is_emulator() then bad_usage "MODEL=ENDPOINT is missing" end
  wanted.demo = { "demo" }
  assert(workspace.serving_endpoints:get_or_create { name = "demo", config = { served_entities = {
    { entity_name = "main.demo.chat", entity_version = "1", workload_size = "Small" } } } })
end

local function upstream(name)
  return sluice.pipeline(workspace:endpoint(name), {
    layers.metrics { registry = registry },                -- counts, for /metrics
    monitor:layer(),                                       -- hears what comes back, for /health
    layers.breaker {},                                     -- leaves an endpoint that fails alone for a while
    layers.retry { attempts = 3 },                         -- until the first content, never after it
    layers.limit { queue_timeout = 10 },                   -- heeds the server's limits; rate = N sets one
    layers.timeout { first_event = 60, idle = 60 },        -- seconds, of each try
  })
end
local models = {}
for model, names in pairs(wanted) do
  local others = {}
  for index = 2, #names do others[index - 1] = upstream(names[index]) end
  local around = { layers.log { start = false, fields = { model = model } }, tracing and layers.trace {} }
  table.insert(around, captured)
  if others[1] then table.insert(around, layers.fallback(others)) end
  models[model] = sluice.pipeline(upstream(names[1]), around)
end

local function refuse(status, code, message, param)
  return { status = status, json = { error = {
    message = message, type = "invalid_request_error", code = code, param = param or json.null } } }
end

local function unknown(model)
  return refuse(404, "model_not_found", "no model is " .. (json.encode(model) or "named so"), "model")
end

-- What the caller asked wrongly keeps its status; all else gets one by the web server's table.
local function failed(err)
  if err.status ~= 400 and err.status ~= 413 and err.status ~= 422 then return nil, err end
  return refuse(err.status, err.code, err.message, err.param)
end

local function ask(needed)
  return function(request)
    local body, err = request:json { raw = true }          -- what no layer changes goes on byte for byte
    if body == nil then return nil, err end
    if type(body) ~= "table" or body[needed] == nil or body[needed] == json.null then
      return refuse(400, "missing_required_parameter", ("the body needs %q"):format(needed), needed)
    end
    local model = models[body.model]
    if not model then return unknown(body.model) end
    local pose, answer = body.stream == true and model.stream or model.query
    answer, err = pose(model, body, { request_id = request.id })
    if not answer then return failed(err) end
    if body.stream == true then return { stream = answer } end
    local facts = sluice.meta(answer)
    return { body = facts.raw or json.encode(answer),
      headers = { ["content-type"] = "application/json", ["x-answered-by"] = facts.answered_by } }
  end
end

local function describe(name) return { id = name, object = "model", created = 0, owned_by = "sluice" } end
local app = web.app { max_body = 16 << 20 }
if tracing then web.trace(app) end                         -- a span, within the caller's trace
if callers then app:use(web.api_keys(callers, { open = { "/health", "/ready", "/live" } })) end
web.health(monitor, app)
app:get("/metrics", web.metrics(registry))
if given.debug then app:get("/debug/tasks", web.tasks()) end
app:post("/v1/chat/completions", ask "messages")
app:post("/v1/completions", ask "prompt")
app:post("/v1/embeddings", ask "input")
app:get("/v1/models", function()
  local list = json.array {}
  for name in pairs(models) do table.insert(list, describe(name)) end
  return { json = { object = "list", data = list } }
end)
app:get("/v1/models/:model", function(request)
  local name = request.params.model
  return models[name] and { json = describe(name) } or unknown(name)
end)

local server = assert(app:listen(given.listen))
print("http://" .. server.address .. "/v1")
server:serve(30)                                           -- on SIGTERM streams have 30 s to end
