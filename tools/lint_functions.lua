-- SPDX-License-Identifier: MIT
-- Fails on C functions that are too long, banned calls, mutable static data and function names used by two files.
--
--     lua5.4 tools/lint_functions.lua [ROOT]

package.path = (arg[0]:match("^.*/") or "") .. "?.lua"
local files = require "files"
local c_source = require "c_source"

local MAX_LINES <const> = 60

-- Each writes without a bound, hands its text to a shell, takes stack by the input's size or keeps hidden state.
local BANNED <const> = { "strcpy", "strcat", "sprintf", "vsprintf", "gets", "system", "alloca", "strtok" }

local root = arg[1] or "."
local report = files.report()
local owners = {} -- function name -> path of the file that defines it

local function check_banned(path, text)
  local number = 0
  for line in (c_source.strip(text) .. "\n"):gmatch("(.-)\n") do
    number = number + 1
    for _, name in ipairs(BANNED) do
      if line:find("%f[%w_]" .. name .. "%s*%(") then report:add(path, number, "%s is banned", name) end
    end
  end
end

local function has_mutable_static(code)
  for declaration in code:gmatch("%f[%w_]static%f[^%w_]([^;{=(]*)") do
    if not declaration:find("%f[%w_]const%f[^%w_]") then return true end
  end
  return false
end

-- A variable of the file: `int count`, `static struct x *first`; not a type, a prototype or a declaration of another's.
local function is_variable(head)
  local is_typedef = head:find("%f[%w_]typedef%f[^%w_]")
  if is_typedef or head:find("%)%s*$") or head:find("^%s*extern") then return false end
  local words = select(2, head:gsub("=.*", ""):gsub("[%a_][%w_]*", ""))
  local needed = head:find("^%s*struct") or head:find("^%s*enum") or head:find("^%s*union")
  return words >= (needed and 3 or 2)
end

-- Whether the comment above the line says that the data is process-wide: what an outside library forces on us.
local function is_declared(lines, line)
  local comment, above = "", line - 1
  while above > 0 and (lines[above]:find("^%s*/?%*") or lines[above]:find("%*/%s*$")) do
    comment, above = lines[above] .. comment, above - 1
  end
  return comment:find("process-wide", 1, true) ~= nil
end

-- A pointer to const data counts as const: const tables, the common case, are what this tells apart. A program of its
-- own (the host, an example) may keep state; the library may not.
local function check_static(path, piece, lines)
  if path:find("/host/") or path:find("/examples/") then return end
  local mutable
  if piece.name then
    mutable = has_mutable_static(piece.body)
  else
    mutable = is_variable(piece.head) and not piece.head:find("%f[%w_]const%f[^%w_]")
  end
  if mutable and not is_declared(lines, piece.first) then
    report:add(path, piece.first, "mutable static data: keep it in the core or in the module's state")
  end
end

local function check_piece(path, piece, lines)
  check_static(path, piece, lines)
  if not piece.name then return end
  local length = piece.last - piece.first + 1
  if length > MAX_LINES then
    report:add(path, piece.first, "%s has %d lines, the limit is %d", piece.name, length, MAX_LINES)
  end
  -- programs of their own may share names; the library's files must fit into one amalgamation
  if path:find("%.h$") or path:find("/examples/") or path:find("/host/") then return end
  local owner = owners[piece.name]
  if owner then report:add(path, piece.first, "%s is also a function of %s", piece.name, owner) end
  owners[piece.name] = path
end

for _, path in ipairs(files.find(root .. "/runtime", ".c", ".h")) do
  local text = assert(files.read(path))
  local text_lines = files.lines(text)
  check_banned(path, text)
  for _, piece in ipairs(c_source.pieces(text)) do check_piece(path, piece, text_lines) end
end
report:finish()
