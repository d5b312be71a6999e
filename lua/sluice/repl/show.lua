-- SPDX-License-Identifier: MIT
-- Values as text for people: tables within limits, cycles told, strings quoted, colour where it is wanted.

local options = require "sluice.options"
local source = require "sluice.repl.source"

local show = {}

-- Limits that keep an answer on a screen or two; `depth` and the others of show.value's options go before them.
local DEPTH <const> = 5
local ITEMS <const> = 50 -- of each table
local STRING_BYTES <const> = 2000
local COLUMNS <const> = 80
local MOST_KEYS <const> = 10000 -- that are sorted; a table with more is shown in part anyway

local RESET <const> = "\27[0m"
local COLORS <const> = {
  string = "\27[32m", number = "\27[33m", constant = "\27[35m", note = "\27[2m", error = "\27[31m",
  name = "\27[36m",
}

---@class sluice.repl.ShowOptions
---@field color? boolean ANSI colours; false
---@field columns? integer the width that lines should keep to; 80
---@field depth? integer levels of tables; 5
---@field items? integer shown of each table; 50

---A piece of text in the colour of its kind, where there are colours.
---@param kind "string"|"number"|"constant"|"note"|"error"|"name"
---@param text string
---@param color? boolean
---@return string
function show.paint(kind, text, color)
  return color and COLORS[kind] .. text .. RESET or text
end

---How many cells of a terminal a text takes, its colours left out: characters, as far as they are UTF-8.
---@param text string
---@return integer
function show.width(text)
  text = text:gsub("\27%[[%d;]*m", "")
  return utf8.len(text) or #text
end

local ESCAPES <const> = {
  ["\n"] = "\\n", ["\t"] = "\\t", ["\r"] = "\\r", ["\\"] = "\\\\", ['"'] = '\\"', ["\27"] = "\\27",
  ["\0"] = "\\0",
}

local function escape_byte(byte)
  return ("\\x%02X"):format(byte:byte())
end

