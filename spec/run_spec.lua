-- SPDX-License-Identifier: MIT
-- sluice.run under a stock Lua, with the object that the rock installs.

local support = require "support"

local quote = support.quote

-- A sanitizer in the object must be in the program that loads it too.
local function preload()
  if not (os.getenv "SLUICE_CFLAGS" or ""):find "fsanitize=address" then return "" end
  local library = support.shell((os.getenv "SLUICE_CC" or "cc") .. " -print-file-name=libasan.so").out
  return "env LD_PRELOAD=" .. quote(library:gsub("%s+$", "")) .. " "
end

-- The stock program: it knows nothing of us but where the rock's files are, and with the rock not even that.
local prelude = [[
local sluice = require "sluice"
local task = require "sluice.task"
]]
if not support.is_rock then
  local paths = 'package.cpath, package.path = %q .. "/?.so;" .. package.cpath, '
    .. '"lua/?.lua;lua/?/init.lua;" .. package.path\n'
  prelude = paths:format(support.build) .. prelude
end

local function run(chunk)
  return support.with_file(prelude .. chunk, function(path)
    return support.shell(preload() .. "lua5.4 " .. quote(path))
  end)
end

local function prints(expected, chunk)
  local result = run(chunk)
  assert.are.equal("", result.err)
  assert.are.equal(expected, result.out)
  assert.are.equal(0, result.status)
end

describe("sluice.run", function()
  it("gives the results of its function, which may wait", function()
    prints("3\tnil\t6\n", [[
      print(sluice.run(function(a, b)
        local each = coroutine.wrap(function() for i = 1, 3 do task.sleep(0.001) coroutine.yield(i) end end)
        local sum = 0
        for i in each do sum = sum + i end
        return a + b, nil, sum
      end, 1, 2))]])
  end)

  it("raises its error again, the same value", function()
    prints("true\tx: broken\n", [[
      local err = { code = 5 }
      local ok, raised = pcall(sluice.run, function() task.sleep(0) error(err) end)
      local _, text = pcall(sluice.run, function() task.sleep(0) error("x: broken", 0) end)
      print(not ok and rawequal(raised, err), text)]])
  end)

  it("replaces functions of coroutine only while it runs", function()
    prints("true\ttrue\n", [[
      local before, inside = {}, false
      for name, value in pairs(coroutine) do before[name] = value end
      sluice.run(function() inside = coroutine.wrap ~= before.wrap end)
      pcall(sluice.run, error)
      local same = true
      for name, value in pairs(coroutine) do same = same and value == before[name] end
      print(inside, same)]])
  end)

  it("cancels and joins what is left, before it returns", function()
    prints("closing\nended\nresult\n", [[
      local result = sluice.run(function()
        task.group():spawn(function()
          local guard <close> = setmetatable({}, { __close = function()
            print "closing"
            task.shield(task.sleep, 0.01)
            local each = coroutine.wrap(function() task.shield(task.sleep, 0) coroutine.yield "ended" end)
            print(each())
          end })
          task.sleep(3600)
        end)
        task.sleep(0)
        return "result"
      end)
      print(result)]])
  end)

  it("runs again and again, with sockets, and leaves nothing", function()
    if not support.has "server" then return pending "this build has no server" end
    prints("hi hi hi\ntrue\n", [[
      local function references()
        collectgarbage()
        local count = 0
        for _, value in pairs(debug.getregistry()) do count = count + (type(value) ~= "number" and 1 or 0) end
        return count
      end
      local got, before = {}, nil
      for i = 1, 3 do
        got[i] = sluice.run(function()
          local http, web = require "sluice.http", require "sluice.web"
          local app = web.app()
          app:get("/", function() return { status = 200, body = "hi" } end)
          local server = assert(app:listen "127.0.0.1:0")
          local answer = assert(http.request { url = "http://" .. server.address .. "/" })
          server:stop(1)
          for _ = 1, 50 do task.spawn(task.sleep, 0) end
          return answer.body
        end)
        before = before or references()
      end
      print(table.concat(got, " "))
      print(references() <= before)]])
  end)

  it("says what is wrong", function()
    prints("every task waits and nothing can wake one\na loop is running already\nthere is no loop here\n", [[
      local function why(f, ...)
        local _, err = pcall(f, ...)
        print((tostring(err):match "every task waits.*" or tostring(err):match "a loop is running already"
          or tostring(err):match "there is no loop here" or tostring(err)))
      end
      why(sluice.run, function() task.channel():receive() end)
      why(sluice.run, function() sluice.run(print) end)
      why(task.spawn, print)]])
  end)

  it("may be ended by os.exit, which unwinds every task first", function()
    for words, status in pairs { ["7"] = 7, ["7, true"] = 7, ["true"] = 0, ["false"] = 1, [""] = 0 } do
      local result = run(([[
        local x <close> = setmetatable({}, { __close = function() print "main closed" end })
        sluice.run(function()
          local y <close> = setmetatable({}, { __close = function() print "task closed" end })
          task.spawn(function() os.exit(%s) end)
          task.sleep(3600)
        end)]]):format(words))
      assert.are.equal("", result.err)
      assert.are.equal("task closed\nmain closed\n", result.out)
      assert.are.equal(status, result.status)
    end
    prints("true\n", [[
      local exit = os.exit
      sluice.run(function() assert(os.exit ~= exit) end)
      print(os.exit == exit)]])
  end)

  it("ends by Ctrl-C as the program does, but for the status, which is lua5.4's", function()
    local script = prelude .. [[
      sluice.run(function()
        local x <close> = setmetatable({}, { __close = function() print "cleaned up" end })
        print(select(2, pcall(task.sleep, 100)))
        task.sleep(100)
      end)]]
    local result = support.with_file(script, function(path)
      local command = "%stimeout --preserve-status -s INT 0.5 lua5.4 %s"
      return support.shell(command:format(preload(), quote(path)))
    end)
    assert.matches("interrupted[^\n]*\ncleaned up\n$", result.out)
    assert.matches("^lua5.4: .*interrupted", result.err)
    assert.are.equal(1, result.status)
  end)

  it("is not changed by what is required outside of it", function()
    prints("true\tfalse\n", [[
      local wrap = coroutine.wrap
      require "sluice.http"
      print(coroutine.wrap == wrap, (pcall(task.sleep, 1)))]])
  end)

  it("reports an error that no task took", function()
    local result = run [[
      sluice.run(function()
        task.group():spawn(error, "lost in a group")
        task.sleep(0)
      end)]]
    assert.matches("^sluice: lost in a group", result.err)
    assert.are.equal(0, result.status)
  end)
end)

describe("the rock", function()
  it("has the opening functions of every module, and no Lua of its own", function()
    local object = support.build .. (support.is_rock and "/lib/lua/5.4" or "") .. "/sluice.so"
    local listing = support.shell("nm -D --defined-only " .. quote(object)).out
    for _, name in ipairs { "task", "json", "http", "server", "socket", "system", "terminal", "backoff" } do
      if name ~= "server" or support.has "server" then
        assert.matches(" T luaopen_sluice_core_" .. name .. "\n", listing)
      end
    end
    assert.is_nil(listing:match " T lua_")
    for name in listing:gmatch " T (%S+)" do assert.matches("^luaopen_sluice_core_", name) end
  end)
end)
