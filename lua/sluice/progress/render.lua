-- SPDX-License-Identifier: MIT
-- What a progress bar looks like: from figures to one line of text. Pure, so that it can be checked and reused.

local render = {}

---@class sluice.ProgressState
---@field label? string
---@field unit? string what is counted: "rows"
---@field total? number nil when it is unknown
---@field done number
---@field initial? number how much of `done` was there before the start
---@field ok? number
---@field failed? number
---@field fields? { [1]: string, [2]: string }[] more to show, as name and text, the most important first
---@field started number in seconds, of the same clock as `now`
---@field rate? number units per second just now; nil: the average since the start
---@field closed? boolean whether this is the last line
---@field text? string of a status line: shown instead of all figures but the time

---@class sluice.ProgressStyle
---@field unicode? boolean whether the terminal shows UTF-8
---@field color? boolean

local MIN_BAR <const> = 10 -- cells; a shorter bar tells less than the figures it would push out
local MAX_BAR <const> = 40 -- cells; a longer one only moves the figures away from the label

local RED <const>, GREEN <const>, RESET <const> = "\27[31m", "\27[32m", "\27[0m"

-- Eighths of a cell, from one to seven.
local EIGHTHS <const> = { "▏", "▎", "▍", "▌", "▋", "▊", "▉" }

-- First and last code points of characters that take two cells (East Asian wide, emoji), then none.
local WIDE <const> = {
  { 0x1100, 0x115F }, { 0x2E80, 0xA4CF }, { 0xAC00, 0xD7A3 }, { 0xF900, 0xFAFF }, { 0xFE30, 0xFE6F },
  { 0xFF00, 0xFF60 }, { 0xFFE0, 0xFFE6 }, { 0x1F300, 0x1F64F }, { 0x1F680, 0x1F6FF }, { 0x1F900, 0x1FAFF },
  { 0x20000, 0x3FFFD },
}
local EMPTY <const> = { { 0x0300, 0x036F }, { 0x200B, 0x200F }, { 0x20D0, 0x20FF }, { 0xFE00, 0xFE0F } }

local function is_within(code, ranges)
  for _, range in ipairs(ranges) do
    if code >= range[1] and code <= range[2] then return true end
  end
  return false
end

local function cells_of(code)
  if code < 0x300 then return 1 end
  return is_within(code, EMPTY) and 0 or is_within(code, WIDE) and 2 or 1
end

---How many cells of a terminal a text takes; for bytes that are no UTF-8, one each.
---@param text string
---@return integer
function render.width(text)
  if not utf8.len(text) then return #text end
  local width = 0
  for _, code in utf8.codes(text) do width = width + cells_of(code) end
  return width
end

---A text that fits into so many cells, cut at the end of a character.
---@param text string
---@param cells integer
---@return string
function render.cut(text, cells)
  if not utf8.len(text) then return text:sub(1, math.max(cells, 0)) end
  local width = 0
  for at, code in utf8.codes(text) do
    width = width + cells_of(code)
    if width > cells then return text:sub(1, at - 1) end
  end
  return text
end

---A text without what could move the cursor or colour the rest: control characters become spaces. Where it is no
---UTF-8, each byte above ASCII becomes a question mark, so that its width is known.
---@param text string
---@return string
function render.plain(text)
  text = text:gsub("%c+", " ")
  if not utf8.len(text) then return (text:gsub("[\x80-\xFF]", "?")) end
  return (text:gsub("\xC2[\x80-\x9F]", " ")) -- U+0080 to U+009F: some terminals obey these too
end

---Seconds as a clock shows them: 0:07, 12:34, 1:02:03.
---@param seconds number
---@return string
function render.duration(seconds)
  if seconds ~= seconds or seconds >= 360000 then return "-:--" end -- 100 hours and more tell nothing
  local whole = math.floor(seconds + 0.5)
  local hours, minutes = whole // 3600, whole // 60 % 60
  if hours > 0 then return ("%d:%02d:%02d"):format(hours, minutes, whole % 60) end
  return ("%d:%02d"):format(minutes, whole % 60)
end

local function number(value)
  local whole = math.tointeger(value)
  return whole and ("%d"):format(whole) or ("%.1f"):format(value)
end

local function with_unit(text, unit)
  return unit and text .. " " .. unit or text
end

local function speed(rate, unit)
  local per = "s"
  if rate > 0 and rate < 0.1 then rate, per = rate * 60, "min" end
  local format = rate >= 100 and "%.0f" or rate >= 10 and "%.1f" or "%.2f"
  return with_unit(format:format(rate), unit) .. "/" .. per
end

local function share(state)
  if state.total <= 0 then return 1 end
  return math.max(0, math.min(state.done / state.total, 1))
end

local function elapsed(state, now)
  return math.max(now - state.started, 0)
end

local function rate_of(state, now)
  if state.rate and not state.closed then return state.rate end
  local seconds = elapsed(state, now)
  return seconds > 0 and (state.done - (state.initial or 0)) / seconds or nil
end

---The seconds that are left at this rate; nil when nobody can know.
---@param state sluice.ProgressState
---@param now number
---@return number?
function render.remaining(state, now)
  local rate = rate_of(state, now)
  if not state.total then return nil end
  if state.done >= state.total then return 0 end
  return rate and rate > 0 and (state.total - state.done) / rate or nil
end

-- `rank` is the order in which pieces leave a line that is too narrow, the highest first. From EXTRA on they
-- leave for the bar's sake too.
local EXTRA <const> = 6

local function piece(text, rank, color)
  return { text = text, rank = rank, color = color, width = render.width(text) }
