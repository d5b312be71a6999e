-- SPDX-License-Identifier: MIT
-- scripts/gateway.lua before a local nginx that answers each chat alike, against other gateways: requests a
-- second on one core, what each adds to an answer's time, and what a thousand open streams take.

local chat = require "chat_body"
local http = require "sluice.http"
local nginx = require "nginx"
local process = require "process"
local task = require "sluice.task"

local CONNECTIONS <const> = 64
local STREAMS <const> = 1000

-- Requests a second while times are taken: with one connection, and with 64. The slowest peer bears them.
local PACE <const> = { [1] = 200, [CONNECTIONS] = 400 }

local function resident(pid)
  local file <close> = assert(io.open(("/proc/%d/statm"):format(pid)))
  return select(2, file:read("n", "n")) * 4096
end

local function request_of(gateway, more)
  local request = {
    method = "POST", url = gateway.url,
    headers = { authorization = "Bearer any", ["x-portkey-provider"] = "openai",
      ["x-portkey-custom-host"] = gateway.upstream },
    json = { model = "m", messages = { { role = "user", content = "What is a sluice?" } } },
  }
  for name, value in pairs(more or {}) do request[name] = value end
  return request
end

local function answers(gateway)
  for _ = 1, 400 do
    local res = http.request(request_of(gateway, { timeout = 2 }))
    if res and res.status == 200 then return true end
    task.sleep(0.02)
  end
  return false
end

-- ---- the gateways ----

local function ours(bench)
  return function(port, upstream)
    local host = upstream:match "^(http://[^/]+)"
    return { "env", "DATABRICKS_HOST=" .. host, "DATABRICKS_TOKEN=any", bench.binary,
      bench.here .. "../../scripts/gateway.lua", "--listen", "127.0.0.1:" .. port, "m=some" }
  end
end

local function fastapi(bench)
  for _, program in ipairs { process.find "/usr/bin/python3", process.find "python3" } do
    if process.succeeds { program, "-c", "import fastapi, uvicorn, httpx" } then
      local script = bench.here .. "gateway_fastapi.py"
      return function(port, upstream) return { program, script, port, upstream } end
    end
  end
  return nil
end

local function portkey(bench)
  local path = bench.here .. "node/node_modules/@portkey-ai/gateway/build/start-server.js"
  local file, program = io.open(path), process.find("node", "nodejs")
  if not file or not program then return nil end
  file:close()
  return function(port)
    -- it reaches hosts of this machine only where they are trusted
    return { "env", "TRUSTED_CUSTOM_HOSTS=localhost,127.0.0.1", "NODE_ENV=production", program, path,
      "--port=" .. port, "--headless" }
  end
end

-- No gateway: it reads no JSON and has no policy. What is left to reach.
local function pass_on(bench)
  return function(port, upstream) return nginx.gateway(bench, port, upstream) end
end

local GATEWAYS <const> = {
  { "sluice", ours }, { "FastAPI and httpx", fastapi },
  { "Portkey", portkey, no_streams = "answers 500 to every stream on Debian's node 18" },
  { "nginx, proxy_pass", pass_on },
}

local function start(bench, name, words_of, upstream)
  local port = process.free_port()
  local log = ("%s/gateway-%s.log"):format(bench.folder, (name:gsub("[^%w]+", "-")))
  local gateway = process.serve(words_of(port, upstream), log)
  gateway.upstream = upstream
  gateway.url = ("http://127.0.0.1:%s/v1/chat/completions"):format(port)
  return gateway
end

-- ---- what is measured ----

local function load(bench, gateway)
  local cpu = process.used(gateway.pid)
  local said = process.measure { "env", "UPSTREAM=" .. gateway.upstream, "wrk", "-t1", "-c" .. CONNECTIONS,
    "-d" .. math.ceil(bench.seconds) .. "s", "-s", bench.here .. "gateway_wrk.lua", gateway.url }
  if said.failed > 0 then error(("%s: %d requests failed"):format(gateway.url, said.failed), 0) end
  return {
    rate = said.requests / said.microseconds * 1e6,
    cpu = (process.used(gateway.pid) - cpu) / said.requests,
    mb = resident(gateway.pid) / (1 << 20),
  }
end

local function times(bench, url, upstream, tasks)
  return process.measure { bench.binary, bench.here .. "gateway_latency.lua", url, tasks, PACE[tasks],
    bench.seconds, upstream }
end

