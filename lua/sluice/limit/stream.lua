-- SPDX-License-Identifier: MIT
-- A stream whose tokens are counted while it passes.

local delta = require "sluice.stream.delta"
local meta = require "sluice.meta"
local streams = require "sluice.stream"
local usage = require "sluice.limit.usage"

local stream = {}

---The same stream, which tells once, at its end, at its failure or when it is closed, what it took.
---@param inner sluice.Stream
---@param ended fun(total: number, output: number?, err: any) `total`: as its chunks said at last, else by the bytes of their texts
---@param input integer the estimate of the request, for where they say nothing
---@return sluice.Stream
function stream.watch(inner, ended, input)
  local bytes, total, output, told = 0, nil, nil, false
  local function finish(err)
    if told then return end
    told = true
    ended(total or input + usage.of_bytes(bytes), output, err)
  end
  local source = meta.share({}, inner)
  function source.next()
    local good, chunk, event = pcall(inner.next, inner)
    if not good then
      finish(chunk)
      error(chunk, 0)
    end
    if chunk == nil then
      finish(event)
      return nil, event
    end
    local sum, out = usage.of(chunk)
    if sum then total, output = sum, out end
    local text = delta.text(chunk)
    if text then bytes = bytes + #text end
    return chunk, event
  end
  function source.close()
    inner:close()
    finish()
  end
  return streams.wrap(source)
end

return stream
