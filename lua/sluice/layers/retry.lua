-- SPDX-License-Identifier: MIT
-- The layer that tries a query again.

local layers = require "sluice.layers"
local meta = require "sluice.meta"
local retry = require "sluice.retry"

local running = coroutine.running

-- The variant of a traffic.split inside that the last try of a coroutine was charged to: the next one stays there.
local charged = setmetatable({}, { __mode = "k" })

local function same_variant(attempt, inner, options)
  local variant = attempt > 1 and charged[running()]
  local variants = variant and inner.variants
  if type(variants) ~= "table" or not variants[variant] then return options end
  return layers.with_options(options, { variant = variant })
end

local function noted(value, err)
  if value == nil then charged[running()] = type(err) == "table" and meta.get(err).variant or nil end
  return value, err
end

local function query(attempt, inner, request, options)
  return noted(inner:query(request, same_variant(attempt, inner, options)))
end

local function stream(attempt, inner, request, options)
  return noted(inner:stream(request, same_variant(attempt, inner, options)))
end

-- Of an endpoint that is in no place of its own, nobody else can share the allowance.
local function budget_of(inner)
  local host = inner.host
  return type(host) == "string" and retry.budget_of(host) or retry.budget()
end

---Makes a layer that tries again by a policy, see retry.policy. A stream is tried again until its first
---content, never after. Unless `budget` says otherwise, all such layers around endpoints of one host
---share its allowance of retries; the endpoint made has it as `retry_budget`.
---@param given? sluice.RetryOptions
---@return sluice.Layer
local function retry_layer(given)
  local common = retry.policy(given, "layers.retry")
  local own = given and given.budget

  return function(inner)
    local policy, budget = common, own
    if own == nil then
      budget = budget_of(inner)
      policy = common:with_budget(budget)
    end
    return layers.around {
      query = function(_, request, options)
        if options and options.probe then return inner:query(request, options) end
        return policy:run(query, inner, request, options)
      end,
      stream = function(_, request, options) return policy:run(stream, inner, request, options) end,
      fields = { retry_budget = budget or nil },
    } (inner)
  end
end

return retry_layer
