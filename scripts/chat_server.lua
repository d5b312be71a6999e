#!/usr/bin/env sluice
-- SPDX-License-Identifier: MIT
-- A chat over a serving endpoint: a page at /, and what it talks to.
--
--     sluice chat_server.lua [--listen HOST:PORT] [ENDPOINT]
--     sluice --emulator scripts/chat_server.lua                 # with an endpoint of its own, "demo"
--
-- POST /chat (an array of messages, or { messages }) streams; POST /query gives { response }; GET /endpoints; GET /health.
local sluice = require "sluice"
local health, json, layers, web = sluice.health, sluice.json, sluice.layers, sluice.web

local given, bad_usage = sluice.arguments.read {
  about = "A chat over a serving endpoint: a page at /, and what it talks to.",
  { "ENDPOINT", "who answers; in an emulator, without it, an endpoint of its own" },
  { "--listen HOST:PORT", "port 0: a free one", default = "127.0.0.1:8080" },
}

local workspace = assert(sluice.workspace())
local endpoints, name = workspace.serving_endpoints, given.endpoint
if not name then
  if not workspace:is_emulator() then bad_usage "ENDPOINT is missing" end
  name = "demo"
  assert(endpoints:get_or_create { name = name, config = { served_entities = { {
    entity_name = "main.demo.chat", entity_version = "1",
    workload_size = "Small", scale_to_zero_enabled = true,
  } } } })
end

local chat = sluice.pipeline(workspace:endpoint(name), {
  layers.retry { attempts = 3 },                          -- until the first word, never after it
  layers.timeout { first_event = 120, idle = 60 },        -- seconds, of each try
})

-- Raised, it is answered with 400 and this text.
local function refuse(text, ...)
  error(sluice.errors.new("MalformedRequest", { message = text:format(...) }), 0)
end

local function messages_of(request)
  local body = assert(request:json())
  local messages = type(body) == "table" and (body.messages or body)
  if type(messages) ~= "table" or messages[1] == nil then
    refuse 'the body is an array of messages, or { "messages": [...] }, with one at least'
  end
  for index, message in ipairs(messages) do
    if type(message) ~= "table" or type(message.role) ~= "string" or message.content == nil then
      refuse('message %d is no { "role": ..., "content": ... }', index)
    end
  end
  return { messages = messages }
end

local folder = arg[0]:match "^(.*/)" or ""
local page = assert(io.open(folder .. "chat_server.html")):read "a"

local app = web.app { max_body = 1 << 20 }
app:get("/", function()
  return { body = page, headers = {
    ["content-type"] = "text/html; charset=utf-8",
    ["content-security-policy"] = "default-src 'none'; connect-src 'self'; img-src data:; "
      .. "script-src 'unsafe-inline'; style-src 'unsafe-inline'",
  } }
end)
app:post("/chat", function(request)
  return { stream = assert(chat:stream(messages_of(request), { request_id = request.id })) }
end)
app:post("/query", function(request)
  local answer = assert(chat:query(messages_of(request), { request_id = request.id }))
  return { json = { response = answer.choices[1].message.content } }
end)
app:get("/endpoints", function()
  local list = json.array {}
  for index, endpoint in ipairs(assert(endpoints:list())) do
    list[index] = { name = endpoint.name, state = endpoint.state.ready }
  end
  return { json = list }
end)
local monitor <close> = health.monitor { endpoints = { chat } } -- asks for its state: no tokens
web.health(monitor, app)                                  -- /health, /ready, /live

local server = assert(app:listen(given.listen))
print("http://" .. server.address)
server:serve(30)                                          -- on SIGTERM streams have 30 s to end
