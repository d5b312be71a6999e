-- SPDX-License-Identifier: MIT
local process = require "sluice.core.process"
local support = require "support"
local task = require "sluice.task"

local function run(...)
  return process.run({ ... }, 1000, 100)
end

-- Whether a process with this word on its command line lives, other than the one that looks.
local function lives(word)
  local pattern = word:sub(1, -2) .. "[" .. word:sub(-1) .. "]"
  return os.execute(("pgrep -f %s >/dev/null"):format(support.quote(pattern))) == true
end

local function ends_soon(word)
  for _ = 1, 100 do
    if not lives(word) then return true end
    task.sleep(0.02)
  end
  return false
end

describe("process.run", function()
  it("gives what a program prints, and how it ends", function()
    assert.same({ out = "a b|$HOME\n", err = "", status = 0, overflowed = false }, run("echo", "a b|$HOME"))
    assert.same({ out = "x\n", err = "e\n", status = 3, overflowed = false },
      run("sh", "-c", "echo x; echo e >&2; exit 3"))
    assert.same({ out = "", err = "", signal = 15, overflowed = false }, run("sh", "-c", "kill -TERM $$"))
    assert.equal("a\0b", run("printf", "a\\0b").out)
  end)

  it("gives it nothing to read, and no descriptor of ours", function()
    assert.equal("", run("cat").out)
    local file <close> = assert(io.open(arg[0]))
    assert.equal("0\n1\n2\n3\n", run("sh", "-c", "ls /proc/self/fd").out) -- 3: the folder itself
    assert.is_truthy(file)
  end)

  it("kills one that prints too much, and keeps the end of its complaints", function()
    local result = run("sh", "-c", "yes")
    assert.same({ 1000, true, 9 }, { #result.out, result.overflowed, result.signal })
    result = run("sh", "-c", "yes | head -c 300000 >&2; echo the end >&2")
    assert.same({ 100, false, 0 }, { #result.err, result.overflowed, result.status })
    assert.matches("\nthe end\n$", result.err)
    result = process.run({ "sh", "-c", "echo x; echo y >&2" }, 0, 0)
    assert.same({ "", "" }, { result.out, result.err })
  end)

  it("does not wait for what a program leaves behind", function()
    local started = task.now()
    assert.equal("quick\n", run("sh", "-c", "sleep 61.25 & echo quick").out)
    assert.is_true(task.now() - started < 10)
    os.execute "pkill -f 'sleep 61[.]25'"
  end)

  it("says why it cannot be started", function()
    local result, reason, code = run "sluice-no-such-program"
    assert.is_nil(result)
    assert.same({ "No such file or directory", 2 }, { reason, code })
    assert.same({ nil, "Permission denied", 13 }, { run "/" })
  end)

  it("is killed with all its children when the task is cancelled or late", function()
    local result, err = task.timeout(0.1, run, "sh", "-c", "sleep 62.25; echo")
    assert.is_nil(result)
    assert.equal("TimeoutError", err.kind)
    assert.is_true(ends_soon "sleep 62.25")
    local job = task.spawn(run, "sh", "-c", "sleep 63.25; echo")
    task.sleep(0.1)
    assert.is_true(lives "sleep 63.25")
    job:cancel()
    local ok, cancelled = pcall(job.join, job)
    assert.is_false(ok)
    assert.equal("TaskCancelled", cancelled.kind)
    assert.is_true(ends_soon "sleep 63.25")
  end)

  it("leaves no descriptor and no dead child behind", function()
    collectgarbage()
    local before = support.descriptors()
    for _ = 1, 20 do run "true" end
    for step = 0, 20 do task.timeout(step / 4000, run, "sleep", "64.25") end
    assert.is_true(ends_soon "sleep 64.25")
    task.sleep(0.05)
    assert.is_true(support.descriptors() <= before)
    assert.equal("0\n", support.shell("ps --ppid $PPID -o stat= | grep -c Z").out)
  end)

  it("runs many at a time", function()
    local items = {}
    for index = 1, 30 do items[index] = tostring(index) end
    for index, result in ipairs(task.map(items, function(word) return run("echo", word) end)) do
      assert.equal(index .. "\n", result.value.out)
    end
  end)

  it("dies with the program that started it", function()
    local chunk = 'local p = require "sluice.core.process"\n'
      .. 'require("sluice.task").spawn(p.run, { "sleep", "65.25" }, 1, 1)\n'
      .. 'require("sluice.task").sleep(0.1)\nos.exit(0)'
    assert.equal(0, support.sluice("-e", chunk).status)
    assert.is_true(ends_soon "sleep 65.25")
  end)

  it("has no place in simulated time", function()
    local ok, message = pcall(task.simulate, function() run "true" end)
    assert.is_false(ok)
    assert.matches("running a program", tostring(message))
  end)

  it("refuses misuse", function()
    for _, words in ipairs { {}, { "" }, { "a", 5 }, { "a\0b" }, { "a", {} } } do
      assert.has_error(function() process.run(words, 1, 1) end)
    end
    assert.has_error(function() process.run({ "true" }, -1, 1) end)
    assert.has_error(function() process.run("true", 1, 1) end)
  end)
end)
