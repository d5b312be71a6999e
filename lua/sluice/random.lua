-- SPDX-License-Identifier: MIT
-- A seeded generator (SplitMix64): its own state, so that neither math.random nor another model is disturbed.

local random = {}

local increment <const> = -0x61c8864680b583eb -- 0x9e3779b97f4a7c15, the constant of SplitMix64
local unit <const> = 1 / (1 << 53)

local function mix(z)
  z = (z ~ (z >> 30)) * -0x40a7b892e31b1a47
  z = (z ~ (z >> 27)) * -0x6b2fb644ecceee15
  return z ~ (z >> 31)
end

---A generator of floats in [0, 1): the same seed gives the same series.
---@param seed integer
---@return fun(): number
function random.new(seed)
  local state = seed
  return function()
    state = state + increment
    return (mix(state) >> 11) * unit
  end
end

---A 64-bit hash of a string (FNV-1a, then mixed): the same on every machine.
---@param text string
---@return integer
function random.hash(text)
  local h = -0x340d631b7bdddcdb -- 0xcbf29ce484222325, the offset of FNV-1a
  for i = 1, #text do h = (h ~ text:byte(i)) * 0x100000001b3 end
  return mix(h)
end

return random
