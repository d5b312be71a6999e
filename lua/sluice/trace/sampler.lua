-- SPDX-License-Identifier: MIT
-- Which new traces are recorded: all of them, none, or a share. Where who called has decided, that holds.

local log = require "sluice.log"
local settings = require "sluice.settings"
local system = require "sluice.core.system"

local samplers = {}

local SHARES <const> = { always_on = 1, always_off = 0 }

-- What OTEL_TRACES_SAMPLER and OTEL_TRACES_SAMPLER_ARG say; all where they say nothing, or nothing that is known.
local function share_of_settings()
  local name = settings.get "OTEL_TRACES_SAMPLER"
  if not name then return 1 end
  local base = name:gsub("^parentbased_", "")
  if SHARES[base] then return SHARES[base] end
  local argument = settings.get "OTEL_TRACES_SAMPLER_ARG"
  local share = tonumber(argument or 1)
  if base == "traceidratio" and share and share >= 0 and share <= 1 then return share end
  log.warn("this sampler of traces is not known, all are recorded", { sampler = name, argument = argument })
  return 1
end

---Makes what decides whether a new trace is recorded.
---@param share number? 0 to 1; what OTEL_TRACES_SAMPLER says, else 1
---@return fun(): boolean sampler never waits
function samplers.new(share)
  share = share or share_of_settings()
  return function() return share >= 1 or system.random_float() < share end
end

---The check of an option that is a share.
---@param value any
---@return boolean is_good
---@return string what it must be
function samplers.check(value)
  return type(value) == "number" and value >= 0 and value <= 1, "a number from 0 to 1"
end

return samplers
