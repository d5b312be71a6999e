-- SPDX-License-Identifier: MIT
-- What is known of names and values: the annotations of the library, and what the values themselves show.

local options = require "sluice.options"
local source = require "sluice.repl.source"

local knowledge = {}

---What is said of one name.
---@class sluice.repl.Member
---@field text? string
---@field type? string
---@field params? table[] of a function: { name, type, text, optional }
---@field returns? table[] { name, type, text }
---@field is_method? boolean
---@field at? string file and line

---What is said of a module or a class.
---@class sluice.repl.Subject
---@field text? string
---@field members table<string, sluice.repl.Member>
---@field parents? string[] of a class
---@field alias? string the type that a name stands for
---@field call? sluice.repl.Member of a module that is a function
---@field at? string of a class: file and line

---The annotations: `modules`, `classes` and `metatables` (class by `__name`). Empty in a build without them.
---@return { modules: table<string, sluice.repl.Subject>, classes: table<string, sluice.repl.Subject>, metatables: table<string, string> }
function knowledge.reference()
  local found, reference = pcall(require, "sluice.repl.reference")
  return found and reference or { modules = {}, classes = {}, metatables = {} }
end

---Whether `sluice.NAME` is a module of the library for everybody, and no part of another one.
---@param name string such as "task"
---@return boolean
function knowledge.is_public(name)
  local sluice = knowledge.reference().classes.sluice
  local member = sluice and sluice.members[name]
  return member ~= nil and member.type == "sluice." .. name
end

