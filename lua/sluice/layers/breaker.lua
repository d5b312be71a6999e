-- SPDX-License-Identifier: MIT
-- The layer that stops calling a server that fails, and tries it again with a few probes: a circuit breaker.

local backoff = require "sluice.core.backoff"
local errors = require "sluice.errors"
local layers = require "sluice.layers"
local options = require "sluice.options"
local streams = require "sluice.stream"
local system = require "sluice.core.system"
local task = require "sluice.task"
local verdict = require "sluice.health.verdict"
local window = require "sluice.retry.window"

---The state of a breaker layer: `endpoint.breaker`.
---@class sluice.Breaker
---@field state "closed"|"open"|"half_open"
---@field passed integer what came back and did not fail
---@field failed integer what failed
---@field refused integer turned away: nothing was sent
---@field opened integer how often it opened
---@field opens_at number? while open: when the first probe may go, seconds on the running clock
local methods = {}
local metatable = { __name = "sluice.breaker", __index = methods }

---@class sluice.BreakerOptions
---@field share? number opens when this share of the window failed, 0.5
---@field minimum? integer and at least so many came back in it, 10
---@field window? number seconds, 30
---@field cooldown? number seconds it stays open, 10; twice as long each time the probes fail, a random fifth is added
---@field max_cooldown? number seconds, 60; a longer Retry-After of the failure is cut to it
---@field probes? integer how many may be under way half open, and must succeed to close it, 1
---@field is_failure? fun(err: sluice.Error): boolean what counts instead of the rule in docs/retry.md
---@field on_change? fun(state: string, breaker: sluice.Breaker) called at each change
---@field random? fun(): number in [0, 1)
local BREAKER = {
  share = function(value)
    return type(value) == "number" and value > 0 and value <= 1, "a number above 0, at most 1"
  end,
  minimum = "count?",
  window = "positive?",
  cooldown = "positive?",
  max_cooldown = "positive?",
  probes = "count?",
  is_failure = "callable?",
  on_change = "callable?",
  random = "callable?",
}

local COUNTS <const> = { "state", "passed", "failed", "refused", "opened", "opens_at" }

function metatable.__tojson(breaker)
  local counts = {}
  for _, name in ipairs(COUNTS) do counts[name] = breaker[name] end
  return counts
end

local function new_breaker(given)
  return setmetatable({
    state = "closed", passed = 0, failed = 0, refused = 0, opened = 0, opens_at = nil,
    _share = given.share or 0.5,
    _minimum = given.minimum or 10,
    _window = window.new(given.window or 30),
    _cooldown = given.cooldown or 10,
    _max_cooldown = given.max_cooldown or 60,
    _probes = given.probes or 1,
    _is_failure = given.is_failure or verdict.is_failure,
    _on_change = given.on_change,
    _random = given.random or system.random_float,
    _in_row = 0, -- openings since it was last closed
    _turn = 0, -- counts the changes: what was sent before the last one decides nothing
    _under_way = 0, -- probes
    _proven = 0, -- probes that succeeded
  }, metatable)
end

local function change(breaker, state)
  breaker.state, breaker._turn = state, breaker._turn + 1
  breaker._under_way, breaker._proven = 0, 0
  if state ~= "open" then breaker.opens_at = nil end
  if breaker._on_change then breaker._on_change(state, breaker) end
end

-- A fifth at random keeps many clients from probing as one.
local JITTER <const> = 0.2

local function hint_of(breaker, err)
  local hint = errors.is(err) and err.retry_after
  return type(hint) == "number" and hint > 0 and math.min(hint, breaker._max_cooldown) or 0
end

local function open(breaker, err)
  breaker._in_row = breaker._in_row + 1
  breaker.opened = breaker.opened + 1
  local cooldown = backoff.delay(breaker._in_row, breaker._cooldown, breaker._max_cooldown, 1)
  local seconds = math.max(cooldown, hint_of(breaker, err)) * (1 + JITTER * breaker._random())
  breaker.opens_at = task.now() + seconds
  breaker._window:clear()
  change(breaker, "open")
end

local function close(breaker)
  breaker._in_row = 0
  change(breaker, "closed")
end

-- While probes are under way nobody knows when it closes: soon.
local PROBE_TIME <const> = 1

local function refuse(breaker, inner, seconds)
  breaker.refused = breaker.refused + 1
  local what = breaker.state == "open" and "it failed too often, and is left alone for %.3g s more"
    or "it failed too often, and is being probed"
  return nil, errors.new("CircuitOpen", {
    operation = "query", object = inner.name, message = what:format(seconds), retry_after = seconds,
  })
end

