-- SPDX-License-Identifier: MIT
-- Packs bytes as a block of LZ4 (the format of lz4_Block_format.md), which runtime/lz4.c unpacks.

local lz4 = {}

local SHORTEST <const> = 4 -- bytes of a match
local FARTHEST <const> = 65535
-- By the format the last match begins 12 bytes before the end or earlier, and the last 5 bytes are literals.
local LAST_MATCH <const> = 12
local LAST_LITERALS <const> = 5
-- How many earlier places with the same four bytes are looked at.
local TRIES <const> = 16

-- A length of 15 or more goes on in bytes behind its token.
local function long_length(length)
  if length < 15 then return "" end
  length = length - 15
  return ("\255"):rep(length // 255) .. string.char(length % 255)
end

local function sequence(literals, offset, match)
  local high, low = math.min(#literals, 15), match and math.min(match - SHORTEST, 15) or 0
  local head = string.char(high << 4 | low) .. long_length(#literals) .. literals
  if not match then return head end
  return head .. string.pack("<I2", offset) .. long_length(match - SHORTEST)
end

local function match_length(bytes, from, at, limit)
  local length = SHORTEST
  while at + length <= limit and bytes:byte(from + length) == bytes:byte(at + length) do
    length = length + 1
  end
  return length
end

-- The longest match for what stands at `at`: how far back, and how long; 0 without one.
local function find_match(bytes, places, at, limit)
  local best, length, tries = nil, 0, TRIES
  local place = places.newest[bytes:sub(at, at + SHORTEST - 1)]
  while place and at - place <= FARTHEST and tries > 0 do
    if length == 0 or bytes:byte(place + length) == bytes:byte(at + length) then
      local found = match_length(bytes, place, at, limit)
      if found > length then best, length = place, found end
    end
    place, tries = places.before[place], tries - 1
  end
  return best and at - best, length
end

local function note_place(bytes, places, at)
  local key = bytes:sub(at, at + SHORTEST - 1)
  places.before[at], places.newest[key] = places.newest[key], at
end

---@class tools.lz4.Dictionary what packed bytes may reach back into, as if it stood before them
---@field bytes string
---@field places table

---@param bytes string
---@return tools.lz4.Dictionary
function lz4.dictionary(bytes)
  local places = { newest = {}, before = {} }
  for at = 1, #bytes do note_place(bytes, places, at) end
  return { bytes = bytes, places = places }
end

-- Places that begin with those of the dictionary.
local function places_behind(dictionary)
  return {
    newest = setmetatable({}, { __index = dictionary.places.newest }),
    before = setmetatable({}, { __index = dictionary.places.before }),
  }
end

---@param bytes string
---@param dictionary tools.lz4.Dictionary
---@return string
function lz4.pack(bytes, dictionary)
  local text, places = dictionary.bytes .. bytes, places_behind(dictionary)
  local out, at, limit = {}, #dictionary.bytes + 1, #text - LAST_LITERALS
  local literals = at
  while at <= #text - LAST_MATCH do
    local offset, length = find_match(text, places, at, limit)
    note_place(text, places, at)
    if offset and select(2, find_match(text, places, at + 1, limit)) > length + 1 then
      offset, length = nil, 1 -- a longer one at the next byte is worth a literal
    end
    if offset then
      out[#out + 1] = sequence(text:sub(literals, at - 1), offset, length)
      for inside = at + 1, at + length - 1 do note_place(text, places, inside) end
      literals = at + length
    end
    at = at + (offset and length or 1)
  end
  out[#out + 1] = sequence(text:sub(literals))
  return table.concat(out)
end

return lz4