---The names of those modules.
---@return string[]
function knowledge.public_names()
  local names = {}
  local sluice = knowledge.reference().classes.sluice
  for name in pairs(sluice and sluice.members or {}) do
    if knowledge.is_public(name) then names[#names + 1] = name end
  end
  return names
end

-- ---- classes ----

-- `sluice.ProgressBar` and the `sluice.progress.bar` of a metatable are one.
local function squash(name)
  return (name:lower():gsub("[._]", ""))
end

local squashed

local function class_by_metatable(name)
  local reference = knowledge.reference()
  if reference.metatables[name] then return reference.metatables[name] end
  if not squashed then
    squashed = {}
    for class in pairs(reference.classes) do squashed[squash(class)] = class end
  end
  return squashed[squash(name)]
end

---The class of a value, by its metatable.
---@param value any
---@return string? class
function knowledge.class_of(value)
  if type(value) ~= "table" and type(value) ~= "userdata" then return nil end
  local its = getmetatable(value)
  local name = type(its) == "table" and rawget(its, "__name")
  return type(name) == "string" and class_by_metatable(name) or nil
end

-- Aliases may stand for aliases; more than this are a circle.
local MOST_ALIASES <const> = 8

---A type with the alias that it is resolved.
---@param of_type string?
---@return string?
function knowledge.resolve(of_type)
  local classes = knowledge.reference().classes
  for _ = 1, MOST_ALIASES do
    local class = of_type and classes[of_type:match "^[%w_.]+" or ""]
    if not class or not class.alias then return of_type end
    of_type = class.alias
  end
  return of_type
end

---The class or module that a type names first, such as that of `sluice.Stream?` and `number|sluice.Timeout`.
---@param of_type string?
---@return string? name
---@return sluice.repl.Subject? subject
function knowledge.subject_of(of_type)
  local reference = knowledge.reference()
  for part in (knowledge.resolve(of_type) or ""):gmatch "[^|]+" do
    local name, rest = part:match "^([%a_][%w_.]*)(.*)$"
    if not name or name == "fun" then return nil end
    local subject = reference.classes[name] or reference.modules[name]
    if subject and not rest:find "^%[%]" then return name, subject end
    if rest:find "[<({]" then return nil end
  end
  return nil
end

-- What a function's type returns first: `fun(...): T, U`.
local function result_of_type(of_type)
  of_type = knowledge.resolve(of_type)
  local parameters = of_type and of_type:match "^fun(%b())"
  return parameters and of_type:match("^%s*:%s*(.+)$", 4 + #parameters)
end

---The type of a call's first result.
---@param member sluice.repl.Member?
---@return string?
function knowledge.result_type(member)
  if not member then return nil end
  if member.returns and member.returns[1] then return member.returns[1].type end
  return result_of_type(member.type)
end

---Whether a member is a function.
---@param member sluice.repl.Member
---@return boolean
function knowledge.is_function(member)
  if member.params then return true end
  local of_type = knowledge.resolve(member.type)
  return of_type ~= nil and (of_type:find "^fun%f[^%w]" ~= nil or of_type:find "^function%f[^%w]" ~= nil)
end

-- What stands between the brackets of a `fun(...)`, as { name, type, optional }; commas inside of brackets separate
-- nothing.
local function parameters_of_type(of_type)
  local inside, hidden, found = of_type:match "^fun(%b())" or "()", {}, {}
  local function hide(part)
    hidden[#hidden + 1] = part
    return ("\1%d\1"):format(#hidden)
  end
  inside = inside:sub(2, -2):gsub("%b{}", hide):gsub("%b()", hide)
  for name, mark, rest in inside:gmatch "([%w_.]+)(%??)%s*:?%s*([^,]*)" do
    for _ = 1, #hidden do
      rest = rest:gsub("\1(%d+)\1", function(number) return hidden[tonumber(number)] end)
    end
    found[#found + 1] = { name = name, type = rest, optional = mark == "?" or nil }
  end
  return found
end

---The parameters of a function as they count at a call, `self` left out.
---@param member sluice.repl.Member
---@return table[] parameters { name, type, text, optional }
function knowledge.parameters(member)
  local found = {}
  local all = member.params or parameters_of_type(knowledge.resolve(member.type) or "")
  for _, param in ipairs(all) do
    if param.name ~= "self" then found[#found + 1] = param end
  end
  return found
end

---A member of a class, or of one of its parents.
---@param class string
---@param name string
---@return sluice.repl.Member?
function knowledge.member(class, name)
  local reference = knowledge.reference()
  local subject = reference.classes[class] or reference.modules[class]
  if not subject then return nil end
  local member = subject.members[name]
  if member then
    member.at = member.at or subject.at
    return member
  end
  for _, parent in ipairs(subject.parents or {}) do
    local found = parent ~= class and knowledge.member(parent, name)
    if found then return found end
  end
  return nil
end

---All members of a class and its parents, by name.
---@param class string
---@return table<string, sluice.repl.Member>
function knowledge.members(class)
  local reference, all = knowledge.reference(), {}
  local subject = reference.classes[class]
  for _, parent in ipairs(subject and subject.parents or {}) do
    if parent ~= class then
      for name, member in pairs(knowledge.members(parent)) do all[name] = member end
    end
  end
  for _, found in ipairs { reference.modules[class] or {}, subject or {} } do
    for name, member in pairs(found.members or {}) do all[name] = member end
  end
  return all
end

-- ---- functions that live ----

---What is said of a function, found by the function itself among the loaded modules.
---@param value function
---@return sluice.repl.Member? member
---@return string? module
---@return string? name
function knowledge.of_function(value)
  for name, module in pairs(knowledge.reference().modules) do
    local loaded = package.loaded[name]
    if loaded == value and module.call then return module.call, name, name:match "[^.]+$" end
    if type(loaded) == "table" and loaded ~= value then
      for key, member in pairs(module.members) do
        if rawget(loaded, key) == value then return member, name, key end
      end
    end
  end
  return nil
end

-- ---- values, without running anything ----

-- Tables as an __index chain; a longer one is a circle.
local MOST_INDEXES <const> = 8

---A field of a value, by what is there: no function is called for it.
---@param value any
---@param key any
---@return any
function knowledge.field(value, key)
  if type(value) == "string" then return rawget(string, key) end
  for _ = 1, MOST_INDEXES do
    if type(value) == "table" then
      local found = rawget(value, key)
      if found ~= nil then return found end
    end
    local its = (type(value) == "table" or type(value) == "userdata") and getmetatable(value)
    value = type(its) == "table" and rawget(its, "__index") or nil
    if type(value) ~= "table" then return nil end
  end
  return nil
end

---The names of the fields that a value shows, by what is there; tables of its __index included.
---@param value any
---@return table<string, any>
function knowledge.fields(value)
  local found = {}
  if type(value) == "string" then value = string end
  for _ = 1, MOST_INDEXES do
    if type(value) == "table" then
      for key, item in next, value do
        if type(key) == "string" and found[key] == nil then found[key] = item end
      end
    end
    local its = (type(value) == "table" or type(value) == "userdata") and getmetatable(value)
    value = type(its) == "table" and rawget(its, "__index") or nil
    if type(value) ~= "table" then break end
  end
  return found
end

---What an expression is, as far as can be told without running it.
---@class sluice.repl.Place
---@field value any nil where there is none, or none is known
---@field class? string
---@field member? sluice.repl.Member what is said of it
---@field name? string its name with what it is a field of

local function place_of(value, name)
  local place = { value = value, class = knowledge.class_of(value), name = name }
  if type(value) == "function" then
    local member, module, key = knowledge.of_function(value)
    place.member = member
    if member then place.name = module .. (module:match "[^.]+$" == key and "" or "." .. key) end
  elseif type(value) == "table" and not place.class then
    for module in pairs(knowledge.reference().modules) do
      if package.loaded[module] == value then place.class = module end
    end
  end
  return place
end

local function place_of_type(of_type, member, name)
  local class = knowledge.subject_of(of_type)
  return { class = class, member = member, name = name, type = of_type }
end

---The field of a place.
---@param place sluice.repl.Place
---@param key string|number
---@param mark? "."|":"
---@return sluice.repl.Place
function knowledge.step(place, key, mark)
  local value = knowledge.field(place.value, key)
  local member = place.class and type(key) == "string" and knowledge.member(place.class, key) or nil
  local name = (place.class or place.name or "") .. (mark or ".") .. tostring(key)
  local part = knowledge.reference().modules[name] -- modules load their parts when they are asked for
  if value == nil and part then value = package.loaded[name] end
  if value == nil and part then return { class = name, member = part.call or member, name = name } end
  if value ~= nil then
    local found = place_of(value, name)
    found.member = found.member or member
    if member and not found.class then found.class = knowledge.subject_of(member.type) end
    return found
  end
  return place_of_type(member and member.type, member, name)
end

---What a call of a place gives.
---@param place sluice.repl.Place
---@return sluice.repl.Place
function knowledge.call(place)
  return place_of_type(knowledge.result_type(place.member))
end

-- A global of an entry: where nothing is called so, a module of the library.
local function global(env, name)
  local value = knowledge.field(env, name)
  if value ~= nil or not knowledge.is_public(name) then return place_of(value, name) end
  local full = "sluice." .. name
  local loaded = package.loaded[full]
  return loaded and place_of(loaded, full) or place_of_type(full, nil, full)
end

-- ---- expressions ----

local CLOSES <const> = { [")"] = "(", ["]"] = "[", ["}"] = "{" }
local OPENS <const> = { ["("] = true, ["["] = true, ["{"] = true }

-- The index of the bracket that the one at `at` closes.
local function opening(tokens, at)
  local depth = 0
  for index = at, 1, -1 do
    local text = tokens[index].kind == "mark" and tokens[index].text
    if CLOSES[text] then depth = depth + 1 end
    if OPENS[text] then
      depth = depth - 1
      if depth == 0 then return index end
    end
  end
  return nil
end

-- One step back from the token at `at`: the step, and the index before it. Nil where no expression ends there.
local function step_back(tokens, at)
  local token = tokens[at]
  if not token then return nil end
  local before = tokens[at - 1]
  if token.kind == "name" then
    local mark = before and before.kind == "mark" and before.text
    if mark == "." or mark == ":" then return { field = token.text, mark = mark }, at - 2 end
    return { start = token.text }, nil
  end
  local open = CLOSES[token.text] and token.kind == "mark" and opening(tokens, at)
  if token.text == "]" and open then
    local key = open == at - 2 and tokens[at - 1]
    return { field = key and (key.kind == "string" and key.content or tonumber(key.text)) or false }, open - 1
  end
  local is_call = open or token.kind == "string" and not token.unfinished
  if not is_call then return nil end
  local callee = tokens[(open or at) - 1]
  local has_callee = callee and (callee.kind == "name" or callee.kind == "string" or CLOSES[callee.text])
  if has_callee then return { call = true, argument = tokens[open and open + 1 or at] }, (open or at) - 1 end
  local literal = open and open == at - 2 and tokens[at - 1] or token
  if literal.kind == "string" then return { literal = literal.content }, nil end
  return nil
end

---What the expression is whose last token is at `at`: `chat:stream(x)`, `w.serving_endpoints`.
---@param tokens sluice.repl.Token[] without comments
---@param at integer
---@param env table
---@return sluice.repl.Place? place nil where no expression that can be followed ends there
function knowledge.place_at(tokens, at, env)
  local steps = {}
  repeat
    local step, before = step_back(tokens, at)
    if not step then return nil end
    table.insert(steps, 1, step)
    at = before
  until not at
  local first = table.remove(steps, 1)
  local place
  if first.literal then
    place = place_of(first.literal)
  elseif first.start == "require" and steps[1] and steps[1].call then
    local name = table.remove(steps, 1).argument
    name = name and name.content or ""
    place = package.loaded[name] and place_of(package.loaded[name], name) or place_of_type(name, nil, name)
  else
    place = global(env, first.start)
  end
  for _, step in ipairs(steps) do
    place = step.call and knowledge.call(place) or knowledge.step(place, step.field, step.mark)
  end
  return place
end

---Whether the name at `at` stands behind a `.` or a `:`.
---@param tokens sluice.repl.Token[] without comments
---@param at integer
---@return boolean
function knowledge.is_field(tokens, at)
  local before = tokens[at - 1]
  return before ~= nil and before.kind == "mark" and (before.text == "." or before.text == ":")
end

---The tokens of a text without its comments.
---@param text string
---@return sluice.repl.Token[]
function knowledge.code(text)
  options.argument("knowledge.code", "text", text, "string")
  local tokens = {}
  for _, token in ipairs(source.tokens(text)) do
    if token.kind ~= "comment" then tokens[#tokens + 1] = token end
  end
  return tokens
end

return knowledge
