-- SPDX-License-Identifier: MIT
-- The layer that holds requests back: to a rate of ours, and to what the server says of its own.

local errors = require "sluice.errors"
local headers = require "sluice.limit.headers"
local layers = require "sluice.layers"
local memory = require "sluice.limit.memory"
local meta = require "sluice.meta"
local options = require "sluice.options"
local queue = require "sluice.limit.queue"
local streams = require "sluice.stream"
local task = require "sluice.task"
local usage = require "sluice.limit.usage"

---The counts of a limit layer: `endpoint.limiter`.
---@class sluice.Limiter
---@field rate number? requests a second, where there is such a limit
---@field passed integer requests let through
---@field waited integer of these, how many had to wait
---@field waited_seconds number for how long, together
---@field waiting integer how many wait now
---@field refused integer turned away: the queue was full, or their time in it was over
---@field pauses integer how often a 429 shut the gate
---@field tokens number? tokens so far, as the answers say; with a limit of tokens

---@class sluice.LimitOptions
---@field rate? number requests a second
---@field requests? integer in any `period`
---@field tokens? integer in any `period`, of requests and answers together
---@field period? number seconds, 60
---@field burst? integer how many requests may go at once after a rest; with `rate` the rate, rounded up, else all
---@field max_queue? integer how many may wait, any number; one more gets QueueFull
---@field queue_timeout? number seconds a request may wait, any; then TimeoutError
---@field max_pause? number seconds that a 429 or the server's headers can hold requests back, 60
---@field headers? boolean heed what the server says is left (true)
---@field estimate? fun(request: table): number the tokens that a request will take; a quarter of its bytes and what it lets the model write
---@field store? fun(plan: sluice.limit.Plan): sluice.limit.State where the state is; in this process
---@field random? fun(): number in [0, 1), for pauses
local LIMIT = {
  rate = "positive?",
  requests = "count?",
  tokens = "count?",
  period = "positive?",
  burst = "count?",
  max_queue = "integer?",
  queue_timeout = "seconds?",
  max_pause = "seconds?",
  headers = "boolean?",
  estimate = "callable?",
  store = "callable?",
  random = "callable?",
}

local DEFAULT_PERIOD, DEFAULT_MAX_PAUSE = 60, 60

local limiter_metatable = { __name = "sluice.limiter" }

-- Its counts: what is private may be no number that JSON has.
function limiter_metatable.__tojson(limiter)
  local counts = {}
  for name, value in next, limiter do
    if name:sub(1, 1) ~= "_" then counts[name] = value end
  end
  return counts
end

local function plan_of(given)
  return {
    rate = given.rate,
    burst = given.burst or given.rate and math.max(1, math.ceil(given.rate)) or nil,
    requests = given.requests,
    tokens = given.tokens,
    period = given.period or DEFAULT_PERIOD,
    max_pause = given.max_pause or DEFAULT_MAX_PAUSE,
    random = given.random,
  }
end

