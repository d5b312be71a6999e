-- SPDX-License-Identifier: MIT
-- Translates expressions: each node of the tree to SQLite's words for it, and its type.

local failure = require "sluice.emulator.sql.failure"
local functions = require "sluice.emulator.sql.functions"
local options = require "sluice.options"
local types = require "sluice.emulator.sql.types"

local values = {}

---What an expression can see.
---@class sluice.emulator.sql.Scope
---@field columns table<string, sluice.emulator.sql.Column> by name in small letters
---@field qualifiers string[] what may stand before a column's name: the alias, or the parts of the table's name
---@field binder sluice.emulator.sql.Binder
---@field place "value"|"condition"|"group"|"aggregate" where it stands; aggregates are at home in values
---@field has_aggregate boolean whether one was met

---@class sluice.emulator.sql.Column
---@field name string
---@field sql string
---@field type string

---What is bound to a statement.
---@class sluice.emulator.sql.Binder
---@field bind fun(value: any): string gives the SQL of a value
---@field parameters table<string, sluice.emulator.sql.Value> by name; `value` is their Lua value
---@field now number seconds since 1970

-- SQLite takes a million bytes. Some words stand for an operand several times, so that nested ones grow fast.
local LONGEST <const> = 200000

local translate = {}

-- An interval, too, which is no value of SQLite's.
local function any_of(scope, node)
  local made = translate[node.kind](scope, node)
  if #made.sql > LONGEST then failure.unsupported(node.at, "An expression that is so long in SQLite") end
  return made
end

---Translates a node. Raises a failure.
---@param scope sluice.emulator.sql.Scope
---@param node sluice.emulator.sql.Node
---@return sluice.emulator.sql.Value
function values.of(scope, node)
  local made = any_of(scope, node)
  if made.type == "INTERVAL" then
    failure.unsupported(node.at, "An interval anywhere but beside + or -")
  end
  return made
end

local of <const> = values.of

local function value(sql, type_name) return { sql = sql, type = type_name } end

-- ---- leaves ----

local function number_text(number)
  if math.type(number) == "integer" then return ("%d"):format(number) end
  local text = ("%.17g"):format(number)
  if text:find "inf" then return "9e999" end
  return text:find "[.e]" and text or text .. ".0"
end

function translate.literal(scope, node)
  local kind, given = node.type, node.value
  if kind == "VOID" then return value("NULL", kind) end
  if kind == "BOOLEAN" then return value(given and "1" or "0", kind) end
  if kind == "STRING" then return value(scope.binder.bind(given), kind) end
  return value(number_text(given), kind)
end

function translate.parameter(scope, node)
  local found = scope.binder.parameters[node.name:lower()]
  if not found then
    failure.raise("UNBOUND_SQL_PARAMETER", node.at, "The parameter :%s has no value.", node.name)
  end
  return found
end

