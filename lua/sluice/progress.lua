-- SPDX-License-Identifier: MIT
-- How far a long piece of work is: a bar on a terminal, plain lines elsewhere, always on standard error.
--
-- On a terminal the bars are the last rows on the screen, and between two redraws the cursor rests at the start of
-- the first of them. So whatever the terminal does with a row that is too long when it is resized, "erase from the
-- cursor to the end" removes the whole bar and nothing else.

local options = require "sluice.options"
local render = require "sluice.progress.render"
local secret = require "sluice.secret"
local settings = require "sluice.settings"
local task = require "sluice.task"

local progress = {}

local STANDARD_ERROR <const> = 2
local REDRAW_INTERVAL <const> = 0.1 -- seconds: faster than that nobody reads
local LINE_INTERVAL <const> = 10 -- seconds between two lines in a log file
local TENTH_INTERVAL <const> = 1 -- seconds that a line for a tenth of the work keeps from the one before
local SAMPLE_INTERVAL <const> = 0.1 -- seconds: adds that come closer are one sample of the rate
local SMOOTHING <const> = 0.3 -- the weight of the newest sample: the rate follows within about five samples
local DEFAULT_COLUMNS <const>, DEFAULT_ROWS <const> = 80, 24 -- where a terminal does not know its size

local ERASE <const> = "\r\27[J"

---Where a bar is shown.
---@class sluice.ProgressOutput
---@field write fun(bytes: string) gets each redraw in one piece; must not wait
---@field show? fun(above: string, rows: string[]) instead of write, of a screen that lays out itself: a text that stays above, and the rows as they are now; needs `size`
---@field size? fun(): integer?, integer? columns and rows of the terminal as it is now; without it plain lines are written
---@field unicode? boolean
---@field color? boolean

---@class sluice.ProgressBar
local methods = {}
local metatable = { __name = "sluice.progress.bar", __index = methods }

-- An area is the rows of one output: { output, bars (and status lines), is_drawn, drawn_at, suspended }.
local areas = setmetatable({}, { __mode = "k" })

local function area_of(output)
  local area = areas[output]
  if not area then
    area = { output = output, bars = {}, is_drawn = false, drawn_at = -math.huge, suspended = 0 }
    areas[output] = area
  end
  return area
end

local function speaks_utf8()
  local locale = settings.get("LC_ALL") or settings.get("LC_CTYPE") or settings.get("LANG") or ""
  return tostring(locale):upper():gsub("-", ""):find("UTF8", 1, true) ~= nil
end

local standard_output -- made at the first use

local function standard_error()
  if standard_output then return standard_output end
  local terminal = require "sluice.core.terminal"
  local kind = settings.get("TERM")
  local can_draw = terminal.isatty(STANDARD_ERROR) and kind ~= nil and kind ~= "dumb"
  standard_output = {
    write = function(bytes) terminal.write(STANDARD_ERROR, bytes) end,
    size = can_draw and function() return terminal.size(STANDARD_ERROR) end or nil,
    unicode = speaks_utf8(),
    color = settings.get("NO_COLOR") == nil,
  }
  return standard_output
end

-- ---- drawing ----

