-- SPDX-License-Identifier: MIT
-- One series of a metric: what is counted on the way of a request, so it does nothing else.

local options = require "sluice.options"

local type = type
local huge = math.huge

local series = {}

---Only grows: requests, errors, tokens.
---@class sluice.metrics.Counter
local counter_methods = {}
local counter_metatable = { __name = "sluice.metrics.counter", __index = counter_methods }

local function refuse(where, wants, got)
  local shown = type(got) == "number" and tostring(got) or options.type_name(got)
  options.misuse("%s: argument 1 must be %s, got %s", where, wants, shown)
end

---Counts. Never waits.
---@param amount? number at least 0 and finite; 1
function counter_methods:inc(amount)
  if amount == nil then
    self.value = self.value + 1
    return
  end
  if type(amount) ~= "number" or not (amount >= 0 and amount < huge) then
    refuse("counter:inc", "a number of at least 0", amount)
  end
  self.value = self.value + amount
end

---Goes up and down: what is under way, a size, a state.
---@class sluice.metrics.Gauge
local gauge_methods = {}
local gauge_metatable = { __name = "sluice.metrics.gauge", __index = gauge_methods }

---Sets it. Never waits.
---@param value number NaN too, where nobody knows
function gauge_methods:set(value)
  if type(value) ~= "number" then refuse("gauge:set", "a number", value) end
  self.value = value
end

---Adds. Never waits.
---@param amount? number 1
function gauge_methods:inc(amount)
  if amount == nil then amount = 1 elseif type(amount) ~= "number" then
    refuse("gauge:inc", "a number", amount)
  end
  self.value = self.value + amount
end

---Takes off. Never waits.
---@param amount? number 1
function gauge_methods:dec(amount)
  if amount == nil then amount = 1 elseif type(amount) ~= "number" then
    refuse("gauge:dec", "a number", amount)
  end
  self.value = self.value - amount
end

---How often values fell below each of some bounds, how many there were, and their sum.
---@class sluice.metrics.Histogram
local histogram_methods = {}
local histogram_metatable = { __name = "sluice.metrics.histogram", __index = histogram_methods }

---Counts a value. Never waits.
---@param value number anything but NaN and -inf
function histogram_methods:observe(value)
  if type(value) ~= "number" or value == -huge or value ~= value then
    refuse("histogram:observe", "a number above -inf", value)
  end
  -- from where the last one was: most are near
  local bounds, place = self.bounds, self.place
  while value > bounds[place] do place = place + 1 end
  while value <= bounds[place - 1] do place = place - 1 end
  self.place = place
  self[place] = self[place] + 1
  self.sum = self.sum + value
end

local METATABLES <const> = { counter = counter_metatable, gauge = gauge_metatable }

---Makes one.
---@param kind "counter"|"gauge"|"histogram"
---@param bounds? number[] of a histogram, ascending, with -inf before the first, at 0, and +inf as the last
---@return sluice.metrics.Counter|sluice.metrics.Gauge|sluice.metrics.Histogram
function series.new(kind, bounds)
  if kind ~= "histogram" then return setmetatable({ value = 0, labels = "" }, METATABLES[kind]) end
  local self = { sum = 0, bounds = bounds, place = 1, labels = "" }
  for place = 1, #bounds do self[place] = 0 end -- how many at each bound
  return setmetatable(self, histogram_metatable)
end

return series
