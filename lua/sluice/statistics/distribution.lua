-- SPDX-License-Identifier: MIT
-- How often each value came: exact quantiles, means and their intervals of any number of whole milliseconds or tokens, in
-- memory that grows with the number of different values only.

local options = require "sluice.options"
local statistics = require "sluice.statistics"

local distribution = {}

---@class sluice.statistics.Distribution
---@field count integer how many values
local methods = {}
local metatable = { __name = "sluice.statistics.distribution", __index = methods }

---An empty distribution.
---@return sluice.statistics.Distribution
function distribution.new()
  return setmetatable({ count = 0, _counts = {} }, metatable)
end

---Adds a value so many times.
---@param value number finite
---@param times? integer 1
function methods:add(value, times)
  times = times or 1
  local counts = self._counts
  counts[value] = (counts[value] or 0) + times
  self.count = self.count + times
  self._values = nil
end

-- The values in order, and how many there are up to each.
local function sorted(self)
  if self._values then return self._values, self._ranks end
  local values, ranks, sum = {}, {}, 0
  for value in next, self._counts do values[#values + 1] = value end
  table.sort(values)
  for index, value in ipairs(values) do
    sum = sum + self._counts[value]
    ranks[index] = sum
  end
  self._values, self._ranks = values, ranks
  return values, ranks
end

---The value at a place when all are in order.
---@param rank integer from 1 to count
---@return number?
function methods:at(rank)
  if rank < 1 or rank > self.count then return nil end
  local values, ranks = sorted(self)
  local low, high = 1, #values
  while low < high do
    local middle = (low + high) // 2
    if ranks[middle] >= rank then high = middle else low = middle + 1 end
  end
  return values[low]
end

---How many values are greater than this one.
---@param value number
---@return integer
function methods:above(value)
  local values, ranks = sorted(self)
  local low, high = 0, #values
  while low < high do
    local middle = (low + high + 1) // 2
    if values[middle] <= value then low = middle else high = middle - 1 end
  end
  return self.count - (ranks[low] or 0)
end

---A quantile: the least value that a share of at least p of all do not exceed.
---@param p number between 0 and 1
---@return number? value nil where there are no values
function methods:quantile(p)
  options.argument("distribution:quantile", "p", p, "number")
  return self:at(math.max(1, math.ceil(p * self.count)))
end

---An interval for a quantile of what the values were drawn from, see statistics.quantile_ranks.
---@param p number between 0 and 1
---@param level? number 0.95
---@return number? low nil where so few values do not bound it
---@return number? high
function methods:quantile_interval(p, level)
  local low, high = statistics.quantile_ranks(self.count, p, level)
  return low and self:at(low), high and self:at(high)
end

---Mean and variance, of the values or of what a function makes of each.
---@param f? fun(value: number): number
---@return sluice.statistics.Moments
function methods:moments(f)
  local count = self.count
  if count == 0 then return { count = 0 } end
  local values, total = sorted(self), 0.0
  for _, value in ipairs(values) do total = total + (f and f(value) or value) * self._counts[value] end
  local mean, squares = total / count, 0.0
  for _, value in ipairs(values) do -- a second time: the difference of two large sums has no digits left
    local off = (f and f(value) or value) - mean
    squares = squares + off * off * self._counts[value]
  end
  return { count = count, mean = mean, variance = count > 1 and squares / (count - 1) or nil }
end

return distribution
