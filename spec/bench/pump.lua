-- SPDX-License-Identifier: MIT
-- The embedded library: how precisely a pump keeps its budget, and what an instance costs.

local process = require "process"
local sse_server = require "sse_server"

local STREAMS <const>, INTERVAL_MS <const>, BUDGET_US <const> = 200, 50, 200
-- Frames for each second that a round may take: 100,000 of them in five rounds.
local FRAMES <const> = 20000

local function compile(bench)
  local root = bench.here .. "../../"
  local library = bench.binary:gsub("[^/]*$", "libsluice.a")
  return process.compile(bench, "pump_host", "-I" .. root .. "runtime", library,
    "-llua5.4", "-lcurl", "-lssl", "-lcrypto", "-lcares", "-lev", "-lhiredis", "-lm", "-ldl", "-pthread")
end

-- The peer of a pump is a loop in C that ends when the clock says so: what the machine adds by itself.
local function split(figures)
  local of = { pump = {}, spin = {} }
  for key, value in pairs(figures) do
    local who, what = key:match "^(%a+)_(.+)$"
    if of[who] then of[who][what] = value end
  end
  return of
end

local function open_frames(bench, collector)
  local program = compile(bench)
  local server, url = sse_server.start(bench, INTERVAL_MS)
  if not (program and server) then return { { name = "sluice", missing = url } } end
  local last
  return {
    {
      name = "sluice_pump",
      run = function()
        local frames = math.floor(FRAMES * bench.seconds)
        last = split(process.measure { program, url, STREAMS, frames, BUDGET_US, collector })
        return last.pump
      end,
    },
    { name = "a loop in C", run = function() return last.spin end },
    close = function() server:stop() end,
  }
end

local function frames_figure(collector, label)
  return {
    name = "pump",
    open = function(bench) return open_frames(bench, collector) end,
    rows = {
      { key = "p50", label = label .. ", p50", unit = "us", digits = 1, better = "less" },
      { key = "p999", label = label .. ", p99.9", unit = "us", digits = 1, better = "less", bar = 50 },
      { key = "most", label = label .. ", longest", unit = "us", digits = 0, better = "less" },
    },
  }
end

return {
  frames_figure("stop", "pump over its budget"),
  frames_figure("restart", "the same with the collector"),
  {
    name = "instance",
    open = function(bench)
      local program = compile(bench)
      if not program then return { { name = "sluice", missing = "no C compiler" } } end
      return { { name = "sluice", run = function() return process.measure { program } end } }
    end,
    rows = {
      { key = "idle_us", label = "an idle pump", unit = "us", digits = 2, better = "less", bar = 1 },
      { key = "life_ms", label = "made and deleted", unit = "ms", digits = 2, better = "less", bar = 3 },
      { key = "instance_kb", label = "an idle instance", unit = "KB", better = "less", bar = 400 },
      { key = "growth_kb", label = "10,000 of them, growth", unit = "KB", better = "less" },
      { key = "descriptors", label = "10,000 of them, descriptors", unit = "", better = "less", bar = 0 },
    },
  },
}