-- Bytes that are no UTF-8 as escapes; utf8.len tells where they stand.
local function escape_invalid(text)
  local pieces, from = {}, 1
  while from <= #text do
    local whole, wrong = utf8.len(text, from)
    if whole then break end
    pieces[#pieces + 1] = text:sub(from, wrong - 1) .. escape_byte(text:sub(wrong, wrong))
    from = wrong + 1
  end
  return table.concat(pieces) .. text:sub(from)
end

local function quote(text)
  local cut = ""
  if #text > STRING_BYTES then
    local stop = utf8.offset(text, 0, STRING_BYTES + 1) or STRING_BYTES + 1
    cut = (" (%d of %d bytes)"):format(stop - 1, #text)
    text = text:sub(1, stop - 1)
  end
  text = text:gsub('[%c\\"]', function(byte) return ESCAPES[byte] or escape_byte(byte) end)
  -- C1 controls, which terminals obey too
  text = text:gsub("\xC2([\x80-\x9F])", function(byte) return escape_byte "\xC2" .. escape_byte(byte) end)
  return '"' .. escape_invalid(text) .. '"', cut
end

local function number_text(value)
  if value ~= value then return "nan" end
  if value == math.huge then return "inf" end
  if value == -math.huge then return "-inf" end
  return tostring(value)
end

-- What an object's own metamethod says; nil where it fails.
local function own_text(value)
  local ok, text = pcall(tostring, value)
  return ok and text or nil
end

local function metafield(value, name)
  local its = getmetatable(value)
  return type(its) == "table" and rawget(its, name) or nil
end

local function function_text(value)
  local info = debug and debug.getinfo and debug.getinfo(value, "S")
  if not info then return "function" end
  if info.what == "C" then return "function: built in" end
  return ("function: %s:%d"):format(info.short_src, info.linedefined)
end

local function scalar(value, color)
  local kind = type(value)
  if kind == "string" then
    local text, cut = quote(value)
    return show.paint("string", text, color) .. show.paint("note", cut, color and cut ~= "")
  elseif kind == "number" then
    return show.paint("number", number_text(value), color)
  elseif kind == "nil" or kind == "boolean" then
    return show.paint("constant", tostring(value), color)
  elseif kind == "function" then
    return show.paint("note", function_text(value), color)
  end
  local json = package.loaded["sluice.json"]
  if json and value == json.null then return show.paint("constant", "json.null", color) end
  local name = metafield(value, "__name")
  return show.paint("note", own_text(value) or name or kind, color)
end

-- ---- tables ----

local RANK <const> = { number = 1, string = 2, boolean = 3 }

local function is_before(a, b)
  local rank_a, rank_b = RANK[type(a)] or 4, RANK[type(b)] or 4
  if rank_a ~= rank_b then return rank_a < rank_b end
  if rank_a <= 2 then return a < b end
  return tostring(a) < tostring(b)
end

-- Objects show what pairs gives where they say so themselves; other tables what they hold.
local function iterate(value)
  if metafield(value, "__pairs") then
    local ok, step, state, first = pcall(pairs, value)
    if ok then return step, state, first end
  end
  return next, value, nil
end

-- Keys that are no part of the array, sorted, and values by key. `hides`: an object's own affairs are left out.
local function keys_of(value, length, hides)
  local keys, values, more = {}, {}, false
  local ok = pcall(function()
    for key, item in iterate(value) do
      local in_array = math.type(key) == "integer" and key >= 1 and key <= length
      local hidden = hides and type(key) == "string" and key:sub(1, 1) == "_"
      if not in_array and not hidden then
        if #keys == MOST_KEYS then
          more = true
          break
        end
        keys[#keys + 1] = key
        values[key] = item
      end
    end
  end)
  table.sort(keys, is_before)
  return keys, values, more or not ok
end

local function array_length(value)
  local length = rawlen(value)
  -- a border in a table with holes may lie anywhere: an array is what is filled from 1 on
  for index = 1, math.min(length, ITEMS) do
    if rawget(value, index) == nil then return index - 1 end
  end
  return length
end

local describe -- (state, value, depth, indent) -> text

local function key_text(state, key, depth, indent)
  if type(key) == "string" and key:find "^[%a_][%w_]*$" and not source.keywords[key] then
    return show.paint("name", key, state.color) .. " = "
  end
  return "[" .. describe(state, key, depth + 1, indent) .. "] = "
end

local function items_of(state, value, depth, indent, hides)
  local items, length = {}, array_length(value)
  local keys, values, more = keys_of(value, length, hides)
  for index = 1, math.min(length, state.items) do
    items[index] = describe(state, rawget(value, index), depth + 1, indent)
  end
  for index = 1, math.min(#keys, state.items - #items) do
    local key = keys[index]
    local text = describe(state, values[key], depth + 1, indent)
    items[#items + 1] = key_text(state, key, depth, indent) .. text
  end
  local left = length + #keys - #items
  if left > 0 then
    local text = ("... %d more%s"):format(left, more and ", at least" or "")
    items[#items + 1] = show.paint("note", text, state.color)
  end
  return items
end

-- On one line where that fits, else an item a line.
local function lay_out(state, name, items, indent)
  if #items == 0 then return name .. "{}" end
  local width, is_flat = indent + show.width(name) + 4, true
  for _, item in ipairs(items) do
    width = width + show.width(item) + 2
    is_flat = is_flat and not item:find("\n", 1, true)
  end
  if is_flat and width <= state.columns then return name .. "{ " .. table.concat(items, ", ") .. " }" end
  local margin = (" "):rep(indent + 2)
  return name .. "{\n" .. margin .. table.concat(items, ",\n" .. margin) .. "\n" .. (" "):rep(indent) .. "}"
end

local function describe_table(state, value, depth, indent)
  if state.open[value] then return show.paint("note", "<cycle>", state.color) end
  local name = metafield(value, "__name")
  name = type(name) == "string" and name .. " " or ""
  if depth >= state.depth then
    if next(value) == nil then return name .. "{}" end
    return name .. show.paint("note", "{...}", state.color)
  end
  state.open[value] = true
  local items = items_of(state, value, depth, indent + 2, name ~= "")
  state.open[value] = nil
  return lay_out(state, name, items, indent)
end

function describe(state, value, depth, indent)
  if type(value) ~= "table" then return scalar(value, state.color) end
  if metafield(value, "__tostring") or options.type_name(value) == "secret" then
    local text = own_text(value)
    local kind = package.loaded["sluice.errors"] and require("sluice.errors").is(value) and "error" or "note"
    if text then return show.paint(kind, text, state.color) end
  end
  return describe_table(state, value, depth, indent)
end

---A value as text, which may have several lines. Never raises, never waits; metamethods __tostring and __pairs are
---called.
---@param value any
---@param given? sluice.repl.ShowOptions
---@return string
function show.value(value, given)
  given = options.check("show.value", given, {
    color = "boolean?", columns = "count?", depth = "integer?", items = "count?",
  })
  local state = {
    color = given.color, columns = given.columns or COLUMNS, depth = given.depth or DEPTH,
    items = given.items or ITEMS, open = {},
  }
  return describe(state, value, 0, 0)
end

return show
