-- SPDX-License-Identifier: MIT
-- Measures one quantity (requests, tokens): a bucket that fills at a rate, and at most so much in any period.

local meter = {}

---@class sluice.limit.Meter
local methods = {}
local metatable = { __name = "sluice.limit.meter", __index = methods }

---What was taken, to be corrected later.
---@class sluice.limit.Entry
---@field at number when
---@field cost number how much

---Makes a meter. The clock is the caller's: every method gets the time.
---@param given { rate: number, burst: number, most?: number, period?: number } `rate`: a second; `burst`: how much may go at once after a rest; `most`: in any `period` of seconds
---@return sluice.limit.Meter
function meter.new(given)
  return setmetatable({
    _rate = given.rate,
    _burst = given.burst,
    _level = given.burst,
    _filled = nil, -- when the level was counted
    _most = given.most,
    _period = given.period,
    _first = 1, _last = 0, _entries = {}, _sum = 0, -- what was taken within the period, oldest first
  }, metatable)
end

-- A pause leaves one request, not a burst that would go at its first moment.
local function fill(self, now)
  local since = self._filled or now
  if now > since then self._level = math.min(self._burst, self._level + (now - since) * self._rate) end
  local held = self._held
  if held and now >= held then
    self._level, self._held, self._one = math.min(self._level, (now - held) * self._rate), nil, true
  end
  self._filled = now
end

-- Two times that differ by less are the same: a sum of waits may miss by a rounding error.
local SAME = 1e-9

local function forget_old(self, now)
  while self._first <= self._last do
    local entry = self._entries[self._first]
    if entry.at + self._period > now + SAME then return end
    self._sum = self._sum - entry.cost
    entry.gone = true
    self._entries[self._first] = nil
    self._first = self._first + 1
  end
  self._sum = 0 -- without the rounding errors of a long life
end

-- Seconds until so much has left the period that the cost fits; one larger than all that fits goes alone.
local function missing_in_period(self, cost, now)
  forget_old(self, now)
  local over = self._sum + math.min(cost, self._most) - self._most
  local index = self._first
  while over > SAME and index <= self._last do
    local entry = self._entries[index]
    over = over - entry.cost
    if over <= SAME or index == self._last then return entry.at + self._period - now end
    index = index + 1
  end
  return 0
end

---Seconds until the cost may be taken; 0 when it may be now. Takes nothing.
---@param cost number
---@param now number
---@return number
function methods:missing(cost, now)
  fill(self, now)
  local missing = 0
  if not self._one then missing = (math.min(cost, self._burst) - self._level) / self._rate end
  if missing < SAME then missing = 0 end
  if self._most then missing = math.max(missing, missing_in_period(self, cost, now)) end
  return missing
end

---Takes the cost, whether it is there or not.
---@param cost number
---@param now number
---@return sluice.limit.Entry
function methods:take(cost, now)
  fill(self, now)
  self._one, self._level = nil, math.max(0, self._level - cost)
  local entry = { at = now, cost = cost }
  if self._most then
    forget_old(self, now)
    self._last = self._last + 1
    self._entries[self._last] = entry
    self._sum = self._sum + cost
  end
  return entry
end

---Corrects what was taken.
---@param entry sluice.limit.Entry
---@param cost number what it was in truth
function methods:settle(entry, cost)
  if entry.gone then return end
  local more = cost - entry.cost
  entry.cost = cost
  self._level = math.max(0, math.min(self._burst, self._level - more))
  if self._most then self._sum = self._sum + more end
end

---Starts anew after a pause: one request, then the rate.
---@param till number the end of the pause
function methods:hold(till)
  self._held = till
end

return meter
