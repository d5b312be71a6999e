-- SPDX-License-Identifier: MIT
local task = require "sluice.task"

describe("a task", function()
  it("gives its results to join", function()
    local sum = task.spawn(function(a, b)
      task.sleep(0.001)
      return a + b, "two"
    end, 1, 2)
    local first, second = sum:join()
    assert.are.equal(3, first)
    assert.are.equal("two", second)
  end)
end)
