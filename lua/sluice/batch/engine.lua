-- SPDX-License-Identifier: MIT
-- The workers of a batch: each takes a row, asks, writes what came, and takes the next one.

local backoff = require "sluice.core.backoff"
local core = require "sluice.core.task"
local errors = require "sluice.errors"
local meta = require "sluice.meta"
local row = require "sluice.batch.row"
local system = require "sluice.core.system"
local task = require "sluice.task"
local throttle = require "sluice.batch.throttle"

local engine = {}

local BASE <const>, CAP <const> = 0.5, 30 -- seconds, between two tries of a row that was refused

---@class sluice.batch.Engine
---@field open table<integer, integer> places of rows that were started and are not done
---@field stopped string? why no more is started
---@field failure any what ended it
---@field busy integer requests under way
---@field is_exhausted boolean whether the input has ended
local methods = {}
local metatable = { __name = "sluice.batch.engine", __index = methods }

local now = task.now

---@class sluice.batch.EngineOptions
---@field endpoint sluice.Endpoint
---@field source sluice.BatchSource
---@field out sluice.batch.Window|sluice.batch.Direct
---@field wants_tables boolean what `out` takes: tables, or lines
---@field tally sluice.batch.Tally
---@field throttle sluice.batch.Throttle
---@field group sluice.Scope
---@field attempts integer
---@field stream boolean
---@field query_options? sluice.QueryOptions
---@field is_shared? boolean whether `out` is told what else is known of a result
---@field todo { row: integer, offset: integer, line?: string }[] rows before those of `source`, in order
---@field rules sluice.batch.Rules

---Makes the workers ready; grow() starts them.
---@param given sluice.batch.EngineOptions
---@return sluice.batch.Engine
function engine.new(given)
  local self = {
    open = {}, busy = 0, is_exhausted = false, alive = 0, idle = 0,
    again = {}, sleeping = 0, todo_at = 1, workers = {}, reading = {}, landed = {}, is_flushing = false,
    turn = core.condition "the next row of a batch", ended = core.condition "the end of a batch",
    flushed = core.condition "the output of a batch",
  }
  for name, value in pairs(given) do self[name] = value end
  for _, each in ipairs(self.todo) do
    if not each.line then self.open[each.row] = each.offset end
  end
  return setmetatable(self, metatable)
end

-- ---- stopping ----

---Starts nothing more; what runs is finished.
---@param reason string
function methods:stop(reason)
  self.stopped = self.stopped or reason
  self.turn:broadcast()
  if self.source.nudge then self.source:nudge() end
  for worker in next, self.reading do worker.task:cancel(reason) end
end

local function retire(self, worker)
  self.workers[worker], self.reading[worker] = nil, nil
  self.alive = self.alive - 1
  if self.alive == 0 then self.ended:broadcast() end
end

-- A task that is cancelled before it runs never does.
---Starts nothing more, and gives up what runs.
---@param reason string
function methods:cancel(reason)
  self:stop(reason)
  for worker in next, self.workers do
    if not worker.has_begun then retire(self, worker) end
    worker.task:cancel(reason)
  end
end

---Ends it all because of an err, or of what was raised.
---@param failure any
function methods:fail(failure)
  if self.failure == nil then self.failure = failure end
  self:cancel "failed"
end

-- ---- taking rows ----

-- What an earlier run has left comes first. Results that it had already only wait for their turn.
local function next_left(self)
  while true do
    local left = self.todo[self.todo_at]
    if not left then return nil end
    self.todo_at = self.todo_at + 1
    self.out:expect(left.row)
    if left.line then
      self.out:put(left.row, left.line, true)
    else
      self.reader = self.reader or self.source:another()
      self.reader:seek(left.row, left.offset)
      return self.reader:next()
    end
  end
end

local function next_row(self, worker)
  if self.todo_at <= #self.todo then
    local number, item, offset = next_left(self)
    if number or item then return number, item, offset end
  end
  local source = self.source
  if source.is_serial then self.reading[worker] = true end
  local number, item, offset = source:next()
  if source.is_serial then self.reading[worker] = nil end
  if not number then return number, item end
  self.open[number] = offset or 0
  self.out:expect(number)
  return number, item, offset
end

