-- SPDX-License-Identifier: MIT
-- The layer that never asks twice: answers that were kept, and one call for all who ask the same at once.

local cache = require "sluice.cache"
local entry = require "sluice.cache.entry"
local errors = require "sluice.errors"
local fetch = require "sluice.cache.fetch"
local flights = require "sluice.cache.flights"
local identity = require "sluice.cache.identity"
local json = require "sluice.json"
local layers = require "sluice.layers"
local log = require "sluice.log"
local meta = require "sluice.meta"
local options = require "sluice.options"
local reader = require "sluice.cache.reader"
local render = require "sluice.cache.render"
local spans = require "sluice.trace.span"
local stream = require "sluice.stream"
local system = require "sluice.core.system"
local task = require "sluice.task"
local tiers = require "sluice.cache.tiers"

---What a cache layer does, in counts: `endpoint.cache`.
---@class sluice.Cache
---@field hits integer answers that were kept, and fresh
---@field stale integer answers that were kept, and no longer fresh
---@field misses integer calls that were made
---@field joins integer requests that got the answer to another one's call
---@field bypassed integer requests that went by the cache
---@field stored integer answers that were kept
---@field refreshes integer calls in the background, for stale answers
---@field store_failures integer what the store could not do: each was a miss, or an answer that was not kept
local methods = {}
local metatable = { __name = "sluice.cache", __index = methods }

local COUNTS <const> = {
  "hits", "stale", "misses", "joins", "bypassed", "stored", "refreshes", "store_failures",
}

function metatable.__tojson(self)
  local counts = {}
  for _, name in ipairs(COUNTS) do counts[name] = self[name] end
  return counts
end

---Cancels the calls under way and waits for their ends. From then on requests go by the cache. Idempotent.
function methods:close()
  options.method("cache:close", self, "_flights")
  self._flights:close()
end

metatable.__close = methods.close

---@class sluice.CacheOptions
---@field ttl? number seconds that an answer is fresh, 3600
---@field namespace? string keeps its answers apart from those of others in the same store
---@field store? sluice.CacheStore|sluice.CacheStore[] where answers are kept, the nearest first; a cache.lru of 64 MiB of its own
---@field sampled? boolean also keep what was drawn at a temperature above 0 without a seed (false; true with variants)
---@field variants? integer answers to a request that are kept, of which each hit gets one at random, 1
---@field stale_while_revalidate? number seconds that an answer that is no longer fresh is given, while a new one is asked for, 0
---@field stale_if_error? number seconds that it is given where no new one is to be had, 0
---@field replay? "at_once"|"recorded" how a stream that was kept comes: with its pauses, or without; "at_once"
---@field max_answer? integer bytes of JSON above which an answer is not kept, 1 MiB
---@field random? fun(): number in [0, 1)
local CACHE <const> = {
  ttl = "positive?",
  namespace = "name?",
  store = tiers.rule,
  sampled = "boolean?",
  variants = "count?",
  stale_while_revalidate = "seconds?",
  stale_if_error = "seconds?",
  replay = function(value)
    return value == "at_once" or value == "recorded", '"at_once" or "recorded"'
  end,
  max_answer = "count?",
  random = "callable?",
}

local DEFAULT_TTL <const>, DEFAULT_ANSWER <const> = 3600, 1 << 20

local function new_cache(given)
  local ttl, while_asking = given.ttl or DEFAULT_TTL, given.stale_while_revalidate or 0
  local if_error = given.stale_if_error or 0
  local self = setmetatable({
    hits = 0, stale = 0, misses = 0, joins = 0, bypassed = 0, stored = 0, refreshes = 0, store_failures = 0,
    _ttl = ttl,
    _usable = ttl + while_asking,
    _last_resort = ttl + if_error,
    _sampled = given.sampled or (given.sampled == nil and (given.variants or 1) > 1),
    _variants = given.variants or 1,
    _with_pauses = given.replay == "recorded",
    _max_answer = given.max_answer or DEFAULT_ANSWER,
    _random = given.random or system.random_float,
    _flights = flights.new(),
    _has_told = false,
  }, metatable)
  self._tiers = tiers.new(given.store or cache.lru(), ttl + math.max(while_asking, if_error), self)
  return self
end

-- ---- what a request says ----

local PER_REQUEST <const> = { ["no-store"] = true, refresh = true, ["only-if-cached"] = true }
local MAX_AGE <const> = { max_age = "seconds?" }

