-- SPDX-License-Identifier: MIT
-- Asks an endpoint every row of an input, so many at a time, and writes every row's result exactly once.

local engine = require "sluice.batch.engine"
local errors = require "sluice.errors"
local files = require "sluice.batch.files"
local input = require "sluice.batch.input"
local journal = require "sluice.batch.journal"
local log = require "sluice.log"
local options = require "sluice.options"
local outputs = require "sluice.batch.output"
local resume = require "sluice.batch.resume"
local rules = require "sluice.batch.rules"
local summary = require "sluice.batch.summary"
local task = require "sluice.task"
local throttle = require "sluice.batch.throttle"
local window = require "sluice.batch.window"

local batch = {}

local DEFAULT_CONCURRENCY <const> = 10
local DEFAULT_ATTEMPTS <const> = 5
local MAX_LINE <const> = 16 << 20 -- bytes of a line of input: a request with some pictures
local WINDOW_ROWS <const> = 16 -- for each request at a time: how far others may run ahead of the slowest row
local WINDOW_BYTES <const> = 8 << 20 -- of results that wait for their turn
local TICK <const>, CHECKPOINT <const>, SYNC <const> = 0.1, 1, 10 -- seconds

---@class sluice.BatchOptions
---@field endpoint sluice.Endpoint
---@field input string|table|function a JSONL file, "-" for standard input, an array of requests, an iterator that gives them, a sluice.BatchSource, or redis.stream
---@field output? string|function|sluice.BatchSink a JSONL file, "-" for standard output, or a function that gets each result; without one the summary has them all, as `results`
---@field concurrency? integer requests at a time in the beginning; 10
---@field max_concurrency? integer what it may grow to while the server keeps up; `concurrency`
---@field order? "input"|"completion" of the results; "input"
---@field progress? boolean|sluice.ProgressBar a bar on standard error; false
---@field metrics? sluice.metrics.Registry which tells of the run while it goes on, for `sluice top` and Prometheus
---@field report? string a file for the summary, as JSON
---@field journal? string|false a file; the output's name and ".journal". False: the run cannot be continued
---@field attempts? integer tries of a row that the server refuses for now (429, 503); 5
---@field stream? boolean asks for streams, and measures the time to their first content; false
---@field options? sluice.QueryOptions of every query
---@field max_failures? integer stops when so many rows have failed in this run
---@field max_failure_share? number stops when more than this share of at least 20 rows has failed in this run, 0 to 1
---@field max_tokens? integer stops when the answers of this run have taken so many
---@field deadline? number seconds from the start; then what runs is given up
---@field max_line? integer bytes of a line of input; 16 MiB
---@field window? integer rows that may be under way or wait for their turn, in the order of the input; 16 for each request at a time

---Where results go.
---@class sluice.BatchSink
---@field write fun(self: sluice.BatchSink, ...: string): any, sluice.Error? takes whole lines, in pieces; true, or nil and err. May wait

local function is_share(value)
  return type(value) == "number" and value >= 0 and value <= 1, "a number from 0 to 1"
end

local function is_order(value)
  return value == "input" or value == "completion", '"input" or "completion"'
end

local function is_journal(value)
  return value == false or type(value) == "string" and value ~= "", "a file name or false"
end

local function is_registry(value)
  return require("sluice.metrics").is_registry(value), "made by metrics.registry"
end

local OPTIONS <const> = {
  endpoint = "table|userdata",
  input = "name|table|callable",
  output = "name|table|callable?",
  concurrency = "count?",
  max_concurrency = "count?",
  order = is_order,
  progress = "boolean|table?",
  metrics = is_registry,
  report = "name?",
  journal = is_journal,
  attempts = "count?",
  stream = "boolean?",
  options = "table?",
  max_failures = "count?",
  max_failure_share = is_share,
  max_tokens = "count?",
  deadline = "positive?",
  max_line = "count?",
  window = "count?",
}

-- Results of rows that processes share go where the rows came from.
local function check_shared(given)
  if type(given.input) ~= "table" or not given.input.is_shared then return end
  for _, name in ipairs { "output", "order", "journal", "window" } do
    if given[name] ~= nil then
      local text = 'batch.run: option "%s" has no meaning here: who calls collect() writes the results'
      options.misuse(text, name)
    end
  end
end

local function check(given)
  given = options.check("batch.run", given, OPTIONS)
  local most = given.max_concurrency
  if most and given.concurrency and most < given.concurrency then
    options.misuse('batch.run: option "max_concurrency" must be at least "concurrency", got %d', most)
  end
  check_shared(given)
  local has, method = pcall(function() return given.endpoint.query end)
  if not has or method == nil then options.misuse 'batch.run: option "endpoint" has no method query' end
  return given
