-- SPDX-License-Identifier: MIT
-- How long things took, in bounded memory: counts in buckets, each 4.4 % wider than the one before.

local histogram = {}

local PER_OCTAVE <const> = 16
local LEAST <const> = 1e-6 -- seconds; what is shorter counts as this

---@class sluice.batch.Histogram
---@field count integer
---@field sum number seconds
---@field most number seconds
local methods = {}
local metatable = { __name = "sluice.batch.histogram", __index = methods }

---An empty one, or what was saved.
---@param saved? table what save() gave
---@return sluice.batch.Histogram
function histogram.new(saved)
  local self = { count = 0, sum = 0.0, most = 0.0, _buckets = {} }
  if saved then
    self.count, self.sum, self.most = saved.count, saved.sum, saved.most
    for name, count in pairs(saved.buckets) do self._buckets[math.tointeger(tonumber(name))] = count end
  end
  return setmetatable(self, metatable)
end

local log, floor = math.log, math.floor

---Counts one.
---@param seconds number
function methods:add(seconds)
  local index = seconds > LEAST and floor(log(seconds / LEAST, 2) * PER_OCTAVE) or 0
  local buckets = self._buckets
  buckets[index] = (buckets[index] or 0) + 1
  self.count, self.sum = self.count + 1, self.sum + seconds
  if seconds > self.most then self.most = seconds end
end

local function indices_of(buckets)
  local indices = {}
  for index in pairs(buckets) do indices[#indices + 1] = index end
  table.sort(indices)
  return indices
end

---The time that a share of all was within; right to 2.2 %. Nil where there is nothing.
---@param share number 0 to 1
---@return number? seconds
function methods:quantile(share)
  if self.count == 0 then return nil end
  local wanted, seen = math.max(1, math.ceil(share * self.count)), 0
  for _, index in ipairs(indices_of(self._buckets)) do
    seen = seen + self._buckets[index]
    if seen >= wanted then return math.min(LEAST * 2 ^ ((index + 0.5) / PER_OCTAVE), self.most) end
  end
  return self.most
end

---The figures of a summary, in seconds; nil where there is nothing.
---@return { count: integer, mean: number, p50: number, p90: number, p99: number, max: number }?
function methods:summary()
  if self.count == 0 then return nil end
  return {
    count = self.count, mean = self.sum / self.count, max = self.most,
    p50 = self:quantile(0.5), p90 = self:quantile(0.9), p99 = self:quantile(0.99),
  }
end

---What new() takes, for JSON.
---@return table
function methods:save()
  local buckets = {}
  for index, count in pairs(self._buckets) do buckets[tostring(index)] = count end
  return { count = self.count, sum = self.sum, most = self.most, buckets = buckets }
end

return histogram
