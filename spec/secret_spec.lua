-- SPDX-License-Identifier: MIT
local json = require "sluice.json"
local secret = require "sluice.secret"

local TOKEN = "dapi-0123456789abcdef"

describe("a secret", function()
  local hidden = secret.new(TOKEN)

  it("reads as stars", function()
    assert.equal("***", tostring(hidden))
    assert.equal("token ***", ("token %s"):format(hidden))
  end)

  it("is revealed on purpose only", function()
    assert.equal(TOKEN, secret.reveal(hidden))
    assert.equal("plain", secret.reveal("plain"))
    assert.is_nil(secret.reveal(nil))
  end)

  it("cannot be joined, listed, indexed or changed", function()
    assert.has_error(function() return "Bearer " .. hidden end)
    assert.has_error(function() return hidden .. "x" end)
    assert.has_error(function() hidden.x = 1 end)
    for _ in pairs(hidden) do error("a field was listed") end
    assert.is_nil(next(hidden))
    assert.is_nil(hidden.bytes)
    assert.is_nil(getmetatable(hidden).__index)
  end)

  it("does not come out through json", function()
    local ok, text = pcall(json.encode, { token = hidden })
    assert.is_nil(tostring(text):find(TOKEN, 1, true))
    assert.is_false(ok)
  end)

  it("compares by its bytes", function()
    assert.is_true(secret.equals(hidden, TOKEN))
    assert.is_true(secret.equals(TOKEN, hidden))
    assert.is_true(hidden == secret.new(TOKEN))
    assert.is_false(secret.equals(hidden, TOKEN .. "x"))
    assert.is_false(secret.equals(hidden, "dapi-0123456789abcdeF"))
    assert.is_false(secret.equals(hidden, nil))
  end)

  it("is made of a text, another secret, or parts of both", function()
    assert.equal(hidden, secret.new(hidden))
    assert.equal("Bearer " .. TOKEN, secret.reveal(secret.join("Bearer ", hidden)))
    assert.is_true(secret.is(hidden))
    assert.is_false(secret.is(TOKEN))
    assert.has_error(function() secret.new(42) end)
  end)
end)

describe("secret.mask_json", function()
  it("finds a secret as JSON writes it", function()
    local token = secret.new 'a "quoted" secret\n'
    local text = require("sluice.json").encode { text = 'x a "quoted" secret\n y' }
    assert.equal('{"text":"x *** y"}', secret.mask_json(text))
    assert.is_true(secret.is(token))
  end)
end)

describe("secret.mask", function()
  it("replaces every live secret", function()
    local one, two = secret.new("first-secret-value"), secret.new("second-secret")
    local text = "a first-secret-value, b second-secret, a first-secret-value"
    assert.equal("a ***, b ***, a ***", secret.mask(text))
    assert.is_true(secret.is(one) and secret.is(two))
  end)

  it("does not uncover the rest of a longer one", function()
    local short, long = secret.new("abcdefgh"), secret.new("abcdefgh-and-more")
    assert.equal("x *** y ***", secret.mask("x abcdefgh-and-more y abcdefgh"))
    assert.is_true(secret.is(short) and secret.is(long))
  end)

  it("leaves short ones, which are parts of words", function()
    local short = secret.new("the")
    assert.equal("the other", secret.mask("the other"))
    assert.is_true(secret.is(short))
  end)
end)
