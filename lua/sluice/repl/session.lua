-- SPDX-License-Identifier: MIT
-- A session: entries run as tasks, one after the other; what they start may go on behind them.

local errors = require "sluice.errors"
local globals = require "sluice.repl.globals"
local observe = require "sluice.observe"
local secret = require "sluice.secret"
local show = require "sluice.repl.show"
local source = require "sluice.repl.source"
local task = require "sluice.task"
local traceback = require "sluice.traceback"

local session = {}

local RESULTS <const> = 9 -- _1 to _9

---One thing that was entered.
---@class sluice.repl.Entry
---@field number integer
---@field text string
---@field kind? "expression"|"statements" nil for a command
---@field shown? "values"|"object"|"stream"|"failure"|"nothing" what came of it
---@field last? sluice.repl.Entry whose result `_` is in it
---@field failed boolean
---@field ended? boolean the prompt is back; its tasks may still run
---@field task? sluice.Task
---@field started number
---@field seconds? number from the start to the prompt

---@class sluice.repl.Session
---@field console sluice.repl.Console
---@field env table the globals of the program
---@field scope table those of the entries
---@field producer? sluice.repl.Entry the last one with a result
---@field entries sluice.repl.Entry[]
---@field running table<integer, sluice.repl.Entry> by number: those whose tasks have not all ended
---@field last? sluice.trace.Exchange the last request that was made
---@field requests integer how many were made
---@field failures integer entries that failed
---@field saved? string the file that :save wrote last
local methods = {}
local metatable = { __name = "sluice.repl.session", __index = methods }

function metatable.__close(self)
  self:close()
end

---Starts a session.
---@param console sluice.repl.Console
---@param env table
---@return sluice.repl.Session
function session.new(console, env)
  local self = setmetatable({
    console = console, env = env, scope = globals.over(env), entries = {}, running = {},
    requests = 0, failures = 0, results = {}, group = task.group(),
  }, metatable)
  self.observed = observe.on_request
  observe.on_request = function(method, url, response, err)
    self.requests = self.requests + 1
    self.last = { method = method, url = url, response = response, err = err }
  end
  return self
end

---Ends it: cancels what still runs and waits for it. Idempotent. Waits.
function methods:close()
  if self.closed then return end
  self.closed = true
  observe.on_request = self.observed
  for _, entry in pairs(self.running) do entry.is_cancelled = true end
  self.group:close()
end

-- ---- showing ----

---A value as the console shows it.
---@param value any
---@return string
function methods:show(value)
  local console = self.console
  local columns = console.columns and console.columns() or nil
  return secret.mask(show.value(value, { color = console.color, columns = columns }))
end

local function paint(self, kind, text)
  return show.paint(kind, text, self.console.color)
end

-- Results keep their number for nine results: _ and _1 are the last one.
local function remember(self, value, entry)
  if value == nil then return end
  self.producer = entry
  table.insert(self.results, 1, value)
  self.results[RESULTS + 1] = nil
  for index, each in ipairs(self.results) do self.env["_" .. index] = each end
  self.env._ = value
end

local function is_stream(value)
  local stream = package.loaded["sluice.stream"]
  return stream ~= nil and stream.is(value)
end

-- Shows the text of a stream as it comes. What is kept of it is the whole answer.
local function play(self, stream)
  local any = false
  for text in stream:text() do
    any = true
    self.console.write(secret.mask(text))
  end
  if any then self.console.write "\n" end
  local answer, err = stream:collect()
  if not answer then error(err, 0) end
  if not any then self.console.write(self:show(answer) .. "\n") end
  return answer
end

-- What a script would have to do to show it too.
local function kind_of(results, at)
  local first = results[at]
  if first == nil then
    if results.n < at then return "nothing" end
    return errors.is(results[at + 1]) and "failure" or "values"
  end
  local is_one = results.n == at or results.n == at + 1 and results[at + 1] == nil
  if is_one and is_stream(first) then return "stream" end
  return is_one and type(first) == "table" and "object" or "values"
end

