-- SPDX-License-Identifier: MIT
-- The rules of the WHATWG for an event stream, as they are written, for the whole of a stream at once.

local reference = {}

-- The UTF-8 decoder of the encoding standard, a byte at a time.
local function decode_utf8(bytes)
  local out, at = {}, 1
  local needed, seen, low, high, start = 0, 0, 0x80, 0xBF, 1
  while at <= #bytes do
    local byte = bytes:byte(at)
    if needed == 0 then
      start, low, high = at, 0x80, 0xBF
      if byte <= 0x7F then
        out[#out + 1] = string.char(byte)
      elseif byte >= 0xC2 and byte <= 0xDF then
        needed = 1
      elseif byte >= 0xE0 and byte <= 0xEF then
        if byte == 0xE0 then low = 0xA0 elseif byte == 0xED then high = 0x9F end
        needed = 2
      elseif byte >= 0xF0 and byte <= 0xF4 then
        if byte == 0xF0 then low = 0x90 elseif byte == 0xF4 then high = 0x8F end
        needed = 3
      else
        out[#out + 1] = "\u{FFFD}"
      end
      at = at + 1
    elseif byte < low or byte > high then
      needed, seen = 0, 0 -- the byte is looked at again
      out[#out + 1] = "\u{FFFD}"
    else
      low, high, seen, at = 0x80, 0xBF, seen + 1, at + 1
      if seen == needed then
        out[#out + 1] = bytes:sub(start, at - 1)
        needed, seen = 0, 0
      end
    end
  end
  if needed > 0 then out[#out + 1] = "\u{FFFD}" end
  return (table.concat(out):gsub("^\u{FEFF}", ""))
end

local function take_field(state, name, value)
  if name == "event" then
    state.type = value
  elseif name == "data" then
    state.data = state.data .. value .. "\n"
  elseif name == "id" then
    if not value:find("\0", 1, true) then state.id = value end
  elseif name == "retry" then
    if value:find "^[0-9]+$" then
      state.retry = math.tointeger(tonumber(value)) or math.maxinteger
      state.event_retry = state.retry
    end
  end
end

local function dispatch(state)
  state.last_event_id = state.id
  if state.data ~= "" then
    state.events[#state.events + 1] = {
      data = state.data:sub(1, -2),
      event = state.type ~= "" and state.type or nil,
      id = state.last_event_id,
      retry = state.event_retry,
    }
  end
  state.data, state.type, state.event_retry = "", "", nil
end

---All events of a stream, as sse.reader gives them but for `at`; and the last event id and retry.
---@param bytes string
---@return table[] events
---@return string? last_event_id
---@return integer? retry
function reference.read(bytes)
  local text = decode_utf8(bytes)
  local state = { events = {}, data = "", type = "" }
  local at = 1
  while true do
    local stop = text:find("[\r\n]", at)
    if not stop then break end -- what is not ended is dropped
    local line = text:sub(at, stop - 1)
    at = stop + (text:sub(stop, stop + 1) == "\r\n" and 2 or 1)
    local name, value = line:match "^([^:]*):? ?(.*)$"
    if line == "" then
      dispatch(state)
    elseif line:sub(1, 1) ~= ":" then
      if not line:find(":", 1, true) then name, value = line, "" end
      take_field(state, name, value)
    end
  end
  return state.events, state.last_event_id, state.retry
end

-- ---- streams to try ----

local PIECES <const> = {
  "data", "event", "id", "retry", "Data", "data2", ":", ": ", ":", "  ", " ", "\n", "\n", "\n\n", "\r",
  "\r\n", "\r\n\r\n", "\r\r", "x", "hello", "1", "42", "007", "-1", "\0", "\u{FEFF}", "é", "水",
  "\u{1F600}", "\xE2",
  "\x82", "\xF0\x9F", "\xED\xA0\x80", "\xFF", "\xC0\xAF", "data: a\n", "data: b\n\n", "id: 7\n", "event: e\n",
  ": comment\n", "data:{\"a\":1}\r\n\r\n", "retry: 15\n", "data\n", "id\n", "event\n",
}

---A stream of random pieces, most of them near a rule's border.
---@param count integer
---@return string
function reference.random_stream(count)
  local parts = {}
  for index = 1, count do parts[index] = PIECES[math.random(#PIECES)] end
  return table.concat(parts)
end

return reference
