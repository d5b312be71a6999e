-- SPDX-License-Identifier: MIT
-- The globals of entries: those of the program, and the modules of the library by their own names (`task`, `layers`)
-- where nothing else is called so. Only entries see these: a module that is tried out has to require what it uses.

local knowledge = require "sluice.repl.knowledge"

local globals = {}

---Makes the globals of a session.
---@param env table those of the program: what entries set goes there
---@return table scope to be the _ENV of entries
function globals.over(env)
  return setmetatable({}, { __index = env, __newindex = env })
end

-- What a name is in a scope; nothing of what env may do at a name that it lacks counts.
local function value_of(scope, name)
  local ok, value = pcall(function() return scope[name] end)
  if ok then return value end
  return nil
end

local function is_mark(token, text)
  return token ~= nil and token.kind == "mark" and token.text == text
end

-- Whether a name is one of those before a `=`.
local function is_assigned(tokens, at)
  while is_mark(tokens[at + 1], ",") and tokens[at + 2] and tokens[at + 2].kind == "name" do at = at + 2 end
  return is_mark(tokens[at + 1], "=")
end

-- The names that a text uses, in order: those that it neither sets nor takes out of something.
local function used_names(text)
  local names, tokens = {}, knowledge.code(text)
  for at, token in ipairs(tokens) do
    local is_use = token.kind == "name" and not knowledge.is_field(tokens, at) and not is_assigned(tokens, at)
    if is_use then names[#names + 1] = token.text end
  end
  return names
end

---Puts the modules that an entry names into its scope, unless something is called so already.
---@param scope table of globals.over
---@param text string
function globals.lend(scope, text)
  for _, name in ipairs(used_names(text)) do
    if knowledge.is_public(name) and value_of(scope, name) == nil then
      local ok, module = pcall(require, "sluice." .. name) -- some builds leave some out
      if ok then rawset(scope, name, module) end
    end
  end
end

---The modules among what a text uses that were lent to it, in the order of the text.
---@param scope table of globals.over
---@param text string
---@return string[]
function globals.lent(scope, text)
  local found, seen = {}, {}
  for _, name in ipairs(used_names(text)) do
    local is_module = knowledge.is_public(name) and rawget(scope, name) == package.loaded["sluice." .. name]
    if is_module and not seen[name] then found[#found + 1] = name end
    seen[name] = true
  end
  return found
end

return globals
