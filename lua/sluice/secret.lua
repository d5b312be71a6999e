-- SPDX-License-Identifier: MIT
-- Values that must not be seen: a token reads as `***` everywhere but where the request leaves.

local secret = {}

---A hidden text. Made by sluice.secret; shown as `***`, not readable, not concatenable.
---@class sluice.Secret

-- The bytes of every live secret. Weak keys: forgetting the object forgets the bytes.
local bytes_of = setmetatable({}, { __mode = "k" })

-- Shorter values are not replaced in texts: a 3-letter password would turn prose into stars.
local MASK_AT_LEAST = 8
local STARS = "***"

local face = { __name = "sluice.secret" } -- what getmetatable() shows
local metatable = { __name = "sluice.secret", __metatable = face }

function metatable.__tostring()
  return STARS
end

function metatable.__concat()
  error("a secret cannot be joined to a text: pass it as it is, or see sluice.secret", 2)
end

function metatable.__newindex()
  error("a secret cannot be changed", 2)
end

function metatable.__pairs()
  return next, {}
end

function metatable.__eq(a, b)
  return secret.equals(a, b)
end

---Hides a text. A secret is given back as it is.
---@param text string|sluice.Secret
---@return sluice.Secret
function secret.new(text)
  if secret.is(text) then return text end
  if type(text) ~= "string" then
    error(("sluice.secret: a string is needed, got %s"):format(type(text)), 2)
  end
  local object = setmetatable({}, metatable)
  bytes_of[object] = text
  return object
end

---Whether the value is a secret.
---@param value any
---@return boolean
function secret.is(value)
  return getmetatable(value) == face
end

---The bytes of a secret; any other value as it is. For the code that lets a request leave: what it
---returns must go nowhere else.
---@param value any
---@return any
function secret.reveal(value)
  if getmetatable(value) == face then return bytes_of[value] end
  return value
end

---Whether two texts, either of them maybe a secret, are the same. The time taken depends on their
---length, not on where they differ.
---@param a any
---@param b any
---@return boolean
function secret.equals(a, b)
  a, b = secret.reveal(a), secret.reveal(b)
  if type(a) ~= "string" or type(b) ~= "string" or #a ~= #b then return false end
  local difference = 0
  for index = 1, #a do difference = difference | (a:byte(index) ~ b:byte(index)) end
  return difference == 0
end

---A secret made of texts and secrets, such as `secret.join("Bearer ", token)`.
---@param ... string|sluice.Secret
---@return sluice.Secret
function secret.join(...)
  local parts = { ... }
  for index = 1, #parts do parts[index] = secret.reveal(parts[index]) end
  return secret.new(table.concat(parts))
end

local function replace(text, hidden)
  local from, to = text:find(hidden, 1, true)
  if not from then return text end
  local pieces, at = {}, 1
  while from do
    pieces[#pieces + 1] = text:sub(at, from - 1)
    pieces[#pieces + 1] = STARS
    at = to + 1
    from, to = text:find(hidden, at, true)
  end
  pieces[#pieces + 1] = text:sub(at)
  return table.concat(pieces)
end

local function longest_first(a, b)
  return #a > #b
end

-- The bytes of each live secret as they stand in a text of JSON.
local json_of = setmetatable({}, { __mode = "k" })

local function in_json(object, bytes)
  local ok, text = pcall(require("sluice.json").encode, bytes)
  json_of[object] = ok and text and text:sub(2, -2) or bytes
  return json_of[object]
end

-- `forms`: what secrets look like in the text, where that is not as they are.
local function mask(text, forms)
  local found
  for object, bytes in next, bytes_of do
    local hidden = forms and (forms[object] or in_json(object, bytes)) or bytes
    if #hidden >= MASK_AT_LEAST and text:find(hidden, 1, true) then
      found = found or {}
      found[#found + 1] = hidden
    end
  end
  if not found then return text end
  -- a token that is a part of a longer one must not uncover the rest of it
  table.sort(found, longest_first)
  for _, hidden in ipairs(found) do text = replace(text, hidden) end
  return text
end

---The text with every live secret in it (of 8 bytes or more) replaced by `***`. For whatever leaves
---the program: messages, logs.
---@param text string
---@return string
function secret.mask(text)
  return mask(text)
end

---As mask, for a text that sluice.json has encoded: much faster than to mask each of its strings.
---@param text string
---@return string
function secret.mask_json(text)
  return mask(text, json_of)
end

return secret
