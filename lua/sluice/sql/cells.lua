-- SPDX-License-Identifier: MIT
-- The cells of a result: text on the wire whatever their type, Lua values by the type of their column.

local errors = require "sluice.errors"
local json = require "sluice.json"

local cells = {}

local function whole(text) return math.tointeger(tonumber(text)) end

local SPECIAL <const> = { NaN = 0 / 0, Infinity = math.huge, ["-Infinity"] = -math.huge }

local function fraction(text)
  local number = SPECIAL[text] or tonumber(text)
  return number and number + 0.0
end

local BOOLEANS <const> = { ["true"] = true, ["false"] = false }

local function truth(text) return BOOLEANS[text:lower()] end

local function tree(text)
  local value = json.decode(text)
  return value
end

local READERS <const> = {
  BYTE = whole, TINYINT = whole, SHORT = whole, SMALLINT = whole, INT = whole, LONG = whole, BIGINT = whole,
  FLOAT = fraction, DOUBLE = fraction, BOOLEAN = truth, ARRAY = tree, MAP = tree, STRUCT = tree,
}

-- A double holds so many decimal digits exactly.
local EXACT_DIGITS <const> = 15

---What makes a Lua value of a cell's text; nil where the text is the value.
---@param column { type: string, precision: integer? }
---@return (fun(text: string): any)?
function cells.reader(column)
  if column.type == "DECIMAL" then
    return column.precision and column.precision <= EXACT_DIGITS and fraction or nil
  end
  return READERS[column.type]
end

local function whole_of(value) return math.tointeger(tonumber(value)) end

---The columns of a result, by a manifest. Names that come twice get a number.
---@param manifest any
---@return sluice.SqlColumn[]
function cells.columns(manifest)
  local schema = type(manifest) == "table" and manifest.schema
  local list, seen = {}, {}
  for index, each in ipairs(type(schema) == "table" and schema.columns or {}) do
    local name, count = tostring(each.name), 1
    local column = { name = name, type = tostring(each.type_name), text = each.type_text }
    column.precision, column.scale = whole_of(each.type_precision), whole_of(each.type_scale)
    while seen[column.name] do
      count = count + 1
      column.name = ("%s_%d"):format(name, count)
    end
    seen[column.name] = true
    list[index] = column
  end
  return list
end

local function unreadable(column, text)
  return nil, errors.new("ProtocolError", {
    operation = "read SQL result",
    message = ("the column %s is of type %s, and a cell of it is %s"):format(column.name, column.type,
      errors.excerpt(tostring(text))),
  })
end

---A row by the names of its columns; NULL is nil.
---@param columns sluice.SqlColumn[]
---@param texts any[] the cells as they came
---@return table<string, any>? row
---@return sluice.Error? err kind ProtocolError
function cells.row(columns, texts)
  local row = {}
  for index = 1, #columns do
    local column, text = columns[index], texts[index]
    if text ~= nil and text ~= json.null then
      local read, value = column.read, text
      if type(text) ~= "string" then return unreadable(column, text) end
      if read then value = read(text) end
      if value == nil then return unreadable(column, text) end
      row[column.name] = value
    end
  end
  return row
end

return cells
