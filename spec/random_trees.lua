-- SPDX-License-Identifier: MIT
-- Random programs of tasks: build/sluice spec/random_trees.lua FIRST LAST [STRESS]
--
-- Each seed is a program, and an interleaving of it in simulated time. What must hold of every one:
-- it ends, each task that began has ended, each <close> ran once, no task is left. Each error that
-- left a task is written as "raised N", and as "seen N" where somebody got it: random_trees_spec.lua
-- looks for the others in what the runtime reported.
local task = require "sluice.task"

local first, last, stress = tonumber(arg[1]), tonumber(arg[2]), arg[3] == "stress"

local random = math.random

---@type table the program that runs now: what it counts, and what its tasks share
local program

local function see(err)
  if err == nil then return end
  if type(err) ~= "table" then
    program.unexpected = err
  elseif err.number and not program.seen[err.number] then
    program.seen[err.number] = true
    print("seen " .. err.number)
  end
end

local numbered = { __tostring = function(err) return "error number " .. err.number end }

local closer_metatable = {
  __close = function(closer)
    assert(not closer.closed, "a <close> ran twice")
    closer.closed = true
    program.open[closer] = nil
    if closer.waits then task.shield(task.sleep, random(0, 2)) end
  end,
}

local function closer()
  local new = setmetatable({ waits = random(3) == 1 }, closer_metatable)
  program.open[new] = true
  return new
end

-- Sets, because a time slice may end between reading a count and writing it.
local counted_metatable = { __close = function(counted) counted.set[counted] = nil end }

local function count_in(set)
  local counted = setmetatable({ set = set }, counted_metatable)
  set[counted] = true
  return counted
end

local function size(set)
  local count = 0
  for _ in pairs(set) do count = count + 1 end
  return count
end

local act

local function acts(depth)
  for _ = 1, random(4) do act(depth) end
end

-- Every few instructions a step of the collector, in every coroutine: what is not anchored goes at once.
local function stress_collector()
  debug.sethook(function() collectgarbage("step", 0) end, "", 20)
end

-- The body of every task.
local function body(depth)
  if stress then stress_collector() end
  local counted <close> = count_in(program.running)
  local guard <close> = closer()
  acts(depth)
  return depth, counted and guard
end

local function remember(handle)
  program.handles[#program.handles + 1] = handle
  return handle
end

local function any_handle()
  return program.handles[random(#program.handles)]
end

local function caught(f, ...)
  local results = table.pack(pcall(f, ...))
  if not results[1] then see(results[2]) end
  return table.unpack(results, 1, results.n)
end

local actions = {
  function() task.sleep(random(0, 3)) end,
  function() task.sleep(random()) end,
  function(depth) remember(task.spawn(body, depth)) end,
  function(depth) remember(task.spawn(body, depth)) end,
  function(depth)
    local handle = remember(task.spawn(body, depth))
    caught(handle.join, handle)
  end,
  function(depth) task.scope(function() acts(depth) end) end,
  function(depth)
    caught(task.scope, function(scope)
      remember(scope:spawn(body, depth))
      acts(depth)
      if random(4) == 1 then scope:cancel(random(2) == 1 and "enough" or {}) end
    end)
  end,
  function(depth) caught(task.timeout, random(0, 4), acts, depth) end,
  function(depth) task.timeout(random() * 3, acts, depth) end,
  function(depth) caught(task.shield, acts, depth) end,
  function(depth)
    caught(task.race, function() caught(acts, depth) end, function() task.sleep(random(0, 2)) end)
  end,
  function(depth)
    task.map({ 1, 2, 3 }, function() caught(acts, depth) end, { concurrency = random(3) })
  end,
  function()
    local handle = any_handle()
    if handle then handle:cancel("by chance") end
  end,
  function()
    local handle = any_handle() -- it may be one that waits for us: the limit ends that
    if not handle or handle:status() == "running" then return end
    caught(task.timeout, random(1, 3), caught, handle.join, handle)
  end,
  function() task.timeout(random(0, 2), program.channel.send, program.channel, random(100)) end,
  function() task.timeout(random(0, 2), program.channel.receive, program.channel) end,
  function()
    task.timeout(random(0, 3), function()
      local permit <close> = program.semaphore:acquire()
      local leave <close> = count_in(program.inside)
      assert(size(program.inside) <= 2, "more permits than there are")
      task.sleep(random(0, 2))
      return permit and leave
    end)
  end,
  function(depth) remember(program.group:spawn(body, depth)) end,
  function(depth)
    local group = task.group()
    local guard <close> = group
    remember(group:spawn(body, depth))
    acts(depth)
    return guard
  end,
  function(depth)
    local each = coroutine.wrap(function()
      for i = 1, random(3) do -- no <close> around the yield: Lua leaves a generator that is given up
        body(depth)
        coroutine.yield(i)
      end
    end)
    for i in each do task.sleep(i) end
  end,
  function(depth)
    local object = setmetatable({}, { __index = function(_, key) acts(depth) return key end })
    assert(object.fetched == "fetched")
  end,
  function()
    program.raised = program.raised + 1
    print("raised " .. program.raised)
    error(setmetatable({ number = program.raised }, numbered), 0)
  end,
  function() collectgarbage "step" end,
  function()
    for _, row in ipairs(task.tree()) do assert(row.name and row.state and row.age >= 0) end
  end,
}

function act(depth)
  if depth <= 0 then return task.sleep(random(0, 1)) end
  program.steps = program.steps + 1
  if program.steps > 400 then return end
  actions[random(#actions)](depth - 1)
end

local function begin(seed)
  math.randomseed(seed)
  program = {
    running = {}, open = {}, raised = seed * 1000, inside = {}, steps = 0, seen = {}, handles = {},
    channel = task.channel(random(0, 2)), semaphore = task.semaphore(2), group = task.group(),
  }
end

local function check(seed, before)
  local function hold(condition, what)
    if not condition then error(("seed %d: %s"):format(seed, what), 0) end
  end
  hold(not program.unexpected, program.unexpected)
  hold(size(program.running) == 0, "a task did not end: " .. size(program.running))
  hold(size(program.open) == 0, "a <close> did not run: " .. size(program.open))
  local free = program.semaphore.free
  hold(size(program.inside) == 0 and free == 2, "a permit is lost: " .. free)
  hold(program.semaphore.waiting == 0 and program.channel.receivers == 0, "somebody still counts as waiting")
  for _, handle in ipairs(program.handles) do
    hold(handle:status() == "done" or handle:status() == "failed", "a handle is " .. handle:status())
  end
  hold(#task.tree() == before, "a task is left in the tree")
end

for seed = first, last do
  begin(seed)
  if seed % 2 == 0 then collectgarbage "generational" else collectgarbage("incremental", 0, 1000) end
  local before = #task.tree()
  task.simulate(function()
    caught(task.timeout, 1000, function()
      caught(task.scope, function() body(7) end)
      program.group:close()
    end)
    program.group:close()
  end, { seed = seed })
  check(seed, before)
end
print "ended"
