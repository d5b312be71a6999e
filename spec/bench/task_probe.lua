-- SPDX-License-Identifier: MIT
-- Measures our tasks in a process of their own: task_probe.lua spawn|switch|waiting

local task = require "sluice.task"

local ROUNDS <const>, SPAWNS <const> = 1000, 500
local SWITCHES <const> = 500000
local WAITING <const> = 50000

local function nop() end

local function spawn_some()
  local spawn = task.spawn
  for _ = 1, SPAWNS do spawn(nop) end
end

local probes = {}

function probes.spawn()
  for _ = 1, 20 do task.scope(spawn_some) end
  local start = os.clock()
  for _ = 1, ROUNDS do task.scope(spawn_some) end
  return { us = (os.clock() - start) / (ROUNDS * SPAWNS) * 1e6 }
end

function probes.switch()
  local function alternate()
    local sleep = task.sleep
    for _ = 1, SWITCHES // 2 do sleep(0) end
  end
  local start = os.clock()
  task.scope(function()
    task.spawn(alternate)
    task.spawn(alternate)
  end)
  return { us = (os.clock() - start) / SWITCHES * 1e6 }
end

local function resident()
  for line in io.lines "/proc/self/smaps_rollup" do
    local kilobytes = line:match "^Rss:%s*(%d+)"
    if kilobytes then return kilobytes * 1024 end
  end
end

local function sizes()
  collectgarbage()
  collectgarbage()
  return collectgarbage "count" * 1024, resident()
end

function probes.waiting()
  local heap, rss = sizes()
  local group <close> = task.group()
  for _ = 1, WAITING do group:spawn(task.sleep, 1000) end
  task.sleep(0)
  task.sleep(0)
  local heap_after, rss_after = sizes()
  return { heap = (heap_after - heap) / WAITING, rss = (rss_after - rss) / WAITING }
end

for key, value in pairs(probes[arg[1]]()) do print(key .. " " .. value) end
