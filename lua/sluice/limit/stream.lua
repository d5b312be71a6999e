-- SPDX-License-Identifier: MIT
-- A stream whose tokens are counted while it passes.

local meta = require "sluice.meta"
local streams = require "sluice.stream"
local usage = require "sluice.limit.usage"

local stream = {}

-- The bytes of the texts that a chunk adds.
local function written(chunk)
  local choices = type(chunk) == "table" and chunk.choices
  if type(choices) ~= "table" then return 0 end
  local bytes = 0
  for _, choice in ipairs(choices) do
    local delta = type(choice) == "table" and (choice.delta or choice)
    local text = type(delta) == "table" and (delta.content or delta.text)
    if type(text) == "string" then bytes = bytes + #text end
  end
  return bytes
end

---The same stream, which tells once, at its end, at its failure or when it is closed, what it took.
---@param inner table anything with next() and close()
---@param ended fun(total: number, output: number?) `total`: as its chunks said at last, else by the bytes of their texts
---@param input integer the estimate of the request, for where they say nothing
---@return table
function stream.watch(inner, ended, input)
  local bytes, total, output, told = 0, nil, nil, false
  local function finish()
    if told then return end
    told = true
    ended(total or input + usage.of_bytes(bytes), output)
  end
  local outer = {}
  function outer.next()
    local good, chunk, err = pcall(inner.next, inner)
    if good and chunk ~= nil then
      local sum, out = usage.of(chunk)
      if sum then total, output = sum, out end
      bytes = bytes + written(chunk)
      return chunk, err -- here the event that it came in
    end
    finish()
    if not good then error(chunk, 0) end
    return nil, err
  end
  function outer.close()
    finish()
    if inner.close then return inner:close() end
  end
  meta.share(outer, inner)
  return streams.is(inner) and streams.wrap(outer) or setmetatable(outer, { __index = inner })
end

return stream
