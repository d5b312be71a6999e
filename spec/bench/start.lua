-- SPDX-License-Identifier: MIT
-- From exec to the first line of a script, and the memory resident then.

local process = require "process"

-- Starts a round; a round gives their median.
local STARTS <const> = 15

-- The bar of 7 ms was set on a machine where lua5.4 took 0.94 ms: where starting anything is slower
-- or faster, this ratio is what it says.
local TO_LUA <const> = 0.94 / 7

local PYTHON <const> = "import sys; print('ready', flush=True); sys.stdin.read()"
local NODE <const> = "console.log('ready'); process.stdin.resume()"

local function starter(launcher, name, program, ...)
  if not program then return { name = name, missing = "not installed" } end
  local words = { launcher, tostring(STARTS), program, ... }
  return { name = name, run = function() return process.measure(words) end }
end

local function open(bench)
  local launcher = process.compile(bench, "first_line")
  if not launcher then return { { name = "sluice", missing = "no C compiler" } } end
  local script = bench.here .. "first_line.lua"
  return {
    starter(launcher, "sluice", bench.binary, script),
    starter(launcher, "lua5.4", process.find "lua5.4", script),
    starter(launcher, "python3", process.find("/usr/bin/python3", "python3"), "-c", PYTHON),
    starter(launcher, "node", process.find("node", "nodejs"), "-e", NODE),
  }
end

-- A bundle of the same script beside the script.
local function open_bundle(bench)
  local launcher = process.compile(bench, "first_line")
  if not launcher then return { { name = "bundle", missing = "no C compiler" } } end
  local script, app = bench.here .. "first_line.lua", os.tmpname()
  process.run { bench.binary, "bundle", script, "-o", app }
  return {
    starter(launcher, "bundle", app),
    starter(launcher, "sluice FILE", bench.binary, script),
    close = function() os.remove(app) end,
  }
end

return {
  {
    name = "bundle",
    open = open_bundle,
    rows = {
      {
        key = "ms", label = "a bundle's exec to the first line", unit = "ms", digits = 2, better = "less",
        ratios = { ["sluice FILE"] = 1 / 1.2 },
      },
    },
  },
  {
    name = "start",
    open = open,
    rows = {
      {
        key = "ms", label = "exec to the first line", unit = "ms", digits = 2, better = "less",
        bar = 7, ratios = { ["lua5.4"] = TO_LUA },
      },
      { key = "cpu", label = "processor time of it, with its end", unit = "ms", digits = 2, better = "less" },
      { key = "mb", label = "resident then", unit = "MB", digits = 1, better = "less", bar = 12 },
    },
  },
}
