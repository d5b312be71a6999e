-- SPDX-License-Identifier: MIT
-- What the annotations say of a name or of a value, as text: `?task.spawn`, `?chat`, `?sluice.Stream`.

local knowledge = require "sluice.repl.knowledge"
local options = require "sluice.options"
local show = require "sluice.repl.show"

local help = {}

local MANUAL <const> = "https://www.lua.org/manual/5.4/manual.html#pdf-"
local NAME_CELLS <const> = 28 -- a longer name pushes what is said of it to the right

-- ---- pieces ----

local function indented(text, margin)
  return (margin .. text:gsub("\n", "\n" .. margin)):gsub("%s+\n", function(blank)
    return ("\n"):rep(select(2, blank:gsub("\n", "")))
  end)
end

-- The first sentence, for lists.
local function gist(text)
  if not text then return "" end
  local flat = text:gsub("%s+", " ")
  local sentence = flat:match "^(.-)[.;]%s" or flat
  return (sentence:gsub("%.$", ""))
end

local function row(name, text, width)
  return ("  %s%s  %s"):format(name, (" "):rep(math.max(width - show.width(name), 0)), text):gsub("%s+$", "")
end

local function width_of(names)
  local width = 0
  for _, name in ipairs(names) do width = math.max(width, math.min(show.width(name), NAME_CELLS)) end
  return width
end

