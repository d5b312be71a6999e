-- SPDX-License-Identifier: MIT
-- Fields to a line for people: when, how bad, what, and name=value.

local core = require "sluice.core.task"
local errors = require "sluice.errors"
local line = require "sluice.log.line"
local secret = require "sluice.secret"
local utc = require("sluice.core.system").utc

local plain = {}

local NAMES <const> = { debug = "DEBUG", info = "INFO ", warn = "WARN ", error = "ERROR" }
local COLORS <const> = { debug = "\27[2m", info = "\27[32m", warn = "\27[33m", error = "\27[31m" }
local DIM <const>, BOLD <const>, RESET <const> = "\27[2m", "\27[1m", "\27[0m"

-- Bytes of the fields of a line, as of one of JSON.
local LONGEST <const> = 65536

-- What a terminal might obey rather than show; JSON has escaped what is below a space.
local function harmless(text)
  text = text:gsub("\127", "\\u007f")
  return (text:gsub("\xC2([\x80-\x9F])", function(last) return ("\\u%04x"):format(last:byte()) end))
end

local function word(value)
  if errors.is(value) or secret.is(value) then value = tostring(value) end
  if type(value) == "string" and value:find '^[%w_.:/@+,*-]+$' and #value <= 1000 then return value end
  return harmless(line.value(value))
end

local function paint(color, text, with_color)
  return with_color and color .. text .. RESET or text
end

local function sorted(fields)
  local names = {}
  for name in next, fields do names[#names + 1] = type(name) == "string" and name or nil end
  table.sort(names)
  return names
end

---A line with its newline.
---@param level string
---@param event any
---@param fields table?
---@param base table? more fields; those of `fields` go before
---@param with_color boolean
---@return string
function plain.line(level, event, fields, base, with_color)
  local all = base and line.merged(base, fields) or fields or {}
  local text = line.event(event)
  if text:find "[%c\128-\255]" then text = word(text) end
  local parts = {
    paint(DIM, utc(core.wall()):sub(12, 23), with_color), paint(COLORS[level], NAMES[level], with_color),
    paint(BOLD, text, with_color) .. " ",
  }
  local left = LONGEST
  for _, name in ipairs(sorted(all)) do
    local part = paint(DIM, word(name) .. "=", with_color)
      .. (line.is_shown(name) and word(all[name]) or "***")
    left = left - #part - 1
    parts[#parts + 1] = left >= 0 and part or paint(DIM, "cut=", with_color) .. "true"
    if left < 0 then break end
  end
  local whole = table.concat(parts, " "):gsub(" +$", "")
  return line.masked(whole) .. "\n"
end

return plain