-- The rows of an area as they are now; none while it is suspended.
local function rows_of(area, now)
  area.is_drawn = area.suspended == 0 and #area.bars > 0
  if not area.is_drawn then return {} end
  area.drawn_at = now
  local columns, rows = area.output.size()
  -- the last column stays free: some terminals wrap as soon as it is written
  columns = (columns or DEFAULT_COLUMNS) - 1
  local lines = {}
  for index = 1, math.min(#area.bars, math.max((rows or DEFAULT_ROWS) - 1, 1)) do
    lines[index] = render.line(area.bars[index]._state, columns, now, area.output)
  end
  return lines
end

-- The bytes that show all bars of an area, from a cursor at its start and back to it.
local function drawing(area, now)
  local lines = rows_of(area, now)
  if #lines == 0 then return "" end
  local up = #lines > 1 and ("\27[%dA"):format(#lines - 1) or ""
  -- over what is there, and only the rest erased: a bar that is erased first flickers
  return "\r" .. table.concat(lines, "\27[K\r\n") .. "\27[J" .. up .. "\r"
end

-- Puts text above the bars, in one write with the redraw.
local function write_above(area, text, now)
  if area.output.show then
    area.output.show(text, rows_of(area, now))
    return
  end
  local erase = area.is_drawn and ERASE or ""
  area.output.write(erase .. text .. drawing(area, now))
end

local function redraw(area, now)
  if area.output.show then
    area.output.show("", rows_of(area, now))
  else
    area.output.write(drawing(area, now))
  end
end

-- ---- figures ----

-- The rate is the quotient of two smoothed series (units and seconds of each sample), so that samples of unequal
-- length weigh what they should.
local function sample(bar, now)
  local state = bar._state
  local seconds, units = now - bar._sampled_at, state.done - bar._sampled_done
  if seconds < SAMPLE_INTERVAL then return end
  bar._sampled_at, bar._sampled_done = now, state.done
  if units < 0 then
    bar._seconds, bar._units, state.rate = nil, nil, nil
    return
  end
  bar._seconds = SMOOTHING * seconds + (1 - SMOOTHING) * (bar._seconds or seconds)
  bar._units = SMOOTHING * units + (1 - SMOOTHING) * (bar._units or units)
  state.rate = bar._units / bar._seconds
end

local function tenth(state)
  return state.total and state.total > 0 and math.floor(state.done / state.total * 10) or 0
end

local function is_line_due(bar, now)
  local since = now - bar._written_at
  if since >= (bar._interval or LINE_INTERVAL) then return true end
  return not bar._interval and since >= TENTH_INTERVAL and tenth(bar._state) > bar._written_tenth
end

local function write_line(bar, now)
  bar._written_at, bar._written_tenth = now, tenth(bar._state)
  bar._area.output.write(render.plain_line(bar._state, now) .. "\n")
end

local function refresh(bar)
  local now, area = task.now(), bar._area
  sample(bar, now)
  if not area.output.size then
    if is_line_due(bar, now) then write_line(bar, now) end
  elseif now - area.drawn_at >= (bar._interval or REDRAW_INTERVAL) and area.suspended == 0 then
    redraw(area, now)
  end
end

-- ---- the public names ----

---@class sluice.ProgressOptions
---@field total? number nil when it is unknown: then a count and a rate are shown
---@field label? string
---@field unit? string what is counted: "rows"
---@field done? number was done before, and does not count for the rate; default 0
---@field interval? number least seconds between two redraws (default 0.1) or lines (default 10, and at each tenth)
---@field output? sluice.ProgressOutput instead of standard error
local BAR_OPTIONS <const> = {
  total = "number?",
  done = "number?",
  label = "string?",
  unit = "string?",
  interval = "seconds?",
  output = "table?",
}

local function clean(text)
  return render.plain(secret.mask(tostring(text)))
end

local function new_state(given, now)
  return {
    label = given.label and clean(given.label),
    unit = given.unit and clean(given.unit),
    total = given.total,
    done = given.done or 0,
    initial = given.done or 0,
    fields = {},
    started = now,
  }
end

---A bar for work of `total` units. Close it, best as `local bar <close> =`, so that a last line stays and other
---output is free again. Never waits.
---@param given? sluice.ProgressOptions
---@return sluice.ProgressBar
function progress.bar(given)
  given = options.check("progress.bar", given, BAR_OPTIONS)
  local now = task.now()
  local area = area_of(given.output or standard_error())
  local bar = setmetatable({ _area = area, _state = new_state(given, now) }, metatable)
  bar._interval = given.interval
  bar._sampled_at, bar._sampled_done = now, bar._state.done
  bar._written_at, bar._written_tenth = now, tenth(bar._state)
  if area.output.size then
    area.bars[#area.bars + 1] = bar
    redraw(area, now)
  end
  return bar
end

---Counts n more units as done. Never waits.
---@param n? number default 1
function methods:add(n)
  options.argument("bar:add", "n", n, "number?")
  if self._state.closed then return end
  self._state.done = self._state.done + (n or 1)
  refresh(self)
end

local NUMBERS <const> = { done = true, total = true, ok = true, failed = true }
local TEXTS <const> = { label = true, unit = true }

local function check_field(name, value)
  local wanted
  if type(name) ~= "string" then
    options.misuse("bar:set: fields are given by name, got a value at [%s]", tostring(name))
  elseif NUMBERS[name] then
    wanted = type(value) ~= "number" and "a number" or nil
  elseif TEXTS[name] then
    wanted = type(value) ~= "string" and "a string" or nil
  elseif value ~= false and type(value) ~= "string" and type(value) ~= "number" then
    wanted = "a string, a number, or false to remove it"
  end
  if wanted then
    options.misuse('bar:set: "%s" must be %s, got %s', name, wanted, options.type_name(value))
  end
end

local function set_field(fields, name, value)
  name = clean(name)
  for index, field in ipairs(fields) do
    if field[1] == name then
      if value then field[2] = clean(value) else table.remove(fields, index) end
      return
    end
  end
  if value then fields[#fields + 1] = { name, clean(value) } end
end

---Sets figures (`done`, `total`, `ok`, `failed`), `label`, `unit`, or any other name to a text shown beside them;
---false removes such a text. Never waits.
---@param given table<string, number|string|false>
function methods:set(given)
  options.argument("bar:set", "fields", given, "table")
  local names = {}
  for name, value in pairs(given) do
    check_field(name, value)
    names[#names + 1] = name
  end
  if self._state.closed then return end
  table.sort(names)
  for _, name in ipairs(names) do
    local value = given[name]
    if NUMBERS[name] then
      self._state[name] = value
    elseif TEXTS[name] then
      self._state[name] = clean(value)
    else
      set_field(self._state.fields, name, value)
    end
  end
  refresh(self)
end

-- Leaves the last line of a bar or a status above the rest.
local function take_off(bar, now)
  local area = bar._area
  for index, each in ipairs(area.bars) do
    if each == bar then table.remove(area.bars, index) end
  end
  local columns = area.output.size() or DEFAULT_COLUMNS
  write_above(area, render.line(bar._state, columns - 1, now, area.output) .. "\r\n", now)
end

---Leaves a last line, with the whole time and the average rate. Later calls of the bar do nothing. Idempotent, never
---waits.
function methods:close()
  local state, area, now = self._state, self._area, task.now()
  if state.closed then return end
  state.closed = true
  if not area.output.size then
    write_line(self, now)
    return
  end
  take_off(self, now)
end

function metatable.__close(bar)
  bar:close()
end

function metatable.__tostring(bar)
  return "sluice.progress.bar: " .. render.plain_line(bar._state, task.now())
end

---@class sluice.ProgressStatus
local status_methods = {}
local status_metatable = { __name = "sluice.progress.status", __index = status_methods }

---@class sluice.ProgressStatusOptions
---@field label? string
---@field output? sluice.ProgressOutput instead of standard error
local STATUS_OPTIONS <const> = { label = "string?", output = "table?" }

---A line that says how something stands, with the time since it began: on a terminal a row below the output, as a bar
---is; elsewhere a line each time the text changes. Close it. Never waits.
---@param given? sluice.ProgressStatusOptions
---@return sluice.ProgressStatus
function progress.status(given)
  given = options.check("progress.status", given, STATUS_OPTIONS)
  local area = area_of(given.output or standard_error())
  local state = new_state(given, task.now())
  state.text = ""
  local status = setmetatable({ _area = area, _state = state }, status_metatable)
  if area.output.size then area.bars[#area.bars + 1] = status end
  return status
end

---Sets the text. Without one the row of a terminal is drawn again, for the time on it. Never waits.
---@param text? string
function status_methods:set(text)
  options.argument("status:set", "text", text, "string?")
  local state, area, now = self._state, self._area, task.now()
  if state.closed then return end
  local before = state.text
  if text then state.text = clean(text) end
  if area.output.size then
    redraw(area, now)
  elseif state.text ~= before then
    area.output.write(render.plain_line(state, now) .. "\n")
  end
end

---Leaves the last text and the whole time on a terminal. Later calls do nothing. Idempotent, never waits.
function status_methods:close()
  if self._state.closed then return end
  self._state.closed = true
  if self._area.output.size then take_off(self, task.now()) end
end

function status_metatable.__close(status)
  status:close()
end

function status_metatable.__tostring(status)
  return "sluice.progress.status: " .. render.plain_line(status._state, task.now())
end

---Has the bars that name no output shown elsewhere than on standard error, for programs that own the screen;
---nil brings standard error back. Bars that are shown stay where they are.
---@param output? sluice.ProgressOutput
function progress.set_output(output)
  options.argument("progress.set_output", "output", output, "table?")
  standard_output = output
end

---Writes a line, or several, to standard error: above the bars, if there are any. Never waits.
---@param text string a line end is added where it has none
function progress.write(text)
  options.argument("progress.write", "text", text, "string")
  local area = area_of(standard_error())
  if text:sub(-1) ~= "\n" then text = text .. "\n" end
  write_above(area, text, #area.bars > 0 and task.now() or 0)
end

-- A screen that lays out itself keeps others' output and the bars apart.
local function suspend_area(area)
  if area.output.show then return end
  area.suspended = area.suspended + 1
  if area.is_drawn then
    area.is_drawn = false
    area.output.write(ERASE)
  end
end

local function resume_area(area)
  if area.output.show then return end
  area.suspended = area.suspended - 1
  if area.suspended == 0 and #area.bars > 0 then area.output.write(drawing(area, task.now())) end
end

---Takes all bars off the screen, so that others may write or read there. They come back when the returned function
---is called; where several suspended, when the last one resumes.
---@return fun() resume idempotent
function progress.suspend()
  area_of(standard_error())
  local suspended = {}
  for _, area in pairs(areas) do
    suspended[#suspended + 1] = area
    suspend_area(area)
  end
  return function()
    for index = #suspended, 1, -1 do
      resume_area(suspended[index])
      suspended[index] = nil
    end
  end
end

return progress
