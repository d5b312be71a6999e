-- SPDX-License-Identifier: MIT
-- Tasks: code that waits without holding up the rest, owned by scopes.

local core = require "sluice.core.task"
local options = require "sluice.options"
require "sluice.errors" -- gives the errors that C raises their methods

local task = {}

---@class sluice.Task
---@field join fun(self: sluice.Task): ... waits for its end; gives the results of its function, or raises its error again
---@field cancel fun(self: sluice.Task, reason?: any) cancels it: its waits raise TaskCancelled; never waits
---@field status fun(self: sluice.Task): "new"|"ready"|"running"|"waiting"|"done"|"failed"

---@class sluice.Scope
---@field spawn fun(self: sluice.Scope, f: function, ...): sluice.Task
---@field cancel fun(self: sluice.Scope, reason?: any) cancels what runs in it; its edge gives nil, err
---@field close fun(self: sluice.Scope) of a group: cancels its tasks and waits for their ends; idempotent

---Starts `f(...)` as a task of the innermost scope around the caller. It runs when the caller waits.
---An error of it that nobody joins cancels the scope and is raised at the scope's edge.
---@param f function
---@param ... any passed to f
---@return sluice.Task
task.spawn = core.spawn

---Waits.
---@param seconds number 0 or less lets the other tasks run once
task.sleep = core.sleep

---Seconds on the running clock, real or simulated; monotonic.
---@return number
task.now = core.now

---Seconds since 1970 on the running clock; in simulated time it moves with task.now().
---@return number
task.wall = core.wall

---Calls `f(scope, ...)`, joins the tasks that were spawned inside, and returns the results of f.
---An error of f or of a task cancels the others, and is raised again once they have ended.
---`scope:cancel(reason)` ends it with nil, err. Waits.
---@param f fun(scope: sluice.Scope, ...): ...
---@param ... any passed to f
---@return any ... what f returns
task.scope = core.scope

---Calls `f(...)` in a scope with a deadline: no wait, retry, queue or request inside outlives it.
---Waits.
---@param seconds number from now, on the running clock
---@param f function
---@param ... any passed to f
---@return any ... the results of f; nil and a TimeoutError that names this limit when it has passed
task.timeout = core.timeout

---Calls `f(...)` in a scope that cancellation and deadlines from outside do not reach: for clean-up
---that waits. Give it a task.timeout of its own. Waits.
---@param f function
---@param ... any passed to f
---@return any ... the results of f
task.shield = core.shield

---Calls `f(...)` in simulated time, which moves only when no task of it can run. Real sockets in it
---raise. Waits (as seen from inside), and takes no real time for it.
---@param f function
---@param given? { seed?: integer, wall?: number } `seed`: ready tasks run in an order drawn from it; `wall`: what task.wall() starts from (seconds since 1970, default 2026-01-01)
---@return any ... the results of f
function task.simulate(f, given)
  given = options.check("task.simulate", given, { seed = "integer?", wall = "number?" })
  return core.simulate(given.seed or 0, given.wall or 1767225600, f)
end

---A scope that an object owns: its tasks inherit no deadline and no cancellation from the caller.
---Close it (`group:close()`, or `<close>`): until then it is kept, whoever holds it. An error that a
---task of it raises is reported by the runtime.
---@return sluice.Scope
task.group = core.group

---Every task: an array of { id, name, state, waits_for, age, deadline, cancelled, depth, parent },
---ages and deadlines in seconds; a row's children follow it, one deeper.
---@return table[]
task.tree = core.tree

---A value of the running task: what it, or whoever spawned it before that, has set. nil outside of tasks.
---@param name string
---@return any
task.get_local = core.get_local

---Sets a value of the running task, which the tasks that it spawns from now on have too: for what belongs to a
---request rather than to a function. Set what it returns, where the task goes on to something else.
---@param name string
---@param value any nil takes it away
---@return any before
task.set_local = core.set_local

---Whether the next wait would raise: the task is cancelled, or a deadline has passed.
---@return boolean
task.cancelled = core.cancelled

---Seconds until the nearest deadline around the caller ends its waits; math.huge where there is none.
---@return number
task.time_left = core.time_left

-- ---- semaphores ----

---@class sluice.Semaphore
local semaphore_methods = {}
local semaphore_metatable = { __name = "sluice.semaphore", __index = semaphore_methods }

local permit_metatable = {
  __name = "sluice.permit",
  __close = function(permit)
    if permit.semaphore then
      local semaphore = permit.semaphore
      permit.semaphore = nil
      semaphore:release()
    end
  end,
}

---A counter of permits, first come first served.
---@param count integer permits at the start
---@return sluice.Semaphore
function task.semaphore(count)
  if math.type(count) ~= "integer" or count < 0 then
    error("task.semaphore: a number of permits expected, got " .. tostring(count), 2)
  end
  return setmetatable({ free = count, waiting = 0, turn = core.condition "semaphore:acquire" },
    semaphore_metatable)
end

