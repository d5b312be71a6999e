-- SPDX-License-Identifier: MIT
-- Turns Lua files into a C file that holds their bytecode, with names and lines for tracebacks.
--
--     lua5.4 tools/embed.lua [--pack] OUTPUT.c SYMBOL FOLDER|NAME=FILE...
--
-- --pack: folders without the names of locals, single files as their text (they are data, such as what the REPL
-- knows), all as blocks of LZ4 with a dictionary, SYMBOL_dictionary: two fifths of the bytes.
-- A folder stands for every Lua file below it: lua/sluice/http.lua of the folder lua is sluice.http,
-- lua/sluice/init.lua is sluice. Paths stay in the chunk names as they were given, so give them
-- relative to the root of the project.

package.path = (arg[0]:match("^.*/") or "") .. "?.lua"
local bytecode = require "bytecode"
local files = require "files"
local lz4 = require "lz4"

local function fail(format, ...)
  io.stderr:write("embed: ", format:format(...), "\n")
  os.exit(1)
end

local function module_name(path)
  return (path:gsub("%.lua$", ""):gsub("/init$", ""):gsub("/", "."))
end

local function add_folder(modules, folder)
  folder = folder:gsub("/+$", "")
  local found = files.find(folder, ".lua")
  if #found == 0 then fail("%s: no Lua file there", folder) end
  for _, path in ipairs(found) do
    modules[#modules + 1] = { name = module_name(path:sub(#folder + 2)), path = path }
  end
end

local function collect(first)
  local modules, seen = {}, {}
  for index = first, #arg do
    local name, path = arg[index]:match("^([^=]+)=(.+)$")
    if name then
      modules[#modules + 1] = { name = name, path = path, is_text = true }
    else
      add_folder(modules, arg[index])
    end
  end
  for _, module in ipairs(modules) do
    local earlier = seen[module.name]
    if earlier then fail("%s is both %s and %s", module.name, earlier, module.path) end
    seen[module.name] = module.path
  end
  return modules
end

local function compile(path)
  local source, message = files.read(path)
  if not source then fail("%s", message) end
  local chunk
  chunk, message = load(source:gsub("^#[^\n]*", ""), "@" .. path, "t")
  if not chunk then fail("%s", message) end
  return string.dump(chunk)
end

local BYTES_PER_LINE <const> = 32

local function write_bytes(out, name, bytes)
  out:write(name, "[] = {\n")
  for at = 1, #bytes, BYTES_PER_LINE do
    local line = { bytes:byte(at, math.min(at + BYTES_PER_LINE - 1, #bytes)) }
    out:write(table.concat(line, ","), ",\n")
  end
  out:write("};\n")
end

-- What the chunk names of a folder's files begin with, as SYMBOL_source.
local function write_source(out, symbol, folder)
  out:write(("\nconst char %s_source[] = \"@%s/\";\n"):format(symbol, folder))
end

-- The module that sluice_warm_up() calls, as SYMBOL_warm_up.
local function write_warm_up(out, symbol, modules)
  for _, module in ipairs(modules) do
    if module.name:find "%.warm_up$" then
      out:write(("const char %s_warm_up[] = \"%s\";\n"):format(symbol, module.name))
    end
  end
end

local function write(out, symbol, modules)
  out:write("/* Written by tools/embed.lua. */\n#include \"embedded.h\"\n\n")
  for index, module in ipairs(modules) do
    write_bytes(out, "static const unsigned char file_" .. index, module.packed or module.bytes)
  end
  out:write("\nextern const struct sl_embedded_file ", symbol, "[];\n")
  out:write("const struct sl_embedded_file ", symbol, "[] = {\n")
  for index, module in ipairs(modules) do
    local row = "    {\"%s\", file_%d, sizeof(file_%d), %d},\n"
    out:write(row:format(module.name, index, index, module.packed and #module.bytes or 0))
  end
  out:write("    {NULL, NULL, 0, 0},\n};\n")
end

-- ---- packing ----

-- Modules resemble each other: with some of them as a dictionary the others become a third smaller. It is not
-- packed itself, and what is further back than 64 KB no block can reach.
local DICTIONARY_SIZE <const> = 62000
local DICTIONARY_MODULE <const> = 9000 -- bytes of a module at most: several say more than one
local DICTIONARY_SEED <const> = 5 -- of 1 to 12 the one with the smallest result; they differ by 10 KB

-- Which modules these are must not change with each new one, so they are drawn by their names.
local function draw(name)
  local hash = DICTIONARY_SEED
  for at = 1, #name do hash = (hash * 31 + name:byte(at)) & 0xffffff end
  return hash
end

local function make_dictionary(modules)
  local order, place = {}, {}
  for _, module in ipairs(modules) do
    order[#order + 1], place[module] = module, draw(module.name)
  end
  table.sort(order, function(a, b) return place[a] < place[b] end)
  local pieces, size = {}, 0
  for _, module in ipairs(order) do
    local is_fit = not module.is_text and #module.bytes < DICTIONARY_MODULE
    if is_fit and size + #module.bytes <= DICTIONARY_SIZE then
      pieces[#pieces + 1] = module.bytes
      size = size + #module.bytes
    end
  end
  return lz4.dictionary(table.concat(pieces))
end

local function pack(out, symbol, modules)
  for _, module in ipairs(modules) do
    local text = module.is_text and assert(files.read(module.path))
    module.bytes = text or bytecode.without_names(module.bytes)
  end
  local dictionary = make_dictionary(modules)
  for _, module in ipairs(modules) do module.packed = lz4.pack(module.bytes, dictionary) end
  write(out, symbol, modules)
  out:write("\n")
  write_bytes(out, ("const unsigned char %s_dictionary"):format(symbol), dictionary.bytes)
  out:write(("const size_t %s_dictionary_size = sizeof(%s_dictionary);\n"):format(symbol, symbol))
end

local packed = arg[1] == "--pack"
if packed then table.remove(arg, 1) end
local output, symbol = arg[1], arg[2]
if not arg[3] then fail("usage: embed.lua [--pack] OUTPUT.c SYMBOL FOLDER|NAME=FILE...") end
local modules = collect(3)
for _, module in ipairs(modules) do module.bytes = compile(module.path) end
local out, message = io.open(output .. ".new", "wb")
if not out then fail("%s", message) end
local put = packed and pack or write
put(out, symbol, modules)
if not arg[3]:find("=", 1, true) then
  write_source(out, symbol, (arg[3]:gsub("/+$", "")))
  write_warm_up(out, symbol, modules)
end
assert(out:close())
assert(os.rename(output .. ".new", output))
