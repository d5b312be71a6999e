-- SPDX-License-Identifier: MIT
-- The layer that tries a query again.

local layers = require "sluice.layers"
local retry = require "sluice.retry"

local function query(_, inner, request, options)
  return inner:query(request, options)
end

local function stream(_, inner, request, options)
  return inner:stream(request, options)
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
