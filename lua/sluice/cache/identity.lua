-- SPDX-License-Identifier: MIT
-- What the answer to a request depends on, as a key.

local digest = require "sluice.core.digest"
local json = require "sluice.json"
local options = require "sluice.options"

local identity = {}

-- Of keys and of what is kept under them. A change of either is a change of this.
local PREFIX <const> = "sluice1:"

-- How an answer comes, not what it is.
local LEFT_OUT <const> = { stream = true, stream_options = true }

local _, canonical = digest.new(json.array_mt)

---Whom requests go to, and on whose account their answers are kept.
---@class sluice.cache.Identity
local methods = {}
local metatable = { __name = "sluice.cache.identity", __index = methods }

-- One text for each set of parts: each with its length, or as none.
local function join(...)
  local parts = table.pack(...)
  for index = 1, parts.n do
    parts[index] = parts[index] == nil and "-" or ("%d:%s"):format(#parts[index], parts[index])
  end
  return table.concat(parts, ",", 1, parts.n)
end

local function text_or_nil(value)
  return type(value) == "string" and value or nil
end

---Makes it. What is no string counts as none.
---@param namespace? string
---@param host any of the endpoint
---@param name any of the endpoint
---@return sluice.cache.Identity
function identity.new(namespace, host, name)
  local parts = join(namespace, text_or_nil(host), text_or_nil(name))
  return setmetatable({
    _parts = parts,
    _scope = join(parts, nil),
    _prefix = namespace and PREFIX .. namespace .. ":" or PREFIX,
  }, metatable)
end

-- JSON's own rules decide what has a key: its encoder says what is wrong.
local function refuse(request)
  local encoded, text = pcall(json.encode, request)
  if not encoded and type(text) ~= "string" then error(text, 0) end
  options.misuse("the request cannot be written as JSON: %s", encoded and "it is too large" or text)
end

---The key of a request to it.
---@param request table
---@param served_model? string
---@return string
function methods:key(request, served_model)
  local scope = served_model and join(self._parts, served_model) or self._scope
  return canonical(request, scope, self._prefix, LEFT_OUT) or refuse(request)
end

return identity
