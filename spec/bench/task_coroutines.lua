-- SPDX-License-Identifier: MIT
-- Measures bare coroutines of stock Lua, as a floor for tasks: task_coroutines.lua spawn|switch|waiting

local ROUNDS <const>, WAITING <const> = 300000, 30000

local function nop() end

local probes = {}

-- A coroutine each time: nothing is scheduled, owned, joined or pooled.
function probes.spawn()
  local create, resume = coroutine.create, coroutine.resume
  local start = os.clock()
  for _ = 1, ROUNDS do resume(create(nop)) end
  return { us = (os.clock() - start) / ROUNDS * 1e6 }
end

-- From Lua into a coroutine and back.
function probes.switch()
  local yield = coroutine.yield
  local resume = coroutine.wrap(function()
    while true do yield() end
  end)
  local start = os.clock()
  for _ = 1, ROUNDS do resume() end
  return { us = (os.clock() - start) / ROUNDS * 1e6 }
end

-- A suspended coroutine, without a timer.
function probes.waiting()
  local kept = {}
  for index = 1, WAITING do kept[index] = false end
  collectgarbage()
  local heap = collectgarbage "count"
  for index = 1, WAITING do
    kept[index] = coroutine.create(coroutine.yield)
    coroutine.resume(kept[index])
  end
  collectgarbage()
  return { heap = (collectgarbage "count" - heap) * 1024 / #kept }
end

for key, value in pairs(probes[arg[1]]()) do print(key .. " " .. value) end
