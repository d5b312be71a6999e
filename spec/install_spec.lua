-- SPDX-License-Identifier: MIT
-- What `make install` puts down, as a host's build finds it: by pkg-config, shared and static.

local support = require "support"
local describe = support.about_program(describe, pending)

local compiler = os.getenv "SLUICE_CC" or "cc"
local flags = os.getenv "SLUICE_CFLAGS" or "-O2 -g"

local function output(command, ...)
  local result = support.shell(command:format(...))
  if result.status ~= 0 then error(("%s: status %s\n%s"):format(command, result.status, result.err), 0) end
  return result.out
end

-- Bytes of the program without its symbols: what is downloaded.
local MOST <const> = 1500000

describe("the program", function()
  it("is small", function()
    if flags:find "fsanitize" or not flags:find "%-O2" then return pending "only built with -O2" end
    local size = support.with_file("", function(path)
      output("strip -o %s %s", path, support.quote(support.binary))
      return #support.read_file(path)
    end)
    assert.is_true(size > MOST / 2 and size <= MOST, ("%d bytes, %d too many"):format(size, size - MOST))
  end)
end)

describe("an installed libsluice", function()
  local stage

  -- Where pkg-config looks, and with it what it says of sluice.
  local function pkg_config(words)
    local command = "PKG_CONFIG_PATH=%s/opt/lib/pkgconfig pkg-config --define-variable=prefix=%s/opt %s "
      .. "sluice"
    return (output(command, stage, stage, words):gsub("%s+$", ""))
  end

  local function build(name, what)
    local program = stage .. "/" .. name
    output("%s -std=c11 -D_GNU_SOURCE %s %s runtime/examples/plugin.c %s -o %s", compiler, flags,
      pkg_config "--cflags", what, program)
    return program
  end

  setup(function()
    stage = output("mktemp -d"):gsub("%s+$", "")
    output("make -s install BUILD=%s DESTDIR=%s PREFIX=/opt", support.quote(support.build), stage)
  end)

  teardown(function() output("rm -rf %s", stage) end)

  it("says its version", function()
    local header = output("grep SLUICE_VERSION runtime/sluice.h")
    assert.are.equal(header:match '"(.-)"', pkg_config "--modversion")
  end)

  it("exports the functions of its header, and no others", function()
    local exported, declared = {}, {}
    for name in output("nm -D --defined-only %s/opt/lib/libsluice.so", stage):gmatch "%S+ %a (%S+)" do
      exported[#exported + 1] = name
    end
    for name in output("cat %s/opt/include/sluice.h", stage):gmatch "SLUICE_API [^;]-(sluice_[%w_]+)%(" do
      declared[#declared + 1] = name
    end
    table.sort(exported)
    table.sort(declared)
    assert.are.same(declared, exported)
    assert.matches("SONAME.-libsluice%.so%.0", output("readelf -d %s/opt/lib/libsluice.so.0", stage))
  end)

  it("contains no Lua", function()
    local needed = output("readelf -d %s/opt/lib/libsluice.so.0", stage)
    assert.not_matches("liblua", needed)
  end)

  it("is linked as a shared library", function()
    local program = build("shared", pkg_config "--libs" .. " -llua5.4")
    local run = support.shell(("LD_LIBRARY_PATH=%s/opt/lib %s"):format(stage, program))
    assert.are.equal(0, run.status)
    assert.matches('a good one: done: {"price":42}', run.out)
  end)

  it("compiles what docs/embedding.md shows", function()
    local code = support.read_file("docs/embedding.md"):match "```c\n(.-)\n```"
    local file <close> = assert(io.open(stage .. "/shown.c", "w"))
    file:write("#include <stdio.h>\n#include <string.h>\nvoid draw_a_frame(void);\n")
    file:write(code, "\n")
    file:close()
    output("%s -std=c11 -Wall -Werror %s -fsyntax-only %s/shown.c", compiler, pkg_config "--cflags", stage)
  end)

  it("is linked as a static library", function()
    local private = pkg_config("--print-requires-private"):gsub("\n", " ")
    local libraries = output("pkg-config --libs %s", private):gsub("%s+$", "")
    local all = ("%s/opt/lib/libsluice.a %s -lev -lm -ldl -pthread"):format(stage, libraries)
    local program = build("static", all)
    local run = support.shell(program)
    assert.are.equal(0, run.status)
    assert.matches('a good one: done: {"price":42}', run.out)
  end)

  it("brings its manual, types for editors, documents and examples", function()
    for _, path in ipairs {
      "man/man1/sluice.1", "sluice/types/sluice/http.lua", "doc/sluice/README.md", "doc/sluice/LICENSE",
      "doc/sluice/docs/errors.md", "doc/sluice/docs/reference/sluice.http.md",
      "doc/sluice/examples/quickstart.lua", "doc/sluice/examples/plugin.c",
    } do
      assert.is_true(#support.read_file(stage .. "/opt/share/" .. path) > 0, path)
    end
    local program = ("cd %s && env -i ASAN_OPTIONS=detect_leaks=0 opt/bin/sluice"):format(stage)
    assert.matches("^usage: sluice", output("%s --help", program))
    if not support.has "server" then return end -- which the emulator is
    local script = program .. " --emulator opt/share/doc/sluice/examples/quickstart.lua"
    assert.are.equal(0, support.shell(script).status)
  end)

  it("may go to a folder by a relative path, and is for all to read whatever the umask is", function()
    output("mkdir -p %s/from/share && touch %s/from/share/file", stage, stage)
    output("here=$PWD; cd %s && umask 077 && $here/tools/install.sh from to", stage)
    assert.are.equal("755\n644\n", output("cd %s/to && stat -c %%a share share/sluice/manifest", stage))
    output("here=$PWD; cd %s && $here/tools/uninstall.sh to", stage)
    assert.are.equal("", output("ls %s/to 2>/dev/null || :", stage))
  end)

  it("is taken away again, with what an earlier version had, and nothing else", function()
    local root = stage .. "/again"
    output("mkdir -p %s/lib %s/stage/share %s/stage/lib/old", root, stage, stage)
    output("touch %s/stage/lib/old/gone '%s/stage/lib/a b' %s/lib/theirs", stage, stage, root)
    output("tools/install.sh %s/stage %s", stage, root)
    output("mkdir -p %s/share/sluice && touch %s/share/sluice/theirs", root, root)
    output("rm -r %s/stage/lib/old && tools/install.sh %s/stage %s", stage, stage, root)
    local function tree() return output("cd %s && find . | sort", root) end
    local between = "./lib/a b\n./lib/theirs\n./share\n./share/sluice\n./share/sluice/manifest"
    assert.are.equal(".\n./lib\n" .. between .. "\n./share/sluice/theirs\n", tree())
    output("tools/uninstall.sh %s", root)
    assert.are.equal(".\n./lib\n./lib/theirs\n./share\n./share/sluice\n./share/sluice/theirs\n", tree())
    local again = support.shell("tools/uninstall.sh " .. root)
    assert.are.equal(1, again.status)
    assert.matches("nothing of Sluice is installed", again.err)
    output("make -s uninstall DESTDIR=%s PREFIX=/opt", stage)
    assert.are.equal("", output("find %s/opt 2>/dev/null || :", stage))
  end)
end)
