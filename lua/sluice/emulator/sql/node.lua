-- SPDX-License-Identifier: MIT
-- The nodes of a statement's tree, and the cursor over its tokens that the parsers share.

local failure = require "sluice.emulator.sql.failure"

local node = {}

---@class sluice.emulator.sql.Node
---@field kind string
---@field at integer the byte of the statement where it begins
---@field depth integer of the tree below it

-- Whatever walks the tree calls itself; SQLite bounds its own at 1000, and a node may be four of those.
local DEEPEST <const> = 200

local function too_deep(at)
  failure.unsupported(at, ("An expression that is nested more than %d deep"):format(DEEPEST))
end

---A node. Raises a failure where the tree gets too deep.
---@param kind string
---@param at integer
---@param fields table becomes the node
---@param ... sluice.emulator.sql.Node what stands below it
---@return sluice.emulator.sql.Node
function node.new(kind, at, fields, ...)
  local depth = 0
  for index = 1, select("#", ...) do
    local below = (select(index, ...))
    if below and below.depth > depth then depth = below.depth end
  end
  fields.kind, fields.at, fields.depth = kind, at, depth + 1
  if depth >= DEEPEST then too_deep(at) end
  return fields
end

---The deepest of some nodes; nil of none.
---@param list sluice.emulator.sql.Node[]
---@return sluice.emulator.sql.Node?
function node.deepest(list)
  local deepest = list[1]
  for _, each in ipairs(list) do
    if each.depth > deepest.depth then deepest = each end
  end
  return deepest
end

-- ---- the cursor ----

---@class sluice.emulator.sql.Cursor
---@field token sluice.emulator.sql.Token the next one
local methods = {}
local metatable = { __name = "sluice.emulator.sql.cursor", __index = methods }

---A cursor at the beginning of these tokens.
---@param list sluice.emulator.sql.Token[]
---@return sluice.emulator.sql.Cursor
function node.cursor(list)
  return setmetatable({ token = list[1], _list = list, _at = 1, _depth = 0 }, metatable)
end

---Takes the next token.
---@return sluice.emulator.sql.Token
function methods:take()
  local taken = self.token
  if taken.kind ~= "end" then
    self._at = self._at + 1
    self.token = self._list[self._at]
  end
  return taken
end

---The token after the next one, or further on.
---@param count? integer 1
---@return sluice.emulator.sql.Token
function methods:ahead(count)
  return self._list[math.min(self._at + (count or 1), #self._list)]
end

---Whether the next token is this word or symbol.
---@param text string a word in capitals
---@return boolean
function methods:is(text)
  local token = self.token
  if token.kind == "word" then return token.upper == text end
  return token.kind == "symbol" and token.text == text
end

---Takes the next token where it is this word or symbol; nil where it is not.
---@param text string a word in capitals
---@return sluice.emulator.sql.Token?
function methods:accept(text)
  if self:is(text) then return self:take() end
  return nil
end

---Takes a sequence of words where all of it comes next.
---@param ... string words in capitals
---@return sluice.emulator.sql.Token? first
function methods:accept_all(...)
  for index = 1, select("#", ...) do
    local token = self:ahead(index - 1)
    if token.upper ~= (select(index, ...)) then return nil end
  end
  local first = self.token
  for _ = 1, select("#", ...) do self:take() end
  return first
end

-- What the warehouse has and the emulator does not: told by name, instead of as bad syntax.
local UNKNOWN <const> = {}
for word in ([[JOIN INNER LEFT RIGHT FULL CROSS NATURAL SEMI ANTI LATERAL PIVOT UNPIVOT TABLESAMPLE WINDOW
  QUALIFY UNION INTERSECT EXCEPT MINUS CLUSTER DISTRIBUTE SORT OVER EXISTS ILIKE RLIKE REGEXP COLLATE ROLLUP
  CUBE GROUPING TIMESTAMP VERSION TABLE VALUES WITHIN RESPECT IGNORE ESCAPE ANY SOME FETCH STRUCT ARRAY
  MAP]]):gmatch "%u+" do
  UNKNOWN[word] = true
end

local UNKNOWN_SYMBOLS <const> = {
  [","] = "A comma here", -- between tables, not where something is missing
  ["?"] = "The parameter ?", ["->"] = "A lambda",
}

---Raises that the next token does not fit.
---@param wanted? string what should stand there
function methods:refuse(wanted)
  local token = self.token
  if token.upper and UNKNOWN[token.upper] then failure.unsupported(token.at, token.upper) end
  local name = token.kind == "symbol" and UNKNOWN_SYMBOLS[token.text]
  if name and not (wanted and token.text == ",") then failure.unsupported(token.at, name) end
  local more = wanted and (": %s is missing"):format(wanted) or ""
  local text = token.kind == "end" and token.text or ("'%s'"):format(token.text)
  failure.raise("PARSE_SYNTAX_ERROR", token.at, "Syntax error at or near %s%s.", text, more)
end

---Takes this word or symbol. Raises a failure where it does not come next.
---@param text string a word in capitals
---@return sluice.emulator.sql.Token
function methods:expect(text) return self:accept(text) or self:refuse(text) end

---Takes a name, quoted or not.
---@param wanted string for the message
---@return string name
---@return integer at
function methods:name(wanted)
  local token = self.token
  if token.kind ~= "word" and token.kind ~= "name" then self:refuse(wanted) end
  self:take()
  return token.value, token.at
end

---Calls f(cursor, ...) one level deeper. Raises a failure where that is too deep.
---@param f function
---@param ... any
---@return any result the first one of f
function methods:deeper(f, ...)
  self._depth = self._depth + 1
  if self._depth > DEEPEST then too_deep(self.token.at) end
  local result = f(self, ...)
  self._depth = self._depth - 1
  return result
end

return node
