-- SPDX-License-Identifier: MIT
local tape = require "sluice.transports.tape"

local RECORD <const> = {
  n = 1, ended = 1.5, outcome = "whole",
  request = { method = "POST", url = "http://h/", headers = { { "a", "b" } }, body = "text" },
  response = { status = 200, reason = "OK", at = 0.5, headers = { { "c", "d" } },
    pieces = { { 0.5, "one" }, { 1.25, "t\255\0o" } } },
}

local function parse(...)
  return tape.parse("file", table.concat({ ... }, "\n") .. "\n")
end

local function problem(...)
  local records, err = parse(...)
  assert.is_nil(records)
  assert.equal("CassetteError", err.kind)
  return err.message
end

describe("transports.tape", function()
  it("gives a record back, bytes that are no UTF-8 too", function()
    local records = assert(parse(tape.head(), tape.line(RECORD)))
    assert.equal(1, #records)
    local record = records[1]
    assert.equal(2, record.line)
    assert.same(RECORD.response.pieces, record.response.pieces)
    assert.same({ "POST", "http://h/", "text" },
      { record.request.method, record.request.url, record.request.body })
    assert.same({ 1, 1.5, "whole", 200, "OK", 0.5 }, { record.n, record.ended, record.outcome,
      record.response.status, record.response.reason, record.response.at })
    assert.same({}, assert(parse(tape.head())))
  end)

  it("orders by the beginnings", function()
    local function line(n) return tape.line(setmetatable({ n = n }, { __index = RECORD })) end
    local records = assert(parse(tape.head(), line(3), "", line(1), line(2)))
    assert.same({ 1, 2, 3 }, { records[1].n, records[2].n, records[3].n })
    assert.equal(4, records[1].line)
  end)

  it("tells what is wrong with a file", function()
    assert.equal("line 1 is not that of a cassette", problem "")
    assert.equal("line 1 is not that of a cassette", problem '{"a":1}')
    assert.equal("it has version 9, this program reads version 1", problem '{"cassette":9}')
    assert.matches("^line 2 cannot be read: ", problem(tape.head(), '{"n":', tape.line(RECORD)))
    assert.equal("line 2 is no record of an exchange", problem(tape.head(), "5"))
    for _, change in ipairs {
      { '"n":1', '"n":"1"' }, { '"whole"', '"hole"' }, { '"status":200', '"status":"200"' },
      { '"at":0.5,', "" }, { '"pieces":[[0.5', '"pieces":[["0.5"' }, { "dP8Abw==", "d" },
      { '"method":"POST",', "" },
      { '"outcome":"whole"', '"outcome":"failed"' },
    } do
      local line = tape.line(RECORD)
      local from, to = assert(line:find(change[1], 1, true))
      line = line:sub(1, from - 1) .. change[2] .. line:sub(to + 1)
      assert.equal("line 2 is no record of an exchange", problem(tape.head(), line), change[1])
    end
  end)

  it("tells a last line that is cut, wherever", function()
    local content = tape.head() .. "\n" .. tape.line(RECORD) .. "\n" .. tape.line(RECORD)
    assert.equal(2, #assert(tape.parse("file", content)))
    local start = #tape.head() + 1 + #tape.line(RECORD) + 1
    for length = start + 1, #content - 1 do
      local records, err = tape.parse("file", content:sub(1, length))
      assert.is_nil(records)
      assert.matches("^line 3, the last one, is cut in the middle", err.message)
    end
  end)
end)
