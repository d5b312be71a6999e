-- SPDX-License-Identifier: MIT
-- The lint tools: each passes a good sample and fails a bad one, with the file, the line and the reason.

local C_HEAD <const> = "/* SPDX-License-Identifier: MIT */\n/* A sample. */\n"
local LUA_HEAD <const> = "-- SPDX-License-Identifier: MIT\n-- A sample.\n"

local root

local function run(command)
  local pipe <close> = assert(io.popen(command .. " 2>&1; echo \"status $?\""))
  local output = pipe:read("a")
  return tonumber(output:match("status (%d+)\n$")), (output:gsub("status %d+\n$", ""))
end

local function write(path, text)
  path = root .. "/" .. path
  assert(os.execute("mkdir -p '" .. path:match("^.*/") .. "'"))
  local file <close> = assert(io.open(path, "wb"))
  file:write(text)
end

local function lint(name)
  return run(("lua5.4 tools/lint_%s.lua '%s'"):format(name, root))
end

local function assert_clean(name)
  local status, output = lint(name)
  assert.equal("", output)
  assert.equal(0, status)
end

local function assert_complaint(name, complaint, count)
  local status, output = lint(name)
  assert.equal(1, status)
  assert.is_truthy(output:find(complaint, 1, true), "no '" .. complaint .. "' in: " .. output)
  assert.equal(count or 1, select(2, output:gsub("\n", "")), output)
end

