-- SPDX-License-Identifier: MIT
-- What a console understands beside Lua: `:help`, `:time`, `:tasks`, `:trace`, `:save`, `:cancel`, `:quit`.

local help = require "sluice.repl.help"
local meta = require "sluice.meta"
local options = require "sluice.options"
local script = require "sluice.repl.script"
local waterfall = require "sluice.trace.waterfall"

local commands = {}

local HELP <const> = [[
An entry is Lua: an expression shows its values, a call that waits just waits, a stream is shown
as it comes. Variables declared `local` at the top of an entry stay. Tasks go on behind the prompt.
The modules of sluice are there by their names: `task` is `sluice.task`, `layers`, `http`, `json`, ...

  ?NAME         what is known of a name, a value or a class: ?task.spawn ?chat ?sluice.Stream
  _  _1 .. _9   the last result, and those before it
  :time ENTRY   runs it and says how long it took and what it requested
  :tasks        the tasks that entries have started; :tasks all for every task
  :cancel N     cancels what entry N started
  :trace        where the time of the last request went
  :save FILE    writes the entries that did not fail as a script; :save! over a file that is there
  :help         this text
  :quit         leaves, as Ctrl-D does

  Tab completes names, fields, methods, options and modules. Ctrl-C stops what the entry started.]]

local COLUMNS <const> = 80 -- where the console does not know

local function columns_of(session)
  return session.console.columns and session.console.columns() or COLUMNS
end

-- By name: a function (session, rest, run) that returns a text to show, or nil and what is wrong; `run` runs an entry.
local known = {}

function known.help()
  return HELP
end

function known.time(session, rest, run)
  if rest == "" then return nil, ":time ENTRY: an entry is needed" end
  local before, cpu = session.requests, os and os.clock and os.clock()
  local entry = run(rest)
  if not entry then return nil, ":time: the entry is not whole" end
  local said = { ("%.3f s"):format(entry.seconds or 0) }
  if cpu then said[2] = ("%.3f s of it computing"):format(os.clock() - cpu) end
  local made = session.requests - before
  if made > 0 then said[#said + 1] = ("%d request%s"):format(made, made == 1 and "" or "s") end
  return table.concat(said, ", ")
end

function known.tasks(session, rest)
  local lines = session:tasks(rest == "all")
  return #lines > 0 and table.concat(lines, "\n") or "no task that an entry has started runs"
end

function known.cancel(session, rest)
  local number = math.tointeger(tonumber(rest))
  local entry = number and session.running[number]
  if not entry then return nil, (":cancel N: no entry %s runs; see :tasks"):format(rest) end
  session:cancel(entry, "cancelled")
  return ("entry %d is cancelled"):format(number)
end

function known.trace(session)
  if not session.last then return nil, "no request was made" end
  local columns = columns_of(session)
  local span = meta.get(session.results[1]).trace
  if span then return waterfall.of_span(span, columns, session.console.unicode) end
  return waterfall.of_exchange(session.last, columns, session.console.unicode)
end

local function is_there(path)
  local file = io.open(path)
  if file then file:close() end
  return file ~= nil
end

function known.save(session, rest)
  local replaces = rest:match "^!%s*(.*)$"
  rest = replaces or rest
  if rest == "" then return nil, ":save FILE: a file is needed" end
  if not (io and io.open) then return nil, ":save: files are not allowed here" end
  if not replaces and session.saved ~= rest and is_there(rest) then
    return nil, (":save: %s is there already, :save! %s replaces it"):format(rest, rest)
  end
  local file, reason = io.open(rest, "w")
  if not file then return nil, ":save: " .. reason end
  local written
  written, reason = file:write(script.of(session))
  local closed, close_reason = file:close()
  if not (written and closed) then return nil, (":save: %s: %s"):format(rest, reason or close_reason) end
  session.saved = rest
  return "saved as " .. rest
end

function known.quit(session)
  session.leaves = true
  return ""
end

---Whether a text is for commands.run.
---@param text string
---@return boolean
function commands.is_one(text)
  return text:find "^%s*:%a" ~= nil or text:find "^%s*%?" ~= nil
end

---Runs a command.
---@param session sluice.repl.Session
---@param text string
---@param run fun(text: string): sluice.repl.Entry? runs an entry; nil where it is not whole
---@return string? shown
---@return string? message what is wrong
function commands.run(session, text, run)
  local question = text:match "^%s*%?%s*(.-)%s*$"
  if question == "" then return HELP end
  if question then return help.about(question, session.env, columns_of(session)) end
  local name, rest = text:match "^%s*:(%a+)%s*(.-)%s*$"
  if not known[name] then
    return nil, ("there is no command :%s%s; see :help"):format(name, options.hint(name, known))
  end
  return known[name](session, rest, run)
end

---The names of all commands.
---@return string[]
function commands.names()
  local names = {}
  for name in pairs(known) do names[#names + 1] = name end
  table.sort(names)
  return names
end

return commands
