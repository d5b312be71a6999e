#!/usr/bin/env sluice
-- SPDX-License-Identifier: MIT
-- One batch on many machines, by way of Redis: each process does what its options say, together with the others.
--
--     sluice batch_worker.lua --batch NAME --input FILE                     puts the rows of a file there
--     sluice batch_worker.lua --batch NAME --endpoint NAME                  asks them, on as many machines as you like
--     sluice batch_worker.lua --batch NAME --output FILE                    writes the results
--     sluice batch_worker.lua --batch NAME --input F --endpoint N --output F    all of it in one process; more may join
--     sluice batch_worker.lua --batch NAME --delete                         forgets the batch, whatever is not done
--
-- Redis is --redis URL, or REDIS_URL: a password stands better there. Killed and run again, each goes on. Exit status:
-- 0 done, and every row that it knows of has an answer; 3 some have errors or are left; 130 interrupted.
local sluice = require "sluice"

local given, refuse = sluice.arguments.read {
  about = "Does one part of a batch that many processes share by way of Redis, or all of it.",
  { "--batch NAME", required = true },
  { "--redis URL", "else REDIS_URL" },
  { "--input FILE", "puts its rows there" },
  { "--endpoint NAME", "asks them" },
  { "--output FILE", "writes the results" },
  { "--concurrency N", "requests at a time", type = "count" },
  { "--max-concurrency N", "what it may grow to while the server keeps up", type = "count" },
  { "--order ORDER", "of the results", choices = { "input", "completion" } },
  { "--report FILE", "gets the summary, as JSON" },
  { "--idle SECONDS", "after which a silent worker's rows go to others", type = "count" },
  { "--ahead ROWS", "that wait in Redis at most", type = "count" },
  { "--delete", "forgets the batch" },
  notes = "Exit status: 0 all is answered, 3 some rows have errors or are left, 130 interrupted.",
}
if not (given.input or given.endpoint or given.output or given.delete) then refuse "nothing to do" end

local function need(value, err)
  if value then return value end
  io.stderr:write(tostring(err), "\n")
  os.exit(1)
end

local function tell(who, summary)
  io.stderr:write(("%s: %d rows, %d answered, %d failed; %d tokens\n"):format(
    who, summary.rows, summary.ok, summary.failed, summary.tokens.total))
  return summary.complete and summary.failed == 0
end

local shared = sluice.redis.stream {
  client = sluice.redis.connect { url = given.redis or os.getenv "REDIS_URL" },
  name = given.batch, idle = given.idle, ahead = given.ahead,
}
if given.delete then need(shared:delete()) end
local is_good = true
sluice.task.scope(function(scope)
  if given.input then scope:spawn(function() need(shared:feed { input = given.input }) end) end
  if given.output then
    scope:spawn(function()
      local summary = need(shared:collect {
        output = given.output, order = given.order, report = given.report, progress = true,
      })
      is_good = tell("batch", summary) and is_good
    end)
  end
  if given.endpoint then
    is_good = tell("this worker", need(sluice.batch.run {
      endpoint = need(sluice.workspace()):endpoint(given.endpoint), input = shared,
      progress = not given.output,
      concurrency = given.concurrency, max_concurrency = given.max_concurrency,
    })) and is_good
  end
end)
if not is_good then os.exit(3) end
