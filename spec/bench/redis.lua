-- SPDX-License-Identifier: MIT
-- The Redis client beside redis-benchmark: GET from tasks that share one connection.

local process = require "process"

local PEER_CALLS <const> = "1000000"

-- Requests a second, as redis-benchmark's CSV says.
local function benchmark(socket, pipeline)
  local program = process.find "redis-benchmark"
  local words = { program, "-s", socket, "-c", "1", "-P", pipeline, "-n", PEER_CALLS, "-t", "get", "--csv" }
  local text = process.run(words)
  return assert(tonumber(text:match '"GET","([%d.]+)"'), text)
end

local function open(bench)
  local program = process.find "redis-server"
  if not program then return { { name = "sluice", missing = "no redis-server" } } end
  local socket = bench.folder .. "/redis"
  local server = process.serve({
    program, "--port", "0", "--unixsocket", socket, "--save", "", "--appendonly", "no",
  }, bench.folder .. "/redis.log")
  local words = { bench.binary, bench.here .. "redis_client.lua", "unix:" .. socket }
  local contestants = {
    { name = "sluice", run = function() return process.measure(words) end },
    {
      name = "redis-benchmark -c 1",
      run = function() return { tasks64 = benchmark(socket, "64") } end,
    },
  }
  contestants.close = function() server:stop() end
  return contestants
end

return {
  {
    name = "redis",
    open = open,
    rows = {
      {
        key = "tasks64", label = "Redis GET, 64 tasks (-P 64)", unit = "/s", better = "more",
        ratios = { ["redis-benchmark -c 1"] = 0.5 },
      },
      { key = "tasks1", label = "Redis GET, 1 task", unit = "/s", better = "more" },
      { key = "tasks1000", label = "Redis GET, 1,000 tasks", unit = "/s", better = "more" },
      { key = "limit", label = "layers.limit in Redis, 64 tasks", unit = "/s", better = "more" },
    },
  },
}