end

local function time_text(state, now)
  if state.closed then return "in " .. render.duration(elapsed(state, now)) end
  if not state.total then return render.duration(elapsed(state, now)) end
  local left = render.remaining(state, now)
  return "ETA " .. (left and render.duration(left) or "-:--")
end

local function count_text(state)
  local done = number(state.done)
  return with_unit(state.total and done .. "/" .. number(state.total) or done, state.unit)
end

-- The pieces of a line in their order; the bar comes later, from the room that is left.
local function pieces_of(state, now)
  local pieces = {}
  local function add(...) pieces[#pieces + 1] = piece(...) end
  if state.label then add(state.label, 1) end
  -- rounded down: 100 % is said when all is done
  if state.total then add(("%3d%%"):format(math.floor(share(state) * 100)), 0) end
  add(count_text(state), 2)
  local rate = rate_of(state, now)
  if rate then add(speed(rate, state.unit), EXTRA) end
  add(time_text(state, now), 4)
  if state.ok then add("ok " .. number(state.ok), 5) end
  if state.failed then add("failed " .. number(state.failed), 3, state.failed > 0 and RED or nil) end
  for index, field in ipairs(state.fields or {}) do add(field[1] .. " " .. field[2], EXTRA + index) end
  return pieces
end

local function total_width(pieces)
  local width = math.max(#pieces - 1, 0)
  for _, one in ipairs(pieces) do width = width + one.width end
  return width
end

-- Drops the least important piece, if its rank is at least `rank`.
local function drop_one(pieces, rank)
  local least
  for index, one in ipairs(pieces) do
    if one.rank >= rank and (not least or one.rank >= pieces[least].rank) then least = index end
  end
  if least then table.remove(pieces, least) end
  return least ~= nil
end

-- Drops pieces until the rest fits; the last one is cut.
local function fit(pieces, room)
  while total_width(pieces) > room and #pieces > 2 do drop_one(pieces, 0) end
  local over = total_width(pieces) - room
  if over <= 0 then return pieces end
  if #pieces == 2 and pieces[1].width <= over then drop_one(pieces, 1) end
  local first = pieces[1]
  first.text = render.cut(first.text, first.width - total_width(pieces) + room)
  first.width = render.width(first.text)
  return pieces
end

local function ascii_bar(filled, cells)
  local whole = math.floor(filled * cells)
  return "[" .. ("#"):rep(whole) .. ("-"):rep(cells - whole) .. "]"
end

local function unicode_bar(filled, cells)
  local eighths = math.floor(filled * cells * 8)
  local whole, rest = eighths // 8, EIGHTHS[eighths % 8] or ""
  local blank = cells - whole - (rest == "" and 0 or 1)
  return "│" .. ("█"):rep(whole) .. rest .. (" "):rep(blank) .. "│"
end

-- The pieces with a bar between them, at the cost of the extras; nil when there is no room for one.
local function with_bar(pieces, state, room, style)
  if not state.total then return nil end
  pieces = table.move(pieces, 1, #pieces, 1, {})
  local function cells() return room - total_width(pieces) - 3 end -- its two ends and a space
  local dropped = true
  while cells() < MIN_BAR and dropped do dropped = drop_one(pieces, EXTRA) end
  if cells() < MIN_BAR then return nil end
  local draw = style.unicode and unicode_bar or ascii_bar
  local at = state.label and 3 or 2 -- after the label and the percentage
  table.insert(pieces, at, piece(draw(share(state), math.min(cells(), MAX_BAR)), 0, GREEN))
  return pieces
end

local function status_text(state)
  return state.label and state.label .. ": " .. state.text or state.text
end

-- The text is cut before the time is.
local function status_line(state, columns, now)
  local time = " " .. time_text(state, now)
  return render.cut(render.cut(status_text(state), columns - render.width(time)) .. time, columns)
end

---One line for a terminal, without its end; never wider than `columns`.
---@param state sluice.ProgressState
---@param columns integer
---@param now number in seconds
---@param style sluice.ProgressStyle
---@return string
function render.line(state, columns, now, style)
  if state.text then return status_line(state, columns, now) end
  local pieces, texts = pieces_of(state, now), {}
  if state.label and total_width(pieces) > columns then -- a long label must not push out the figures
    pieces[1] = piece(render.cut(state.label, math.max(columns // 3, 8)), 1)
  end
  pieces = with_bar(pieces, state, columns, style) or fit(pieces, columns)
  for index, one in ipairs(pieces) do
    texts[index] = style.color and one.color and one.color .. one.text .. RESET or one.text
  end
  return table.concat(texts, " ")
end

---One line for a file or a pipe, without its end: all that is known, none of it drawn.
---@param state sluice.ProgressState
---@param now number in seconds
---@return string
function render.plain_line(state, now)
  if state.text then return status_text(state) .. ", " .. time_text(state, now) end
  local parts = { count_text(state) }
  if state.total then parts[1] = ("%s (%d%%)"):format(parts[1], math.floor(share(state) * 100)) end
  local rate = rate_of(state, now)
  if rate then parts[#parts + 1] = speed(rate, state.unit) end
  parts[#parts + 1] = time_text(state, now)
  if state.ok then parts[#parts + 1] = "ok " .. number(state.ok) end
  if state.failed then parts[#parts + 1] = "failed " .. number(state.failed) end
  for _, field in ipairs(state.fields or {}) do parts[#parts + 1] = field[1] .. " " .. field[2] end
  return (state.label and state.label .. ": " or "") .. table.concat(parts, ", ")
end

return render
