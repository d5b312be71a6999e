-- SPDX-License-Identifier: MIT
-- libsluice as a C program sees it: each program of spec/embedding is a host, each case a run of it.

local support = require "support"
local everywhere, describe = describe, support.about_program(describe, pending)

-- The Makefile says how the library was compiled: a sanitizer must be in the program as well.
local compiler = os.getenv "SLUICE_CC" or "cc"
local flags = os.getenv "SLUICE_CFLAGS" or "-O1 -g"
-- Under a sanitizer a cycle costs ten times as much, and its quarantine looks like growth.
local scale = os.getenv "SLUICE_SLOW" and "CYCLES=200 FAIL_STEP=7 " or ""

-- What a host's link line needs beside libsluice.a.
local libraries = "-llua5.4 "
  .. (os.getenv "SLUICE_LIBS" or "-lcurl -lhiredis -lsqlite3 -lssl -lcrypto -lcares -lev -lm -ldl -pthread")

local built = {}

local function build(name)
  if built[name] then return built[name] end
  local program = ("%s/embedding-%s"):format(support.build, name)
  local result = support.shell(table.concat({
    compiler, "-std=c11 -D_GNU_SOURCE -Wall -Wextra -Werror", flags, "-Iruntime -isystem /usr/include/lua5.4",
    ("spec/embedding/%s.c"):format(name), support.quote(support.build .. "/libsluice.a"), libraries,
    "-o", support.quote(program),
  }, " "))
  assert.are.equal("", result.err)
  assert.are.equal(0, result.status)
  built[name] = program
  return program
end

-- `needs`: a module of `make WITHOUT=` that the program uses.
local function case(program, name, what, needs)
  it(what, function()
    if needs and not support.has(needs) then return pending("this build has no " .. needs) end
    local result = support.shell(scale .. support.quote(build(program)) .. " " .. name)
    if result.status ~= 0 or result.out ~= "ok\n" then
      error(("%s %s: status %s\n%s%s"):format(program, name, result.status, result.out, result.err), 0)
    end
  end)
end

describe("a chunk", function()
  case("tasks", "results", "gives its first result as JSON")
  case("tasks", "errors", "gives its error with a traceback")
  case("tasks", "cancellation", "is cancelled with a reason, and unwinds")
  case("tasks", "runaways", "that computes for ever does not hold up a pump")
  case("tasks", "cancelled_runaway", "that computes for ever is cancelled all the same")
  case("tasks", "slices", "computes the same in slices, in coroutines too")
  case("tasks", "sliced_trees", "waits the same in slices")
end)

describe("an instance", function()
  case("lifetime", "several", "lives beside others")
  case("lifetime", "busy", "refuses calls from its callbacks, and keeps their texts until the next pump")
  case("lifetime", "delete_in_callback", "is deleted at the end of the pump when a callback asks for it")
  case("lifetime", "delete_in_error", "is deleted when the error callback asks for it")
  case("lifetime", "delete_tells", "tells the end of each chunk when it is deleted")
  case("lifetime", "misuse", "refuses options that cannot be")
  case("lifetime", "cycles", "leaves nothing behind")
  case("lifetime", "warm_up", "is warmed up once")
  case("lifetime", "threads", "refuses calls on another thread")
end)

describe("a function of the host's", function() -- sluice.host
  case("calls", "completed", "is waited for in Lua and completed from C")
  case("calls", "at_once", "may be completed inside the callback")
  case("calls", "failed", "fails with a kind, and with answers that are not JSON")
  case("calls", "cancelled", "is told when nobody waits any more, and may complete all the same")
  case("calls", "many", "is called many times at once")
  case("calls", "refused", "refuses what cannot be, by name")
  case("calls", "deleted", "is told of open calls when the instance goes")
  case("calls", "outlived", "says that its instance is gone")
  case("calls", "from_a_thread", "is completed with the work of another thread")
end)

describe("a descriptor of the host's", function()
  case("calls", "watched", "is watched beside the library's own")
  case("calls", "deleted_by_watcher", "may end the instance")
end)

describe("an instance's limits", function()
  case("limits", "refused", "let it reach nothing outside by default", "server")
  case("limits", "granted", "are what the host grants")
  case("limits", "memory_limit", "stop a chunk that takes too much memory, not the instance")
  case("limits", "failing_once", "hold when an allocation fails")
  case("limits", "failing_for_good", "hold when no allocation succeeds any more")
  case("limits", "failing_sockets", "hold when a request or its server has no memory", "server")
end)

