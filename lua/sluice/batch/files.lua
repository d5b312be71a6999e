-- SPDX-License-Identifier: MIT
-- The files of a batch: opened, written and named in errors in one way.

local core = require "sluice.core.file"
local errors = require "sluice.errors"

local files = {}

-- What a user can tell apart; any other cause is told by its text.
local CODES <const> = {
  [2] = "ENOENT", [13] = "EACCES", [20] = "ENOTDIR", [21] = "EISDIR", [27] = "EFBIG", [28] = "ENOSPC",
  [30] = "EROFS", [32] = "EPIPE", [122] = "EDQUOT",
}

local BUSY <const> = 11 -- EWOULDBLOCK, from a file that is locked

---An err that names the file: kind FileError, or BatchConflict where another program writes to it.
---@param operation string "write batch output"
---@param path string
---@param reason string
---@param number? integer errno
---@return sluice.Error
function files.failure(operation, path, reason, number)
  return errors.new(number == BUSY and "BatchConflict" or "FileError", {
    operation = operation, object = path, message = reason, code = CODES[number], retryable = false,
  })
end

---An err that says why files do not belong together.
---@param path string
---@param message string
---@return sluice.Error
function files.conflict(path, message)
  return errors.new("BatchConflict", { operation = "continue batch", object = path, message = message })
end

---Opens a file.
---@param operation string for errors
---@param path string
---@param mode "read"|"append"
---@return userdata? handle see runtime/modules/file
---@return sluice.Error? err
function files.open(operation, path, mode)
  local handle, reason, number = core.open(path, mode)
  if not handle then return nil, files.failure(operation, path, reason, number) end
  return handle
end

-- ---- a file that is appended to line by line ----

---@class sluice.batch.Appender
---@field path string
---@field size integer bytes that are whole
---@field is_regular boolean
---@field identity string the same for two names of one file
local methods = {}
local metatable = { __name = "sluice.batch.appender", __index = methods }

local function wrap(handle, path, operation)
  local size, is_regular, identity = handle:stat()
  if not size then return nil, files.failure(operation, path, is_regular, identity) end
  return setmetatable({
    path = path, size = is_regular and size or 0, is_regular = is_regular, identity = identity,
    _handle = handle, _operation = operation,
    _lock = not is_regular and require("sluice.task").semaphore(1) or nil,
  }, metatable)
end

---Opens a file to append to; made where it is missing.
---@param path string
---@param operation string for errors
---@return sluice.batch.Appender?
---@return sluice.Error? err
function files.append(path, operation)
  local handle, err = files.open(operation, path, "append")
  if not handle then return nil, err end
  return wrap(handle, path, operation)
end

---Standard output as such a file.
---@return sluice.batch.Appender?
---@return sluice.Error? err
function files.standard_output()
  return wrap(core.standard(1), "standard output", "write batch output")
end

local function failed(self, reason, number)
  return nil, files.failure(self._operation, self.path, reason, number)
end

-- A pipe may have to wait in the middle of a line: nobody else writes meanwhile, and nobody cancels it.
local function write_waiting(self, ...)
  local _ <close> = self._lock:acquire()
  return require("sluice.task").shield(self._handle.write, self._handle, ...)
end

---Appends all of it or nothing. Waits only where the file is a pipe.
---@param a string
---@param b? string
---@param c? string
---@return boolean? written
---@return sluice.Error? err
function methods:write(a, b, c)
  local ok, reason, number
  b, c = b or "", c or ""
  if self._lock then
    ok, reason, number = write_waiting(self, a, b, c)
  else
    ok, reason, number = self._handle:write(a, b, c)
  end
  if ok then
    self.size = self.size + #a + #b + #c
    return true
  end
  if self.is_regular then self._handle:truncate(self.size) end
  return failed(self, reason, number)
end

---Cuts the file to so many bytes.
---@param size integer
---@return boolean? cut
---@return sluice.Error? err
function methods:cut(size)
  local ok, reason, number = self._handle:truncate(size)
  if not ok then return failed(self, reason, number) end
  self.size = size
  return true
end

---Bytes at an offset: nil at the end.
---@param offset integer
---@param length? integer at most; 65536, which is the most
---@return string? bytes
---@return sluice.Error? err
function methods:read(offset, length)
  local bytes, reason, number = self._handle:read(length or 65536, offset)
  if bytes == nil and reason then return failed(self, reason, number) end
  return bytes
end

---A reader of its lines as they are now.
---@return sluice.batch.Lines
function methods:lines()
  return require("sluice.batch.lines").new(self._handle, self.path, self.size, math.maxinteger)
end

---Waits until what was written is on the disk. In simulated time nothing is waited for.
---@return boolean? synced
---@return sluice.Error? err
function methods:sync()
  local called, ok, reason, number = pcall(self._handle.sync, self._handle)
  if not called then
    if errors.is(ok) then error(ok, 0) end
    return true
  end
  if not ok then return failed(self, reason, number) end
  return true
end

---Idempotent.
function methods:close()
  self._handle:close()
end

metatable.__close = methods.close

return files
