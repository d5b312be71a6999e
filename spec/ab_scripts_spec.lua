-- SPDX-License-Identifier: MIT
-- The scripts of A/B tests and rollouts, as a user runs them against an emulator over HTTP; and one killed at each step.

local fixture = require "server_fixture"
local support = require "support"

local describe = support.needing("server", support.needing("sqlite", describe, pending), pending)

describe("scripts/ab_test.lua", function()
  it("says which version is better, and exits 3 where the second one is worse", function()
    local result = support.sluice("--emulator", "scripts/ab_test.lua", "0.3", "0", "500")
    assert.equal(3, result.status, result.err)
    assert.matches("model%-treatment against model%-control: worse\nthe success rate is lower by", result.out)
    assert.matches("\nsplit: as it should be", result.out)
    result = support.sluice("--emulator", "scripts/ab_test.lua", "0", "20", "500")
    assert.equal(3, result.status, result.err)
    assert.matches("answers take longer by", result.out)
  end)
end)

describe("scripts/ab_report.lua", function()
  it("reads a warehouse's table, a file of SQLite, and writes a page", function()
    local result = support.sluice("--emulator", "scripts/ab_report.lua")
    assert.equal(0, result.status, result.err)
    assert.matches("\n2 against 1: better\nanswers come sooner by", result.out)
    support.with_file("", function(path)
      local db <close> = fixture.need(require("sluice.sqlite").open(path .. ".db"))
      fixture.need(db:exec [[
        CREATE TABLE inference_log(timestamp_ms, status_code, execution_time_ms, variant);
        INSERT INTO inference_log
        VALUES (unixepoch() * 1000, 200, 5, 'a'), (unixepoch() * 1000, 200, 5, 'b')]])
      db:close()
      result = support.sluice("scripts/ab_report.lua", path .. ".db", "a", "7", path)
      os.remove(path .. ".db")
      assert.equal(0, result.status, result.err)
      assert.matches("b against a: inconclusive\na has 1 requests, and below 100 nothing", result.out)
      assert.matches("^<!doctype html>.*</html>\n$", support.read_file(path))
    end)
  end)
end)

describe("scripts/gradual_rollout.lua", function()
  it("takes a version back that fails, or takes twice as long", function()
    local script = "scripts/gradual_rollout.lua"
    for _, case in ipairs {
      { "0.2", "0", "the success rate is lower" }, { "0", "20", "answers take longer" },
    } do
      local result = support.sluice("--emulator", script, "--error-rate", case[1], "--delay", case[2],
        "--seconds", "0.8")
      assert.equal(1, result.status)
      assert.matches("rolled_back at [12][05] %%: " .. case[3], result.out)
      assert.is_nil(result.out:find "started at 50")
      assert.matches("%(RolledBack%)", result.err)
    end
  end)
end)
