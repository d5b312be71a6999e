-- SPDX-License-Identifier: MIT
-- Writes a program: this one, with entries behind it and the place of them inside (runtime/modules/bundle).

local core = require "sluice.core.bundle"

local writer = {}

-- Behind the mark: offset, size and checksum. In two pieces, for it stands once in a program.
local MARK <const> = "sluice's bundle" .. ": 7e1c9a5"
local PLACE <const> = "<I8I8I8"

-- What a mapping begins at is cheap to find.
local ALIGNMENT <const> = 16

local function read_program()
  local path = core.program()
  local file <close>, reason = io.open(path, "rb")
  if not file then return nil, "cannot open " .. reason end
  local program
  program, reason = file:read "a"
  if not program then return nil, path .. ": " .. reason end
  local _, last = program:find(MARK, 1, true)
  if not last or program:find(MARK, last, true) then
    return nil, path .. ": is no program to make a bundle of"
  end
  return program, last
end

---Makes the program at a path, whole or not at all. Never waits.
---@param path string
---@param entries { kind: "S"|"M"|"D", name: string, content: string }[] no two of a kind with one name
---@return integer? size in bytes
---@return string? reason
function writer.write(path, entries)
  local program, mark = read_program()
  if not program then return nil, mark end
  local pieces = {}
  for index, entry in ipairs(entries) do
    pieces[index] = entry.kind .. string.pack("<s4s8", entry.name, entry.content)
  end
  local payload = table.concat(pieces)
  local padding = ("\0"):rep(-#program % ALIGNMENT)
  local offset = #program + #padding
  local place = string.pack(PLACE, offset, #payload, core.checksum(payload))
  local head, tail = program:sub(1, mark), program:sub(mark + #place + 1)
  local written, reason = core.write(path, head, place, tail, padding, payload)
  if not written then return nil, reason end
  return offset + #payload
end

return writer
