-- SPDX-License-Identifier: MIT
-- The data files of a program that `sluice bundle` made, by name; of a script that runs as it is, those on the disk.

local core = require "sluice.core.bundle"
local errors = require "sluice.errors"
local options = require "sluice.options"

local bundle = {}

local function failure(name, message)
  return nil, errors.new("FileError", {
    operation = "read data file", object = name, message = message, retryable = false,
  })
end

local function set_of(names)
  local set = {}
  for _, name in ipairs(names) do set[name] = true end
  return set
end

---What a data file holds: the one that `sluice bundle --data` put into this program. In a script that runs as it
---is, the name is a path, from the current folder on. Never waits.
---@param name string
---@return string? content
---@return sluice.Error? err FileError
function bundle.read(name)
  options.argument("bundle.read", "name", name, "name")
  local own = core.current()
  if own then
    local content = own:read("D", name)
    if content then return content end
    return failure(name, "is not in the bundle" .. options.hint(name, set_of(own:names "D")))
  end
  if not (io and io.open) then return failure(name, "files are not allowed here") end
  local file <close>, reason = io.open(name, "rb")
  if not file then return failure(name, (reason:gsub("^.-: ", ""))) end
  local content
  content, reason = file:read "a"
  if not content then return failure(name, reason) end
  return content
end

---The names of the data files in this program; nil in a script that runs as it is. Never waits.
---@return string[]? names in the order of the command line
function bundle.names()
  local own = core.current()
  return own and own:names "D" or nil
end

return bundle
