-- SPDX-License-Identifier: MIT
-- Caches: the LRU, the key of a request beside Python's, a hit through layers.cache.

local process = require "process"

local function open(bench)
  local python = process.find "python3"
  return {
    { name = "sluice", run = function()
      return process.measure { bench.binary, bench.here .. "cache_probe.lua" }
    end },
    python and { name = "json.dumps, hashlib", run = function()
      return process.measure { python, bench.here .. "cache_key.py" }
    end } or { name = "json.dumps, hashlib", missing = "no python3 here" },
  }
end

return { {
  name = "cache",
  open = open,
  rows = {
    { key = "get", label = "cache.lru of 100,000, get", unit = "us", digits = 2, better = "less", bar = 0.5 },
    { key = "set", label = "cache.lru of 100,000, set", unit = "us", digits = 2, better = "less", bar = 1 },
    { key = "overhead", label = "memory beside an entry's bytes", unit = "B", better = "less", bar = 120 },
    {
      key = "key", label = "cache key of a chat of 300 bytes", unit = "us", digits = 2, better = "less",
      bar = 2, ratios = { ["json.dumps, hashlib"] = 1 },
    },
    { key = "hit", label = "a hit through layers.cache", unit = "us", digits = 2, better = "less", bar = 8 },
    { key = "calls", label = "calls for 1,000 who ask at once", unit = "", better = "less", bar = 1 },
  },
} }
