-- SPDX-License-Identifier: MIT
-- Translates a query to SQLite: its sources, its groups, its order, and the columns of its result.

local failure = require "sluice.emulator.sql.failure"
local functions = require "sluice.emulator.sql.functions"
local types = require "sluice.emulator.sql.types"
local values = require "sluice.emulator.sql.values"

local query = {}

---What queries are translated with.
---@class sluice.emulator.sql.Context
---@field binder sluice.emulator.sql.Binder
---@field find_table fun(parts: string[], at: integer): string, sluice.emulator.sql.Column[], string[] the SQL, the columns and the full name of a table
---@field named table<string, sluice.emulator.sql.Translated> common table expressions, by name in small letters

---@class sluice.emulator.sql.Translated
---@field sql string
---@field columns { name: string, type: string }[]
---@field ai? sluice.emulator.sql.AiQuery[] the calls of ai_query, by the place of their column

local function quoted(name) return '"' .. name:gsub('"', '""') .. '"' end

-- ---- sources ----

local translate

-- Rows that come as a parameter: a JSON array of strings, with their places from 0.
local function rows_source(context, source)
  local given = context.binder.parameters[source.parameter:lower()]
  if not given then
    failure.raise("UNBOUND_SQL_PARAMETER", source.parameter_at, "The parameter :%s has no value.",
      source.parameter)
  end
  local sql = ("SELECT key AS pos, CAST(value AS TEXT) AS col FROM json_each(%s)"):format(given.sql)
  return sql, { { name = "pos", type = "INT" }, { name = "col", type = "STRING" } }, {}
end

local function source_of(context, source)
  if source.kind == "rows" then return rows_source(context, source) end
  local found
  if source.kind == "query" then
    found = translate(context, source.query)
  else
    found = #source.parts == 1 and context.named[source.parts[1]:lower()]
    if not found then return context.find_table(source.parts, source.at) end
  end
  return found.sql, found.columns, source.parts or {}
end