-- What the option `cache` asks for, and how old an answer may be.
local function control_of(given)
  local wanted = given and given.cache
  if wanted == nil then return nil, math.huge end
  if PER_REQUEST[wanted] then return wanted, math.huge end
  if type(wanted) ~= "table" then
    local got = type(wanted) == "string" and ('"%s"%s'):format(wanted, options.hint(wanted, PER_REQUEST))
      or options.type_name(wanted)
    options.misuse('endpoint:query: option "cache" must be "no-store", "refresh", "only-if-cached" '
      .. "or { max_age = seconds }, got %s", got)
  end
  return nil, options.check("endpoint:query: cache", wanted, MAX_AGE).max_age or math.huge
end

-- Another answer each time is what the caller asks for.
local function is_sampled(request)
  local temperature, seed = request.temperature, request.seed
  return type(temperature) == "number" and temperature > 0 and (seed == nil or seed == json.null)
end

local function goes_by(self, inner, request, control)
  if control == "no-store" or self._flights.closed then return true end
  if self._sampled or not is_sampled(request) then return false end
  if not self._has_told then
    self._has_told = true
    log.info("answers at a temperature above 0 without a seed are not cached", {
      endpoint = inner.name, option = "layers.cache{ sampled = true }",
    })
  end
  return true
end

local function key_of(self, whom, request, given)
  local key = whom:key(request, given and given.served_model)
  if self._variants == 1 then return key end
  return ("%s:%d"):format(key, math.min(self._variants, 1 + math.floor(self._random() * self._variants)))
end

-- ---- what is kept ----

-- What was kept in the form that is asked for; nil where it has none.
local function give(self, method, kept, request)
  if method == "query" then return entry.answer(kept) end
  local chunks = render.stream(kept, render.asks_usage(request))
  return chunks and stream.wrap(reader.kept(chunks, self._with_pauses))
end

local function describe(value, kept, result, age, key)
  return meta.set(value, {
    served_model = kept.model ~= "" and kept.model or nil,
    cache = { result = result, age = age, key = key },
  })
end

local function keep(self, flight)
  local is_newest = self._flights:find(flight.key) == flight
  if flight.entry and flight.keeps and is_newest then self._tiers:keep(flight.key, flight.entry) end
end

-- ---- asking ----

---@class (private) sluice.cache.Question
---@field cache sluice.Cache
---@field inner sluice.Endpoint
---@field method "query"|"stream"
---@field request table
---@field given? table
---@field key string
---@field control? string
---@field total? number seconds, of this caller alone
---@field deadline? number
---@field asks_usage boolean
---@field own_form? boolean join no flight of the other method

-- What a caller may change as soon as he has his answer, or has left: others, and a refresh, ask with it.
local function copy_of(value)
  local its = type(value) == "table" and getmetatable(value)
  if type(value) ~= "table" or its and its ~= json.array_mt then return value end
  local copy = setmetatable({}, its)
  for key, each in next, value do copy[key] = copy_of(each) end
  return copy
end

local function request_copy(request)
  local copy, raw = copy_of(request), meta.get(request).raw
  if raw and copy ~= request then meta.set(copy, { raw = raw }) end
  return copy
end

-- Seconds: what a plain answer may take in all where nobody says.
local USUAL_TOTAL <const> = 600

-- For a call that others may wait for, too: who asked first has his total to himself.
local function shared_options(question)
  local given = question.given
  if not given or given.timeout == nil then return given end
  local limits = {}
  for name, seconds in pairs(question.limits) do limits[name] = seconds end
  local total = question.total
  limits.total = total and question.method == "query" and math.max(total, USUAL_TOTAL) or nil
  return layers.with_options(given, { timeout = limits })
end

local function tell_of_refresh(flight, question)
  local failure = flight.err or flight.raised
  if failure == nil then return end
  log.warn("a stale answer could not be refreshed", { endpoint = question.inner.name, error = failure })
end

local function start(question, is_held)
  local self = question.cache
  local flight = {
    key = question.key, method = question.method, is_held = is_held, limits = question.limits,
    asks_usage = question.method == "stream" and question.asks_usage,
  }
  local call = {
    inner = question.inner, request = request_copy(question.request), options = shared_options(question),
    max_answer = self._max_answer, flights = self._flights,
  }
  local ask = fetch[question.method]
  self._flights:start(flight, function() ask(flight, call) end, function()
    if is_held then tell_of_refresh(flight, question) end
    keep(self, flight)
  end)
  return flight
