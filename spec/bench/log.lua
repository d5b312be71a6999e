-- SPDX-License-Identifier: MIT
-- Log lines: to a file beside Python's logging, to a pipe that nobody reads, and those of layers.log.

local process = require "process"

local PEER <const> = "logging, json.dumps"

local function open(bench)
  local python = process.find "python3"
  return {
    { name = "sluice", run = function()
      return process.measure { bench.binary, bench.here .. "log_probe.lua", bench.folder }
    end },
    python and { name = PEER, run = function()
      return process.measure { python, bench.here .. "log_python.py", bench.folder }
    end } or { name = PEER, missing = "no python3 here" },
  }
end

local function row(key, label, bar, ratios)
  return { key = key, label = label, unit = "us", digits = 2, better = "less", bar = bar, ratios = ratios }
end

return { {
  name = "log",
  open = open,
  rows = {
    row("line", "a log line of 15 fields to a file", 5, { [PEER] = 5 }),
    row("stuck", "the same to a pipe that is stuck", 5),
    row("query", "a query through layers.log, two lines", 15),
  },
} }
