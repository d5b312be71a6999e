-- SPDX-License-Identifier: MIT
-- A file that keeps the endpoints: a line of JSON for each change, appended before the change is answered.
--
-- A process that is killed may leave half a line at the end; it was not answered, and is dropped. At each start the file
-- is written anew without what was overwritten, beside the old one, which it then replaces in one step.

local core = require "sluice.core.file"
local errors = require "sluice.errors"
local json = require "sluice.json"

local journal = {}

local stable <const> = { canonical = true } -- the same state is the same text

local most_stale <const> = 2000 -- lines that say nothing any more, before the file is written anew

---@class sluice.emulator.Journal
local methods = {}
local metatable = { __index = methods, __name = "sluice.emulator.journal" }

local function failure(path, operation, message)
  return nil, errors.new("ConfigError", { operation = operation, object = path, message = message })
end

-- The records by name and in order, as the lines of the file leave them.
local function apply(state, change)
  local name = change.delete or change.put.name
  if state.by_name[name] then
    state.by_name[name] = change.put
    for index, record in ipairs(state.records) do
      if record.name == name then
        if change.put then
          state.records[index] = change.put
        else
          table.remove(state.records, index)
        end
        break
      end
    end
  elseif change.put then
    state.by_name[name] = change.put
    state.records[#state.records + 1] = change.put
  end
end

local function is_change(value)
  if type(value) ~= "table" then return false end
  if type(value.delete) == "string" then return true end
  return type(value.put) == "table" and type(value.put.name) == "string" and type(value.put.id) == "string"
end

local function read(path)
  local state = { by_name = {}, records = {} }
  local file = io.open(path, "rb")
  if not file then return state end
  local text, problem = file:read "a"
  file:close()
  if not text then return failure(path, "read the state file", problem) end
  local number = 0
  for line in text:gmatch("([^\n]*)\n") do
    number = number + 1
    local change = json.decode(line)
    if not is_change(change) then
      return failure(path, "read the state file", ("line %d is no change of an endpoint"):format(number))
    end
    apply(state, change)
  end
  return state
end

-- A device or a pipe must not be replaced by a file.
local function check_place(path)
  local handle, problem = core.open(path, "append")
  if not handle then return failure(path, "open the state file", problem) end
  local _, is_regular = handle:stat()
  handle:close()
  if not is_regular then return failure(path, "open the state file", "it is no regular file") end
  return true
end

-- Writes the records to a new file and puts it in the place of the old one.
local function rewrite(path, records)
  local beside = path .. ".new"
  local file, problem = io.open(beside, "wb")
  if not file then return failure(path, "write the state file", problem) end
  local ok = true
  for _, record in ipairs(records) do
    if ok then ok, problem = file:write(json.encode({ put = record }, stable), "\n") end
  end
  local closed, why = file:close()
  if not ok or not closed then return failure(path, "write the state file", problem or why) end
  local renamed
  renamed, problem = os.rename(beside, path)
  if not renamed then return failure(path, "write the state file", problem) end
  return true
end

local function open_end(self)
  local file, problem = io.open(self.path, "ab")
  if not file then return failure(self.path, "open the state file", problem) end
  self.file, self.lines = file, #self.records
  return self
end

---Opens a state file, or begins one. Its folder must be there. Two programs must not share one.
---@param path string
---@return table|nil journal its `records` are the endpoints in the order of their creation
---@return sluice.Error|nil err kind "ConfigError"
function journal.open(path)
  local ok, err = check_place(path)
  if not ok then return nil, err end
  local state
  state, err = read(path)
  if not state then return nil, err end
  ok, err = rewrite(path, state.records)
  if not ok then return nil, err end
  return open_end(setmetatable({ path = path, records = state.records, by_name = state.by_name }, metatable))
end

-- All records, in a file of their own.
local function compact(self)
  if self.file then self.file:close() end
  self.file = nil
  assert(rewrite(self.path, self.records))
  assert(open_end(self))
end

-- After a failed write, which may have left half a line, the next change writes the file anew.
local function append(self, change)
  apply(self, change)
  if not self.file or self.lines >= #self.records + most_stale then return compact(self) end
  local written, problem = self.file:write(json.encode(change, stable), "\n")
  if written then written, problem = self.file:flush() end
  self.lines = self.lines + 1
  if written then return end
  self.file:close()
  self.file = nil
  error(select(2, failure(self.path, "write the state file", problem)), 0)
end

---Notes that a record is new or was changed. Raises an err where the file cannot be written.
---@param record table
function methods:put(record) append(self, { put = record }) end

---Notes that an endpoint was deleted. Raises an err where the file cannot be written.
---@param name string
function methods:delete(name) append(self, { delete = name }) end

---Closes the file. Idempotent.
function methods:close()
  if self.file then self.file:close() end
  self.file = nil
end

return journal