end

local function same_limits(a, b)
  for _, name in ipairs { "queue", "connect", "first_byte", "first_event", "idle" } do
    if (a and a[name]) ~= (b and b[name]) then return false end
  end
  return true
end

local function may_join(question, flight)
  if not flight or flight.is_large then return false end
  if flight.method ~= question.method then return not question.own_form end
  return question.method == "query" or flight.asks_usage or not question.asks_usage
end

local function is_late(question)
  return nil, errors.new("TimeoutError", {
    operation = question.method, object = question.inner.name, limit = "total", maybe_executed = true,
    message = ("no answer within %g s"):format(question.total),
  })
end

-- Why a flight gave nothing; or that this caller has to ask for himself.
local function failure_of(question, flight, joined)
  if flight.raised ~= nil then
    local raised = flights.copy(flight.raised)
    if errors.is(raised) and raised.kind == "TaskCancelled" then return nil, raised end
    error(raised, 0)
  end
  local err = flights.copy(flight.err)
  local others = joined and errors.is(err) and err:is "TimeoutError"
    and (err.limit == "total" or not same_limits(flight.limits, question.limits))
  return nil, err, others
end

-- What a joiner is told of the answer, as who asked first is.
local SHARED <const> = { "status", "headers", "request_id", "answered_by", "degraded", "attempts" }

local function describe_shared(question, flight, value, joined)
  local result = joined and "join" or "miss"
  if joined then
    local facts = { served_model = flight.facts.served_model }
    for _, name in ipairs(SHARED) do facts[name] = flight.facts[name] end
    meta.set(value, facts)
  end
  return meta.set(value, { cache = { result = result, age = 0, key = question.key } })
end

local function wait_for_end(question, flight)
  while not flight.done do
    if not flights.wait(flight, question.deadline) then return false end
  end
  return true
end

-- An answer, whole or as a stream, when all of it is there.
local function take_whole(question, flight, joined)
  local seat <close> = question.cache._flights:sit(flight)
  if not wait_for_end(question, flight) then return is_late(question) end
  if flight.raised ~= nil or flight.err ~= nil then return failure_of(question, flight, joined) end
  if not joined then
    if flight.answer == nil then return nil end
    return describe_shared(question, flight, flight.answer, false)
  end
  local value = flight.entry and give(question.cache, question.method, flight.entry, question.request)
  if value == nil then -- it is not to be had in this form
    question.own_form = true
    return nil, nil, true
  end
  seat:leave()
  return describe_shared(question, flight, value, true)
end

local abandoned = { __close = function(guard) if guard.live then guard.live:close() end end }

-- A stream as it comes.
local function take_stream(question, flight, joined)
  local live = reader.live(flight, question.cache._flights:sit(flight), {
    deadline = question.deadline, total = question.total, with_usage = question.asks_usage,
  })
  local guard <close> = setmetatable({ live = live }, abandoned)
  local begun, late = live:begin()
  if begun == nil then return nil, late end
  if not begun then return failure_of(question, flight, joined) end
  guard.live = nil
  if not joined then meta.share(live, flight.source) end
  return describe_shared(question, flight, stream.wrap(live), joined)
end

local function take(question, flight, joined)
  local is_live = question.method == "stream" and flight.method == "stream"
  return (is_live and take_stream or take_whole)(question, flight, joined)
end

-- How often a caller looks for another one's call after one that did not do for him.
local MOST_JOINS <const> = 3

local function ask(question)
  local self = question.cache
  for round = 1, MOST_JOINS + 1 do
    local flight = question.control ~= "refresh" and self._flights:find(question.key)
    local joined = round <= MOST_JOINS and may_join(question, flight) or false
    if not joined then flight = start(question, false) end
    local count = joined and "joins" or "misses"
    self[count] = self[count] + 1
    local value, err, again = take(question, flight, joined)
    if not again then return value, err end
  end
end

-- ---- the layer ----

local function bypass(self, method, inner, request, given)
  self.bypassed = self.bypassed + 1
  local value, err = inner[method](inner, request, given)
  if type(value) == "table" then meta.set(value, { cache = { result = "bypass" } }) end
  return value, err
end

local function refuse(inner, method, key)
  return nil, errors.new("NotCached", {
    operation = method, object = inner.name, message = ("no answer is kept under %s"):format(key),
  })
end

