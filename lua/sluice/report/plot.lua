-- SPDX-License-Identifier: MIT
-- The plots of a report's page, as SVG.

local measures = require "sluice.report.measures"

local plot = {}

local WIDTH <const>, ROW <const>, LABEL <const>, MARGIN <const> = 680, 26, 190, 60
local CURVE_HEIGHT <const> = 240
local COLORS <const> = 6 -- as many as the page's style has

local ENTITIES <const> = {
  ["&"] = "&amp;", ["<"] = "&lt;", [">"] = "&gt;", ['"'] = "&quot;", ["'"] = "&#39;",
}

---Text for a page.
---@param text string
---@return string
function plot.escape(text)
  if not utf8.len(text) then text = text:gsub("[^\32-\126]", "?") end
  return (text:gsub("[&<>\"']", ENTITIES):gsub("%c", " "))
end

-- The class that gives the color of a variant.
local function color(index)
  return "c" .. (index - 1) % COLORS
end

local function svg(height, label, parts)
  return ('<svg viewBox="0 0 %d %d" role="img" aria-label="%s">%s</svg>'):format(
    WIDTH, height, plot.escape(label), table.concat(parts))
end

-- Round numbers, three to seven of them, from low to high.
local function ticks(low, high)
  local rough = (high - low) / 6
  local unit = 10 ^ math.floor(math.log(rough, 10))
  local step = unit
  for _, factor in ipairs { 1, 2, 5, 10 } do
    step = unit * factor
    if step >= rough then break end
  end
  local found, tick = {}, math.ceil(low / step - 1e-9) * step
  while tick <= high + step * 1e-9 do
    found[#found + 1] = tick
    tick = tick + step
  end
  return found
end

local function axis(parts, scale, height, low, high, write)
  for _, tick in ipairs(ticks(low, high)) do
    local x = scale(tick)
    parts[#parts + 1] = ('<line class="grid" x1="%.1f" y1="8" x2="%.1f" y2="%d"/>'):format(x, x, height - 22)
    parts[#parts + 1] = ('<text class="tick" x="%.1f" y="%d">%s</text>'):format(x, height - 6, write(tick))
  end
end

-- From the least to the greatest that is to be seen, with some room.
local function range(estimates, is_share)
  local low, high = math.huge, -math.huge
  for _, its in ipairs(estimates) do
    low, high = math.min(low, its.low or its.value), math.max(high, its.high or its.value)
  end
  local room = math.max((high - low) * 0.1, math.abs(high) * 0.005, 1e-6)
  low, high = math.max(0, low - room), high + room
  if is_share then high = math.min(1, high) end
  return low, high
end

---A measure as points with their intervals, a row for each variant; nil where nobody has it.
---@param made sluice.Report
---@param measure sluice.report.Measure
---@return string?
function plot.intervals(made, measure)
  local rows = {}
  for index, each in ipairs(made.variants) do
    local its = measure.of(each)
    if its and its.value then
      local row = { name = each.variant, low = its.low, high = its.high, value = its.value, index = index }
      rows[#rows + 1] = row
    end
  end
  if #rows == 0 then return nil end
  local low, high = range(rows, measure.is_share)
  local height = #rows * ROW + 34
  local function scale(value) return LABEL + (value - low) / (high - low) * (WIDTH - LABEL - MARGIN) end
  local parts = {}
  axis(parts, scale, height, low, high, measure.write)
  for place, row in ipairs(rows) do
    local y, class = place * ROW, color(row.index)
    parts[#parts + 1] = ('<text class="label" x="%d" y="%d">%s</text>'):format(
      LABEL - 12, y + 4, plot.escape(row.name))
    parts[#parts + 1] = ('<line class="whisker %s" x1="%.1f" y1="%d" x2="%.1f" y2="%d"/>'):format(
      class, scale(row.low or low), y, scale(row.high or high), y)
    parts[#parts + 1] = ('<circle class="%s" cx="%.1f" cy="%d" r="5"/>'):format(class, scale(row.value), y)
  end
  return svg(height, measure.title .. " with intervals", parts)
end

-- What is slower than this of all is left off: one answer of an hour would press the rest together.
local LAST_SHOWN <const> = 99

local function path(percentiles, scale_x, scale_y)
  local points = {}
  for percent = 0, LAST_SHOWN do
    local command = percent == 0 and "M" or "L"
    points[#points + 1] = ("%s%.1f %.1f"):format(command, scale_x(percentiles[percent + 1]), scale_y(percent))
  end
  return table.concat(points)
end

---Which share of the answers came within which time, a line for each variant; nil where no times are known.
---@param made sluice.Report
---@param kind "latency"|"ttft"
---@return string?
function plot.curves(made, kind)
  local longest = 0
  for _, each in ipairs(made.variants) do
    if each[kind] then longest = math.max(longest, each[kind].percentiles[LAST_SHOWN + 1]) end
  end
  if longest == 0 then return nil end
  local bottom = CURVE_HEIGHT - 22
  local function scale_x(value) return MARGIN + value / longest * (WIDTH - 2 * MARGIN) end
  local function scale_y(percent) return bottom - percent / 100 * (bottom - 12) end
  local parts = {}
  axis(parts, scale_x, CURVE_HEIGHT, 0, longest, measures.seconds)
  for _, percent in ipairs { 0, 50, 95 } do
    parts[#parts + 1] = ('<line class="grid" x1="%d" y1="%.1f" x2="%d" y2="%.1f"/>'):format(
      MARGIN, scale_y(percent), WIDTH - MARGIN, scale_y(percent))
    parts[#parts + 1] = ('<text class="label" x="%d" y="%.1f">%d %%</text>'):format(
      MARGIN - 8, scale_y(percent) + 4, percent)
  end
  for index, each in ipairs(made.variants) do
    if each[kind] then
      parts[#parts + 1] = ('<path class="curve %s" d="%s"><title>%s</title></path>'):format(
        color(index), path(each[kind].percentiles, scale_x, scale_y), plot.escape(each.variant))
    end
  end
  return svg(CURVE_HEIGHT, kind .. " of each variant", parts)
end

---The names of the variants beside their colors.
---@param made sluice.Report
---@return string
function plot.legend(made)
  local parts = {}
  for index, each in ipairs(made.variants) do
    local dot = '<svg class="key" viewBox="0 0 12 12"><circle class="%s" cx="6" cy="6" r="5"/></svg>'
    parts[index] = ("<span>%s %s</span>"):format(dot:format(color(index)), plot.escape(each.variant))
  end
  return '<p class="legend">' .. table.concat(parts, " ") .. "</p>"
end

return plot
