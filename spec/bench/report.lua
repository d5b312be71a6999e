-- SPDX-License-Identifier: MIT
-- An A/B report over a million rows in SQLite: how long it takes, and how much memory.

local process = require "process"

local ROWS <const> = 1000000

local function open(bench)
  if not pcall(require, "sluice.core.sqlite") then
    return { { name = "sluice", missing = "this build has no sqlite" } }
  end
  local script, path = bench.here .. "report_reader.lua", bench.folder .. "/report.db"
  process.run { bench.binary, script, "make", path, tostring(math.tointeger(bench.rows) or ROWS) }
  return { { name = "sluice", run = function()
    return process.measure { bench.binary, script, "read", path }
  end } }
end

return { {
  name = "report, 1,000,000 rows",
  open = open,
  rows = {
    { key = "seconds", label = "report.ab and its page", unit = "s", digits = 2, better = "less", bar = 2 },
    { key = "cpu", label = "processor time", unit = "s", digits = 2, better = "less" },
    { key = "mb", label = "most memory", unit = "MB", digits = 1, better = "less", bar = 100 },
  },
} }
