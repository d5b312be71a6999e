-- SPDX-License-Identifier: MIT
-- What may stand at the cursor: globals, fields, methods, modules, the options of a call.

local knowledge = require "sluice.repl.knowledge"
local source = require "sluice.repl.source"

local complete = {}

---@class sluice.repl.Completion
---@field from integer the index of the first byte that a candidate replaces
---@field candidates string[] sorted

local function starts_with(name, prefix)
  return name:sub(1, #prefix) == prefix
end

-- Names that start so; those with an underscore are asked for by one.
local function matching(names, prefix, suffix)
  local found = {}
  for name in pairs(names) do
    local is_private = name:sub(1, 1) == "_" and prefix:sub(1, 1) ~= "_"
    if starts_with(name, prefix) and not is_private then found[#found + 1] = name .. (suffix or "") end
  end
  table.sort(found)
  return found
end

local function is_mark(token, text)
  return token ~= nil and token.kind == "mark" and token.text == text
end

-- ---- modules ----

local function is_require(tokens, at)
  local before = tokens[at - 1]
  if is_mark(before, "(") then before = tokens[at - 2] end
  return before ~= nil and before.kind == "name" and before.text == "require"
end

local function module_names()
  local names = {}
  for _, some in ipairs { knowledge.reference().modules, package.loaded, package.preload } do
    for name in pairs(some) do
      if type(name) == "string" and name:find "^%a" then names[name] = true end
    end
  end
  return names
end

-- ---- fields and methods ----

local function is_callable(value)
  local its = type(value) == "table" and getmetatable(value)
  return type(value) == "function" or type(its) == "table" and rawget(its, "__call") ~= nil
end

local function field_names(place, wants_method)
  local names = {}
  for name, value in pairs(knowledge.fields(place.value)) do
    local is_name = name:find "^[%a_][%w_]*$" and not source.keywords[name]
    local is_wanted = not wants_method or is_callable(value)
    if is_name and is_wanted then names[name] = true end
  end
  local is_class = place.class and knowledge.reference().classes[place.class] ~= nil
  for name, member in pairs(place.class and knowledge.members(place.class) or {}) do
    local is_function = knowledge.is_function(member)
    local fits = wants_method and is_function
      or not wants_method and not (is_class and member.is_method and place.value ~= nil)
    if name:find "^[%a_][%w_]*$" and not source.keywords[name] and fits then names[name] = true end
  end
  return names
end

-- ---- options ----

-- The innermost bracket that is open at the end.
local function open_bracket(tokens)
  local depth = 0
  for at = #tokens, 1, -1 do
    local token = tokens[at]
    if token.kind == "mark" then
      if token.text == "}" or token.text == ")" or token.text == "]" then depth = depth + 1 end
      if token.text == "{" or token.text == "(" or token.text == "[" then
        if depth == 0 then return at end
        depth = depth - 1
      end
    end
  end
  return nil
end

-- For the table that opens at `at` as an argument of a call: the last token of the callee, and which argument.
local function argument_at(tokens, at)
  local before = tokens[at - 1]
  if not before then return nil end
  if not is_mark(before, "(") and not is_mark(before, ",") then return at - 1, 1 end
  local outside = table.move(tokens, 1, at - 1, 1, {})
  local open = open_bracket(outside)
  if not open or not is_mark(tokens[open], "(") or open == 1 then return nil end
  local position, depth = 1, 0
  for index = open + 1, at - 1 do
    local text = tokens[index].kind == "mark" and tokens[index].text
    if text == "(" or text == "{" or text == "[" then depth = depth + 1 end
    if text == ")" or text == "}" or text == "]" then depth = depth - 1 end
    if text == "," and depth == 0 then position = position + 1 end
  end
  return open - 1, position
end

local function names_of_table_type(of_type)
  local names = {}
  for name in of_type:sub(2, -2):gmatch "([%a_][%w_]*)%??%s*:" do names[name] = true end
  return names
end

-- The keys that a parameter's type has.
local function option_names(of_type)
  of_type = knowledge.resolve(of_type)
  if not of_type then return nil end
  if of_type:find "^{" then return names_of_table_type(of_type) end
  local class, subject = knowledge.subject_of(of_type)
  if not class or subject.call then return nil end
  local names = {}
  for name, member in pairs(knowledge.members(class)) do
    if not member.is_method and name:find "^[%a_][%w_]*$" then names[name] = true end
  end
  return names
end

local function begins_item(token)
  return is_mark(token, "{") or is_mark(token, ",") or is_mark(token, ";")
end

-- The brace that is open before `at`; nil where another bracket is, or none.
local function brace_before(tokens, at)
  local open = open_bracket(table.move(tokens, 1, at - 1, 1, {}))
  return open and is_mark(tokens[open], "{") and open or nil
end

-- The type of the table that opens at `at`: of an option, of an item of an array, of an argument.
local function type_of_table(tokens, at, env)
  local before, outer = tokens[at - 1], brace_before(tokens, at)
  if outer and is_mark(before, "=") and tokens[at - 2].kind == "name" then
    local class = knowledge.subject_of(type_of_table(tokens, outer, env))
    local member = class and knowledge.member(class, tokens[at - 2].text)
    return member and member.type
  elseif outer and begins_item(before) then
    local of_type = type_of_table(tokens, outer, env)
    return of_type and of_type:match "^(.*)%[%]%??$"
  end
  local callee, position = argument_at(tokens, at)
  local place = callee and callee > 0 and knowledge.place_at(tokens, callee, env)
  local param = place and place.member and knowledge.parameters(place.member)[position]
  return param and param.type
end

-- Names of options where the cursor stands at a key of a table whose type is known.
local function options_at(tokens, prefix_at, env)
  if not begins_item(tokens[prefix_at - 1]) then return nil end
  local open = brace_before(tokens, prefix_at)
  local of_type = open and type_of_table(tokens, open, env)
  return of_type and option_names(of_type)
end

-- ---- all together ----

local function globals(env)
  local names = knowledge.fields(env)
  for name in pairs(source.keywords) do names[name] = true end
  for _, name in ipairs(knowledge.public_names()) do names[name] = true end
  return names
end

---What may stand at the end of a text. Runs none of it, calls no metamethod.
---@param text string up to the cursor
---@param env table the globals
---@return sluice.repl.Completion
function complete.at(text, env)
  local all = source.tokens(text)
  local last = all[#all]
  local nothing = { from = #text + 1, candidates = {} }
  if last and last.unfinished and last.kind == "comment" then return nothing end
  local tokens = knowledge.code(text)
  if last and last.unfinished then
    local content = last.content
    if not is_require(tokens, #tokens) then return nothing end
    return { from = #text - #content + 1, candidates = matching(module_names(), content) }
  end
  local has_prefix = last and last.last == #text and (last.kind == "name" or last.kind == "keyword")
  local prefix = has_prefix and last.text or ""
  local at = has_prefix and #tokens or #tokens + 1
  local from, before = #text - #prefix + 1, tokens[at - 1]
  if is_mark(before, ".") or is_mark(before, ":") then
    local place = knowledge.place_at(tokens, at - 2, env)
    if not place then return nothing end
    return { from = from, candidates = matching(field_names(place, before.text == ":"), prefix) }
  end
  local named = options_at(tokens, at, env)
  if named then return { from = from, candidates = matching(named, prefix, " = ") } end
  if last and last.last == #text and not has_prefix and last.kind == "number" then return nothing end
  return { from = from, candidates = prefix == "" and {} or matching(globals(env), prefix) }
end

---What all of the candidates begin with.
---@param candidates string[]
---@return string
function complete.common(candidates)
  local common = candidates[1] or ""
  for _, candidate in ipairs(candidates) do
    while not starts_with(candidate, common) do common = common:sub(1, -2) end
  end
  return common
end

return complete
