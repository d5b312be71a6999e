-- SPDX-License-Identifier: MIT
-- A token in a file that somebody else keeps fresh, such as a mounted secret.

local errors = require "sluice.errors"
local system = require "sluice.core.system"
local token_source = require "sluice.auth.token_source"
local token_text = require "sluice.auth.token_text"

local token_file = {}

local function failure(path, reason)
  return nil, errors.new("ConfigError", { operation = "read token file", object = path, message = reason })
end

local function read(path)
  -- the stamp first: what is written between the two is seen as a change the next time
  local allowed, stamp, reason = pcall(system.file_stamp, path)
  if not allowed then return failure(path, stamp) end
  if not stamp then return failure(path, reason) end
  local bytes
  bytes, reason = system.read_file(path)
  if not bytes then return failure(path, reason) end
  local token
  token, reason = token_text.parse(bytes)
  if not token then return failure(path, reason) end
  token.stamp = stamp
  return token
end

---A source that reads the file when a token is first needed, and again when the file has changed, the
---token is about to end or a server refuses it.
---@param path string
---@param background sluice.auth.Background
---@return sluice.auth.TokenSource
function token_file.source(path, background)
  return token_source.new {
    background = background,
    fetch = function() return read(path) end,
    has_changed = function(token)
      local stamp = system.file_stamp(path)
      return stamp ~= nil and stamp ~= token.stamp -- a file that is gone for a moment is being replaced
    end,
  }
end

return token_file
