-- SPDX-License-Identifier: MIT
-- Where the rows of a batch come from: a file, standard input, a table, an iterator, or an object with `next`.

local core = require "sluice.core.file"
local files = require "sluice.batch.files"
local json = require "sluice.json"
local lines = require "sluice.batch.lines"
local options = require "sluice.options"
local task = require "sluice.task"

local input = {}

---Where rows come from. What has `identify` can be continued: its rows have places.
---@class sluice.BatchSource
---@field next fun(self: sluice.BatchSource): integer|false|nil, any, integer? the next row: its number, which grows, its text or table (false: too long), its place; nil at the end; nil and err; false where it was nudged. May wait
---@field nudge? fun(self: sluice.BatchSource) lets go of all who wait for a row: there is something else to do
---@field close? fun(self: sluice.BatchSource)
---@field identify? fun(self: sluice.BatchSource): table?, any what all rows are known by, and how many there are; nil, or nil and err
---@field another? fun(self: sluice.BatchSource): sluice.BatchSource the same rows from the beginning
---@field seek? fun(self: sluice.BatchSource, row: integer, offset: integer) goes on with that row
---@field row? integer the number of the last row
---@field offset? integer the place of the next one
---@field identity? string which file it is

-- ---- tables ----

---@class sluice.batch.Items: sluice.BatchSource
local table_methods = {}
local table_metatable = { __name = "sluice.batch.items", __index = table_methods }

local function of_table(items)
  return setmetatable({ row = 0, offset = 1, _items = items }, table_metatable)
end

---The next item.
---@return integer? row
---@return any item
---@return integer? index
function table_methods:next()
  local index = self.offset
  local item = self._items[index]
  if item == nil then return nil end
  self.row, self.offset = index, index + 1
  return index, item, index
end

---Goes on with that item.
---@param row integer
---@param offset integer its index
function table_methods:seek(row, offset)
  self.row, self.offset = row - 1, math.max(offset, 1)
end

---The same items from the beginning.
---@return sluice.batch.Items
function table_methods:another()
  return of_table(self._items)
end

local CANONICAL <const> = { canonical = true }

-- What JSON cannot hold becomes an error of its row; here it is only not told apart.
local function canonical(item)
  if type(item) == "string" then return item end
  local ok, text = pcall(json.encode, item, CANONICAL)
  return ok and text or "?"
end

---What all items are known by, and how many there are.
---@return { kind: string, size: integer, hash: string } identity
---@return integer rows
function table_methods:identify()
  local scan = core.scan()
  for _, item in ipairs(self._items) do
    scan:add(canonical(item))
    scan:add "\n"
  end
  return { kind = "table", size = #self._items, hash = (scan:result()) }, #self._items
end

-- ---- what gives one row after another, and may wait for it ----

local serial_metatable = { __name = "sluice.batch.serial", __index = {} }

-- Many tasks ask, one at a time.
local function serial(source)
  return setmetatable({ _source = source, _lock = task.semaphore(1), is_serial = true }, serial_metatable)
end

function serial_metatable.__index:next()
  local _ <close> = self._lock:acquire()
  return self._source:next()
end

function serial_metatable.__index:close()
  if self._source.close then self._source:close() end
end

local function of_iterator(iterator)
  local row = 0
  return {
    next = function()
      local item = iterator()
      if item == nil then return nil end
      row = row + 1
      return row, item, row
    end,
  }
end

-- ---- opening ----

local function of_path(path, max_line)
  local handle, err = files.open("read batch input", path, "read")
  if not handle then return nil, err end
  local size, is_regular, identity = handle:stat()
  if not size then return nil, files.failure("read batch input", path, is_regular, identity) end
  local source = lines.new(handle, path, is_regular and size or nil, max_line)
  source.identity = identity
  return is_regular and source or serial(source)
end

local function check_array(items)
  for key in pairs(items) do
    if math.type(key) ~= "integer" or key < 1 or key > #items then
      options.misuse('batch.run: option "input": rows are an array, found the key %q', tostring(key))
    end
  end
end

---Opens what `input` may be. Raises for what is none of it.
---@param given string|table|function a path, "-" for standard input, an array, an iterator, a source
---@param max_line integer bytes
---@return sluice.BatchSource? source
---@return sluice.Error? err
function input.open(given, max_line)
  if type(given) == "string" then
    if given ~= "-" then return of_path(given, max_line) end
    return serial(lines.new(core.standard(0), "standard input", nil, max_line))
  elseif type(given) == "table" and given.is_shared then
    return given:consume()
  elseif type(given) == "table" and type(given.next) == "function" then
    return given.identify and given or serial(given)
  elseif type(given) == "table" and not (getmetatable(given) or {}).__call then
    check_array(given)
    return of_table(given)
  end
  return serial(of_iterator(given))
end

return input
