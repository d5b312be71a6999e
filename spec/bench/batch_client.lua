-- SPDX-License-Identifier: MIT
-- Asks every row of a file: batch_client.lua KIND URL INPUT OUTPUT ROWS CONCURRENCY
-- KIND: map (task.map alone, no files), input or completion (the order of a batch), plain (without a journal), or the
-- URL of a Redis: feeds, works and collects.
-- Prints rows a second, microseconds of processor time a row, and megabytes at the most.

package.path = arg[0]:match "^(.*/)" .. "?.lua;" .. package.path

local chat = require "chat_body"
local sluice = require "sluice"

local kind, url, input, output = arg[1], arg[2], arg[3], arg[4]
local rows, concurrency = math.tointeger(tonumber(arg[5])), math.tointeger(tonumber(arg[6]))
local endpoint = sluice.openai { base_url = url:match "^(.*)/chat/completions$" }

-- In slices, so that its own table of results does not grow with the rows.
local SLICE <const> = 10000

local function run_map()
  local items, done = {}, 0
  for index = 1, SLICE do items[index] = index end
  while done < rows do
    local count = math.min(SLICE, rows - done)
    if count < SLICE then items = table.move(items, 1, count, 1, {}) end
    for _, result in ipairs(sluice.task.map(items, function()
      local answer, err = endpoint:query(chat.request())
      return answer and answer.usage.total_tokens, err
    end, { concurrency = concurrency })) do
      assert(result.ok and result.value == chat.total_tokens)
    end
    done = done + count
  end
end

local function run_batch()
  local summary = assert(sluice.batch.run {
    endpoint = endpoint, input = input, output = output, concurrency = concurrency,
    order = kind == "completion" and "completion" or "input",
    journal = kind ~= "plain" and output .. ".journal",
  })
  assert(summary.ok == rows and summary.tokens.total == rows * chat.total_tokens)
end

local function run_shared()
  local shared = sluice.redis.stream { client = sluice.redis.connect { url = kind }, name = "bench" }
  assert(shared:delete())
  sluice.task.scope(function(scope)
    scope:spawn(function() assert(shared:feed { input = input }) end)
    scope:spawn(function() assert(assert(shared:collect { output = output }).ok == rows) end)
    assert(sluice.batch.run { endpoint = endpoint, input = shared, concurrency = concurrency })
  end)
end

local RUNS <const> = { map = run_map, input = run_batch, completion = run_batch, plain = run_batch }

local function most_resident()
  for line in io.lines "/proc/self/status" do
    local kilobytes = line:match "^VmHWM:%s*(%d+)"
    if kilobytes then return kilobytes / 1024 end
  end
end

local wall, cpu = sluice.task.now(), os.clock()
local run = RUNS[kind] or run_shared
run()
wall, cpu = sluice.task.now() - wall, os.clock() - cpu
print(("rate %.1f\ncpu %.3f\nmb %.2f"):format(rows / wall, cpu / rows * 1e6, most_resident()))
