-- SPDX-License-Identifier: MIT
-- Writes LuaCATS definition files, one a module, for editors: names, comments and types without the code.
--
--     lua5.4 tools/types.lua OUTPUT_FOLDER FOLDER

package.path = (arg[0]:match("^.*/") or "") .. "?.lua"
local annotations = require "annotations"

local output, folder = arg[1], arg[2]
if not folder then
  io.stderr:write "usage: types.lua OUTPUT_FOLDER FOLDER\n"
  os.exit(2)
end

local KEYWORDS <const> = { ["end"] = true, ["return"] = true, ["repeat"] = true, ["nil"] = true }

local function add_comment(out, comment)
  for _, line in ipairs(comment) do out[#out + 1] = "---" .. line end
end

local function add_export(out, export)
  local target = export.owner .. (export.is_method and ":" or ".") .. export.name
  local parameters = table.concat(annotations.parameters_of(export), ", ")
  add_comment(out, export.comment)
  if export.is_module then
    out[#out + 1] = ("function %s(%s) end"):format(export.owner, parameters)
  elseif KEYWORDS[export.name] then
    out[#out + 1] = ("%s[%q] = nil"):format(export.owner, export.name)
  elseif annotations.is_function(export) then
    out[#out + 1] = ("function %s(%s) end"):format(target, parameters)
  else
    if export.literal and not export.block.tags.type then out[#out + 1] = "---@type " .. export.literal end
    out[#out + 1] = target .. " = nil"
  end
  out[#out + 1] = ""
end

-- The locals that the exports belong to, in the order of their first one; the module's own comes first.
local function owners_of(module)
  local owners, seen = {}, {}
  if module.table then owners[1], seen[module.table] = module.table, true end
  for _, export in ipairs(module.exports) do
    if not seen[export.owner] then
      owners[#owners + 1], seen[export.owner] = export.owner, true
    end
  end
  return owners
end

local function add_owner(out, module, owner, known)
  local annotated = false
  for _, class in ipairs(module.classes) do
    if class.table == owner then
      add_comment(out, class.comment)
      annotated = true
    end
  end
  if owner == module.table and not annotated and not known[module.name] then
    out[#out + 1] = "---@class " .. module.name
  end
  out[#out + 1] = "local " .. owner .. " = {}"
  out[#out + 1] = ""
end

local function definitions(module, known)
  local out, owners, is_owner = { "---@meta " .. module.name, "" }, owners_of(module), {}
  for _, owner in ipairs(owners) do is_owner[owner] = true end
  for _, class in ipairs(module.classes) do
    if not is_owner[class.table] then
      add_comment(out, class.comment)
      out[#out + 1] = ""
    end
  end
  local first = module.exports[1]
  for _, owner in ipairs(owners) do
    local is_function_itself = first ~= nil and first.is_module and first.owner == owner
    if not is_function_itself then add_owner(out, module, owner, known) end
    for _, export in ipairs(module.exports) do
      if export.owner == owner then add_export(out, export) end
    end
  end
  out[#out + 1] = module.table and "return " .. module.table or nil
  return table.concat(out, "\n") .. "\n"
end

local function write(path, text)
  assert(os.execute(("mkdir -p '%s'"):format((path:match("^(.*)/")))))
  local file = assert(io.open(path, "wb"))
  assert(file:write(text))
  assert(file:close())
end

local modules, known = annotations.read_library(folder), {}
for _, module in ipairs(modules) do
  for _, class in ipairs(module.classes) do known[class.name] = true end
end
for _, module in ipairs(modules) do
  local text = definitions(module, known)
  assert(load(text, "=" .. module.name, "t"))
  write(("%s/%s.lua"):format(output, (module.name:gsub("%.", "/"))), text)
end
