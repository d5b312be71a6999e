-- SPDX-License-Identifier: MIT
-- What a flight does: asks the endpoint, and makes of its answer what is kept.

local core = require "sluice.core.task"
local entry = require "sluice.cache.entry"
local json = require "sluice.json"
local meta = require "sluice.meta"
local stream = require "sluice.stream"
local task = require "sluice.task"

local fetch = {}

local function text_or_empty(value)
  return type(value) == "string" and value or ""
end

-- What another endpoint said in the place of this one, and an error that came as a success, is not kept.
local function may_keep(answer, facts)
  return not facts.degraded and (answer.error == nil or answer.error == json.null)
end

local function make_entry(flight, answer, chunks)
  return {
    created = task.wall(),
    model = text_or_empty(flight.facts.served_model),
    answer = answer,
    chunks = chunks,
    asked_usage = flight.method == "stream" and flight.asks_usage,
  }
end

---@class sluice.cache.Call
---@field inner sluice.Endpoint
---@field request table nobody else's
---@field options? table
---@field max_answer integer bytes

---Asks for a whole answer.
---@param flight sluice.cache.Flight
---@param call sluice.cache.Call
function fetch.query(flight, call)
  local answer, err = call.inner:query(call.request, call.options)
  if answer == nil then
    flight.err = err
    return
  end
  flight.answer, flight.facts = answer, meta.get(answer)
  if type(answer) ~= "table" then return end
  local encoded, text = pcall(json.encode, answer)
  if not encoded then return end
  flight.entry = make_entry(flight, text, "")
  flight.keeps = #text <= call.max_answer and may_keep(answer, flight.facts)
end

-- ---- streams ----

local function furthest_back(flight)
  local least = flight.count
  for reader in pairs(flight.readers) do least = math.min(least, reader.position) end
  return least
end

---Forgets what all readers of a large flight have read.
---@param flight sluice.cache.Flight
function fetch.trim(flight)
  if not flight.is_large then return end
  local read = furthest_back(flight)
  for at = flight.trimmed + 1, read do
    flight.unread = flight.unread - #flight.texts[at]
    flight.texts[at] = nil
  end
  flight.trimmed = math.max(flight.trimmed, read)
  flight.drained:broadcast()
end

local function grow_large(flight, call)
  flight.is_large, flight.trimmed = true, 0
  flight.drained = core.condition "layers.cache: the readers"
  call.flights:forget(flight)
end

local function add(flight, call, text)
  flight.count = flight.count + 1
  flight.texts[flight.count] = text
  flight.unread = flight.unread + #text
  flight.changed:broadcast()
  if not flight.is_large and flight.unread > call.max_answer then grow_large(flight, call) end
end

-- The slowest reader of a large one holds back the server, as the reader of a stream does.
local function hold_back(flight, call)
  fetch.trim(flight)
  while flight.unread > call.max_answer and flight.waiters > 0 do
    flight.drained:wait()
    fetch.trim(flight)
  end
end

local function has_usage(answer)
  return type(answer.usage) == "table"
end

local function finish_stream(flight, source, packed)
  local answer = source:collect()
  local whole = ""
  if answer and has_usage(answer) then
    local encoded, text = pcall(json.encode, answer)
    whole = encoded and text or ""
  end
  flight.entry = make_entry(flight, whole, table.concat(packed))
  flight.keeps = answer ~= nil and may_keep(answer, flight.facts)
end

local function read_all(flight, call, source)
  local packed, all_tables = {}, true
  while true do
    core.check() -- a source that never waits ends with its readers, too
    local chunk, event = source:next()
    if chunk == nil then
      flight.err = event
      break
    end
    local text = type(event) == "table" and type(event.data) == "string" and event.data or json.encode(chunk)
    all_tables = all_tables and type(chunk) == "table"
    if not flight.is_large then
      packed[#packed + 1] = entry.pack_chunk(task.now() - flight.started, text)
    end
    add(flight, call, text)
    if flight.is_large then hold_back(flight, call) end
  end
  if flight.err ~= nil or flight.is_large then return end
  finish_stream(flight, source, packed)
  flight.keeps = flight.keeps and all_tables and flight.count > 0
end

---Asks for a stream and reads all of it.
---@param flight sluice.cache.Flight
---@param call sluice.cache.Call
function fetch.stream(flight, call)
  local opened, err = call.inner:stream(call.request, call.options)
  if opened == nil then
    flight.err = err
    return
  end
  local source <close> = stream.wrap(opened)
  flight.source, flight.facts, flight.begun = source, meta.get(source), true
  flight.changed:broadcast()
  read_all(flight, call, source)
end

return fetch
