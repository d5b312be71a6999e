-- SPDX-License-Identifier: MIT
-- JSON text to Lua values and back, exact and strict. The rules of the mapping are in docs/json.md.

local core = require "sluice.core.json"

local json = {}

---The value of JSON's null inside tables; the same as cjson.null. True in a condition.
---@type lightuserdata
json.null = core.null

---The metatable that marks a table as an array. Decoded arrays have it, so that `[]` stays an array.
---@type table
json.array_mt = core.array_metatable

---Marks a table as an array: encoded as `[]` even when it is empty.
---@param values? table the array itself, changed in place; a new one when left out
---@return table values
function json.array(values)
  if values == nil then values = {} end
  if type(values) ~= "table" then
    error(("json.array: a table is needed, got %s"):format(type(values)), 2)
  end
  local metatable = getmetatable(values)
  if metatable ~= nil and metatable ~= json.array_mt then
    error("json.array: the table has a metatable of its own", 2)
  end
  return setmetatable(values, json.array_mt)
end

---Whether the table is marked as an array.
---@param value any
---@return boolean
function json.is_array(value)
  return type(value) == "table" and getmetatable(value) == json.array_mt
end

local DEEPEST = 100000

local function depth(value)
  return math.type(value) == "integer" and value >= 1 and value <= DEEPEST, "an integer from 1 to 100000"
end

local function utf8_rule(value)
  return value == "error" or value == "replace", '"error" or "replace"'
end

local decode_options = { max_depth = depth, invalid_utf8 = utf8_rule }
local encode_options = {
  canonical = "boolean?",
  pretty = "boolean?",
  max_depth = depth,
  invalid_utf8 = utf8_rule,
}

-- Levels above options.check: the hook, the C function, its caller.
local CALLER = 4

local function check_encode(given)
  require("sluice.options").check("json.encode", given, encode_options, CALLER)
end

local function check_decode(given)
  require("sluice.options").check("json.decode", given, decode_options, CALLER)
end

-- Counts bytes, not characters: that is what an offset is for.
local function place(text, offset)
  local line, start = 1, 1
  while true do
    local newline = text:find("\n", start, true)
    if not newline or newline >= offset then return line, offset - start + 1 end
    line, start = line + 1, newline + 1
  end
end

local function make_error(text, message, offset)
  local line, column = place(text, offset)
  local found = text:match("^[%g ]", offset)
  local near = found and (": %q"):format(found) or ""
  return require("sluice.errors").new("JsonError", {
    operation = "decode JSON",
    message = ("%s at byte %d (line %d, column %d)%s"):format(message, offset, line, column, near),
    offset = offset,
    line = line,
    column = column,
  })
end

local encode, decode = core.codec(check_encode, check_decode, make_error)

---The JSON text of a value. Does not wait.
---
---Tables marked as arrays, and tables with the keys 1 to n, become arrays; tables with string keys
---become objects; an empty plain table becomes `{}`. Integers stay integers and floats stay floats
---(`1` and `1.0`), in the shortest form that reads back as the same number.
---
---Raises, with the path to the offending part, for what JSON cannot express: a function, NaN, a table
---that contains itself or has holes or mixed keys, a secret, any other object. A metatable's
---`__tojson(value)` may give a plain value to encode instead; it cannot wait.
---
---Options: `canonical` (keys in byte order; false), `pretty` (lines and two spaces a level, keys in
---order; false), `invalid_utf8` ("replace": U+FFFD, the default; "error": raises), `max_depth` (1000).
---@param value any
---@param options? { canonical?: boolean, pretty?: boolean, invalid_utf8?: string, max_depth?: integer }
---@return string text
json.encode = encode

---The value of a JSON text (RFC 8259, nothing beside it). Does not wait.
---
---Integers of 64 bits become integers, all other numbers floats; null becomes json.null; arrays are
---marked (see json.array); of two equal keys the last wins; half of a surrogate pair becomes U+FFFD.
---
---Options: `max_depth` (1000 levels), `invalid_utf8` ("error", the default, or "replace": U+FFFD).
---@param text string
---@param options? { max_depth?: integer, invalid_utf8?: string }
---@return any value nil when the text is wrong
---@return sluice.Error? err kind "JsonError", with `offset`, `line` and `column`, counted in bytes from 1
json.decode = decode

return json
