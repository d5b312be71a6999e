-- SPDX-License-Identifier: MIT
local sluice = require "sluice"
local transports = require "sluice.transports"

describe("transports", function()
  it("are loaded by name", function()
    assert.equal(transports, sluice.transports)
    for _, name in ipairs { "in_process", "faults", "cassette" } do
      assert.equal(require("sluice.transports." .. name), transports[name])
      assert.equal(transports[name], rawget(transports, name))
    end
  end)

  it("tell a wrong name, and keep what they are made of to themselves", function()
    local _, text = pcall(function() return transports.fault end)
    assert.matches('transports_spec.lua:%d+: sluice.transports has no field "fault" ', text)
    assert.is_false((pcall(function() return transports.bounds end)))
    assert.is_nil(transports[1])
  end)
end)
