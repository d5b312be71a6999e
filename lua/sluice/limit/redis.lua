-- SPDX-License-Identifier: MIT
-- The state of a rate limit in Redis, shared by processes: one script, one round trip for each request.

local json = require "sluice.json"
local log = require "sluice.log"
local memory = require "sluice.limit.memory"
local options = require "sluice.options"
local script = require "sluice.limit.redis_script"
local system = require "sluice.core.system"
local task = require "sluice.task"

local store = {}

---@class sluice.limit.RedisOptions
---@field when_down? "local"|"wait"|"pass" while Redis cannot be asked: each process limits by itself ("local"), nobody goes ("wait"), all go ("pass")
---@field timeout? number seconds for Redis to answer, 0.5
local OPTIONS <const> = { when_down = "string?", timeout = "positive?" }

local POLICIES <const> = { ["local"] = true, wait = true, pass = true }

local TIMEOUT <const> = 0.5

-- Seconds until Redis is asked again after a failure.
local PAUSE <const> = 1

---@class sluice.limit.RedisState: sluice.limit.State
local methods = {}
local metatable = { __name = "sluice.limit.redis", __index = methods }

local function keys_of(name)
  local keys = {}
  -- one slot of a cluster
  for index, part in ipairs { "state", "requests", "tokens", "under_way" } do
    keys[index] = ("sluice:limit:{%s}:%s"):format(name, part)
  end
  return keys
end

local function text_of(plan)
  return json.encode {
    rate = plan.rate, burst = plan.burst, requests = plan.requests, tokens = plan.tokens,
    period = plan.period, max_pause = plan.max_pause,
  }
end

local function open(client, name, when_down, plan)
  return setmetatable({
    _client = client, _name = name, _when_down = when_down,
    _keys = keys_of(name), _plan = text_of(plan), _given = plan,
    _script = client:script(script.text),
    _random = plan.random or system.random_float,
    _ask_at = -math.huge, -- Redis is not asked before
    _known_until = -math.huge, -- the pause, as far as this process knows
  }, metatable)
end

---Makes the `store` of layers.limit that keeps its state in Redis, under the keys `sluice:limit:{NAME}:*`.
---Processes that give the same name share the limit, and must give the same numbers. Does not wait.
---@param client sluice.redis.Client
---@param name string
---@param given? sluice.limit.RedisOptions
---@return fun(plan: sluice.limit.Plan): sluice.limit.State
function store.new(client, name, given)
  options.argument("client:limit_store", "name", name, "name")
  given = options.check("client:limit_store", given, OPTIONS)
  local when_down = given.when_down or "local"
  if not POLICIES[when_down] then
    local hint = options.hint(when_down, POLICIES)
    options.misuse('client:limit_store: unknown "when_down" "%s"%s', when_down, hint)
  end
  local quick = client:with { timeout = given.timeout or TIMEOUT }
  return function(plan) return open(quick, name, when_down, plan) end
end

local function came_back(self)
  if not self._down then return end
  log.info("the rate limit is shared again", { limit = self._name, redis = tostring(self._client) })
  self._down, self._local = nil, nil
end

-- One line when it begins, whatever follows.
local function went_down(self, err)
  self._ask_at = task.now() + math.max(PAUSE, err.retry_after or 0)
  if self._down then return end
  self._down = true
  log.warn("the rate limit is not shared: Redis cannot be asked",
    { limit = self._name, error = err, when_down = self._when_down })
end

local function take_alone(self, tokens)
  if self._when_down == "wait" then return PAUSE end
  if self._when_down == "pass" then return 0, { tokens = tokens, settled = true } end
  self._local = self._local or memory.open(self._given)
  local wait, ticket = self._local:take(tokens)
  if ticket then ticket.state = self._local end
  return wait, ticket
end

---Lets one request through, or says how long to wait before asking again. Waits for Redis.
---@param tokens number the estimate
---@return number wait seconds; 0: it may go
---@return sluice.limit.Ticket? ticket
function methods:take(tokens)
  if task.now() < self._ask_at then return take_alone(self, tokens) end
  local reply, err = self._script(self._keys, "take", self._plan, tokens)
  if not reply then
    went_down(self, err)
    return take_alone(self, tokens)
  end
  came_back(self)
  local wait = tonumber(reply[1])
  if wait > 0 then return wait end
  return 0, { tokens = tokens, id = reply[2], pause = reply[3], at = reply[4] }
end

-- What is only told to Redis is sent without waiting: the task may be cancelled by now.
local function post(self, ...)
  self._script:post(self._keys, ...)
end

---Ends a request that was let through. Idempotent. Never waits.
---@param ticket sluice.limit.Ticket
---@param tokens? number what it took in truth; the estimate
---@param answered? boolean the server took it
function methods:settle(ticket, tokens, answered)
  local settled = ticket.settled
  if ticket.state then ticket.state:settle(ticket, tokens, answered) end
  ticket.settled = true
  if settled or ticket.state then return end
  post(self, "settle", self._plan, ticket.id, ticket.pause, ticket.at, ticket.tokens, tokens or "",
    answered and "1" or "")
end

---Lets nobody through for a while, in any process. Never waits.
---@param ticket sluice.limit.Ticket the request refused
---@param seconds? number what the server said
---@return boolean is_new whether this made a pause, as far as this process knows
function methods:pause(ticket, seconds)
  if ticket.state then return ticket.state:pause(ticket, seconds) end
  if not ticket.id then return false end -- let through unseen
  post(self, "pause", self._plan, ticket.pause, seconds or "", self._random())
  local till = task.now() + math.min(seconds or PAUSE, self._given.max_pause)
  if till <= self._known_until or (not seconds and task.now() < self._known_until) then return false end
  self._known_until = till
  return true
end

---How much longer a 429 holds everybody back, as far as this process knows. Never waits.
---@return number seconds
function methods:paused_for()
  if self._local then return self._local:paused_for() end
  return math.max(0, self._known_until - task.now())
end

---Heeds what the server says is left. Never waits.
---@param facts sluice.limit.Fact[]
function methods:told(facts)
  if self._local then
    self._local:told(facts)
  else
    post(self, "told", self._plan, json.encode(facts))
  end
end

return store
