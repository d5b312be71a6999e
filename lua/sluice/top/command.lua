-- SPDX-License-Identifier: MIT
-- The command `sluice top`: looks at a running gateway or batch until it is stopped.

local figures = require "sluice.top.figures"
local settings_of = require "sluice.settings"
local sources = require "sluice.top.source"
local task = require "sluice.task"
local terminal = require "sluice.core.terminal"
local view = require "sluice.top.view"

local command = {}

local USAGE <const> = [[
usage: sluice top [--interval S] [--timeout S] [--once] URL

Shows what a running gateway, server or batch does: rates, times, errors, breakers
and tasks, as its /metrics and /debug/tasks tell. On a terminal it is one screen that
is drawn again, until Ctrl-C; elsewhere a text for each interval.

  --interval S   seconds between two looks; default 1
  --timeout S    seconds that an answer may take; default 5
  --once         look twice, one interval apart, print what happened, and end;
                 with --interval 0 look once, and print what happened since the start

SLUICE_TOP_KEY is the API key that the page needs, where it needs one. NO_COLOR: no colors.
]]

local STANDARD_OUTPUT <const> = 1
local DEFAULT_COLUMNS <const>, DEFAULT_ROWS <const> = 80, 24
local PLAIN_COLUMNS <const> = 120 -- where nobody says how wide it is
local LOOK_AT_SIZE <const> = 0.1 -- seconds: a screen whose size changes is drawn again at once

local NUMBERS <const> = { ["--interval"] = "interval", ["--timeout"] = "timeout" }

local function read_number(given, word, value)
  local number = tonumber(value)
  local least = word == "--timeout" and 0.001 or 0
  if not number or not (number >= least and number < 1e6) then
    return nil, ("%s needs a number of seconds, got %s"):format(word, value or "nothing")
  end
  given[NUMBERS[word]] = number
  return true
end

local function read_arguments(words)
  local given, at = { interval = 1, timeout = 5 }, 1
  while at <= #words do
    local word, value = words[at]:match "^(%-%-[%w-]+)=(.*)$"
    word = word or words[at]
    if word == "--help" or word == "-h" then return { help = true } end
    if word == "--once" then
      given.once = true
    elseif NUMBERS[word] then
      if not value then at, value = at + 1, words[at + 1] end
      local ok, problem = read_number(given, word, value)
      if not ok then return nil, problem end
    elseif word:sub(1, 1) == "-" or given.url then
      return nil, "unknown argument " .. word
    else
      given.url = word
    end
    at = at + 1
  end
  if not given.url then return nil, "a URL is needed" end
  if given.interval == 0 and not given.once then return nil, "--interval 0 goes with --once" end
  return given
end

-- ---- output ----

-- False once nobody reads any more.
local function write(text)
  return terminal.write(STANDARD_OUTPUT, text) == true
end

-- The screen that is drawn again: another one than that of the shell, which comes back; no cursor; rows that are too
-- long are cut.
local OPEN <const>, CLOSE <const> = "\27[?1049h\27[?25l\27[?7l", "\27[?7h\27[?25h\27[?1049l"

local screen_metatable = { __close = function() write(CLOSE) end }

local function open_screen()
  write(OPEN)
  return setmetatable({}, screen_metatable)
end

local function draw(lines, rows)
  local shown = table.concat(lines, "\27[K\r\n", 1, math.min(#lines, rows))
  return write("\27[H" .. shown .. "\27[K\27[J")
end

local function size_of_screen()
  local columns, rows = terminal.size(STANDARD_OUTPUT)
  return columns or DEFAULT_COLUMNS, rows or DEFAULT_ROWS
end

local function can_draw()
  local kind = settings_of.get "TERM"
  return terminal.isatty(STANDARD_OUTPUT) and kind ~= nil and kind ~= "dumb"
end

-- ---- looking ----

-- The figures stay as they were while there are no new ones, with a note of why.
local function look(state)
  local reading, err = state.source:read()
  if not reading then
    state.note = tostring(err)
    return nil, err
  end
  state.note = nil
  state.figures = figures.of(reading, state.reading)
  state.reading = reading
  return true
end

local function lines_of(state, width, color)
  return view.lines(state.figures, { url = state.url, width = width, color = color, note = state.note })
end

-- Until the next look is due; true as soon as the screen has another size.
local function wait_for_change(columns, rows, due)
  while task.now() < due do
    task.sleep(math.min(LOOK_AT_SIZE, due - task.now()))
    local now_columns, now_rows = size_of_screen()
    if now_columns ~= columns or now_rows ~= rows then return true end
  end
  return false
end

local function show_on_terminal(state)
  local color = settings_of.get "NO_COLOR" == nil
  local screen <close> = open_screen() -- luacheck: ignore
  local due = task.now() + state.interval
  while true do
    local columns, rows = size_of_screen()
    -- the last column stays free: what is erased behind a line begins at its last character where that is full
    if not draw(lines_of(state, columns - 1, color), rows) then return 1 end
    if not wait_for_change(columns, rows, due) then
      look(state)
      due = task.now() + state.interval
    end
  end
end

local function print_once(state)
  local text = table.concat(lines_of(state, PLAIN_COLUMNS, false), "\n"):gsub("[ ]+%f[\n\0]", "")
  return write(text .. "\n")
end

local function show_as_text(state)
  while print_once(state) do
    task.sleep(state.interval)
    look(state)
    if not write("\n") then break end
  end
  return 1
end

local function show_once(state)
  if state.interval > 0 then
    task.sleep(state.interval)
    local ok, err = look(state)
    if not ok then return nil, err end
  end
  return print_once(state) and 0 or 1
end

local function fail(err)
  io.stderr:write("sluice top: ", tostring(err), "\n")
  return 1
end

local function run(given)
  local source = sources.new(given.url, { timeout = given.timeout, key = settings_of.get "SLUICE_TOP_KEY" })
  if not source then return nil, ("%s is no http or https URL"):format(given.url) end
  local state = { source = source, url = source.metrics_url, interval = given.interval }
  local ok, err = look(state)
  if not ok then return fail(err) end
  if not given.once then return (can_draw() and show_on_terminal or show_as_text)(state) end
  local status, failure = show_once(state)
  return status or fail(failure)
end

local function bad_usage(problem)
  io.stderr:write("sluice top: ", problem, "\nsluice top --help lists the arguments\n")
  return 2
end

---Runs the command. Waits until it is stopped, or has looked once.
---@param words string[] what follows `top`
---@return integer status 0 done, 1 nothing can be read there, 2 bad usage
function command.run(words)
  local given, problem = read_arguments(words)
  if not given then return bad_usage(problem) end
  if given.help then
    io.stdout:write(USAGE)
    return 0
  end
  local status
  status, problem = run(given)
  return status or bad_usage(problem)
end

return command
