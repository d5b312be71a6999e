-- SPDX-License-Identifier: MIT
-- Calls under way that several tasks wait for: single flight. They run in a scope of their own.

local core = require "sluice.core.task"
local errors = require "sluice.errors"
local task = require "sluice.task"

local flights = {}

---A call under way, or over.
---@class sluice.cache.Flight
---@field key string
---@field method "query"|"stream"
---@field is_held boolean goes on where nobody waits: a refresh
---@field limits? sluice.Timeout the time limits of who asked first
---@field asks_usage boolean of who asked first
---@field started number task.now()
---@field waiters integer
---@field done boolean whether it is known what came of it
---@field begun boolean of a stream: its first content is known
---@field changed any a condition: more chunks, begun, done
---@field task sluice.Task
---@field raised any what the call raised
---@field err any what it gave in place of an answer
---@field answer? table of a query: as it came, for who asked first
---@field source? sluice.Stream of a stream: as it came, what its meta is known by
---@field facts table the meta of the answer
---@field entry? sluice.cache.Entry what is kept, and what those who joined get
---@field keeps boolean whether it may be kept
---@field texts string[] of a stream: the JSON of its chunks
---@field count integer how many chunks have come
---@field readers table<sluice.cache.LiveReader, true> weak
---@field is_large boolean larger than what may be kept: nobody joins, and what all have read is forgotten
---@field unread integer bytes of the texts that are held
---@field drained any a condition: a reader of a large one has gone on, or left

---@class sluice.cache.Flights
---@field closed boolean
local methods = {}
local metatable = { __name = "sluice.cache.flights", __index = methods }

-- Nothing runs in it any more: what runs holds it. So this does not wait.
function metatable.__gc(self)
  if self._group then pcall(self._group.close, self._group) end
end

---None yet. The scope begins with the first one.
---@return sluice.cache.Flights
function flights.new()
  return setmetatable({ closed = false, _by_key = {} }, metatable)
end

---The call that may be joined.
---@param key string
---@return sluice.cache.Flight?
function methods:find(key)
  return self._by_key[key]
end

---From now on nobody joins it.
---@param flight sluice.cache.Flight
function methods:forget(flight)
  if self._by_key[flight.key] == flight then self._by_key[flight.key] = nil end
end

local function is_cancelled(err)
  return errors.is(err) and err.kind == "TaskCancelled"
end

local function run(self, flight, ask, keep)
  local asked, failure = pcall(ask, flight)
  if not asked then flight.raised = failure end
  flight.done = true
  flight.changed:broadcast()
  local kept = true
  if asked then kept, failure = pcall(keep, flight) end
  self:forget(flight)
  if not kept and not is_cancelled(failure) then error(failure, 0) end
end

---Starts a call, which others may join from now on. Never waits.
---@param flight sluice.cache.Flight with key, method, is_held, limits and asks_usage
---@param ask fun(flight: sluice.cache.Flight) makes the call; what it raises, those who wait raise
---@param keep fun(flight: sluice.cache.Flight) called once those who wait know the outcome
function methods:start(flight, ask, keep)
  flight.started, flight.waiters = task.now(), 0
  flight.done, flight.begun, flight.is_large = false, false, false
  flight.texts, flight.count, flight.unread = {}, 0, 0
  flight.readers = setmetatable({}, { __mode = "k" })
  flight.changed = core.condition "layers.cache"
  self._by_key[flight.key] = flight
  self._group = self._group or task.group()
  flight.task = self._group:spawn(run, self, flight, ask, keep)
end

-- ---- waiting ----

local seat_metatable = {}

-- The last one to leave cancels what nobody needs.
local function leave(seat)
  local flight = seat.flight
  if not flight then return end
  seat.flight = nil
  flight.waiters = flight.waiters - 1
  if flight.drained then flight.drained:broadcast() end
  if flight.waiters > 0 or flight.is_held or flight.done then return end
  seat.flights:forget(flight)
  flight.task:cancel "nobody waits for the answer any more"
end

seat_metatable.__close = leave

---A place among those who wait: while one is taken, the call goes on. A `<close>` value; `leave` gives it up.
---@param flight sluice.cache.Flight
---@return { leave: fun(self: table) } seat
function methods:sit(flight)
  flight.waiters = flight.waiters + 1
  return setmetatable({ flights = self, flight = flight, leave = leave }, seat_metatable)
end

local function wait_once(flight)
  flight.changed:wait()
  return true
end

---Waits until something about a flight has changed. Raises when the caller is cancelled.
---@param flight sluice.cache.Flight
---@param deadline? number task.now()
---@return boolean in_time false when the deadline came first
function flights.wait(flight, deadline)
  if not deadline then return wait_once(flight) end
  local left = deadline - task.now()
  return left > 0 and task.timeout(left, wait_once, flight) == true
end

---Cancels what is under way and waits for its end; what is asked from then on is for others to do. Idempotent.
function methods:close()
  self.closed = true
  local group = self._group
  self._group = nil
  if group then task.shield(group.close, group) end
end

---An err of a flight for one of those who waited: a copy, for layers add to it.
---@param err any
---@return any
function flights.copy(err)
  if not errors.is(err) then return err end
  local copy = setmetatable({}, getmetatable(err))
  for name, value in pairs(err) do copy[name] = value end
  return copy
end

return flights
