-- SPDX-License-Identifier: MIT
-- The reader of event streams alone, beside npm's eventsource-parser.

local process = require "process"

local function node(bench)
  local name, program = "node eventsource-parser", process.find("node", "nodejs")
  if not program then return { name = name, missing = "not installed" } end
  local test = "require(require('path').resolve(process.argv[1], 'node_modules/eventsource-parser'))"
  if not process.succeeds { program, "-e", test, bench.here .. "../node/" } then
    return { name = name, missing = "not installed (make node-packages)" }
  end
  local words = { program, bench.here .. "sse_node.mjs" }
  return { name = name, run = function() return process.measure(words) end }
end

local function open(bench)
  local words = { bench.binary, bench.here .. "sse_reader.lua" }
  return { { name = "sluice", run = function() return process.measure(words) end }, node(bench) }
end

return {
  {
    name = "sse",
    open = open,
    rows = {
      { key = "events", label = "SSE, events of 200 bytes", unit = "MB/s", better = "more", bar = 300 },
      { key = "bytes", label = "SSE, byte by byte, 20 KB line", unit = "MB/s", digits = 1, better = "more" },
      { key = "line", label = "SSE, byte by byte, 1 MB line", unit = "MB/s", digits = 1, better = "more" },
    },
  },
}
