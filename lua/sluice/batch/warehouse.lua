-- SPDX-License-Identifier: MIT
-- A batch whose prompts a warehouse asks, as ai_query: of its own table, or rows that are sent to it.

local errors = require "sluice.errors"
local files = require "sluice.batch.files"
local input = require "sluice.batch.input"
local json = require "sluice.json"
local options = require "sluice.options"
local output = require "sluice.batch.output"
local prompts = require "sluice.batch.prompts"
local row = require "sluice.batch.row"
local summary = require "sluice.batch.summary"
local tally = require "sluice.batch.tally"
local task = require "sluice.task"
local window = require "sluice.batch.window"

local warehouse = {}

local MAX_LINE <const> = 16 << 20
local ROWS <const> = 1000 -- of a statement: what fails or is cancelled as a whole
local BYTES <const> = 4 << 20 -- of its prompts; a statement may have 16 MiB, its answers 25

---The options of batch.ai_query.
---@class sluice.AiQueryOptions
---@field workspace sluice.Workspace
---@field endpoint string the name of an endpoint that the warehouse may query
---@field input string|table|function a table of the warehouse, "catalog.schema.table"; or rows, as of batch.run: an array, an iterator (`io.lines(FILE)`), a sluice.BatchSource
---@field output? string|function|sluice.BatchSink as of batch.run
---@field warehouse? string its id; the workspace's own
---@field prompt? string the table's column of prompts; "prompt"
---@field id? string the table's column that names its rows; none
---@field model_parameters? table<string, string|number|boolean> `max_tokens`, `temperature`, ... of every row
---@field rows_per_statement? integer of rows that are sent, 1000
---@field timeout? number seconds for each statement; then it is cancelled; none
---@field progress? boolean|sluice.ProgressBar a bar on standard error; false
---@field report? string a file for the summary, as JSON
---@field max_line? integer bytes of a line of input; 16 MiB
local OPTIONS <const> = {
  workspace = "table",
  endpoint = "name",
  input = "name|table|callable",
  output = "name|table|callable?",
  warehouse = "name?",
  prompt = "name?",
  id = "name?",
  model_parameters = "table?",
  rows_per_statement = "count?",
  timeout = "positive?",
  progress = "boolean|table?",
  report = "name?",
  max_line = "count?",
}

local function check(given)
  given = options.check("batch.ai_query", given, OPTIONS)
  if (getmetatable(given.workspace) or {}).__name ~= "sluice.workspace" then
    options.misuse 'batch.ai_query: option "workspace" must be made by sluice.workspace'
  end
  if type(given.input) ~= "string" then
    for _, each in ipairs { "prompt", "id" } do
      if given[each] then options.misuse('batch.ai_query: option "%s" is of a table as input', each) end
    end
  end
  return given
end

-- ---- writing ----

local function put(run, entry)
  local response, err = entry.response, entry.err
  local line
  if run.sink.wants_tables then
    line = { row = entry.row, id = entry.id, response = response, error = response == nil and err or nil }
  elseif response then
    line = row.answer_line(entry.row, entry.id, response)
  else
    line = row.error_line(entry.row, entry.id, err)
  end
  run.tally:recount(response and { response = response } or { error = err })
  run.out:put(entry.row, line)
end

local function show(run)
  if not run.bar then return end
  local counted = run.tally
  run.bar:set {
    done = counted.ok + counted.failed, ok = counted.ok, failed = counted.failed,
      warehouse = run.state or false,
  }
end

local function flush(run)
  local ok, err = run.out:flush()
  run.state = nil
  show(run)
  return ok, err
end

-- ---- asking ----

local function execute(run, text, more)
  local given = run.given
  return given.workspace.sql:execute(text, {
    warehouse_id = given.warehouse, timeout = given.timeout, parameters = more.parameters,
    disposition = more.disposition,
    on_poll = function(answer)
      run.state = tostring(answer.status.state):lower()
      show(run)
    end,
  })
end

local function cut(result)
  return nil, errors.new("ProtocolError", {
    operation = "ai_query", object = result.statement_id, message = "the warehouse has cut the result off",
  })
end

