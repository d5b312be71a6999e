-- SPDX-License-Identifier: MIT
local secret = require "sluice.secret"
local url = require "sluice.url"

describe("sluice.url", function()
  it("encodes every byte that could mean something else", function()
    assert.are.equal("aZ09-._~", url.encode "aZ09-._~")
    assert.are.equal("%00%20%25%26%2B%2F%3D%3F%23%C3%A9", url.encode "\0 %&+/=?#é")
    local all = {}
    for byte = 0, 255 do all[#all + 1] = string.char(byte) end
    all = table.concat(all)
    assert.are.equal(all, url.decode(url.encode(all)))
    assert.are.equal("100% x%z", url.decode "100%25 x%z")
  end)

  it("writes queries in a fixed order", function()
    local map = { b = "x y", a = 1, c = { 1, "two" }, d = true }
    assert.are.equal("a=1&b=x%20y&c=1&c=two&d=true", url.query(map))
    assert.are.equal("z=1&a=2&z=3", url.query { { "z", 1 }, { "a", "2" }, { "z", 3 } })
    assert.are.equal("k=abc%2B", url.query { k = secret.new "abc+" })
    assert.are.equal("", url.query {})
    assert.are.equal("e=", url.query { e = "" })
  end)

  it("writes forms", function()
    assert.are.equal("a+b=c%2Bd+e", url.form { ["a b"] = "c+d e" })
  end)

  it("adds to what is there", function()
    local more = { q = 1 }
    assert.are.equal("http://h/?q=1", url.with_query("http://h/", more))
    assert.are.equal("http://h/?a=b&q=1", url.with_query("http://h/?a=b", more))
    assert.are.equal("http://h/?q=1", url.with_query("http://h/?", more))
    assert.are.equal("http://h/?a&q=1#f?g", url.with_query("http://h/?a#f?g", more))
    assert.are.equal("http://h/#f", url.with_query("http://h/#f", {}))
  end)

  it("raises for what has no text", function()
    for _, wrong in ipairs { { a = print }, { a = { b = { 1 } } , c = { {} } }, { 1, 2 }, { { 1, 2 } } } do
      assert.has_error(function() url.query(wrong) end)
    end
  end)
end)
