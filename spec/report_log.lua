-- SPDX-License-Identifier: MIT
-- Rows of inference logs for specs: of versions that are as good, worse or slower than others.

local functions = require "sluice.statistics.functions"
local random = require "sluice.random"

local report_log = {}

---A function that makes rows: `versions` maps names to { share =, errors =, median = (ms), ttft = }.
---@return fun(time: number): table row
function report_log.maker(versions, seed)
  local draw, names = random.new(seed or 1), {}
  for name in pairs(versions) do names[#names + 1] = name end
  table.sort(names)
  local function pick()
    local at = draw() * 100
    for _, name in ipairs(names) do
      at = at - versions[name].share
      if at < 0 then return name end
    end
    return names[#names]
  end
  return function(time)
    local name = pick()
    local its = versions[name]
    local is_bad = draw() < (its.errors or 0)
    local z = functions.normal_quantile(0.0005 + 0.999 * draw())
    return {
      variant = name, timestamp_ms = time, status_code = is_bad and 500 or 200,
      error_kind = is_bad and "InternalError" or nil,
      execution_time_ms = math.floor((its.median or 200) * math.exp(0.3 * z)),
      ttft_ms = its.ttft and its.ttft * (0.5 + draw()),
      input_tokens = 12, output_tokens = 80 + math.floor(40 * draw()),
    }
  end
end

---An array of rows, a second apart.
---@return table[]
function report_log.rows(count, versions, seed)
  local make, made = report_log.maker(versions, seed), {}
  for index = 1, count do made[index] = make(1.7e12 + index * 1000) end
  return made
end

return report_log
