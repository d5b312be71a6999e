-- SPDX-License-Identifier: MIT
-- The allowance of retries that all calls to one host share, so that its outage is not multiplied.

local options = require "sluice.options"
local task = require "sluice.task"

local budget = {}

---The shared allowance of retries for one host.
---@class sluice.RetryBudget
---@field left number retries that may be made now, without what time has added since the last one
---@field taken integer retries made
---@field refused integer retries not made because none was left
local methods = {}
local metatable = { __name = "sluice.retry.budget", __index = methods }

local BUDGET = { ratio = "number?", per_second = "number?", burst = "number?" }

-- A fifth of the requests and ten a second are what Finagle allows.
local RATIO <const> = 0.2
local PER_SECOND <const> = 10

-- What a passing failure of a hundred requests under way may take at once.
local BURST <const> = 100

local function check_share(name, value)
  if value and not (value >= 0 and value < math.huge) then
    options.misuse("retry.budget: option %q must be a number of at least 0, got %s", name, value)
  end
end

---Makes an allowance of retries, to be shared by all policies that call one host: each request adds
---`ratio` of a retry and each second `per_second`, each retry takes one. What is saved up is bounded.
---@param given? { ratio?: number, per_second?: number, burst?: number } 0.2, 10; `burst`: how many are saved up at most, and there from the start, 100
---@return sluice.RetryBudget
function budget.new(given)
  given = options.check("retry.budget", given, BUDGET)
  for _, name in ipairs { "ratio", "per_second", "burst" } do check_share(name, given[name]) end
  local burst = given.burst or BURST
  return setmetatable({
    left = burst, taken = 0, refused = 0,
    _burst = burst,
    _ratio = given.ratio or RATIO,
    _per_second = given.per_second or PER_SECOND,
    _filled = nil, -- when `per_second` was counted; the clock is the first caller's
  }, metatable)
end

---Whether the value is such an allowance.
---@param value any
---@return boolean
function budget.is(value)
  return getmetatable(value) == metatable
end

-- Hosts that are called are few and known; an allowance is kept as long as the program runs.
local of_hosts = {}

---The allowance of a host, the same one for every caller. The retries of a layer around an endpoint of
---this host come out of it.
---@param host string authority: "h.example:8443"
---@return sluice.RetryBudget
function budget.of(host)
  options.argument("retry.budget_of", "host", host, "string")
  host = host:lower()
  local shared = of_hosts[host]
  if not shared then
    shared = budget.new()
    of_hosts[host] = shared
  end
  return shared
end

---Counts a request.
function methods:add()
  local left = self.left + self._ratio
  self.left = left < self._burst and left or self._burst
end

local function add_time(self)
  local now = task.now()
  -- the clock of a simulation may be behind the one before it
  local since = math.max(0, now - (self._filled or now))
  self._filled = now
  self.left = math.min(self._burst, self.left + since * self._per_second)
end

---Takes one retry; false when none is left.
---@return boolean
function methods:take()
  add_time(self)
  if self.left < 1 then
    self.refused = self.refused + 1
    return false
  end
  self.left, self.taken = self.left - 1, self.taken + 1
  return true
end

---Its counts, for JSON.
---@param self sluice.RetryBudget
---@return { left: number, taken: integer, refused: integer }
function metatable.__tojson(self)
  return { left = self.left, taken = self.taken, refused = self.refused }
end

return budget
