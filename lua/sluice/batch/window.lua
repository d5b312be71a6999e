-- SPDX-License-Identifier: MIT
-- Results in the order of the input: those that come early are held, and kept in the journal, until their turn.

local window = {}

---@class sluice.batch.Window
---@field held integer how many results wait for their turn
---@field held_bytes integer
---@field last integer the last row that was written; 0 before
local methods = {}
local metatable = { __name = "sluice.batch.window", __index = methods }

---Results in the order of the input.
---@param sink { write: fun(self: any, entry: any): any, any } takes the results in order
---@param journal? sluice.batch.Journal keeps what is held
---@param rows integer how many rows may be under way or held
---@param bytes integer how much may be held
---@param last integer the last row that was written before
---@return sluice.batch.Window
function window.new(sink, journal, rows, bytes, last)
  return setmetatable({
    held = 0, held_bytes = 0, last = last,
    _sink = sink, _journal = journal, _rows = rows, _bytes = bytes,
    _queue = {}, _first = 1, _last = 0, _entries = {}, _is_writing = false,
  }, metatable)
end

---Whether another row may be started.
---@return boolean
function methods:has_room()
  return self._last - self._first + 1 < self._rows and self.held_bytes < self._bytes
end

---Says that this row comes next; to be called in the order of the rows.
---@param row integer
function methods:expect(row)
  self._last = self._last + 1
  self._queue[self._last] = row
end

local function size_of(entry)
  return type(entry) == "string" and #entry or 0
end

local function pop(self)
  local row = self._queue[self._first]
  local entry = self._entries[row]
  if entry == nil then return nil end
  self._queue[self._first], self._entries[row] = nil, nil
  self._first, self.held, self.held_bytes = self._first + 1, self.held - 1, self.held_bytes - size_of(entry)
  return entry, row
end

-- Lines that are due are written as one piece.
local MOST_AT_ONCE <const> = 256

local function pop_due(self)
  local first, last = pop(self)
  if type(first) ~= "string" then return first, last end
  local due = { first }
  while #due < MOST_AT_ONCE do
    local entry, row = pop(self)
    if not entry then break end
    due[#due + 1], last = entry, row
  end
  return #due == 1 and first or table.concat(due), last
end

-- A sink may wait: then others leave what they have to the one that writes.
local function write_due(self)
  if self._is_writing then return true end
  self._is_writing = true
  local entry, row = pop_due(self)
  local ok, err = true, nil
  while ok and entry ~= nil do
    ok, err = self._sink:write(entry)
    if ok then
      self.last = row
      entry, row = pop_due(self)
    end
  end
  self._is_writing = false
  return ok, err
end

---Takes the result of a row, and writes all that is due.
---@param row integer
---@param entry any
---@param is_kept? boolean whether the journal has it already
---@return boolean? ok
---@return sluice.Error? err
function methods:put(row, entry, is_kept)
  self._entries[row] = entry
  self.held, self.held_bytes = self.held + 1, self.held_bytes + size_of(entry)
  if self._queue[self._first] == row then return write_due(self) end
  if is_kept or not self._journal then return true end
  return self._journal:keep(entry)
end

---What is held, for a new journal.
---@return string[]
function methods:entries()
  local list = {}
  for _, entry in next, self._entries do list[#list + 1] = entry end
  return list
end

-- ---- as they complete ----

---@class sluice.batch.Direct
---@field held integer 0
---@field held_bytes integer 0
---@field last integer 0
local direct_methods = {}
local direct_metatable = { __name = "sluice.batch.direct", __index = direct_methods }

---The same face for results that are written as they complete.
---@param sink { write: fun(self: any, entry: any): any, any }
---@return sluice.batch.Direct
function window.direct(sink)
  return setmetatable({ held = 0, held_bytes = 0, last = 0, _sink = sink }, direct_metatable)
end

---Always.
---@return boolean
function direct_methods.has_room() return true end

---Nothing to do.
function direct_methods.expect() end

---Writes the result.
---@param _ integer
---@param entry any
---@return boolean? ok
---@return sluice.Error? err
function direct_methods:put(_, entry) return self._sink:write(entry) end

---Nothing is held.
---@return string[]
function direct_methods.entries() return {} end

return window
