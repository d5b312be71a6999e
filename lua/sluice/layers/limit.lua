-- SPDX-License-Identifier: MIT
-- The layer that holds requests back to a rate: a token bucket with a fair queue before it.

local errors = require "sluice.errors"
local layers = require "sluice.layers"
local options = require "sluice.options"
local task = require "sluice.task"

---The bucket of a limit layer: `endpoint.limiter`.
---@class sluice.Limiter
---@field rate number requests a second
---@field passed integer requests let through
---@field waited integer of these, how many had to wait
---@field waited_seconds number for how long, together
---@field waiting integer how many wait now
---@field refused integer turned away: the queue was full, or their time in it was over
---@field pauses integer how often a 429 shut the gate

---@class sluice.LimitOptions
---@field rate number requests a second
---@field burst? integer how many may go at once after a rest; the rate, rounded up
---@field max_queue? integer how many may wait, any number; one more gets QueueFull
---@field queue_timeout? number seconds a request may wait, any; then TimeoutError
---@field max_pause? number seconds for which a Retry-After can shut the gate, 60
local LIMIT = {
  rate = "positive",
  burst = "count?",
  max_queue = "integer?",
  queue_timeout = "seconds?",
  max_pause = "seconds?",
}

local limiter_metatable = { __name = "sluice.limiter" }

-- Its counts: what is private may be no number that JSON has.
function limiter_metatable.__tojson(limiter)
  local counts = {}
  for name, value in next, limiter do
    if name:sub(1, 1) ~= "_" then counts[name] = value end
  end
  return counts
end

local function new_limiter(given)
  local burst = given.burst or math.max(1, math.ceil(given.rate))
  return setmetatable({
    rate = given.rate,
    passed = 0, waited = 0, waited_seconds = 0, waiting = 0, refused = 0, pauses = 0,
    _burst = burst,
    _tokens = burst,
    _filled = nil, -- when the tokens were counted; the clock is the first caller's
    _paused_until = -math.huge,
    _max_queue = given.max_queue or math.huge,
    _queue_timeout = given.queue_timeout,
    _max_pause = given.max_pause or 60,
    _gate = nil, -- made by the first who waits
  }, limiter_metatable)
end

-- Seconds until a token is there; takes it and gives 0 when one is.
local function take(limiter)
  local now = task.now()
  if now < limiter._paused_until then return limiter._paused_until - now end
  local since = limiter._filled or now
  if now > since then
    local most = limiter._burst
    -- a pause leaves one request, not a burst that would go at its first moment
    if since < limiter._paused_until then most = 1 + (now - limiter._paused_until) * limiter.rate end
    limiter._tokens = math.min(limiter._burst, most, limiter._tokens + (now - since) * limiter.rate)
  end
  limiter._filled = now
  if limiter._tokens >= 1 then
    limiter._tokens = limiter._tokens - 1
    return 0
  end
  return (1 - limiter._tokens) / limiter.rate
end

-- Sleeping for exactly what is missing may wake a rounding error too early.
local SLACK = 1e-6

-- The one at the head holds the gate, the others queue for it, first come first served.
local function wait_turn(limiter)
  limiter._gate = limiter._gate or task.semaphore(1)
  local _ <close> = limiter._gate:acquire()
  while true do
    local missing = take(limiter)
    if missing == 0 then return true end
    task.sleep(missing + SLACK)
  end
end

local function refusal(limiter, kind, message, inner)
  limiter.refused = limiter.refused + 1
  local waits = (limiter.waiting + 1) / limiter.rate
  return nil, errors.new(kind, {
    operation = "query", object = inner.name, message = message, limit = "queue",
    retry_after = kind == "QueueFull" and waits or nil,
  })
end

local function leave_queue(limiter, started)
  limiter.waiting = limiter.waiting - 1
  limiter.waited_seconds = limiter.waited_seconds + task.now() - started
end

local function wait_in_queue(limiter, inner)
  if limiter.waiting >= limiter._max_queue then
    local text = ("%d requests wait for the limit of %g a second"):format(limiter.waiting, limiter.rate)
    return refusal(limiter, "QueueFull", text, inner)
  end
  local started = task.now()
  limiter.waiting, limiter.waited = limiter.waiting + 1, limiter.waited + 1
  local _ <close> = setmetatable({}, { __close = function() leave_queue(limiter, started) end })
  if not limiter._queue_timeout then return wait_turn(limiter) end
  local passed, err = task.timeout(limiter._queue_timeout, wait_turn, limiter)
  if passed then return true end
  if err.limit ~= "task.timeout" then return nil, err end
  local text = ("waited %g s for the limit of %g requests a second"):format(
    limiter._queue_timeout, limiter.rate)
  return refusal(limiter, "TimeoutError", text, inner)
end

local function enter(limiter, inner)
  if limiter.waiting > 0 or take(limiter) > 0 then
    local passed, err = wait_in_queue(limiter, inner)
    if not passed then return nil, err end
  end
  limiter.passed = limiter.passed + 1
  return true
end

-- The server counts on its own: when it says 429 with a time, nobody goes before that.
local function heed(limiter, err)
  local pause = errors.is(err) and err.status == 429 and err.retry_after
  if not pause or pause <= 0 then return end
  local till = task.now() + math.min(pause, limiter._max_pause)
  if till > limiter._paused_until then
    limiter._paused_until = till
    limiter.pauses = limiter.pauses + 1
  end
end

---Makes a layer that lets `rate` requests a second through, `burst` of them at once; the others wait
---in order of arrival. All endpoints that this layer is put around share the rate. A 429 with a
---Retry-After shuts the gate until then. The endpoint made has a field `limiter` with counts.
---@param given sluice.LimitOptions
---@return sluice.Layer
local function limit_layer(given)
  local limiter = new_limiter(options.check("layers.limit", given, LIMIT))

  local function through(method)
    return function(inner, request, query_options)
      local passed, refused = enter(limiter, inner)
      if not passed then return nil, refused end
      local value, err = inner[method](inner, request, query_options)
      if value == nil then heed(limiter, err) end
      return value, err
    end
  end

  return layers.around { query = through "query", stream = through "stream", fields = { limiter = limiter } }
end

return limit_layer
