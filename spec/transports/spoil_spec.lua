-- SPDX-License-Identifier: MIT
local spoil = require "sluice.transports.spoil"
local task = require "sluice.task"

local function reader(pieces, err)
  local index = 0
  return function()
    index = index + 1
    if pieces[index] then return pieces[index] end
    return nil, err
  end
end

-- All pieces, and the err at the end.
local function drain(fault, pieces, err)
  local read, got = spoil.pieces(fault, reader(pieces, err)), {}
  while true do
    local piece, failure = read()
    if not piece then return got, failure end
    got[#got + 1] = piece
  end
end

describe("transports.spoil", function()
  it("makes answers of its own", function()
    local status, headers, body = spoil.answer { kind = "status", status = 503, json = { a = 1 },
      headers = { ["Retry-After"] = "1" } }
    assert.same({ 503, { ["retry-after"] = "1", ["content-type"] = "application/json" }, '{"a":1}' },
      { status, headers, body })
    assert.same({ 500, {}, "" }, { spoil.answer { kind = "status", status = 500 } })
    local text = { kind = "status", status = 500, body = "b", headers = { ["Content-Type"] = "text/x" } }
    assert.same({ 500, { ["content-type"] = "text/x" }, "b" }, { spoil.answer(text) })
    status, headers, body = spoil.answer { kind = "html" }
    assert.same({ 200, "text/html; charset=utf-8" }, { status, headers["content-type"] })
    assert.matches("^<!DOCTYPE html>", body)
    status, headers, body = spoil.answer { kind = "bad_json" }
    assert.same({ 200, "application/json" }, { status, headers["content-type"] })
    assert.is_nil(require("sluice.json").decode(body))
    assert.is_nil(spoil.answer { kind = "reset" })
  end)

  it("splits at the sizes that it is told", function()
    assert.same({ "a", "b", "c" }, (drain({ kind = "split", size = 1 }, { "ab", "c" })))
    local by_turns = { kind = "split", sizes = { 3, 1 } }
    assert.same({ "abc", "d", "efg", "h" }, (drain(by_turns, { "ab", "cdef", "gh" })))
    local got, err = drain({ kind = "split", size = 2 }, { "abc" }, "failed")
    assert.same({ { "ab", "c" }, "failed" }, { got, err })
    assert.same({}, (drain({ kind = "split", size = 2 }, {})))
  end)

  it("truncates cleanly and with a cut", function()
    local got, err = drain({ kind = "truncate", bytes = 3 }, { "ab", "cd" })
    assert.same({ { "ab", "c" }, "TruncatedStream", "body" }, { got, err.kind, err.phase })
    got, err = drain({ kind = "truncate", bytes = 3, clean = true }, { "ab", "cd" })
    assert.same({ "ab", "c" }, got)
    assert.is_nil(err)
    assert.same({}, (drain({ kind = "truncate", bytes = 0, clean = true }, { "ab" })))
    got, err = drain({ kind = "reset", bytes = 1 }, { "ab" })
    assert.same({ { "a" }, "TruncatedStream" }, { got, err.kind })
    assert.is_nil(spoil.pieces({ kind = "reset" }, print))
  end)

  it("stalls in the middle and loses nothing", function()
    task.simulate(function()
      local started = task.now()
      local got = drain({ kind = "stall", bytes = 3, seconds = 5 }, { "ab", "cd", "e" })
      assert.same({ "ab", "c", "d", "e" }, got)
      assert.equal(5, task.now() - started)
      assert.is_nil(spoil.pieces({ kind = "stall" }, print))
      local _, err = task.timeout(60, drain, { kind = "stall", bytes = 0 }, { "a" })
      assert.equal("task.timeout", err.limit)
    end)
  end)

  it("drips", function()
    task.simulate(function()
      local started = task.now()
      assert.same({ "ab", "c" }, (drain({ kind = "drip", pause = 2 }, { "ab", "c" })))
      assert.equal(4, task.now() - started)
      started = task.now()
      assert.same({ "a", "b", "c" }, (drain({ kind = "drip", pause = 2, size = 1 }, { "ab", "c" })))
      assert.equal(6, task.now() - started)
      for _, speed in ipairs { 0.5, 7, 100 } do
        started = task.now()
        assert.equal(("x"):rep(200), table.concat((drain({ kind = "drip", bytes_per_second = speed },
          { ("x"):rep(200) }))))
        assert.is_true(math.abs(200 / speed - (task.now() - started)) < 0.01)
      end
    end)
  end)
end)
