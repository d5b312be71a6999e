-- SPDX-License-Identifier: MIT
local message = require "sluice.transports.message"
local secret = require "sluice.secret"

describe("transports.message", function()
  it("works out the shorthands of a copy", function()
    local key = secret.new "a-key-of-eight"
    local given = { url = "http://h/?a=1", json = { b = 2 }, query = { c = 3 },
      headers = { ["X-Key"] = key } }
    local normal = message.normal("x", given)
    assert.same({ "POST", "http://h/?a=1&c=3", '{"b":2}' }, { normal.method, normal.url, normal.body })
    assert.equal("application/json", normal.headers["content-type"])
    assert.is_true(rawequal(key, normal.headers["x-key"]))
    assert.same({ normal.json, normal.query }, {})
    assert.same({ nil, { b = 2 }, { ["X-Key"] = key } }, { given.method, given.json, given.headers })
    assert.same({ "GET", "/p?c=3" }, (function(m) return { m.method, m.path } end)(
      message.normal("x", { path = "/p", query = { c = 3 } })))
    normal = message.normal("x", { path = "/", form = { a = "b c" },
      headers = { ["Content-Type"] = "mine" } })
    assert.same({ "a=b+c", "mine" }, { normal.body, normal.headers["content-type"] })
    normal = message.normal("x", { path = "/", multipart = { a = "b" } })
    assert.matches("multipart/form%-data", normal.headers["content-type"])
  end)

  it("raises for what is none", function()
    local function misuse(given) return select(2, pcall(message.normal, "x", given)) end
    assert.matches('x: argument "request" must be a table, got nil', misuse(nil))
    assert.matches('x: argument "headers" must be a table, got string', misuse { url = "", headers = "a" })
    assert.matches("x: one of url and path is needed", misuse {})
  end)
end)
