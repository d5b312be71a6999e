-- SPDX-License-Identifier: MIT
-- Fails on a gap in what help, completion and editors are made of: exported names of the Lua library without a LuaCATS
-- comment (text, parameters, results, types), types that nobody defines, tables of methods without a class, names that
-- a lazy module loads without saying so; and on functions of the public header without a /** */ comment.
--
--     lua5.4 tools/lint_annotations.lua [ROOT]

package.path = (arg[0]:match("^.*/") or "") .. "?.lua"
local annotations = require "annotations"
local files = require "files"
local c_source = require "c_source"
local lua_source = require "lua_source"

local root = arg[1] or "."
local report = files.report()

local function check_parameters(complain, export, block)
  local wanted, types = {}, {}
  for _, param in ipairs(block.params) do types[param.name or ""] = param.type end
  for index, name in ipairs(export.shape.parameters) do
    local is_unnamed = name == "_" or (index == 1 and name == "self")
    if not is_unnamed then wanted[#wanted + 1] = name end
  end
  for _, name in ipairs(wanted) do
    if not types[name] then
      complain("@param %s is missing", name)
    elseif types[name] == "" then
      complain("@param %s has no type", name)
    end
  end
  local expected = table.concat(wanted, " ")
  for _, param in ipairs(block.params) do
    local name = param.name or "?"
    if not (" " .. expected .. " "):find(" " .. name .. " ", 1, true) and name ~= "self" then
      complain("@param %s names no parameter", name)
    end
  end
end

local function check_results(complain, export, block)
  if export.shape.returns and not block.tags["return"] then complain("@return is missing") end
  if block.returns[1] and block.returns[1].type == "" then complain("@return has no type") end
  if block.is_unnamed then complain("@return: its name is missing, or a # where it has none") end
  if block.tags["return"] and not export.shape.returns then complain("@return, but nothing is returned") end
end

local VALUE_TAGS <const> = { "type", "param", "return", "class", "enum" }

local function check_value(complain, export, block)
  if export.literal then return end
  for _, tag in ipairs(VALUE_TAGS) do
    if block.tags[tag] then return end
  end
  complain("@type is missing")
end

local function check_export(path, lines, export)
  local function complain(format, ...)
    report:add(path, export.line, "%s.%s: " .. format, export.owner, export.name, ...)
  end
  local block = annotations.read_block(lua_source.comment_above(lines, export.line))
  if table.concat(block.text) == "" and not block.tags.type then
    complain("no comment (---) directly above")
  elseif export.shape then
    if block.tags.type then return end
    check_parameters(complain, export, block)
    check_results(complain, export, block)
  else
    check_value(complain, export, block)
  end
end

-- A table of methods that overrides another one's need not say it all again, nor need a second assignment.
local function check_lua(path)
  local text = assert(files.read(path))
  local lines, documented = files.lines(text), {}
  local exports, module = lua_source.exports(text)
  if module == "{" or module == "function" then report:add(path, #lines, "must return a local") end
  for _, export in ipairs(exports) do
    local first = documented[export.name]
    local is_said = first and (first == export.owner or export.owner ~= module and first ~= module)
    if not is_said and not lua_source.is_typed_data(lines, export) then check_export(path, lines, export) end
    documented[export.name] = first or export.owner
  end
end

-- ---- types ----

local BUILT_IN <const> = {}
for name in ("any nil boolean string number integer function table thread userdata lightuserdata self true "
  .. "false file unknown"):gmatch "%a+" do
  BUILT_IN[name] = true
end

local function defined_types(modules)
  local known = {}
  for _, module in ipairs(modules) do
    known[module.name] = true
    for _, class in ipairs(module.classes) do known[class.name] = true end
  end
  return known
end

local function check_type(path, line, of_type, what, known, generics)
  for _, name in ipairs(annotations.type_names(of_type)) do
    if not BUILT_IN[name] and not known[name] and not (generics and generics[name]) then
      report:add(path, line, "%s: no @class or @alias is called %s", what, name)
    end
  end
end

local function check_class(module, class, known)
  for _, field in ipairs(class.fields) do
    local what = ("%s.%s"):format(class.name, field.name or "?")
    if field.type == "" then report:add(module.path, class.line, "%s: @field has no type", what) end
    check_type(module.path, class.line, field.type, what, known)
  end
  for _, parent in ipairs(class.parents) do check_type(module.path, class.line, parent, class.name, known) end
  if class.alias then check_type(module.path, class.line, class.alias, class.name, known) end
end

local function check_module(module, known)
  local has_class = {}
  for _, class in ipairs(module.classes) do
    check_class(module, class, known)
    if class.table then has_class[class.table] = true end
  end
  for _, export in ipairs(module.exports) do
    local what, block = export.owner .. "." .. export.name, export.block
    for _, list in ipairs { block.params, block.returns } do
      for _, each in ipairs(list) do
        check_type(module.path, export.line, each.type, what, known, block.generics)
      end
    end
    if export.owner ~= module.table and not has_class[export.owner] then
      report:add(module.path, export.line, "no @class above the table %s", export.owner)
      has_class[export.owner] = true
    end
  end
end

-- The keys of the tables `functions` and `modules` of the library's face are loaded when first used, so its class
-- has to name them.
local function check_face(module)
  local text, named = table.concat(module.lines, "\n"), {}
  for _, class in ipairs(module.classes) do
    for _, field in ipairs(class.fields) do named[field.name or ""] = true end
  end
  for body in text:gmatch "local %a+ = (%b{})" do
    for name in body:sub(2, -2):gsub("%b{}", "{}"):gmatch "([%a_][%w_]*) =" do
      if not named[name] then
        report:add(module.path, nil, "%s.%s is loaded on demand and has no @field", module.name, name)
      end
    end
  end
end

-- The first line of the comment that ends above the line.
local function comment_start(lines, line)
  local above = line - 1
  while above > 0 and lines[above]:find("^%s*%*") do above = above - 1 end
  return lines[above] or ""
end

local function check_header(path)
  local text = files.read(path)
  if not text then return end
  local lines = files.lines(text)
  for _, piece in ipairs(c_source.pieces(text)) do
    local name = piece.head:match("([%w_]+)%s*%(")
    local is_prototype = name and not piece.body and not piece.head:find("^%s*typedef")
    if is_prototype and not comment_start(lines, piece.first):find("/**", 1, true) then
      report:add(path, piece.first, "%s has no /** */", name)
    end
  end
end

for _, path in ipairs(files.find(root .. "/lua/sluice", ".lua")) do check_lua(path) end
local modules = annotations.read_library(root .. "/lua")
local known = defined_types(modules)
for _, module in ipairs(modules) do
  check_module(module, known)
  if module.name == "sluice" then check_face(module) end
end
check_header(root .. "/runtime/sluice.h")
report:finish()
