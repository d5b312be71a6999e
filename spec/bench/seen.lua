-- SPDX-License-Identifier: MIT
-- What being seen costs a gateway: scripts/gateway.lua with its log lines, its metrics and its traces, beside the same
-- script without them; requests a second on one core, and processor time of each.

local chat = require "chat_body"
local http = require "sluice.http"
local nginx = require "nginx"
local process = require "process"
local task = require "sluice.task"

local CONNECTIONS <const> = 64

-- A line of the script by what it begins with.
local METRICS <const>, LOG <const> = "\n *layers%.metrics %b{},[^\n]*", "layers%.log %b{}, "

-- By name: whether it logs, counts; which share of the requests it traces.
local WAYS <const> = {
  { "log, metrics, a trace of ten", true, true, 0.1 },
  { "none of them", false, false, 0 },
  { "log, metrics, each trace", true, true, 1 },
  { "log alone", true, false, 0 },
  { "metrics alone", false, true, 0 },
  { "each trace alone", false, false, 1 },
  { "a trace of ten alone", false, false, 0.1 },
}

local function without(script, pattern, what)
  local changed, count = script:gsub(pattern, "", 1)
  if count == 0 then error("scripts/gateway.lua has no " .. what, 0) end
  return changed
end

-- The script with what is wanted; its path.
local function write_script(bench, index, logs, counts)
  local file <close> = assert(io.open(bench.here .. "../../scripts/gateway.lua"))
  local script = file:read "a"
  if not logs then script = without(script, LOG, "layers.log") end
  if not counts then script = without(script, METRICS, "layers.metrics") end
  local path = ("%s/gateway-%d.lua"):format(bench.folder, index)
  local made <close> = assert(io.open(path, "w"))
  made:write(script)
  return path
end

local function answers(url)
  for _ = 1, 400 do
    local question = { model = "m", messages = {} }
    local res = http.request { method = "POST", url = url, timeout = 2, json = question }
    if res and res.status == 200 then return true end
    task.sleep(0.02)
  end
  return false
end

local function start(bench, index, way, host)
  local name, logs, counts, share = table.unpack(way)
  local port = process.free_port()
  local words = { "env", "DATABRICKS_HOST=" .. host, "DATABRICKS_TOKEN=any",
    share > 0 and "OTEL_EXPORTER_OTLP_ENDPOINT=" .. host or "OTEL_SDK_DISABLED=true",
    "OTEL_TRACES_SAMPLER=parentbased_traceidratio", "OTEL_TRACES_SAMPLER_ARG=" .. share,
    bench.binary, write_script(bench, index, logs, counts), "--listen", "127.0.0.1:" .. port, "m=some" }
  local gateway = process.serve(words, ("%s/gateway-%d.log"):format(bench.folder, index))
  gateway.name, gateway.url = name, ("http://127.0.0.1:%s/v1/chat/completions"):format(port)
  return gateway
end

local function load(bench, gateway)
  local cpu = process.used(gateway.pid)
  local said = process.measure { "env", "UPSTREAM=none", "wrk", "-t1", "-c" .. CONNECTIONS,
    "-d" .. math.ceil(bench.seconds) .. "s", "-s", bench.here .. "gateway_wrk.lua", gateway.url }
  if said.failed > 0 then error(("%s: %d requests failed"):format(gateway.name, said.failed), 0) end
  return {
    rate = said.requests / said.microseconds * 1e6,
    cpu = (process.used(gateway.pid) - cpu) / said.requests,
  }
end

local function missing()
  for _, name in ipairs { "wrk", "setpriv" } do
    if not process.find(name) then return name .. " is not installed" end
  end
  return nginx.missing()
end

local function open(bench)
  if missing() then return { { name = "sluice", missing = missing() } } end
  -- beside wrk, so that the gateway has its core for itself; it takes the traces, too
  local upstream = nginx.start(bench, chat.answer, process.client_core)
  local contestants, running = {}, {}
  for index, way in ipairs(WAYS) do
    local gateway = start(bench, index, way, upstream.url:match "^(http://[^/]+)")
    running[index] = gateway
    contestants[index] = { name = way[1], run = function() return load(bench, gateway) end }
    if not answers(gateway.url) then contestants[index].missing = "does not answer" end
  end
  function contestants.close()
    for _, gateway in ipairs(running) do gateway:stop() end
    upstream:stop()
  end
  return contestants
end

return { {
  name = "a gateway that is seen",
  open = open,
  rows = {
    { key = "rate", label = "gateway with log, metrics, a trace of ten", unit = "/s", better = "more",
      ratios = { ["none of them"] = 0.85 } },
    { key = "cpu", label = "processor time of each", unit = "us", digits = 1, better = "less" },
  },
} }
