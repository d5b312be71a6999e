-- SPDX-License-Identifier: MIT
-- The layer that tries a query again.

local layers = require "sluice.layers"
local retry = require "sluice.retry"

---Makes a layer that tries again by a policy, see retry.policy. A stream is tried again until it has
---begun, never after.
---@param given? sluice.RetryOptions
---@return sluice.Layer
local function retry_layer(given)
  local policy = retry.policy(given, "layers.retry")

  local function query(inner, request, options)
    return policy:run(function() return inner:query(request, options) end)
  end

  local function stream(inner, request, options)
    return policy:run(function() return inner:stream(request, options) end)
  end

  return layers.around { query = query, stream = stream }
end

return retry_layer
