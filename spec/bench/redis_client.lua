-- SPDX-License-Identifier: MIT
-- Commands a second from 1, 64 and 1,000 tasks: redis_client.lua URL. Prints KEY NUMBER lines.

local layers = require "sluice.layers"
local redis = require "sluice.redis"
local task = require "sluice.task"

local client = redis.connect { url = arg[1] }

-- redis-benchmark -t get asks for a key that is not there, of this length
local KEY <const> = "key:__rand_int__"

local function rate(tasks, calls, f)
  local each = calls // tasks
  local started = task.now()
  task.scope(function()
    for _ = 1, tasks do
      task.spawn(function()
        for _ = 1, each do f() end
      end)
    end
  end)
  return tasks * each / (task.now() - started)
end

local function get()
  local _, err = client:get(KEY)
  if err then error(err) end
end

local function tell(key, value)
  print(("%s %.1f"):format(key, value))
end

-- Redis may be starting.
for _ = 1, 200 do
  if client:ping() then break end
  task.sleep(0.02)
end
rate(64, 20000, get)
tell("tasks64", rate(64, 600000, get))
tell("tasks1", rate(1, 20000, get))
tell("tasks1000", rate(1000, 600000, get))

local shared = client:limit_store("bench", { timeout = 5 })
local limited = layers.limit { rate = 1e9, burst = 1000000, store = shared } {
  name = "e", query = function() return {} end,
}
tell("limit", rate(64, 20000, function() assert(limited:query {}) end))
client:close()
