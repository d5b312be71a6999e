-- SPDX-License-Identifier: MIT
-- Follows a script's requires through package.path, and compiles what it finds.

local requires = require "sluice.bundle.requires"

local collect = {}

---@class sluice.bundle.Module
---@field name string as `require` has it, of the script its path
---@field path string
---@field code string bytecode, with names and lines

-- ---- one file ----

local function read_file(path)
  local file <close>, reason = io.open(path, "rb")
  if not file then return nil, "cannot open " .. reason end
  local text
  text, reason = file:read "a"
  if not text then return nil, path .. ": " .. reason end
  return text
end

-- As luaL_loadfile: without a byte order mark and a first line that begins with #.
local function compile(path)
  local text, reason = read_file(path)
  if not text then return nil, reason end
  text = text:gsub("^\xEF\xBB\xBF", ""):gsub("^#[^\n]*", "")
  local first = text:byte()
  if first == 27 then return nil, path .. ": is bytecode: what it requires cannot be read" end
  if first == 127 then return nil, path .. ": is a program, and no Lua script" end
  local chunk
  chunk, reason = load(text, "@" .. path, "t")
  if not chunk then return nil, reason end
  return { path = path, code = string.dump(chunk), requires = requires.find(text) }
end

-- ---- where a module is ----

-- Whether each program has it: what is loaded here, built in, or of the library.
local function is_built_in(name)
  if package.loaded[name] or package.preload[name] then return true end
  return type(package.searchers[2](name)) == "function"
end

local function find_machine_code(name)
  return package.searchpath(name, package.cpath) or package.searchpath(name:match "^[^.]*", package.cpath)
end

-- The requires that led to a module, innermost first, as lines of a message.
local function chain_of(wanted)
  local lines = {}
  while wanted do
    lines[#lines + 1] = wanted.by and ("  required at %s:%d"):format(wanted.by, wanted.line) or nil
    wanted = wanted.parent
  end
  return #lines > 0 and "\n" .. table.concat(lines, "\n") or ""
end

-- ---- the walk ----

local function add_wanted(walk, unit, parent)
  for _, each in ipairs(unit.requires) do
    if each.name then
      table.insert(walk.wanted, {
        name = each.name, is_optional = each.is_optional, by = unit.path, line = each.line, parent = parent,
      })
    else
      local note = "%s:%d: a require whose name is computed: put what it loads in by --module"
      table.insert(walk.notes, note:format(unit.path, each.line))
    end
  end
end

-- What finds a module that lies beside the script while the command runs in another folder.
local function hint(walk, name)
  local folder = walk.script:match "^(.*/)" or ""
  for _, template in ipairs { folder .. "?.lua", folder .. "?/init.lua" } do
    if package.searchpath(name, template) then
      return ("\n  it is beside the script: --path '%s' finds it"):format(template)
    end
  end
  return ""
end

local function note_absent(walk, wanted, tried)
  local code = find_machine_code(wanted.name)
  if code then
    local note = "module '%s' is machine code, %s: it must be installed where the program runs%s"
    table.insert(walk.notes, note:format(wanted.name, code, chain_of(wanted)))
    return true
  end
  if not wanted.is_optional then
    local message = "module '%s' not found:\n\t%s%s%s"
    return nil, message:format(wanted.name, tried, chain_of(wanted), hint(walk, wanted.name))
  end
  table.insert(walk.notes, ("%s:%d: module '%s' not found, left out: its require is in a pcall")
    :format(wanted.by, wanted.line, wanted.name))
  return true
end

local function take(walk, wanted)
  if walk.seen[wanted.name] or is_built_in(wanted.name) then return true end
  local path, tried = package.searchpath(wanted.name, walk.path)
  if not path then
    walk.seen[wanted.name] = wanted.is_optional == nil
    return note_absent(walk, wanted, tried)
  end
  walk.seen[wanted.name] = true
  local unit, reason = compile(path)
  if not unit then return nil, reason .. chain_of(wanted) end
  unit.name = wanted.name
  table.insert(walk.modules, unit)
  add_wanted(walk, unit, wanted)
  return true
end

---The script and the modules that it requires, with those that they require. Reads files; never waits.
---@param script string its path
---@param extra string[] names of modules that no require tells of
---@param path string templates, as package.path
---@return sluice.bundle.Module? script
---@return sluice.bundle.Module[]|string modules without the script; or why it failed, and by which requires
---@return string[] notes what the reader of the source should know
function collect.run(script, extra, path)
  local main, reason = compile(script)
  if not main then return nil, reason, {} end
  main.name = script
  local walk = { script = script, path = path, wanted = {}, seen = {}, modules = {}, notes = {} }
  add_wanted(walk, main, nil)
  for _, name in ipairs(extra) do table.insert(walk.wanted, { name = name }) end
  local at = 1
  while walk.wanted[at] do
    local taken, failure = take(walk, walk.wanted[at])
    if not taken then return nil, failure, walk.notes end
    at = at + 1
  end
  return main, walk.modules, walk.notes
end

return collect
