-- SPDX-License-Identifier: MIT
-- A SQL statement as tokens: words, quoted names, strings, numbers, parameters, symbols.

local failure = require "sluice.emulator.sql.failure"

local tokens = {}

---@class sluice.emulator.sql.Token
---@field kind "word"|"name"|"string"|"number"|"parameter"|"symbol"|"end"
---@field text string as it stands there
---@field upper string? of a word: in capitals
---@field value any of a string, a number, a name
---@field at integer the byte where it begins

-- Longer ones first.
local SYMBOLS <const> = {
  "<=>", "=>", "::", "||", "<=", ">=", "<>", "!=", "==", "->",
  "(", ")", "[", "]", ",", ".", "*", "+", "-", "/", "%", "<", ">", "=", ";", ":", "?", "&", "|", "^", "~",
  "@",
}

local function syntax(at, text, ...) failure.raise("PARSE_SYNTAX_ERROR", at, text, ...) end

-- Bracketed comments nest.
local function skip_comment(source, at)
  local depth, place = 0, at
  repeat
    local begin, _, mark = source:find("([/*][*/])", place)
    if not begin then syntax(at, "A comment has no end.") end
    if mark == "/*" then
      depth, place = depth + 1, begin + 2
    elseif mark == "*/" then
      depth, place = depth - 1, begin + 2
    else
      place = begin + 1
    end
  until depth == 0
  return place
end

local function skip_blanks(source, at)
  while true do
    at = source:find("%S", at) or #source + 1
    local two = source:sub(at, at + 1)
    if two == "--" then
      at = source:find("\n", at, true) or #source + 1
    elseif two == "/*" then
      at = skip_comment(source, at)
    else
      return at
    end
  end
end

local ESCAPES <const> = { n = "\n", t = "\t", r = "\r", b = "\b", ["0"] = "\0", Z = "\26" }

-- The character that a backslash at `at` begins, and the byte after it.
local function escaped(source, at, first)
  local letter = source:sub(at + 1, at + 1)
  if letter == "" then syntax(first, "A string has no end.") end
  local digits = source:match("^u(%x%x%x%x)", at + 1)
  if digits then return utf8.char(tonumber(digits, 16)), at + 6 end
  -- these two stay as they are: they belong to LIKE
  if letter == "%" or letter == "_" then return "\\" .. letter, at + 2 end
  return ESCAPES[letter] or letter, at + 2
end

local function read_string(source, at, quote, is_raw)
  local parts, place, first = {}, at + 1, at
  local stop = "[\\" .. quote .. "]"
  if is_raw then stop = quote end
  while true do
    local found = source:find(stop, place)
    if not found then syntax(first, "A string has no end.") end
    parts[#parts + 1] = source:sub(place, found - 1)
    if source:sub(found, found) == quote then return table.concat(parts), found + 1 end
    parts[#parts + 1], place = escaped(source, found, first)
  end
end

local function string_token(source, at, prefix)
  local quote = source:sub(at + prefix, at + prefix)
  local value, after = read_string(source, at + prefix, quote, prefix > 0)
  if source:sub(after, after) == quote then
    syntax(after, "Two strings stand side by side; a quote in a string is written \\%s.", quote)
  end
  return { kind = "string", text = source:sub(at, after - 1), value = value, at = at }, after
end

local function name_token(source, at)
  local parts, place = {}, at + 1
  while true do
    local found = source:find("`", place, true)
    if not found then syntax(at, "A quoted name has no end.") end
    parts[#parts + 1] = source:sub(place, found - 1)
    place = found + 1
    if source:sub(place, place) ~= "`" then break end
    parts[#parts + 1], place = "`", place + 1
  end
  local value = table.concat(parts)
  if value == "" then syntax(at, "A quoted name is empty.") end
  return { kind = "name", text = source:sub(at, place - 1), value = value, at = at }, place
end

local function number_token(source, at)
  local text = source:match("^%d+%.?%d*", at) or source:match("^%.%d+", at)
  text = text .. (source:match("^[eE][+-]?%d+", at + #text) or "")
  local after = at + #text
  local suffix = source:match("^[%a_][%w_]*", after) or ""
  after = after + #suffix
  local letter = suffix:upper()
  if not (letter == "" or letter == "L" or letter == "D" or letter == "BD") then
    syntax(at, "%s is no number.", source:sub(at, after - 1))
  end
  local is_whole = text:find("^%d+$") and letter ~= "D" and letter ~= "BD"
  local value = is_whole and math.tointeger(tonumber(text)) or tonumber(text) + 0.0
  return { kind = "number", text = source:sub(at, after - 1), value = value, at = at }, after
end

local function symbol_token(source, at)
  for _, symbol in ipairs(SYMBOLS) do
    if source:sub(at, at + #symbol - 1) == symbol then
      return { kind = "symbol", text = symbol, at = at }, at + #symbol
    end
  end
  local char = source:match("^" .. utf8.charpattern, at) or source:sub(at, at)
  local shown = char:find("^%g+$") and char or ("byte %d"):format(char:byte())
  syntax(at, "There is no place for %s.", #char > 1 and char or shown)
end

local function next_token(source, at)
  local char = source:sub(at, at)
  if char == "" then return { kind = "end", text = "end of input", at = at }, at end
  if char == "'" or char == '"' then return string_token(source, at, 0) end
  if char == "`" then return name_token(source, at) end
  if source:find("^[rR]['\"]", at) then return string_token(source, at, 1) end
  if source:find("^%.?%d", at) then return number_token(source, at) end
  local name = source:match("^:([%a_][%w_]*)", at)
  if name then return { kind = "parameter", text = ":" .. name, value = name, at = at }, at + #name + 1 end
  local word = source:match("^[%a_][%w_]*", at)
  if word then
    return { kind = "word", text = word, value = word, upper = word:upper(), at = at }, at + #word
  end
  return symbol_token(source, at)
end

-- A statement may have 16 MiB; as tokens that would be a hundred times as much.
local MOST_TOKENS <const> = 100000

---The tokens of a statement; the last one is of kind "end". Raises a failure.
---@param source string
---@return sluice.emulator.sql.Token[]
function tokens.read(source)
  local list, at = {}, 1
  repeat
    list[#list + 1], at = next_token(source, skip_blanks(source, at))
    if #list > MOST_TOKENS then failure.unsupported(at, "A statement of more than 100000 words") end
  until list[#list].kind == "end"
  return list
end

return tokens