-- What a source's columns are called: by its alias, where that says so.
local function renamed(source, columns)
  if not source.columns then return columns end
  if #source.columns ~= #columns then
    failure.raise("WRONG_NUM_ARGS", source.at, "The alias names %d columns, and there are %d.",
      #source.columns,
      #columns)
  end
  local made = {}
  for index, column in ipairs(columns) do
    made[index] = { name = source.columns[index], type = column.type, inner = column.name }
  end
  return made
end

local function open_source(context, source)
  local scope = { columns = {}, qualifiers = {}, binder = context.binder, place = "value",
    has_aggregate = false }
  if not source then return scope, {}, nil end
  local sql, columns, qualifiers = source_of(context, source)
  columns = renamed(source, columns)
  scope.qualifiers = source.alias and { source.alias } or qualifiers
  for _, column in ipairs(columns) do
    local its = "source." .. quoted(column.inner or column.name)
    scope.columns[column.name:lower()] = { name = column.name, sql = its, type = column.type }
  end
  return scope, columns, ("(%s) AS source"):format(sql)
end

-- ---- the columns ----

-- The text of a node as the warehouse would name its column.
local function name_of(item)
  if item.alias then return item.alias end
  local node = item.value
  if node.kind == "column" then return node.parts[#node.parts] end
  if node.kind == "call" then return ("%s(%s)"):format(node.shown, node.is_star and "1" or "...") end
  return "expression"
end

local function expanded(source_columns, item, items)
  if #source_columns == 0 then failure.raise("PARSE_SYNTAX_ERROR", item.at, "* needs a FROM.") end
  for _, column in ipairs(source_columns) do
    local node = { kind = "column", at = item.at, depth = 1, parts = { column.name } }
    items[#items + 1] = { value = node, alias = column.name, at = item.at }
  end
end

-- The names are told apart, for the sake of those who select from this query.
local function add_names(items)
  local seen = {}
  for _, item in ipairs(items) do
    local name, count = name_of(item), 1
    item.name = name
    while seen[item.name:lower()] do
      count = count + 1
      item.name = ("%s_%d"):format(name, count)
    end
    seen[item.name:lower()] = true
  end
end

local function items_of(parsed, source_columns)
  local items = {}
  for _, item in ipairs(parsed.items) do
    if item.value then
      items[#items + 1] = { value = item.value, alias = item.alias, at = item.at }
    else
      expanded(source_columns, item, items)
    end
  end
  if #items > 500 then failure.unsupported(parsed.at, "A SELECT of more than 500 columns") end
  add_names(items)
  return items
end

-- ---- groups ----

-- An integer alone would be a column's place to SQLite.
local function no_place(sql) return sql:find "[^%d()-]" and sql or ("(%s + 0)"):format(sql) end

-- What a key of GROUP BY or ORDER BY means: a column's place, or an alias, or an expression.
local function meant(key, items, scope)
  if key.kind == "literal" and math.type(key.value) == "integer" then
    local item = items[key.value]
    if not item then
      failure.raise("GROUP_BY_POS_OUT_OF_RANGE", key.at, "There is no column %d; there are %d.", key.value,
        #items)
    end
    return item.value, key.value
  end
  if key.kind ~= "column" or #key.parts > 1 then return key end
  local name = key.parts[1]:lower()
  if scope and scope.columns[name] then return key end
  for index, item in ipairs(items) do
    if item.alias and item.alias:lower() == name then return item.value, index end
  end
  return key
end

local function has_aggregate(node)
  if node.kind == "call" and (functions.known[node.name] or {}).is_aggregate then return true end
  for name, child in pairs(node) do
    if type(child) == "table" and name ~= "parts" and has_aggregate(child) then return true end
  end
  return false
end

local function in_place(scope, place)
  return setmetatable({ place = place }, { __index = scope, __newindex = scope })
end

local function groups_of(parsed, items, scope)
  local keys, texts = parsed.group, {}
  if parsed.is_group_all then
    keys = {}
    for _, item in ipairs(items) do
      if not has_aggregate(item.value) then keys[#keys + 1] = item.value end
    end
  end
  local list, inner = {}, in_place(scope, "group")
  for index, key in ipairs(keys) do
    local made = values.of(inner, (meant(key, items, scope)))
    list[index], texts[made.sql] = no_place(made.sql), true
  end
  return list, texts
end

local check_grouped

local function check_children(node, scope, texts)
  for name, child in pairs(node) do
    if type(child) == "table" and name ~= "parts" then
      if child.kind then
        check_grouped(child, scope, texts)
      else
        check_children(child, scope, texts)
      end
    end
  end
end

-- Every column must be in a group or in an aggregate: the warehouse fails where SQLite takes any row's.
function check_grouped(node, scope, texts)
  if node.kind == "call" and (functions.known[node.name] or {}).is_aggregate then return end
  if texts[values.of(scope, node).sql] then return end
  if node.kind == "column" then
    failure.raise("MISSING_AGGREGATION", node.at,
      "The column `%s` is neither in GROUP BY nor in an aggregate function.", table.concat(node.parts, "."))
  end
  check_children(node, scope, texts)
end

-- ---- clauses ----

local function condition_of(scope, node, what)
  return types.condition(values.of(scope, node), node.at, what).sql
end

local function order_of(parsed, items, scope, check)
  local list = {}
  for index, key in ipairs(parsed.order) do
    local node, place = meant(key.value, items)
    local sql
    if place then
      sql = ("%d"):format(place)
    else
      check(node)
      sql = no_place(values.of(scope, node).sql)
    end
    local direction = key.is_descending and " DESC" or " ASC"
    list[index] = sql .. direction .. (key.nulls and " NULLS " .. key.nulls or "")
  end
  return list
end

local function count_of(scope, node, what)
  local given = node.kind == "literal" and node.value
    or node.kind == "parameter" and values.of(scope, node).value
  if math.type(given) ~= "integer" or given < 0 then
    failure.raise("INVALID_PARAMETER_VALUE", node.at, "%s needs a whole number of at least 0.", what)
  end
  return given
end

local function limit_of(parsed, scope)
  if not parsed.limit and not parsed.offset then return "" end
  local limit = parsed.limit and count_of(scope, parsed.limit, "LIMIT") or -1
  local offset = parsed.offset and count_of(scope, parsed.offset, "OFFSET") or 0
  return (" LIMIT %d OFFSET %d"):format(limit, offset)
end

-- ---- all of it ----

-- An alias is known in HAVING too.
local function having_of(parsed, items, scope)
  local aliases = setmetatable({}, { __index = scope.columns })
  for _, item in ipairs(items) do
    local name = item.alias and item.alias:lower()
    if name and not scope.columns[name] then
      local made = values.of(scope, item.value)
      aliases[name] = { name = item.alias, sql = made.sql, type = made.type }
    end
  end
  local inner = setmetatable({ columns = aliases }, { __index = scope, __newindex = scope })
  return condition_of(inner, parsed.having, "HAVING")
end

local function translate_items(items, scope, ai)
  local list, columns, calls = {}, {}, nil
  for index, item in ipairs(items) do
    local made = ai and ai(scope, item.value)
    if made then
      calls = calls or {}
      calls[index] = made
    else
      made = values.of(scope, item.value)
    end
    list[index] = ("%s AS %s"):format(made.sql, quoted(item.name))
    columns[index] = { name = item.name, type = made.type }
  end
  return list, columns, calls
end

local function add_named(context, parsed)
  if #parsed.with == 0 then return context end
  local named = setmetatable({}, { __index = context.named })
  local inner = setmetatable({ named = named }, { __index = context })
  for _, each in ipairs(parsed.with) do named[each.name:lower()] = translate(inner, each.query) end
  return inner
end

local LONGEST <const> = 500000 -- bytes; SQLite takes a million

-- The clauses after FROM, and what makes sure that a node is grouped.
local function grouped(parsed, items, scope)
  local groups, texts = groups_of(parsed, items, scope)
  local is_grouped = #groups > 0 or parsed.is_group_all or parsed.having ~= nil
  for _, item in ipairs(items) do is_grouped = is_grouped or has_aggregate(item.value) end
  local function check(node)
    if is_grouped then check_grouped(node, scope, texts) end
  end
  return groups, check
end

---Translates a query. Raises a failure.
---@param context sluice.emulator.sql.Context
---@param parsed sluice.emulator.sql.Query
---@param ai? fun(scope: sluice.emulator.sql.Scope, node: sluice.emulator.sql.Node): sluice.emulator.sql.AiQuery? translates a call of ai_query; only of the outermost query
---@return sluice.emulator.sql.Translated
function query.translate(context, parsed, ai)
  context = add_named(context, parsed)
  local scope, source_columns, from = open_source(context, parsed.from)
  local items = items_of(parsed, source_columns)
  local list, columns, calls = translate_items(items, scope, ai)
  local parts = { "SELECT ", parsed.is_distinct and "DISTINCT " or "", table.concat(list, ", ") }
  local function add(text) parts[#parts + 1] = text end
  if from then add(" FROM " .. from) end
  if parsed.where then add(" WHERE " .. condition_of(in_place(scope, "condition"), parsed.where, "WHERE")) end
  local groups, check = grouped(parsed, items, scope)
  for index, item in ipairs(items) do
    if not (calls and calls[index]) then check(item.value) end
  end
  if #groups > 0 then add(" GROUP BY " .. table.concat(groups, ", ")) end
  if parsed.having then add(" HAVING " .. having_of(parsed, items, scope)) end
  local order = order_of(parsed, items, scope, check)
  if #order > 0 then add(" ORDER BY " .. table.concat(order, ", ")) end
  add(limit_of(parsed, scope))
  local sql = table.concat(parts)
  if #sql > LONGEST then failure.unsupported(parsed.at, "A statement that is so long in SQLite") end
  return { sql = sql, columns = columns, ai = calls }
end

translate = query.translate

return query
