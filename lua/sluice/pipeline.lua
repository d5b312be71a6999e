-- SPDX-License-Identifier: MIT
-- Puts layers around an endpoint.

local options = require "sluice.options"

local pipeline = {}

-- Indexing may itself be refused (a string, a userdata without __index).
local function has_query(value)
  local kind = type(value)
  if kind ~= "table" and kind ~= "userdata" then return false end
  local ok, query = pcall(function() return value.query end)
  return ok and query ~= nil
end

---An endpoint inside layers, the first of them outermost. Raises when a layer is none.
---@param endpoint sluice.Endpoint anything with `query`
---@param layers? sluice.Layer[] functions from endpoint to endpoint
---@return sluice.Endpoint
function pipeline.new(endpoint, layers)
  if not has_query(endpoint) then
    error(("sluice.pipeline: the endpoint must have a method query, got %s"):format(
      options.type_name(endpoint)), 2)
  end
  options.argument("sluice.pipeline", "layers", layers, "table?")
  layers = layers or {}
  for key in pairs(layers) do
    if math.type(key) ~= "integer" or key < 1 or key > #layers then
      error(("sluice.pipeline: layers are an array, found the key %q"):format(tostring(key)), 2)
    end
  end
  for index = #layers, 1, -1 do
    local layer = layers[index]
    if type(layer) ~= "function" then
      error(("sluice.pipeline: layer %d must be a function, got %s"):format(
        index, options.type_name(layer)), 2)
    end
    endpoint = layer(endpoint)
    if not has_query(endpoint) then
      error(("sluice.pipeline: layer %d returned no endpoint, but %s"):format(
        index, options.type_name(endpoint)), 2)
    end
  end
  return endpoint
end

return pipeline
