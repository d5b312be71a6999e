-- SPDX-License-Identifier: MIT
-- Where log lines go: the file that a program or a setting names, else what the host has for them.

local core = require "sluice.core.task"
local errors = require "sluice.errors"
local places = require "sluice.core.log"
local settings = require "sluice.settings"

local place = {}

local path -- what log.to_file named
local sink -- the open one; false: the host takes each line itself
local is_plain, with_color = false, false

local function file_error(name, reason)
  return errors.new("FileError", { operation = "log.to_file", object = name, message = reason })
end

local function wants_color()
  local kind = settings.get "TERM"
  return settings.get "NO_COLOR" == nil and kind ~= nil and kind ~= "dumb"
end

local function use(opened)
  local format = settings.get "SLUICE_LOG_FORMAT"
  local is_terminal = opened and opened:is_terminal()
  is_plain = format == "text" or format ~= "json" and is_terminal or false
  with_color = is_plain and is_terminal and wants_color()
  if opened then opened:set_plain(is_plain) end
  sink = opened or false
end

-- A file that cannot be opened must not take the lines along: they go where the host has them.
local function open(host)
  local name, problem = path or settings.get "SLUICE_LOG_FILE", nil
  if name then
    local allowed, opened, reason = pcall(places.open, name)
    if allowed and opened then return use(opened) end
    problem = file_error(name, allowed and reason or "the host did not allow to write files")
  end
  use(host)
  return problem
end

---The open place and how lines for it look. It is opened at the first use.
---@return any sink false: the host takes each line itself
---@return boolean is_plain for people, not JSON
---@return boolean with_color
---@return sluice.Error? problem the first time after the file could not be opened
function place.current()
  local problem
  if sink == nil then
    local inside, host = pcall(places.host)
    if not inside then return false, false, false end -- no loop here: nobody takes lines
    problem = open(host)
  end
  return sink, is_plain, with_color, problem
end

---Has the place opened anew at the next line: its instance is gone.
function place.forget() sink = nil end

---Sends the lines to a file; nil: where they went before.
---@param name string?
---@return boolean|nil done
---@return sluice.Error? err kind FileError
function place.set_path(name)
  if name then
    local allowed, opened, reason = pcall(places.open, name)
    if not allowed then return nil, file_error(name, "the host did not allow to write files") end
    if not opened then return nil, file_error(name, reason) end
    if sink then sink:close() end
    path = name
    use(opened)
    return true
  end
  if sink then sink:close() end
  path, sink = nil, nil
  return true
end

---What became of the lines: those that wait to be written, that did not fit, that could not be written.
---@return integer queued
---@return integer dropped
---@return integer failed
function place.counts()
  if not sink then return 0, 0, 0 end
  local queued, dropped, failed = sink:counts()
  return queued or 0, dropped or 0, failed or 0
end

---Waits until the lines so far are written, or lost.
function place.flush()
  if sink then sink:flush() end
end

---The last way for a line, when there is no place.
---@param text string
function place.to_host(text) core.log(text) end

return place