local function may_go(self)
  local limits = self.throttle
  return self.busy + 1 <= limits.limit and (limits.pauses == 0 or now() >= limits.paused_until)
end

-- A row that was refused and whose time has come.
local function take_again(self)
  local entry = table.remove(self.again, 1)
  return entry.row, entry.item, entry.tries
end

-- Counts as busy from the moment that it looks for a row: a pipe may let it wait. False: look again.
local function take_new(self, worker)
  self.busy = self.busy + 1
  local number, item = next_row(self, worker)
  if number then return number, item, 0 end
  self.busy = self.busy - 1
  if number == false then return false end
  if item then self:fail(item) end
  self.is_exhausted = true
  self.turn:broadcast()
  return nil
end

local function wait_for_turn(self)
  self.idle = self.idle + 1
  local ok, raised = pcall(self.turn.wait, self.turn)
  self.idle = self.idle - 1
  if not ok then error(raised, 0) end
end

-- The next row; nil when there is none for this worker. Waits for its turn.
local function take(self, worker)
  while not self.stopped do
    local number, item, tries
    if may_go(self) then
      if self.again[1] then
        self.busy = self.busy + 1
        return take_again(self)
      end
      if not self.is_exhausted and self.out:has_room() then
        number, item, tries = take_new(self, worker)
        if number then return number, item, tries end
      end
    end
    if self.is_exhausted and self.sleeping == 0 and not self.again[1] then return nil end
    if number ~= false then wait_for_turn(self) end -- false: something has come meanwhile
  end
end

-- ---- asking ----

local function collect(self, request)
  local stream, err = self.endpoint:stream(request, self.query_options)
  if not stream then return nil, err end
  local _ <close> = stream
  return stream:collect()
end

local function ask(self, request)
  if self.stream or request.stream == true then return collect(self, request) end
  return self.endpoint:query(request, self.query_options)
end

-- What an endpoint raises is the error of its row, but for the end of this task.
local function ask_safely(self, request)
  local ok, response, err = pcall(ask, self, request)
  if ok then
    if response ~= nil then return response end
    return nil, errors.is(err) and err or errors.new("EndpointRaised", {
      message = "the endpoint gave no answer, but " .. tostring(err),
    })
  end
  if not errors.is(response) then
    return nil, errors.new("EndpointRaised", { message = tostring(response) })
  end
  if response.kind == "TaskCancelled" or response._scope then error(response, 0) end
  return nil, response
end

-- ---- what came ----

local function wake(self)
  local room = self.throttle.limit // 1 - self.busy
  for _ = 1, math.min(self.idle, room) do self.turn:signal() end
end

