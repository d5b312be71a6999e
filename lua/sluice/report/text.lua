-- SPDX-License-Identifier: MIT
-- A report as text: a table with small bars.

local measures = require "sluice.report.measures"
local options = require "sluice.options"
local render = require "sluice.progress.render"
local system = require "sluice.core.system"

local text = {}

local OPTIONS <const> = { columns = "count?", color = "boolean?", unicode = "boolean?" }
local COLUMNS <const>, LEAST_COLUMNS <const> = 80, 60
local LONGEST_NAME <const>, LONGEST_BAR <const> = 24, 30
local TITLE_WIDTH <const>, VALUE_WIDTH <const>, INTERVAL_WIDTH <const> = 14, 14, 24

local EIGHTHS <const> = { [0] = "", "▏", "▎", "▍", "▌", "▋", "▊", "▉" }
local COLORS <const> = { better = "\27[32m", worse = "\27[31m", inconclusive = "\27[33m" }

-- Names come from a log that anybody may have written to.
local function clean(name)
  name = render.plain(name)
  local length = utf8.len(name)
  if not length then return (name:gsub("[^\32-\126]", "?")):sub(1, LONGEST_NAME) end
  if length <= LONGEST_NAME then return name end
  return name:sub(1, utf8.offset(name, LONGEST_NAME) - 1) .. "~"
end

local function pad(word, width)
  return word .. (" "):rep(width - (utf8.len(word) or #word))
end

local function pad_left(word, width)
  return (" "):rep(width - (utf8.len(word) or #word)) .. word
end

local function bar(share, width, is_unicode)
  if width < 1 then return "" end
  if not is_unicode then return ("#"):rep(math.floor(share * width + 0.5)) end
  local eighths = math.floor(share * width * 8 + 0.5)
  return ("█"):rep(eighths // 8) .. EIGHTHS[eighths % 8]
end

-- Words folded at the width of the screen.
local function folded(words, columns)
  local lines, line = {}, ""
  for word in words:gmatch "%S+" do
    if #line + #word + 1 > columns and line ~= "" then
      lines[#lines + 1] = line
      line = " "
    end
    line = line == "" and word or line .. " " .. word
  end
  lines[#lines + 1] = line
  return table.concat(lines, "\n")
end

local function add_measure(page, made, measure)
  if not measures.is_known(made, measure) then return end
  local title, greatest = measure.title, measures.greatest(made, measure)
  local function add(name, value, interval, drawn)
    local line = pad(title, TITLE_WIDTH) .. pad(name, page.name_width) .. " "
      .. pad_left(value, VALUE_WIDTH - 1) .. "  " .. pad(interval, INTERVAL_WIDTH) .. drawn
    page[#page + 1] = line:gsub("%s+$", "")
    title = ""
  end
  for _, each in ipairs(made.variants) do
    local its = measure.of(each)
    if its and its.value then
      local drawn = greatest > 0 and bar(its.value / greatest, page.bar_width, page.is_unicode) or ""
      add(clean(each.variant), measure.write(its.value), measures.interval(its, measure.write), drawn)
    end
  end
  for _, comparison in ipairs(made.comparisons) do
    local its = measure.of(comparison)
    if its and its.value then
      local name = #made.comparisons > 1 and clean(comparison.variant) or "difference"
      local write = measure.write_difference
      add(name, write(its.value), measures.interval(its, write), "")
    end
  end
end

local function add_requests(page, made)
  local title, greatest = "requests", 1
  for _, each in ipairs(made.variants) do greatest = math.max(greatest, each.requests) end
  for _, each in ipairs(made.variants) do
    local drawn = bar(each.requests / greatest, page.bar_width, page.is_unicode)
    local line = pad(title, TITLE_WIDTH) .. pad(clean(each.variant), page.name_width)
      .. pad_left(measures.count(each.requests), VALUE_WIDTH) .. (" "):rep(INTERVAL_WIDTH + 2) .. drawn
    page[#page + 1], title = line:gsub("%s+$", ""), ""
  end
end

local function add_verdicts(page, made, given)
  for _, comparison in ipairs(made.comparisons) do
    local color = given.color and COLORS[comparison.verdict]
    local word = color and color .. comparison.verdict .. "\27[0m" or comparison.verdict
    page[#page + 1] = ("%s against %s: %s"):format(clean(comparison.variant), clean(made.control), word)
    page[#page + 1] = folded("  " .. render.plain(comparison.reason), page.columns)
  end
  if #made.comparisons == 0 then page[#page + 1] = made.verdict .. ": " .. render.plain(made.reason) end
end

local function add_notes(page, made)
  local ratio = made.sample_ratio
  if ratio then
    local word = ratio.alarm and "ALARM: not as it should be" or "as it should be"
    page[#page + 1] = ("split: %s (p %.2g)"):format(word, ratio.p)
  end
  for _, note in ipairs(made.notes) do
    page[#page + 1] = folded("note: " .. render.plain(note), page.columns)
  end
end

---Renders a report.
---@param made sluice.Report
---@param given? table see report:text
---@return string
function text.render(made, given)
  given = options.check("report:text", given, OPTIONS)
  local name_width = #"difference"
  for _, each in ipairs(made.variants) do
    name_width = math.max(name_width, utf8.len(clean(each.variant)) or 0)
  end
  local columns = math.max(LEAST_COLUMNS, given.columns or COLUMNS)
  local rest = columns - 1 - TITLE_WIDTH - name_width - VALUE_WIDTH - 2 - INTERVAL_WIDTH
  local page = {
    columns = columns, name_width = name_width, bar_width = math.min(LONGEST_BAR, rest),
    is_unicode = given.unicode ~= false,
  }
  page[1] = ("%s, %s"):format(render.plain(made.title), system.utc(made.made))
  add_verdicts(page, made, given)
  page[#page + 1] = ""
  add_requests(page, made)
  for _, measure in ipairs(measures.list) do add_measure(page, made, measure) end
  local rule = "intervals: %g %%, for one look; the verdict holds at every look"
  page[#page + 1] = rule:format(made.level * 100)
  add_notes(page, made)
  return table.concat(page, "\n") .. "\n"
end

return text
