-- SPDX-License-Identifier: MIT
-- Parses expressions, by precedence climbing.

local failure = require "sluice.emulator.sql.failure"
local node = require "sluice.emulator.sql.node"

local expression = {}

---Words that end what stands before them: none of them is an alias or a column.
---@type table<string, boolean>
expression.reserved = {}
for word in ([[SELECT FROM WHERE GROUP HAVING ORDER LIMIT OFFSET AS ON AND OR NOT IN LIKE BETWEEN IS CASE
  WHEN THEN ELSE END UNION INTERSECT EXCEPT MINUS JOIN INNER LEFT RIGHT FULL CROSS NATURAL LATERAL WINDOW
  QUALIFY WITH USING BY DISTINCT ASC DESC NULLS DIV OVER PIVOT UNPIVOT TABLESAMPLE CLUSTER DISTRIBUTE SORT
  ILIKE RLIKE REGEXP]])
  :gmatch "%u+" do
  expression.reserved[word] = true
end

-- How tightly infix operators bind.
local POWERS <const> = {
  OR = 1, AND = 2,
  ["="] = 4, ["=="] = 4, ["<=>"] = 4, ["<>"] = 4, ["!="] = 4, ["<"] = 4, ["<="] = 4, [">"] = 4, [">="] = 4,
  IS = 4, IN = 4, LIKE = 4, BETWEEN = 4, NOT = 4,
  ["+"] = 8, ["-"] = 8, ["||"] = 8,
  ["*"] = 9, ["/"] = 9, ["%"] = 9, DIV = 9,
}
local NOT_POWER <const>, COMPARISON <const>, UNARY <const> = 3, 4, 10

local parse