-- Waits in a task of its own, so that the worker takes another row meanwhile.
local function wait_and_ask_again(self, entry, delay)
  self.sleeping = self.sleeping + 1
  self.group:spawn(function()
    task.sleep(delay)
    self.sleeping = self.sleeping - 1
    self.again[#self.again + 1] = entry
    if self.source.nudge then self.source:nudge() end
    self.turn:broadcast()
  end)
end

-- Nobody asks while the server wants to be left alone, whoever it said that to.
local function pause(self, seconds)
  if not self.throttle:pause(seconds) then return end
  self.group:spawn(function()
    task.sleep(self.throttle.paused_until - now())
    self.turn:broadcast()
  end)
end

-- Whether a refused row is asked again later.
local function is_asked_again(self, number, item, tries, started, err)
  if not throttle.is_refusal(err) then return false end
  self.throttle:overloaded(started)
  local hint = err.retry_after
  if hint and hint > 0 then pause(self, hint) end
  if tries + 1 >= self.attempts or err.attempts then return false end
  if self.stopped then return true end -- by the next run
  local delay = hint or backoff.delay(tries + 1, BASE, CAP, system.random_float())
  self.tally.retries = self.tally.retries + 1
  wait_and_ask_again(self, { row = number, item = item, tries = tries + 1 }, delay)
  return true
end

-- Both give how often the endpoint itself asked again.
local function count_failure(self, err)
  self.tally:fail(err.kind)
  local retries = err.attempts and math.max(#err.attempts - 1, 0) or 0
  self.tally.retries = self.tally.retries + retries
  return retries
end

local function count_answer(self, response, started, seconds, facts)
  local tally, retries = self.tally, 0
  tally:succeed(response, seconds, facts and facts.ttft)
  if facts and facts.attempts then
    retries = self.throttle:tries_before(facts.attempts, started)
    tally.retries = tally.retries + retries
  end
  self.throttle:succeeded(self.busy)
  return retries
end

---Writes the results that have come: then their rows are done. Waits where the output does.
function methods:flush()
  local landed, open = self.landed, self.open
  self.landed = {}
  local ok, failure = self.out:flush()
  if not ok then
    self:fail(failure)
    return
  end
  for index = 1, #landed do open[landed[index]] = nil end
  self.flushed:broadcast()
end

-- With so many under way, several results come in one turn of the loop, and one write takes them all.
local MANY <const> = 8

-- The first of a turn writes for all of them. Nobody takes another row before its result is written: whatever happens
-- to this process, no more rows are under way than requests.
local function land(self, number)
  local landed = self.landed
  landed[#landed + 1] = number
  if self.is_flushing then
    while self.landed == landed or self.writing == landed do self.flushed:wait() end
    return
  end
  self.is_flushing = true
  if self.busy >= MANY then task.sleep(0) end
  while #self.landed > 0 do
    self.writing = self.landed
    self:flush()
    self.writing = nil
  end
  self.is_flushing = false
end

-- What the output of a shared batch tells to who counts for all.
local function facts_of(is_ok, seconds, facts, retries)
  return { ok = is_ok, seconds = seconds, ttft = facts and facts.ttft, retries = retries }
end

local function settle(self, number, id, response, err, started, tries)
  local entry, problem, facts, retries
  if self.wants_tables then
    entry = { row = number, id = id, response = response, error = response == nil and err or nil }
  elseif response ~= nil then
    entry, problem = row.answer_line(number, id, response)
  else
    entry = row.error_line(number, id, err)
  end
  local is_ok, seconds = response ~= nil and not problem, now() - started
  if is_ok then
    facts = meta.at_hand(response) -- retries and streams have left some
    retries = count_answer(self, response, started, seconds, facts)
  else
    retries = count_failure(self, problem or err)
  end
  self.out:put(number, entry, self.is_shared and facts_of(is_ok, seconds, facts, tries + retries) or nil)
  land(self, number)
  local reason = self.rules.is_needed and self.rules:broken_by(self.tally)
  if reason then self:stop(reason) end
end

local function work_on(self, number, item, tries)
  local request, id, err = row.read(number, item)
  local started, response = now(), nil
  if request then
    if id ~= nil and tries == 0 then self.rules:note_id(id, number) end
    response, err = ask_safely(self, request)
    if response == nil and is_asked_again(self, number, item, tries, started, err) then return end
  end
  settle(self, number, id, response, err, started, tries)
end

-- ---- workers ----

-- An endpoint that never waits, a cache say, must not keep the others from being heard.
local MOST_IN_A_ROW <const> = 32

local function loop(self, worker)
  local count = 0
  while true do
    local number, item, tries = take(self, worker)
    if not number then return end
    work_on(self, number, item, tries)
    self.busy, count = self.busy - 1, count + 1
    if count % MOST_IN_A_ROW == 0 then task.sleep(0) end
    if self.idle > 0 then wake(self) end
    if self.alive < self.throttle.limit // 1 then self:grow() end
  end
end

local function work(self, worker)
  if not self.workers[worker] then return end
  worker.has_begun = true
  local ok, raised = pcall(loop, self, worker)
  local is_cancelled = not ok and errors.is(raised) and raised.kind == "TaskCancelled"
  if not ok and not (self.stopped and is_cancelled) then self:fail(raised) end
  retire(self, worker)
end

---Starts as many workers as the limit allows.
function methods:grow()
  while self.alive < self.throttle.limit // 1 and not self.is_exhausted and not self.stopped do
    local worker = {}
    self.alive = self.alive + 1
    self.workers[worker] = true
    worker.task = self.group:spawn(work, self, worker)
  end
end

---Waits until no worker is left.
function methods:wait()
  while self.alive > 0 do self.ended:wait() end
end

---Whether every row has its result.
---@return boolean
function methods:is_complete()
  return self.is_exhausted and next(self.open) == nil and self.failure == nil
end

return engine
