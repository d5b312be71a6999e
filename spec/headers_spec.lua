-- SPDX-License-Identifier: MIT
local headers = require "sluice.headers"
local json = require "sluice.json"
local secret = require "sluice.secret"

describe("headers", function()
  it("become a plain object in JSON: first values, names in lower case, no secret", function()
    local fields = headers.new {
      { "Content-Type", "text/plain" }, { "X-Twice", "a" }, { "x-twice", "b" },
      { "Authorization", secret.new "dapi-spec-headers" },
    }
    assert.equal('{"authorization":"***","content-type":"text/plain","x-twice":"a"}',
      json.encode(fields, { canonical = true }))
    assert.equal("{}", json.encode(headers.new()))
    assert.same({ "a", "b" }, headers.all(fields, "X-TWICE"))
  end)

  it("are read in any case, the first of a name", function()
    for _, fields in ipairs {
      headers.new { { "A", "1" }, { "b", "2" }, { "a", "3" } },
      headers.adopt { "A", "1", "b", "2", "a", "3" },
    } do
      assert.same({ "1", "1", "2" }, { fields.a, fields.A, fields.B })
      assert.is_nil(fields.c)
      assert.is_nil(fields[1])
      assert.equal(3, #fields)
      assert.same({ { "A", "1" }, { "b", "2" }, { "a", "3" } }, headers.list(fields))
    end
  end)

  it("are changed after they were read", function()
    local fields = headers.new { { "a", "1" }, { "b", "2" }, { "A", "3" } }
    assert.equal("1", fields.a)
    fields.A = "4"
    assert.same({ { "b", "2" }, { "A", "4" } }, headers.list(fields))
    assert.equal("4", fields.a)
    headers.add(fields, "c", "5")
    headers.add(fields, "C", "6")
    assert.equal("5", fields.c)
    assert.same({ "5", "6" }, headers.all(fields, "c"))
    fields.b = nil
    assert.is_nil(fields.b)
    assert.equal(3, #fields)
  end)

  it("are copied, and stay in order while they are walked and changed", function()
    local first = headers.new { a = { "1", "2" }, ["b"] = "3" }
    local second = headers.new(first)
    second.a = nil
    assert.same({ "1", "2" }, headers.all(first, "a"))
    local seen = {}
    for name, value in pairs(first) do
      first[name] = nil
      seen[#seen + 1] = value
    end
    table.sort(seen)
    assert.same({ "1", "2", "3" }, seen)
    assert.equal(0, #first)
  end)

  it("gives the fields in one array", function()
    local object = headers.new { { "A", "1" }, { "b", "2" }, { "a", "3" } }
    assert.same({ "A", "1", "b", "2", "a", "3" }, headers.fields(object))
    assert.equal(headers.fields(object), headers.fields(object))
    assert.same({ "X", "1", "X", "2" }, headers.fields { X = { "1", "2" } })
  end)
end)
