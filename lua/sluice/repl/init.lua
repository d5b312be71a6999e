-- SPDX-License-Identifier: MIT
-- The REPL: reads an entry, runs it as a task, shows what came of it. Reading and writing are the console's: a
-- terminal, a pipe, or a window of a game.

local commands = require "sluice.repl.commands"
local complete = require "sluice.repl.complete"
local options = require "sluice.options"
local sessions = require "sluice.repl.session"
local show = require "sluice.repl.show"

local repl = {}

---What happened while a line was read: it was entered; whoever types wants to be rid of it, to leave, or to know what
---may stand at the cursor.
---@class sluice.repl.Event
---@field event "line"|"interrupt"|"end"|"complete"
---@field text? string the line; of "complete": what stands before the cursor
---@field hangup? boolean of "end": there is nobody left to tell

---Where entries come from and where their results go.
---@class sluice.repl.Console
---@field read_line fun(prompt: string): sluice.repl.Event waits for what is typed; after "complete" it goes on with the same line
---@field write fun(text: string) must not wait
---@field write_error fun(text: string) must not wait
---@field wait_interrupt? fun(): string waits until a running entry is to be stopped, and says why
---@field edit? fun(change: { delete: integer, insert: string, above: string? }) changes the line after "complete": deletes bytes before the cursor, inserts a text, shows another one above the line
---@field remember? fun(text: string) takes an entry into the history
---@field columns? fun(): integer the width of a line
---@field is_interactive? boolean whether somebody is told about the session; false
---@field color? boolean
---@field unicode? boolean

local CONSOLE <const> = {
  read_line = "callable", write = "callable", write_error = "callable", wait_interrupt = "callable?",
  edit = "callable?", remember = "callable?", columns = "callable?", is_interactive = "boolean?",
  color = "boolean?", unicode = "boolean?",
}

local PROMPT <const>, CONTINUED <const> = "> ", ">> "
local INDENT <const> = "  " -- what Tab is where a line begins: in what is pasted too
local LIST_COLUMNS <const> = 80 -- where the console does not know its width
local MOST_LISTED <const> = 100

-- ---- completion ----

-- Names in columns, read downwards.
local function in_columns(names, width)
  local cell = 0
  for _, name in ipairs(names) do cell = math.max(cell, show.width(name) + 2) end
  local across = math.max(width // cell, 1)
  local rows = (#names + across - 1) // across
  local lines = {}
  for row = 1, rows do
    local line = {}
    for at = row, #names, rows do line[#line + 1] = names[at] .. (" "):rep(cell - show.width(names[at])) end
    lines[row] = table.concat(line):gsub("%s+$", "")
  end
  return table.concat(lines, "\n")
end

local function listing(session, candidates)
  local shown = table.move(candidates, 1, math.min(#candidates, MOST_LISTED), 1, {})
  for index, name in ipairs(shown) do shown[index] = name:gsub(" = $", "") end
  local columns = session.console.columns and session.console.columns() or LIST_COLUMNS
  local more = #candidates - #shown
  return in_columns(shown, columns - 1) .. (more > 0 and ("\n... %d more"):format(more) or "")
end

local function complete_command(text)
  local prefix = text:match "^:(%a*)$"
  if not prefix then return nil end
  local found = {}
  for _, name in ipairs(commands.names()) do
    if name:sub(1, #prefix) == prefix then found[#found + 1] = name .. " " end
  end
  return { from = 2, candidates = found }
end

-- Answers the Tab key: what all candidates have in common is inserted, else they are listed.
local function complete_line(session, before, text)
  if not text:find "%S" then
    session.console.edit { delete = 0, insert = INDENT }
    return
  end
  local whole = before .. text
  local found = complete_command(whole) or complete.at(whole:gsub("^%?", " "), session.env)
  local typed = whole:sub(found.from)
  local common = complete.common(found.candidates)
  if #found.candidates > 0 and #common > #typed then
    session.console.edit { delete = #typed, insert = common }
  elseif #found.candidates > 1 then
    session.console.edit { delete = 0, insert = "", above = listing(session, found.candidates) }
  else
    session.console.edit { delete = 0, insert = "" }
  end
end

-- ---- reading ----

-- One line; completion is answered on the way. `before`: the lines of the entry so far.
local function read_line(session, prompt, before)
  while true do
    local event = session.console.read_line(prompt)
    if event.event ~= "complete" then return event end
    complete_line(session, before, event.text)
  end
end

-- The next entry that is whole: its text, and the chunk where it is Lua that compiles. Nil at the end.
local function read_entry(session)
  local text = ""
  while true do
    local event = read_line(session, text == "" and PROMPT or CONTINUED, text)
    if event.event == "end" then
      session.hangup, session.leaves = event.hangup, true
      return text ~= "" and text or nil, nil, "the entry is not whole"
    elseif event.event == "interrupt" then
      text = ""
    else
      text = text .. event.text
      if commands.is_one(text) or not text:find "%S" then return text end
      local chunk, message, kind = session:compile(text)
      if chunk or message then return text, chunk, message, kind end
      text = text .. "\n"
    end
  end
end

-- ---- the session ----

local function run_command(session, text)
  local shown, message = commands.run(session, text, function(entry)
    local chunk, wrong, kind = session:compile(entry)
    if chunk then return session:run(entry, chunk, kind) end
    if wrong then session:complain(wrong) end
    return nil
  end)
  if shown and shown ~= "" then session.console.write(shown .. "\n") end
  if message then
    session.failures = session.failures + 1
    session:complain(message)
  end
end

local function remember(session, text)
  local is_private = text:find "^%s" or not text:find "%S"
  if session.console.remember and not is_private then session.console.remember((text:gsub("%s+$", ""))) end
end

-- What is lost by leaving.
local function say_what_runs(session)
  local lines = session:tasks()
  if #lines == 0 or session.hangup or not session.console.is_interactive then return end
  session.console.write(("still running, and cancelled now:\n%s\n"):format(table.concat(lines, "\n")))
end

---Runs a session until its console ends. Waits.
---@param console sluice.repl.Console
---@param given? { env?: table, banner?: string } `env`: the globals of the entries, default _G; `sluice` is one of them. `banner`: shown first
---@return integer failures how many entries failed
function repl.run(console, given)
  options.check("repl.run: console", console, CONSOLE)
  given = options.check("repl.run", given, { env = "table?", banner = "string?" })
  local env = given.env or _G
  if env.sluice == nil then env.sluice = require "sluice" end
  local session <close> = sessions.new(console, env)
  if given.banner and console.is_interactive then console.write(given.banner .. "\n") end
  while not session.leaves do
    local text, chunk, message, kind = read_entry(session)
    if not text then break end
    remember(session, text)
    if chunk then
      session:run(text, chunk, kind)
    elseif message then
      session.failures = session.failures + 1
      session:complain(message)
    elseif commands.is_one(text) then
      run_command(session, text)
    end
  end
  say_what_runs(session)
  return session.failures
end

return repl
