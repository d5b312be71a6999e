-- SPDX-License-Identifier: MIT
-- The layer that bounds in time whatever is inside it.

local errors = require "sluice.errors"
local layers = require "sluice.layers"
local options = require "sluice.options"
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

local function timed_out(inner, total)
  return errors.new("TimeoutError", {
    operation = "query",
    object = inner.name,
    message = ("no answer within the %g s of layers.timeout"):format(total),
    limit = "total",
    maybe_executed = true,
  })
end

-- A query is cut here as well, unless the endpoint inside keeps to the limit by itself: what waits
-- inside may be a queue, a retry, or an endpoint of the user's.
local function bounded(inner, total, request, given)
  local started = task.now()
  local value, err = task.timeout(total, inner.query, inner, request, given)
  local is_ours = value == nil and errors.is(err) and err.limit == "task.timeout"
  if is_ours and task.now() - started >= total then return nil, timed_out(inner, total) end
  return value, err
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
    return layers.with_options(given, { timeout = tighter(limits, given.timeout) })
  end

  local function query(inner, request, given)
    local all = merged(given)
    local total = all.timeout.total
    if not total or inner.honours_timeout then return inner:query(request, all) end
    return bounded(inner, total, request, all)
  end

  local function stream(inner, request, given)
    return inner:stream(request, merged(given))
  end

  return layers.around { query = query, stream = stream }
end

return timeout_layer
