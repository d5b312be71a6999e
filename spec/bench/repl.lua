-- SPDX-License-Identifier: MIT
-- The REPL on a terminal: from exec to the prompt, and from a key to its echo while 100 streams arrive.

local process = require "process"
local sse_server = require "sse_server"

local STARTS <const>, KEYS <const>, STREAMS <const> = 15, 300, 100
local INTERVAL_MS <const> = 50 -- between two chunks of a stream: 2,000 a second together

-- Typed in one line.
local READERS <const> = "for i = 1, %d do sluice.task.spawn(function() for _ in assert(sluice.openai { "
  .. "base_url = %q, api_key = 'x' }:stream { messages = {} }):text() do end end) end"

local function starter(probe, name, program, ...)
  if not program then return { name = name, missing = "not installed" } end
  local words = { probe, "start", STARTS, program, ... }
  return { name = name, run = function() return process.measure(words) end }
end

local function open_start(bench)
  local probe = process.compile(bench, "repl_probe", "-lutil")
  if not probe then return { { name = "sluice", missing = "no C compiler" } } end
  return {
    starter(probe, "sluice", bench.binary),
    starter(probe, "lua5.4", process.find "lua5.4"),
    starter(probe, "python3", process.find("/usr/bin/python3", "python3")),
  }
end

local function open_keys(bench)
  local probe = process.compile(bench, "repl_probe", "-lutil")
  if not probe then return { { name = "sluice", missing = "no C compiler" } } end
  local server, url = sse_server.start(bench, INTERVAL_MS)
  local words = { probe, "keys", KEYS, READERS:format(STREAMS, url), bench.binary }
  return {
    { name = "sluice", run = function() return process.measure(words) end },
    close = function() server:stop() end,
  }
end

return {
  {
    name = "repl start",
    open = open_start,
    rows = {
      { key = "ms", label = "exec to the REPL's prompt", unit = "ms", digits = 1, better = "less", bar = 12 },
    },
  },
  {
    name = "repl keys",
    open = open_keys,
    rows = {
      { key = "p50", label = "a key and 100 streams, to its echo", unit = "ms", digits = 2, better = "less" },
      { key = "p99", label = "the same, p99", unit = "ms", digits = 2, better = "less", bar = 5 },
    },
  },
}