-- Sends what was gathered, and puts answers and errors in the order of the rows.
local function ask(run, entries)
  local texts, asked = json.array {}, {}
  for _, entry in ipairs(entries) do
    if entry.prompt then texts[#texts + 1], asked[#asked + 1] = entry.prompt, entry end
  end
  if #texts > 0 then
    local result, err = execute(run, run.text, { parameters = { rows = json.encode(texts) } })
    if not result then return nil, err end
    if result.truncated then return cut(result) end
    for cells in result:rows() do
      local entry = asked[(cells.pos or -1) + 1]
      if entry then
        entry.response, entry.err = prompts.read_answer(run.given.endpoint, entry.row, cells.answer)
      end
    end
  end
  for _, entry in ipairs(entries) do
    if not entry.response and not entry.err then
      entry.err = errors.new("ProtocolError", { message = ("row %d has no answer"):format(entry.row) })
    end
    put(run, entry)
  end
  return flush(run)
end

local function read_entry(number, item)
  local request, id, err = row.read(number, item)
  local entry = { row = number, id = id, err = err }
  if request then entry.prompt, entry.err = prompts.of_request(number, request) end
  return entry
end

-- Rows as they come, so many in a statement.
local function ask_rows(run)
  local source, err = input.open(run.given.input, run.given.max_line or MAX_LINE)
  if not source then return nil, err end
  local most, entries, bytes = run.given.rows_per_statement or ROWS, {}, 0
  while true do
    local number, item = source:next()
    if not number then
      if item then return nil, item end
      break
    end
    local entry = read_entry(number, item)
    entries[#entries + 1], bytes = entry, bytes + #(entry.prompt or "")
    if #entries >= most or bytes >= BYTES then
      local ok, failure = ask(run, entries)
      if not ok then return nil, failure end
      entries, bytes = {}, 0
    end
  end
  if #entries == 0 then return true end
  return ask(run, entries)
end

local FLUSH_EACH <const> = 100 -- rows

local function ask_table(run)
  local result, err = execute(run, run.text, { disposition = "EXTERNAL_LINKS" })
  if not result then return nil, err end
  if result.truncated then return cut(result) end
  if run.bar then run.bar:set { total = result.row_count } end
  local number = 0
  for cells in result:rows() do
    number = number + 1
    local response, failure = prompts.read_answer(run.given.endpoint, number, cells.answer)
    put(run, { row = number, id = cells.id, response = response, err = failure })
    if number % FLUSH_EACH == 0 then
      local ok, problem = flush(run)
      if not ok then return nil, problem end
    end
  end
  return flush(run)
end

-- ---- all of it ----

local closing = {
  __close = function(run)
    if run.file then run.file:close() end
    if run.bar and run.is_own_bar then run.bar:close() end
  end,
}

local function open_bar(run)
  local progress = run.given.progress
  if not progress then return end
  run.is_own_bar = progress == true
  local total = type(run.given.input) == "table" and #run.given.input or nil
  run.bar = run.is_own_bar and require("sluice.progress").bar {
    total = total, label = "ai_query", unit = "rows",
  } or progress
end

local function open(run)
  local opened
  run.sink, opened = output.open(run.given.output)
  if not run.sink then return nil, opened end
  run.file, run.results = opened.file, opened.results
  if run.file and run.file.size > 0 then
    return nil, files.conflict(run.file.path, "it is not empty, and a batch of ai_query is not continued")
  end
  run.out = window.direct(run.sink)
  open_bar(run)
  return true
end

-- What goes wrong while rows are read is raised by their iterator.
local function perform(run)
  local by_kind = type(run.given.input) == "string" and ask_table or ask_rows
  local called, ok, err = pcall(by_kind, run)
  if called then return ok, err end
  local is_world = errors.is(ok) and ok.kind ~= "TaskCancelled" and not ok._scope
  if not is_world then error(ok, 0) end
  return nil, ok
end

---See batch.ai_query.
---@param given sluice.AiQueryOptions
---@return sluice.BatchSummary? summary
---@return sluice.Error? err
function warehouse.run(given)
  given = check(given)
  local text_of = type(given.input) == "string" and prompts.statement_of_table or prompts.statement_of_rows
  local run <close> = setmetatable({
    given = given, text = text_of(given), tally = tally.new(), started = task.now(),
  }, closing)
  local ok, err = open(run)
  if not ok then return nil, err end
  ok, err = perform(run)
  local told = summary.of_shared(run.tally, task.now() - run.started, { rows = 0, tokens = 0 }, ok == true)
  told.resumable, told.results = false, run.results
  if run.given.report then
    local written, failure = summary.write(told, run.given.report)
    if not written then ok, err = nil, err or failure end
  end
  if ok then return told end
  err.summary = told
  return nil, err
end

return warehouse
