-- SPDX-License-Identifier: MIT
-- Fails on exported names of the Lua library that no spec mentions. A field of a module counts where a spec that
-- names the module uses it; a method counts where any spec uses it.
--
--     lua5.4 tools/lint_specs.lua [ROOT]

package.path = (arg[0]:match("^.*/") or "") .. "?.lua"
local files = require "files"
local lua_source = require "lua_source"

local root = arg[1] or "."
local report = files.report()

-- For each spec, the words in its code and in its strings.
local function read_specs()
  local specs = {}
  for _, path in ipairs(files.find(root .. "/spec", ".lua")) do
    local words = {}
    for _, token in ipairs(lua_source.tokens(assert(files.read(path)))) do
      for word in token.text:gmatch("[%a_][%w_]*") do words[word] = true end
    end
    specs[#specs + 1] = words
  end
  return specs
end

local function is_mentioned(specs, name, beside)
  for _, words in ipairs(specs) do
    if words[name] and (not beside or words[beside]) then return true end
  end
  return false
end

-- The word under which a spec names the module: lua/sluice/layers/retry.lua is retry, lua/sluice/init.lua is sluice.
local function module_word(path)
  return path:gsub("/init%.lua$", ".lua"):match("([%w_]+)%.lua$")
end

local specs = read_specs()
for _, path in ipairs(files.find(root .. "/lua/sluice", ".lua")) do
  local text = assert(files.read(path))
  local lines, exports, module = files.lines(text), lua_source.exports(text)
  for _, export in ipairs(exports) do
    local word = export.owner == module and module_word(path) or nil
    local is_data = lua_source.is_typed_data(lines, export)
    if not is_data and not is_mentioned(specs, export.name, word) then
      report:add(path, export.line, "no spec mentions %s.%s", export.owner, export.name)
    end
  end
end
report:finish()
