-- SPDX-License-Identifier: MIT
local meta = require "sluice.meta"

describe("meta", function()
  it("adds facts without writing into the object", function()
    local response = { choices = {} }
    assert.equal(response, meta.set(response, { status = 200, timing = 1 }))
    meta.set(response, { timing = 2 })
    assert.same({ status = 200, timing = 2 }, meta.get(response))
    assert.same({ choices = {} }, response)
  end)

  it("knows nothing of other values, and says so with an empty table", function()
    assert.same({}, meta.get({}))
    assert.same({}, meta.get("text"))
    assert.same({}, meta.get(nil))
  end)

  it("asks the object's metatable for what was known from the start, once", function()
    local asked = 0
    local function facts()
      asked = asked + 1
      return { timing = 1, status = 200 }
    end
    local first, second = setmetatable({}, { __facts = facts }), setmetatable({}, { __facts = facts })
    assert.same({ timing = 1, status = 200 }, meta.get(first))
    meta.set(first, { timing = 2 })
    assert.same({ timing = 2, status = 200 }, meta.get(first))
    assert.equal(1, asked)
    meta.set(second, { more = 3 })
    assert.same({ timing = 1, status = 200, more = 3 }, meta.get(second))
    assert.same({}, meta.get(setmetatable({}, { __facts = function() return nil end })))
  end)

  it("makes facts when they are asked for first", function()
    local made = 0
    local function make()
      made = made + 1
      return { status = 200, timing = 1 }
    end
    local first, second, third = {}, {}, {}
    assert.equal(first, meta.later(first, make))
    assert.equal(0, made)
    assert.same({ status = 200, timing = 1 }, meta.get(first))
    assert.equal(meta.get(first), meta.get(first))
    assert.equal(1, made)
    meta.later(second, make)
    meta.set(second, { timing = 2 })
    assert.same({ status = 200, timing = 2 }, meta.get(second))
    meta.set(third, { more = 3 })
    meta.later(third, make)
    assert.same({ status = 200, timing = 1, more = 3 }, meta.get(third))
  end)

  it("tells what is at hand without making it", function()
    local first, second = meta.later({}, function() return { status = 200 } end), {}
    assert.is_nil(meta.at_hand(first))
    assert.is_nil(meta.at_hand(second))
    meta.set(first, { attempts = 2 })
    assert.same({ status = 200, attempts = 2 }, meta.at_hand(first))
  end)

  it("forgets with the object", function()
    local kept = setmetatable({}, { __mode = "v" })
    do
      local response = {}
      kept[1] = { "the fact" }
      meta.set(response, { fact = kept[1] })
    end
    collectgarbage() collectgarbage()
    assert.is_nil(kept[1])
  end)
end)
