-- SPDX-License-Identifier: MIT
-- Keeps an eye on endpoints: looks at them in the background, and hears what live traffic meets.

local check = require "sluice.health.check"
local core = require "sluice.core.task"
local errors = require "sluice.errors"
local layers = require "sluice.layers"
local options = require "sluice.options"
local stream = require "sluice.stream"
local system = require "sluice.core.system"
local task = require "sluice.task"
local verdict = require "sluice.health.verdict"

local monitors = {}

---@class sluice.MonitorOptions
---@field endpoints? table an array of endpoints, or endpoints by name; more with monitor:watch
---@field every? number seconds between two looks at an endpoint, 30; a tenth at random is added. One that is not well is looked at five times as often
---@field probe? boolean|table as of health.check; where an answer came to live traffic meanwhile, none is sent
---@field timeout? number seconds for a look, 10
---@field fall? integer failures in a row, of looks and of traffic, that make a healthy endpoint an ill one, 2
---@field needs? "all"|"any" which endpoints must be ready for the whole to be; "all"
---@field on_change? fun(name: string, health: sluice.Health) called when an endpoint becomes ready, or is no longer
---@field random? fun(): number in [0, 1)
local MONITOR <const> = {
  endpoints = "table?",
  every = "positive?",
  probe = check.OPTIONS.probe,
  timeout = check.OPTIONS.timeout,
  fall = "count?",
  needs = function(value) return value == "all" or value == "any", '"all" or "any"' end,
  on_change = "callable?",
  random = "callable?",
}

local EVERY <const>, FALL <const>, JITTER <const> = 30, 2, 0.1
-- How much more often one is looked at that is not well, and at most how often: seconds.
local SOONER <const>, SOONEST <const> = 5, 1

---A monitor; a `<close>` value.
---@class sluice.Monitor
---@field draining boolean whether the program is about to end: not ready, but alive
local methods = {}
local metatable = { __name = "sluice.monitor", __index = methods }

-- ---- what is known of an endpoint ----

-- What it takes until it can be asked, seconds: what a layer of it says, what the server asked for, and the next
-- look where it is ill.
local function available_in(row)
  local now, inner = task.now(), row.inner_available_in
  local seconds = inner and inner(row.inner) or 0
  if row.cool_until > now then seconds = math.max(seconds, row.cool_until - now) end
  if row.is_down then seconds = math.max(seconds, (row.next_at or now + SOONEST) - now) end
  return seconds
end

-- An open circuit is a refusal; a pause by a rate limit is none, for requests wait for its end.
local function is_open(row)
  local breaker = row.inner.breaker
  return type(breaker) == "table" and breaker.state == "open"
end

-- Finer than this it is the clock's noise.
local function to_microseconds(seconds)
  return seconds and math.floor(seconds * 1e6 + 0.5) / 1e6
end

local function view(row)
  local shown = {
    endpoint = row.name, status = row.status, ready = row.ready, state = row.state, error = row.error,
    kind = row.kind, source = row.source, latency = to_microseconds(row.latency),
    age = to_microseconds(row.known_at and task.now() - row.known_at or nil),
  }
  local cooling = available_in(row)
  if cooling > 0 then shown.cooling = cooling end
  if row.ready and is_open(row) then
    shown.ready, shown.status = false, "not_ready"
    shown.error, shown.kind = ("its circuit is open for %.3g s more"):format(cooling), "CircuitOpen"
  end
  return shown
end

local function become(self, row, found)
  local was = row.ready
  row.status, row.ready, row.error, row.kind = found.status, found.ready, found.error, found.kind
  if self._on_change and was ~= row.ready then self._on_change(row.name, view(row)) end
end

-- Of two times to come back the later one holds.
local function cool(row, seconds)
  if type(seconds) ~= "number" or not (seconds > 0 and seconds < math.huge) then return end
  row.cool_until = math.max(row.cool_until, task.now() + seconds)
end

-- A rate limit is no illness: it says itself when it is over.
local function is_trouble(err)
  return verdict.is_failure(err) and not err:is "TooManyRequests"
end

