-- SPDX-License-Identifier: MIT
-- Fails on an arrow of the layout that runs the wrong way.
--
--     lua5.4 tools/lint_layers.lua [ROOT]
--
-- host -> sluice.h; sluice.c -> core, modules; modules -> core; lua/sluice -> modules; scripts -> lua/sluice.
-- A module may use the engine of another module, or of the core: a header that knows nothing of Lua.

package.path = (arg[0]:match("^.*/") or "") .. "?.lua"
local files = require "files"
local c_source = require "c_source"
local lua_source = require "lua_source"

local root = arg[1] or "."
local report = files.report()

local function exists(path)
  local file <close> = io.open(path)
  return file ~= nil
end

-- Which room of the layout a path of the runtime is in: "core", "modules/http", "host", "examples", "public", "top".
local function room_of(path)
  local inside = path:match("runtime/(.*)$")
  if inside == "sluice.h" then return "public" end
  if inside == "embedded.h" then return "embedded" end
  local folder, rest = inside:match("^([^/]+)/(.*)$")
  if not folder then return "top" end
  if folder ~= "modules" then return folder end
  return "modules/" .. rest:match("^[^/.]+")
end

local function is_engine_header(path)
  if not path:find("%.h$") then return false end
  local code = c_source.strip(assert(files.read(path)), true)
  for _, name in ipairs { "lua.h", "lauxlib.h", "lua_State" } do
    if code:find(name, 1, true) then return false end
  end
  return true
end

-- Headers of the outside libraries and the rooms that may include them; libc's are for all.
local LIBRARY_HEADERS <const> = {
  { pattern = "^ev%.h$", rooms = { core = true }, name = "libev" },
  { pattern = "^curl/", name = "libcurl" },
  { pattern = "^ares", name = "c-ares" },
  { pattern = "^llhttp", name = "llhttp" },
  { pattern = "^hiredis/", name = "hiredis" },
  { pattern = "^sqlite3", name = "SQLite" },
  { pattern = "^openssl/", name = "OpenSSL" },
}

-- The program's loader of libraries has their functions again, and so their headers.
local LAZY_LOADER <const> = "host/lazy%.c$"

local function check_library(path, room, include)
  if path:find(LAZY_LOADER) then return end
  for _, library in ipairs(LIBRARY_HEADERS) do
    if include.name:find(library.pattern) then
      local allowed = library.rooms and library.rooms[room] or not library.rooms and room:find("^modules/")
      if not allowed then report:add(path, include.line, "%s has no business with %s", room, library.name) end
    end
  end
end

local function may_include(room, target, target_path)
  if room == target then return true end
  if room == "host" then return target == "public" or target == "embedded" end
  if room == "examples" then return target == "public" end
  if room == "top" then return target ~= "host" and target ~= "examples" end
  if room:find("^modules/") then
    if target == "core" and target_path:find "/core/core%.h$" then return true end
    local is_open = target:find("^modules/") or target == "core" and not target_path:find "/internal%.h$"
    return is_open and is_engine_header(target_path)
  end
  return false
end

local function resolve(path, name)
  local beside = path:match("^.*/") .. name
  if exists(beside) then return beside end
  local inside = root .. "/runtime/" .. name
  return exists(inside) and inside or nil
end

local function normal(path)
  local count
  repeat path, count = path:gsub("[^/]+/%.%./", "", 1) until count == 0
  return path
end

local function check_includes(path, text)
  local room = room_of(path)
  for _, include in ipairs(c_source.includes(text)) do
    local target = resolve(path, include.name)
    if include.system or not target then
      check_library(path, room, include)
    else
      target = normal(target)
      if not may_include(room, room_of(target), target) then
        report:add(path, include.line, "%s must not include %s", room, include.name)
      end
    end
  end
end

-- A type's name ("sluice.task") may look like a module; elsewhere such a name is knowledge of the library.
local function is_type_name(line)
  line = line:lower()
  return line:find("metatable") or line:find("udata") or line:find("type") or line:find("__name")
end

local function library_file(name)
  local path = root .. "/lua/" .. name:gsub("%.", "/")
  if name:find("^sluice%.core%.") or not name:find("^sluice%.[%w_.]+$") then return nil end
  return exists(path .. ".lua") or exists(path .. "/init.lua")
end

local function check_names(path, text)
  local room = room_of(path)
  if room == "host" or room == "examples" then return end -- both are hosts
  for _, literal in ipairs(c_source.strings(text)) do
    local required = literal.value:match("require%s*%(?%s*\\?[\"'](sluice[%w_.]*)")
    local names_file = literal.value:find("lua/sluice", 1, true)
      or required and not required:find("^sluice%.core%.")
    local names_module = library_file(literal.value) and not is_type_name(literal.source)
    if names_file or names_module then
      report:add(path, literal.line, "outside of host no C file knows a Lua library file: %s", literal.value)
    end
  end
end

for _, path in ipairs(files.find(root .. "/runtime", ".c", ".h")) do
  local text = assert(files.read(path))
  check_includes(path, text)
  check_names(path, text)
end

local function check_requires(path, text, is_script)
  for _, required in ipairs(lua_source.requires(text)) do
    local is_ours = required.name == "sluice" or required.name:find("^sluice%.")
    if not is_ours then
      report:add(path, required.line, "must not require %s", required.name)
    elseif is_script and required.name:find("^sluice%.core%.") then
      report:add(path, required.line, "a script uses the library, not %s", required.name)
    end
  end
end

-- The library never prints and never exits; only commands, such as `sluice emulate`, are programs.
local PROGRAM <const> = "lua/sluice/[%w_]+/command%.lua$"
local FORBIDDEN <const> = { ["os.exit"] = true, ["io.write"] = true, ["io.stdout"] = true }

local function check_output(path, text)
  local tokens = lua_source.tokens(text)
  for at, token in ipairs(tokens) do
    local previous, following = tokens[at - 1] or {}, tokens[at + 1] or {}
    local is_free = token.kind == "name" and previous.text ~= "." and previous.text ~= ":"
    local member = following.text == "." and tokens[at + 2] and token.text .. "." .. tokens[at + 2].text
    local is_print = token.text == "print" and (following.text == "(" or following.kind == "string")
    if is_free and (is_print and previous.text ~= "function" or FORBIDDEN[member]) then
      report:add(path, token.line, "the library must not use %s", is_print and "print" or member)
    end
  end
end

for _, path in ipairs(files.find(root .. "/lua/sluice", ".lua")) do
  local text = assert(files.read(path))
  check_requires(path, text, false)
  if not path:find(PROGRAM) then check_output(path, text) end
end
for _, path in ipairs(files.find(root .. "/scripts", ".lua")) do
  check_requires(path, assert(files.read(path)), true)
end
report:finish()
