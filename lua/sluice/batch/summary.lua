-- SPDX-License-Identifier: MIT
-- What a batch tells at its end.

local files = require "sluice.batch.files"
local json = require "sluice.json"
local task = require "sluice.task"

local summary = {}

---@class sluice.BatchTimes
---@field count integer
---@field mean number seconds
---@field p50 number seconds; percentiles are right to 2.2 %
---@field p90 number seconds
---@field p99 number seconds
---@field max number seconds

---@class sluice.BatchSummary
---@field rows integer rows with a result, those of earlier runs too
---@field ok integer rows with an answer
---@field failed integer rows with an error
---@field resumed integer rows that earlier runs have done
---@field complete boolean whether every row of the input has its result
---@field stopped string? why it ended early: the name of a stop rule, "interrupted", "terminated", "failed", "cancelled"
---@field resumable boolean whether the same call continues it
---@field errors table<string, integer> failed rows by the kind of their error
---@field retries integer tries beyond the first of each row
---@field tokens { total: integer, input: integer, output: integer, resumed: integer } `resumed`: those of the total that earlier runs have taken
---@field latency sluice.BatchTimes? of rows with an answer
---@field ttft sluice.BatchTimes? time to the first content, of streams
---@field seconds number of this run
---@field rows_per_second number of this run
---@field tokens_per_second number of this run
---@field concurrency number? requests at a time, as it was in the end; as the next two not of a collector
---@field pauses integer? times that the server asked for
---@field duplicate_ids integer? ids that came again, among the first 50,000
---@field results table[]? without an output: every result

local function tokens_of(tally, before)
  local total, output = tally.tokens, tally.output_tokens
  return { total = total, input = total - output, output = output, resumed = before }
end

-- What counts alone say. `resumed` and `tokens_before` are those of earlier runs.
local function of_counts(tally, seconds, resumed, tokens_before)
  local rows = tally.ok + tally.failed
  local per = seconds > 0 and 1 / seconds or 0
  return {
    rows = rows, ok = tally.ok, failed = tally.failed, resumed = resumed,
    errors = tally.errors, retries = tally.retries,
    tokens = tokens_of(tally, tokens_before),
    latency = tally.latency:summary(), ttft = tally.ttft:summary(),
    seconds = seconds, rows_per_second = (rows - resumed) * per,
    tokens_per_second = (tally.tokens - tokens_before) * per,
  }
end

---The summary of a run that has ended.
---@param run table of batch.run
---@return sluice.BatchSummary
function summary.of(run)
  local engine = run.engine
  local told = of_counts(engine.tally, task.now() - run.started, run.resumed, run.tokens_before)
  told.complete, told.stopped = engine:is_complete(), engine.stopped
  told.resumable = run.journal ~= nil or run.is_shared
  told.concurrency, told.pauses = engine.throttle.limit // 1, engine.throttle.pauses
  told.duplicate_ids, told.results = run.rules.duplicate_ids, run.results
  return told
end

---The summary of what all workers of a shared batch did, by its collector.
---@param tally sluice.batch.Tally
---@param seconds number of this collector
---@param before { rows: integer, tokens: integer } what earlier ones had collected
---@param is_complete boolean
---@return sluice.BatchSummary told without what concerns one process
function summary.of_shared(tally, seconds, before, is_complete)
  local told = of_counts(tally, seconds, before.rows, before.tokens)
  told.complete, told.resumable = is_complete, true
  return told
end

local PRETTY <const> = { pretty = true }

local OPERATION <const> = "write batch report"

local function replace(path, text)
  local temporary = path .. ".new"
  os.remove(temporary)
  local file, err = files.append(temporary, OPERATION)
  if not file then return nil, err end
  local ok
  ok, err = file:write(text)
  file:close()
  if not ok then return nil, err end
  local reason, number
  ok, reason, number = os.rename(temporary, path)
  if not ok then return nil, files.failure(OPERATION, path, reason, number) end
  return true
end

---Writes it to a file, as JSON without the results. A regular file is replaced in one step; a device or a pipe, such as
---/dev/stderr, is written to. Waits only where it is a pipe.
---@param told sluice.BatchSummary
---@param path string
---@return boolean? written
---@return sluice.Error? err
function summary.write(told, path)
  local plain = {}
  for name, value in pairs(told) do plain[name] = value end
  plain.results = nil
  local text = json.encode(plain, PRETTY) .. "\n"
  local file, err = files.append(path, OPERATION)
  if not file then return nil, err end
  local is_replaced, ok = file.is_regular and not path:find "^/dev/", true -- /dev/stderr may lead to a file
  if not is_replaced then ok, err = file:write(text) end
  file:close()
  if is_replaced then return replace(path, text) end
  return ok, err
end

return summary
