-- SPDX-License-Identifier: MIT
-- `sluice bundle`: programs that are made, and run where nothing else is.

local bundle = require "sluice.bundle"
local requires = require "sluice.bundle.requires"
local support = require "support"

local quote = support.quote
local folder, binary

-- What LSAN_OPTIONS names is looked for in the current folder.
local function shell(command, ...)
  return support.shell(("cd %s && unset LSAN_OPTIONS && "):format(quote(folder)) .. command:format(...))
end

local function write(name, text)
  local file = assert(io.open(folder .. "/" .. name, "wb"))
  file:write(text)
  file:close()
end

local function make(words)
  return shell("%s bundle %s", quote(binary), words)
end

-- Runs a program of the folder where there is nothing: no environment, no file.
local function run(name, words)
  return shell("mkdir -p empty && cd empty && env -i ../%s %s </dev/null", name, words or "")
end

-- Writes `bytes` over what stands `back` bytes before the end of a copy of app.
local function spoil(name, back, bytes)
  local content = support.read_file(folder .. "/app")
  write(name, content:sub(1, -back - 1) .. bytes .. content:sub(-back + #bytes))
  shell("chmod +x %s", name)
end

local APP <const> = [[
#!/usr/bin/env sluice
local a = require "lib.a"
local optional = pcall(require, "nowhere")
if ... == "data" then
  io.write(require("sluice").bundle.read "greeting")
  print(require "sluice.bundle".read "greetin")
  print(table.concat(require "sluice.bundle".names(), " "))
elseif ... == "fail" then
  a.fail()
elseif ... == "exit" then
  os.exit(9)
elseif ... == "wait" then
  local closed <close> = setmetatable({}, { __close = function() print "cleaned up" end })
  print "ready" io.stdout:flush()
  require "sluice.task".sleep(100)
else
  print(a.name, optional, select("#", ...), arg[0], arg[1], #arg, arg[-1])
end
]]

support.about_program(describe, pending)("sluice bundle", function()
  setup(function()
    folder = support.shell("mktemp -d").out:gsub("%s+$", "")
    binary = support.shell("realpath " .. quote(support.binary)).out:gsub("%s+$", "")
    shell "mkdir lib"
    write("app.lua", APP)
    write("lib/a.lua", 'local b = require("lib.b")\n'
      .. 'return { name = b, fail = function() error "broken" end }\n')
    write("lib/b.lua", 'return ...\n')
    write("hello.txt", "hello\0\n")
    local made = make "app.lua -o app --data hello.txt=greeting --data=app.lua"
    assert.are.equal(0, made.status, made.err)
    assert.matches("^app: %d+%.%d MB, modules: 2, data files: 2\n$", made.out)
  end)

  teardown(function() support.shell("rm -rf " .. quote(folder)) end)

  it("makes a program with the modules that are required", function()
    local result = run("app", "one 'two words'")
    assert.are.equal("", result.err)
    assert.are.equal("lib.b\tfalse\t2\t../app\tone\t2\tnil\n", result.out)
    assert.are.equal(0, result.status)
  end)

  it("leaves all words to the script", function()
    for _, word in ipairs { "--help", "--version", "-e", "emulate", "bundle" } do
      assert.matches("^lib.b.-\t" .. word:gsub("%-", "%%-") .. "\t1", run("app", word).out)
    end
    assert.are.equal("lib.b\tfalse\t0\t../app\tnil\t0\tnil\n", run("app").out)
  end)

  it("puts data files in, readable by name", function()
    local result = run("app", "data")
    assert.are.equal("", result.err)
    assert.matches('^hello\0\nnil\tread data file greetin: .-%(did you mean "greeting"%?%)', result.out)
    assert.matches("\ngreeting app%.lua\n$", result.out)
  end)

  it("ends as the script does", function()
    local failed = run("app", "fail")
    assert.are.equal(1, failed.status)
    assert.matches("sluice: %./lib/a%.lua:2: broken\nstack traceback:", failed.err)
    assert.matches("app%.lua:9: in main chunk", failed.err)
    assert.are.equal(9, run("app", "exit").status)
  end)

  it("is cancelled by signals", function()
    for signal, expected in pairs { INT = 130, TERM = 143 } do
      local result = shell("timeout --preserve-status -s %s 0.3 ./app wait", signal)
      assert.are.equal(expected, result.status)
      assert.are.equal("ready\ncleaned up\n", result.out)
    end
  end)

  it("needs the C library and nothing else to start", function()
    local needed = {}
    for name in shell("readelf -d app").out:gmatch "NEEDED.-%[(.-)%]" do needed[#needed + 1] = name end
    for _, name in ipairs(needed) do
      local is_libc = name:find "^lib[cm]%.so%." or name:find "^ld%-linux"
      assert.is_truthy(is_libc or name:find "^lib%a*san%.so" or name:find "^libgcc_s%.so", name)
    end
  end)

  it("says what is wrong with a copy that is not whole", function()
    local size = #support.read_file(folder .. "/app")
    shell("head -c %d app >short && chmod +x short", size - 7)
    shell "cp app long && echo >>long"
    spoil("wrong", 30, "\0\0\0")
    for name, expected in pairs {
      short = "it is truncated: %d+ bytes instead of %d+", wrong = "it is corrupted",
      long = "it is longer than it was made",
    } do
      local result = run(name)
      assert.are.equal(1, result.status, name)
      assert.are.equal("", result.out)
      assert.matches("^%.%./" .. name .. ": " .. expected, result.err)
    end
  end)

  it("runs as the file that it is, whatever it is called", function()
    shell "ln -sf app link"
    assert.matches("^lib.b\tfalse\t0\t%.%./link", run("link").out)
    assert.matches("^lib.b\tfalse\t0\tapp", shell("PATH=.:$PATH app").out)
  end)

  it("names the requires that led to a missing module", function()
    write("lib/c.lua", 'require "lib.b"\nlocal x = require "lib.missing"\n')
    write("chain.lua", 'print(1)\nrequire "lib.c"\n')
    local result = make "chain.lua -o chain"
    assert.are.equal(1, result.status)
    assert.matches("module 'lib.missing' not found:\n\t.-no file '%./lib/missing%.lua'", result.err)
    assert.matches("\n  required at %./lib/c%.lua:2\n  required at chain%.lua:2\n$", result.err)
    assert.are.equal("", shell("ls chain 2>/dev/null").out)
  end)

  it("says how a module is found that lies beside the script", function()
    shell "mkdir -p beside/inner && echo 'return 7' >beside/inner/init.lua"
    write("beside/app.lua", "require 'inner'\n")
    local result = make "beside/app.lua -o found"
    assert.are.equal(1, result.status)
    local template = result.err:match "\n  it is beside the script: %-%-path '(.-)' finds it\n$"
    assert.are.equal("beside/?/init.lua", template)
    assert.are.equal(0, make("beside/app.lua -o found --path " .. quote(template)).status)
  end)

  it("tells of names that are computed, and takes them by --module", function()
    write("computed.lua", 'local name = "b"\nprint(require("other." .. name))\n')
    shell "mkdir -p elsewhere/other && echo 'return 7' >elsewhere/other/b.lua"
    local result = make "computed.lua -o computed --module other.b --path 'elsewhere/?.lua'"
    assert.are.equal(0, result.status)
    assert.matches("computed%.lua:2: a require whose name is computed", result.err)
    assert.are.equal("7\tbundle:other.b\n", run("computed").out)
    assert.are.equal(1, make("computed.lua -o computed --module nowhere").status)
  end)

  it("sets the mode by the umask, and replaces a file in one step", function()
    assert.are.equal(0, shell("umask 027 && %s bundle lib/b.lua -o mode", quote(binary)).status)
    assert.matches("^750", shell("stat -c %%a mode").out)
    local before = shell("stat -c %%i mode").out
    make "lib/b.lua -o mode"
    assert.are_not.equal(before, shell("stat -c %%i mode").out)
    assert.are.equal("mode\n", shell("ls | grep mode").out)
  end)

  it("refuses with the reason, and leaves nothing behind", function()
    write("syntax.lua", "x = = 1\n")
    write("code.lua", string.dump(load "return 1"))
    shell "mkdir taken; mkfifo pipe"
    for words, expected in pairs {
      ["app.lua -o app.lua"] = "%-o app%.lua would overwrite app%.lua",
      ["app.lua -o lib/../lib/b.lua"] = "would overwrite %./lib/b%.lua",
      ["app.lua -o nowhere/app"] = "cannot write nowhere/app: No such file or directory",
      ["app.lua -o pipe"] = "%-o pipe would replace what is no file",
      ["app.lua -o /dev/stdout"] = "would replace what is no file",
      ["app.lua -o taken"] = "cannot write taken: Is a directory",
      ["syntax.lua -o x"] = "syntax%.lua:1: unexpected symbol",
      ["code.lua -o x"] = "code%.lua: is bytecode",
      ["app -o x"] = "app: is a program, and no Lua script",
      ["none.lua -o x"] = "cannot open none%.lua",
      ["app.lua -o x --data none"] = "%-%-data: cannot open none",
      ["app.lua -o x --data lib"] = "%-%-data: lib: Is a directory",
    } do
      local result = make(words)
      assert.are.equal(1, result.status, words)
      assert.matches(expected, result.err)
    end
    assert.are.equal("", shell("ls x nowhere taken *.new.* 2>/dev/null | grep -v :").out)
  end)

  it("answers bad usage with 2", function()
    for words, expected in pairs {
      [""] = "which script", ["app.lua"] = "%-o APP", ["app.lua -o"] = "%-o needs a value",
      ["app.lua b.lua -o x"] = "one script", ["app.lua -o x -o y"] = "given twice",
      ["app.lua -o x --nonsense"] = "unknown argument", ["app.lua -o x --data a --data b=a"] = "two files",
    } do
      local result = make(words)
      assert.are.equal(2, result.status, words)
      assert.matches("^sluice bundle: .-" .. expected, result.err)
    end
    assert.matches("^usage: sluice bundle FILE.lua %-o APP", make("--help").out)
  end)

  it("holds a program of its own kind as data", function()
    write("outer.lua", 'io.write(#require("sluice.bundle").read "app")')
    assert.are.equal(0, make("outer.lua -o outer --data app").status)
    assert.are.equal(tostring(#support.read_file(folder .. "/app")), run("outer").out)
  end)

  it("runs in a root with the C library alone", function()
    local root = [[set -e; rm -rf root; mkdir root; cp app root/
      for file in $(ldd app | grep -o '/[^ ]*'); do mkdir -p root/$(dirname $file); cp $file root/$file; done
      unshare -r chroot root /app alone]]
    if shell("unshare -r true").status ~= 0 then return pending "unshare -r is not allowed here" end
    if (os.getenv "SLUICE_CFLAGS" or ""):find "fsanitize" then return pending "a sanitizer needs /proc" end
    local result = shell("%s", root)
    assert.are.equal("lib.b\tfalse\t1\t/app\talone\t1\tnil\n", result.out)
  end)
end)

describe("sluice.bundle", function()
  it("reads files from the disk in a script that runs as it is", function()
    support.with_file("content", function(path)
      assert.are.equal("content", bundle.read(path))
    end)
    local content, err = bundle.read "/nonexistent/file"
    assert.is_nil(content)
    assert.is_true(err:is "FileError")
    assert.matches("read data file /nonexistent/file: No such file", tostring(err))
    assert.is_nil(bundle.names())
    assert.has_error(function() bundle.read(1) end)
  end)

  it("finds the requires of a source", function()
    local function found(text)
      local shown = {}
      for _, each in ipairs(requires.find(text)) do
        shown[#shown + 1] = ("%d:%s%s"):format(each.line, each.name or "?", each.is_optional and "?" or "")
      end
      return table.concat(shown, " ")
    end
    assert.are.equal("1:a 2:b 3:c 4:d", found "require 'a'\nrequire(\"b\")\nrequire [[c]]\nrequire[==[d]==]")
    assert.are.equal("1:a\n2", found("require 'a\\n2'"))
    assert.are.equal("1:a? 2:??", found "pcall(require, 'a')\npcall(require, name)")
    assert.are.equal("1:? 2:? 3:?", found "require(name)\nrequire('a' .. b)\nmap(list, require)")
    assert.are.equal("2:a", found "-- require 'x'\nlocal t = 'require \"y\"' .. require 'a'.field")
    assert.are.equal("", found "x.require 'a' x:require 'b' local require = require function require() end")
  end)
end)