end

-- ---- where results go ----

local function open_output(run)
  if run.is_shared then return run.source.out end
  local sink, opened = outputs.open(run.given.output)
  if not sink then return nil, opened end
  run.output, run.results = opened.file, opened.results
  return sink
end

-- ---- continuing ----

local function journal_path(run)
  if not run.output or not run.output.is_regular or run.given.journal == false then return nil end
  return run.given.journal or run.output.path .. ".journal"
end

-- What cannot be continued must not be mixed with what is there.
local function begin_without_journal(run, why)
  local output = run.output
  if output and output.is_regular then
    if output.size > 0 then
      return nil, files.conflict(output.path, "it is not empty, and this run cannot continue it: " .. why)
    end
    if run.given.journal ~= false then log.info("batch: this run cannot be continued", { because = why }) end
  end
  run.plan = resume.fresh(run.source)
  return true
end

local function begin(run)
  local source, path = run.source, journal_path(run)
  if run.is_shared then
    run.plan = resume.fresh(source)
    return true
  end
  if run.output and run.output.identity == source.identity then
    return nil, files.conflict(run.output.path, "the output is the input")
  end
  if not path then return begin_without_journal(run, "it has no journal") end
  if not source.identify then return begin_without_journal(run, "its input cannot be read again") end
  local identity, rows = source:identify()
  if not identity then
    if rows then return nil, rows end
    return begin_without_journal(run, "its input cannot be read again")
  end
  local err
  run.total = rows
  run.plan, err = resume.plan(source, identity, run.output, path, run.order)
  if not run.plan then return nil, err end
  source:seek(run.plan.next, run.plan.offset)
  local held = {}
  for _, line in pairs(run.plan.held) do held[#held + 1] = line end
  local checkpoint = resume.checkpoint(run.plan, run.output.size)
  run.journal, err = journal.create(path, { input = identity, order = run.order }, checkpoint, held)
  return run.journal, err
end

-- What is left of the rows before the first that was never started, in order.
local function todo_of(plan)
  local todo = {}
  for number, offset in pairs(plan.missing) do todo[#todo + 1] = { row = number, offset = offset } end
  for number, line in pairs(plan.held) do todo[#todo + 1] = { row = number, line = line } end
  table.sort(todo, function(a, b) return a.row < b.row end)
  return todo
end

-- ---- running ----

local function out_of(run, concurrency)
  if run.is_shared then return run.sink end
  if run.order == "completion" then return window.direct(run.sink) end
  local rows = run.given.window or WINDOW_ROWS * concurrency
  return window.new(run.sink, run.journal, math.max(rows, #run.todo), WINDOW_BYTES, run.plan.last)
end

local function new_engine(run)
  local given, plan = run.given, run.plan
  local start = given.concurrency or DEFAULT_CONCURRENCY
  if not given.concurrency and given.max_concurrency then start = math.min(start, given.max_concurrency) end
  local most = given.max_concurrency or start
  run.todo = todo_of(plan)
  run.out = out_of(run, most)
  run.rules = rules.new(given, plan.tally)
  return engine.new {
    endpoint = given.endpoint, source = run.source, out = run.out,
    wants_tables = run.sink.wants_tables or false, tally = plan.tally, throttle = throttle.new(start, most),
    group = run.group, attempts = given.attempts or DEFAULT_ATTEMPTS, stream = given.stream or false,
    query_options = given.options, todo = run.todo, rules = run.rules, is_shared = run.is_shared,
  }
end

local function state_of(run)
  local source = run.source
  return {
    next = source.row + 1, offset = source.offset, missing = run.engine.open,
    tally = run.engine.tally, last = run.out.last,
  }
end

local function note(run)
  if not run.journal then return true end
  run.engine:flush() -- what is counted must be in the output
  if run.engine.failure ~= nil then return true end
  local checkpoint = resume.checkpoint(state_of(run), run.output.size)
  if run.journal:is_large() then return run.journal:rewrite(checkpoint, run.out:entries()) end
  return run.journal:add(checkpoint)
end

local function keep_noting(run)
  local rows = -1
  while true do
    task.sleep(CHECKPOINT)
    local tally = run.engine.tally
    if tally.ok + tally.failed ~= rows then
      rows = tally.ok + tally.failed
      local ok, err = note(run)
      if not ok then return run.engine:fail(err) end
    end
  end
end

local function keep_syncing(run)
  while true do
    task.sleep(SYNC)
    local ok, err = run.output:sync()
    if not ok then return run.engine:fail(err) end
  end
end

local function keep_showing(run)
  while true do
    run.view:show(run.engine)
    task.sleep(TICK)
  end
end

local function start(run)
  local group, given = run.group, run.given
  run.engine:grow()
  if run.journal then
    group:spawn(keep_noting, run)
    group:spawn(keep_syncing, run)
  end
  if run.view then group:spawn(keep_showing, run) end
  if given.deadline then
    group:spawn(function()
      task.sleep(given.deadline)
      run.engine:cancel "deadline"
    end)
  end
end

-- The host's word for Ctrl-C and for SIGTERM: what runs is finished. Any other end is at once.
local PATIENT <const> = { interrupted = true, terminated = true }

local function wait(run)
  local ok, raised = pcall(run.engine.wait, run.engine)
  if ok then return end
  local reason = errors.is(raised) and raised.kind == "TaskCancelled" and raised.reason
  if PATIENT[reason] then
    run.engine:stop(reason)
    task.shield(run.engine.wait, run.engine)
  else
    run.raised = raised
    run.engine:cancel "cancelled"
  end
end

-- ---- the end ----

local function save(run)
  if not run.journal or not run.output then return true end
  local ok, err = true, nil
  -- where the output could not be written the last checkpoint and the output say what is done
  if run.engine.failure == nil then ok, err = note(run) end
  if ok then ok, err = run.output:sync() end
  if ok then ok, err = run.journal:sync() end
  return ok, err
end

local function finish(run)
  run.group:close()
  if run.engine.failure == nil then run.engine:flush() end -- what had come when the workers were cancelled
  if run.view then run.view:close(run.engine) end
  local ok, err = save(run)
  local told = summary.of(run)
  if run.given.report then
    local written, failure = summary.write(told, run.given.report)
    if not written and ok then ok, err = nil, failure end
  end
  return told, not ok and err or nil
end

local closing = {
  __close = function(run)
    for _, each in ipairs { "source", "output", "journal" } do
      local object = run[each]
      if object and object.close then object:close() end
    end
  end,
}

local function new_view(run)
  local bar, source = run.given.progress, run.source
  if not run.total and source.identify then
    local _, rows = source:identify()
    run.total = math.type(rows) and rows or nil
  end
  return require("sluice.batch.view").new {
    bar = type(bar) == "table" and bar or nil, total = run.total,
    done = run.resumed, tokens = run.tokens_before,
  }
end

local function watch(run)
  local registry = run.given.metrics
  return registry and require("sluice.batch.metrics").watch(registry, run)
end

local function execute(run)
  run.group = task.group()
  run.engine = new_engine(run)
  local watched <close> = watch(run) -- luacheck: ignore
  if run.given.progress then run.view = new_view(run) end
  start(run)
  wait(run)
  local told, err = task.shield(finish, run)
  local failure = run.engine.failure
  if failure ~= nil and not errors.is(failure) then error(failure, 0) end
  if run.raised then error(run.raised, 0) end
  err = failure or err
  if err then
    err.summary = told
    return nil, err
  end
  return told
end

---Asks the endpoint every row of the input. A row that fails is a row with its error; only what concerns all of them
---ends the batch: files that cannot be read or written, or do not belong together. Killed at any moment and run again
---with the same files, it continues. Interrupted by the host (Ctrl-C) it starts nothing more, finishes what runs, and
---returns its summary, with `stopped`. Waits.
---@param given sluice.BatchOptions
---@return sluice.BatchSummary? summary
---@return sluice.Error? err FileError, BatchConflict, of Redis what its commands give; `err.summary` tells what was done
function batch.run(given)
  given = check(given)
  local run <close> = setmetatable({
    given = given, order = given.order or "input", started = task.now(),
    is_shared = type(given.input) == "table" and given.input.is_shared or false,
  }, closing)
  local err, ok
  run.source, err = input.open(given.input, given.max_line or MAX_LINE)
  if not run.source then return nil, err end
  run.sink, err = open_output(run)
  if not run.sink then return nil, err end
  ok, err = begin(run)
  if not ok then return nil, err end
  local tally = run.plan.tally
  run.resumed, run.tokens_before = tally.ok + tally.failed, tally.tokens
  return execute(run)
end

---Asks the prompts of a table of the warehouse, or of rows, with ai_query in the warehouse: for a million rows, which one
---machine need not see pass. Rows fail by themselves, each with its typed error. Whoever stops waiting cancels the
---statement under way. Not continued: an output that is not empty is refused. Waits.
---@param given sluice.AiQueryOptions
---@return sluice.BatchSummary? summary without latencies and tokens, which ai_query does not tell
---@return sluice.Error? err as of workspace.sql:execute; FileError, BatchConflict; `err.summary` tells what was done
function batch.ai_query(given)
  local told, err = require("sluice.batch.warehouse").run(given)
  return told, err
end

return batch
