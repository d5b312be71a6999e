-- SPDX-License-Identifier: MIT
-- A program that handles secrets as carelessly as users do, while everything fails that the emulator can make fail:
-- what it leaves behind is searched by canary_files_spec.lua. Its arguments: a folder, then the secrets.
local folder, token, header, user, query, prompt = table.unpack(arg)

local emulator = require "sluice.emulator"
local http = require "sluice.http"
local layers = require "sluice.layers"
local log = require "sluice.log"
local sluice = require "sluice"
local task = require "sluice.task"

log.set_level "debug"
assert(log.to_file(folder .. "/log"))

local function plain(inner) return inner end

local registry = sluice.metrics.registry()
local traces <close> = assert(io.open(folder .. "/traces", "w"))
local otlp = require "sluice.trace.otlp"
local exporter = { export = function(_, span) traces:write(otlp.span(span), "\n") end }
local has_sqlite = pcall(require, "sluice.core.sqlite")
local store = has_sqlite and assert(require("sluice.capture").open(folder .. "/inference_log.db"))
local emulated = assert(emulator.new { token = token, state = folder .. "/state.jsonl" })
local server <close> = assert(emulated:listen("127.0.0.1:0", { access_log = true }))
local host = "http://" .. server.address
local wire <close> = sluice.transports.cassette { path = folder .. "/cassette.jsonl", mode = "record" }
local workspace = assert(sluice.workspace { host = host, token = token, transport = wire })
assert(workspace.serving_endpoints:create_and_wait { name = "e", config = { served_entities = {
  { entity_name = "main.default.echo", entity_version = "1", workload_size = "Small" },
} } })

local chat = sluice.pipeline(workspace:endpoint "e", {
  layers.log { fields = { headers = { authorization = "Bearer " .. token }, api_key = header } },
  layers.metrics { registry = registry },
  layers.trace { exporter = exporter },
  store and layers.capture { store = store, content = false } or plain,
  layers.retry { attempts = 2, base = 0.001 },
  layers.timeout { total = 0.08 },
})

-- The server sends back what it was given: in messages, codes, HTML, and what is no JSON.
local echo = "not with " .. token
local FAULTS <const> = {
  { kind = "refuse" }, { kind = "reset", bytes = 0 }, { kind = "reset", bytes = 20 },
  { kind = "stall", bytes = 0 }, { kind = "stall", bytes = 30, seconds = 5 },
  { kind = "delay", seconds = 0.2 },
  { kind = "drip", pause = 0.05 },
  { kind = "truncate", bytes = 10 }, { kind = "truncate", bytes = 10, clean = true },
  { kind = "html", status = 502, body = "<pre>" .. echo .. "</pre>" },
  { kind = "bad_json", body = '{"a":"' .. echo },
  { kind = "stream_cut", chunks = 1 }, { kind = "stream_stall", chunks = 1, seconds = 5 },
  { kind = "stream_bad_json", chunks = 0 },
  { kind = "stream_error", chunks = 1, shape = "openai", message = echo },
  { kind = "stream_error", chunks = 0, shape = "databricks", code = token, message = echo },
  { kind = "stream_error", chunks = 1, shape = "text", message = echo },
}
for _, status in ipairs { 400, 401, 403, 404, 409, 418, 429, 499, 500, 501, 503, 504, 302 } do
  FAULTS[#FAULTS + 1] = { kind = "status", status = status, json = { error_code = token, message = echo } }
  FAULTS[#FAULTS + 1] = { kind = "status", status = status, body = "BAD_TOKEN: " .. echo }
end

local function tell(what, err)
  if err == nil then return end
  log.error("failed " .. what, { err = err, text = tostring(err), url = host .. "/?token=" .. query })
  print(what, err)
end

local function try(what, f, ...)
  local ok, value, err = pcall(f, ...)
  if not ok then value, err = nil, value end
  tell(what, err)
  return value
end

for index, fault in ipairs(FAULTS) do
  emulated.faults:clear()
  fault.path = "/serving-endpoints/*"
  assert(emulated:fault(fault))
  local request = { messages = { { role = "user", content = prompt } } }
  try("query " .. index, chat.query, chat, request)
  local opened = try("stream " .. index, chat.stream, chat, request)
  if opened then try("collect " .. index, opened.collect, opened) end
end
emulated.faults:clear()
emulated:fault { kind = "deployment", outcome = "fails", message = "no room" }
local endpoints = workspace.serving_endpoints
try("create", endpoints.create_and_wait, endpoints, {
  name = "f", config = { served_entities = { { external_model = {
    name = "m", provider = "openai", task = "llm/v1/chat",
    openai_config = { openai_api_key_plaintext = header },
  } } } },
})

-- Requests of the script's own, and misuse.
local careless = {
  headers = { authorization = "Bearer " .. token, ["x-api-key"] = header, cookie = "session=" .. header },
  timeout = 0.5,
}
for _, url in ipairs {
  host .. "/api/2.0/serving-endpoints?access_token=" .. query,
  ("http://%s:%s@127.0.0.1:1/"):format("u", user),
  "http://" .. user .. ":p@" .. server.address .. "/x?api_key=" .. query,
  "https://" .. server.address .. "/?token=" .. query, "http://[" .. "::bad/?token=" .. query,
} do
  careless.url = url
  local res, err = try("request", http.request, careless)
  tell("request", err or res and res:json())
end
local _, misuse = pcall(sluice.workspace, { tokn = 1 })
log.warn("wrong", { options = careless, token = token, err = misuse })
log.bind { client_secret = header, request_id = "r\r\n\27[2J" }
log.with({ password = header }).info("bound", { secret = sluice.secret(token), tree = task.tree() })
chat:query { messages = { { role = "user", content = prompt } } }
io.open(folder .. "/metrics", "w"):write(registry:text()):close()
if store then store:close() end
log.flush()
