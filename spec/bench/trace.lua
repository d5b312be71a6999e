-- SPDX-License-Identifier: MIT
-- What tracing costs a request, and a span on its way to the collector.

local layers = require "sluice.layers"
local otlp = require "sluice.trace.otlp"

local CALLS <const> = 50000

local answer = { ok = true, usage = { prompt_tokens = 3, completion_tokens = 2 } }
local request = { messages = {}, max_tokens = 5 }
local bare = { name = "bare", host = "bench", query = function() return answer end }

-- Microseconds of processor time for each query.
local function cost_of(endpoint)
  local started = os.clock()
  for _ = 1, CALLS do endpoint:query(request) end
  return (os.clock() - started) / CALLS * 1e6
end

local last
local kept = { export = function(_, span) last = span end }

local around = {
  recorded = layers.trace { exporter = kept },
  passed_over = layers.trace { exporter = kept, sample = 0 },
}

local function encoding()
  local started = os.clock()
  for _ = 1, CALLS do otlp.span(last) end
  return (os.clock() - started) / CALLS * 1e6
end

local function open()
  return { {
    name = "sluice",
    run = function()
      local alone, result = cost_of(bare), {}
      for name, layer in pairs(around) do result[name] = cost_of(layer(bare)) - alone end
      result.encoded = encoding()
      return result
    end,
  } }
end

local function row(name, label, bar)
  return { key = name, label = label, unit = "us", digits = 2, better = "less", bar = bar }
end

return { {
  name = "trace",
  open = open,
  rows = {
    row("recorded", "layers.trace, a query that is recorded", 15),
    row("passed_over", "layers.trace, one that is not", 8),
    row("encoded", "a span as OTLP JSON", 15),
  },
} }
