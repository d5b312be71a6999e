-- SPDX-License-Identifier: MIT
-- A batch of small chats from a file to a file, against a local nginx: beside task.map without files, and Python.

local chat = require "chat_body"
local json = require "sluice.json"
local nginx = require "nginx"
local process = require "process"

local CONCURRENCY <const> = 64
local ROWS <const> = 20000
local FEW_ROWS <const> = 5000 -- of httpx, which takes a minute for 20,000

local function write_input(path, rows)
  local file <close> = assert(io.open(path, "w"))
  local request = chat.request()
  for row = 1, rows do
    request.id = "row-" .. row
    file:write(json.encode(request), "\n")
  end
end

local function find_python(modules)
  for _, program in ipairs { process.find "/usr/bin/python3", process.find "python3" } do
    if process.succeeds { program, "-c", "import " .. modules } then return program end
  end
  return nil
end

-- The output and the journal of the round before would be continued.
local function fresh(bench, name)
  local path = bench.folder .. "/" .. name
  os.remove(path)
  os.remove(path .. ".journal")
  return path
end

local function ours(bench, server, name, kind, input, rows)
  local script = bench.here .. "batch_client.lua"
  return { name = name, run = function()
    local output = fresh(bench, kind)
    return process.measure { bench.binary, script, kind, server.url, input, output, rows, CONCURRENCY }
  end }
end

-- One process that does all of it, and a redis-server on the servers' core.
local function through_redis(bench, server, input, rows)
  local program, name = process.find "redis-server", "through Redis"
  if not program then return { name = name, missing = "no redis-server" } end
  local socket = bench.folder .. "/redis"
  local redis = process.serve({
    program, "--port", "0", "--unixsocket", socket, "--save", "", "--appendonly", "no",
  }, bench.folder .. "/redis.log")
  local script = bench.here .. "batch_client.lua"
  return { name = name, stop = function() redis:stop() end, run = function()
    local output = fresh(bench, "shared")
    local words = { bench.binary, script, "unix:" .. socket, server.url, input, output, rows, CONCURRENCY }
    return process.measure(words)
  end }
end

local function python(bench, server, name, kind, input)
  local program = find_python(kind)
  if not program then return { name = name, missing = "not installed" } end
  local script = bench.here .. "batch_python.py"
  return { name = name, run = function()
    return process.measure { program, script, kind, server.url, input, fresh(bench, kind), CONCURRENCY }
  end }
end

local function open(bench)
  if nginx.missing() then return { { name = "sluice", missing = nginx.missing() } } end
  local rows, input = math.tointeger(bench.rows) or ROWS, bench.folder .. "/batch.jsonl"
  write_input(input, rows)
  local server = nginx.start(bench, chat.answer)
  local shared = through_redis(bench, server, input, rows)
  local contestants = {
    ours(bench, server, "batch", "input", input, rows),
    ours(bench, server, "task.map alone", "map", input, rows),
    ours(bench, server, "no journal", "plain", input, rows),
    ours(bench, server, "as they complete", "completion", input, rows),
    shared,
    close = function()
      server:stop()
      if shared.stop then shared.stop() end
    end,
  }
  if rows <= ROWS then -- more take minutes
    local few = bench.folder .. "/few.jsonl"
    write_input(few, FEW_ROWS)
    contestants[6] = python(bench, server, "to_thread, requests", "requests", input)
    contestants[7] = python(bench, server, "httpx, 5000 rows", "httpx", few)
  end
  return contestants
end

local RATES <const> = {
  ["task.map alone"] = 0.85, ["no journal"] = 0.9, ["to_thread, requests"] = 12, ["httpx, 5000 rows"] = 12,
}

return { {
  name = "batch, c = 64",
  open = open,
  rows = {
    { key = "rate", label = "rows of a batch, c = 64", unit = "/s", better = "more", ratios = RATES },
    { key = "cpu", label = "processor time of each", unit = "us", digits = 1, better = "less",
      ratios = { ["task.map alone"] = 0.85, ["no journal"] = 0.9 } },
    { key = "mb", label = "resident at the most", unit = "MB", digits = 1, better = "less", bar = 48,
      ratios = { ["to_thread, requests"] = 4 } },
  },
} }
