-- SPDX-License-Identifier: MIT
-- The REPL behind its console: entries as tasks, results, errors, what goes on behind the prompt, commands.

local commands = require "sluice.repl.commands"
local globals = require "sluice.repl.globals"
local observe = require "sluice.observe"
local repl_console = require "repl_console"
local sluice = require "sluice"
local sessions = require "sluice.repl.session"
local source = require "sluice.repl.source"
local support = require "support"
local describe = support.about_program(describe, pending)
local task = require "sluice.task"
local waterfall = require "sluice.trace.waterfall"

local run = repl_console.run

-- A stream of these pieces of text.
local function stream_of(pieces, err)
  local at = 0
  return sluice.stream.wrap {
    next = function()
      at = at + 1
      if pieces[at] then return { choices = { { delta = { content = pieces[at] } } } } end
      return nil, err
    end,
    close = function() end,
  }
end

describe("the REPL", function()
  it("shows the values of an expression, and nothing of a statement", function()
    assert.equal('2\n1, nil, "a"\n', run({ "1 + 1", "x = 5", "1, nil, 'a'" }).out)
    assert.equal("1\nnil, nil\n", run({ "1, nil", "nil, nil" }).out)
    assert.equal("", run({ "(function() end)()", "", "   ", "-- nothing" }).out)
  end)

  it("goes on until an entry is whole", function()
    local seen = run { "for i = 1, 2 do", "print(i)", "end", "x = [[a", "b]]", "x", "f(" }
    assert.equal('1\n2\n"a\\nb"\n', seen.out)
    assert.same({ "> ", ">> ", ">> ", "> ", ">> ", "> ", "> ", ">> " }, seen.prompts)
    assert.same({ 1, "the entry is not whole\n" }, { seen.failures, seen.err })
    assert.equal("for i = 1, 2 do\nprint(i)\nend", seen.remembered[1])
  end)

  it("lets whoever types drop an entry that was begun", function()
    assert.equal("3\n", run({ "for i = 1, 2 do", { event = "interrupt" }, "1 + 2" }).out)
  end)

  it("keeps what is local at the top of an entry", function()
    local seen = run {
      "local a, b <const> = 1, 2", "local function twice() return a * 2 end", "do local a = 7 end", "local c",
      "a, b, twice(), c",
    }
    assert.equal("1, 2, 2, nil\n", seen.out)
    assert.equal("", seen.err)
    local closed = run { "closed = false",
      "local x <close> = setmetatable({}, { __close = function() closed = true end }) x = nil", "x" }
    assert.matches("attempt to assign to const variable 'x'", closed.err)
    assert.equal("      a = nil\n      b = nil", source.keep_locals "local a\nlocal b")
  end)

  it("compiles what it can, and says whether more is wanted", function()
    assert.equal("expression", (select(3, source.compile("1", "=entry", _G))))
    assert.equal("statements", (select(3, source.compile("x = 1", "=entry", {}))))
    for _, beginning in ipairs { "f(", "x =", "function()", "[[a", "--[[ a", "'a\\", "local" } do
      local chunk, message = source.compile(beginning, "=entry", {})
      assert.same({}, { chunk, message }, beginning)
    end
    for _, wrong in ipairs { "foo bar", "x = 'abc", "end", "1 +* 2" } do
      local chunk, message = source.compile(wrong, "=entry 1", {})
      assert.is_nil(chunk, wrong)
      assert.matches("^entry 1:1: ", message, wrong)
    end
    assert.is_true(source.keywords["while"])
  end)

  it("reads tokens of whatever is typed", function()
    local kinds = {}
    for _, token in ipairs(source.tokens "a.b = 'x' .. [[y]] -- z") do kinds[#kinds + 1] = token.kind end
    assert.equal("name mark name mark string mark string comment", table.concat(kinds, " "))
    assert.is_true(source.tokens("'a")[1].unfinished)
    assert.equal("a", source.tokens("[==[a")[1].content)
  end)

  it("has the modules of the library by their names, in entries alone", function()
    local seen = run { "task.sleep(0)", "json.encode { layers.retry ~= nil }", "rawget(_G, 'task')",
      "log = 'mine'", "log", "nothing", "statistics ~= nil", "options" }
    assert.equal('"[true]"\nnil\n"mine"\nnil\ntrue\nnil\n', seen.out)
    assert.is_nil(rawget(_G, "layers"))
    local function fail(_, name) error(name) end
    local own = setmetatable({ task = "of the program", sluice = sluice }, { __index = fail })
    assert.matches("of the program", run({ "task", "json ~= nil" }, { env = own }).out)
  end)

  it("saves which modules it took", function()
    local env = {}
    local scope = globals.over(env)
    globals.lend(scope, "task.sleep(1) a.json.b = { log = 1 } local http, web = 1, 2 stream = sse")
    assert.same({ true, true, true }, { scope.task == sluice.task, scope.sse == sluice.sse, env.task == nil })
    assert.same({}, { scope.json, scope.log, scope.http, scope.web, scope.stream })
    assert.same({ "sse", "task" }, globals.lent(scope, "sse.reader(task, task, other)"))
    scope.mine = 1
    assert.equal(1, env.mine)
  end)

  it("remembers nine results", function()
    local inputs = {}
    for n = 1, 11 do inputs[n] = tostring(n) end
    local seen = run(inputs)
    assert.same({ 11, 11, 3 }, { seen.env._, seen.env._1, seen.env._9 })
    assert.is_nil(rawget(seen.env, "_10"))
    assert.equal("5\n15\nnil\n5\n", run({ "5", "_ + 10", "nil", "_2" }).out)
  end)

  it("tells errors with the part of the traceback that was typed", function()
    local seen = run { "local function f() error 'broken' end", "f()", "error { code = 1 }", "1" }
    assert.matches("^entry 1:1: broken\nstack traceback:\n[^\n]*entry 1:1: in %a+ 'f'\n", seen.err)
    assert.matches("a value was raised: { code = 1 }", seen.err)
    assert.not_matches("repl/", seen.err)
    assert.same({ "1\n", 2 }, { seen.out, seen.failures })
    assert.matches("(ConnectError)", run({
      "assert(nil, require'sluice.errors'.new('ConnectError', { message = 'no' }))" }).err, 1, true)
  end)

  it("lets an entry wait", function()
    local began = task.now()
    assert.equal("true\n", run({ "local t = require'sluice.task'", "t.sleep(0.02) return true" }).out)
    assert.is_true(task.now() - began >= 0.02)
  end)

  it("shows a stream as it comes, and keeps its answer", function()
    local seen = run({ "s", "_.choices[1].message.content", "#_1" },
      { env = setmetatable({ s = stream_of { "one ", "two" } }, { __index = _G }) })
    assert.equal('one two\n"one two"\n7\n', seen.out)
    local err = sluice.errors.new("TimeoutError", { message = "too slow" })
    seen = run({ "s" }, { env = setmetatable({ s = stream_of({ "one" }, err) }, { __index = _G }) })
    assert.equal("one", seen.out)
    assert.matches("^too slow", seen.err)
  end)

  it("hides secrets in whatever it shows", function()
    local hidden = sluice.secret "a-long-secret"
    local seen = run({ "text", "error(text)" },
      { env = setmetatable({ text = "x a-long-secret", hidden = hidden }, { __index = _G }) })
    assert.equal('"x ***"\n', seen.out)
    assert.matches("x %*%*%*", seen.err)
  end)
end)

describe("behind the prompt", function()
  local function env()
    local own = setmetatable({ task = task }, { __index = _G })
    own.guard = setmetatable({}, { __close = function() own.print "closed" end })
    return own
  end

  it("goes on what an entry has started", function()
    local seen = run({
      "t = task.spawn(function() task.sleep(0.01) print 'behind' return 7 end)", "1",
      function() task.sleep(0.05) end,
      "t:join()",
    }, { env = env() })
    assert.equal("1\nbehind\n7\n", seen.out)
  end)

  it("tells an error there, with the entry that it comes from", function()
    local seen = run({ "t = task.spawn(function() error 'lost' end)", function() task.sleep(0.01) end },
      { env = env() })
    assert.matches("^entry 1, behind the prompt: entry 1:1: lost", seen.err)
  end)

  it("cancels what a failing entry has started", function()
    local seen = run({
      "t = task.spawn(function() local x <close> = guard task.sleep(9) end) task.sleep(0) error 'no'",
      function() task.sleep(0.01) end, ":tasks",
    }, { env = env() })
    assert.equal("closed\nno task that an entry has started runs\n", seen.out)
  end)

  it("stops what an entry has started when asked, and the entry alone", function()
    local asked = task.channel()
    local seen = run({
      "other = task.spawn(task.sleep, 0.2)", "task.spawn(task.sleep, 9) task.sleep(9)", ":tasks",
      function() asked:close() end,
    }, {
      env = env(),
      wait_interrupt = function()
        task.sleep(0.02)
        return "interrupted"
      end,
    })
    assert.equal("interrupted\n", seen.err)
    assert.matches("^entry 1: other = task.spawn", seen.out)
    assert.not_matches("entry 2", seen.out)
  end)

  it("gives the prompt back from an entry that will not stop", function()
    local began = task.now()
    local seen = run({ "task.shield(function() task.sleep(0.3) end)", "1" },
      { env = env(), wait_interrupt = function() task.sleep(0.02) return "interrupted" end })
    assert.matches("entry 1 goes on, behind the prompt", seen.err)
    assert.equal("1\n", seen.out)
    assert.is_true(task.now() - began < 1)
  end)

  it("says at the end what is still running, where somebody reads it", function()
    local typed = { "t = task.spawn(task.sleep, 9)" }
    local seen = run(typed, { env = env(), is_interactive = true, banner = "hello" })
    assert.matches("^hello\nstill running, and cancelled now:\nentry 1: t = task.spawn", seen.out)
    assert.equal("", seen.err)
    assert.equal("", run(typed, { env = env() }).out)
    seen = run({ typed[1], { event = "end", hangup = true } }, { env = env(), is_interactive = true })
    assert.equal("", seen.out)
  end)
end)

describe("a command", function()
  it("is told from Lua", function()
    assert.is_true(commands.is_one ":help")
    assert.is_true(commands.is_one "?print")
    assert.is_false(commands.is_one "::label::")
    assert.is_true(#commands.names() >= 7)
    assert.matches("there is no command :hepl %(did you mean \"help\"%?%)", run({ ":hepl" }).err)
    assert.matches(":save FILE", run({ ":help" }).out)
    assert.equal("", run({ ":quit", "1" }).out)
  end)

  it("times an entry", function()
    local seen = run { ":time require'sluice.task'.sleep(0.02)", ":time", ":time f(" }
    assert.matches("^0%.0[2-9]%d s, 0%.%d+ s of it computing\n$", seen.out)
    assert.matches(":time ENTRY: an entry is needed\n:time: the entry is not whole", seen.err)
  end)

  it("cancels an entry", function()
    local function later() task.sleep(0.01) end
    local typed = { "t = task.spawn(task.sleep, 9)", ":cancel 1", later, ":tasks", ":cancel 1", ":cancel x" }
    local seen = run(typed, { env = setmetatable({ task = task }, { __index = _G }) })
    assert.equal("entry 1 is cancelled\nno task that an entry has started runs\n", seen.out)
    assert.matches(":cancel N: no entry 1 runs; see :tasks\n:cancel N: no entry x runs", seen.err)
    assert.matches("running", run({ ":tasks all" }).out)
  end)

  it("shows the waterfall of the last request", function()
    local request = "require'sluice.http'.request { url = 'http://127.0.0.1:1/a?secret=1' }"
    local seen = run { ":trace", request, ":trace" }
    assert.matches("^no request was made", seen.err)
    assert.matches("GET http://127.0.0.1:1/a: ConnectError, ", seen.out, 1, true)
    assert.not_matches("GET http://127.0.0.1:1/a?", seen.out, 1, true)
    assert.is_false(observe.on_request)
  end)

  it("draws each phase where it stands", function()
    local response = sluice.meta and { status = 200 }
    require("sluice.meta").set(response, { timing = {
      queue = 0, connect = 0.1, first_byte = 0.2, total = 0.4, reused = false, bytes_in = 5,
    } })
    local lines = {}
    local picture = waterfall.of_exchange({ method = "GET", url = "http://a/", response = response }, 66)
    for line in picture:gmatch "[^\n]+" do lines[#lines + 1] = line end
    assert.same({
      "GET http://a/: 200, 400.0 ms",
      "  connect       100.0 ms  ##########",
      "  first byte    200.0 ms            ####################",
      "  content       100.0 ms                                ##########",
      "  new connection, 5 bytes in",
    }, lines)
    local open = { method = "GET", url = "u", response = { status = 200 } }
    assert.equal("GET u: 200, still running", waterfall.of_exchange(open, 80))
  end)

  -- What a session saves, and what the script prints.
  local function saved(typed, env)
    local path = os.tmpname()
    typed[#typed + 1] = ":save! " .. path
    local seen = run(typed, { env = setmetatable(env or {}, { __index = _G }) })
    local text, result = support.read_file(path), support.sluice(path)
    os.remove(path)
    return text:gsub("^.-\n\n", ""), seen, result, text
  end

  it("saves what did not fail as a script that prints the same", function()
    local text, seen, result = saved {
      "local x = 2", "x * 21", "error 'no'", "_ + 1", "_2", "print(x -- why\n)", "x -- why", "{ a = { x } }",
      "for _, n in ipairs { 7 } do print(n) end", "nil",
    }
    assert.equal([[
local x = 2
_ = x * 21
print(_)
print(_ + 1)
-- _2
print(x -- why
)
print(x)
print(show(assert({ a = { x } })))
for _, n in ipairs { 7 } do print(n) end
print(nil)
]], text)
    assert.equal("42\n43\n2\n2\n{ a = { 2 } }\n7\nnil\n", result.out)
    assert.equal("", result.err)
    assert.equal(result.out, (seen.out:gsub("saved as.*", ""):gsub("\n42\n2", "\n2", 1)))
  end)

  it("saves streams, and calls by what came of them", function()
    local env = { talk = function() return stream_of { "one ", "two" } end, errors = sluice.errors }
    local text = saved({ "talk()", "talk()", "_.choices", "(function() end)()",
      "errors.new('NotFound', {})", "nil, errors.new('NotFound', {})" }, env)
    local loop = ":text() do io.write(text) io.flush() end\nprint()\n"
    assert.equal("for text in assert(talk())" .. loop .. "_ = assert(talk())\nfor text in _" .. loop
      .. "_ = assert(_:collect())\nprint(show(assert(_.choices)))\n(function() end)()\n"
      .. "print(show(assert(errors.new('NotFound', {}))))\n-- nil, errors.new('NotFound', {})\n", text)
  end)

  it("saves over no file that is there", function()
    local path = os.tmpname()
    local seen = run { "x = 1", ":save " .. path, ":save! " .. path, ":save " .. path }
    assert.matches("is there already, :save! " .. path .. " replaces it", seen.err, 1, true)
    assert.equal(("saved as %s\n"):format(path):rep(2), seen.out)
    os.remove(path)
    assert.equal("saved as " .. path .. "\n", run({ ":save " .. path }).out)
    os.remove(path)
    assert.matches(":save: /dev/null/x: Not a directory", run({ ":save /dev/null/x" }).err)
    assert.matches(":save FILE: a file is needed", run({ ":save" }).err)
  end)
end)

describe("a session", function()
  it("runs entries, shows and complains through its console", function()
    local out = {}
    local function write(text) out[#out + 1] = text end
    local session <close> = sessions.new({ write = write, write_error = write, read_line = print }, {})
    local chunk, _, kind = session:compile("1")
    local entry = session:run("1", chunk, kind)
    assert.same({ 1, true, false }, { entry.number, entry.ended, entry.failed })
    session:complain "wrong"
    assert.same({ "1\n", "wrong\n" }, out)
    assert.equal('"a"', session:show "a")
    assert.same({}, session:tasks())
    session:cancel(entry, "late")
    session:close()
  end)
end)
