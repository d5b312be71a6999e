-- SPDX-License-Identifier: MIT
-- Reads the LuaCATS annotations of a Lua module into plain data: what its exported names say of themselves.

local files = require "files"
local lua_source = require "lua_source"

local annotations = {}

---@class tools.Typed
---@field name string? of a result: nil where it has none
---@field type string as written; "" where it is missing
---@field text string what is said behind it
---@field optional boolean?

---@class tools.Block
---@field text string[] the lines that are no tags
---@field params tools.Typed[]
---@field returns tools.Typed[]
---@field fields tools.Typed[]
---@field tags table<string, string> what stands behind the last tag of a name
---@field generics table<string, true>
---@field is_unnamed boolean? whether something is said of a result without its name

-- ---- types ----

local read_type

local function skip_blanks(text, at)
  return text:find("[^%s]", at) or #text + 1
end

-- The index behind a bracket and its partner; strings inside count as nothing.
local function behind_bracket(text, at, open, close)
  local depth = 0
  while at <= #text do
    local byte = text:sub(at, at)
    if byte == '"' or byte == "'" or byte == "`" then
      at = text:find(byte, at + 1, true) or #text
    elseif byte == open then
      depth = depth + 1
    elseif byte == close then
      depth = depth - 1
      if depth == 0 then return at + 1 end
    end
    at = at + 1
  end
  return nil
end

-- The index behind the results of `fun(...)`: types, each maybe with a name before it.
local function behind_results(text, at)
  local colon = text:match("^%s*:()", at)
  while colon do
    local named = text:match("^%s*[%a_][%w_]*%s*:()", colon) or colon
    at = read_type(text, named)
    if not at then return nil end
    colon = text:match("^%s*,()%s*[%w_.{\"(]", at)
  end
  return at
end

local function behind_primary(text, at)
  if text:find("^fun%f[^%w_]", at) then
    at = at + 3
    if text:sub(at, at) == "(" then
      at = behind_bracket(text, at, "(", ")")
      return at and behind_results(text, at)
    end
    return at
  end
  local first = text:sub(at, at)
  if first == "{" then return behind_bracket(text, at, "{", "}") end
  if first == "(" then return behind_bracket(text, at, "(", ")") end
  if first == '"' or first == "'" or first == "`" then
    local stop = text:find(first, at + 1, true)
    return stop and stop + 1
  end
  if text:find("^%.%.%.", at) then return at + 3 end
  local behind = text:match("^%-?[%w_][%w_.%-]*()", at)
  if behind and text:sub(behind, behind) == "<" then return behind_bracket(text, behind, "<", ">") end
  return behind
end

-- The index behind the type that starts at `at`; nil where there is none.
function read_type(text, at)
  at = behind_primary(text, skip_blanks(text, at))
  while at do
    if text:find("^%[%]", at) then
      at = at + 2
    elseif text:find("^%?", at) then
      at = at + 1
    else
      local bar = text:match("^%s*|()", at)
      if not bar then return at end
      at = behind_primary(text, skip_blanks(text, bar))
    end
  end
  return nil
end

---Splits what stands behind a tag into its type and the rest.
---@param text string
---@return string type "" where there is none, or none that can be read
---@return string rest
function annotations.split_type(text)
  local start = skip_blanks(text, 1)
  local behind = read_type(text, start)
  if not behind then return "", text end
  return text:sub(start, behind - 1), text:sub(skip_blanks(text, behind))
end

local KEYWORDS <const> = { fun = true, async = true }

