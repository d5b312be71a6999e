-- SPDX-License-Identifier: MIT
-- The words that a script is called with: options and words by a list of what there is, and the text of --help.

local options = require "sluice.options"

local arguments = {}

---One option or word. Its value is found by its name in small letters: `--max-failures N` as `max_failures`,
---`ENDPOINT` as `endpoint`, `MODEL=ENDPOINT...` as `model`.
---@class sluice.Argument
---@field [1] string as it is written: `"--input FILE"`; `"--probe"`, a switch; `"ENDPOINT"`, a word; `"ENDPOINT..."`, any number of words, as an array
---@field [2]? string what it is, for --help
---@field type? "string"|"number"|"integer"|"count"|"seconds" what its text has to be; "string"
---@field choices? string[] what else it may not be
---@field default? any where it is not given; shown by --help
---@field required? boolean whether it has to be given; false
---@field many? boolean of an option: it may come several times, and is an array; false

---@class sluice.ArgumentsOptions
---@field about? string what the script does, for --help
---@field notes? string what else there is to say, at the end
---@field [integer] sluice.Argument in the order of --help

local function number_of(text)
  local number = tonumber(text)
  return number and number == number and math.abs(number) < math.huge and number or nil
end

local KINDS <const> = {
  string = { function(text) return text end, "a text" },
  number = { number_of, "a number" },
  integer = { function(text) return math.tointeger(number_of(text)) end, "an integer" },
  count = {
    function(text)
      local number = math.tointeger(number_of(text))
      return number and number >= 1 and number or nil
    end, "an integer of at least 1",
  },
  seconds = {
    function(text)
      local number = number_of(text)
      return number and number >= 0 and number or nil
    end, "a number of seconds",
  },
}

local SPEC <const> = { about = "string?", notes = "string?" }
local ROW <const> = {
  type = function(value) return KINDS[value] ~= nil, "string, number, integer, count or seconds" end,
  choices = "table?", default = "any?", required = "boolean?", many = "boolean?",
}

-- ---- the list of what there is ----

local function named_fields(list)
  local named = {}
  for name, value in pairs(list) do
    if math.type(name) ~= "integer" then named[name] = value end
  end
  return named
end

-- A row as parsing needs it: `option` is nil of a word, `value` of a switch.
local function compile_row(row)
  options.argument("arguments.read", "[1] of a row", row[1], "name")
  local made = options.check("arguments.read: " .. row[1], named_fields(row), ROW)
  local option, value = row[1]:match "^(%-%-[%w-]+)%s*(.*)$"
  made = {
    option = option, value = not option and row[1] or value ~= "" and value or nil, text = row[2],
    kind = KINDS[made.type or "string"], choices = made.choices, default = made.default,
    required = made.required, many = made.many or false,
  }
  if not option and row[1]:find "%.%.%.$" then made.many = true end
  made.key = (option or made.value):match("^%-*([%w_-]+)"):gsub("%-", "_"):lower()
  return made
end

local function compile(spec)
  options.argument("arguments.read", "spec", spec, "table")
  local named = options.check("arguments.read", named_fields(spec), SPEC)
  local made = { about = named.about, notes = named.notes, rows = {}, by_option = {}, words = {} }
  for index, row in ipairs(spec) do
    local one = compile_row(row)
    made.rows[index] = one
    if one.option then made.by_option[one.option] = one else table.insert(made.words, one) end
  end
  return made
end

-- ---- reading words ----

local function read_value(row, what, text)
  local value = row.kind[1](text)
  if value == nil then return nil, ("%s has to be %s, not %q"):format(what, row.kind[2], text) end
  if not row.choices then return value end
  for _, choice in ipairs(row.choices) do
    if choice == value then return value end
  end
  return nil, ("%s has to be %s, not %q"):format(what, table.concat(row.choices, " or "), text)
end

local function put(given, row, value)
  if row.many then
    given[row.key] = given[row.key] or {}
    table.insert(given[row.key], value)
  else
    given[row.key] = value
  end
end

-- Reads the option at `at`; gives the index of what follows.
local function read_option(list, given, words, at)
  local name, inline = words[at]:match "^(%-%-[%w-]+)=(.*)$"
  name = name or words[at]
  local row = list.by_option[name]
  if not row then return nil, ("unknown option %s%s"):format(name, options.hint(name, list.by_option)) end
  if not row.value then
    if inline then return nil, name .. " takes no value" end
    given[row.key] = true
    return at + 1
  end
  local text = inline or words[at + 1]
  if not text then return nil, ("%s needs a value: %s"):format(name, row.value) end
  local value, wrong = read_value(row, name, text)
  if value == nil then return nil, wrong end
  put(given, row, value)
  return inline and at + 1 or at + 2
end

