-- SPDX-License-Identifier: MIT
-- Reads many chat streams at once: sse_client.lua URL STREAMS SECONDS
-- Prints microseconds of processor time an event, kilobytes a stream, and how long after it was sent an
-- event is there, in milliseconds.

local sluice = require "sluice"
local task = sluice.task

local url, wanted, seconds = arg[1], tonumber(arg[2]), tonumber(arg[3])
local endpoint = sluice.openai { base_url = url, model = "m" }
local begun, count, measuring, samples = 0, 0, false, {}

local function read(limit)
  local permit = limit:acquire()
  local stream <close> = assert(endpoint:stream { messages = { { role = "user", content = "go on" } } })
  permit.semaphore:release()
  begun = begun + 1
  for chunk in stream:chunks() do
    assert(chunk.choices[1].delta.content)
    if measuring then
      count = count + 1
      samples[count] = task.now() * 1e6 - chunk.t
    end
  end
end

local function resident_kb()
  for line in io.lines "/proc/self/status" do
    local kilobytes = line:match "^VmRSS:%s*(%d+)"
    if kilobytes then return tonumber(kilobytes) end
  end
end

local function start(group, streams)
  begun = 0
  local limit = task.semaphore(200)
  for _ = 1, streams do group:spawn(read, limit) end
  while begun < streams do task.sleep(0.01) end
end

local group <close> = task.group()
start(group, 1)
collectgarbage()
local before = resident_kb()
start(group, wanted)
task.sleep(1)
local after = resident_kb()
measuring = true
local cpu = os.clock()
task.sleep(seconds)
cpu = os.clock() - cpu
measuring = false
table.sort(samples)
print(("cpu %.3f\nkb %.2f\np50 %.3f\np99 %.3f\nevents %d"):format(cpu / count * 1e6,
  (after - before) / wanted, samples[count // 2 + 1] / 1e3, samples[count - count // 100] / 1e3, count))
os.exit(true, true)