-- `found` is what a look gave, or what a request came to.
local function learn(self, row, found)
  row.known_at, row.source = task.now(), found.source
  if found.state then row.state = found.state end
  cool(row, found.retry_after)
  local is_first = not row.is_known
  row.is_known = true
  if found.status == "healthy" then
    row.failures, row.is_down = 0, false
    return become(self, row, found)
  end
  row.failures = row.failures + 1
  if not is_first and found.status == "error" and row.failures < self._fall then return end
  -- where its state cannot be read it may answer all the same: nobody is kept from asking it
  row.is_down = found.status == "not_ready" or is_trouble(found.err)
  become(self, row, found)
end

-- ---- looking ----

local function look(self, row)
  row.next_at = nil
  local ok, found = pcall(check.run, row.inner, self)
  if not ok then
    if errors.is(found) and (found.kind == "TaskCancelled" or task.cancelled()) then error(found, 0) end
    found = { status = "error", ready = false, error = tostring(found), source = "probe", latency = 0 }
  end
  row.latency = found.latency
  learn(self, row, found)
end

local function pause_after(self, row)
  local seconds = self._every
  if row.failures > 0 or not row.ready then
    seconds = math.min(seconds, math.max(SOONEST, seconds / SOONER))
  end
  return seconds * (1 + JITTER * self._random())
end

-- An answer to live traffic tells as much as a look, for as long.
local function is_fresh(self, row)
  return row.source == "traffic" and row.failures == 0 and task.now() - row.known_at < self._every
end

-- Ends early when live traffic begins to fail.
local function rest(row, seconds)
  local first = math.min(seconds, SOONEST)
  task.sleep(first)
  if not row.is_worse then task.timeout(seconds - first, row.worse.wait, row.worse) end
  row.is_worse = false
end

local function keep_looking(self, row)
  while true do
    if not is_fresh(self, row) then look(self, row) end
    local seconds = pause_after(self, row)
    row.next_at = task.now() + seconds
    rest(row, seconds)
  end
end

-- ---- hearing ----

local function hear(self, row, err)
  if self._is_closed then return end
  if err == nil or errors.is(err) and err:is "BadRequest" then -- a refusal by a server that works
    return learn(self, row, { status = "healthy", ready = true, source = "traffic" })
  end
  if not verdict.is_failure(err) then return end
  if not is_trouble(err) then return cool(row, err.retry_after) end
  if row.failures == 0 then
    row.is_worse = true
    row.worse:signal()
  end
  learn(self, row, {
    status = "error", ready = false, error = tostring(err), kind = err.kind, retry_after = err.retry_after,
    source = "traffic", err = err,
  })
end

local function listener(self, row)
  local function query(inner, request, given)
    local value, err = inner:query(request, given)
    hear(self, row, value == nil and err or nil)
    return value, err
  end

  local function open(inner, request, given)
    local value, err = inner:stream(request, given)
    if value == nil then
      hear(self, row, err)
      return nil, err
    end
    return stream.watch(value, function(_, how, failure)
      if how == "done" or how == "failed" then hear(self, row, failure) end
    end)
  end

  local function when() return available_in(row) end
  return layers.around { query = query, stream = open, fields = { available_in = when } }
end

local function new_row(name, endpoint)
  return {
    name = name, inner = endpoint, inner_available_in = endpoint.available_in,
    status = "not_ready", ready = false, error = "not looked at yet", failures = 0,
    cool_until = -math.huge, is_down = false, is_known = false, worse = core.condition "health.monitor",
  }
end

