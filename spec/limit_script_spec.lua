-- SPDX-License-Identifier: MIT
-- scripts/rate_limits.lua, as a user runs it.
local support = require "support"

support.needing("server", describe, pending)("scripts/rate_limits.lua", function()
  it("keeps to its rate, and waits once for all where the server says 429", function()
    local result = support.sluice("--emulator", "scripts/rate_limits.lua")
    assert.equal(0, result.status, result.err)
    local seconds = tonumber(result.out:match "^40 of 40 answered in ([%d.]+) s, 3 tries again\n")
    assert.is_truthy(seconds, result.out)
    assert.is_true(seconds >= 0.9, "40 requests, 10 at once, 50 a second, and half a second of pause")
    assert.matches("\n43 requests let through, %d+ had to wait, ", result.out)
    local pauses, tokens = result.out:match "\n(%d+) pauses after a 429, 0 turned away, (%d+) tokens\n$"
    assert.is_true(tonumber(pauses) >= 1 and tonumber(pauses) <= 3, result.out)
    assert.is_true(tonumber(tokens) > 200, result.out)
  end)

  it("fails where all fails", function()
    local result = support.sluice("--emulator", "scripts/rate_limits.lua", "nowhere", "2")
    assert.equal(1, result.status)
    assert.matches("^0 of 2 answered", result.out)
    assert.matches("ResourceDoesNotExist", result.err)
  end)
end)
