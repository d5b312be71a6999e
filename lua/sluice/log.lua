-- SPDX-License-Identifier: MIT
-- Log lines: JSON, or plain ones for a terminal; to standard error or a file; without secrets, without waiting.

local core = require "sluice.core.task"
local line = require "sluice.log.line"
local options = require "sluice.options"
local place = require "sluice.log.place"

local get_local, set_local = core.get_local, core.set_local
local loaded, to_json = package.loaded, line.json

local log = {}

local LEVELS = { debug = 1, info = 2, warn = 3, error = 4, off = 5 }

-- What the fields of a task are kept under.
local LOCAL <const> = "log"

local threshold -- a number of LEVELS; read from SLUICE_LOG at the first use

local shares = {} -- of the events that are sampled: { share =, due =, left_out =, told = }

local taker -- what log.set_output was given

---Sets the least level that is written. The default is SLUICE_LOG, or `info`.
---@param level "debug"|"info"|"warn"|"error"|"off"
function log.set_level(level)
  if not LEVELS[level] then
    local wrong = tostring(level)
    options.misuse('log.set_level: unknown level "%s"%s', wrong, options.hint(wrong, LEVELS))
  end
  threshold = LEVELS[level]
end

---Gives the lines, as JSON, to a function instead of writing them; nil has them written again.
---@param writer? fun(line: string) gets a whole line with its newline; must not wait
---@return fun(line: string)? previous
function log.set_output(writer)
  options.argument("log.set_output", "writer", writer, "callable?")
  local previous = taker
  taker = writer
  return previous
end

---Appends the lines to a file from now on, which is opened anew when it was moved away or removed, and on SIGHUP in
---the program `sluice`; nil brings them back to where they went before. The setting SLUICE_LOG_FILE does the same.
---@param path? string
---@return boolean|nil done
---@return sluice.Error? err kind FileError
function log.to_file(path)
  options.argument("log.to_file", "path", path, "string?")
  return place.set_path(path)
end

local function is_enabled(level)
  if not threshold then
    local wanted = require("sluice.settings").get("SLUICE_LOG")
    threshold = LEVELS[wanted] or LEVELS.info
  end
  return LEVELS[level] >= threshold
end

---Whether lines of this level are written: to save the work of collecting fields.
---@param level "debug"|"info"|"warn"|"error"
---@return boolean
function log.is_enabled(level)
  return is_enabled(level)
end

---Writes a share of an event's lines only. Lines of level error are always written. The next line that is written
---says in `sampled_out` how many were left out before it; see log.stats for all.
---@param event string
---@param share number? 0 to 1; nil: all of them again
function log.sample(event, share)
  options.argument("log.sample", "event", event, "string")
  options.argument("log.sample", "share", share, "number?")
  if share and not (share >= 0 and share <= 1) then
    options.misuse('log.sample: argument "share" must be 0 to 1, got %s', tostring(share))
  end
  local left_out = shares[event] and shares[event].left_out or 0
  local due = share and share > 0 and 1 - share or 0
  shares[event] = share and { share = share, due = due, left_out = left_out, told = left_out }
end

-- The first line of an event is written, then each in its turn: the share is kept exactly, and needs no luck.
local function is_left_out(sampled)
  sampled.due = sampled.due + sampled.share
  if sampled.due >= 1 then
    sampled.due = sampled.due - 1
    return false
  end
  sampled.left_out = sampled.left_out + 1
  return true
end

-- A progress bar is taken off the screen meanwhile. nil: the place is gone with its instance.
local function put(sink, text)
  local progress = loaded["sluice.progress"]
  local resume = progress and progress.suspend()
  local done = true
  if sink then done = sink:push(text) else place.to_host(text) end
  if resume then resume() end
  return done
end

local function write(level, event, fields, base)
  local sink, is_plain, with_color, problem = place.current()
  if problem then write("warn", "the log file cannot be opened", { error = problem }) end
  local text
  if is_plain then
    text = require("sluice.log.plain").line(level, event, fields, base, with_color)
  else
    text = to_json(level, event, fields, base)
  end
  if put(sink, text) == nil then
    place.forget()
    put(false, text)
  end
end

-- The fields of the task and of a logger, in one table that stays the same.
local merged_bases = setmetatable({}, { __mode = "k" })

local function base_of(bound, kept)
  local known = merged_bases[bound]
  if not known then
    known = setmetatable({}, { __mode = "k" })
    merged_bases[bound] = known
  end
  local all = known[kept]
  if not all then
    all = line.merged(bound, kept)
    known[kept] = all
  end
  return all
end

local function emit(level, event, fields, kept)
  if fields ~= nil and type(fields) ~= "table" then
    options.argument("log." .. level, "fields", fields, "table?")
  end
  if not is_enabled(level) then return end
  local sampled = shares[event]
  if sampled and level ~= "error" then
    if is_left_out(sampled) then return end
    if sampled.left_out > sampled.told then
      fields = line.merged(fields, { sampled_out = sampled.left_out - sampled.told })
      sampled.told = sampled.left_out
    end
  end
  local base = get_local(LOCAL)
  if kept then base = base and base_of(base, kept) or kept end
  if taker then return taker(to_json(level, event, fields, base)) end
  write(level, event, fields, base)
end

---Writes a line of level debug. Does not wait.
---@param event string what happened, a fixed text: what varies goes into the fields
---@param fields? table an err is shown as its parts, a secret as `***`
function log.debug(event, fields) emit("debug", event, fields) end

---Writes a line of level info. Does not wait.
---@param event string see log.debug
---@param fields? table
function log.info(event, fields) emit("info", event, fields) end

---Writes a line of level warn. Does not wait.
---@param event string see log.debug
---@param fields? table
function log.warn(event, fields) emit("warn", event, fields) end

---Writes a line of level error. Does not wait.
---@param event string see log.debug
---@param fields? table
function log.error(event, fields) emit("error", event, fields) end

---A logger whose every line has these fields.
---@param fields table
---@return { debug: fun(event: string, fields?: table), info: fun(event: string, fields?: table), warn: fun(event: string, fields?: table), error: fun(event: string, fields?: table) }
function log.with(fields)
  options.argument("log.with", "fields", fields, "table")
  local kept, logger = line.merged(fields), {}
  for _, level in ipairs { "debug", "info", "warn", "error" } do
    logger[level] = function(event, more) emit(level, event, more, kept) end
  end
  return logger
end

local unbind = { __name = "sluice.log.bound", __close = function(self) set_local(LOCAL, self.before) end }

---Adds fields to every line that this task writes from now on, and the tasks that it spawns: the id of a request, set
---in a handler. They hold until the task ends, or where `local _ <close> = log.bind{...}` goes out of scope.
---@param fields table
---@return table bound a `<close>` value: has the fields as they were before
function log.bind(fields)
  options.argument("log.bind", "fields", fields, "table")
  local before = get_local(LOCAL)
  set_local(LOCAL, line.merged(before, fields))
  return setmetatable({ before = before }, unbind)
end

---Waits until the lines so far are written, or lost.
function log.flush() place.flush() end

---What became of lines that are not in the log (yet): `queued` wait to be written, `dropped` found no room because
---what is written to is slow, `failed` could not be written, `sampled_out` by event.
---@return { queued: integer, dropped: integer, failed: integer, sampled_out: table<string, integer> }
function log.stats()
  local queued, dropped, failed = place.counts()
  local sampled_out = {}
  for event, sampled in next, shares do sampled_out[event] = sampled.left_out end
  return { queued = queued, dropped = dropped, failed = failed, sampled_out = sampled_out }
end

return setmetatable(log, { __index = options.strict("sluice.log", log) })
