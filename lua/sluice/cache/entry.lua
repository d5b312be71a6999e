-- SPDX-License-Identifier: MIT
-- An answer as a store keeps it: a string with a version and lengths, so that what is cut short is noticed.

local json = require "sluice.json"

local entry = {}

---An answer that was kept, or is about to be.
---@class sluice.cache.Entry
---@field created number task.wall() when it was complete
---@field model string the served model, or ""
---@field answer string JSON of the whole; "" where there is none, for the usage is not known
---@field chunks string what packs the chunks of a stream; "" where it was none
---@field asked_usage boolean the stream was asked for a chunk with the usage

-- Mark and version, flags, created, the lengths of what follows.
local HEADER <const> = "<c4BdI4I4I4"
local HEADER_SIZE <const> = string.packsize(HEADER)
local MARK <const> = "slc1"

-- Lengths are 32 bits.
local LARGEST <const> = 0xFFFFFFFF

---Bytes of it; nil where they are more than the form can hold.
---@param made sluice.cache.Entry
---@return string?
function entry.pack(made)
  local model, answer, chunks = made.model, made.answer, made.chunks
  if #model > LARGEST or #answer > LARGEST or #chunks > LARGEST then return nil end
  local flags = made.asked_usage and 1 or 0
  return HEADER:pack(MARK, flags, made.created, #model, #answer, #chunks) .. model .. answer .. chunks
end

---What pack made; nil for anything else.
---@param bytes any
---@return sluice.cache.Entry?
function entry.unpack(bytes)
  if type(bytes) ~= "string" or #bytes < HEADER_SIZE then return nil end
  local mark, flags, created, model, answer, chunks = HEADER:unpack(bytes)
  if mark ~= MARK or created ~= created or HEADER_SIZE + model + answer + chunks ~= #bytes then return nil end
  local answer_at = HEADER_SIZE + model + 1
  return {
    created = created,
    model = bytes:sub(HEADER_SIZE + 1, answer_at - 1),
    answer = bytes:sub(answer_at, answer_at + answer - 1),
    chunks = bytes:sub(answer_at + answer, -1),
    asked_usage = flags & 1 ~= 0,
  }
end

---The answer, a fresh table; nil where there is none, or it does not decode.
---@param kept sluice.cache.Entry
---@return table?
function entry.answer(kept)
  if kept.answer == "" then return nil end
  local value = json.decode(kept.answer)
  return type(value) == "table" and value or nil
end

-- Of a chunk: seconds after the first one was asked for; its JSON.
local CHUNK <const> = "<ds4"

---Bytes of one chunk; those of all of them follow each other.
---@param at number
---@param text string
---@return string
function entry.pack_chunk(at, text)
  return CHUNK:pack(at, text)
end

---@class sluice.cache.Chunk
---@field value table fresh
---@field text string the JSON of it
---@field at number seconds

local function read_chunks(bytes)
  local list, place = {}, 1
  while place <= #bytes do
    local at, text, following = CHUNK:unpack(bytes, place)
    local value = json.decode(text)
    if type(value) ~= "table" or at ~= at then return nil end
    list[#list + 1], place = { value = value, text = text, at = at }, following
  end
  return list
end

---The chunks, fresh tables; nil where there are none, or they do not decode.
---@param kept sluice.cache.Entry
---@return sluice.cache.Chunk[]?
function entry.chunks(kept)
  if kept.chunks == "" then return nil end
  local read, list = pcall(read_chunks, kept.chunks)
  return read and list or nil
end

return entry