local function parse_list(cursor, closing)
  local list = {}
  if cursor:accept(closing) then return list end
  repeat list[#list + 1] = cursor:deeper(parse, 0) until not cursor:accept ","
  cursor:expect(closing)
  return list
end

-- ---- what begins with a word ----

local function parse_case(cursor)
  local at = cursor:expect("CASE").at
  local made, below = { whens = {} }, {}
  if not cursor:is "WHEN" then made.operand = cursor:deeper(parse, 0) end
  while cursor:accept "WHEN" do
    local when = { condition = cursor:deeper(parse, 0) }
    cursor:expect "THEN"
    when.value = cursor:deeper(parse, 0)
    made.whens[#made.whens + 1] = when
    below[#below + 1], below[#below + 2] = when.condition, when.value
  end
  if #made.whens == 0 then cursor:refuse "WHEN" end
  if cursor:accept "ELSE" then made.otherwise = cursor:deeper(parse, 0) end
  cursor:expect "END"
  return node.new("case", at, made, made.operand, made.otherwise, node.deepest(below))
end

---Parses the name of a type.
---@param cursor sluice.emulator.sql.Cursor
---@return string name in capitals, without what stands in brackets
---@return integer at
local function parse_type(cursor)
  local name, at = cursor:name "a type"
  if cursor:accept "(" then
    repeat
      if cursor.token.kind ~= "number" then cursor:refuse "a number" end
      cursor:take()
    until not cursor:accept ","
    cursor:expect ")"
  elseif cursor:is "<" then
    failure.unsupported(at, ("The type %s<...>"):format(name:upper()))
  end
  return name:upper(), at
end

local function parse_cast(cursor)
  local token = cursor:take()
  cursor:expect "("
  local value = cursor:deeper(parse, 0)
  cursor:expect "AS"
  local name, at = parse_type(cursor)
  cursor:expect ")"
  return node.new("cast", token.at, { value = value, to = name, to_at = at,
    is_try = token.upper == "TRY_CAST" },
    value)
end

-- INTERVAL 7 DAY, INTERVAL '7' DAYS, INTERVAL '7 days'
local function parse_interval(cursor)
  local at, value, unit = cursor:take().at, nil, nil
  local is_negative = cursor:accept "-" ~= nil
  local token = cursor.token
  if token.kind == "string" then
    cursor:take()
    local count, word = token.value:match "^%s*(-?%d+)%s*(%a*)%s*$"
    if not count then failure.unsupported(token.at, "An interval of several parts") end
    value, unit = math.tointeger(tonumber(count)), word ~= "" and word or nil
  elseif token.kind == "number" and math.type(token.value) == "integer" then
    value = cursor:take().value
  else
    cursor:refuse "a whole number"
  end
  if not unit then unit = cursor:name "the unit of an interval" end
  if not value then failure.raise("PARSE_SYNTAX_ERROR", token.at, "The interval is out of range.") end
  return node.new("interval", at, { value = is_negative and -value or value, unit = unit:upper() })
end

-- DATE '2026-01-01', TIMESTAMP '2026-01-01 00:00:00'
local function parse_typed_literal(cursor)
  local token = cursor:take()
  local text = cursor:take()
  return node.new("cast", token.at, {
    value = node.new("literal", text.at, { type = "STRING", value = text.value }),
    to = token.upper, to_at = token.at,
  })
end

local function parse_argument(cursor, made)
  local name = cursor.token
  if name.kind == "word" and cursor:ahead().text == "=>" then
    cursor:take()
    cursor:take()
    made.named[#made.named + 1] = { name = name.value:lower(), at = name.at, value = cursor:deeper(parse, 0) }
  else
    if #made.named > 0 then cursor:refuse "a named argument" end
    made.arguments[#made.arguments + 1] = cursor:deeper(parse, 0)
  end
end

local function deepest_of(made)
  local below = { made.filter }
  for _, each in ipairs(made.arguments) do below[#below + 1] = each end
  for _, each in ipairs(made.named) do below[#below + 1] = each.value end
  return node.deepest(below)
end

local function parse_call(cursor)
  local name = cursor:take()
  cursor:expect "("
  local made = { name = name.value:lower(), shown = name.value, arguments = {}, named = {} }
  if cursor:is "*" and cursor:ahead().text == ")" then
    cursor:take()
    made.is_star = true
  elseif not cursor:is ")" then
    made.is_distinct = cursor:accept "DISTINCT" ~= nil
    repeat parse_argument(cursor, made) until not cursor:accept ","
  end
  cursor:expect ")"
  if cursor:is "FILTER" and cursor:ahead().text == "(" then
    cursor:take()
    cursor:take()
    cursor:expect "WHERE"
    made.filter = cursor:deeper(parse, 0)
    cursor:expect ")"
  end
  if cursor:is "OVER" then failure.unsupported(cursor.token.at, "OVER") end
  return node.new("call", name.at, made, deepest_of(made))
end

local CONSTANTS <const> = {
  TRUE = { type = "BOOLEAN", value = true }, FALSE = { type = "BOOLEAN", value = false },
    NULL = { type = "VOID" },
}
-- These are functions without brackets.
local BARE_CALLS <const> = { CURRENT_DATE = true, CURRENT_TIMESTAMP = true }

local function parse_column(cursor)
  local at, parts = cursor.token.at, {}
  repeat
    parts[#parts + 1] = cursor:name "a name"
  until not (cursor:is "." and cursor:ahead().text ~= "*" and cursor:accept ".")
  return node.new("column", at, { parts = parts })
end

local function parse_word(cursor)
  local token = cursor.token
  local upper, after = token.upper, cursor:ahead()
  if upper == "CASE" then return parse_case(cursor) end
  if (upper == "CAST" or upper == "TRY_CAST") and after.text == "(" then return parse_cast(cursor) end
  if upper == "INTERVAL" and after.text ~= "." then return parse_interval(cursor) end
  if (upper == "DATE" or upper == "TIMESTAMP") and after.kind == "string" then
    return parse_typed_literal(cursor)
  end
  local constant = CONSTANTS[upper]
  if constant then
    cursor:take()
    return node.new("literal", token.at, { type = constant.type, value = constant.value })
  end
  if after.text == "(" and after.kind == "symbol" and not expression.reserved[upper] then
    return parse_call(cursor)
  end
  if BARE_CALLS[upper] then
    cursor:take()
    return node.new("call", token.at, { name = upper:lower(), shown = token.value, arguments = {},
      named = {} })
  end
  if expression.reserved[upper] then cursor:refuse "an expression" end
  return parse_column(cursor)
end

-- ---- operands ----

local function parse_brackets(cursor)
  local at = cursor:take().at
  if cursor:is "SELECT" or cursor:is "WITH" then failure.unsupported(at, "A subquery in an expression") end
  local value = cursor:deeper(parse, 0)
  if cursor:is "," then failure.unsupported(at, "A row of several values") end
  cursor:expect ")"
  return value
end

local function parse_operand(cursor)
  local token = cursor.token
  local kind = token.kind
  if kind == "word" then return parse_word(cursor) end
  if kind == "name" then return parse_column(cursor) end
  if kind == "symbol" then
    if token.text == "(" then return parse_brackets(cursor) end
    cursor:refuse "an expression"
  elseif kind == "end" then
    cursor:refuse "an expression"
  end
  cursor:take()
  if kind == "parameter" then return node.new("parameter", token.at, { name = token.value }) end
  if kind == "string" then return node.new("literal", token.at, { type = "STRING", value = token.value }) end
  local is_whole = math.type(token.value) == "integer"
  return node.new("literal", token.at, { type = is_whole and "BIGINT" or "DOUBLE", value = token.value })
end

-- x[i], x.name, x::type
local function parse_postfix(cursor)
  local value = parse_operand(cursor)
  while true do
    local at = cursor.token.at
    if cursor:accept "[" then
      local key = cursor:deeper(parse, 0)
      cursor:expect "]"
      value = node.new("element", at, { value = value, key = key }, value, key)
    elseif cursor:accept "::" then
      local name, to_at = parse_type(cursor)
      value = node.new("cast", at, { value = value, to = name, to_at = to_at }, value)
    elseif value.kind ~= "column" and cursor:is "." and cursor:ahead().kind == "word" then
      cursor:take()
      local name, name_at = cursor:name "a field"
      local key = node.new("literal", name_at, { type = "STRING", value = name })
      value = node.new("element", at, { value = value, key = key }, value, key)
    else
      return value
    end
  end
end

local function parse_prefix(cursor)
  local token = cursor.token
  if cursor:is "NOT" then
    cursor:take()
    local value = cursor:deeper(parse, NOT_POWER)
    return node.new("not", token.at, { value = value }, value)
  elseif cursor:is "-" or cursor:is "+" then
    cursor:take()
    local value = cursor:deeper(parse, UNARY)
    if token.text == "+" then return value end
    return node.new("negative", token.at, { value = value }, value)
  end
  return parse_postfix(cursor)
end

-- ---- infix ----

local function parse_is(cursor, left, at)
  local is_not = cursor:accept "NOT" ~= nil
  local token = cursor.token
  local upper = token.upper
  if upper ~= "NULL" and upper ~= "TRUE" and upper ~= "FALSE" then
    if upper == "DISTINCT" then failure.unsupported(token.at, "IS DISTINCT FROM") end
    cursor:refuse "NULL"
  end
  cursor:take()
  return node.new("is", at, { value = left, what = upper, is_not = is_not }, left)
end

local function parse_in(cursor, left, at, is_not)
  cursor:expect "("
  if cursor:is "SELECT" or cursor:is "WITH" then failure.unsupported(at, "IN with a subquery") end
  local list = parse_list(cursor, ")")
  if #list == 0 then cursor:refuse "a value" end
  return node.new("in", at, { value = left, list = list, is_not = is_not }, left, node.deepest(list))
end

local function parse_between(cursor, left, at, is_not)
  local low = cursor:deeper(parse, COMPARISON)
  cursor:expect "AND"
  local high = cursor:deeper(parse, COMPARISON)
  return node.new("between", at, { value = left, low = low, high = high, is_not = is_not }, left, low, high)
end

local function parse_like(cursor, left, at, is_not)
  local pattern = cursor:deeper(parse, COMPARISON)
  if cursor:is "ESCAPE" then cursor:refuse() end
  return node.new("like", at, { value = left, pattern = pattern, is_not = is_not }, left, pattern)
end

local SPECIAL <const> = { IN = parse_in, BETWEEN = parse_between, LIKE = parse_like }

local function parse_infix(cursor, left, operator, power)
  local token = cursor:take()
  if operator == "IS" then return parse_is(cursor, left, token.at) end
  local is_not = operator == "NOT"
  if is_not then operator = cursor:take().upper end
  if SPECIAL[operator] then return SPECIAL[operator](cursor, left, token.at, is_not) end
  local right = cursor:deeper(parse, power)
  return node.new("binary", token.at, { operator = operator, left = left, right = right }, left, right)
end

-- The operator that comes next; NOT only where it belongs to one.
local function infix_of(cursor)
  local token = cursor.token
  local operator = token.kind == "symbol" and token.text or token.upper
  if operator ~= "NOT" then return operator, POWERS[operator] end
  if SPECIAL[cursor:ahead().upper] then return operator, POWERS.NOT end
  return nil
end

function parse(cursor, power)
  local left = parse_prefix(cursor)
  while true do
    local operator, its = infix_of(cursor)
    if not its or its <= power then return left end
    left = parse_infix(cursor, left, operator, its)
  end
end

---Parses an expression. Raises a failure.
---@param cursor sluice.emulator.sql.Cursor
---@return sluice.emulator.sql.Node
function expression.parse(cursor) return cursor:deeper(parse, 0) end

return expression
