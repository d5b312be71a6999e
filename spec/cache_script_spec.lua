-- SPDX-License-Identifier: MIT
-- scripts/cached_query.lua, as a user runs it.
local support = require "support"

local describe = support.needing("server", describe, pending)

describe("scripts/cached_query.lua", function()
  it("pays for each question once", function()
    local result = support.sluice("--emulator", "scripts/cached_query.lua")
    assert.equal(0, result.status, result.err)
    local lines = {}
    for line in result.out:gmatch "[^\n]+" do lines[#lines + 1] = line end
    assert.equal(7, #lines)
    assert.matches("^round 1: What is a sluice%? miss, join, join in [%d.]+ ms$", lines[1])
    assert.matches("^round 3: Who opens it%? hit, hit, hit in [%d.]+ ms$", lines[6])
    assert.matches("^2 calls for 18 requests: 12 hits, 4 joined; 2 answers kept in %d+ bytes$", lines[7])
  end)

  it("shows what goes wrong, and asks again", function()
    local result = support.sluice("--emulator", "scripts/cached_query.lua", "nowhere", "1")
    assert.equal(0, result.status, result.err)
    local kinds = "ResourceDoesNotExist, ResourceDoesNotExist, ResourceDoesNotExist"
    assert.matches("^round 1: What is a sluice%? " .. kinds, result.out)
    assert.matches("\n2 calls for 6 requests: 0 hits, 4 joined; 0 answers kept in 0 bytes\n$", result.out)
  end)
end)