-- How long nobody may go, for certain; nil where one may.
local function closed_for(breaker)
  if breaker.state == "closed" then return nil end
  if breaker.state == "open" then
    local left = breaker.opens_at - task.now()
    return left > 0 and left or nil
  end
  if breaker._under_way + breaker._proven < breaker._probes then return nil end
  return math.min(PROBE_TIME, breaker._cooldown)
end

-- The turn in which a request goes; nil and err when it may not.
local function enter(breaker, inner)
  if breaker.state == "closed" then return breaker._turn end
  local seconds = closed_for(breaker)
  if seconds then return refuse(breaker, inner, seconds) end
  if breaker.state == "open" then change(breaker, "half_open") end
  breaker._under_way = breaker._under_way + 1
  return breaker._turn
end

local function leave_probe(breaker, turn)
  if breaker.state == "half_open" and breaker._turn == turn then
    breaker._under_way = breaker._under_way - 1
  end
end

local function succeed(breaker, turn)
  breaker.passed = breaker.passed + 1
  if turn ~= breaker._turn then return end
  if breaker.state == "half_open" then
    breaker._proven = breaker._proven + 1
    if breaker._proven >= breaker._probes then close(breaker) end
  else
    breaker._window:add(task.now(), false)
  end
end

local function fail(breaker, turn, err)
  breaker.failed = breaker.failed + 1
  if turn ~= breaker._turn then return end
  if breaker.state == "half_open" then return open(breaker, err) end
  local now = task.now()
  breaker._window:add(now, true)
  local passed, failed = breaker._window:counts(now)
  local all = passed + failed
  if all >= breaker._minimum and failed >= all * breaker._share then open(breaker, err) end
end

local function count(breaker, turn, err)
  if err == nil then
    succeed(breaker, turn)
  elseif breaker._is_failure(err) then
    fail(breaker, turn, err)
  elseif verdict.is_answer(err) then
    succeed(breaker, turn)
  end
end

---Counts an outcome while it is closed: for what a layer cannot see, such as a check of the answer's contents.
---@param err? sluice.Error nil: it went well
function methods:record(err)
  options.method("breaker:record", self, "_window")
  if self.state == "closed" then count(self, self._turn, err) end
end

local function settle(breaker, turn, value, err)
  leave_probe(breaker, turn)
  if value ~= nil then err = nil end
  count(breaker, turn, err)
end

-- How a stream ends is an outcome too: counted at its end, and not at all when its reader leaves.
local function watch(breaker, turn, opened)
  return streams.watch(opened, function(_, how, err)
    if how == "done" or how == "failed" then count(breaker, turn, err) end
  end)
end

-- A probe whose caller leaves makes room for another one.
local function probe(breaker, turn, method, inner, request, query_options)
  local settled = false
  local _ <close> = setmetatable({}, { __close = function()
    if not settled then leave_probe(breaker, turn) end
  end })
  local value, err = inner[method](inner, request, query_options)
  settled = true
  settle(breaker, turn, value, err)
  return value, err
end

-- A stream that has begun has shown that the server works: enough for a probe.
local function stream_of(breaker, inner, request, query_options)
  local turn, refused = enter(breaker, inner)
  if not turn then return nil, refused end
  local value, err
  if breaker.state ~= "closed" then
    value, err = probe(breaker, turn, "stream", inner, request, query_options)
    turn = breaker._turn
  else
    value, err = inner:stream(request, query_options)
    if value == nil then settle(breaker, turn, nil, err) end
  end
  if value == nil then return nil, err end
  return watch(breaker, turn, value)
end

---Makes a layer that stops calling an endpoint of which `share` failed within `window`: it gets
---CircuitOpen at once, with `retry_after`, until `cooldown` is over and `probes` requests have gone
---through. What counts as a failure: 429, 5xx, no connection, a time limit, a broken answer. All
---endpoints that this layer is put around share its state, the field `breaker` of each.
---@param given? sluice.BreakerOptions
---@return sluice.Layer
local function breaker_layer(given)
  local breaker = new_breaker(options.check("layers.breaker", given, BREAKER))

  local function query(inner, request, query_options)
    local turn, refused = enter(breaker, inner)
    if not turn then return nil, refused end
    if breaker.state ~= "closed" then
      return probe(breaker, turn, "query", inner, request, query_options)
    end
    local value, err = inner:query(request, query_options)
    settle(breaker, turn, value, err)
    return value, err
  end

  local function stream(inner, request, query_options)
    return stream_of(breaker, inner, request, query_options)
  end

  return function(inner)
    local function available_in() return math.max(closed_for(breaker) or 0, layers.available_in(inner)) end
    local fields = { breaker = breaker, available_in = available_in }
    return layers.around { query = query, stream = stream, fields = fields } (inner)
  end
end

return breaker_layer
