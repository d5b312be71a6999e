-- SPDX-License-Identifier: MIT
-- Where log lines go, and what becomes of them where they cannot be written.
local json = require "sluice.json"
local log = require "sluice.log"
local places = require "sluice.core.log"
local support = require "support"
local task = require "sluice.task"

local function lines_of(text)
  local lines = {}
  for line in text:gmatch "[^\n]+" do lines[#lines + 1] = assert(json.decode(line), line) end
  return lines
end

local function events_in(path)
  local events = {}
  for index, line in ipairs(lines_of(support.read_file(path))) do events[index] = line.event end
  return events
end

-- Runs f(folder) with lines going to where it says; afterwards they go where they did.
local function with_folder(f)
  local folder = support.shell("mktemp -d").out:match "%S+"
  local ok, err = pcall(f, folder)
  log.to_file(nil)
  os.execute("rm -rf " .. folder)
  if not ok then error(err, 0) end
end

-- The same with a pipe that nobody reads yet; f(path, reader).
local function with_pipe(f)
  with_folder(function(folder)
    local path = folder .. "/pipe"
    assert(os.execute("mkfifo " .. path))
    local reader <close> = assert(io.open(path, "r+"))
    f(path, reader)
  end)
end

describe("log.to_file", function()
  it("appends whole lines", function()
    with_folder(function(folder)
      local path = folder .. "/log"
      support.shell("echo '{\"event\":\"before\"}' >" .. path)
      assert.is_true(log.to_file(path))
      log.info("one", { text = "a\nb" })
      log.with({ part = "x" }).warn "two"
      log.flush()
      assert.same({ "before", "one", "two" }, events_in(path))
      log.to_file(nil)
      local previous = log.set_output(function() end)
      log.info "elsewhere"
      log.set_output(previous)
      assert.same({ "before", "one", "two" }, events_in(path))
    end)
  end)

  it("says what it cannot open", function()
    for path, reason in pairs {
      ["/no/such/folder/log"] = "No such file", ["/"] = "Is a directory",
      [("x"):rep(5000)] = "File name too long",
    } do
      local done, err = log.to_file(path)
      assert.is_nil(done)
      assert.equal("FileError", err.kind)
      assert.matches(reason, tostring(err))
    end
    assert.has_error(function() log.to_file(7) end)
  end)

  it("follows a file that is moved away, and makes one that was removed", function()
    with_folder(function(folder)
      local path = folder .. "/log"
      assert(log.to_file(path))
      log.info "one"
      log.flush()
      os.rename(path, path .. ".1")
      log.info "two"
      log.flush()
      assert.same({ "one" }, events_in(path .. ".1"))
      assert.same({ "two" }, events_in(path))
      os.remove(path)
      log.info "three"
      log.flush()
      assert.same({ "three" }, events_in(path))
      assert.equal(0, log.stats().queued)
    end)
  end)

  it("counts what cannot be written, says so once, and again when it can", function()
    with_folder(function(folder)
      local ran = support.shell(("sub=%s/sub %s -e %s"):format(folder, support.binary, support.quote [[
        local log = require "sluice.log"
        os.execute "mkdir $sub"
        assert(log.to_file(os.getenv "sub" .. "/log"))
        os.execute "mv $sub $sub.gone"
        for _ = 1, 3 do log.info "lost" end
        log.flush()
        assert(log.stats().failed == 3)
        os.execute "mkdir $sub"
        log.info "four"]]))
      local path = folder .. "/sub/log"
      assert.same(("sluice: the log %s cannot be written: No such file or directory\n"):format(path), ran.err)
      local lines = lines_of(support.read_file(path))
      assert.same({ "log lines were lost", "four" }, events_in(path))
      assert.same({ 3, "warn" }, { lines[1].count, lines[1].level })
    end)
  end)

  it("counts what a full disk takes, and says so once", function()
    local script = [[
      local log = require "sluice.log"
      assert(log.to_file "/dev/full")
      for _ = 1, 100 do log.info("lost") end
      log.flush()
      assert(log.stats().failed == 100, log.stats().failed)
    ]]
    local ran = support.sluice("-e", script)
    assert.same({ 0, "sluice: the log /dev/full cannot be written: No space left on device\n" },
      { ran.status, ran.err })
  end)

  it("is what SLUICE_LOG_FILE says; a file that cannot be opened takes no line along", function()
    with_folder(function(folder)
      local run = "SLUICE_LOG_FILE=%s " .. support.binary .. [[ -e 'require("sluice.log").info "hello"']]
      assert.same("", support.shell(run:format(folder .. "/log")).err)
      assert.same({ "hello" }, events_in(folder .. "/log"))
      local lines = lines_of(support.shell(run:format(folder .. "/none/log")).err)
      assert.same({ "the log file cannot be opened", "hello" }, { lines[1].event, lines[2].event })
      assert.equal("FileError", lines[1].error.kind)
    end)
  end)
end)

support.about_program(describe, pending)("SIGHUP", function()
  -- Runs the script, then `meanwhile` in a shell, with $pid and $dir; then lets the script go on.
  local function run(script, meanwhile)
    return support.shell(([[dir=$(mktemp -d); mkfifo $dir/go; export dir
      %s -e %s <$dir/go & pid=$!
      exec 3>$dir/go; while ! [ -e $dir/ready ]; do sleep 0.01; done
      %s
      exec 3>&-; wait $pid; echo "status $?"; rm -r $dir]]):format(
      support.binary, support.quote(script), meanwhile))
  end
  local wait_for_shell = [[
    os.execute("touch $dir/ready")
    local input = require("sluice.core.file").standard(0)
    input:read(1)]]

  it("has the log file opened anew", function()
    local result = run([[
      local log = require "sluice.log"
      log.to_file(os.getenv "dir" .. "/log")
      log.info "one"
      log.flush()]] .. wait_for_shell, [[
      mv $dir/log $dir/log.1; kill -HUP $pid
      for n in $(seq 100); do [ -e $dir/log ] || sleep 0.02; done; wc -l <$dir/log; wc -l <$dir/log.1]])
    assert.same({ "", "0\n1\nstatus 0\n" }, { result.err, result.out })
  end)

  it("ends a program that has none, but not under nohup", function()
    assert.matches("status 129", run(wait_for_shell, "kill -HUP $pid; sleep 0.1").out)
    local script = [[os.execute "kill -HUP $PPID" require("sluice.task").sleep(0.05)]]
    local command = "trap '' HUP; %s -e %s; echo status $?"
    local result = support.shell(command:format(support.binary, support.quote(script)))
    assert.matches("status 0", result.out)
  end)
end)

describe("a log pipe", function()
  it("that is stuck costs nothing but counted drops, which are said", function()
    with_pipe(function(path, reader)
      assert(log.to_file(path))
      local text, count = ("x"):rep(1000), 6000
      local started = task.now()
      for index = 1, count do log.info("n", { index = index, text = text }) end
      assert.is_true(task.now() - started < 2)
      local stats = log.stats()
      assert.is_true(stats.dropped > 1000 and stats.queued > 1000 and stats.queued + stats.dropped < count)
      local seen, lost, last = 0, nil, 0
      while seen + (lost or 0) < count do
        local line = assert(json.decode(reader:read "l"))
        if line.event == "n" then
          assert.is_true(line.index > last)
          seen, last = seen + 1, line.index
        else
          assert.equal("log lines were lost", line.event)
          assert.is_nil(lost)
          lost = line.count
        end
        if seen + stats.dropped == count and not lost then
          count = count + 1
          log.info("n", { index = count })
        end
      end
      assert.equal(stats.dropped, lost)
      log.flush()
      assert.same({ 0, lost, 0 }, { log.stats().queued, log.stats().dropped, log.stats().failed })
    end)
  end)

  it("does not hold up the end of the program for long", function()
    with_pipe(function(path)
      local script = ([[
        local log = require "sluice.log"
        assert(log.to_file %q)
        for _ = 1, 300 do log.info("n", { text = ("x"):rep(1000) }) end
      ]]):format(path)
      local started = task.now()
      assert.same({ 0, "" }, { support.sluice("-e", script).status, support.sluice("-e", "").err })
      assert.is_true(task.now() - started < 3)
    end)
  end)

  it("whose reader has gone loses lines, and says so once", function()
    local script = [[
      local log = require "sluice.log"
      for _ = 1, 50 do log.info("lost") end
      log.flush()
      io.write(log.stats().failed)
    ]]
    local command = "mkfifo /tmp/p.$$; sleep 0.1 </tmp/p.$$ & " ..
      "%s -e 'require([[sluice.task]]).sleep(0.3) %s' 2>/tmp/p.$$; rm /tmp/p.$$"
    local run = support.shell(command:format(support.binary, script))
    assert.same({ "50", 0 }, { run.out, run.status })
  end)

  it("whose reader goes later loses lines, and no program ends by that", function()
    local script = [[
      local log, task = require "sluice.log", require "sluice.task"
      log.info "read"
      task.sleep(0.2)
      for _ = 1, 50 do log.info("lost") end
      log.flush()
      io.write(log.stats().failed)
    ]]
    local command = "{ %s -e %s 2>&1 >&3 | head -n 1 >/dev/null; } 3>&1"
    assert.equal("50", support.shell(command:format(support.binary, support.quote(script))).out)
  end)

  it("takes lines that are longer than it", function()
    with_pipe(function(path, reader)
      assert(log.to_file(path))
      log.info("long", { text = ("y"):rep(60000) })
      log.info "next"
      assert.equal(60000, #json.decode(reader:read "l").text)
      assert.equal("next", json.decode(reader:read "l").event)
    end)
  end)
end)

describe("log.flush", function()
  it("waits, and can be cancelled", function()
    with_pipe(function(path, reader)
      assert(log.to_file(path))
      for _ = 1, 100 do log.info("n", { text = ("x"):rep(1000) }) end
      local value, err = task.timeout(0.02, log.flush)
      assert.same({ nil, "TimeoutError" }, { value, err.kind })
      local waits = 0
      task.scope(function(scope)
        for _ = 1, 3 do
          scope:spawn(function()
            log.flush()
            waits = waits + 1
          end)
        end
        task.sleep(0.01)
        assert.equal(0, waits)
        for _ = 1, 100 do reader:read "l" end
      end)
      assert.equal(3, waits)
      log.flush()
    end)
  end)
end)

describe("a place", function()
  it("is closed once, and takes nothing then", function()
    support.with_file("", function(path)
      local place = places.open(path)
      assert.is_true(place:push "a\n")
      assert.is_false(place:is_terminal())
      place:set_plain(true)
      place:close()
      place:close()
      assert.is_nil((place:push "b\n"))
      assert.is_nil((place:counts()))
      place:flush()
      assert.is_false(place:is_terminal())
    end)
  end)
end)
