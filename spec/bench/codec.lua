-- SPDX-License-Identifier: MIT
-- JSON beside lua-cjson: the first document of json.lua, which has more of them.

local process = require "process"

-- json.lua measures both sides within one process, so one run of it serves both contestants.
local LINE <const> = "(%d+) B  (%a+)%s+[%d.]+ us%s+([%d.]+) MB/s%s+cjson%s+[%d.]+ us%s+([%d.]+) MB/s"

local function open(bench)
  if not pcall(require, "cjson") then return { { name = "sluice", missing = "no lua-cjson here" } } end
  local theirs
  local function run_both()
    local ours = {}
    theirs = {}
    local text = process.run { bench.binary, bench.here .. "json.lua", "1" }
    for line in text:gmatch "chat [^\n]*" do
      local _, operation, our_speed, their_speed = line:match(LINE)
      ours[operation], theirs[operation] = tonumber(our_speed), tonumber(their_speed)
    end
    return ours
  end
  return {
    { name = "sluice", run = run_both },
    { name = "lua-cjson", run = function() return theirs end },
  }
end

local function row(operation)
  return {
    key = operation, label = "JSON chat answer, " .. operation, unit = "MB/s", better = "more",
    ratios = { ["lua-cjson"] = 2 },
  }
end

return { { name = "codec", open = open, rows = { row "decode", row "encode" } } }
