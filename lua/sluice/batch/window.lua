-- SPDX-License-Identifier: MIT
-- Results in the order of the input: those that come early are held, and kept in the journal, until their turn.

local window = {}

-- Lines are written as one piece, other results each by itself.
local function write_all(sink, due)
  if type(due[1]) == "string" then return sink:write(#due == 1 and due[1] or table.concat(due)) end
  for _, result in ipairs(due) do
    local ok, err = sink:write(result)
    if not ok then return nil, err end
  end
  return true
end

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
    _queue = {}, _first = 1, _last = 0, _entries = {}, _fresh = {},
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

---Takes the result of a row; flush() writes it.
---@param row integer
---@param entry any a line, or a whole result
---@param is_kept? boolean whether the journal has it already
function methods:put(row, entry, is_kept)
  self._entries[row] = entry
  self.held, self.held_bytes = self.held + 1, self.held_bytes + size_of(entry)
  if self._journal and not is_kept then self._fresh[#self._fresh + 1] = row end
end

-- The results whose turn it is, and the last row of them; they stay where they are until they are written.
local function due_of(self)
  local due, at = {}, self._first
  local entry = self._entries[self._queue[at]]
  while entry ~= nil do
    due[#due + 1], at = entry, at + 1
    entry = self._entries[self._queue[at]]
  end
  return due, at - 1
end

local function take_off(self, last)
  for at = self._first, last do
    local row = self._queue[at]
    local entry = self._entries[row]
    self._queue[at], self._entries[row] = nil, nil
    self.held, self.held_bytes, self.last = self.held - 1, self.held_bytes - size_of(entry), row
  end
  self._first = last + 1
end

-- What has come since the last flush and still waits for its turn.
local function keep_fresh(self)
  local early = {}
  for index, row in ipairs(self._fresh) do
    early[#early + 1] = self._entries[row]
    self._fresh[index] = nil
  end
  if #early == 0 then return true end
  return self._journal:keep(early)
end

---Writes what is due, and keeps the rest in the journal. May wait where the sink does; one at a time.
---@return boolean? ok
---@return sluice.Error? err
function methods:flush()
  local due, last = due_of(self)
  if #due > 0 then
    local ok, err = write_all(self._sink, due)
    if not ok then return nil, err end
    take_off(self, last)
  end
  return keep_fresh(self)
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
  return setmetatable({ held = 0, held_bytes = 0, last = 0, _sink = sink, _due = {} }, direct_metatable)
end

---Always.
---@return boolean
function direct_methods.has_room() return true end

---Nothing to do.
function direct_methods.expect() end

---Takes a result.
---@param _ integer
---@param entry any
function direct_methods:put(_, entry)
  self._due[#self._due + 1] = entry
end

---Writes what has come.
---@return boolean? ok
---@return sluice.Error? err
function direct_methods:flush()
  local due = self._due
  if #due == 0 then return true end
  self._due = {}
  return write_all(self._sink, due)
end

---Nothing is held.
---@return string[]
function direct_methods.entries() return {} end

return window
