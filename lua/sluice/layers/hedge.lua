-- SPDX-License-Identifier: MIT
-- The layer that sends a second try when the first one is slow, and takes whichever answers first.

local errors = require "sluice.errors"
local layers = require "sluice.layers"
local meta = require "sluice.meta"
local options = require "sluice.options"
local retry = require "sluice.retry"
local task = require "sluice.task"

---The counts of a hedge layer: `endpoint.hedges`.
---@class sluice.Hedges
---@field sent integer second tries
---@field won integer of these, how many answered first
---@field refused integer not sent: the allowance of retries was used up

---@class sluice.HedgeOptions
---@field delay? number seconds after which the second try goes; with `percentile`, until enough is known
---@field percentile? number after as long as this share of the requests takes, 0.95 for instance
---@field endpoint? sluice.Endpoint whom the second try asks; the same one
---@field budget? sluice.RetryBudget|false what it is taken from; the allowance of retries that the endpoint's host has; false: none
local HEDGE = {
  delay = "seconds?",
  percentile = function(value)
    return type(value) == "number" and value > 0 and value < 1, "a number between 0 and 1"
  end,
  endpoint = "table|userdata?",
  budget = function(value)
    local its = getmetatable(value)
    return value == false or type(its) == "table" and its.__name == "sluice.retry.budget",
      "made by retry.budget, or false"
  end,
}

-- ---- how long a request usually takes ----

-- Requests that are remembered, and how many tell enough; the percentile is worked out again after some.
local REMEMBERED <const>, ENOUGH <const>, STALE <const> = 200, 20, 10

local function remember(known, seconds)
  known.count = known.count + 1
  known[(known.count - 1) % REMEMBERED + 1] = seconds
  known.fresh = known.fresh + 1
end

local function percentile_of(known, share)
  if known.count < ENOUGH then return nil end
  if not known.value or known.fresh >= STALE then
    local sorted = table.move(known, 1, #known, 1, {})
    table.sort(sorted)
    known.value, known.fresh = sorted[math.max(1, math.ceil(#sorted * share))], 0
  end
  return known.value
end

-- ---- two tries ----

---@class (private) sluice.Race
---@field method string
---@field results sluice.Channel
---@field tries sluice.Task[]
---@field started number[] by try
---@field decided boolean

-- Nobody wants it any more.
local function drop(race, value)
  if race.method == "stream" and value ~= nil then value:close() end
end

local function run(race, number, endpoint, request, given)
  local ok, value, err = pcall(endpoint[race.method], endpoint, request, given)
  if race.decided then
    if ok then drop(race, value) end
    return
  end
  race.results:send {
    number = number, ok = ok, value = value, err = err, seconds = task.now() - race.started[number],
  }
end

local function start(race, scope, endpoint, request, given)
  local number = #race.tries + 1
  race.started[number] = task.now()
  race.tries[number] = scope:spawn(run, race, number, endpoint, request, given)
end

-- The result of the first try, if it comes in time.
local function first_result(race, delay)
  if not delay then return race.results:receive() end
  local result, err = task.timeout(delay, race.results.receive, race.results)
  if result == nil and errors.is(err) and err.limit ~= "task.timeout" then error(err, 0) end
  return result
end

-- The first of the two that succeeds; when both fail, the first try's failure.
local function better_result(race)
  local result = race.results:receive()
  if result.ok and result.value ~= nil then return result end
  local other = race.results:receive()
  if other.ok and other.value ~= nil then return other end
  return result.number == 1 and result or other
end

local function stop_losers(race, winner)
  race.decided = true
  for number, try in ipairs(race.tries) do
    if number ~= winner then try:cancel "another try answered first" end
  end
end

local function may_hedge(hedge)
  local counts = hedge.counts
  if hedge.budget and not hedge.budget:take() then
    counts.refused = counts.refused + 1
    return false
  end
  counts.sent = counts.sent + 1
  return true
end

-- Both are sure to end here: the loser is cancelled, and its connection closed with it.
local function race_them(scope, hedge, race, inner, request, given)
  local delay = hedge.percentile and percentile_of(hedge.known, hedge.percentile) or hedge.delay
  start(race, scope, inner, request, given)
  local result = first_result(race, delay)
  if result then return result end
  if not may_hedge(hedge) then return race.results:receive() end
  local other = hedge.endpoint
  start(race, scope, other and other[race.method] and other or inner, request, given)
  result = better_result(race)
  stop_losers(race, result.number)
  return result, delay
end

-- Lets go of what came beside the winner, or while the caller was cancelled.
local race_metatable = {
  __close = function(race)
    race.decided = true
    race.results:close()
    for result in race.results:values() do
      if result.ok then drop(race, result.value) end
    end
  end,
}

local function new_race(method)
  local race = { method = method, results = task.channel(2), tries = {}, started = {}, decided = false }
  return setmetatable(race, race_metatable)
end

local function ask(hedge, method, inner, request, given)
  local budget = hedge.budget
  -- a retry layer inside counts the request for the same allowance
  if budget and inner.retry_budget ~= budget then budget:add() end
  local race <close> = new_race(method)
  local result, delay = task.scope(race_them, hedge, race, inner, request, given)
  if not result.ok then error(result.value, 0) end
  -- of a first try that was beaten it is known that it would have taken longer
  if result.value ~= nil then remember(hedge.known, task.now() - race.started[1]) end
  if not delay or result.value == nil then return result.value, result.err end
  if result.number == 2 then hedge.counts.won = hedge.counts.won + 1 end
  if type(result.value) == "table" then
    meta.set(result.value, { hedged = { won = result.number, delay = delay } })
  end
  return result.value, result.err
end

local function budget_of(inner, given)
  if given ~= nil then return given end
  return type(inner.host) == "string" and retry.budget_of(inner.host) or retry.budget()
end

local function check(given)
  given = options.check("layers.hedge", given, HEDGE)
  if not given.delay and not given.percentile then
    options.misuse 'layers.hedge: option "delay" or "percentile" is needed'
  end
  if given.endpoint and not given.endpoint.query then
    options.misuse 'layers.hedge: option "endpoint" must be an endpoint: it has no method query'
  end
  return given
end

---Makes a layer that sends a request again when no answer has come after `delay`, or after as long as
---a share of the requests takes. Of a query the first answer wins, of a stream the first content: an
---error, a frame with one too, never does. The other try is cancelled and its connection closed. A first
---try that fails before the second one has gone is not hedged: that is for layers.retry. A second try
---is taken from the allowance of retries. In the meta of an answer that was hedged: `hedged` = { won = 1
---or 2, delay = seconds }. The endpoint made has a field `hedges` with counts.
---@param given sluice.HedgeOptions
---@return sluice.Layer
local function hedge_layer(given)
  given = check(given)

  return function(inner)
    local hedge = {
      delay = given.delay, percentile = given.percentile, endpoint = given.endpoint,
      budget = budget_of(inner, given.budget),
      known = { count = 0, fresh = 0 },
      counts = { sent = 0, won = 0, refused = 0 },
    }
    local function through(method)
      return function(_, request, query_options)
        if query_options and query_options.probe then return inner[method](inner, request, query_options) end
        return ask(hedge, method, inner, request, query_options)
      end
    end
    return layers.around {
      query = through "query",
      stream = through "stream",
      fields = { hedges = hedge.counts },
    } (inner)
  end
end

return hedge_layer