describe("what an instance is granted", function()
  case("grants", "hosts", "is held to hosts, by proxies, redirects and sockets too", "server")
  case("grants", "ports", "is held to ports", "server")
  case("grants", "databases", "opens no file of a database", "server")
  case("grants", "methods", "is held to methods", "server")
  case("grants", "quotas", "is held to a number of requests and of bytes", "server")
  case("grants", "environment", "is held to environment variables", "server")
end)

describe("a script of strangers", function()
  case("sandbox", "runaways", "that computes for ever ends, whatever it catches")
  case("sandbox", "runaways_in_c", "that computes for ever where Lua cannot yield ends")
  case("sandbox", "runaways_at_the_end", "does not hold up the telling of its end")
  case("sandbox", "long_calls", "makes no call of C that runs for long")
  case("sandbox", "memory", "takes no more memory than it may")
  case("sandbox", "escapes", "gets none of what would free it")
  case("sandbox", "library", "uses the library as others do")
  case("sandbox", "same_patterns", "finds what Lua's own patterns find")
  case("sandbox", "refused_options", "is not let in with limits that could not hold")
  case("sandbox", "sizes", "is made with options of an older or a newer header")
end)

describe("the memory of an instance's Lua", function()
  case("heap", "contents", "holds what was put there, whatever changes its size")
  case("heap", "without_memory", "shrinks where there is none left")
  case("heap", "gives_back", "goes back when it is free")
  case("heap", "limit", "is counted to the byte")
end)

describe("an instance in a host's own Lua", function()
  case("host_state", "restored", "leaves it as it was")
  case("host_state", "one_at_a_time", "is the only one")
  case("host_state", "outlived", "may be outlived by what scripts left there", "server")
  case("host_state", "registry_is_clean", "leaves no references there")
  case("host_state", "pumped_from_lua", "may be pumped from Lua")
  case("host_state", "kept_functions", "does not yield to functions of coroutines that are not its own")
end)

describe("a loop", function()
  case("loops", "due", "of the library waits until a timer is due")
  case("loops", "woken", "of the library is woken by another thread")
  case("loops", "own_timers", "of the host's drives timers")
  case("loops", "own_sockets", "of the host's drives sockets", "server")
  case("loops", "own_full", "of the host's that can watch no more fails requests, not the instance", "server")
end)

everywhere("warming up", function()
  it("leaves no connection behind", function()
    local http, warm_up = require "sluice.http", require "sluice.warm_up"
    warm_up.run(false)
    local client = http.client {}
    client:warm_up()
    assert.are.equal(0, client:stats().open)
    client:close()
    http.warm_up()
    http.warm_up()
  end)
end)

describe("an example", function()
  it("drives sluice from a loop of its own", function()
    if not support.has "server" then return pending "this build has no server" end
    local result = support.shell(support.quote(support.build .. "/examples/plain_loop"))
    assert.are.equal("", result.err)
    assert.are.equal(0, result.status)
    assert.matches('"says":"the gate is open"', result.out)
    assert.matches('"ticks":%[%d+,%d+%]', result.out)
  end)

  it("runs plugins of strangers", function()
    local result = support.shell(support.quote(support.build .. "/examples/plugin"))
    assert.are.equal("", result.err)
    assert.are.equal(0, result.status)
    for _, line in ipairs {
      'a good one prints: it has waited, and there is gold:\t21', 'a good one: done: {"price":42}',
      "loops for ever: more instructions than the options allow", "all memory: .-not enough memory",
      "with a pattern: .-pattern too complex", "cannot wait: .-where Lua cannot yield",
      "a finalizer: .-__gc is not allowed here", "bytecode: .-attempt to load a binary chunk",
      "reads files: .-global 'io'", "starts programs: .-not for scripts here",
      "calls home: .-not allowed here", 'too much: .-did you mean "count"',
    } do
      assert.matches(line, result.out)
    end
  end)
end)

describe("the log of an instance", function()
  case("log", "descriptor", "goes where the host says")
  case("log", "signals", "is written on a thread that leaves signals to the host")
  case("log", "no_thread", "needs no thread, and waits for nobody then")
  case("log", "small_queue", "has the queue that the host wants")
  case("log", "stuck", "does not hold up the end for long")
  case("log", "refused", "is as the options say, or they are refused")
end)
