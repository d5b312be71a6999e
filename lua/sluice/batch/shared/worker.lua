-- SPDX-License-Identifier: MIT
-- One process's share of a shared batch: takes rows as its requests become free, says that it lives while they are
-- under way, gives results back, and takes over the rows of processes that do not say so any more.

local core = require "sluice.core.task"
local errors = require "sluice.errors"
local log = require "sluice.log"
local row = require "sluice.batch.row"
local system = require "sluice.core.system"
local task = require "sluice.task"

local worker = {}

local LEAST_PAUSE <const>, MOST_PAUSE <const> = 0.01, 0.25 -- seconds, while there is nothing to take
local MOST_BETWEEN_CLAIMS <const> = 5 -- seconds
local PATIENCE <const> = 5 -- seconds until it is said that nobody feeds
local MOST_ROWS <const>, MOST_BYTES <const> = 500, 4 << 20 -- of results in one step
local NOBODYS <const> = 80000 -- seconds: rows that were given back say nothing for a day
local LAST_WORDS <const> = 5 -- seconds to give rows back at the end

---@class sluice.batch.shared.Worker: sluice.BatchSource
---@field consumer string its name among the workers
local methods = {}
local metatable = { __name = "sluice.batch.shared.worker", __index = methods }

local function new_name()
  return "worker-" .. (system.random(6):gsub(".", function(char) return ("%02x"):format(char:byte()) end))
end

-- ---- rows that come ----

-- Of a row that others have died of only the id is read, and at its second time not even that.
local function poisoned(number, line, times, most)
  local id
  if times == most then id = select(2, row.read(number, line)) end
  return errors.new("PoisonedRow", {
    message = ("row %d: %d workers ended while they had it"):format(number, times), row_id = id,
  })
end

