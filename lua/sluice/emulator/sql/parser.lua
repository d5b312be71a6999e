-- SPDX-License-Identifier: MIT
-- Parses a statement: one SELECT, with what may stand around it.

local expression = require "sluice.emulator.sql.expression"
local failure = require "sluice.emulator.sql.failure"
local node = require "sluice.emulator.sql.node"
local tokens = require "sluice.emulator.sql.tokens"

local parser = {}

---@class sluice.emulator.sql.Item
---@field value? sluice.emulator.sql.Node nil for `*`
---@field alias? string
---@field at integer

---@class sluice.emulator.sql.Source
---@field kind "table"|"query"|"rows"
---@field parts? string[] of a table
---@field query? sluice.emulator.sql.Query
---@field parameter? string of rows: posexplode(from_json(:parameter, 'ARRAY<STRING>'))
---@field alias? string
---@field columns? string[] the names that the alias gives to them
---@field at integer

---@class sluice.emulator.sql.Query
---@field with { name: string, query: sluice.emulator.sql.Query, at: integer }[]
---@field is_distinct boolean
---@field items sluice.emulator.sql.Item[]
---@field from? sluice.emulator.sql.Source
---@field where? sluice.emulator.sql.Node
---@field group sluice.emulator.sql.Node[]
---@field is_group_all boolean
---@field having? sluice.emulator.sql.Node
---@field order { value: sluice.emulator.sql.Node, is_descending: boolean, nulls: string? }[]
---@field limit? sluice.emulator.sql.Node
---@field offset? sluice.emulator.sql.Node

local parse_query

-- A name after AS, or a word that can be nothing else.
local function parse_alias(cursor)
  if cursor:accept "AS" then return (cursor:name "an alias") end
  local token = cursor.token
  local is_free = token.kind == "word" and not expression.reserved[token.upper]
  if is_free or token.kind == "name" then return (cursor:name "an alias") end
  return nil
end

local function parse_item(cursor)
  local token = cursor.token
  if cursor:accept "*" then
    if cursor:is "EXCEPT" then cursor:refuse() end
    return { at = token.at }
  end
  if cursor:ahead().text == "." and cursor:ahead(2).text == "*" then
    failure.unsupported(token.at, token.text .. ".*")
  end
  local value = expression.parse(cursor)
  return { value = value, alias = parse_alias(cursor), at = token.at }
end

-- ---- FROM ----

local function parse_brackets(cursor, at)
  if not (cursor:is "SELECT" or cursor:is "WITH") then failure.unsupported(at, "A FROM in brackets") end
  local made = { kind = "query", query = cursor:deeper(parse_query), at = at }
  cursor:expect ")"
  return made
end

-- posexplode(from_json(:rows, 'ARRAY<STRING>')): rows that come as a parameter.
local function parse_function(cursor, at)
  local name = cursor:take().value
  if name:lower() ~= "posexplode" then failure.unsupported(at, ("The table function %s"):format(name)) end
  cursor:expect "("
  local inner = cursor:name "from_json"
  if inner:lower() ~= "from_json" then
    failure.unsupported(at, "posexplode of anything but from_json(:parameter, 'ARRAY<STRING>')")
  end
  cursor:expect "("
  local parameter = cursor:take()
  cursor:expect ","
  local schema = cursor:take()
  local is_known = parameter.kind == "parameter" and schema.kind == "string"
    and schema.value:upper():gsub("%s", "") == "ARRAY<STRING>"
  if not is_known then
    failure.unsupported(at, "posexplode of anything but from_json(:parameter, 'ARRAY<STRING>')")
  end
  cursor:expect ")"
  cursor:expect ")"
  return { kind = "rows", parameter = parameter.value, parameter_at = parameter.at, at = at }
end

