-- SPDX-License-Identifier: MIT
-- The program: its arguments, its exit statuses, its signals.
local support = require "support"
local describe = support.about_program(describe, pending)

describe("sluice", function()
  it("runs a script with its arguments", function()
    support.with_file("print(arg[0], arg[1], #arg, ...)", function(path)
      local result = support.sluice(path, "one", "two words")
      assert.are.equal(path .. "\tone\t2\tone\ttwo words\n", result.out)
      assert.are.equal(0, result.status)
      assert.are.equal("", result.err)
    end)
  end)

  it("runs a script with a shebang line, and one whose top level waits", function()
    local script = "#!/usr/bin/env sluice\nrequire 'sluice.task'.sleep(0.001) print 'waited'"
    support.with_file(script, function(path)
      assert.are.equal("waited\n", support.sluice(path).out)
    end)
  end)

  it("runs a chunk and standard input", function()
    assert.are.equal("x\n", support.sluice("-e", "print(arg[1])", "x").out)
    local piped = support.shell("echo 'print(1 + 1)' | " .. support.quote(support.binary) .. " -")
    assert.are.equal("2\n", piped.out)
  end)

  it("reads a program from standard input as from a file", function()
    local command = "printf '#!/usr/bin/env sluice\\nprint(...)\\nerror()' | %s - one"
    local piped = support.shell(command:format(support.quote(support.binary)))
    assert.same({ "one\n", 1 }, { piped.out, piped.status })
    local unread = support.shell(support.quote(support.binary) .. " - </")
    assert.same({ "sluice: cannot read stdin: Is a directory\n", 1 }, { unread.err, unread.status })
  end)

  it("keeps what it opens from the places of descriptors that are closed", function()
    local unheard = support.shell(support.quote(support.binary) .. " -e 'print(1)' >&-")
    assert.equal(1, unheard.status)
    assert.matches("standard output: Bad file descriptor", unheard.err)
  end)

  it("prints help and version on standard output", function()
    assert.matches("usage: sluice .*sluice FILE.lua", support.sluice("--help").out)
    assert.matches("^sluice %d+%.%d+%.%d+ %(Lua 5.4%)\n$", support.sluice("--version").out)
  end)

  it("answers bad usage with 2 and a message on standard error", function()
    local wrong = { { "--nonsense" }, { "-e" }, { "emulate", "--nonsense" } }
    for _, words in ipairs(wrong) do
      local result = support.sluice(table.unpack(words))
      assert.are.equal(2, result.status, table.concat(words, " "))
      assert.are.equal("", result.out)
      assert.matches("sluice", result.err)
    end
  end)

  it("answers a failing script with 1 and a traceback that names file and line", function()
    support.with_file("local function inner() error 'broken' end\ninner()", function(path)
      local result = support.sluice(path)
      assert.are.equal(1, result.status)
      assert.matches(path:gsub("%p", "%%%0") .. ":1: broken", result.err)
      assert.matches("stack traceback:.*" .. path:gsub("%p", "%%%0") .. ":2:", result.err)
      local _, count = result.err:gsub("broken", "")
      assert.are.equal(1, count)
    end)
    assert.are.equal(1, support.sluice("/nonexistent.lua").status)
    assert.matches("/nonexistent.lua", support.sluice("/nonexistent.lua").err)
    assert.are.equal(1, support.sluice("-e", "this is not Lua").status)
  end)

  it("shows of a traceback what is the script's own", function()
    local result = support.sluice("-e", "assert(nil, 'no')")
    assert.not_matches("command.lua", result.err)
    assert.not_matches("tail calls", result.err)
    assert.matches("in main chunk", result.err)
    assert.matches('a table was raised: {"code":1}', support.sluice("-e", "error { code = 1 }").err)
  end)

  it("gives the errors of the core their text and their methods", function()
    local result = support.sluice("-e", [[
      local task = require "sluice.task"
      local _, err = task.timeout(0.001, task.sleep, 1)
      print(err:is "TimeoutError", tostring(err):match "limit of 0.001 s" ~= nil)]])
    assert.are.equal("true\ttrue\n", result.out)
  end)

  it("fails when standard output cannot be written", function()
    for _, chunk in ipairs { "print(1)", "io.write(1)", "for i = 1, 1e5 do print(i) end" } do
      local result = support.shell(("%s -e %s >/dev/full"):format(
        support.quote(support.binary), support.quote(chunk)))
      assert.are.equal(1, result.status)
      assert.matches("standard output: No space left on device", result.err)
    end
  end)

  it("ends in silence where whoever read its output has left", function()
    for _, chunk in ipairs { "for i = 1, 1e5 do print(i) end", "for i = 1, 1e5 do io.write(i, '\\n') end" } do
      local command = ("{ %s -e %s; echo $? >&2; } | head -n 1"):format(
        support.quote(support.binary), support.quote(chunk))
      local result = support.shell(command)
      assert.same({ "1\n", "141\n" }, { result.out, result.err })
    end
    local caught = "for i = 1, 1e5 do if not pcall(print, i) then break end end error 'mine'"
    local result = support.shell(("{ %s -e %s; echo $? >&2; } | head -n 1"):format(
      support.quote(support.binary), support.quote(caught)))
    assert.matches("mine.*\n1\n$", result.err)
  end)

  it("says which word was meant", function()
    assert.equal('sluice: unknown option --emulatr (did you mean "--emulator"?)\n'
      .. "sluice --help lists the arguments\n", support.sluice("--emulatr").err)
    assert.equal('sluice: cannot open bundel: No such file or directory (did you mean "sluice bundle"?)\n',
      support.sluice("bundel").err)
    assert.equal("sluice: cannot open ./emulat: No such file or directory\n", support.sluice("./emulat").err)
  end)

  it("gives the library real file names in tracebacks", function()
    local result = support.sluice("-e",
      "require('sluice.stream').wrap({ next = function() error 'mine' end, close = print }):collect()")
    assert.are.equal(1, result.status)
    assert.matches("mine\nstack traceback:\n\t%(command line%):1: .*lua/sluice/stream.lua:%d+", result.err)
  end)

  it("unwinds before os.exit ends it, and tells the status", function()
    local script = [[
      local task = require "sluice.task"
      local x <close> = setmetatable({}, { __close = function() print "closed" end })
      task.spawn(function()
        local y <close> = setmetatable({}, { __close = function() print "task closed" end })
        task.sleep(100)
      end)
      task.sleep(0.01)
      os.exit(7)]]
    local result = support.sluice("-e", script)
    assert.are.equal(7, result.status)
    assert.matches("closed\n", result.out)
    assert.matches("task closed\n", result.out)
    assert.are.equal("", result.err)
    assert.are.equal(0, support.sluice("-e", "os.exit(true)").status)
    assert.are.equal(1, support.sluice("-e", "os.exit(false)").status)
  end)

  it("turns signals into cancellation and tells them by 130 and 143", function()
    for signal, expected in pairs { INT = 130, TERM = 143 } do
      local script = [[
        local x <close> = setmetatable({}, { __close = function() print "cleaned up" end })
        print "ready" io.stdout:flush()
        require "sluice.task".sleep(100)]]
      local result = support.shell(("timeout --preserve-status -s %s 0.5 %s -e %s"):format(
        signal, support.quote(support.binary), support.quote(script)))
      assert.are.equal(expected, result.status)
      assert.are.equal("ready\ncleaned up\n", result.out)
      assert.are.equal("", result.err)
    end
  end)

  it("ends a script that computes for ever", function()
    local result = support.shell(("timeout --preserve-status -s INT 0.5 %s -e 'while true do end'"):format(
      support.quote(support.binary)))
    assert.are.equal(130, result.status)
  end)

  it("says when every task waits and nothing can wake one", function()
    local result = support.sluice("-e", "require 'sluice.task'.channel():receive()")
    assert.are.equal(1, result.status)
    assert.matches("nothing can wake one", result.err)
  end)

  it("says so beside connections that are kept", function()
    if not support.has "server" then return pending "this build has no server" end
    local chunk = [[
      local sluice = require "sluice"
      local url = assert(io.read "l"):match "http://%S+"
      assert(sluice.http.request { url = url })
      sluice.task.channel():receive()
    ]]
    local binary = support.quote(support.binary)
    local server = ("{ %s emulate & echo $! >&2; wait; } 2>&1"):format(binary)
    local client = ("timeout 10 %s -e %s"):format(binary, support.quote(chunk))
    local both = "%s | { read pid; %s; status=$?; kill $pid; exit $status; }"
    local result = support.shell(both:format(server, client))
    assert.are.equal(1, result.status)
    assert.matches("nothing can wake one", result.err)
  end)

  it("reports the error of a task that nobody can take", function()
    local result = support.sluice("-e", [[
      local task = require "sluice.task"
      local group <close> = task.group()
      group:spawn(function() error "lonely" end)
      task.sleep(0.01)
      print "goes on"]])
    assert.are.equal(0, result.status)
    assert.are.equal("goes on\n", result.out)
    assert.matches("lonely", result.err)
  end)

  it("makes no globals but arg", function()
    local result = support.sluice("-e", [[
      local stock = { arg = true }
      local names = "_G _VERSION assert collectgarbage coroutine debug dofile error getmetatable io "
        .. "ipairs load loadfile math next os package pairs pcall print rawequal rawget rawlen rawset "
        .. "require select setmetatable string table tonumber tostring type utf8 warn xpcall"
      for name in names:gmatch "%S+" do stock[name] = true end
      require "sluice" require "sluice.task" require "cjson"
      for name in pairs(_G) do if not stock[name] then print(name) end end]])
    assert.are.equal("", result.out)
  end)

  it("loads libcurl and OpenSSL only when they are called", function()
    local result = support.sluice("-e", [[
      local function mapped()
        local count = 0
        for line in io.lines "/proc/self/maps" do
          if line:find "libcurl" or line:find "libssl" then count = count + 1 end
        end
        return count
      end
      local http = require "sluice.http"
      print(mapped())
      http.request { url = "http://127.0.0.1:1/" }
      print(mapped() > 0)]])
    assert.are.equal("0\ntrue\n", result.out)
  end)

  it("says what make WITHOUT= left out", function()
    if support.has "server" then return pending "this build leaves nothing out" end
    local result = support.sluice("-e", "print(pcall(require, 'sluice.core.server'))")
    assert.matches("module 'sluice.core.server' was left out of this build", result.out)
    result = support.sluice("-e", "require('sluice.web').app():listen '127.0.0.1:0'")
    assert.are.equal(1, result.status)
    assert.matches("sluice.core.server' was left out of this build", result.err)
  end)

  it("has lua-cjson built in", function()
    local chunk = "print(require'cjson'.decode'[null]'[1] == require'sluice.json'.null)"
    local result = support.sluice("-e", chunk)
    assert.are.equal("true\n", result.out)
  end)

  it("lets a required module wait, once for all that want it", function()
    local folder = os.tmpname()
    os.remove(folder)
    assert(os.execute("mkdir " .. folder))
    local file = assert(io.open(folder .. "/slow.lua", "w"))
    file:write "require'sluice.task'.sleep(0.01) loads = (loads or 0) + 1 return { loads = loads }"
    file:close()
    local result = support.sluice("-e", ([[
      package.path = %q .. "/?.lua;" .. package.path
      local task = require "sluice.task"
      local a = task.spawn(require, "slow")
      local b = task.spawn(require, "slow")
      print(a:join() == b:join(), (a:join()).loads)
      print(pcall(require, "no.such.module"))]]):format(folder))
    os.execute("rm -r " .. folder)
    assert.matches("^true\t1\nfalse\tmodule 'no.such.module' not found:", result.out)
  end)
end)