-- Another try at another time may go well: then an old answer does for now.
local UNWELL <const> = {
  ServiceError = true, TooManyRequests = true, ConnectError = true, TLSError = true, TimeoutError = true,
  ProtocolError = true, QueueFull = true, CircuitOpen = true,
}

local function question_of(self, method, inner, request, given, key, control)
  local limits = given and options.timeout("endpoint:" .. method, given.timeout)
  local total = limits and limits.total
  return {
    cache = self, inner = inner, method = method, request = request, given = given, key = key,
    control = control, limits = limits, total = total, deadline = total and task.now() + total,
    asks_usage = render.asks_usage(request),
  }
end

local function give_stale(self, question, kept, err)
  local age = math.max(0, task.wall() - kept.created)
  local value = give(self, question.method, kept, question.request)
  if value == nil then return nil end
  self.stale = self.stale + 1
  describe(value, kept, "stale", age, question.key)
  if err then
    meta.set(value, { degraded = { { endpoint = question.inner.name, error = err } } })
  elseif question.control ~= "only-if-cached" and not self._flights:find(question.key) then
    self.refreshes = self.refreshes + 1
    start(question, true)
  end
  return value
end

-- A fresh answer; or what the rest begins with: the key, and what is kept but no longer fresh.
local function find(self, whom, method, request, given, control, max_age)
  local key = key_of(self, whom, request, given)
  if control == "refresh" then return nil, key end
  local kept, age = self._tiers:find(key)
  if not kept then return nil, key end
  if age < self._ttl and age < max_age then
    local value = give(self, method, kept, request)
    if value ~= nil then
      self.hits = self.hits + 1
      return describe(value, kept, "hit", age, key)
    end
    return nil, key
  end
  if max_age < math.huge then return nil, key end
  return nil, key, kept, age
end

-- The same as a part of a trace.
local function find_traced(self, ...)
  local span <close> = spans.leaf("cache look-up", spans.INTERNAL)
  local value, key, kept, age = find(self, ...)
  if span then
    span:set("sluice.cache.result", value ~= nil and "hit" or kept and "stale" or "miss")
    span:finish()
  end
  return value, key, kept, age
end

local function answer(self, whom, method, inner, request, given)
  options.argument("endpoint:" .. method, "request", request, "table")
  local control, max_age = control_of(given)
  if goes_by(self, inner, request, control) then return bypass(self, method, inner, request, given) end
  local look_up = spans.is_on and find_traced or find
  local value, key, kept, age = look_up(self, whom, method, request, given, control, max_age)
  if value ~= nil then return value end
  local question = question_of(self, method, inner, request, given, key, control)
  if kept and age < self._usable then
    value = give_stale(self, question, kept)
    if value ~= nil then return value end
  end
  if control == "only-if-cached" then return refuse(inner, method, key) end
  local err
  value, err = ask(question)
  if value ~= nil or not kept or not errors.is(err) then return value, err end
  local is_young = task.wall() - kept.created < self._last_resort
  if not is_young or not (err.retryable or errors.nearest(err.kind, UNWELL)) then return nil, err end
  value = give_stale(self, question, kept, err)
  if value == nil then return nil, err end
  return value
end

-- Of one that says of itself neither a host nor a name, nobody else can know the answers.
local function identity_of(given, inner)
  local host, name = inner.host, inner.name
  if type(host) ~= "string" and type(name) ~= "string" then
    name = ("nameless %.17g"):format(system.random_float())
  end
  return identity.new(given.namespace, host, name)
end

---Makes a layer that keeps answers for `ttl` seconds and gives them again, a fresh table each time, and
---that asks once where many ask the same at the same time, streams too. See docs/cache.md for what is kept and
---what is not, and for the option `cache` of a request. All endpoints that this layer is put around share its
---store; the endpoint made has a field `cache` with counts, and with `close()` for the calls under way.
---In the meta of an answer: `cache` = { result = "hit", "miss", "join", "stale" or "bypass", age = seconds,
---key = }; of a stale one given for an error, that is in `degraded`.
---@param given? sluice.CacheOptions
---@return sluice.Layer
local function cache_layer(given)
  given = options.check("layers.cache", given, CACHE)
  local self = new_cache(given)

  return function(inner)
    local whom = identity_of(given, inner)
    return layers.around {
      query = function(_, request, query_options)
        return answer(self, whom, "query", inner, request, query_options)
      end,
      stream = function(_, request, query_options)
        return answer(self, whom, "stream", inner, request, query_options)
      end,
      fields = { cache = self },
    } (inner)
  end
end

return cache_layer