local function sorted_names(members, wanted)
  local names = {}
  for name, member in pairs(members) do
    if wanted(member, name) then names[#names + 1] = name end
  end
  table.sort(names)
  return names
end

-- ---- functions ----

local function parameter_list(params)
  local texts = {}
  for _, param in ipairs(params) do
    if param.name ~= "self" then
      texts[#texts + 1] = ("%s%s: %s"):format(param.name, param.optional and "?" or "", param.type)
    end
  end
  return table.concat(texts, ", ")
end

local function result_list(returns)
  local texts = {}
  for index, result in ipairs(returns or {}) do texts[index] = result.type end
  return #texts > 0 and ": " .. table.concat(texts, ", ") or ""
end

-- The name with its parameters and results.
local function signature(name, member)
  if member.params then
    return ("%s(%s)%s"):format(name, parameter_list(member.params), result_list(member.returns))
  end
  local of_type = knowledge.resolve(member.type)
  local parameters, results = (of_type or ""):match "^fun(%b())(.*)$"
  if not parameters then return of_type and name .. ": " .. of_type or name end
  parameters = parameters:gsub("^%(self: [%w_.]+,%s*", "("):gsub("^%(self: [%w_.]+%)", "()")
  return name .. parameters .. results
end

-- The fields of a parameter's class: options are looked for more often than anything else.
local function option_rows(rows, param)
  local _, subject = knowledge.subject_of(param.type)
  if not subject or subject.call or next(subject.members) == nil then return end
  local names = sorted_names(subject.members, function(member, name)
    return not member.is_method and name:find "^[%a_]" ~= nil -- not `[string] any`
  end)
  local methods = sorted_names(subject.members, function(member) return member.is_method end)
  if #names == 0 or #methods > 0 then return end -- an object, no table of options
  rows[#rows + 1] = ""
  rows[#rows + 1] = ("%s (%s):"):format(param.name, param.type)
  local width = width_of(names)
  for _, name in ipairs(names) do
    local member = subject.members[name]
    local shown = name .. (member.optional and "?" or "")
    rows[#rows + 1] = row(shown, ("%s  %s"):format(member.type or "", member.text or ""), width + 1)
  end
end

local function describe_function(name, member)
  local rows = { signature(name, member) }
  if member.text then rows[#rows + 1] = indented(member.text, "  ") end
  local said = {}
  for _, param in ipairs(member.params or {}) do
    if param.text then said[#said + 1] = { param.name, param.text } end
  end
  for _, result in ipairs(member.returns or {}) do
    local of_type = (result.name and result.name .. ": " or "") .. result.type
    if result.text then said[#said + 1] = { "returns", ("%s  %s"):format(of_type, result.text) } end
  end
  if #said > 0 then rows[#rows + 1] = "" end
  for _, each in ipairs(said) do rows[#rows + 1] = row(each[1], each[2], 7) end
  for _, param in ipairs(knowledge.parameters(member)) do option_rows(rows, param) end
  if member.at then rows[#rows + 1] = "\n  " .. member.at end
  return table.concat(rows, "\n")
end

-- ---- modules and classes ----

local function member_rows(rows, members, wanted)
  local names = sorted_names(members, wanted)
  if #names == 0 then return end
  rows[#rows + 1] = ""
  local width = width_of(names)
  for _, name in ipairs(names) do
    local member = members[name]
    local text = gist(member.text)
    if not knowledge.is_function(member) and member.type then text = (member.type .. "  " .. text) end
    rows[#rows + 1] = row(name, text, width)
  end
end

local function parts_of(module)
  local parts = {}
  for name, subject in pairs(knowledge.reference().modules) do
    local part = name:sub(1, #module + 1) == module .. "." and name:sub(#module + 2)
    if part and not part:find(".", 1, true) then parts[part] = subject end
  end
  return parts
end

local function describe_subject(name)
  local reference = knowledge.reference()
  local class, module = reference.classes[name], reference.modules[name]
  local rows = { name }
  if class and class.alias then return name .. ": " .. class.alias end
  if class and #class.parents > 0 then rows[1] = name .. ": " .. table.concat(class.parents, ", ") end
  for _, subject in ipairs { module or {}, class or {} } do
    if subject.text then rows[#rows + 1] = indented(subject.text, "  ") end
  end
  local members = knowledge.members(name)
  member_rows(rows, members, function(member) return not knowledge.is_function(member) end)
  member_rows(rows, members, knowledge.is_function)
  if module then
    local parts = parts_of(name)
    for part in pairs(parts) do
      if members[part] then parts[part] = nil end
    end
    member_rows(rows, parts, function() return true end)
  end
  return table.concat(rows, "\n")
end

-- ---- lines ----

-- A line that is too long goes on below where its text begins: behind a name and its type, or as far in as it stands.
local function fold(line, columns)
  local margin = #(line:match "^%s+%S+%s%s+" or line:match "^%s*")
  if margin * 2 > columns then margin = 2 end
  local lines, width, from = {}, columns, 1
  while show.width(line:sub(from)) > width do
    local stop = utf8.offset(line, width + 1, from) or #line
    local blank = line:sub(from, stop):match "^.*%S() +%S*$"
    if not blank or blank <= margin then break end
    lines[#lines + 1] = line:sub(from, from + blank - 2)
    from = line:find("%S", from + blank - 1)
    width = columns - margin
  end
  lines[#lines + 1] = line:sub(from)
  return table.concat(lines, "\n" .. (" "):rep(margin))
end

local function fold_all(text, columns)
  local lines = {}
  for line in (text .. "\n"):gmatch "(.-)\n" do
    lines[#lines + 1] = utf8.len(line) and fold(line, columns) or line
  end
  return table.concat(lines, "\n")
end

-- ---- by name ----

-- What is called so, where nothing of that name lives: `http.request`, `Stream:text`, `layers.retry`.
local function find_named(name)
  local reference = knowledge.reference()
  for _, full in ipairs { name, "sluice." .. name } do
    local module = reference.modules[full]
    if module and module.call then return describe_function(full, module.call) end
    if module or reference.classes[full] then return describe_subject(full) end
    local owner, mark, key = full:match "^(.*)([.:])([%a_][%w_]*)$"
    local member = owner and knowledge.member(owner, key)
    if member then return describe_function(owner .. mark .. key, member) end
  end
  return nil
end

local LIBRARIES <const> = {
  "", "string", "table", "math", "io", "os", "coroutine", "utf8", "debug", "package",
}

local function describe_builtin(name, value)
  for _, library in ipairs(LIBRARIES) do
    local owner = library == "" and _G or package.loaded[library]
    for key, each in pairs(owner or {}) do
      if each == value and type(key) == "string" then
        local full = (library == "" and "" or library .. ".") .. key
        return ("%s: part of Lua, see %s%s"):format(full, MANUAL, full)
      end
    end
  end
  return ("%s: %s"):format(name, show.value(value))
end

local function describe_place(name, place)
  if place.member and (place.member.params or knowledge.is_function(place.member)) then
    return describe_function(place.name or name, place.member)
  end
  local described = place.class and describe_subject(place.class)
  if place.member and not described then return describe_function(place.name or name, place.member) end
  if described then return described end
  if type(place.value) == "function" then return describe_builtin(name, place.value) end
  if place.value == nil then return nil end
  return ("%s: %s, nothing is written about it"):format(name, type(place.value))
end

-- Where something is called so that is a part of something else: `collect`, `create_and_wait`.
local function find_member(name)
  local found, reference = {}, knowledge.reference()
  for kind, mark in pairs { modules = ".", classes = ":" } do
    for owner, subject in pairs(reference[kind]) do
      local member = subject.members[name]
      local is_called = member and knowledge.is_function(member)
      if is_called then found[#found + 1] = { owner .. mark .. name, knowledge.member(owner, name) } end
    end
  end
  if #found == 1 then return describe_function(found[1][1], found[1][2]) end
  local rows = {}
  for index, each in ipairs(found) do rows[index] = "  " .. each[1] end
  table.sort(rows)
  return #rows > 0 and ("there are\n%s"):format(table.concat(rows, "\n")) or nil
end

local function unknown(name)
  local names = {}
  for module, subject in pairs(knowledge.reference().modules) do
    names[module:gsub("^sluice%.", "")] = true
    for key in pairs(subject.members) do names[(module .. "." .. key):gsub("^sluice%.", "")] = true end
  end
  for class in pairs(knowledge.reference().classes) do names[class] = true end
  local near = options.nearest(name, names)
  return ("nothing is known of %s%s"):format(name, near and (", is it %s?"):format(near) or "")
end

---What is known of a name, an expression that ends in one, or a class; text for people. Runs nothing.
---@param text string such as "task.spawn", "chat:stream", "sluice.Stream"
---@param env table the globals
---@param columns? integer the width of lines; none
---@return string
function help.about(text, env, columns)
  local name = text:gsub("^%s+", ""):gsub("%s+$", "")
  local tokens = knowledge.code(name)
  local place = #tokens > 0 and knowledge.place_at(tokens, #tokens, env)
  local described = place and describe_place(name, place)
  local told = described or find_named(name) or find_member(name) or unknown(name)
  return columns and fold_all(told, columns) or told
end

return help