---The names of types in a type: `sluice.Stream` and `string` of `fun(s: sluice.Stream): string`.
---@param of_type string
---@return string[]
function annotations.type_names(of_type)
  local names = {}
  local bare = of_type:gsub('"[^"]*"', '""'):gsub("'[^']*'", "''"):gsub("`[^`]*`", "``")
  local at = 1
  while true do
    local start, stop, name = bare:find("([%a_][%w_.]*)", at)
    if not start then return names end
    local is_label = bare:find("^%??%s*:", stop + 1) and not bare:find("^fun$", start)
    local is_inside = bare:sub(start - 1, start - 1):find("[%w_.]")
    if not is_label and not is_inside and not KEYWORDS[name] then
      names[#names + 1] = name:gsub("%.+$", "")
    end
    at = stop + 1
  end
end

-- ---- blocks ----

local readers = {}

function readers.param(block, rest)
  local name, mark, behind = rest:match("^([%w_.]+)(%??)%s*(.*)$")
  local of_type, text = annotations.split_type(behind or "")
  local optional = mark == "?" or nil
  block.params[#block.params + 1] = { name = name, type = of_type, text = text, optional = optional }
end

-- Behind its type a result has its name and then what is said of it, or `#` and what is said of it.
readers["return"] = function(block, rest)
  local of_type, text = annotations.split_type(rest)
  local name, said = text:match("^([%a_][%w_]*)%f[%s\0]%s*(.*)$")
  if not name then name, said = text:match("^(%.%.%.)%s*(.*)$") end
  block.returns[#block.returns + 1] = { name = name, type = of_type, text = said or text:gsub("^#%s*", "") }
  block.is_unnamed = block.is_unnamed or not name and text:find("^[^#]") ~= nil
end

function readers.field(block, rest)
  local name, mark, behind = rest:match("^([%w_]+)(%??)%s*(.*)$")
  if not name then name, mark, behind = rest:match("^(%b[])(%??)%s*(.*)$") end
  local of_type, text = annotations.split_type(behind or "")
  local optional = mark == "?" or nil
  block.fields[#block.fields + 1] = { name = name, type = of_type, text = text, optional = optional }
end

function readers.generic(block, rest)
  for name in rest:gmatch("([%a_][%w_]*)%s*:?[^,]*") do block.generics[name] = true end
end

---Reads the lines of a comment, as lua_source.comment_above gives them.
---@param comment string[]
---@return tools.Block
function annotations.read_block(comment)
  local block = { text = {}, params = {}, returns = {}, fields = {}, tags = {}, generics = {} }
  for _, line in ipairs(comment) do
    local tag, rest = line:match("^%s*@(%w+)%s*(.*)$")
    if tag then
      block.tags[tag] = rest
      if readers[tag] then readers[tag](block, rest) end
    else
      block.text[#block.text + 1] = line
    end
  end
  return block
end

-- ---- modules ----

---@class tools.Class
---@field name string
---@field parents string[]
---@field text string[]
---@field fields tools.Typed[]
---@field alias string? the type it stands for, of an @alias
---@field line integer
---@field comment string[] as written
---@field table string? the local that it annotates

---@class tools.Module
---@field name string as require takes it
---@field path string
---@field text string what the comment at the head of the file says
---@field table string? the name of the local that is returned
---@field classes tools.Class[]
---@field exports tools.Export[] each with `block` and `comment`
---@field class_names table<string, string> by the `__name` of a metatable: the local whose methods it has

-- All comment blocks of `---` lines, with the line below each.
local function blocks_of(lines)
  local blocks, at = {}, 1
  while at <= #lines do
    if lines[at]:find("^%s*%-%-%-") then
      local below = at
      while lines[below] and lines[below]:find("^%s*%-%-%-") do below = below + 1 end
      blocks[#blocks + 1] = { line = at, below = below, comment = lua_source.comment_above(lines, below) }
      at = below
    end
    at = at + 1
  end
  return blocks
end

-- A comment that holds several classes or aliases, cut where each begins: what is said before one is of it.
local function parts_of(comment)
  local parts, part, is_taken = {}, {}, false
  for _, line in ipairs(comment) do
    local begins = line:find("^%s*@class%s") or line:find("^%s*@alias%s")
    local is_text = not line:find("^%s*[@|]")
    if is_taken and (begins or is_text and part.has_alias) then
      parts[#parts + 1] = part
      part, is_taken = {}, false
    end
    is_taken = is_taken or begins ~= nil
    part.has_alias = part.has_alias or line:find("^%s*@alias%s") ~= nil
    part[#part + 1] = line
  end
  parts[#parts + 1] = part
  return parts
end

local function read_class(comment)
  local read = annotations.read_block(comment)
  local head = read.tags.class or read.tags.alias
  if not head then return nil end
  local class = { text = read.text, fields = read.fields, comment = comment, parents = {} }
  local rest
  class.name, rest = head:gsub("^%b()%s*", ""):match("^([%w_.]+)%s*(.*)$")
  if not read.tags.class then
    class.alias = annotations.split_type(rest)
  else
    for parent in (rest:match("^:%s*(.*)$") or ""):gmatch("[%a_][%w_.]*") do
      class.parents[#class.parents + 1] = parent
    end
  end
  return class
end

local function add_classes(classes, block, lines)
  local parts = parts_of(block.comment)
  for index, part in ipairs(parts) do
    local class = read_class(part)
    if class then
      class.line = block.line
      if index == #parts then class.table = (lines[block.below] or ""):match("^local%s+([%w_]+)") end
      classes[#classes + 1] = class
    end
  end
end

local function head_text(lines)
  local text = {}
  for index = 2, #lines do
    local said = lines[index]:match("^%-%-%s?([^-].*)$") or lines[index]:match("^%-%-$") and ""
    if not said then break end
    text[#text + 1] = said
  end
  return table.concat(text, "\n")
end

-- By the `__name` of each metatable in the file: the name of its table of methods.
local function metatable_names(text)
  local found = {}
  for variable, body in text:gmatch("local%s+([%w_]+)%s*=%s*(%b{})") do
    local name = body:match('__name%s*=%s*"([^"]+)"')
    if name then
      local quoted = variable:gsub("%p", "%%%0")
      found[name] = body:match("__index%s*=%s*([%a_][%w_]*)%s*[,}]")
        or body:match("__index%s*=%s*options%.strict%([^,]+,%s*([%a_][%w_]*)")
        or text:match(quoted .. "%.__index%s*=%s*([%a_][%w_]*)\n") or false
    end
  end
  return found
end

---Reads one file of the library.
---@param name string as require takes it
---@param path string
---@return tools.Module
function annotations.read_module(name, path)
  local text = assert(files.read(path))
  local lines = files.lines(text)
  local exports, of_table = lua_source.exports(text)
  local module = {
    name = name, path = path, text = head_text(lines), table = of_table, classes = {}, exports = exports,
    class_names = metatable_names(text), lines = lines,
  }
  for _, block in ipairs(blocks_of(lines)) do
    add_classes(module.classes, block, lines)
  end
  for _, export in ipairs(exports) do
    export.comment = lua_source.comment_above(lines, export.line)
    export.block = annotations.read_block(export.comment)
  end
  return module
end

---Every module below a folder, `sluice.http` for FOLDER/sluice/http.lua, sorted by name.
---@param folder string
---@return tools.Module[]
function annotations.read_library(folder)
  local modules = {}
  folder = folder:gsub("^%./", "")
  for _, path in ipairs(files.find(folder, ".lua")) do
    local name = path:sub(#folder + 2):gsub("%.lua$", ""):gsub("/init$", ""):gsub("/", ".")
    modules[#modules + 1] = annotations.read_module(name, path)
  end
  table.sort(modules, function(a, b) return a.name < b.name end)
  return modules
end

-- ---- what tools ask of them ----

---Lines of a comment as one text, without the white space that holds them together; nil where there are none.
---@param lines string[]
---@return string?
function annotations.prose(lines)
  local text = table.concat(lines, "\n"):gsub("^%s+", ""):gsub("%s+$", "")
  return text ~= "" and text or nil
end

---Whether an export can be called, by its code or by its tags.
---@param export tools.Export
---@return boolean
function annotations.is_function(export)
  return export.shape ~= nil or #export.block.params > 0 or #export.block.returns > 0
end

---The names of a function's parameters.
---@param export tools.Export
---@return string[]
function annotations.parameters_of(export)
  local names = export.shape and export.shape.parameters
  if names then return names end
  names = {}
  for index, param in ipairs(export.block.params) do names[index] = param.name end
  return names
end

---The class of a table of methods; of a metatable without one (nil), the class that the file is about.
---@param module tools.Module
---@param methods string? the name of the local
---@return string?
function annotations.class_of(module, methods)
  local only
  for _, class in ipairs(module.classes) do
    if methods and class.table == methods then return class.name end
    if not methods and class.table == "methods" then return class.name end
    if not class.alias then only = only == nil and class.name end
  end
  return not methods and only or nil
end

return annotations
