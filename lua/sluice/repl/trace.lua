-- SPDX-License-Identifier: MIT
-- How the time of a request was spent: its timing record as a picture, a row for each phase.

local errors = require "sluice.errors"
local meta = require "sluice.meta"

local trace = {}

---A request that was made, and what came of it.
---@class sluice.repl.Exchange
---@field method string
---@field url string
---@field response? table
---@field err? sluice.Error

-- In the order in which they pass. What is left of the total came after the first byte.
local PHASES <const> = { "queue", "resolve", "connect", "tls", "first_byte" }
local MOST_CELLS <const>, LEAST_CELLS <const> = 40, 10 -- of a bar
local LABEL_CELLS <const> = 26 -- of a row before its bar
local LABELS <const> = { first_byte = "first byte" }

local function milliseconds(seconds)
  return ("%8.1f ms"):format(seconds * 1000)
end

-- Where a bar from `from` to `to`, of `total` seconds, begins, and its length; as short as it is, it can be seen.
local function bar(from, to, total, cells)
  if total <= 0 then return 0, 0 end
  local first = math.min(math.floor(from / total * cells + 0.5), cells - 1)
  local last = math.max(math.min(math.floor(to / total * cells + 0.5), cells), first + 1)
  return first, last - first
end

local function timing_of(exchange)
  local known = exchange.response and meta.get(exchange.response).timing
  return known or errors.is(exchange.err) and (exchange.err.timing or meta.get(exchange.err).timing) or nil
end

local function head(exchange, timing)
  local result = exchange.response and tostring(exchange.response.status)
    or errors.is(exchange.err) and exchange.err.kind or "failed"
  local total = timing and timing.total and milliseconds(timing.total):gsub("^%s+", "") or "still running"
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

---The waterfall of a request.
---@param exchange sluice.repl.Exchange
---@param columns integer the width to keep to
---@param unicode? boolean whether the terminal shows UTF-8
---@return string
function trace.waterfall(exchange, columns, unicode)
  local timing, mark = timing_of(exchange), unicode and "█" or "#"
  local cells = math.max(math.min(columns - LABEL_CELLS, MOST_CELLS), LEAST_CELLS)
  local rows = { head(exchange, timing) }
  if not timing then return rows[1] end
  local at, passed = 0, 0
  for _, phase in ipairs(PHASES) do passed = passed + (timing[phase] or 0) end
  local total = math.max(timing.total or passed, passed)
  local function add(label, seconds)
    local before, length = bar(at, at + seconds, total, cells)
    local row = ("  %-10s %s  "):format(label, milliseconds(seconds))
    rows[#rows + 1] = row .. (" "):rep(before) .. mark:rep(length)
    at = at + seconds
  end
  for _, phase in ipairs(PHASES) do
    if (timing[phase] or 0) > 0 then add(LABELS[phase] or phase, timing[phase]) end
  end
  if total > passed then add(exchange.response and "content" or "failed", total - passed) end
  rows[#rows + 1] = exchange.response and notes(exchange, timing) or nil
  return table.concat(rows, "\n")
end

return trace
