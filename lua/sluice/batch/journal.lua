-- SPDX-License-Identifier: MIT
-- The journal of a batch: what is complete up to which byte of the output, and the results that wait for their turn.
--
-- A record is a line: a letter, the checksum of the rest, a blank, the rest. H is the head: which input, which order.
-- C is a checkpoint: the first row that was never started and its place, the rows before it that are not done, the
-- size of the output, the counts. R is the line of a result that is not in the output yet. What comes after a torn
-- record is not there. The output itself is the truth: a checkpoint only says from where on it must be read again.

local core = require "sluice.core.file"
local files = require "sluice.batch.files"
local json = require "sluice.json"
local lines = require "sluice.batch.lines"

local journal = {}

local VERSION <const> = 1
local OPERATION <const> = "write batch journal"
local COMPACT_AT <const> = 8 << 20 -- bytes; below that writing it anew costs more than it saves

---@class sluice.batch.Journal
---@field path string
local methods = {}
local metatable = { __name = "sluice.batch.journal", __index = methods }

-- `line` ends with its newline.
local function record(letter, line)
  return letter .. core.checksum(line) .. " ", line
end

local function parse(line)
  local letter, checksum, text = line:match "^([HCR])(%x+) (.*)$"
  if not letter or core.checksum(text, "\n") ~= checksum then return nil end
  return letter, text
end

local function read_records(reader, on_record)
  while true do
    local number, line = reader:next()
    if number == nil then return line == nil, line end
    local letter, text = parse(line)
    if not letter then return true end
    on_record(letter, text)
  end
end

-- Calls on_record(letter, text) for each whole record; false where there is no journal.
local function each_record(path, on_record)
  local handle, err = files.open("read batch journal", path, "read")
  if not handle then
    if err.code == "ENOENT" then return false end
    return nil, err
  end
  local reader = lines.new(handle, path, (handle:stat()), math.maxinteger)
  local ok, failure = read_records(reader, on_record)
  reader:close()
  if not ok then return nil, failure end
  return true
end

---Reads the head and the last checkpoint of a journal.
---@param path string
---@return { head: table, checkpoint: table }? found nil where there is none, or none that is whole
---@return sluice.Error? err
function journal.read(path)
  local last = {}
  local ok, err = each_record(path, function(letter, text) last[letter] = text end)
  if ok == nil then return nil, err end
  if not last.H or not last.C then return nil end
  local head, checkpoint = json.decode(last.H), json.decode(last.C)
  if head.version ~= VERSION then
    local text = "the journal is of version %s, and this program knows %d"
    return nil, files.conflict(path, text:format(tostring(head.version), VERSION))
  end
  return { head = head, checkpoint = checkpoint }
end

---Reads the results in a journal.
---@param path string
---@param on_result fun(line: string) gets each line, without its newline
---@return boolean? ok
---@return sluice.Error? err
function journal.results(path, on_result)
  return each_record(path, function(letter, text)
    if letter == "R" then on_result(text) end
  end)
end

---Begins a journal, or writes it anew: one that is there is replaced in one step.
---@param path string
---@param head { input: table, order: string }
---@param checkpoint table
---@param results string[] lines that are not in the output yet
---@return sluice.batch.Journal?
---@return sluice.Error? err
function journal.create(path, head, checkpoint, results)
  local self = setmetatable({ path = path, _head = head }, metatable)
  local ok, err = self:rewrite(checkpoint, results)
  if not ok then return nil, err end
  return self
end

local function content(head, checkpoint, results)
  local parts = {}
  local function add(letter, line)
    parts[#parts + 1], parts[#parts + 2] = record(letter, line)
  end
  add("H", json.encode { version = VERSION, input = head.input, order = head.order } .. "\n")
  add("C", json.encode(checkpoint) .. "\n")
  for _, line in ipairs(results) do add("R", line) end
  return table.concat(parts)
end

---Writes it anew with this checkpoint and these results.
---@param checkpoint table
---@param results string[]
---@return boolean? ok
---@return sluice.Error? err
function methods:rewrite(checkpoint, results)
  local path = self.path .. ".new"
  os.remove(path)
  local file, err = files.append(path, OPERATION)
  if not file then return nil, err end
  local ok
  ok, err = file:write(content(self._head, checkpoint, results))
  if ok then
    local reason, number
    ok, reason, number = os.rename(path, self.path)
    err = not ok and files.failure(OPERATION, self.path, reason, number) or nil
  end
  if not ok then
    file:close()
    os.remove(path)
    return nil, err
  end
  if self._file then self._file:close() end
  self._file, self._compact_at = file, math.max(COMPACT_AT, 4 * file.size)
  return true
end

---Keeps results that are not in the output yet.
---@param results string[] lines
---@return boolean? ok
---@return sluice.Error? err
function methods:keep(results)
  if #results == 1 then return self._file:write(record("R", results[1])) end
  local parts = {}
  for index, line in ipairs(results) do parts[2 * index - 1], parts[2 * index] = record("R", line) end
  return self._file:write(table.concat(parts))
end

---Adds a checkpoint.
---@param checkpoint table
---@return boolean? ok
---@return sluice.Error? err
function methods:add(checkpoint)
  return self._file:write(record("C", json.encode(checkpoint) .. "\n"))
end

---Whether it has grown enough to be written anew.
---@return boolean
function methods:is_large()
  return self._file.size > self._compact_at
end

---Waits until it is on the disk.
---@return boolean? ok
---@return sluice.Error? err
function methods:sync()
  return self._file:sync()
end

---Idempotent.
function methods:close()
  if self._file then self._file:close() end
end

return journal
