-- SPDX-License-Identifier: MIT
local task = require "sluice.task"

-- Everything below runs in simulated time: a spec of a long wait takes no time.
local function simulated(name, f, given)
  it(name, function() task.simulate(f, given) end)
end

local function kind_of(err)
  return type(err) == "table" and err.kind or err
end

describe("task.spawn", function()
  simulated("gives the results of its function to join, and its error again", function()
    local sum = task.spawn(function(a, b)
      task.sleep(1)
      return a + b, "two", nil
    end, 1, 2)
    assert.are.same({ 3, "two", nil }, { sum:join() })
    assert.are.equal(3, select("#", sum:join()))
    assert.are.equal("done", sum:status())
    local err = {}
    local failing = task.spawn(function() error(err) end)
    local ok, raised = pcall(failing.join, failing)
    assert.is_false(ok)
    assert.are.equal(err, raised)
    assert.are.equal("failed", failing:status())
    assert.is_false((pcall(failing.join, failing)))
  end)

  simulated("runs the task when the caller waits, not before", function()
    local order = {}
    task.spawn(function() order[#order + 1] = "task" end)
    order[#order + 1] = "caller"
    task.sleep(0)
    assert.are.same({ "caller", "task" }, order)
  end)

  it("refuses what is not a function when it runs it", function()
    assert.has_error(function() task.spawn() end)
    local ok, err = pcall(task.scope, function() task.spawn(12) end)
    assert.is_false(ok)
    assert.matches("attempt to call a number value", err)
  end)

  simulated("cannot join itself", function()
    local own
    own = task.spawn(function() return pcall(own.join, own) end)
    local ok, err = own:join()
    assert.is_false(ok)
    assert.matches("cannot join itself", err)
  end)
end)

describe("a scope", function()
  simulated("joins its tasks before it returns", function()
    local ended = false
    local result = task.scope(function()
      task.spawn(function()
        task.sleep(5)
        ended = true
      end)
      return "body"
    end)
    assert.is_true(ended)
    assert.are.equal("body", result)
    assert.are.equal(5, task.now())
  end)

  simulated("cancels the others at once when a task fails, and raises its error", function()
    local sibling
    local ok, err = pcall(task.scope, function()
      sibling = task.spawn(function() task.sleep(1000) end)
      task.spawn(function()
        task.sleep(1)
        error("boom", 0)
      end)
      task.sleep(1000)
    end)
    assert.is_false(ok)
    assert.are.equal("boom", err)
    assert.are.equal(1, task.now())
    local joined, why = pcall(sibling.join, sibling)
    assert.is_false(joined)
    assert.are.equal("TaskCancelled", kind_of(why))
  end)

  simulated("cancels its tasks when its body fails", function()
    local reason
    local ok, err = pcall(task.scope, function()
      task.spawn(function()
        local _, why = pcall(task.sleep, 1000)
        reason = why.kind
      end)
      task.sleep(1)
      error("body", 0)
    end)
    assert.are.same({ false, "body", "TaskCancelled" }, { ok, err, reason })
    assert.are.equal(1, task.now())
  end)

  simulated("leaves the error of a task to the one who joins it", function()
    local failing = task.spawn(function()
      task.sleep(1)
      error("mine", 0)
    end)
    local ok, err = pcall(failing.join, failing)
    assert.are.same({ false, "mine" }, { ok, err })
    task.sleep(1) -- the scope is not cancelled
  end)

  simulated("ends with nil, err when it is cancelled itself", function()
    local result, err = task.scope(function(scope)
      task.spawn(function()
        task.sleep(1)
        scope:cancel("enough")
      end)
      task.sleep(1000)
    end)
    assert.is_nil(result)
    assert.are.equal("TaskCancelled", err.kind)
    assert.are.equal("enough", err.reason)
    assert.are.equal(1, task.now())
  end)

  simulated("owns the tasks that its tasks spawn through their own bodies", function()
    local deepest
    task.scope(function()
      task.spawn(function()
        task.spawn(function()
          task.sleep(3)
          deepest = task.now()
        end)
      end)
    end)
    assert.are.equal(3, deepest)
  end)

  simulated("cancels a chain of 20000 tasks without recursion", function()
    local function nest(depth)
      if depth > 0 then task.spawn(nest, depth - 1) end
      task.sleep(1000)
    end
    local _, err = task.timeout(1, nest, 20000)
    assert.are.equal("TimeoutError", err.kind)
    assert.are.equal(1, task.now())
  end)
end)

describe("cancellation", function()
  simulated("is raised again by each next wait", function()
    local kinds = {}
    local stubborn = task.spawn(function()
      for _ = 1, 3 do
        local _, err = pcall(task.sleep, 10)
        kinds[#kinds + 1] = err.kind
      end
      return "done all the same"
    end)
    task.sleep(1)
    stubborn:cancel("go")
    assert.are.equal("done all the same", stubborn:join())
    assert.are.same({ "TaskCancelled", "TaskCancelled", "TaskCancelled" }, kinds)
    assert.are.equal(1, task.now())
  end)

  simulated("carries its reason, any value", function()
    local reason = { code = 7 }
    local waiting = task.spawn(task.sleep, 10)
    task.sleep(1)
    waiting:cancel(reason)
    local ok, err = pcall(waiting.join, waiting)
    assert.is_false(ok)
    assert.are.equal(reason, err.reason)
  end)

  simulated("keeps a task that has not started from starting", function()
    local ran = false
    local fresh = task.spawn(function() ran = true end)
    fresh:cancel()
    assert.is_false((pcall(fresh.join, fresh)))
    assert.is_false(ran)
  end)

  simulated("runs <close> variables, which may wait under a shield", function()
    local closed
    local holder = task.spawn(function()
      local resource <close> = setmetatable({}, {
        __close = function(_, err)
          task.shield(task.sleep, 2)
          closed = err.kind
        end,
      })
      assert(resource)
      task.sleep(1000)
    end)
    task.sleep(1)
    holder:cancel()
    pcall(holder.join, holder)
    assert.are.equal("TaskCancelled", closed)
    assert.are.equal(3, task.now())
  end)

  simulated("does not take back what a wait already brought", function()
    local channel = task.channel(1)
    local got
    local receiver = task.spawn(function() got = channel:receive() end)
    task.sleep(1)
    channel:send "value"
    receiver:cancel() -- woken, not yet resumed
    pcall(receiver.join, receiver)
    assert.are.equal("value", got)
  end)

  simulated("tells task.cancelled()", function()
    local before, after
    local asked = task.spawn(function()
      before = task.cancelled()
      pcall(task.sleep, 10)
      after = task.cancelled()
    end)
    task.sleep(1)
    asked:cancel()
    pcall(asked.join, asked)
    assert.is_false(before)
    assert.is_true(after)
  end)
end)

describe("task.time_left", function()
  simulated("is what the nearest deadline leaves", function()
    assert.are.equal(math.huge, task.time_left())
    task.timeout(10, function()
      task.sleep(4)
      assert.is_true(math.abs(task.time_left() - 6) < 1e-3)
      task.timeout(2, function() assert.is_true(math.abs(task.time_left() - 2) < 1e-3) end)
      task.timeout(100, function() assert.is_true(math.abs(task.time_left() - 6) < 1e-3) end)
      assert.are.equal(math.huge, task.shield(task.time_left))
      pcall(task.sleep, 10)
      assert.are.equal(0, task.time_left())
    end)
  end)
end)

describe("task.timeout", function()
  simulated("gives the results in time, else nil and an error that names the limit", function()
    assert.are.same({ 1, 2 }, { task.timeout(1, function() return 1, 2 end) })
    local value, err = task.timeout(2.5, function() task.sleep(10) end)
    assert.is_nil(value)
    assert.are.equal("TimeoutError", err.kind)
    assert.matches("2.5 s", err.message)
    assert.are.equal(2.5, task.now())
  end)

  simulated("raises inside, again and again, and reaches tasks and nested limits", function()
    local inside, in_task = {}, nil
    local _, err = task.timeout(1, function()
      task.spawn(function()
        local _, why = pcall(task.sleep, 100)
        in_task = why.kind
      end)
      task.timeout(50, function()
        for i = 1, 2 do
          local _, why = pcall(task.sleep, 100)
          inside[i] = why.kind
        end
      end)
      task.sleep(0)
    end)
    assert.are.equal("TimeoutError", err.kind)
    assert.matches("1 s", err.message)
    assert.are.same({ "TimeoutError", "TimeoutError" }, inside)
    assert.are.equal("TimeoutError", in_task)
    assert.are.equal(1, task.now())
  end)

  simulated("lets an inner limit expire alone", function()
    local outer, inner = task.timeout(10, function()
      local _, err = task.timeout(1, task.sleep, 5)
      task.sleep(1)
      return "outer", err.kind
    end)
    assert.are.same({ "outer", "TimeoutError" }, { outer, inner })
    assert.are.equal(2, task.now())
  end)

  simulated("passes other errors on", function()
    assert.has_error(function() task.timeout(1, error, "other") end, "other")
  end)

  it("refuses what is no number of seconds", function()
    assert.has_error(function() task.timeout("soon", print) end)
    assert.has_error(function() task.timeout(0 / 0, print) end)
  end)
end)

describe("task.shield", function()
  simulated("holds back cancellation and deadlines until it ends", function()
    local inside
    local _, err = task.timeout(1, function()
      task.shield(function()
        task.sleep(5)
        inside = task.now()
      end)
      task.sleep(0)
    end)
    assert.are.equal(5, inside)
    assert.are.equal("TimeoutError", err.kind)
  end)

  simulated("keeps a limit of its own", function()
    local _, err = task.shield(function() return task.timeout(1, task.sleep, 5) end)
    assert.are.equal("TimeoutError", err.kind)
  end)
end)

describe("waiting", function()
  simulated("passes through coroutines, pcall, iterators and metamethods", function()
    local generator = coroutine.wrap(function()
      for i = 1, 3 do
        task.sleep(1)
        coroutine.yield(i)
      end
    end)
    local seen = {}
    for value in generator do seen[#seen + 1] = value end
    assert.are.same({ 1, 2, 3 }, seen)
    local object = setmetatable({}, {
      __index = function(_, key)
        task.sleep(1)
        return key .. "!"
      end,
      __add = function() task.sleep(1) return "sum" end,
    })
    assert.are.equal("name!", object.name)
    assert.are.equal("sum", object + 1)
    assert.is_true(pcall(task.sleep, 1))
    assert.are.equal(6, task.now())
  end)

  simulated("in a nested coroutine gives plain yields to the one who resumed", function()
    local outer = coroutine.create(function()
      local inner = coroutine.create(function(first)
        task.sleep(1)
        local second = coroutine.yield(first + 1)
        task.sleep(1)
        return second * 2
      end)
      local _, one = coroutine.resume(inner, 1)
      local _, two = coroutine.resume(inner, 10)
      coroutine.yield(one)
      return two
    end)
    assert.are.same({ true, 2 }, { coroutine.resume(outer) })
    assert.are.same({ true, 20 }, { coroutine.resume(outer) })
    assert.are.equal("dead", coroutine.status(outer))
  end)

  simulated("says where Lua cannot yield", function()
    local ok, err = pcall(table.sort, { 3, 1, 2 }, function() task.sleep(1) end)
    assert.is_false(ok)
    assert.matches("Lua cannot yield across table.sort", err)
    ok, err = pcall(string.gsub, "abc", ".", function() task.sleep(1) end)
    assert.is_false(ok)
    assert.matches("Lua cannot yield across string.gsub", err)
    ok, err = pcall(tostring, setmetatable({}, { __tostring = function() task.sleep(1) end }))
    assert.is_false(ok)
    assert.matches("Lua cannot yield across tostring", err)
    local inner = coroutine.create(function() task.sleep(1) end)
    local resumed, why
    pcall(table.sort, { 3, 1, 2 }, function()
      resumed, why = coroutine.resume(inner)
      error "stop"
    end)
    assert.is_false(resumed)
    assert.matches("resumed where Lua cannot yield", why)
  end)

  simulated("coroutines in which a task waits cannot be resumed or closed by others", function()
    local co = coroutine.create(function() task.sleep(10) end)
    local waiting = task.spawn(function() return coroutine.resume(co) end)
    task.sleep(1)
    local ok, err = coroutine.resume(co)
    assert.is_false(ok)
    assert.matches("a task waits", err)
    assert.has_error(function() coroutine.close(co) end)
    assert.is_true(waiting:join())
  end)

  simulated("a coroutine cannot yield out of a scope that is open in it", function()
    local co = coroutine.create(function()
      return task.timeout(1, function() coroutine.yield "leak" end)
    end)
    local ok, err = coroutine.resume(co)
    assert.is_false(ok)
    assert.matches("cannot yield out of", err)
    assert.is_true(pcall(task.sleep, 2)) -- no limit stays behind
  end)

  it("a yield outside of every coroutine is an error", function()
    local ok, err = pcall(coroutine.yield)
    assert.is_false(ok)
    assert.matches("outside a coroutine", err)
  end)

  simulated("a wrapped coroutine raises the cancellation through its frames", function()
    local got
    local consumer = task.spawn(function()
      local each = coroutine.wrap(function() task.sleep(100) end)
      local _, err = pcall(each)
      got = err.kind
    end)
    task.sleep(1)
    consumer:cancel()
    pcall(consumer.join, consumer)
    assert.are.equal("TaskCancelled", got)
  end)

  it("coroutine.close runs closers, which cannot wait there", function()
    local why
    local co = coroutine.create(function()
      local x <close> = setmetatable({}, {
        __close = function()
          local _, err = pcall(task.sleep, 1)
          why = err
        end,
      })
      coroutine.yield(x)
    end)
    coroutine.resume(co)
    assert.is_true(coroutine.close(co))
    assert.matches("cannot wait here", why)
  end)
end)

describe("task.map", function()
  simulated("keeps the items' order, whatever failed, and bounds what runs at once", function()
    local now_running, most = 0, 0
    local results = task.map({ 5, 4, 3, 2, 1 }, function(seconds, index)
      now_running = now_running + 1
      most = math.max(most, now_running)
      task.sleep(seconds)
      now_running = now_running - 1
      if index == 2 then error("raised", 0) end
      if index == 3 then return nil, "returned" end
      return seconds * 10
    end, { concurrency = 2 })
    assert.are.equal(2, most)
    assert.are.same({
      { ok = true, value = 50 },
      { ok = false, error = "raised" },
      { ok = false, error = "returned" },
      { ok = true, value = 20 },
      { ok = true, value = 10 },
    }, results)
  end)

  simulated("with stop_on_error raises the first failure and cancels the rest", function()
    local finished = 0
    local ok, err = pcall(task.map, { 1, 2, 3 }, function(seconds)
      task.sleep(seconds)
      if seconds == 2 then return nil, "second" end
      finished = finished + 1
    end, { stop_on_error = true })
    assert.are.same({ false, "second" }, { ok, err })
    assert.are.equal(1, finished)
    assert.are.equal(2, task.now())
  end)

  simulated("is cancelled with its caller", function()
    local _, err = task.timeout(1, task.map, { 1, 2, 3 }, function() task.sleep(100) end)
    assert.are.equal("TimeoutError", err.kind)
    assert.are.equal(1, task.now())
  end)

  it("names an unknown option, and what is no array or no function", function()
    assert.has_error(function() task.map(print, { 1 }) end)
    assert.has_error(function() task.map({ 1 }, 12) end)
    assert.has_error(function() task.map({}, print, { concurency = 2 }) end)
    assert.has_error(function() task.map({}, print, { concurrency = 0 }) end)
  end)
end)

describe("task.race", function()
  simulated("gives the results of the first and cancels the others", function()
    local cancelled
    local value = task.race(function()
      local _, err = pcall(task.sleep, 10)
      cancelled = err.kind
    end, function()
      task.sleep(1)
      return "first"
    end)
    assert.are.equal("first", value)
    assert.are.equal("TaskCancelled", cancelled)
    assert.are.equal(1, task.now())
  end)

  simulated("raises the error of the first", function()
    local ok, err = pcall(task.race, function() error("bad", 0) end, function() task.sleep(10) end)
    assert.are.same({ false, "bad" }, { ok, err })
  end)
end)

describe("a semaphore", function()
  simulated("lets its number through, first come first served", function()
    local semaphore = task.semaphore(2)
    local order = {}
    task.scope(function()
      for i = 1, 5 do
        task.spawn(function()
          local permit <close> = semaphore:acquire()
          assert(permit)
          order[#order + 1] = i
          task.sleep(1)
        end)
      end
    end)
    assert.are.same({ 1, 2, 3, 4, 5 }, order)
    assert.are.equal(3, task.now())
  end)

  simulated("gets a permit more by release, which wakes the first waiter", function()
    local semaphore = task.semaphore(0)
    local waiter = task.spawn(function()
      semaphore:acquire()
      return task.now()
    end)
    task.sleep(2)
    semaphore:release()
    assert.are.equal(2, waiter:join())
    semaphore:release()
    assert.is_table(semaphore:acquire())
    assert.is_nil((task.timeout(1, semaphore.acquire, semaphore)))
  end)

  it("refuses what is no count", function()
    assert.has_error(function() task.semaphore(-1) end)
    assert.has_error(function() task.semaphore "2" end)
    assert.has_error(function() task.channel(-1) end)
  end)

  simulated("loses no permit when a waiter is cancelled", function()
    local semaphore = task.semaphore(1)
    local holder = semaphore:acquire()
    local waiter = task.spawn(function() semaphore:acquire() end)
    task.sleep(1)
    waiter:cancel()
    pcall(waiter.join, waiter)
    getmetatable(holder).__close(holder)
    assert.is_table(task.timeout(1, semaphore.acquire, semaphore))
  end)
end)

describe("a channel", function()
  simulated("hands over in order, makes senders wait, ends for all when closed", function()
    local channel = task.channel(2)
    local sent = {}
    local sender = task.spawn(function()
      for i = 1, 5 do
        channel:send(i)
        sent[i] = task.now()
      end
      channel:close()
    end)
    task.sleep(1)
    local received = {}
    for value in channel:values() do received[#received + 1] = value end
    sender:join()
    assert.are.same({ 1, 2, 3, 4, 5 }, received)
    assert.are.same({ 0, 0, 1 }, { sent[1], sent[2], sent[3] })
    assert.is_nil(channel:receive())
    assert.is_nil(channel:send(1))
  end)

  simulated("without capacity a send waits for its receiver", function()
    local channel = task.channel()
    local sender = task.spawn(function()
      channel:send "x"
      return task.now()
    end)
    task.sleep(3)
    assert.are.equal("x", channel:receive())
    assert.are.equal(3, sender:join())
  end)
end)

describe("a group", function()
  simulated("outlives the function that made it, and ends when closed", function()
    local group, ended
    local maker = task.spawn(function()
      group = task.group()
      group:spawn(function()
        local _, err = pcall(task.sleep, 1000)
        ended = err.kind
      end)
    end)
    maker:join()
    task.sleep(1)
    assert.is_nil(ended)
    group:close()
    assert.are.equal("TaskCancelled", ended)
    group:close() -- idempotent
    assert.has_error(function() group:spawn(print) end)
  end)

  simulated("inherits no deadline", function()
    local group <close> = task.group()
    local lived
    task.timeout(1, function() lived = group:spawn(function() task.sleep(5) return "alive" end) end)
    assert.are.equal("alive", lived:join())
  end)

  simulated("closes in a cancelled task too", function()
    local ended
    local owner = task.spawn(function()
      local group <close> = task.group()
      group:spawn(function()
        local _ <close> = setmetatable({}, { __close = function() ended = true end })
        task.sleep(1000)
      end)
      task.sleep(1000)
    end)
    task.sleep(1)
    owner:cancel()
    pcall(owner.join, owner)
    assert.is_true(ended)
  end)
end)

describe("the simulated clock", function()
  it("moves only when no task can run, and takes no real time", function()
    local before = task.now()
    local passed = task.simulate(function()
      local start = task.now()
      task.scope(function()
        task.spawn(function() task.sleep(1200) end)
        task.spawn(function() for _ = 1, 100 do task.sleep(3600) end end)
      end)
      return task.now() - start
    end)
    assert.are.equal(360000, passed)
    assert.is_true(task.now() - before < 1)
  end)

  it("moves wall time with it", function()
    local from, to = task.simulate(function()
      local start = task.wall()
      task.sleep(60)
      return start, task.wall()
    end, { wall = 1000 })
    assert.are.same({ 1000, 1060 }, { from, to })
  end)

  it("runs ready tasks in the order of its seed", function()
    local function order(seed)
      local seen = {}
      task.simulate(function()
        task.scope(function()
          for i = 1, 12 do
            task.spawn(function()
              task.sleep(1)
              seen[#seen + 1] = i
            end)
          end
        end)
      end, { seed = seed })
      return table.concat(seen, " ")
    end
    assert.are.equal("1 2 3 4 5 6 7 8 9 10 11 12", order(0))
    assert.are.equal(order(7), order(7))
    assert.are_not.equal(order(7), order(8))
  end)

  it("goes on for a group that outlives the simulation", function()
    local group <close> = task.group()
    local function sleeper()
      task.sleep(500)
      return "late"
    end
    local late = task.simulate(function() return group:spawn(sleeper) end)
    assert.are.equal("late", late:join())
  end)

  it("leaves a real deadline outside alone", function()
    local slept = task.timeout(5, function()
      return task.simulate(function()
        task.sleep(100)
        return task.now()
      end)
    end)
    assert.are.equal(100, slept)
  end)
end)

describe("the real clock", function()
  it("sleeps for about as long as asked", function()
    local before = task.now()
    task.sleep(0.02)
    local passed = task.now() - before
    assert.is_true(passed >= 0.02 and passed < 1, tostring(passed))
  end)
end)

describe("task.tree", function()
  simulated("shows every task, what it waits for, its age and deadline", function()
    task.timeout(10, function()
      local parent = task.spawn(function()
        task.spawn(task.sleep, 5)
        task.sleep(2)
      end)
      task.sleep(1)
      local at, rows = nil, task.tree()
      for index, row in ipairs(rows) do at = row.deadline and row.age == 1 and not at and index or at end
      local waiting, child = rows[at], rows[at + 1]
      assert.are.equal("task.sleep", waiting.waits_for)
      assert.are.equal("waiting", waiting.state)
      assert.are.equal(9, waiting.deadline)
      assert.are.equal(waiting.id, child.parent)
      assert.are.equal(waiting.depth + 1, child.depth)
      assert.matches("task_spec.lua", waiting.name)
      parent:join()
    end)
  end)
end)
