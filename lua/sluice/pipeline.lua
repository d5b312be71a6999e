-- SPDX-License-Identifier: MIT
-- Puts layers around an endpoint.

local known = require "sluice.layers"
local options = require "sluice.options"

local pipeline = {}

-- Indexing may itself be refused (a string, a userdata without __index).
local function has_query(value)
  local kind = type(value)
  if kind ~= "table" and kind ~= "userdata" then return false end
  local ok, query = pcall(function() return value.query end)
  return ok and query ~= nil
end

-- `layers.retry` where `layers.retry{}` is meant would take the endpoint for its options.
local function check_layer(index, layer)
  if type(layer) ~= "function" then
    options.misuse("sluice.pipeline: layer %d must be a function, got %s", index, options.type_name(layer))
  end
  for name, maker in next, known do
    if maker == layer then
      local text = "sluice.pipeline: layer %d is layers.%s itself: call it, as in layers.%s{...}"
      options.misuse(text, index, name, name)
    end
  end
end

---An endpoint inside layers, the first of them outermost. Raises when a layer is none.
---@param endpoint sluice.Endpoint anything with `query`
---@param layers? sluice.Layer[] functions from endpoint to endpoint
---@return sluice.Endpoint
function pipeline.new(endpoint, layers)
  if not has_query(endpoint) then
    local got = options.type_name(endpoint)
    options.misuse("sluice.pipeline: the endpoint must have a method query, got %s", got)
  end
  options.argument("sluice.pipeline", "layers", layers, "table?")
  layers = layers or {}
  for key in pairs(layers) do
    if math.type(key) ~= "integer" or key < 1 or key > #layers then
      options.misuse("sluice.pipeline: layers are an array, found the key %q", tostring(key))
    end
  end
  for index = #layers, 1, -1 do
    check_layer(index, layers[index])
    endpoint = layers[index](endpoint)
    if not has_query(endpoint) then
      local got = options.type_name(endpoint)
      options.misuse("sluice.pipeline: layer %d returned no endpoint, but %s", index, got)
    end
  end
  return endpoint
end

return pipeline
