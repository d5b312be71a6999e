-- SPDX-License-Identifier: MIT
-- The scripts about failures, as a user runs them: by what they print and their status.
local support = require "support"

local describe = support.needing("server", describe, pending)

describe("scripts/query_with_retry.lua", function()
  it("tells of each try, and answers", function()
    local result = support.sluice("--emulator", "scripts/query_with_retry.lua")
    assert.equal(0, result.status, result.err)
    local expected = "^try 1: TemporarilyUnavailable; again in 0%.%d%d s\n"
      .. "try 2: TooManyRequests; again in 0%.2%d s\n"
      .. "try 3: ConnectError; again in 0%.%d%d s\nanswered at try 4\n%S"
    assert.matches(expected, result.out)
  end)

  it("ends with the error that was left", function()
    local result = support.sluice("--emulator", "scripts/query_with_retry.lua", "no-such-endpoint")
    assert.equal(1, result.status)
    assert.equal("no answer after 1 tries (another one mends nothing)\n", result.out)
    assert.matches("no%-such%-endpoint.*ResourceDoesNotExist, HTTP 404", result.err)
  end)
end)

describe("scripts/query_with_timeout.lua", function()
  it("says which limit was over, and asks again where it may", function()
    local result = support.sluice("--emulator", "scripts/query_with_timeout.lua")
    assert.equal(0, result.status, result.err)
    local expected = "^TimeoutError after 0%.3 s, limit first_byte; not sent again: maybe_executed\n"
      .. "answered after %d%.%d s\n%S"
    assert.matches(expected, result.out)
  end)
end)

describe("scripts/errors.lua", function()
  it("shows each failure, its kind and what to do", function()
    local result = support.sluice("--emulator", "scripts/errors.lua")
    assert.equal(0, result.status, result.err)
    local kinds = {}
    for kind in result.out:gmatch "\n%a[^\n]-  +(%u%a+) +%l" do kinds[#kinds + 1] = kind end
    assert.same({
      "ResourceAlreadyExists", "BadRequest", "Unauthenticated", "ResourceExhausted", "TooManyRequests",
      "InvalidParameterValue", "TemporarilyUnavailable", "ServiceError", "ProtocolError", "JsonError",
      "ConnectError", "TruncatedStream", "TimeoutError", "TimeoutError",
    }, kinds)
    assert.matches("^an endpoint that is not there  ResourceDoesNotExist   mend it\n", result.out)
    assert.matches("\na rate limit, with a time      TooManyRequests        try again in 1.5 s\n", result.out)
    assert.matches("max_tokens is too large %(.* in: Received error from acme%)\n", result.out)
    assert.matches("\nsilence +TimeoutError +may have been executed\n", result.out)
  end)
end)
