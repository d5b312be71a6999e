-- SPDX-License-Identifier: MIT
-- Handlers that let a running program be seen: its metrics, its tasks.

local failure = require "sluice.web.failure"
local json = require "sluice.json"
local metrics = require "sluice.metrics"
local options = require "sluice.options"
local runtime = require "sluice.metrics.runtime"
local task = require "sluice.task"

local observe = {}

local METRICS <const> = { runtime = "boolean?" }

-- Prometheus' text format.
local PAGE <const> = { ["content-type"] = "text/plain; version=0.0.4; charset=utf-8" }

---A handler for the page of a registry's metrics.
---@param registry sluice.metrics.Registry
---@param given? { runtime?: boolean } `runtime`: add the figures of this program to the registry (true)
---@return fun(request: sluice.web.Request): sluice.web.Result
function observe.metrics(registry, given)
  if not metrics.is_registry(registry) then
    options.misuse("web.metrics: a registry is needed (sluice.metrics.registry()), got %s",
      options.type_name(registry))
  end
  given = options.check("web.metrics", given, METRICS)
  if given.runtime ~= false then runtime.add(registry) end
  return function() return { body = registry:text(), headers = PAGE } end
end

-- What a proxy adds: then the caller is not who is at the other end.
local FORWARDED <const> = { "forwarded", "x-forwarded-for", "x-real-ip", "via" }

local function is_from_here(request)
  for _, name in ipairs(FORWARDED) do
    if request.headers[name] then return false end
  end
  local remote = request.remote -- nil in process
  return remote == nil or remote:find "^127%." ~= nil or remote:find "^%[?::1%f[^%x:]" ~= nil
    or remote:find "^unix" ~= nil
end

-- Rows of an answer where nobody says; more than these nobody reads.
local DEFAULT_ROWS <const>, MOST_ROWS <const> = 1000, 100000

local function rows_wanted(request)
  local wanted = math.tointeger(tonumber(request.query.limit))
  return wanted and math.max(0, math.min(wanted, MOST_ROWS)) or DEFAULT_ROWS
end

---A handler that tells every task of this program as JSON: { total, tasks = an array as task.tree() gives it, of the
---first 1,000, or as many as `?limit=` says }. Only to callers on the same machine: what comes from elsewhere or
---through a proxy gets 403. It tells of the program's inside: give it a route where you need it, and not before.
---@return fun(request: sluice.web.Request): sluice.web.Result
function observe.tasks()
  return function(request)
    if not is_from_here(request) then
      return { status = 403, json = failure.body("PermissionDenied", "only for callers on this machine") }
    end
    local tree = task.tree()
    local rows = table.move(tree, 1, math.min(#tree, rows_wanted(request)), 1, json.array {})
    return { json = { total = #tree, tasks = rows } }
  end
end

return observe