---Waits for a permit. `local permit <close> = semaphore:acquire()` gives it back on every way out.
---@return table permit gives itself back when closed
function semaphore_methods:acquire()
  if self.free > 0 and self.waiting == 0 then
    core.check()
    self.free = self.free - 1
  else
    self.waiting = self.waiting + 1
    local ok, err = pcall(self.turn.wait, self.turn) -- a release hands its permit to the one it wakes
    self.waiting = self.waiting - 1
    if not ok then
      -- while we were counted as waiting, others queued behind us though a permit was free
      if self.free > 0 and self.turn:signal() > 0 then self.free = self.free - 1 end
      error(err, 0)
    end
  end
  return setmetatable({ semaphore = self }, permit_metatable)
end

---Gives a permit back, or adds one.
function semaphore_methods:release()
  if self.turn:signal() == 0 then self.free = self.free + 1 end
end

-- ---- channels ----

---@class sluice.Channel
local channel_methods = {}
local channel_metatable = { __name = "sluice.channel", __index = channel_methods }

---A queue between tasks.
---@param capacity? integer values it holds before send waits; 0 (the default) hands each one over
---@return sluice.Channel
function task.channel(capacity)
  capacity = capacity or 0
  if math.type(capacity) ~= "integer" or capacity < 0 then
    error("task.channel: a capacity expected, got " .. tostring(capacity), 2)
  end
  return setmetatable({
    capacity = capacity,
    first = 1,
    last = 0,
    receivers = 0,
    closed = false,
    filled = core.condition "channel:receive",
    drained = core.condition "channel:send",
  }, channel_metatable)
end

local function channel_is_full(channel)
  return channel.last - channel.first + 1 >= channel.capacity + channel.receivers
end

---Puts a value in; waits while the channel is full.
---@param value any anything but nil
---@return boolean|nil sent true; nil when the channel was closed
function channel_methods:send(value)
  if value == nil then error("channel:send: nil cannot be sent", 2) end
  while not self.closed and channel_is_full(self) do self.drained:wait() end
  if self.closed then return nil end
  self.last = self.last + 1
  self[self.last] = value
  self.filled:signal()
  return true
end

---Takes the oldest value out; waits for one.
---@return any value nil when the channel is closed and empty
function channel_methods:receive()
  while self.first > self.last do
    if self.closed then return nil end
    self.receivers = self.receivers + 1
    self.drained:signal()
    local ok, err = pcall(self.filled.wait, self.filled)
    self.receivers = self.receivers - 1
    if not ok then error(err, 0) end
  end
  local value = self[self.first]
  self[self.first] = nil
  self.first = self.first + 1
  self.drained:signal()
  return value
end

---Iterates over the values until the channel is closed and empty. Waits.
---@return fun(): any
function channel_methods:values()
  return function() return self:receive() end
end

---Ends it: senders get nil, receivers what is left, then nil. Idempotent.
function channel_methods:close()
  self.closed = true
  self.filled:broadcast()
  self.drained:broadcast()
end

-- ---- many at once ----

local function outcome(ok, value, err)
  if not ok then return { ok = false, error = value } end
  if value == nil and err ~= nil then return { ok = false, error = err } end
  return { ok = true, value = value }
end

local function map_worker(state)
  while not core.cancelled() do
    local index = state.next
    if index > state.count then return end
    state.next = index + 1
    local result = outcome(pcall(state.f, state.items[index], index))
    state.results[index] = result
    if not result.ok and state.stop_on_error then error(result.error, 0) end
  end
end

---Calls `f(item, index)` for each item, some at a time. An item has failed when f raises, or returns
---nil and an error. Waits.
---@param items any[]
---@param f fun(item: any, index: integer): any, any
---@param given? { concurrency?: integer, stop_on_error?: boolean } `concurrency`: calls at a time (default 10); `stop_on_error`: the first failure cancels the rest and is raised
---@return { ok: boolean, value: any, error: any }[] results in the items' order
function task.map(items, f, given)
  options.argument("task.map", "items", items, "table")
  options.argument("task.map", "f", f, "callable")
  given = options.check("task.map", given, { concurrency = "integer?", stop_on_error = "boolean?" })
  local concurrency = given.concurrency or 10
  if concurrency < 1 then error("task.map: option \"concurrency\" must be 1 or more", 2) end
  local state = {
    items = items, f = f, count = #items, next = 1, results = {}, stop_on_error = given.stop_on_error,
  }
  task.scope(function()
    for _ = 1, math.min(concurrency, state.count) do core.spawn(map_worker, state) end
  end)
  core.check()
  return state.results
end

---Runs the functions as tasks; the first to end decides: its results are returned, or its error is
---raised, and the others are cancelled and joined. Waits.
---@param ... function
---@return any ... the results of the first
function task.race(...)
  local runners = table.pack(...)
  if runners.n == 0 then error("task.race: at least one function expected", 2) end
  local ended, first = core.condition "task.race", nil
  local function finish(...)
    first = first or table.pack(...)
    ended:broadcast()
  end
  task.scope(function(scope)
    local racers = {}
    for index = 1, runners.n do
      racers[index] = scope:spawn(function() finish(pcall(runners[index])) end)
    end
    while not first do ended:wait() end
    for _, racer in ipairs(racers) do racer:cancel("another one was first") end
  end)
  if first[1] then return table.unpack(first, 2, first.n) end
  error(first[2], 0)
end

return task
