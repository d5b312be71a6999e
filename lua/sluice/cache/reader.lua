-- SPDX-License-Identifier: MIT
-- Streams that give again what was kept, or what others ask for at this moment.

local errors = require "sluice.errors"
local fetch = require "sluice.cache.fetch"
local flights = require "sluice.cache.flights"
local json = require "sluice.json"
local render = require "sluice.cache.render"
local task = require "sluice.task"

local reader = {}

-- ---- what was kept ----

---@class sluice.cache.KeptReader: sluice.ChunkSource
local kept_methods = {}
local kept_metatable = { __name = "sluice.cache.kept", __index = kept_methods }

---Gives the chunks; with pauses, each when it came the first time, counted from now.
---@param chunks sluice.cache.Chunk[]
---@param with_pauses boolean
---@return sluice.cache.KeptReader
function reader.kept(chunks, with_pauses)
  local from = with_pauses and task.now() or nil
  return setmetatable({ _chunks = chunks, _at = 0, _from = from }, kept_metatable)
end

---The next chunk. Waits where there are pauses.
---@return table? chunk
---@return table? event
function kept_methods:next()
  local chunk = self._chunks[self._at + 1]
  if not chunk then return nil end
  if self._from then
    local left = self._from + chunk.at - task.now()
    if left > 0 then task.sleep(left) end
  end
  self._at = self._at + 1
  return chunk.value, chunk.text and { data = chunk.text }
end

---Nothing more comes.
function kept_methods:close()
  self._chunks = {}
end

-- ---- what is under way ----

---@class sluice.cache.LiveReader: sluice.ChunkSource
---@field position integer how many chunks it has given
local live_methods = {}
local live_metatable = { __name = "sluice.cache.live", __index = live_methods }

---Gives the chunks of a flight, from the first one on.
---@param flight sluice.cache.Flight
---@param seat table given up with the stream
---@param given { deadline?: number, total?: number, with_usage: boolean } `with_usage`: the caller asks for it
---@return sluice.cache.LiveReader
function reader.live(flight, seat, given)
  local made = setmetatable({
    position = 0,
    _flight = flight, _seat = seat, _deadline = given.deadline, _total = given.total,
    _drops_usage = flight.asks_usage and not given.with_usage,
  }, live_metatable)
  flight.readers[made] = true
  return made
end

-- Of a reader that is done: also of one that was forgotten.
local function leave(self)
  if not self._seat then return end
  local flight = self._flight
  flight.readers[self] = nil
  fetch.trim(flight)
  self._seat:leave()
  self._seat = nil
end

live_metatable.__gc = leave

local function finish(self, err)
  self._ended, self._failure = true, err
  leave(self)
  return nil, err
end

local function is_late(self)
  return finish(self, errors.new("TimeoutError", {
    operation = "stream", limit = "total", maybe_executed = true,
    message = ("not complete within %g s"):format(self._total),
  }))
end

local function come_to_end(self)
  local flight = self._flight
  if flight.raised == nil then return finish(self, flights.copy(flight.err)) end
  local raised = flights.copy(flight.raised)
  finish(self, raised)
  if errors.is(raised) and raised.kind == "TaskCancelled" then return nil, raised end
  error(raised, 0)
end

local function take(self)
  local at = self.position + 1
  self.position = at
  local text = self._flight.texts[at]
  fetch.trim(self._flight)
  local value = json.decode(text)
  if self._drops_usage and type(value) == "table" and render.is_usage(value) then return nil end
  return value, { data = text }
end

---Waits until the flight gives chunks, or has ended without any.
---@return boolean? begun false where it gives none; nil and err when the time is over
---@return sluice.Error? err
function live_methods:begin()
  local flight = self._flight
  while not flight.begun and not flight.done do
    if not flights.wait(flight, self._deadline) then return is_late(self) end
  end
  return flight.begun
end

---The next chunk; nil at the end; nil and err. Waits.
---@return any chunk
---@return any event of a chunk; else err
function live_methods:next()
  local flight = self._flight
  while not self._ended do
    if flight.count > self.position then
      local value, event = take(self)
      if value ~= nil then return value, event end
    elseif flight.done then
      return come_to_end(self)
    elseif not flights.wait(flight, self._deadline) then
      return is_late(self)
    end
  end
  return nil, self._failure
end

---Lets go of it. Idempotent, never waits.
function live_methods:close()
  self._ended = true
  leave(self)
end

return reader
