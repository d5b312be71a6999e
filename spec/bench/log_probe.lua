-- SPDX-License-Identifier: MIT
-- What log lines cost, in processor time of this process and its writer: prints `KEY MICROSECONDS` lines.
--
--     sluice spec/bench/log_probe.lua FOLDER

local layers = require "sluice.layers"
local log = require "sluice.log"

local LINES <const> = 100000
local folder <const> = arg[1]

local fields = {
  operation = "chat", endpoint = "my-endpoint", request_id = "0123456789abcdef", input_length = 123,
  duration_ms = 123.456, ttft_ms = 23.4, input_tokens = 100, output_tokens = 200, attempts = 1,
  cache = "miss", variant = "a", status = 200, served_model = "m-1", streamed = true, outcome = "success",
}

-- Microseconds for each of `count` calls, with all that is written by then.
local function cost(count, f, finish)
  collectgarbage()
  local started = os.clock()
  for _ = 1, count do f() end
  if finish then finish() end
  return (os.clock() - started) / count * 1e6
end

local function write_line() log.info("query_success", fields) end

assert(log.to_file(folder .. "/log"))
write_line()
print(("line %.4f"):format(cost(LINES, write_line, log.flush)))

local endpoint = { name = "my-endpoint", query = function() return { usage = { prompt_tokens = 1 } } end }
local chat, request = layers.log {} (endpoint), { messages = { { role = "user", content = "ping" } } }
print(("query %.4f"):format(cost(LINES // 4, function() chat:query(request) end, log.flush)))

local pipe <const> = ("%s/pipe-%d"):format(folder, math.random(1 << 40))
os.execute("mkfifo " .. pipe)
local reader = assert(io.open(pipe, "r+")) -- who never reads
assert(log.to_file(pipe))
for _ = 1, 20000 do write_line() end -- more than pipe and queue take
assert(log.stats().dropped > 0)
print(("stuck %.4f"):format(cost(LINES, write_line)))
reader:close() -- what is queued is lost, not waited for
os.remove(folder .. "/log")
