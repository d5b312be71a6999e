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
end)