-- Rows that were with the one that ended a worker are not to be taken for it: a suspect, which one more end would
-- condemn, is never under way beside another suspect.
local function receive(self, entry)
  local id, line, times = table.unpack(entry)
  if self._held[id] then return end -- it was late to say that it lives
  local number = math.tointeger(id:match "%-(%d+)$")
  local item = line ~= "" and line
  if times >= self._most_deliveries then item = poisoned(number, line, times, self._most_deliveries) end
  local is_suspect = times > 0 and times >= self._most_deliveries - 1
  self._held[id], self._ids[number] = { number = number, times = times, is_suspect = is_suspect }, id
  if is_suspect then self._suspects = self._suspects + 1 end
  self._ready[#self._ready + 1] = { number, item }
end

local function forget(self, id)
  local held = self._held[id]
  if not held then return end
  self._held[id], self._ids[held.number] = nil, nil
  if not held.is_suspect then return end
  self._suspects, self._claim_at = self._suspects - 1, -math.huge -- for the next one
end

local function end_with(self, failure)
  self._failure, self._ended = failure, true
  self._news:broadcast()
end

-- What a reply brings; whether it was something.
local function heed(self, reply)
  if reply[1] == "none" then
    if task.now() >= self._tell_at then
      self._tell_at = math.huge
      log.info("batch: nobody has fed it yet", { batch = self._server.name })
    end
    return false
  end
  self._run = reply[2]
  if reply[1] == "ended" then
    end_with(self)
    return true
  end
  for _, entry in ipairs(reply[3]) do receive(self, entry) end
  if #reply[3] > 0 then self._news:broadcast() end
  return #reply[3] > 0
end

local function ids_of(held)
  local ids = {}
  for id in next, held do ids[#ids + 1] = id end
  return ids
end

-- Replies may have been lost: rows that we have and do not know of are for anybody. Those of others are not taken before
-- all who live had time to say so.
local function recover(self)
  self._failures, self._claim_at, self._is_wary = self._server.failures, task.now() + self._idle, true
  if not self._run then return end
  self._server:call("disown", self._run, self.consumer, table.unpack(ids_of(self._held)))
end

-- Rows of others are looked for now and then; after an absence only those that nobody has.
local function take(self, count)
  if self._server.failures > self._failures then recover(self) end
  local now = task.now()
  local is_early = now < self._claim_at
  self._is_wary = self._is_wary and is_early
  local may_claim, idle = not is_early or self._is_wary, self._is_wary and NOBODYS or self._idle
  local reply, err = self._server:call("take", self._run or "", self.consumer, count, may_claim and 1 or 0,
    math.ceil(idle * 1000), self._most_deliveries - 1, self._suspects == 0 and 1 or 0)
  if not is_early and reply and not (reply[3] and #reply[3] == count) then
    self._claim_at = now + math.min(self._idle / 4, MOST_BETWEEN_CLAIMS)
  end
  return reply, err
end

-- As many are taken as requests wait for one, no more: what is taken is under way at once.
local function keep_taking(self)
  local pause = LEAST_PAUSE
  while not self._ended do
    local count = self._waiting - #self._ready
    if count <= 0 then
      self._wanted:wait()
    else
      local reply, err = take(self, count)
      if not reply then return end_with(self, err) end
      if heed(self, reply) then
        pause = LEAST_PAUSE
      else
        task.sleep(pause)
        pause = math.min(2 * pause, MOST_PAUSE)
      end
    end
  end
end

local function keep_refreshing(self)
  while true do
    task.sleep(self._idle / 3)
    local ids = ids_of(self._held)
    while #ids > 0 and not self._server:refresh(self.consumer, ids) do task.sleep(self._idle / 20) end
  end
end

---The next row: waits for one, for as long as others may leave some.
---@return integer|false|nil number nil at the end; false: nothing now, look whether something else is to be done
---@return any item or err
function methods:next()
  local nudges = self._nudges
  while not self._ready[1] do
    if self._ended then return nil, self._failure end
    if self._nudges ~= nudges then return false end
    self._waiting = self._waiting + 1
    self._wanted:signal()
    local ok, raised = pcall(self._news.wait, self._news)
    self._waiting = self._waiting - 1
    if not ok then error(raised, 0) end
  end
  local entry = table.remove(self._ready, 1)
  return entry[1], entry[2], 0
end

---Makes all who wait for a row look whether something else is to be done.
function methods:nudge()
  self._nudges = self._nudges + 1
  self._news:broadcast()
end

-- ---- results that go: what the engine knows as its output ----

---@class sluice.batch.shared.Out
---@field held integer 0
---@field held_bytes integer 0
---@field last integer 0
local out_methods = {}
local out_metatable = { __name = "sluice.batch.shared.out", __index = out_methods }

---Always.
---@return boolean
function out_methods.has_room() return true end

---Nothing to do.
function out_methods.expect() end

---Takes the line of a row, and what else is known of it; flush() sends it.
---@param number integer
---@param line string
---@param facts { ok: boolean, seconds: number, ttft: number?, retries: integer }
function out_methods:put(number, line, facts)
  local ttft = facts.ttft and ("%.6f"):format(facts.ttft) or "-"
  local known = ("%.6f %s %d"):format(facts.seconds, ttft, facts.retries)
  self._due[#self._due + 1] = { id = self._worker._ids[number], ok = facts.ok, line = line, facts = known }
end

-- The words of the next step, and the result behind it.
local function words_of(due)
  local words, bytes, at = {}, 0, 1
  while due[at] and #words < 4 * MOST_ROWS and bytes < MOST_BYTES do
    local each, count = due[at], #words
    words[count + 1], words[count + 2], words[count + 3], words[count + 4] =
      each.id, each.ok and 1 or 0, each.line, each.facts
    bytes, at = bytes + #each.line, at + 1
  end
  return words, at
end

---Gives what has come to Redis, each result in one step with its row; what it is cancelled at is given the next time.
---Waits; one at a time.
---@return boolean? ok
---@return sluice.Error? err
function out_methods:flush()
  local owner = self._worker
  while self._due[1] do
    local due = self._due
    local words, after = words_of(due)
    local reply, err = owner._server:call("settle", owner._run, table.unpack(words))
    if not reply then return nil, err end
    for index = 1, after - 1 do forget(owner, due[index].id) end
    self._due = table.move(due, after, #due, 1, {})
  end
  return true
end

---Nothing is held.
---@return string[]
function out_methods.entries() return {} end

-- ---- beginning and end ----

---Begins to take part. Does not wait.
---@param server sluice.batch.shared.Server
---@param given { consumer: string?, idle: number, max_deliveries: integer }
---@return sluice.batch.shared.Worker
function worker.new(server, given)
  local self = setmetatable({
    consumer = given.consumer or new_name(), row = 0,
    _server = server, _idle = given.idle, _most_deliveries = given.max_deliveries,
    _held = {}, _ids = {}, _ready = {}, _suspects = 0, _waiting = 0, _nudges = 0,
    _failures = 0, _is_wary = false, _claim_at = -math.huge,
    _tell_at = task.now() + math.min(given.idle, PATIENCE),
    _news = core.condition "the next row of a shared batch",
    _wanted = core.condition "a request that is free",
    _group = task.group(),
  }, metatable)
  self.out = setmetatable({ held = 0, held_bytes = 0, last = 0, _due = {}, _worker = self }, out_metatable)
  self._taking = self._group:spawn(keep_taking, self)
  self._group:spawn(keep_refreshing, self)
  return self
end

-- Rows that are not done go to others at once.
local function release(self)
  self._taking:join()
  self._group:close()
  if not self._run then return end
  local words = {}
  for id, held in next, self._held do words[#words + 1], words[#words + 2] = id, held.times end
  self._server:try("release", self._run, self.consumer, table.unpack(words))
end

---Gives back what it still has. Waits, 5 s at the most. Idempotent.
function methods:close()
  if self._is_closed then return end
  self._is_closed, self._ended = true, true
  self:nudge()
  self._wanted:broadcast()
  task.shield(task.timeout, LAST_WORDS, release, self)
  task.shield(self._group.close, self._group)
end

return worker
