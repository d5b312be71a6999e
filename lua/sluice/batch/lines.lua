-- SPDX-License-Identifier: MIT
-- Lines of a file or a pipe, one after another, with their numbers and places; none is held beyond a bound.

local core = require "sluice.core.file"
local files = require "sluice.batch.files"

local lines = {}

local CHUNK <const> = 65536
local BRACE <const> = 0x7B -- what nearly every line begins with
local BYTE_ORDER_MARK <const> = "\xEF\xBB\xBF"

---@class sluice.batch.Lines: sluice.BatchSource
---@field row integer the number of the last line that was read
---@field offset integer where the next one begins, in bytes
local methods = {}
local metatable = { __name = "sluice.batch.lines", __index = methods }

---A reader of the lines of a file or a pipe, at its beginning.
---@param handle userdata of sluice.core.file
---@param path string for errors
---@param size integer? read no further; nil for what is no regular file
---@param max_line integer bytes
---@return sluice.batch.Lines
function lines.new(handle, path, size, max_line)
  return setmetatable({
    path = path, size = size, row = 0, offset = 0, max_line = max_line,
    _handle = handle, _buffer = "", _at = 1, _ahead = 0,
  }, metatable)
end

---Another reader of the same file, at its beginning.
---@return sluice.batch.Lines
function methods:another()
  return lines.new(self._handle, self.path, self.size, self.max_line)
end

---Goes on with the line `row`, which begins at `offset`.
---@param row integer
---@param offset integer
function methods:seek(row, offset)
  self.row, self.offset, self._ahead, self._buffer, self._at = row - 1, offset, offset, "", 1
end

-- The next bytes of the file; nil at its end.
local function more(self)
  local bytes, reason, number
  if self.size then
    local left = self.size - self._ahead
    if left <= 0 then return nil end
    bytes, reason, number = self._handle:read(left < CHUNK and left or CHUNK, self._ahead)
  else
    bytes, reason, number = self._handle:read(CHUNK)
  end
  if bytes then
    self._ahead = self._ahead + #bytes
  elseif reason then
    return nil, files.failure("read batch input", self.path, reason, number)
  end
  return bytes
end

-- A line that goes beyond the buffer: its text, or false where it is too long; nil at the end.
local function long_line(self)
  local pieces, length = { self._buffer:sub(self._at) }, #self._buffer - self._at + 1
  while true do
    local bytes, err = more(self)
    if err then return nil, err end
    local newline = bytes and bytes:find("\n", 1, true)
    local rest = newline and bytes:sub(1, newline - 1) or bytes or ""
    length = length + #rest
    if length > self.max_line then pieces = nil end
    if pieces then pieces[#pieces + 1] = rest end
    if newline or not bytes then
      self._buffer, self._at = bytes or "", newline and newline + 1 or 1
      if not bytes and length == 0 then return nil end
      self.offset = self.offset + length + (newline and 1 or 0)
      return pieces and table.concat(pieces) or false
    end
  end
end

local function next_line(self)
  local at = self._at
  local newline = self._buffer:find("\n", at, true)
  if not newline then return long_line(self) end
  self._at, self.offset = newline + 1, self.offset + newline + 1 - at
  return newline - at <= self.max_line and self._buffer:sub(at, newline - 1)
end

---The next line that is not blank. May wait where it is no regular file.
---@return integer? row its number, from 1, blank ones counted; nil at the end
---@return string|false|sluice.Error|nil text false: too long; err
---@return integer? offset where it begins
function methods:next()
  while true do
    local offset = self.offset
    local text, err = next_line(self)
    if text == nil then return nil, err end
    self.row = self.row + 1
    if text and self.row == 1 and text:sub(1, 3) == BYTE_ORDER_MARK then text = text:sub(4) end
    if not text or text:byte(1) == BRACE or text:find "%S" then return self.row, text, offset end
  end
end

local SLICE <const> = 4 << 20 -- bytes that are hashed without letting others run: about a millisecond

---What the whole file is known by, and how many rows it has; nil where that cannot be known before it is read. Lets
---other tasks run.
---@return { kind: string, size: integer, hash: string }?
---@return integer|sluice.Error|nil rows or err
function methods:identify()
  if not self.size then return nil end
  local scan, offset, task = core.scan(), 0, require "sluice.task"
  while offset < self.size do
    local got, reason, number = self._handle:scan(scan, offset, math.min(SLICE, self.size - offset))
    if not got then return nil, files.failure("read batch input", self.path, reason, number) end
    if got == 0 then break end
    offset = offset + got
    if offset < self.size then task.sleep(0) end
  end
  local hash, rows = scan:result()
  return { kind = "file", size = offset, hash = hash }, rows
end

---Idempotent.
function methods:close()
  self._handle:close()
end

return lines
