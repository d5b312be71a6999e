-- SPDX-License-Identifier: MIT
-- Rewrites Lua 5.4 bytecode (ldump.c): without the names of locals and upvalues, with the lines.

local bytecode = {}

-- The signature, versions, sizes and samples of numbers, then the number of upvalues of the main function.
local HEADER <const> = 32

-- Bytes behind the tag of a constant: nil, false, true, integers, floats; strings have their own length.
local CONSTANTS <const> = { [0] = 0, [1] = 0, [17] = 0, [3] = 8, [19] = 8 }

-- A number of seven bits a byte, the highest first; the last byte has its top bit set.
local function read_size(reader)
  local value, byte = 0
  repeat
    byte = reader.bytes:byte(reader.at)
    reader.at = reader.at + 1
    value = value << 7 | byte & 0x7f
  until byte & 0x80 ~= 0
  return value
end

local function skip_string(reader)
  local size = read_size(reader)
  if size > 0 then reader.at = reader.at + size - 1 end
end

local function skip_constants(reader)
  for _ = 1, read_size(reader) do
    local tag = reader.bytes:byte(reader.at)
    reader.at = reader.at + 1
    if CONSTANTS[tag] then reader.at = reader.at + CONSTANTS[tag] else skip_string(reader) end
  end
end

-- Copies what stands before `reader.at` and was not copied yet.
local function copy(reader)
  reader.out[#reader.out + 1] = reader.bytes:sub(reader.copied, reader.at - 1)
  reader.copied = reader.at
end

-- The names stand last in each function: nothing else is left out.
local function read_names(reader)
  local lines = read_size(reader)
  reader.at = reader.at + lines
  for _ = 1, 2 * read_size(reader) do read_size(reader) end
  copy(reader)
  for _ = 1, read_size(reader) do
    skip_string(reader)
    read_size(reader)
    read_size(reader)
  end
  for _ = 1, read_size(reader) do skip_string(reader) end
  reader.copied = reader.at
  reader.out[#reader.out + 1] = "\x80\x80" -- none, and none
end

local function read_function(reader)
  skip_string(reader) -- the source
  read_size(reader) -- its first line and its last
  read_size(reader)
  reader.at = reader.at + 3 -- parameters, varargs, stack
  local instructions = read_size(reader)
  reader.at = reader.at + 4 * instructions
  skip_constants(reader)
  local upvalues = read_size(reader)
  reader.at = reader.at + 3 * upvalues
  for _ = 1, read_size(reader) do read_function(reader) end
  read_names(reader)
end

---The same code without the names of its locals and upvalues: an error in it says where, and not of which.
---@param dumped string what string.dump gives
---@return string
function bytecode.without_names(dumped)
  local reader = { bytes = dumped, at = HEADER + 1, copied = 1, out = {} }
  read_function(reader)
  if reader.at ~= #dumped + 1 then error "this is not the bytecode of Lua 5.4 that is known here" end
  copy(reader)
  return table.concat(reader.out)
end

return bytecode
