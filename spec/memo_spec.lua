-- SPDX-License-Identifier: MIT
local memo = require "sluice.memo"

describe("memo", function()
  local function counted()
    local calls = 0
    local upper = memo.new(function(text)
      calls = calls + 1
      return type(text) == "string" and text:upper()
    end)
    return upper, function() return calls end
  end

  it("makes what a text gives once", function()
    local upper, calls = counted()
    assert.same({ "A", "A", "B" }, { upper.a, upper.a, upper.b })
    assert.equal(2, calls())
    assert.is_false(upper[1])
    assert.is_false(upper[1])
    assert.equal(4, calls())
  end)

  it("keeps no long texts, and only so many", function()
    local upper, calls = counted()
    local long = ("x"):rep(65)
    assert.equal(long:upper(), upper[long])
    assert.is_nil(next(upper))
    for index = 1, 1000 do assert.equal("N" .. index, upper["n" .. index]) end
    assert.equal("N1", upper.n1)
    assert.equal(1001, calls())
    assert.equal("M", upper.m)
    assert.same({ m = "M" }, { [next(upper)] = upper.m })
    assert.equal("N1", upper.n1)
    assert.equal(1003, calls())
  end)
end)
