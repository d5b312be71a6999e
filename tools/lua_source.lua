-- SPDX-License-Identifier: MIT
-- Reads Lua source as far as the lint tools need it: tokens, comments, and the names that a module exports.

local lua_source = {}

---@class tools.Token
---@field kind "name" | "string" | "number" | "mark"
---@field text string a string's content, else what is written
---@field line integer

local function long_bracket(text, at)
  local level = text:match("^%[(=*)%[", at)
  if not level then return nil end
  local close = "]" .. level .. "]"
  local start, stop = text:find(close, at, true)
  if not start then return #text, "" end
  return stop, text:sub(at + #close, start - 1)
end

local function quoted(text, at)
  local quote, stop = text:sub(at, at), at + 1
  while stop <= #text and text:sub(stop, stop) ~= quote do
    stop = stop + (text:sub(stop, stop) == "\\" and 2 or 1)
  end
  return stop, text:sub(at + 1, stop - 1)
end

local function comment_end(text, at)
  if text:sub(at, at + 1) ~= "--" then return nil end
  return long_bracket(text, at + 2) or (text:find("\n", at, true) or #text + 1) - 1
end

local function read_token(text, at)
  local stop, content = long_bracket(text, at)
  if stop then return "string", content, stop end
  if text:find("^[\"']", at) then
    stop, content = quoted(text, at)
    return "string", content, stop
  end
  for kind, pattern in pairs { name = "^[%a_][%w_]*", number = "^%.?%d[%w_.]*" } do
    stop = select(2, text:find(pattern, at))
    if stop then return kind, text:sub(at, stop), stop end
  end
  for _, mark in ipairs { "...", "..", "==", "~=", "<=", ">=", "//", "::", "<<", ">>" } do
    if text:sub(at, at + #mark - 1) == mark then return "mark", mark, at + #mark - 1 end
  end
  return "mark", text:sub(at, at), at
end

---The tokens of a file; comments are left out.
---@param text string
---@return tools.Token[]
function lua_source.tokens(text)
  local tokens, at, line = {}, 1, 1
  local function skip_to(stop)
    line = line + select(2, text:sub(at, stop):gsub("\n", ""))
    at = stop + 1
  end
  if text:sub(1, 1) == "#" then skip_to((text:find("\n", 1, true) or #text + 1) - 1) end
  while at <= #text do
    local stop = select(2, text:find("^%s+", at)) or comment_end(text, at)
    if stop then
      skip_to(stop)
    else
      local kind, content
      kind, content, stop = read_token(text, at)
      tokens[#tokens + 1] = { kind = kind, text = content, line = line }
      skip_to(stop)
    end
  end
  return tokens
end

---The comment lines (`---`) that stand directly above a line.
---@param lines string[]
---@param line integer
---@return string[]
function lua_source.comment_above(lines, line)
  local comment = {}
  while line > 1 and lines[line - 1]:find("^%s*%-%-%-") do
    line = line - 1
    table.insert(comment, 1, (lines[line]:gsub("^%s*%-%-%-%s?", "")))
  end
  return comment
end

---Whether the export is a field of a table that has a type as a whole: data, told by its type.
---@param lines string[]
---@param export tools.Export
---@return boolean
function lua_source.is_typed_data(lines, export)
  if not export.table_line or export.shape then return false end
  for _, line in ipairs(lua_source.comment_above(lines, export.table_line)) do
    if line:find("^@type%s") then return true end
  end
  return false
end

local OPENERS <const> = { ["function"] = true, ["do"] = true, ["then"] = true, ["repeat"] = true }
local ENDS_RETURN <const> = {
  ["end"] = true, ["else"] = true, ["elseif"] = true, ["until"] = true, [";"] = true,
}

-- elseif closes one `then` block and its own `then` opens the next; `else` keeps the block open.
local CLOSERS <const> = { ["end"] = true, ["until"] = true, ["elseif"] = true }

local function block_change(token)
  if token.kind ~= "name" then return 0 end
  return OPENERS[token.text] and 1 or CLOSERS[token.text] and -1 or 0
end

local function is_word(token, text)
  return token ~= nil and token.kind == "name" and token.text == text
end

---Reads a function from its parameter list on: the parameters, and whether it returns a value itself.
---@param tokens tools.Token[]
---@param at integer the index of "("
---@return { parameters: string[], returns: boolean } shape
---@return integer last the index of its "end"
function lua_source.read_function(tokens, at)
  local shape = { parameters = {}, returns = false }
  while tokens[at].text ~= ")" do
    at = at + 1
    if tokens[at].kind == "name" or tokens[at].text == "..." then
      shape.parameters[#shape.parameters + 1] = tokens[at].text
    end
  end
  local blocks = { "function" }
  while #blocks > 0 and tokens[at + 1] do
    at = at + 1
    local token = tokens[at]
    local change = block_change(token)
    if change > 0 then blocks[#blocks + 1] = token.text elseif change < 0 then blocks[#blocks] = nil end
    if token.kind == "name" and token.text == "return" and not ENDS_RETURN[tokens[at + 1].text] then
      local inner = #blocks
      while blocks[inner] ~= "function" do inner = inner - 1 end
      shape.returns = shape.returns or inner == 1
    end
  end
  return shape, at
end

local function is_field_of(tokens, at, tables)
  local owner, dot, field = tokens[at], tokens[at + 1], tokens[at + 2]
  if not field or owner.kind ~= "name" or field.kind ~= "name" then return false end
  return tables[owner.text] and (dot.text == "." or dot.text == ":")
end

-- The name of the module's table, and the tables that hold methods.
local function exported_tables(tokens)
  local tables, module = {}, nil
  for at = 1, #tokens do
    local token, following, after = tokens[at], tokens[at + 1], tokens[at + 2]
    local name = token.kind == "name" and token.text or ""
    if name == "methods" or name:find("_methods$") then tables[name] = true end
    if name == "__index" and after and following.text == "=" and after.kind == "name" then
      tables[after.text] = true
    end
    if name == "return" and following then
      module = is_word(following, "setmetatable") and tokens[at + 3] or following
    end
  end
  tables["function"] = nil
  if not module or module.kind == "string" then return tables, nil end
  if module.kind == "name" then tables[module.text] = true end
  return tables, module.text
end

local function function_export(tokens, at, name, owner)
  local shape, last = lua_source.read_function(tokens, at)
  return { name = name, owner = owner, shape = shape }, last
end

-- `name = value` in a statement or a table constructor; `at` is the index of the name.
local function value_export(tokens, at, owner)
  local value = tokens[at + 2]
  local export
  if is_word(value, "function") then
    export = function_export(tokens, at + 3, tokens[at].text, owner)
  else
    local is_boolean = is_word(value, "true") or is_word(value, "false")
    local is_plain = value.kind == "string" or value.kind == "number"
    export = { name = tokens[at].text, owner = owner }
    export.literal = is_boolean and "boolean" or is_plain and value.kind or nil
  end
  export.line = tokens[at].line
  return export
end

local BRACKETS <const> = { ["{"] = 1, ["("] = 1, ["["] = 1, ["}"] = -1, [")"] = -1, ["]"] = -1 }

local function add_constructor(exports, tokens, at, owner)
  local depth, blocks, table_line = 1, 0, tokens[at].line
  while depth > 0 and tokens[at + 1] do
    at = at + 1
    local token = tokens[at]
    blocks = blocks + block_change(token)
    if token.kind == "mark" then depth = depth + (BRACKETS[token.text] or 0) end
    local is_key = depth == 1 and blocks == 0 and token.kind == "name" and tokens[at + 1].text == "="
    if is_key then
      local export = value_export(tokens, at, owner)
      export.table_line = table_line
      exports[#exports + 1] = export
    end
  end
  return at
end

local function read_function_statement(exports, tokens, at, tables, module)
  local open = at + 1
  while tokens[open].text ~= "(" do open = open + 1 end
  local export, last = function_export(tokens, open, tokens[open - 1].text, tokens[at + 1].text)
  export.line = tokens[at].line
  export.is_method = tokens[open - 2].text == ":"
  export.is_module = open == at + 2 and tokens[at + 1].text == module
  local is_field = open == at + 4 and is_field_of(tokens, at + 1, tables)
  if is_field or export.is_module then exports[#exports + 1] = export end
  return last
end

-- The exports that the statement at `at` makes; returns the index of its last token that was read.
local function read_statement(exports, tokens, at, tables, module)
  local token, following = tokens[at], tokens[at + 1]
  if token.kind ~= "name" or not following then return at end
  if token.text == "function" then return read_function_statement(exports, tokens, at, tables, module) end
  if is_field_of(tokens, at, tables) and tokens[at + 3].text == "=" then
    exports[#exports + 1] = value_export(tokens, at + 2, token.text)
    return at + 3
  end
  local is_table = token.text == "local" and tables[following.text] and tokens[at + 2].text == "="
  if is_table and tokens[at + 3].text == "{" then
    return add_constructor(exports, tokens, at + 3, following.text)
  end
  return at
end

---@class tools.Export
---@field name string
---@field owner string the table whose field it is
---@field line integer
---@field shape { parameters: string[], returns: boolean }? of a function
---@field literal string? the type of the value where it is a literal
---@field table_line integer? where the table begins, of a field in its constructor
---@field is_method boolean? written with a colon: `self` is not among the parameters
---@field is_module boolean? whether this function is what the file returns

---The names that a module exports: fields of the table it returns, and of the tables that hold methods.
---Names that start with an underscore are private.
---@param text string
---@return tools.Export[] exports
---@return string? module the name of the local that is returned; "function" or "{" where it is none
function lua_source.exports(text)
  local tokens = lua_source.tokens(text)
  local tables, module = exported_tables(tokens)
  local exports, depth, at = {}, 0, 1
  while tokens[at] do
    local last = at
    if depth == 0 then last = read_statement(exports, tokens, at, tables, module) end
    if last == at then depth = depth + block_change(tokens[at]) end
    at = last + 1
  end
  local public = {}
  for _, export in ipairs(exports) do
    if export.name:sub(1, 1) ~= "_" then public[#public + 1] = export end
  end
  return public, module
end

---The modules that a file requires by a literal name.
---@param text string
---@return { name: string, line: integer }[]
function lua_source.requires(text)
  local tokens, required = lua_source.tokens(text), {}
  for at, token in ipairs(tokens) do
    local name = tokens[at + 1]
    if name and (name.text == "(" or name.text == ",") then name = tokens[at + 2] end
    if is_word(token, "require") and name and name.kind == "string" then
      required[#required + 1] = { name = name.text, line = name.line }
    end
  end
  return required
end

return lua_source
