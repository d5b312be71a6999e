-- SPDX-License-Identifier: MIT
-- The state of a rate limit in this process: what was taken, the pause after a 429, what the server says is left.

local meter = require "sluice.limit.meter"
local system = require "sluice.core.system"
local task = require "sluice.task"

local memory = {}

---What a limit is made of.
---@class sluice.limit.Plan
---@field rate? number requests a second
---@field burst? integer how many requests may go at once after a rest
---@field requests? integer in any period
---@field tokens? number in any period
---@field period number seconds
---@field max_pause number seconds
---@field random fun(): number in [0, 1)

---The state of a limit. Any other store (one that several processes share) has these four methods; they
---may wait, and count time by a clock of their own.
---@class sluice.limit.State
local methods = {}
local metatable = { __name = "sluice.limit.memory", __index = methods }

---One request let through.
---@class sluice.limit.Ticket
---@field tokens number what it was let through for

---What a server says is left of one of its limits.
---@class sluice.limit.Fact
---@field name string which limit
---@field quantity "requests"|"tokens"
---@field left number
---@field reset number seconds until it is whole again
---@field limit? number all of it

local function request_meter(plan)
  if plan.rate then return meter.new { rate = plan.rate, burst = plan.burst } end
end

local function period_meter(plan, quantity, burst)
  local most = plan[quantity]
  if not most then return nil end
  return meter.new { rate = most / plan.period, burst = burst or most, most = most, period = plan.period }
end

---Makes the state. Never waits.
---@param plan sluice.limit.Plan
---@return sluice.limit.State
function memory.open(plan)
  return setmetatable({
    _rate = request_meter(plan),
    _requests = period_meter(plan, "requests", not plan.rate and plan.burst or nil),
    _tokens = period_meter(plan, "tokens"),
    _max_pause = plan.max_pause,
    _random = plan.random or system.random_float,
    _paused_until = -math.huge,
    _pause = 0, -- counts pauses; a ticket knows the one before it
    _row = 0, -- of 429s, each to a request that was sent after the pause before
    _under_way = { requests = 0, tokens = 0 },
    _gates = nil, -- by the names of the server's limits, once it told of one
  }, metatable)
end

-- What a gate lets through is what the server said was left, less what is under way to it.
local function refresh(gate, now)
  if now < gate.reset_at then return end
  gate.left = gate.after
  gate.reset_at = now + gate.period
end

local function missing_at(gate, cost, now)
  refresh(gate, now)
  local need = gate.limit and math.min(cost, gate.limit) or cost
  if gate.quantity == "requests" or gate.limit then
    return gate.left >= need and 0 or gate.reset_at - now
  end
  return gate.left > 0 and 0 or gate.reset_at - now
end

local function missing_at_gates(self, tokens, now)
  local wait = 0
  for _, gate in next, self._gates do
    wait = math.max(wait, missing_at(gate, gate.quantity == "tokens" and tokens or 1, now))
  end
  return wait
end

local function missing(self, tokens, now)
  local wait = self._paused_until - now
  if wait < 0 then wait = 0 end
  if self._rate then wait = math.max(wait, self._rate:missing(1, now)) end
  if self._requests then wait = math.max(wait, self._requests:missing(1, now)) end
  if self._tokens then wait = math.max(wait, self._tokens:missing(tokens, now)) end
  if self._gates then wait = math.max(wait, missing_at_gates(self, tokens, now)) end
  return wait
end

local function take_at_gates(self, tokens)
  for _, gate in next, self._gates do
    gate.left = gate.left - (gate.quantity == "tokens" and tokens or 1)
  end
end

---Lets one request through, or says how long to wait before asking again.
---@param tokens number the estimate
---@return number wait seconds; 0: it may go
---@return sluice.limit.Ticket? ticket to settle when it has ended
function methods:take(tokens)
  local now = task.now()
  local wait = missing(self, tokens, now)
  if wait > 0 then return wait end
  if self._rate then self._rate:take(1, now) end
  if self._requests then self._requests:take(1, now) end
  if self._gates then take_at_gates(self, tokens) end
  local under_way = self._under_way
  under_way.requests, under_way.tokens = under_way.requests + 1, under_way.tokens + tokens
  local entry = self._tokens and self._tokens:take(tokens, now)
  return 0, { tokens = tokens, pause = self._pause, entry = entry, settled = false }
end

---Ends a request that was let through. Idempotent.
---@param ticket sluice.limit.Ticket
---@param tokens? number what it took in truth; the estimate
---@param answered? boolean the server took it: a row of 429s is over
function methods:settle(ticket, tokens, answered)
  if ticket.settled then return end
  ticket.settled = true
  local under_way = self._under_way
  under_way.requests, under_way.tokens = under_way.requests - 1, under_way.tokens - ticket.tokens
  if tokens and ticket.entry then self._tokens:settle(ticket.entry, tokens) end
  if answered and ticket.pause == self._pause then self._row = 0 end
end

-- Seconds of the first pause where the server gives none, how it grows, and how much of it is by chance, so
-- that processes that were refused together do not come back together.
local BASE, GROWTH, JITTER = 1, 2, 0.1

local function backoff(self)
  local seconds = math.min(self._max_pause, BASE * GROWTH ^ math.min(math.max(self._row - 1, 0), 60))
  return seconds * (1 + JITTER * self._random())
end

---Lets nobody through for a while, because the server refused a request with a 429. Of two pauses the one
---that ends later holds. A request that was under way before the pause does not make it longer by itself.
---@param ticket sluice.limit.Ticket the request refused
---@param seconds? number what the server said; else a second, then more while 429s go on
---@return boolean is_new whether this made a pause, or a longer one
function methods:pause(ticket, seconds)
  local now = task.now()
  local is_first = ticket.pause == self._pause
  if is_first then self._row = self._row + 1 end
  if not seconds and not is_first and now < self._paused_until then return false end
  local till = now + (seconds and math.min(seconds, self._max_pause) or backoff(self))
  if till <= self._paused_until then return false end
  self._paused_until = till
  self._pause = self._pause + 1
  for _, each in ipairs { "_rate", "_requests", "_tokens" } do
    if self[each] then self[each]:hold(till) end
  end
  return true
end

---How much longer a 429 holds everybody back. Never waits.
---@return number seconds
function methods:paused_for()
  return math.max(0, self._paused_until - task.now())
end

---Heeds what the server says is left.
---@param facts sluice.limit.Fact[]
function methods:told(facts)
  local now = task.now()
  self._gates = self._gates or {}
  for _, fact in ipairs(facts) do
    local gate = self._gates[fact.name] or { period = 0, quantity = fact.quantity }
    self._gates[fact.name] = gate
    local reset = math.min(fact.reset, self._max_pause)
    gate.limit = fact.limit
    gate.period = math.max(gate.period, reset)
    gate.reset_at = now + reset
    gate.left = fact.left - self._under_way[fact.quantity]
    -- where it is not whole again by then, or nobody knows how much that is, one may try
    gate.after = reset == fact.reset and fact.limit or 1
  end
end

return memory
