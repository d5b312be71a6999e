-- SPDX-License-Identifier: MIT
-- What layers cost a request when nothing fails: a query through the layer, less one without it.

local layers = require "sluice.layers"

local CALLS <const> = 200000

local answer, request = { ok = true }, { messages = {} }
local bare = { name = "bare", host = "bench", query = function() return answer end }

-- Microseconds of processor time for each query.
local function cost_of(endpoint)
  local started = os.clock()
  for _ = 1, CALLS do endpoint:query(request) end
  return (os.clock() - started) / CALLS * 1e6
end

local around = {
  retry = layers.retry { attempts = 3 },
  breaker = layers.breaker {},
}

local function open()
  return { {
    name = "sluice",
    run = function()
      local alone, result = cost_of(bare), {}
      for name, layer in pairs(around) do result[name] = cost_of(layer(bare)) - alone end
      return result
    end,
  } }
end

local function row(name, label)
  return { key = name, label = label, unit = "us", digits = 3, better = "less", bar = 1 }
end

return { {
  name = "retry",
  open = open,
  rows = { row("retry", "layers.retry, nothing fails"), row("breaker", "layers.breaker, nothing fails") },
} }