-- Types these lines into the program without a terminal.
local function typed(text, words, redirect)
  return support.with_file(text, function(path)
    local command = "%s %s <%s %s"
    return support.shell(command:format(support.quote(support.binary), words or "", path, redirect or ""))
  end)
end

describe("sluice without a script, from a pipe", function()
  it("shows results without a prompt, as they come", function()
    local result = typed "1 + 1\nlocal t = { 1,\n2 }\nt\nprint(#t)\n'a'"
    assert.same({ '2\n{ 1, 2 }\n2\n"a"\n', "", 0 }, { result.out, result.err, result.status })
    assert.equal("", typed("").out)
    local piped = support.shell("printf '2 * 3' | " .. support.quote(support.binary))
    assert.same({ "6\n", 0 }, { piped.out, piped.status })
  end)

  it("goes on behind an error, and tells it by its exit status", function()
    local result = typed "error 'no'\n7\n"
    assert.same({ "7\n", 1 }, { result.out, result.status })
    assert.matches("^entry 1:1: no\nstack traceback:", result.err)
    assert.equal(1, typed("foo bar\n").status)
    assert.equal(1, typed("f(").status)
    assert.equal(3, typed("os.exit(3)\n1\n").status)
  end)

  it("keeps results and errors in their order", function()
    local result = typed("1\nerror('two', 0)\n3\n", "", "2>&1")
    assert.equal("1\ntwo\n3\n", (result.out:gsub("stack traceback:[^\n]*\n\t[^\n]*\n", "")))
  end)

  it("takes bytes as they are", function()
    assert.equal("3\n255\n", typed("#'a\xc3\xff'\n('\xff'):byte()\n").out)
    assert.equal("5\n", typed("2 +\r\n3\r\n").out)
  end)

  it("says so when nothing can be read", function()
    for from, why in pairs { ["<&-"] = "Bad file descriptor", ["</"] = "Is a directory" } do
      local result = support.shell(support.quote(support.binary) .. " " .. from)
      assert.same({ "", ("sluice: standard input: %s\n"):format(why), 1 },
        { result.out, result.err, result.status })
    end
  end)

  it("says so when results cannot be written", function()
    local result = typed("1\n", "", ">/dev/full")
    assert.equal(1, result.status)
    assert.matches("standard output: No space left on device", result.err)
  end)

  it("runs to the end what an entry waits for, and cancels the rest", function()
    local result = typed [[
      task = sluice.task
      guard = setmetatable({}, { __close = function() print "closed" end })
      t = task.spawn(function() local x <close> = guard task.sleep(9) end)
      task.sleep(0.01) return "waited"]]
    assert.same({ '"waited"\nclosed\n', "", 0 }, { result.out, result.err, result.status })
  end)

  it("writes no history", function()
    support.with_file("", function(path)
      typed("1\n", "", "")
      local result = support.shell(("echo 1 | XDG_STATE_HOME=%s.d %s; ls %s.d"):format(path,
        support.quote(support.binary), path))
      assert.matches("No such file", result.err)
    end)
  end)

  it("ends by a signal as a script does", function()
    local command = "(echo 'sluice.task.sleep(9)'; sleep 2) | timeout --preserve-status -s INT 0.5 %s"
    assert.equal(130, support.shell(command:format(support.quote(support.binary))).status)
  end)

  if support.has "server" then
    it("has a private emulator on request", function()
      local result = typed("#sluice.workspace().serving_endpoints:list()\n", "--emulator")
      assert.same({ "0\n", "" }, { result.out, result.err })
    end)

    it("has the emulator for clients of OpenAI's API too", function()
      local script = [[
        local sluice = require "sluice"
        local served = { { entity_name = "main.demo.echo", entity_version = "1", workload_size = "Small" } }
        assert(sluice.workspace()).serving_endpoints:create_and_wait {
          name = "e", config = { served_entities = served } }
        local messages = { { role = "user", content = "hi" } }
        local answer = assert(sluice.openai { model = "e" }:query { messages = messages })
        print(answer.choices[1].message.content)]]
      local result = support.with_file(script, function(path)
        local command = "OPENAI_API_KEY=mine %s --emulator %s"
        return support.shell(command:format(support.quote(support.binary), path))
      end)
      assert.same({ "hi\n", "" }, { result.out, result.err })
    end)
  end
end)
