-- SPDX-License-Identifier: MIT
-- Sends chats, each in a task of its own, so many at a time: chat_client.lua URL CONCURRENCY SECONDS
-- Prints requests a second, microseconds of processor time a request, and megabytes at the most.

package.path = arg[0]:match "^(.*/)" .. "?.lua;" .. package.path

local chat = require "chat_body"
local sluice = require "sluice"

local url, concurrency, seconds = arg[1], tonumber(arg[2]), tonumber(arg[3])
local task = sluice.task
local count, stop

local function one(scope)
  -- built each time, as a program would
  local res = assert(sluice.http.request { url = url, json = chat.request() })
  local answer = assert(res:json())
  assert(answer.usage.total_tokens == chat.total_tokens)
  count = count + 1
  if task.now() < stop then scope:spawn(one, scope) end
end

local function run_for(duration)
  count, stop = 0, task.now() + duration
  task.scope(function(scope)
    for _ = 1, concurrency do scope:spawn(one, scope) end
  end)
end

local function most_resident()
  for line in io.lines "/proc/self/status" do
    local kilobytes = line:match "^VmHWM:%s*(%d+)"
    if kilobytes then return kilobytes / 1024 end
  end
end

run_for(0.2) -- connections, pools
local wall, cpu = task.now(), os.clock()
run_for(seconds)
wall, cpu = task.now() - wall, os.clock() - cpu
print(("rate %.1f\ncpu %.3f\nmb %.2f"):format(count / wall, cpu / count * 1e6, most_resident()))
