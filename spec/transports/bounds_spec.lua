-- SPDX-License-Identifier: MIT
local bounds = require "sluice.transports.bounds"
local meta = require "sluice.meta"
local response = require "sluice.response"
local task = require "sluice.task"

describe("transports.bounds", function()
  it("runs and sleeps up to the nearest limit of the phase", function()
    task.simulate(function()
      local bound = bounds.start("x", { url = "http://h/p", method = "PUT",
        timeout = { first_byte = 5, idle = 3, total = 12 } })
      assert.same({ 1, 2 }, { bound:run("head", function() return 1, 2 end) })
      assert.is_true(bound:sleep("head", 2))
      local slept, err = bound:sleep("head", 100)
      assert.is_nil(slept)
      assert.same({ "first_byte", "first_byte", 5 }, { err.limit, err.phase, task.now() })
      assert.is_true(bound:sleep("body", 2))
      slept, err = bound:run("body", function() task.sleep(100) end)
      assert.is_nil(slept)
      assert.same({ "idle", "body", 10 }, { err.limit, err.phase, task.now() })
      assert.equal("PUT http://h/p: no data for 3 s, after 0 bytes (TimeoutError)", tostring(err))
      slept, err = bound:sleep("body", 100)
      assert.is_nil(slept)
      assert.same({ "total", 12 }, { err.limit, task.now() })
    end)
  end)

  it("leaves a failure of f's own alone", function()
    task.simulate(function()
      local bound = bounds.start("x", { url = "http://h", timeout = 10 })
      local _, err = bound:run("head", task.timeout, 1, task.sleep, 5)
      assert.equal("task.timeout", err.limit)
    end)
  end)

  it("takes no limit for none", function()
    task.simulate(function()
      local unlimited = { total = math.huge, first_byte = math.huge }
      local bound = bounds.start("x", { url = "http://h", timeout = unlimited })
      assert.is_true(bound:sleep("head", 1e6))
      assert.is_true(bound:run("head", function() return true end))
    end)
  end)

  it("responds with all of it, or piece by piece", function()
    local function respond(stream, most)
      local closed, count = 0, 0
      local inner = meta.set(response.new {
        status = 201, reason = "Made", headers = { a = "b" },
        read = print, close = function() closed = closed + 1 end,
      }, { timing = "t" })
      local bound = bounds.start("x", { path = "/", stream = stream, max_response = most })
      local res, err = bound:respond(inner, stream, function()
        count = count + 1
        return count < 3 and "abc" or nil
      end, { more = 1 })
      return res, err, function() return closed end
    end
    local res, _, closed = respond(false)
    assert.same({ 201, "Made", "b", "abcabc", 1 },
      { res.status, res.reason, res.headers.a, res.body, closed() })
    assert.same({ "t", 1 }, { meta.get(res).timing, meta.get(res).more })
    res, _, closed = respond(true)
    assert.equal("abc", res:read())
    assert.equal(0, closed())
    res:close()
    assert.equal(1, closed())
    local none, err, closed_too = respond(false, 5)
    assert.is_nil(none)
    assert.same({ "RESPONSE_TOO_LARGE", 1 }, { err.code, closed_too() })
    res = respond(true, 5)
    res:read()
    assert.equal("RESPONSE_TOO_LARGE", select(2, res:read()).code)
  end)
end)