---Watches one more endpoint, from now on. Live traffic goes through the endpoint that this gives, which does as the
---given one and tells the monitor what came back: never what a caller gave up. It can be asked when it will be
---available, which layers.fallback does.
---@param endpoint sluice.Endpoint
---@param name? string what it is called here; its own name. One of a name that is watched already shares its health
---@return sluice.Endpoint
function methods:watch(endpoint, name)
  options.method("monitor:watch", self, "_rows")
  check.endpoint("monitor:watch", endpoint, self.probe)
  options.argument("monitor:watch", "name", name, "name?")
  name = name or endpoint.name or tostring(#self._rows + 1)
  local row = self._by_name[name]
  if not row then
    row = new_row(name, endpoint)
    self._by_name[name] = row
    self._rows[#self._rows + 1] = row
    self._group = self._group or task.group()
    if not self._is_closed then self._group:spawn(keep_looking, self, row) end
  end
  return listener(self, row)(endpoint)
end

---The same as a layer, for a pipeline.
---@param name? string
---@return sluice.Layer
function methods:layer(name)
  options.method("monitor:layer", self, "_rows")
  return function(inner) return self:watch(inner, name) end
end

---Tells the monitor what a request came to: for what went by its layer. Never waits.
---@param name string
---@param err? sluice.Error nil: it was answered
function methods:record(name, err)
  options.method("monitor:record", self, "_rows")
  local row = self._by_name[name]
  if not row then options.misuse('monitor:record: nothing is watched as "%s"', tostring(name)) end
  hear(self, row, err)
end

---What is known of one endpoint. Never waits.
---@param name string
---@return sluice.Health? health nil where nothing is watched under this name
function methods:get(name)
  options.method("monitor:get", self, "_rows")
  local row = self._by_name[name]
  return row and view(row)
end

---How the whole is.
---@class sluice.HealthReport
---@field status "healthy"|"not_ready"|"error"
---@field ready boolean
---@field reasons string[]? of those that are not ready
---@field retry_after number? seconds until it may be ready, where it is not
---@field endpoints sluice.Health[] in the order in which they came

local function summarize(self, shown)
  local ill, soonest, is_error = {}, math.huge, false
  for index, row in ipairs(self._rows) do
    local each = view(row)
    shown[index] = each
    if not each.ready then
      ill[#ill + 1] = ("%s: %s"):format(row.name, each.error)
      is_error = is_error or each.status == "error"
      soonest = math.min(soonest, each.cooling or (row.next_at or 0) - task.now())
    end
  end
  return ill, math.max(soonest, SOONEST), is_error
end

---What is known of all. Never waits.
---@return sluice.HealthReport
function methods:report()
  options.method("monitor:report", self, "_rows")
  local shown = {}
  local ill, soonest, is_error = summarize(self, shown)
  local ready = #ill == 0 or self._needs == "any" and #ill < #shown
  local status = ready and "healthy" or is_error and "error" or "not_ready"
  if self.draining then
    ready, status = false, "not_ready"
    table.insert(ill, 1, "it is about to end")
  end
  return {
    status = status, ready = ready, reasons = #ill > 0 and ill or nil, endpoints = shown,
    retry_after = not ready and soonest < math.huge and soonest or nil,
  }
end

---Looks at all endpoints now, and tells what came of it. Waits.
---@return sluice.HealthReport
function methods:check()
  options.method("monitor:check", self, "_rows")
  task.map(self._rows, function(row) look(self, row) end, { concurrency = math.max(1, #self._rows) })
  return self:report()
end

---Ends the looking, cancels what is under way, and waits for its end. Idempotent.
function methods:close()
  options.method("monitor:close", self, "_rows")
  self._is_closed = true
  local group = self._group
  self._group = nil
  if group then task.shield(group.close, group) end
end

metatable.__close = methods.close

local function names_of(endpoints)
  local names = {}
  for name in pairs(endpoints) do names[#names + 1] = name end
  table.sort(names, function(a, b) return tostring(a) < tostring(b) end)
  return names
end

---Makes a monitor; see health.monitor. Does not wait.
---@param given? sluice.MonitorOptions
---@return sluice.Monitor
function monitors.new(given)
  given = options.check("health.monitor", given, MONITOR)
  local self = setmetatable({
    draining = false, probe = given.probe, timeout = given.timeout,
    _every = given.every or EVERY,
    _fall = given.fall or FALL,
    _needs = given.needs or "all",
    _on_change = given.on_change,
    _random = given.random or system.random_float,
    _rows = {}, _by_name = {}, _is_closed = false,
  }, metatable)
  for index, endpoint in ipairs(given.endpoints or {}) do
    check.endpoint(("health.monitor: endpoint %d"):format(index), endpoint, given.probe)
    self:watch(endpoint)
  end
  for _, name in ipairs(names_of(given.endpoints or {})) do
    if type(name) == "string" then self:watch(given.endpoints[name], name) end
  end
  return self
end

return monitors
