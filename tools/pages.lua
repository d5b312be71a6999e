-- SPDX-License-Identifier: MIT
-- Writes the reference as Markdown from the annotations of the library: one page a module, and README.md, which lists them.
--
--     lua5.4 tools/pages.lua OUTPUT_FOLDER FOLDER

package.path = (arg[0]:match("^.*/") or "") .. "?.lua"
local annotations = require "annotations"
local lua_source = require "lua_source"

local output, folder = arg[1], arg[2]
if not folder then
  io.stderr:write "usage: pages.lua OUTPUT_FOLDER FOLDER\n"
  os.exit(2)
end

-- ---- pieces of Markdown ----

local function escape(text)
  return (text:gsub("[<*]", "\\%0"):gsub("%f[%w_]_", "\\_"):gsub("_%f[^%w_]", "\\_"))
end

-- A text of a comment: what stands between backticks is code already, and so are lines that are set in.
local function prose(text)
  local out, at = {}, 1
  while true do
    local first, last = text:find("`[^`]*`", at)
    local set_in = text:find("\n    [^\n]*", at)
    if set_in and (not first or set_in < first) then first, last = text:find("\n    [^\n]*", at) end
    out[#out + 1] = escape(text:sub(at, (first or 0) - 1))
    if not first then return table.concat(out) end
    out[#out + 1] = text:sub(first, last)
    at = last + 1
  end
end

local function code(text)
  if text:find("`", 1, true) then return "`` " .. text .. " ``" end
  return "`" .. text .. "`"
end

-- The mark that a heading has as a link's target.
local function anchor(heading)
  return (heading:lower():gsub("[^%w_ -]", ""):gsub(" ", "-"))
end

-- A type as code, whose classes and modules lead to where they are told of.
local function type_text(of_type, targets)
  local out, at, from = {}, 1, 1
  while true do
    local first, last, name = of_type:find("([%a_][%w_.]*)", at)
    if not first then break end
    if targets[name] then
      if first > from then out[#out + 1] = code(of_type:sub(from, first - 1)) end
      out[#out + 1] = ("[%s](%s)"):format(code(name), targets[name])
      from = last + 1
    end
    at = last + 1
  end
  if from <= #of_type then out[#out + 1] = code(of_type:sub(from)) end
  return table.concat(out)
end

local function add(out, ...)
  out[#out + 1] = string.format(...)
end

local function add_typed(out, typed, name, targets)
  local said = typed.text ~= "" and ": " .. prose(typed.text) or ""
  local optional = typed.optional and " (optional)" or ""
  add(out, "- %s %s%s%s", name, type_text(typed.type, targets), optional, said)
end

-- ---- pages ----

-- What stands before the name of an export: the module's own name, or that of the class whose method it is.
local function owner_text(module, export)
  if export.owner == module.table then return module.name:match("[^.]*$") end
  local class = annotations.class_of(module, export.owner)
  return class and class:match("[^.]*$") or export.owner
end

local function is_method(module, export)
  return annotations.is_function(export) and (export.is_method or export.owner ~= module.table)
end

-- The parameters as a reader calls it: a method that is written with a dot names `self` itself.
local function parameter_list(module, export)
  local optional, names = {}, {}
  for _, param in ipairs(export.block.params) do optional[param.name] = param.optional end
  for index, name in ipairs(annotations.parameters_of(export)) do
    local is_self = index == 1 and name == "self" and is_method(module, export)
    if not is_self then names[#names + 1] = name .. (optional[name] and "?" or "") end
  end
  return table.concat(names, ", ")
end

local function signature(module, export)
  local owner = owner_text(module, export)
  local parameters = parameter_list(module, export)
  if export.is_module then return ("%s(%s)"):format(owner, parameters) end
  if not annotations.is_function(export) then return owner .. "." .. export.name end
  return ("%s%s%s(%s)"):format(owner, is_method(module, export) and ":" or ".", export.name, parameters)
end

local function add_export(out, module, export, targets)
  local block = export.block
  add(out, "\n## %s\n", code(signature(module, export)))
  local text = annotations.prose(block.text)
  if text then add(out, "%s\n", prose(text)) end
  local of_type = block.tags.type and annotations.split_type(block.tags.type)
    or not annotations.is_function(export) and export.literal
  if of_type then add(out, "Type: %s", type_text(of_type, targets)) end
  for _, param in ipairs(block.params) do
    add_typed(out, param, code(param.name), targets)
  end
  for _, result in ipairs(block.returns) do
    add_typed(out, result, "returns" .. (result.name and " " .. code(result.name) or ""), targets)
  end
end

local function add_class(out, class, targets)
  add(out, "\n## %s\n", class.name)
  local text = annotations.prose(class.text)
  if text then add(out, "%s\n", prose(text)) end
  if class.alias then add(out, "Stands for %s", type_text(class.alias, targets)) end
  for index, parent in ipairs(class.parents) do
    add(out, "%s %s", index == 1 and "Has all of" or "and of", type_text(parent, targets))
  end
  if #class.parents > 0 and #class.fields > 0 then out[#out + 1] = "" end
  for _, field in ipairs(class.fields) do
    if field.name:sub(1, 1) ~= "_" then add_typed(out, field, code(field.name), targets) end
  end
end

-- A class is named again where its methods begin: then there is nothing new to say of it.
local function is_repeated(class, seen)
  if not seen[class.name] then
    seen[class.name] = true
    return false
  end
  return #class.fields + #class.parents == 0 and not annotations.prose(class.text)
end

-- Classes and exports in the order of the source.
local function parts_of(module)
  local parts, seen = {}, {}
  for index, class in ipairs(module.classes) do
    if not is_repeated(class, seen) then
      parts[#parts + 1] = { line = class.line, index = index, class = class }
    end
  end
  for index, export in ipairs(module.exports) do
    local is_hidden = export.block.tags.private or lua_source.is_typed_data(module.lines, export)
    if not is_hidden then parts[#parts + 1] = { line = export.line, index = index, export = export } end
  end
  table.sort(parts, function(a, b)
    if a.line ~= b.line then return a.line < b.line end
    return a.index < b.index
  end)
  return parts
end

local function page(module, targets)
  local out = {}
  add(out, "# %s\n", module.name)
  add(out, "%s", prose(module.text))
  for _, part in ipairs(parts_of(module)) do
    if part.class then
      add_class(out, part.class, targets)
    else
      add_export(out, module, part.export, targets)
    end
  end
  return (table.concat(out, "\n"):gsub(" +\n", "\n"):gsub("\n\n\n+", "\n\n"):gsub("\n+$", "") .. "\n")
end

local function index(modules)
  local out = { "# Reference\n", "One page a module, from the annotations of its source.\n" }
  for _, module in ipairs(modules) do
    local _, depth = module.name:gsub("%.", "")
    local said = prose(module.text:match("^[^\n]*"))
    add(out, "%s- [%s](%s.md): %s", ("  "):rep(math.max(depth - 1, 0)), module.name, module.name, said)
  end
  return table.concat(out, "\n") .. "\n"
end

-- ---- writing ----

-- By the name of a class, an alias or a module: the page, and the place on it.
local function targets_of(modules)
  local targets = {}
  for _, module in ipairs(modules) do targets[module.name] = module.name .. ".md" end
  for _, module in ipairs(modules) do
    for _, class in ipairs(module.classes) do
      if class.name ~= module.name then
        targets[class.name] = ("%s.md#%s"):format(module.name, anchor(class.name))
      end
    end
  end
  return targets
end

local function write(name, text)
  local file = assert(io.open(output .. "/" .. name, "wb"))
  assert(file:write(text))
  assert(file:close())
end

local modules = {}
for _, module in ipairs(annotations.read_library(folder)) do
  if #module.exports + #module.classes > 0 then modules[#modules + 1] = module end
end
assert(os.execute(("mkdir -p '%s'"):format(output)))
local targets = targets_of(modules)
for _, module in ipairs(modules) do write(module.name .. ".md", page(module, targets)) end
write("README.md", index(modules))
