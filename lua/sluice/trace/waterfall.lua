-- SPDX-License-Identifier: MIT
-- How the time of a request was spent, as a picture: a row for each part, with a bar from its beginning to its end.

local errors = require "sluice.errors"
local meta = require "sluice.meta"
local task = require "sluice.task"

local waterfall = {}

---A request that was made, and what came of it.
---@class sluice.trace.Exchange
---@field method string
---@field url string
---@field response? table
---@field err? sluice.Error

---@class (private) sluice.trace.Row
---@field label string
---@field from number seconds from the beginning of the picture
---@field seconds number
---@field note? string

-- In the order in which they pass. What is left of the total came after the first byte.
local PHASES <const> = { "queue", "resolve", "connect", "tls", "first_byte" }
local LABELS <const> = { first_byte = "first byte" }
local MOST_CELLS <const>, LEAST_CELLS <const> = 40, 10 -- of a bar
local LEAST_LABEL <const>, MOST_LABEL <const> = 10, 40
local COLUMNS <const> = 80

local function milliseconds(seconds)
  return ("%8.1f ms"):format(seconds * 1000)
end

local function short(seconds)
  return (milliseconds(seconds):gsub("^%s+", ""))
end

-- Where a bar from `from` to `to`, of `total` seconds, begins, and its length; as short as it is, it can be seen.
local function bar(from, to, total, cells)
  if total <= 0 then return 0, 0 end
  local first = math.min(math.floor(from / total * cells + 0.5), cells - 1)
  local last = math.max(math.min(math.floor(to / total * cells + 0.5), cells), first + 1)
  return first, last - first
end

local function fit(label)
  return #label > MOST_LABEL and label:sub(1, MOST_LABEL - 3) .. "..." or label
end

-- The rows as lines.
local function draw(rows, total, columns, unicode)
  local width = LEAST_LABEL
  for _, row in ipairs(rows) do width = math.max(width, #fit(row.label)) end
  local cells = math.max(math.min(columns - width - 16, MOST_CELLS), LEAST_CELLS)
  local mark, lines = unicode and "█" or "#", {}
  for index, row in ipairs(rows) do
    local before, length = bar(row.from, row.from + row.seconds, total, cells)
    local line = ("  %-" .. width .. "s %s  "):format(fit(row.label), milliseconds(row.seconds))
      .. (" "):rep(before) .. mark:rep(length)
    lines[index] = row.note and line .. (" "):rep(cells - before - length + 1) .. row.note or line
  end
  return lines
end

-- ---- one request over the wire ----

-- The rows of a timing record from `from` on, under `indent`; the time that has passed in all of them.
local function add_phases(rows, timing, from, indent, rest)
  local passed = 0
  for _, phase in ipairs(PHASES) do
    local seconds = timing[phase] or 0
    if seconds > 0 then
      local label = indent .. (LABELS[phase] or phase)
      rows[#rows + 1] = { label = label, from = from + passed, seconds = seconds }
      passed = passed + seconds
    end
  end
  local total = math.max(timing.total or passed, passed)
  if total > passed and rest then
    rows[#rows + 1] = { label = indent .. rest, from = from + passed, seconds = total - passed }
  end
  return total
end

local function timing_of(response, err)
  local known = response and meta.get(response).timing
  return known or errors.is(err) and (err.timing or meta.get(err).timing) or nil
end

local function head(exchange, timing)
  local result = exchange.response and tostring(exchange.response.status)
    or errors.is(exchange.err) and exchange.err.kind or "failed"
  local total = timing and timing.total and short(timing.total) or "still running"
  return ("%s %s: %s, %s"):format(exchange.method, exchange.url, result, total)
end

local function notes(exchange, timing)
  local said, facts = {}, exchange.response and meta.get(exchange.response) or {}
  if timing.reused ~= nil then said[1] = timing.reused and "connection reused" or "new connection" end
  if timing.bytes_in then said[#said + 1] = ("%d bytes in"):format(timing.bytes_in) end
  if facts.remote_address then said[#said + 1] = facts.remote_address end
  if facts.redirects then said[#said + 1] = ("%d redirects before"):format(#facts.redirects) end
  return #said > 0 and "  " .. table.concat(said, ", ") or nil
end

---The waterfall of one request over the wire.
---@param exchange sluice.trace.Exchange
---@param columns? integer the width to keep to, 80
---@param unicode? boolean whether the terminal shows UTF-8
---@return string
function waterfall.of_exchange(exchange, columns, unicode)
  local timing = timing_of(exchange.response, exchange.err)
  local first = head(exchange, timing)
  if not timing then return first end
  local rows = {}
  local total = add_phases(rows, timing, 0, "", exchange.response and "content" or "failed")
  local lines = draw(rows, total, columns or COLUMNS, unicode)
  table.insert(lines, 1, first)
  lines[#lines + 1] = exchange.response and notes(exchange, timing) or nil
  return table.concat(lines, "\n")
end

-- ---- a trace ----

local SHOWN <const> = {
  "http.response.status_code", "sluice.cache.result", "error.type", "gen_ai.usage.input_tokens",
  "gen_ai.usage.output_tokens",
}
local UNITS <const> = { ["gen_ai.usage.input_tokens"] = " in", ["gen_ai.usage.output_tokens"] = " out" }

local function note_of(span)
  local by_name, said = {}, {}
  local attributes = span.attributes or {}
  for index = 1, attributes.n or 0, 2 do by_name[attributes[index]] = attributes[index + 1] end
  for _, name in ipairs(SHOWN) do
    if by_name[name] ~= nil then said[#said + 1] = tostring(by_name[name]) .. (UNITS[name] or "") end
  end
  return #said > 0 and table.concat(said, ", ") or nil
end

local function seconds_of(span)
  return span.duration or task.now() - span.started
end

-- Deeper than this nothing is indented further.
local DEEPEST <const> = 8

local function add_span(rows, span, origin, depth)
  local from, indent = span.started - origin, ("  "):rep(math.min(depth, DEEPEST))
  rows[#rows + 1] = {
    label = indent .. span.name .. (span.duration and "" or " (runs)"),
    from = from, seconds = seconds_of(span), note = note_of(span),
  }
  local timing = timing_of(span.response, span.err)
  if timing then add_phases(rows, timing, from, indent .. "  ", nil) end
end

-- The spans in the order in which they are shown: each one's parts after it. Not by recursion.
local function ordered(span)
  local parts, children = (span.root or span).parts or {}, {}
  for _, part in ipairs(parts) do
    local siblings = children[part.parent_id] or {}
    children[part.parent_id], siblings[#siblings + 1] = siblings, part
  end
  local stack, all = { { span, 0 } }, {}
  while #stack > 0 do
    local top = table.remove(stack)
    all[#all + 1] = top
    local mine = children[top[1].span_id] or {}
    for index = #mine, 1, -1 do stack[#stack + 1] = { mine[index], top[2] + 1 } end
  end
  return all
end

---The waterfall of a span and of what is inside of it.
---@param span sluice.trace.Span
---@param columns? integer the width to keep to, 80; notes go beyond it
---@param unicode? boolean whether the terminal shows UTF-8
---@return string
function waterfall.of_span(span, columns, unicode)
  local rows, total = {}, 0
  for _, each in ipairs(ordered(span)) do add_span(rows, each[1], span.started, each[2]) end
  for _, row in ipairs(rows) do total = math.max(total, row.from + row.seconds) end
  local lines = draw(rows, total, columns or COLUMNS, unicode)
  table.insert(lines, 1, ("trace %s: %s"):format(span.trace_id, short(seconds_of(span))))
  return table.concat(lines, "\n")
end

return waterfall