-- What the way through the gateway takes more than the way past it.
local function added(bench, gateway, figures)
  for tasks in pairs(PACE) do
    local direct = times(bench, gateway.upstream .. "/chat/completions", gateway.upstream, tasks)
    local through = times(bench, gateway.url, gateway.upstream, tasks)
    figures["p50_" .. tasks] = math.max(through.p50 - direct.p50, 1)
    figures["p99_" .. tasks] = math.max(through.p99 - direct.p99, 1)
  end
  return figures
end

-- ---- figures ----

local function missing()
  for _, name in ipairs { "wrk", "setpriv" } do
    if not process.find(name) then return name .. " is not installed" end
  end
  return nginx.missing()
end

local function open_all(bench, contestant, lacking)
  if missing() then return { { name = "sluice", missing = missing() } } end
  local contestants = {}
  for index, entry in ipairs(GATEWAYS) do
    local words_of = not entry[lacking] and entry[2](bench)
    contestants[index] = words_of and contestant(entry[1], words_of)
      or { missing = entry[lacking] or "not installed" }
    contestants[index].name = entry[1]
  end
  return contestants
end

local function open_for_load(bench)
  if missing() then return open_all(bench) end
  -- beside wrk, so that the gateway has its core for itself
  local upstream = nginx.start(bench, chat.answer, process.client_core)
  local base, running = upstream.url:match "^(http://[^/]+/v1)", {}
  local contestants = open_all(bench, function(name, words_of)
    local gateway = start(bench, name, words_of, base)
    running[#running + 1] = gateway
    if not answers(gateway) then return { missing = "does not answer" } end
    return { run = function() return added(bench, gateway, load(bench, gateway)) end }
  end)
  function contestants.close()
    for _, gateway in ipairs(running) do gateway:stop() end
    upstream:stop()
  end
  return contestants
end

-- A gateway's memory with many streams open, each with its first event read.
local function open_streams(bench, name, words_of, base)
  local gateway <close> = start(bench, name, words_of, base)
  for _ = 1, 400 do
    local res = http.request(request_of(gateway, { method = "GET", timeout = 2 }))
    if res then break end
    task.sleep(0.02)
  end
  local client = http.client { max_connections = STREAMS, max_per_host = STREAMS }
  local body = { model = "m", stream = true, messages = { { role = "user", content = "?" } } }
  local open = {}
  for index = 1, STREAMS do
    local res = assert(client:request(request_of(gateway, { json = body, stream = true })))
    assert(res.status == 200, name)
    repeat until assert(res:read(), name):find("So", 1, true)
    open[index] = res
  end
  local bytes = resident(gateway.pid)
  for _, res in ipairs(open) do res:close() end
  return { mb = bytes / (1 << 20) }
end

local function open_for_streams(bench)
  if missing() then return open_all(bench) end
  local port = process.free_port()
  local words = { bench.binary, bench.here .. "gateway_upstream.lua", port }
  local upstream = process.serve(words, bench.folder .. "/gateway-upstream.log", process.client_core)
  local base = ("http://127.0.0.1:%s/v1"):format(port)
  local contestants = open_all(bench, function(name, words_of)
    return { run = function() return open_streams(bench, name, words_of, base) end }
  end, "no_streams")
  function contestants.close() upstream:stop() end
  return contestants
end

local TEN_TIMES <const> = { ["FastAPI and httpx"] = 10, ["Portkey"] = 10 }

return {
  {
    name = "a gateway",
    open = open_for_load,
    rows = {
      { key = "rate", label = "gateway, c = 64", unit = "/s", better = "more", bar = 12000,
        ratios = TEN_TIMES },
      { key = "cpu", label = "processor time of each", unit = "us", digits = 1, better = "less" },
      { key = "mb", label = "resident then", unit = "MB", digits = 1, better = "less" },
      { key = "p50_1", label = "added to an answer, c = 1, p50", unit = "us", better = "less", bar = 150 },
      { key = "p99_1", label = "p99", unit = "us", better = "less", bar = 1000 },
      { key = "p50_64", label = "added, c = 64, p50", unit = "us", better = "less", bar = 150 },
      { key = "p99_64", label = "p99", unit = "us", better = "less", bar = 1000 },
    },
  },
  {
    name = "a gateway's streams",
    open = open_for_streams,
    rows = {
      { key = "mb", label = "gateway, 1,000 streams", unit = "MB", digits = 1, better = "less", bar = 60 },
    },
  },
}