local function parse_table(cursor, at)
  local made = { kind = "table", parts = {}, at = at }
  repeat made.parts[#made.parts + 1] = cursor:name "the name of a table" until not cursor:accept "."
  return made
end

local function parse_column_names(cursor)
  local names = {}
  repeat names[#names + 1] = cursor:name "the name of a column" until not cursor:accept ","
  cursor:expect ")"
  return names
end

local function parse_source(cursor)
  local token = cursor.token
  local made
  if cursor:accept "(" then
    made = parse_brackets(cursor, token.at)
  elseif token.kind == "word" and cursor:ahead().text == "(" then
    made = parse_function(cursor, token.at)
  else
    if token.upper == "VALUES" then cursor:refuse() end
    made = parse_table(cursor, token.at)
  end
  made.alias = parse_alias(cursor)
  if made.alias and cursor:accept "(" then made.columns = parse_column_names(cursor) end
  return made
end

-- ---- what follows ----

local function parse_group(cursor, query)
  if cursor:accept "ALL" then
    query.is_group_all = true
    return
  end
  repeat query.group[#query.group + 1] = expression.parse(cursor) until not cursor:accept ","
  if cursor:is "WITH" then failure.unsupported(cursor.token.at, "GROUP BY ... WITH") end
end

local function parse_nulls(cursor)
  if not cursor:accept "NULLS" then return nil end
  if cursor:accept "FIRST" then return "FIRST" end
  cursor:expect "LAST"
  return "LAST"
end

local function parse_order(cursor, query)
  repeat
    local key = { value = expression.parse(cursor) }
    key.is_descending = not cursor:accept "ASC" and cursor:accept "DESC" ~= nil
    key.nulls = parse_nulls(cursor)
    query.order[#query.order + 1] = key
  until not cursor:accept ","
end

local function parse_with(cursor, query)
  if not cursor:accept "WITH" then return end
  if cursor:is "RECURSIVE" then failure.unsupported(cursor.token.at, "WITH RECURSIVE") end
  repeat
    local name, at = cursor:name "the name of a common table expression"
    if cursor:is "(" then failure.unsupported(cursor.token.at, "WITH name(columns)") end
    cursor:expect "AS"
    cursor:expect "("
    query.with[#query.with + 1] = { name = name, at = at, query = cursor:deeper(parse_query) }
    cursor:expect ")"
  until not cursor:accept ","
end

local function parse_tail(cursor, query)
  if cursor:accept "WHERE" then query.where = expression.parse(cursor) end
  if cursor:accept_all("GROUP", "BY") then parse_group(cursor, query) end
  if cursor:accept "HAVING" then query.having = expression.parse(cursor) end
  if cursor:accept_all("ORDER", "BY") then parse_order(cursor, query) end
  if cursor:accept "LIMIT" and not cursor:accept "ALL" then query.limit = expression.parse(cursor) end
  if cursor:accept "OFFSET" then query.offset = expression.parse(cursor) end
end

function parse_query(cursor)
  local query = { with = {}, items = {}, group = {}, order = {}, is_group_all = false }
  parse_with(cursor, query)
  query.at = cursor:expect("SELECT").at
  query.is_distinct = cursor:accept "DISTINCT" ~= nil
  if not query.is_distinct then cursor:accept "ALL" end
  repeat query.items[#query.items + 1] = parse_item(cursor) until not cursor:accept ","
  if cursor:accept "FROM" then query.from = parse_source(cursor) end
  parse_tail(cursor, query)
  return query
end

-- ---- the statement ----

-- Whoever writes, makes or drops something is told so by name.
local function check_kind(cursor)
  local token = cursor.token
  if cursor:is "SELECT" or cursor:is "WITH" then return end
  if token.kind == "end" then
    failure.raise("PARSE_SYNTAX_ERROR", token.at, "Syntax error: the statement is empty.")
  elseif token.kind == "word" then
    failure.raise("UNSUPPORTED_FEATURE", token.at,
      "%s is not known to the emulator's SQL: it answers SELECT statements.", token.upper)
  end
  cursor:refuse "SELECT"
end

---Parses a statement. Raises a failure.
---@param source string
---@return sluice.emulator.sql.Query
function parser.parse(source)
  local cursor = node.cursor(tokens.read(source))
  check_kind(cursor)
  local query = parse_query(cursor)
  if cursor:accept ";" and cursor.token.kind ~= "end" then
    failure.unsupported(cursor.token.at, "More than one statement")
  end
  if cursor.token.kind ~= "end" then cursor:refuse() end
  return query
end

return parser
