-- SPDX-License-Identifier: MIT
-- What a report shows, in its order: where each measure stands in the report, and how it is written.

local measures = {}

---@class sluice.report.Measure
---@field title string
---@field of fun(of: table): sluice.report.Estimate? of a variant, or of a comparison
---@field write fun(value: number): string
---@field write_difference fun(value: number): string
---@field is_share boolean? whether it lies between 0 and 1

---A whole number with commas.
---@param value number
---@return string
function measures.count(value)
  local digits = ("%.0f"):format(value)
  local sign, rest = digits:match "^(%-?)(%d+)$"
  if not rest then return digits end
  return sign .. rest:reverse():gsub("(%d%d%d)", "%1,"):reverse():gsub("^,", "")
end

---A time in seconds, as short as it can be read.
---@param seconds number
---@return string
function measures.seconds(seconds)
  local size = math.abs(seconds)
  if size < 0.9995 then return ("%.0f ms"):format(seconds * 1000) end
  if size < 99.95 then return ("%.2f s"):format(seconds) end
  return ("%.0f s"):format(seconds)
end

---A share as percent.
---@param share number
---@return string
function measures.percent(share)
  return ("%.2f %%"):format(share * 100)
end

local function tokens(value)
  return ("%.1f"):format(value)
end

local function signed(write)
  return function(value)
    local text = write(value)
    if not text:find "[1-9]" then return (text:gsub("^%-", "")) end
    return value > 0 and "+" .. text or text
  end
end

local function points(share)
  return ("%.2f points"):format(share * 100)
end

local function time(title, kind, name)
  return {
    title = title,
    of = function(of) return of[kind] and of[kind][name] end,
    write = measures.seconds, write_difference = signed(measures.seconds),
  }
end

local function token(title, name)
  return {
    title = title, of = function(of) return of[name] end, write = tokens, write_difference = signed(tokens),
  }
end

---The measures in the order of a report.
---@type sluice.report.Measure[]
measures.list = {
  {
    title = "success rate", of = function(of) return of.success end, is_share = true,
    write = measures.percent, write_difference = signed(points),
  },
  time("latency mean", "latency", "mean"), time("latency p50", "latency", "p50"),
  time("latency p95", "latency", "p95"), time("latency p99", "latency", "p99"),
  time("TTFT mean", "ttft", "mean"), time("TTFT p50", "ttft", "p50"), time("TTFT p95", "ttft", "p95"),
  time("TTFT p99", "ttft", "p99"),
  token("tokens in", "input_tokens"), token("tokens out", "output_tokens"),
}

---An interval in words; its ends are "?" where the data do not bound it.
---@param estimate sluice.report.Estimate
---@param write fun(value: number): string
---@return string
function measures.interval(estimate, write)
  local low = estimate.low and write(estimate.low) or "?"
  local high = estimate.high and write(estimate.high) or "?"
  if low == "?" and high == "?" then return "" end
  -- the unit once, where both have the same
  local unit = high:match " %S+$"
  if unit and low:sub(-#unit) == unit then low = low:sub(1, -#unit - 1) end
  return low .. " to " .. high
end

---Whether any variant has this measure.
---@param made sluice.Report
---@param measure sluice.report.Measure
---@return boolean
function measures.is_known(made, measure)
  for _, each in ipairs(made.variants) do
    local estimate = measure.of(each)
    if estimate and estimate.value then return true end
  end
  return false
end

---The greatest value or end of an interval that a measure has.
---@param made sluice.Report
---@param measure sluice.report.Measure
---@return number
function measures.greatest(made, measure)
  if measure.is_share then return 1 end
  local greatest = 0
  for _, each in ipairs(made.variants) do
    local estimate = measure.of(each)
    if estimate and estimate.value then greatest = math.max(greatest, estimate.value, estimate.high or 0) end
  end
  return greatest
end

return measures