local function read_word(list, given, words, at, count)
  local row = list.words[math.min(count, #list.words)]
  if not row or count > #list.words and not row.many then return nil, "one word too many: " .. words[at] end
  local value, wrong = read_value(row, row.value, words[at])
  if value == nil then return nil, wrong end
  put(given, row, value)
  return at + 1
end

local function complete(list, given)
  for _, row in ipairs(list.rows) do
    if given[row.key] == nil then given[row.key] = row.default end
    if given[row.key] == nil and row.required then
      return nil, (row.option or row.value) .. " is missing"
    end
  end
  return given
end

-- Whether --help is among the options, whatever is wrong with the others.
local function wants_help(words)
  for _, word in ipairs(words) do
    if word == "--" then return false end
    if word == "--help" or word == "-h" then return true end
  end
  return false
end

-- What is given, or nil and what is wrong; "help" where that is asked for.
local function parse(list, words)
  if wants_help(words) then return nil, "help" end
  local given, at, count, only_words = {}, 1, 0, false
  while words[at] do
    local word, wrong = words[at], nil
    local is_option = not only_words and word:find "^%-." and not tonumber(word)
    if is_option and word == "--" then
      only_words, at = true, at + 1
    elseif is_option then
      at, wrong = read_option(list, given, words, at)
    else
      count = count + 1
      at, wrong = read_word(list, given, words, at, count)
    end
    if not at then return nil, wrong end
  end
  return complete(list, given)
end

-- ---- the text of --help ----

local COLUMNS <const> = 80
local MARGIN <const> = 24 -- where the texts begin

local function written(row)
  return row.option and row.value and row.option .. " " .. row.value or row.option or row.value
end

local function in_usage(row)
  local text = row.required and written(row) or "[" .. written(row) .. "]"
  return row.option and row.many and text .. "..." or text
end

-- Pieces on lines of 80 columns: the first ones behind the head, the others set in by `margin`.
local function wrap(head, margin, pieces)
  local lines, line, width = {}, head, margin
  for _, piece in ipairs(pieces) do
    if width > margin and width + 1 + #piece > COLUMNS then
      lines[#lines + 1], line, width = line, (" "):rep(margin), margin
    end
    line, width = line .. " " .. piece, width + 1 + #piece
  end
  lines[#lines + 1] = line
  return table.concat(lines, "\n")
end

local function usage_of(list, name)
  local pieces, head = {}, "usage: " .. (name:find "%.lua$" and "sluice " or "") .. name -- else it is a bundle
  for index, row in ipairs(list.rows) do pieces[index] = in_usage(row) end
  return wrap(head, #head, pieces)
end

local function row_text(row)
  local text = row.text or ""
  if row.choices then text = text .. (text ~= "" and ": " or "") .. table.concat(row.choices, ", ") end
  if row.default ~= nil then text = ("%s (%s)"):format(text, row.default) end
  local head, words = "  " .. written(row), {}
  if #head >= MARGIN then head = head .. "\n" .. (" "):rep(MARGIN) end
  for word in text:gmatch "%S+" do words[#words + 1] = word end
  return (wrap(head .. (" "):rep(MARGIN - #head), MARGIN, words):gsub(" +$", ""))
end

local function help_of(list, name)
  local parts, rows = { usage_of(list, name), list.about }, {}
  for index, row in ipairs(list.rows) do rows[index] = row_text(row) end
  if #rows > 0 then parts[#parts + 1] = table.concat(rows, "\n") end
  parts[#parts + 1] = list.notes
  return table.concat(parts, "\n\n") .. "\n"
end

-- ---- for scripts ----

---What words give, without printing or ending anything.
---@param spec sluice.ArgumentsOptions
---@param words string[]
---@return table<string, any>? given by the small names
---@return string? wrong what is wrong; "help" where that is asked for
function arguments.parse(spec, words)
  options.argument("arguments.parse", "words", words, "table")
  return parse(compile(spec), words)
end

---The text that tells how the script is called.
---@param spec sluice.ArgumentsOptions
---@param name string the script's
---@return string
function arguments.usage(spec, name)
  options.argument("arguments.usage", "name", name, "string")
  return usage_of(compile(spec), name)
end

---The text of `--help`.
---@param spec sluice.ArgumentsOptions
---@param name string the script's
---@return string
function arguments.help(spec, name)
  options.argument("arguments.help", "name", name, "string")
  return help_of(compile(spec), name)
end

---Reads the words that the script was called with. Where they are wrong it says so on standard error and ends the program
---with status 2; for `--help` it prints what there is, and ends it with status 0.
---@param spec sluice.ArgumentsOptions
---@return table<string, any> given by the small names
---@return fun(text: string) refuse ends the program in the same way, for what only the script can know
function arguments.read(spec)
  local given, refuse = require("sluice.arguments.command").read(spec)
  return given, refuse
end

return arguments
