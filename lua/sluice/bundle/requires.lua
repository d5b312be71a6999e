-- SPDX-License-Identifier: MIT
-- The modules that a Lua source requires, as far as reading it tells.

local source = require "sluice.repl.source"

---@class sluice.bundle.Required
---@field line integer
---@field name? string nil where it is computed
---@field is_optional? boolean in `pcall(require, ...)`

local requires = {}

local function is_mark(token, text)
  return token ~= nil and token.kind == "mark" and token.text == text
end

local function string_of(token)
  local chunk = token and token.kind == "string" and load("return " .. token.text, "=string", "t", {})
  return chunk and chunk() or nil
end

-- The tokens without comments, each with its line.
local function read_tokens(text)
  local tokens, line, from = {}, 1, 1
  for _, token in ipairs(source.tokens(text)) do
    line = line + select(2, text:sub(from, token.first - 1):gsub("\n", ""))
    from = token.first
    token.line = line
    if token.kind ~= "comment" then tokens[#tokens + 1] = token end
  end
  return tokens
end

-- What the `require` at `at` asks for; nil where it is another one's: a field, a local of that name.
local function read_require(tokens, at)
  local before, behind = tokens[at - 1], tokens[at + 1]
  local line = tokens[at].line
  if is_mark(before, ".") or is_mark(before, ":") or is_mark(behind, "=") then return nil end
  if before and (before.text == "local" or before.text == "function") then return nil end
  if behind and behind.kind == "string" then return { line = line, name = string_of(behind) } end
  local is_protected = is_mark(before, "(") and is_mark(behind, ",")
  if is_protected or is_mark(behind, "(") then
    local ends = is_mark(tokens[at + 3], ")")
    local name = ends and string_of(tokens[at + 2]) or nil
    return { line = line, name = name, is_optional = is_protected or nil }
  end
  local is_call = behind and behind.kind == "name" and behind.line == line
  if is_call or is_mark(before, "=") then return nil end
  return { line = line }
end

---Every `require` of a source, in its order.
---@param text string
---@return sluice.bundle.Required[]
function requires.find(text)
  local found, tokens = {}, read_tokens(text)
  for at, token in ipairs(tokens) do
    if token.kind == "name" and token.text == "require" then
      found[#found + 1] = read_require(tokens, at)
    end
  end
  return found
end

return requires
