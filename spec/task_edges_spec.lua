-- SPDX-License-Identifier: MIT
-- Where tasks meet: what went wrong once at the edges of scopes, groups, semaphores and coroutines.

local task = require "sluice.task"

local function simulated(name, f, given)
  it(name, function() task.simulate(f, given) end)
end

local function own_tasks()
  return #task.tree()
end

describe("the edge of a scope", function()
  simulated("stands values whose __tostring raises", function()
    local broken = setmetatable({}, { __tostring = function() error "no text" end })
    local before = own_tasks()
    local ok, err = pcall(task.scope, function()
      task.spawn(error, broken)
      task.sleep(100)
    end)
    assert.is_false(ok)
    assert.are.equal(broken, err)
    local value, why = task.scope(function(scope)
      task.spawn(function() task.sleep(50) end)
      scope:cancel(broken)
      task.sleep(100)
    end)
    assert.is_nil(value)
    assert.are.equal("TaskCancelled", why.kind)
    assert.are.equal(broken, why.reason)
    assert.matches("__tostring fails: .*no text", why.message)
    assert.are.equal(before, own_tasks())
    assert.is_true(pcall(task.sleep, 1))
  end)
end)

describe("task.timeout", function()
  simulated("takes a limit in the past for none at all", function()
    for _, seconds in ipairs { 0, -1, -math.huge } do
      local value, err = task.timeout(seconds, function() task.sleep(1) return "late" end)
      assert.is_nil(value)
      assert.are.equal("TimeoutError", err.kind)
    end
    assert.are.equal("in time", task.timeout(math.huge, function() task.sleep(1) return "in time" end))
  end)
end)

describe("a group", function()
  simulated("waits for a task that was spawned after its last one had ended", function()
    local group = task.group()
    group:spawn(task.shield, task.sleep, 1)
    local late
    local other = task.spawn(function()
      task.sleep(1) -- wakes after the group's task and before the one that closes
      late = group:spawn(task.sleep, 1)
    end)
    task.sleep(0)
    group:close()
    assert.are.equal("failed", late:status())
    assert.matches("closed", tostring(group))
    other:join()
    assert.has_error(function() group:spawn(print) end)
  end)

  simulated("cannot be closed from anywhere inside", function()
    local group = task.group()
    local why
    group:spawn(function()
      task.scope(function()
        task.spawn(function()
          local _, err = pcall(group.close, group)
          why = err
        end)
      end)
    end)
    task.sleep(1)
    assert.matches("would wait for itself", why)
    group:close()
  end)
end)

describe("a semaphore", function()
  simulated("serves those who queue behind one that is cancelled", function()
    local semaphore = task.semaphore(1)
    local held = semaphore:acquire()
    local waiting = task.spawn(function() semaphore:acquire() end)
    task.sleep(1)
    waiting:cancel() -- leaves the queue at once, and hears of it later
    semaphore:release()
    held.semaphore = nil
    local permit = task.timeout(5, function() return semaphore:acquire() end)
    assert.is_table(permit)
    assert.are.equal(0, semaphore.waiting)
  end)
end)

describe("a wrapped coroutine", function()
  simulated("runs <close> variables where they can wait when an error passes through it", function()
    local closed = {}
    local function closer(name)
      return setmetatable({}, { __close = function(_, err)
        task.shield(task.sleep, 1)
        closed[#closed + 1] = name .. ":" .. tostring(err and (err.kind or err))
      end })
    end
    local each = coroutine.wrap(function()
      local outer <close> = closer "outer"
      coroutine.yield(outer)
      local inner <close> = closer "inner"
      task.sleep(1)
      error("broken", 0)
      return inner
    end)
    each()
    local ok, err = pcall(each)
    assert.is_false(ok)
    assert.matches("broken$", err)
    assert.are.same({ "inner:broken", "outer:broken" }, closed)
    ok, err = pcall(each)
    assert.is_false(ok)
    assert.matches("cannot resume dead coroutine", err)
    closed = {}
    local consumer = task.spawn(function()
      for _ in coroutine.wrap(function()
        local guard <close> = closer "cancelled"
        task.sleep(100)
        coroutine.yield(guard)
      end) do end
    end)
    task.sleep(1)
    consumer:cancel()
    pcall(consumer.join, consumer)
    assert.are.same({ "cancelled:TaskCancelled" }, closed)
  end)

  it("behaves as Lua's own where it is misused", function()
    local function same(f)
      local ok, err = pcall(f)
      assert.is_false(ok)
      return err
    end
    local own
    own = coroutine.wrap(function(...) return own(...) end)
    assert.matches("cannot resume non%-suspended coroutine", same(function() own(1, 2, 3) end))
    assert.has_error(function() coroutine.wrap(12) end)
    local empty = coroutine.wrap(function(...) return select("#", ...), ... end)
    assert.are.same({ 3, nil, nil, nil }, { empty(nil, nil, nil) })
    local many = coroutine.wrap(function(...) return ... end)
    assert.are.equal(200, select("#", many(table.unpack({}, 1, 200))))
  end)
end)

describe("task.tree", function()
  it("tells ages on the clock that a task lives on", function()
    task.simulate(function()
      task.sleep(3)
      for _, row in ipairs(task.tree()) do assert.is_true(row.age >= 0, row.name) end
    end)
    for _, row in ipairs(task.tree()) do assert.is_true(row.age >= 0, row.name) end
  end)
end)