local function has_qualifier(scope, parts, last)
  local names = scope.qualifiers
  for back = 0, last - 1 do
    local name = names[#names - back]
    if not name or name:lower() ~= parts[last - back]:lower() then return false end
  end
  return true
end

local function unresolved(scope, node)
  local shown, names = table.concat(node.parts, "."), {}
  for _, column in pairs(scope.columns) do names[column.name] = true end
  local near = options.nearest(node.parts[#node.parts], names)
  failure.raise("UNRESOLVED_COLUMN.WITH_SUGGESTION", node.at, "A column `%s` cannot be resolved.%s", shown,
    near and (" Did you mean `%s`?"):format(near) or "")
end

local element_of

-- A column, a column with what it belongs to before it, or a field of a column.
function translate.column(scope, node)
  local parts = node.parts
  for last = 0, #parts - 1 do
    local column = scope.columns[parts[last + 1]:lower()]
    if column and has_qualifier(scope, parts, last) then
      local found = value(column.sql, column.type)
      for index = last + 2, #parts do found = element_of(scope, node.at, found, parts[index]) end
      return found
    end
  end
  return unresolved(scope, node)
end

-- ---- operators ----

-- a OR b OR c in one pair of brackets: SQLite's parser takes a hundred, one in the other.
local function chained(node, left, right, kind)
  local bare = ("%s %s %s"):format(left.chain == node.operator and left.bare or left.sql, node.operator,
    right.sql)
  return { sql = "(" .. bare .. ")", type = kind, chain = node.operator, bare = bare }
end

local function arithmetic(_, node, left, right)
  left, right = types.number(left, node.at, node.operator), types.number(right, node.at, node.operator)
  local is_whole = left.type ~= "DOUBLE" and right.type ~= "DOUBLE"
  local operator = node.operator
  if operator == "/" or operator == "%" or operator == "DIV" then
    local divisor = ("sluice_divisor(%s)"):format(right.sql)
    if operator == "/" then return value(("(CAST(%s AS REAL) / %s)"):format(left.sql, divisor), "DOUBLE") end
    if operator == "DIV" then
      return value(("CAST(%s / %s AS INTEGER)"):format(left.sql, divisor), "BIGINT")
    end
    if not is_whole then failure.unsupported(node.at, "% of fractions") end
    return value(("(%s %% %s)"):format(left.sql, divisor), "BIGINT")
  end
  return chained(node, left, right, is_whole and "BIGINT" or "DOUBLE")
end

local function interval_sum(node, left, right)
  local sign = node.operator == "-" and -1 or 1
  if left.type == "INTERVAL" and sign == 1 then left, right = right, left end
  if left.type == "INTERVAL" or right.type ~= "INTERVAL" then
    types.mismatch(node.at, "%s of %s and %s.", node.operator, left.type, right.type)
  end
  return value(functions.shifted(left, sign * right.count, right.unit, node.at))
end

local function sum(scope, node, left, right)
  if left.type == "INTERVAL" or right.type == "INTERVAL" then return interval_sum(node, left, right) end
  return arithmetic(scope, node, left, right)
end

local function comparison(_, node, left, right)
  local list = types.unify({ left, right }, node.at, "The sides of " .. node.operator)
  local operator = ({ ["=="] = "=", ["!="] = "<>", ["<=>"] = "IS" })[node.operator] or node.operator
  return value(("(%s %s %s)"):format(list[1].sql, operator, list[2].sql), "BOOLEAN")
end

local function logic(_, node, left, right)
  types.condition(left, node.at, node.operator)
  types.condition(right, node.at, node.operator)
  return chained(node, left, right, "BOOLEAN")
end

local function joined(_, node, left, right)
  if left.type ~= "STRING" then left = types.cast(left, "STRING", node.at) end
  return chained(node, left, types.cast(right, "STRING", node.at), "STRING")
end

local BINARY <const> = {
  ["+"] = sum, ["-"] = sum, ["*"] = arithmetic, ["/"] = arithmetic, ["%"] = arithmetic, DIV = arithmetic,
  ["="] = comparison, ["=="] = comparison, ["<>"] = comparison, ["!="] = comparison, ["<"] = comparison,
  ["<="] = comparison, [">"] = comparison, [">="] = comparison, ["<=>"] = comparison,
  AND = logic, OR = logic, ["||"] = joined,
}

function translate.binary(scope, node)
  local read = BINARY[node.operator] == sum and any_of or of
  local left, right = read(scope, node.left), read(scope, node.right)
  return BINARY[node.operator](scope, node, left, right)
end

translate["not"] = function(scope, node)
  local inner = types.condition(of(scope, node.value), node.at, "NOT")
  return value(("(NOT %s)"):format(inner.sql), "BOOLEAN")
end

function translate.negative(scope, node)
  local inner = any_of(scope, node.value)
  if inner.type == "INTERVAL" then
    return { sql = "", type = "INTERVAL", count = -inner.count, unit = inner.unit }
  end
  inner = types.number(inner, node.at, "-")
  return value(("(-%s)"):format(inner.sql), inner.type)
end

function translate.interval(_, node)
  return { sql = "", type = "INTERVAL", count = node.value, unit = node.unit }
end

function translate.is(scope, node)
  local inner = of(scope, node.value)
  local word = node.is_not and "IS NOT" or "IS"
  if node.what == "NULL" then return value(("(%s %s NULL)"):format(inner.sql, word), "BOOLEAN") end
  inner = types.condition(inner, node.at, "IS " .. node.what)
  return value(("(%s %s %s)"):format(inner.sql, word, node.what == "TRUE" and "1" or "0"), "BOOLEAN")
end

translate["in"] = function(scope, node)
  local list = { of(scope, node.value) }
  for _, each in ipairs(node.list) do list[#list + 1] = of(scope, each) end
  list = types.unify(list, node.at, "The values of IN")
  local parts = {}
  for index = 2, #list do parts[index - 1] = list[index].sql end
  local word = node.is_not and "NOT IN" or "IN"
  return value(("(%s %s (%s))"):format(list[1].sql, word, table.concat(parts, ", ")), "BOOLEAN")
end

function translate.between(scope, node)
  local list = types.unify({ of(scope, node.value), of(scope, node.low), of(scope, node.high) }, node.at,
    "The values of BETWEEN")
  local word = node.is_not and "NOT BETWEEN" or "BETWEEN"
  return value(("(%s %s %s AND %s)"):format(list[1].sql, word, list[2].sql, list[3].sql), "BOOLEAN")
end

function translate.like(scope, node)
  local inner = types.cast(of(scope, node.value), "STRING", node.at)
  local pattern = types.cast(of(scope, node.pattern), "STRING", node.at)
  local word = node.is_not and "NOT LIKE" or "LIKE"
  return value(("(%s %s %s ESCAPE '\\')"):format(inner.sql, word, pattern.sql), "BOOLEAN")
end

-- ---- what has parts ----

function element_of(scope, at, inner, key)
  if inner.type == "MAP" and type(key) == "string" then
    if key:find '"' then failure.unsupported(at, "A key with a quote in it") end
    return value(functions.json_part(inner.sql, scope.binder.bind('$."' .. key .. '"')), "STRING")
  elseif inner.type == "ARRAY" and math.type(key) == "integer" and key >= 0 then
    return value(functions.json_part(inner.sql, scope.binder.bind(("$[%d]"):format(key))), "STRING")
  end
  return types.mismatch(at, "A %s has no such part.", inner.type)
end

function translate.element(scope, node)
  local inner, key = of(scope, node.value), node.key
  if key.kind ~= "literal" then failure.unsupported(node.at, "A key that is no literal") end
  return element_of(scope, node.at, inner, key.value)
end

function translate.case(scope, node)
  local results, parts = {}, {}
  for index, when in ipairs(node.whens) do
    local condition = of(scope, when.condition)
    if node.operand then
      local list = types.unify({ of(scope, node.operand), condition }, node.at, "The values of CASE")
      condition = value(("(%s = %s)"):format(list[1].sql, list[2].sql), "BOOLEAN")
    end
    parts[index] = types.condition(condition, node.at, "WHEN").sql
    results[index] = of(scope, when.value)
  end
  results[#results + 1] = node.otherwise and of(scope, node.otherwise) or value("NULL", "VOID")
  local list, kind = types.unify(results, node.at, "The branches of CASE")
  for index in ipairs(node.whens) do
    parts[index] = ("WHEN %s THEN %s"):format(parts[index], list[index].sql)
  end
  return value(("CASE %s ELSE %s END"):format(table.concat(parts, " "), list[#list].sql), kind)
end

function translate.cast(scope, node)
  local to = types.named(node.to, node.to_at)
  return types.cast(of(scope, node.value), to, node.at, node.is_try)
end

-- ---- calls ----

local function function_of(node)
  local found = functions.known[node.name]
  if found then return found end
  if node.name == "ai_query" then
    failure.unsupported(node.at, "ai_query anywhere but as a column of the outermost SELECT")
  end
  local near = options.nearest(node.name, functions.known)
  failure.raise("UNRESOLVED_ROUTINE", node.at, "The function `%s` is not known to the emulator's SQL.%s",
    node.shown,
    near and (" Did you mean `%s`?"):format(near) or "")
end

local function check_call(node, found)
  if #node.named > 0 then failure.unsupported(node.named[1].at, "The argument " .. node.named[1].name) end
  local count = #node.arguments
  if (node.is_star or node.is_distinct or node.filter) and not found.is_aggregate then
    failure.unsupported(node.at, ("%s with *, DISTINCT or FILTER"):format(node.shown))
  elseif node.is_star and node.name ~= "count" then
    failure.unsupported(node.at, node.shown .. "(*)")
  elseif not node.is_star and (count < found.least or count > found.most) then
    local wanted = found.least == found.most and found.least or ("%d to %d"):format(found.least, found.most)
    failure.raise("WRONG_NUM_ARGS", node.at, "%s needs %s arguments, not %d.", node.shown, wanted, count)
  end
end

local function literal_of(scope, node)
  if node.kind == "literal" then return node.value end
  if node.kind == "parameter" then return translate.parameter(scope, node).value end
  return nil
end

local function inside(scope, place)
  return setmetatable({ place = place }, { __index = scope })
end

local function enter_aggregate(scope, node)
  if scope.place == "aggregate" then
    failure.raise("NESTED_AGGREGATE_FUNCTION", node.at, "%s stands inside another aggregate.", node.shown)
  elseif scope.place ~= "value" then
    failure.unsupported(node.at, ("%s in %s"):format(node.shown,
      scope.place == "group" and "GROUP BY" or "WHERE"))
  end
  scope.has_aggregate = true
  return inside(scope, "aggregate")
end

function translate.call(scope, node)
  local found = function_of(node)
  check_call(node, found)
  local inner = found.is_aggregate and enter_aggregate(scope, node) or scope
  local call = {
    at = node.at, shown = node.shown, now = scope.binder.now, bind = scope.binder.bind,
    is_distinct = node.is_distinct, is_star = node.is_star, filter = "",
  }
  for index, each in ipairs(node.arguments) do
    local made = of(inner, each)
    call[index] = { sql = made.sql, type = made.type, literal = literal_of(scope, each) }
  end
  if node.filter then
    call.filter = (" FILTER (WHERE %s)"):format(types.condition(of(inner, node.filter), node.at,
      "FILTER").sql)
  end
  return value(found.make(call))
end

return values
