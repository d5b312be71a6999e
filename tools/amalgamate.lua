-- SPDX-License-Identifier: MIT
-- Writes libsluice as one C file: every header once, where it is first included, and macros of a file gone at
-- its end.
--
--     lua5.4 tools/amalgamate.lua OUTPUT.c HEAD.txt FOLDER[:FOLDER...] SOURCE.c...
--
-- HEAD.txt is what stands at the top. Headers in quotes are looked for beside the file that includes them, then in the
-- folders; those in angle brackets in the folders alone, and are left as they are where they are not there.

package.path = (arg[0]:match("^.*/") or "") .. "?.lua"
local files = require "files"

-- The public header stays a file of its own.
local PUBLIC <const> = "sluice.h"

local output, head = arg[1], arg[2]
if not arg[4] then
  io.stderr:write "usage: amalgamate.lua OUTPUT.c HEAD.txt FOLDER[:FOLDER...] SOURCE.c...\n"
  os.exit(2)
end

local folders, out, included, is_public_there = {}, {}, {}, false
for folder in arg[3]:gmatch "[^:]+" do folders[#folders + 1] = folder end

local function normal(path)
  local count
  repeat path, count = path:gsub("[^/]+/%.%./", "", 1) until count == 0
  return path
end

local function exists(path)
  local file <close> = io.open(path)
  return file ~= nil
end

local function resolve(from, name, is_quoted)
  local beside = normal((from:match "^.*/" or "") .. name)
  if is_quoted and exists(beside) then return beside end
  for _, folder in ipairs(folders) do
    if exists(folder .. "/" .. name) then return normal(folder .. "/" .. name) end
  end
end

-- llparse declares what it calls with `unsigned char`, and another file of it defines that with `char`.
local function read_source(path)
  local text = assert(files.read(path))
  local declared = "(int llhttp__[%w_]+%(%s*llhttp__internal_t%* s, const )unsigned "
    .. "(char%* p,%s*const )unsigned (char%* endp%);)"
  return path:find "/llhttp%.c$" and text:gsub(declared, "%1%2%3") or text
end

local add_file

local function add_include(path, number, open, name)
  local target = resolve(path, name, open == '"')
  if not target then return false end
  if target:match "[^/]*$" == PUBLIC then
    if not is_public_there then out[#out + 1] = '#include "' .. PUBLIC .. '"' end
    is_public_there = true
  elseif not included[target] then
    included[target] = true
    add_file(target)
    out[#out + 1] = ('#line %d "%s"'):format(number + 1, path)
  else
    out[#out + 1] = ""
  end
  return true
end

-- Appends a file; returns the names of the macros that it defines.
function add_file(path)
  local macros, number = {}, 0
  out[#out + 1] = ('#line 1 "%s"'):format(path)
  for _, line in ipairs(files.lines(read_source(path))) do
    number = number + 1
    local open, name = line:match '^%s*#%s*include%s*(["<])([^">]+)[">]'
    if not open or not add_include(path, number, open, name) then out[#out + 1] = line end
    macros[#macros + 1] = line:match "^%s*#%s*define%s+([%a_][%w_]*)"
  end
  return macros
end

for index = 4, #arg do
  local macros = add_file(arg[index])
  for _, name in ipairs(macros) do out[#out + 1] = "#undef " .. name end
end

local file = assert(io.open(output, "wb"))
file:write(assert(files.read(head)), table.concat(out, "\n"), "\n")
assert(file:close())
