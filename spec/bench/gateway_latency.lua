-- SPDX-License-Identifier: MIT
-- Asks at a steady pace and prints how long answers took, for gateway.lua:
--     sluice gateway_latency.lua URL TASKS RATE SECONDS UPSTREAM
-- Each task asks at moments of its own, whether or not the last answer was late (no coordinated omission).

local here <const> = arg[0]:match "^(.*/)" or "./"
package.path = here .. "?.lua;" .. package.path

local chat = require "chat_body"
local http = require "sluice.http"
local json = require "sluice.json"
local task = require "sluice.task"

local url, tasks, rate, seconds = arg[1], tonumber(arg[2]), tonumber(arg[3]), tonumber(arg[4])
local upstream <const> = arg[5]

local request = chat.request()
request.model = "m"
local body = json.encode(request)
local headers = {
  ["content-type"] = "application/json", authorization = "Bearer any",
  ["x-portkey-provider"] = "openai", ["x-portkey-custom-host"] = upstream,
}
local took = {}

local function ask(keep, due)
  local res = assert(http.request { method = "POST", url = url, headers = headers, body = body })
  if res.status ~= 200 then error(("%s: %d %s"):format(url, res.status, res.body), 0) end
  if keep then took[#took + 1] = task.now() - due end
end

local function run(number)
  local pause = tasks / rate
  for _ = 1, 20 do ask(false) end
  local start = task.now() + pause * number / tasks
  local due = start
  while due < start + seconds do
    task.sleep(math.max(0, due - task.now()))
    ask(true, due)
    due = due + pause
  end
end

local numbers = {}
for number = 1, tasks do numbers[number] = number end
task.map(numbers, run, { concurrency = tasks, stop_on_error = true })
table.sort(took)
local function percentile(share) return took[math.max(1, math.ceil(#took * share))] * 1e6 end
print(("p50 %.1f\np99 %.1f"):format(percentile(0.5), percentile(0.99)))
