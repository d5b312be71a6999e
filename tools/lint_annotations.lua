-- SPDX-License-Identifier: MIT
-- Fails on exported names of the Lua library without a LuaCATS comment (text, parameters, results, types), and on
-- functions of the public header without a /** */ comment.
--
--     lua5.4 tools/lint_annotations.lua [ROOT]

package.path = (arg[0]:match("^.*/") or "") .. "?.lua"
local files = require "files"
local c_source = require "c_source"
local lua_source = require "lua_source"

local root = arg[1] or "."
local report = files.report()

-- What a comment block says: its text, parameters in order with their types, and which tags it has.
local function read_block(comment)
  local block = { text = "", parameters = {}, types = {}, tags = {} }
  for _, line in ipairs(comment) do
    local tag, rest = line:match("^%s*@(%w+)%s*(.*)$")
    if not tag then
      block.text = block.text .. line
    else
      block.tags[tag] = rest
      if tag == "param" then
        local name, of_type = rest:match("^([%w_.]+)%??%s*(.*)$")
        block.parameters[#block.parameters + 1] = name
        block.types[name or ""] = of_type
      end
    end
  end
  return block
end

local function check_parameters(complain, export, block)
  local wanted = {}
  for index, name in ipairs(export.shape.parameters) do
    local is_unnamed = name == "_" or (index == 1 and name == "self")
    if not is_unnamed then wanted[#wanted + 1] = name end
  end
  for _, name in ipairs(wanted) do
    if not block.types[name] then
      complain("@param %s is missing", name)
    elseif block.types[name] == "" then
      complain("@param %s has no type", name)
    end
  end
  local expected = table.concat(wanted, " ")
  for _, name in ipairs(block.parameters) do
    if not (" " .. expected .. " "):find(" " .. name .. " ", 1, true) and name ~= "self" then
      complain("@param %s names no parameter", name)
    end
  end
end

local function check_results(complain, export, block)
  if export.shape.returns and not block.tags["return"] then complain("@return is missing") end
  if block.tags["return"] == "" then complain("@return has no type") end
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
  local block = read_block(lua_source.comment_above(lines, export.line))
  if block.text == "" and not block.tags.type then
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
check_header(root .. "/runtime/sluice.h")
report:finish()
