-- SPDX-License-Identifier: MIT
-- The layer that bounds in time whatever is inside it.

local errors = require "sluice.errors"
local layers = require "sluice.layers"
local meta = require "sluice.meta"
local options = require "sluice.options"
local stream = require "sluice.stream"
local task = require "sluice.task"

-- The smaller of each limit.
local function tighter(limits, given)
  if given == nil then return limits end
  if type(given) == "number" then given = { total = given } end
  local copy = {}
  for name, value in pairs(given) do copy[name] = value end
  for name, value in pairs(limits) do
    if copy[name] == nil or value < copy[name] then copy[name] = value end
  end
  return copy
end

local function timed_out(inner, operation, total)
  local what = operation == "query" and "no answer" or "not complete"
  return errors.new("TimeoutError", {
    operation = operation,
    object = inner.name,
    message = ("%s within the %g s of layers.timeout"):format(what, total),
    limit = "total",
    maybe_executed = true,
  })
end

-- Calls within a deadline; what passes it is cut here as well, unless the endpoint inside keeps to the
-- limit by itself: what waits inside may be a queue, a retry, or an endpoint of the user's.
local function bounded(bound, f, ...)
  local value, err, text = task.timeout(bound.deadline - task.now(), f, ...)
  local is_ours = value == nil and errors.is(err) and err.limit == "task.timeout"
  if is_ours and task.now() >= bound.deadline then
    return nil, timed_out(bound.inner, bound.operation, bound.total)
  end
  return value, err, text
end

local function start(inner, operation, total)
  return { inner = inner, operation = operation, total = total, deadline = task.now() + total }
end

-- A stream whose every chunk comes within the deadline.
local function bounded_stream(bound, opened)
  local source = meta.share({}, opened)
  function source.next() return bounded(bound, opened.next, opened) end
  function source.close() opened:close() end
  return stream.wrap(source)
end

---Makes a layer that sets time limits: innermost for each try, outermost for all of them together.
---Where the caller gives limits too, the smaller one holds.
---@param limits number|sluice.Timeout seconds; a number is the total
---@return sluice.Layer
local function timeout_layer(limits)
  if limits == nil then options.misuse "layers.timeout: limits are needed, a number of seconds or a table" end
  limits = options.timeout("layers.timeout", limits)
  local ready = { timeout = limits } -- for the common call without options; nobody writes to it

  local function merged(given)
    if given == nil then return ready end
    local all = { timeout = nil, request_id = nil } -- makes room for both
    for name, value in next, given do all[name] = value end
    all.timeout = tighter(limits, given.timeout)
    return all
  end

  local function query(inner, request, given)
    local all = merged(given)
    local total = all.timeout.total
    if not total or inner.honours_timeout then return inner:query(request, all) end
    return bounded(start(inner, "query", total), inner.query, inner, request, all)
  end

  local function open_stream(inner, request, given)
    local all = merged(given)
    local total = all.timeout.total
    if not total or inner.honours_timeout then return inner:stream(request, all) end
    local bound = start(inner, "stream", total)
    local opened, err = bounded(bound, inner.stream, inner, request, all)
    if not opened then return nil, err end
    return bounded_stream(bound, opened)
  end

  return layers.around { query = query, stream = open_stream }
end

return timeout_layer