local function present(self, results, entry)
  local at = entry.kind == "expression" and 3 or 2 -- see source.compile
  local first = results[at]
  entry.shown = kind_of(results, at)
  if entry.shown == "stream" then return remember(self, play(self, first), entry) end
  local texts = {}
  local last = results.n
  -- an answer, and no err
  if first ~= nil and last == at + 1 and results[last] == nil then last = at end
  for index = at, last do texts[#texts + 1] = self:show(results[index]) end
  remember(self, first, entry)
  if #texts > 0 then self.console.write(table.concat(texts, ", ") .. "\n") end
end

-- ---- errors ----

-- The end of this very task, which goes on as it is.
local function is_end_of_task(err)
  return type(err) == "table" and rawget(err, "_scope") ~= nil
end

local function text_of(err)
  if type(err) == "string" or errors.is(err) then return tostring(err) end
  local its = getmetatable(err)
  if type(its) == "table" and its.__tostring then return (select(2, pcall(tostring, err))) end
  return "a value was raised: " .. show.value(err)
end

local function describe(err)
  if is_end_of_task(err) then return err end
  local trace = debug and debug.traceback and debug.traceback("", 2) or ""
  return { text = traceback.tidy(tostring(text_of(err)), trace) }
end

---Tells an error.
---@param text string
function methods:complain(text)
  self.console.write_error(paint(self, "error", secret.mask(text)) .. "\n")
end

-- ---- running ----

local REPORTED <const> = {} -- raised behind an error that has been told

local function finish(self, entry, failed)
  if entry.ended then return end
  entry.ended, entry.failed = true, failed
  entry.seconds = task.now() - entry.started
  if failed then self.failures = self.failures + 1 end
  entry.done:send(true)
end

-- The entry itself, in a scope of its own: what it started goes on behind it, unless it fails.
local function body(self, entry, chunk)
  local results = table.pack(xpcall(chunk, describe))
  if results[1] then results = table.pack(xpcall(present, describe, self, results, entry)) end
  if not results[1] then
    local failure = results[2]
    if is_end_of_task(failure) then error(failure, 0) end
    self:complain(failure.text)
    finish(self, entry, true)
    error(REPORTED, 0)
  end
  finish(self, entry, false)
end

local function describe_end(entry, err)
  if entry.stopped then return entry.stopped end
  local text = text_of(err)
  return entry.ended and ("entry %d, behind the prompt: %s"):format(entry.number, text) or text
end

local function run_to_the_end(self, entry, chunk)
  local ok, err = pcall(task.scope, function() body(self, entry, chunk) end)
  self.running[entry.number] = nil
  local was_told = err == REPORTED or entry.is_cancelled and (entry.ended or self.closed)
  if not ok and not was_told then self:complain(describe_end(entry, err)) end
  finish(self, entry, true)
end

---Cancels an entry and all that it started.
---@param entry sluice.repl.Entry
---@param reason string
function methods.cancel(_, entry, reason)
  entry.stopped, entry.is_cancelled = reason, true
  entry.task:cancel(reason)
end

-- The first time cancels; the second time the prompt comes back whatever the entry does.
local function stop(self, entry, reason)
  if not entry.is_cancelled then return self:cancel(entry, reason) end
  if entry.ended then return end
  self:complain(("entry %d goes on, behind the prompt"):format(entry.number))
  finish(self, entry, true)
end

local function wait_for(self, entry)
  local wait_interrupt = self.console.wait_interrupt
  local watcher = wait_interrupt and task.spawn(function()
    while true do stop(self, entry, wait_interrupt()) end
  end)
  entry.done:receive()
  if watcher then watcher:cancel "the entry has ended" end
end

---Runs an entry that was compiled and waits until the prompt may come back. Waits.
---@param text string
---@param chunk function
---@param kind "expression"|"statements"
---@return sluice.repl.Entry
function methods:run(text, chunk, kind)
  local entry = {
    number = #self.entries + 1, text = text, kind = kind, failed = false, started = task.now(),
    done = task.channel(1), last = self.producer,
  }
  self.entries[entry.number], self.running[entry.number] = entry, entry
  entry.task = self.group:spawn(run_to_the_end, self, entry, chunk)
  wait_for(self, entry)
  return entry
end

---Compiles the text as the next entry. As source.compile.
---@param text string
---@return function? chunk
---@return string? message
---@return "expression"|"statements"|nil kind
function methods:compile(text)
  globals.lend(self.scope, text)
  return source.compile(text, ("=entry %d"):format(#self.entries + 1), self.scope)
end

-- ---- what runs ----

local WRAPPER <const> = debug and debug.getinfo and (function()
  local info = debug.getinfo(run_to_the_end, "S")
  return ("%s:%d"):format(info.short_src, info.linedefined)
end)()

local function label_of(row, entries)
  if row.name ~= WRAPPER then return row.name end
  local entry = table.remove(entries, 1)
  return entry and ("entry %d: %s"):format(entry.number, (entry.text:match "^[^\n]*")) or row.name
end

local function entries_in_order(self)
  local entries = {}
  for _, entry in pairs(self.running) do entries[#entries + 1] = entry end
  table.sort(entries, function(a, b) return a.number < b.number end)
  return entries
end

-- Our wrappers in the order of their entries, and what is below them.
local function ours(tree)
  local rows, depth = {}, nil
  for _, row in ipairs(tree) do
    if depth and row.depth <= depth then depth = nil end
    if row.name == WRAPPER then depth = row.depth end
    if depth then rows[#rows + 1] = row end
  end
  return rows
end

---The tasks that entries have started and that still run, a line each.
---@param all? boolean every task of the program
---@return string[]
function methods:tasks(all)
  local tree, lines, entries = task.tree(), {}, entries_in_order(self)
  for _, row in ipairs(all and tree or ours(tree)) do
    local state = row.waits_for and "waits for " .. row.waits_for or row.state
    local limit = row.deadline and (", %.1f s left"):format(row.deadline) or ""
    lines[#lines + 1] = ("%s%s  %s, %.1f s%s"):format(("  "):rep(row.depth), label_of(row, entries), state,
      row.age, limit)
  end
  return lines
end

return session
