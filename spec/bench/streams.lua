-- SPDX-License-Identifier: MIT
-- Many chat streams at once, JSON decoded, beside a loop of libcurl in C that reads the same ones.

local process = require "process"
local sse_server = require "sse_server"

local STREAMS <const>, INTERVAL_MS <const> = 5000, 500

local function open(bench)
  local server, url = sse_server.start(bench, INTERVAL_MS)
  if not server then return { { name = "sluice", missing = url } } end
  local function client(name, ...)
    local words = { ... }
    table.move({ url, STREAMS, math.max(bench.seconds, 2) }, 1, 3, #words + 1, words)
    return { name = name, run = function() return process.measure(words) end }
  end
  local peer = process.compile_with_json(bench, "sse_peer", "-lcurl")
  return {
    client("sluice", bench.binary, bench.here .. "sse_client.lua"), client("C, libcurl", peer),
    close = function() server:stop() end,
  }
end

return {
  {
    name = "streams",
    open = open,
    rows = {
      {
        key = "cpu", label = "5,000 streams, 10,000 events/s, CPU", unit = "us", digits = 1, better = "less",
        ratios = { ["C, libcurl"] = 0.8 },
      },
      { key = "kb", label = "a stream, resident", unit = "KB", digits = 1, better = "less", bar = 20 },
      { key = "p50", label = "from sent to decoded, p50", unit = "ms", digits = 2, better = "less" },
      { key = "p99", label = "from sent to decoded, p99", unit = "ms", digits = 2, better = "less" },
    },
  },
}