-- "50 requests a second and 100000 tokens in 60 s", for messages.
local function describe(plan)
  local parts = {}
  if plan.rate then parts[#parts + 1] = ("%g requests a second"):format(plan.rate) end
  for _, name in ipairs { "requests", "tokens" } do
    if plan[name] then parts[#parts + 1] = ("%d %s in %g s"):format(plan[name], name, plan.period) end
  end
  return #parts > 0 and table.concat(parts, " and ") or "the server's"
end

local function new_limiter(given)
  if given.period and not given.requests and not given.tokens then
    options.misuse 'layers.limit: "period" goes with "requests" or "tokens"'
  end
  local plan = plan_of(given)
  return setmetatable({
    rate = plan.rate or plan.requests and plan.requests / plan.period,
    passed = 0, waited = 0, waited_seconds = 0, waiting = 0, refused = 0, pauses = 0,
    tokens = plan.tokens and 0,
    _text = describe(plan),
    _max_queue = given.max_queue or math.huge,
    _queue_timeout = given.queue_timeout,
    _heeds_headers = given.headers ~= false,
    _counts_tokens = plan.tokens ~= nil, -- also once the server tells of tokens
    _estimate = given.estimate,
    _output = 0, -- what an answer takes where the request does not say
    _state = (given.store or memory.open)(plan),
  }, limiter_metatable)
end

local function estimate_of(limiter, request)
  if limiter._estimate then return limiter._estimate(request) end
  return usage.input(request) + (usage.most_output(request) or limiter._output)
end

-- How much the newest answer counts in the mean of the answers.
local NEWEST = 0.2

local function learn(limiter, output)
  if not output then return end
  local mean = limiter._output
  limiter._output = mean == 0 and output or mean + NEWEST * (output - mean)
end

local function refuse_more(limiter, inner)
  limiter.refused = limiter.refused + 1
  return nil, errors.new("QueueFull", {
    operation = "query", object = inner.name, limit = "queue",
    message = ("%d requests wait for the limit of %s"):format(limiter.waiting, limiter._text),
    retry_after = limiter.rate and (limiter.waiting + 1) / limiter.rate,
  })
end

local function refuse_late(limiter, inner, seconds)
  limiter.refused = limiter.refused + 1
  return nil, errors.new("TimeoutError", {
    operation = "query", object = inner.name, limit = "queue",
    message = ("waited %g s for the limit of %s"):format(seconds, limiter._text),
  })
end

local function queue_limit(limiter, given)
  local timeout = given and given.timeout
  local asked = type(timeout) == "table" and timeout.queue or nil
  if asked and limiter._queue_timeout then return math.min(asked, limiter._queue_timeout) end
  return asked or limiter._queue_timeout
end

local function leave_queue(limiter, started)
  limiter.waiting = limiter.waiting - 1
  limiter.waited_seconds = limiter.waited_seconds + task.now() - started
end

local function wait_in_queue(limiter, inner, tokens, given)
  if limiter.waiting >= limiter._max_queue then return refuse_more(limiter, inner) end
  local started = task.now()
  limiter.waiting, limiter.waited = limiter.waiting + 1, limiter.waited + 1
  local _ <close> = setmetatable({}, { __close = function() leave_queue(limiter, started) end })
  limiter._queue = limiter._queue or queue.new(limiter._state) -- made by the first who waits
  local seconds = queue_limit(limiter, given)
  if not seconds then return limiter._queue:wait(tokens) end
  local ticket, err = task.timeout(seconds, limiter._queue.wait, limiter._queue, tokens)
  if ticket or err.limit ~= "task.timeout" then return ticket, err end
  return refuse_late(limiter, inner, seconds)
end

-- A ticket of the state once the request may go; nil and an err.
local function enter(limiter, inner, request, given)
  local tokens = limiter._counts_tokens and estimate_of(limiter, request) or 0
  local wait, ticket = 1, nil
  if limiter.waiting == 0 then wait, ticket = limiter._state:take(tokens) end
  if wait > 0 then
    local err
    ticket, err = wait_in_queue(limiter, inner, tokens, given)
    if not ticket then return nil, err end
  end
  limiter.passed = limiter.passed + 1
  return ticket
end

local function settle(limiter, ticket, tokens, answered)
  limiter._state:settle(ticket, tokens, answered)
  if limiter.tokens and tokens then limiter.tokens = limiter.tokens + tokens end
  if limiter._queue then limiter._queue:changed() end
end

local function heed_headers(limiter, fields)
  if not fields or not limiter._heeds_headers then return end
  local facts = headers.read(fields, task.wall)
  if not facts then return end
  for _, fact in ipairs(facts) do
    if fact.quantity == "tokens" then limiter._counts_tokens = true end
  end
  limiter._state:told(facts)
  if limiter._queue then limiter._queue:changed() end
end

-- The server counts on its own: when it says 429, nobody goes before the time that it says.
local function heed_refusal(limiter, ticket, err)
  if not errors.is(err) or err.status ~= 429 and not err:is "TooManyRequests" then return end
  local hint = err.retry_after
  if hint and hint <= 0 then hint = nil end
  if limiter._state:pause(ticket, hint) then limiter.pauses = limiter.pauses + 1 end
end

local function failed(limiter, ticket, err)
  if not errors.is(err) then return settle(limiter, ticket) end
  settle(limiter, ticket, not err.maybe_executed and 0 or nil)
  if err.response then heed_headers(limiter, err.response.headers) end
  heed_refusal(limiter, ticket, err)
end

-- Given back however the request ends: cancelled ones too.
local guard_metatable = {
  __close = function(guard)
    if not guard.ended then settle(guard.limiter, guard.ticket) end
  end,
}

local function query(limiter, inner, request, given)
  local ticket, refused = enter(limiter, inner, request, given)
  if not ticket then return nil, refused end
  local guard <close> = setmetatable({ limiter = limiter, ticket = ticket, ended = false }, guard_metatable)
  local answer, err = inner:query(request, given)
  guard.ended = true
  if answer == nil then
    failed(limiter, ticket, err)
    return nil, err
  end
  local total, output
  if limiter._counts_tokens then
    total, output = usage.of(answer)
    if not usage.most_output(request) then learn(limiter, output) end
  end
  settle(limiter, ticket, total, true)
  heed_headers(limiter, meta.get(answer).headers)
  return answer, err
end

-- The tokens of a stream are known at its end: the last usage that a chunk told, else from its text.
local function tokens_of(opened, input)
  local total, output = usage.of { usage = opened:usage() }
  return total or input + usage.of_bytes(#opened:so_far()), output
end

local function stream(limiter, inner, request, given)
  local ticket, refused = enter(limiter, inner, request, given)
  if not ticket then return nil, refused end
  local guard <close> = setmetatable({ limiter = limiter, ticket = ticket, ended = false }, guard_metatable)
  local value, err = inner:stream(request, given)
  guard.ended = true
  if value == nil then
    failed(limiter, ticket, err)
    return nil, err
  end
  heed_headers(limiter, meta.get(value).headers)
  local input, asks_output = limiter._counts_tokens and usage.input(request), not usage.most_output(request)
  return streams.watch(value, function(opened, _, failure)
    local total, output
    if input then total, output = tokens_of(opened, input) end
    if asks_output then learn(limiter, output) end
    settle(limiter, ticket, total, failure == nil)
    heed_refusal(limiter, ticket, failure)
  end)
end

---Makes a layer that holds requests back to `rate`, to `requests` and `tokens` in any `period`, and to
---what the server says is left; they wait in order of arrival. All endpoints that this layer is put
---around share its limits. A 429 holds all of them back until the time it says, or for a second and
---longer while 429s go on. The tokens of a request are estimated first and corrected by its answer.
---The endpoint made has a field `limiter` with counts.
---@param given? sluice.LimitOptions
---@return sluice.Layer
local function limit_layer(given)
  local limiter = new_limiter(options.check("layers.limit", given, LIMIT))
  local state = limiter._state

  return function(inner)
    local function available_in()
      return math.max(state.paused_for and state:paused_for() or 0, layers.available_in(inner))
    end
    return layers.around {
      query = function(_, request, asked) return query(limiter, inner, request, asked) end,
      stream = function(_, request, asked) return stream(limiter, inner, request, asked) end,
      fields = { limiter = limiter, available_in = available_in },
    } (inner)
  end
end

return limit_layer
