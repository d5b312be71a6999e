-- SPDX-License-Identifier: MIT
-- Runs spec/random_trees.lua, and looks for errors that nobody got.

local support = require "support"

-- Under a sanitizer a program takes some ten times as long.
local scale = os.getenv "SLUICE_SLOW" and 5 or 1

local function numbers(text, pattern)
  local found = {}
  for number in text:gmatch(pattern) do found[number] = true end
  return found
end

local function run(first, last, mode)
  local result = support.sluice("spec/random_trees.lua", first, last, mode)
  if result.status ~= 0 then error(result.err, 0) end
  assert.matches("ended\n$", result.out)
  local raised, seen = numbers(result.out, "raised (%d+)"), numbers(result.out, "seen (%d+)")
  local reported = numbers(result.err, "error number (%d+)")
  local count, lost = 0, {}
  for number in pairs(raised) do
    count = count + 1
    if not seen[number] and not reported[number] then lost[#lost + 1] = number end
  end
  assert.are.same({}, lost)
  assert.is_true(count > last - first, "the programs raise too little to tell")
end

describe("random trees of tasks", function()
  it("end, and lose neither tasks nor errors", function()
    run(1, 1000 // scale)
  end)

  it("do so while the collector runs all the time", function()
    run(1001, 1000 + 150 // scale, "stress")
  end)
end)