describe("lint", function()
  before_each(function()
    root = os.tmpname()
    os.remove(root)
    assert(os.execute("mkdir '" .. root .. "'"))
  end)

  after_each(function()
    os.execute("rm -r '" .. root .. "'")
  end)

  describe("functions", function()
    local function c_function(name, lines)
      return ("static int\n%s(void)\n{\n%s    return 0;\n}\n"):format(name, ("    ;\n"):rep(lines - 5))
    end

    it("stops a function of more than 60 lines", function()
      write("runtime/core/a.c", C_HEAD .. c_function("sample", 60))
      assert_clean("functions")
      write("runtime/core/a.c", C_HEAD .. c_function("sample", 61))
      assert_complaint("functions", "runtime/core/a.c:3: sample has 61 lines, the limit is 60")
    end)

    it("is not misled by braces in strings, comments and directives", function()
      local tricky = 'const char *text = "{\\"{"; /* { */ char c = \'{\'; // {\n#define OPEN {\n'
      write("runtime/core/a.c", C_HEAD .. "static int first(void)\n{\n" .. tricky .. "    return 0;\n}\n"
        .. c_function("second", 50))
      assert_clean("functions")
    end)

    it("stops a banned call, but not its name in a comment or in another name", function()
      write("runtime/core/a.c", C_HEAD .. "/* sprintf( */\n"
        .. "static int a(void)\n{\n    return snprintf(0, 0, \"gets(\");\n}\n")
      assert_clean("functions")
      write("runtime/core/a.c", C_HEAD .. "static int a(char *b)\n{\n    return sprintf(b, \"\");\n}\n")
      assert_complaint("functions", "runtime/core/a.c:5: sprintf is banned")
    end)

    it("stops mutable static data in a file and in a function", function()
      write("runtime/core/a.c", C_HEAD .. 'static const char *const names[] = {"a"};\n'
        .. "struct a {\n    int b;\n};\ntypedef struct a a;\nextern int b(void);\n")
      assert_clean("functions")
      write("runtime/core/a.c", C_HEAD .. "static struct a *first;\n")
      assert_complaint("functions", "runtime/core/a.c:3: mutable static data")
      write("runtime/core/a.c", C_HEAD .. "int count = 0;\n")
      assert_complaint("functions", "runtime/core/a.c:3: mutable static data")
      write("runtime/core/a.c", C_HEAD .. "int a(void)\n{\n    static int n;\n    return n++;\n}\n")
      assert_complaint("functions", "runtime/core/a.c:3: mutable static data")
    end)

    it("lets the comment above say that an outside library forces process-wide data", function()
      write("runtime/core/a.c", C_HEAD .. "/* process-wide: the library forces it. */\nstatic int once;\n")
      write("runtime/host/main.c", C_HEAD .. "static int signal_seen;\n")
      assert_clean("functions")
    end)

    it("stops a function name used by two files", function()
      write("runtime/core/a.c", C_HEAD .. c_function("same", 6))
      write("runtime/core/b.c", C_HEAD .. c_function("same", 6))
      assert_complaint("functions", "runtime/core/b.c:3: same is also a function of")
    end)
  end)

  describe("files", function()
    it("wants the licence line and the comment below it", function()
      write("runtime/core/a.c", C_HEAD)
      write("lua/sluice/a.lua", LUA_HEAD)
      write("scripts/a.lua", "#!/usr/bin/env sluice\n" .. LUA_HEAD)
      assert_clean("files")
      write("runtime/core/a.c", "/* A sample. */\n")
      assert_complaint("files", "runtime/core/a.c:1: the first line must be")
      write("runtime/core/a.c", C_HEAD)
      write("lua/sluice/a.lua", "-- SPDX-License-Identifier: MIT\nlocal a\n")
      assert_complaint("files", "lua/sluice/a.lua:2: no comment says what the file is for")
    end)

    it("wants an include guard named after the file", function()
      local function header(guard)
        return C_HEAD .. "#ifndef " .. guard .. "\n#define " .. guard .. "\n#endif\n"
      end
      write("runtime/core/a.h", header "SL_A_H")
      write("runtime/modules/json/parse.h", header "SL_JSON_PARSE_H")
      write("runtime/sluice.h", header "SLUICE_H")
      assert_clean("files")
      write("runtime/core/a.h", header "SL_B_H")
      assert_complaint("files", "runtime/core/a.h: the include guard must be SL_A_H or SL_CORE_A_H")
    end)

    it("wants a reason for more than 800 lines", function()
      local body = ("\n"):rep(798) .. "enum { A };\n"
      write("runtime/core/a.c", C_HEAD .. body)
      assert_complaint("files", "runtime/core/a.c:1: 801 lines")
      write("runtime/core/a.c", C_HEAD:gsub("A sample", "801 lines, because a table is one") .. body)
      assert_clean("files")
    end)
  end)

  describe("layers", function()
    before_each(function()
      write("runtime/sluice.h", "")
      write("runtime/core/core.h", "#include <lua.h>\n")
      write("runtime/core/internal.h", "")
      write("runtime/modules/digest/digest.h", "#include <stddef.h>\n")
      write("runtime/modules/http/http.h", "#include <lua.h>\n")
      write("lua/sluice/http.lua", LUA_HEAD)
    end)

    it("passes the arrows of the layout", function()
      write("runtime/sluice.c",
        '#include "sluice.h"\n#include "core/internal.h"\n#include "modules/http/http.h"\n')
      write("runtime/core/loop.c", '#include <ev.h>\n#include "core.h"\n#include "core/internal.h"\n')
      write("runtime/modules/http/http.c",
        '#include <curl/curl.h>\n#include "http.h"\n#include "core/core.h"\n#include "../digest/digest.h"\n')
      write("runtime/host/main.c", '#include "sluice.h"\n#include <time.h>\nconst char *a = "sluice.http";\n')
      write("runtime/modules/task.c",
        'luaL_newmetatable(L, "sluice.http");\nluaL_requiref(L, "sluice.core.http");\n')
      assert_clean("layers")
    end)

    for name, sample in pairs {
      ["a core that knows a module"] = { "runtime/core/a.c", '#include "modules/http/http.h"\n' },
      ["a core that knows the public face"] = { "runtime/core/a.c", '#include "sluice.h"\n' },
      ["a core that knows curl"] = { "runtime/core/a.c", "#include <curl/curl.h>\n" },
      ["a module that knows another binding"] = { "runtime/modules/a.c", '#include "http/http.h"\n' },
      ["a module that knows the core's inside"] = { "runtime/modules/a.c", '#include "core/internal.h"\n' },
      ["a module that knows libev"] = { "runtime/modules/a/a.c", "#include <ev.h>\n" },
      ["a host that knows the core"] = { "runtime/host/a.c", '#include "core/core.h"\n' },
      ["an example that knows the core"] = { "runtime/examples/a.c", '#include "modules/digest/digest.h"\n' },
      ["a C file that names a Lua module"] = { "runtime/sluice.c", 'char a[] = "sluice.http";\n' },
      ["a C file that requires a Lua module"] = { "runtime/sluice.c", 'a("require \'sluice.json\'");\n' },
      ["a C file that names a Lua file"] = { "runtime/sluice.c", 'char a[] = "lua/sluice/a.lua";\n' },
      ["a library that requires what is not ours"] = { "lua/sluice/a.lua", 'local a = require "socket"\n' },
      ["a library that prints"] = { "lua/sluice/a.lua", 'print("a")\n' },
      ["a library that writes to standard output"] = { "lua/sluice/a.lua", 'io.stdout:write("a")\n' },
      ["a library that exits"] = { "lua/sluice/a.lua", "os.exit(1)\n" },
      ["a script that requires the C core"] = { "scripts/a.lua", 'local a = require("sluice.core.http")\n' },
      ["a script that requires what is not ours"] = { "scripts/a.lua", 'pcall(require, "socket")\n' },
    } do
      it("stops " .. name, function()
        write(sample[1], sample[2])
        assert_complaint("layers", sample[1] .. ":1: ")
      end)
    end

    it("lets the emulator's command print", function()
      write("lua/sluice/emulator/command.lua", "io.write('a')\n")
      write("lua/sluice/a.lua", "-- print(1)\nlocal a = 'os.exit(1)'\na.print(1)\na:print(2)\n")
      assert_clean("layers")
    end)
  end)

  describe("annotations", function()
    local GOOD <const> = LUA_HEAD .. [[
---@class sluice.Base

local sample = {}
---@class sluice.Sample: sluice.Base
---@field size integer? in bytes
local methods = {}

---The limit in bytes.
---@type integer
sample.limit = math.tointeger(8)

---A new one.
---@param first string
---@param second integer? the count
---@return table
function sample.new(first, second)
  return { first, second }
end

---Closes it.
function methods.close(self)
  local function step() return self end
  step()
end

function methods._private(self) return self end

return sample
]]

    it("passes documented names", function()
      write("lua/sluice/a.lua", GOOD)
      assert_clean("annotations")
    end)

    for complaint, change in pairs {
      ["sample.new: no comment"] = { "(@return table)", "%1\n" },
      ["sample.limit: @type is missing"] = { "%-%-%-@type integer\n", "" },
      ["methods.close: no comment"] = { "%-%-%-Closes it.\n", "" },
      ["sample.new: @param second is missing"] = { "%-%-%-@param second[^\n]*\n", "" },
      ["sample.new: @param first has no type"] = { "@param first string", "@param first" },
      ["sample.new: @param third names no parameter"] = { "(%-%-%-@return)", "---@param third any\n%1" },
      ["sample.new: @return: its name is missing"] = { "(@return table)", "%1 `name` and more" },
      ["sample.new: @return is missing"] = { "%-%-%-@return table\n", "" },
      ["sample.new: no @class or @alias is called sluice.Lost"] = { "(@return) table", "%1 sluice.Lost[]?" },
      ["sluice.Sample: no @class or @alias is called sluice.Lost"] = { ": sluice.Base", ": sluice.Lost" },
      ["sluice.Sample.size: @field has no type"] = { " integer%? in bytes", "" },
      ["no @class above the table methods"] = { "%-%-%-@class sluice.Sample.-(local)", "%1" },
      ["methods.close: @return, but nothing is returned"] = { "(%-%-%-Closes it.\n)", "%1---@return any\n" },
    } do
      it("stops " .. complaint, function()
        local bad, count = GOOD:gsub(change[1], change[2])
        assert.equal(1, count)
        write("lua/sluice/a.lua", bad)
        assert_complaint("annotations", complaint)
      end)
    end

    it("wants a @field for what the face of the library loads on demand", function()
      local face = LUA_HEAD .. "---@class sluice\n---@field task table tasks\nlocal sluice = {}\n"
        .. "local modules = {\n  task = true,\n}\nreturn sluice\n"
      write("lua/sluice/init.lua", face)
      assert_clean("annotations")
      write("lua/sluice/init.lua", (face:gsub("task = true", "%0, http = true")))
      assert_complaint("annotations", "init.lua: sluice.http is loaded on demand and has no @field")
    end)

    it("reads a module that is one function, and fields of the returned table's constructor", function()
      write("lua/sluice/a.lua", LUA_HEAD .. "local function layer(a)\n  return a\nend\n\nreturn layer\n")
      assert_complaint("annotations", "lua/sluice/a.lua:3: layer.layer: no comment")
      write("lua/sluice/a.lua",
        LUA_HEAD .. "local a = {\n  b = function() end,\n  c = { d = 1 },\n}\nreturn a\n")
      local status, output = lint("annotations")
      assert.equal(1, status)
      assert.is_truthy(output:find("a.b: no comment", 1, true) and output:find("a.c: no comment", 1, true))
      assert.is_nil(output:find("a.d", 1, true))
    end)

    it("takes a table whose type is given as a whole, and a second assignment", function()
      write("lua/sluice/a.lua", LUA_HEAD .. "---@type table\nlocal a = {\n  b = c,\n}\nreturn a\n")
      write("lua/sluice/b.lua", GOOD:gsub("return sample\n$", "sample.new = print\n%0"))
      assert_clean("annotations")
      assert_complaint("specs", "lua/sluice/b.lua:12: no spec mentions sample.limit", 4)
    end)

    it("wants a comment on each function of the public header", function()
      write("runtime/sluice.h", C_HEAD .. "typedef void (*done)(int);\n/** One. */\nint one(void);\n"
        .. "/**\n * Two.\n */\nint two(int a,\n        int b);\n")
      assert_clean("annotations")
      write("runtime/sluice.h", C_HEAD .. "/* One. */\nint one(void);\n")
      assert_complaint("annotations", "runtime/sluice.h:4: one has no /** */")
    end)
  end)

  describe("specs", function()
    it("wants each exported name in a spec that names its module", function()
      write("lua/sluice/a.lua", LUA_HEAD .. "local a = {}\nfunction a.make() end\nreturn a\n")
      write("spec/a_spec.lua", 'local a = require "sluice.a"\na.make()\n')
      assert_clean("specs")
      write("spec/a_spec.lua", 'local b = require "sluice.b"\nb.make()\n')
      assert_complaint("specs", "lua/sluice/a.lua:4: no spec mentions a.make")
      write("spec/a_spec.lua", 'local a = require "sluice.a"\n-- a.make()\n')
      assert_complaint("specs", "lua/sluice/a.lua:4: no spec mentions a.make")
    end)
  end)

  describe("embed", function()
    local function embed(...)
      return run(("cd '%s' && lua5.4 '%s/tools/embed.lua' out.c sl_sample %s"):format(root,
        io.popen("pwd"):read("l"), table.concat({ ... }, " ")))
    end

    it("writes bytecode that compiles, loads and keeps names and lines", function()
      write("lua/sluice/init.lua", LUA_HEAD .. "error('at line three')\n")
      write("lua/sluice/http.lua", "return 'http'\n")
      assert.same({ 0, "" }, { embed("lua", "extra.one=lua/sluice/http.lua") })
      write("main.c", [[
#include <lauxlib.h>
#include <lualib.h>
#include <stdio.h>
#include "embedded.h"
extern const struct sl_embedded_file sl_sample[];
int main(void)
{
    lua_State *L = luaL_newstate();
    luaL_openlibs(L);
    for (const struct sl_embedded_file *file = sl_sample; file->name; file++) {
        luaL_loadbufferx(L, (const char *)file->bytes, file->size, "?", "b");
        lua_pcall(L, 0, 1, 0);
        printf("%s: %s\n", file->name, lua_tostring(L, -1));
    }
    lua_close(L);
    return 0;
}
]])
      local build = "cc -Iruntime $(pkg-config --cflags lua5.4) -o '%s/main' '%s'/*.c"
        .. " $(pkg-config --libs lua5.4)"
      assert.same({ 0, "" }, { run(build:format(root, root)) })
      assert.same({ 0, "sluice.http: http\nsluice: lua/sluice/init.lua:3: at line three\nextra.one: http\n" },
        { run(root .. "/main") })
    end)

    it("packs what lz4.c unpacks", function()
      local text = "return {" .. ("'a text', 'another text', "):rep(50) .. "function() return 1 end}"
      write("lua/sluice/init.lua", LUA_HEAD .. "\n\n" .. text .. "\n")
      write("lua/sluice/random.lua", "return 7\n")
      local command = "cd '%s' && lua5.4 '%s/tools/embed.lua' --pack out.c sl_sample lua"
      assert.same({ 0, "" }, { run(command:format(root, io.popen("pwd"):read("l"))) })
      write("main.c", [[
#include <lauxlib.h>
#include <stdio.h>
#include "embedded.h"
#include "lz4.h"
extern const struct sl_embedded_file sl_sample[];
extern const unsigned char sl_sample_dictionary[];
extern const size_t sl_sample_dictionary_size;
int main(void)
{
    const sl_lz4_dictionary dictionary = {sl_sample_dictionary, sl_sample_dictionary_size};
    unsigned char bytes[10000];
    lua_State *L = luaL_newstate();
    for (const struct sl_embedded_file *file = sl_sample; file->name; file++) {
        if (sl_lz4_unpack(file->bytes, file->size - 1, &dictionary, bytes, file->unpacked_size) ||
            !sl_lz4_unpack(file->bytes, file->size, &dictionary, bytes, file->unpacked_size) ||
            luaL_loadbufferx(L, (const char *)bytes, file->unpacked_size, "?", "b"))
            return 1;
        lua_call(L, 0, 1);
        if (!lua_istable(L, -1))
            printf("%s: %d\n", file->name, (int)lua_tointeger(L, -1));
        else
            printf("%s: %d, %d < %d\n", file->name, (int)luaL_len(L, -1),
                   (int)(file->size < file->unpacked_size / 2), (int)file->unpacked_size);
    }
    return 0;
}
]])
      local build = "cc -Iruntime $(pkg-config --cflags lua5.4) -o '%s/main' '%s'/*.c runtime/lz4.c"
        .. " $(pkg-config --libs lua5.4)"
      assert.same({ 0, "" }, { run(build:format(root, root)) })
      local status, shown = run(root .. "/main")
      assert.same(0, status)
      assert.matches("^sluice: 101, 1 < %d+\nsluice.random: 7\n$", shown)
    end)

    it("fails on a file that does not compile, and on two files of one name", function()
      write("lua/a.lua", "local = 1\n")
      local status, output = embed("lua")
      assert.equal(1, status)
      assert.equal("embed: lua/a.lua:1: <name> expected near '='\n", output)
      write("lua/a.lua", "return 1\n")
      status, output = embed("lua", "a=lua/a.lua")
      assert.equal(1, status)
      assert.equal("embed: a is both lua/a.lua and lua/a.lua\n", output)
    end)
  end)
end)
