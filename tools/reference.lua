-- SPDX-License-Identifier: MIT
-- Writes what the REPL's help and completion know: the annotations of the library as one Lua table.
--
--     lua5.4 tools/reference.lua OUTPUT.lua FOLDER
--
-- modules[NAME]    { text, members }          of what require gives
-- classes[NAME]    { text, members, parents, alias, at }
-- metatables[NAME] the class of objects whose metatable has this __name
-- A member is { text, type, params, returns, is_method, at }, a field of a class without `at`; a parameter or result { name, type, text, optional }.

package.path = (arg[0]:match("^.*/") or "") .. "?.lua"
local annotations = require "annotations"

local function typed(list)
  if #list == 0 then return nil end
  local copies = {}
  for index, each in ipairs(list) do
    copies[index] = { name = each.name, type = each.type, text = each.text ~= "" and each.text or nil,
      optional = each.optional }
  end
  return copies
end

local function member_of(export, path)
  local block = export.block
  local is_function = annotations.is_function(export)
  return {
    text = annotations.prose(block.text),
    type = block.tags.type and annotations.split_type(block.tags.type) or not is_function and export.literal
      or nil,
    params = typed(block.params) or is_function and {} or nil,
    returns = typed(block.returns),
    is_method = export.is_method,
    at = path .. ":" .. export.line,
  }
end

local function add_class(classes, class, path)
  local known = classes[class.name] or { members = {}, parents = {} }
  classes[class.name] = known
  known.text = known.text or annotations.prose(class.text)
  known.alias = class.alias
  known.at = known.at or path .. ":" .. class.line
  for _, parent in ipairs(class.parents) do table.insert(known.parents, parent) end
  for _, field in ipairs(class.fields) do
    local text = field.text ~= "" and field.text or nil
    known.members[field.name] = { type = field.type, text = text, optional = field.optional }
  end
end

local function add_module(reference, module)
  local known = { text = module.text, members = {} }
  reference.modules[module.name] = known
  for _, class in ipairs(module.classes) do add_class(reference.classes, class, module.path) end
  for _, export in ipairs(module.exports) do
    local member, class = member_of(export, module.path), annotations.class_of(module, export.owner)
    local owner = export.owner == module.table and known or class and reference.classes[class]
    if export.is_module then
      known.call = member
    elseif owner and (member.text or not owner.members[export.name]) then
      member.is_method = export.owner ~= module.table and member.params and true or nil
      owner.members[export.name] = member
    end
  end
  for name, methods in pairs(module.class_names) do
    local class = annotations.class_of(module, methods or nil)
    -- more than one class may use a name: then it stands for the class that is called so
    if class then
      local is_shared = reference.metatables[name] ~= nil and reference.metatables[name] ~= class
      reference.metatables[name] = not is_shared and class or false
    end
  end
end

-- ---- writing ----

local function sorted_keys(value)
  local keys = {}
  for key in pairs(value) do keys[#keys + 1] = key end
  table.sort(keys, function(a, b)
    if type(a) == type(b) then return a < b end
    return type(a) == "number"
  end)
  return keys
end

local function is_name(key)
  return type(key) == "string" and key:find "^[%a_][%w_]*$" and load("local " .. key) ~= nil
end

local function write(out, value)
  if type(value) ~= "table" then
    out[#out + 1] = type(value) == "string" and ("%q"):format(value):gsub("\\\n", "\\n") or tostring(value)
    return
  end
  out[#out + 1] = "{"
  for index, key in ipairs(sorted_keys(value)) do
    if index > 1 then out[#out + 1] = "," end
    if key ~= index then out[#out + 1] = is_name(key) and key .. "=" or ("[%q]="):format(key) end
    write(out, value[key])
  end
  out[#out + 1] = "}"
end

local output, folder = arg[1], arg[2]
if not folder then
  io.stderr:write "usage: reference.lua OUTPUT.lua FOLDER\n"
  os.exit(2)
end
local reference = { modules = {}, classes = {}, metatables = {} }
for _, module in ipairs(annotations.read_library(folder)) do add_module(reference, module) end
for name, class in pairs(reference.metatables) do
  if not class then reference.metatables[name] = nil end
end
local out = { "-- Written by tools/reference.lua from the annotations of the library.\nreturn " }
write(out, reference)
local file = assert(io.open(output .. ".new", "wb"))
assert(file:write(table.concat(out)))
assert(file:close())
assert(os.rename(output .. ".new", output))
