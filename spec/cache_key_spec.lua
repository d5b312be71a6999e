-- SPDX-License-Identifier: MIT
local cache = require "sluice.cache"
local digest = require "sluice.core.digest"
local identity = require "sluice.cache.identity"
local json = require "sluice.json"
local secret = require "sluice.secret"

local sha256 = digest.new(json.array_mt)

local function key(request, given)
  return cache.key(request, given)
end

local function same(a, b)
  assert.are.equal(key { a }, key { b })
end

local function apart(a, b)
  assert.are_not.equal(key { a }, key { b })
end

describe("the digest", function()
  it("is SHA-256", function() -- FIPS 180-2, appendix B
    assert.are.equal("e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855", sha256 "")
    assert.are.equal("ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad", sha256 "abc")
    assert.are.equal("cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0",
      sha256(("a"):rep(1000000)))
  end)

  it("stays what it is: what was kept under it is found again", function()
    local request = {
      messages = { { role = "user", content = "hi" } }, temperature = 0.5, n = -3, stop = json.null,
      tools = json.array {}, metadata = {}, logprobs = true, echo = false, stream = true,
    }
    local scope = "5:-,-,-,-" -- no namespace, host, name; no served model
    local form = "i\x02" .. "s\x09" .. scope -- the version, whom it goes to
      .. "{s\4echof" .. "s\8logprobst"
      .. "s\8messages[{s\7contents\2his\4roles\4user}]" .. "s\8metadata{}"
      .. "s\1ni\5" .. "s\4stopn"
      .. "s\11temperatured" .. ("<d"):pack(0.5) .. "s\5tools[]}"
    assert.are.equal("sluice1:" .. sha256(form), key(request))
    assert.are.equal(key(request), key(assert(json.decode(json.encode(request)))))
  end)
end)

describe("cache.key", function()
  it("does not depend on the order of keys", function()
    local names = {}
    for index = 1, 300 do names[index] = ("%x"):format(index * 7919 % 1009) end
    for _, count in ipairs { 2, 10, 32, 33, 100, 300 } do
      local forward, backward = {}, {}
      for index = 1, count do
        forward[names[index]] = index
        backward[names[count + 1 - index]] = count + 1 - index
      end
      same(forward, backward)
      forward[names[1]] = -1
      apart(forward, backward)
    end
  end)

  it("takes numbers as JSON does", function()
    same(1, 1.0)
    same(0, -0.0)
    same(1 << 53, 2.0 ^ 53)
    same(math.mininteger, -2.0 ^ 63)
    apart(1, 1.5)
    apart(1, "1")
    apart(1, true)
    apart(2.0 ^ 63, math.maxinteger)
    apart(1e300, 1e301)
    apart(0.1, 0.2)
    apart(-1, 1)
    apart(63, 64)
    apart((1 << 53) + 1, 1 << 53)
  end)

  it("tells arrays from objects, and values from each other", function()
    apart({}, json.array {})
    apart({ 1 }, { ["1"] = 1 })
    apart(json.null, false)
    apart("", json.null)
    apart({ "a", "b" }, { "ab" })
    apart({ { "a" }, "b" }, { { "a", "b" } })
    apart({ a = { b = 1 } }, { a = {}, b = 1 })
    apart({ a = json.null }, {})
    apart("a\0b", "a\0c")
    same({ 1, 2 }, json.array { 1, 2 })
    same({ [2] = 2, [1] = 1 }, { 1, 2 })
  end)

  it("sees every part of a long text", function()
    for _, size in ipairs { 1, 127, 128, 1000, 1013, 1014, 1024, 2047, 5000, 100000 } do
      local text = ("x"):rep(size)
      same({ "a", text, "b" }, { "a", text, "b" })
      apart({ "a", text, "b" }, { "a", text:sub(1, -2) .. "y", "b" })
      apart({ "a", text, "b" }, { "a", "y" .. text:sub(2), "b" })
      apart({ "a", text, "b" }, { "a", text .. "x", "b" })
    end
  end)

  it("leaves out how the answer comes, at the top only", function()
    local plain = { messages = { { role = "user" } } }
    local streamed = { messages = plain.messages, stream = true, stream_options = { include_usage = true } }
    assert.are.equal(key(plain), key(streamed))
    apart({ stream = true }, {})
  end)

  it("depends on whom it goes to", function()
    local request, seen = { messages = {} }, {}
    for _, given in ipairs {
      {}, { endpoint = "a" }, { endpoint = "b" }, { endpoint = { name = "a", host = "h" } },
      { endpoint = { host = "a" } }, { endpoint = "a", served_model = "m" }, { served_model = "a" },
      { namespace = "a" }, { namespace = "a", endpoint = "a" }, { endpoint = "1:a" },
    } do
      local text = key(request, given)
      assert.is_nil(seen[text])
      seen[text] = true
    end
    assert.matches("^sluice1:tenant 7:%x+$", key(request, { namespace = "tenant 7" }))
    assert.are.equal(key(request, { endpoint = "a" }),
      key(request, { endpoint = { name = "a", query = print } }))
    assert.are.equal(key(request, { endpoint = "a", namespace = "n" }),
      identity.new("n", nil, "a"):key(request, nil))
  end)

  it("follows the JSON codec", function()
    local converts = setmetatable({}, { __tojson = function() return { a = 1 } end })
    same(converts, { a = 1 })
    same({ a = setmetatable({}, { __tojson = function() return nil end }) }, { a = json.null })
    for _, bad in ipairs {
      print, 0 / 0, math.huge, { 1, nil, 3, [5] = 5 }, { 1, a = 1 }, { a = 1, [1] = 1 }, { [1.5] = 1 },
      secret.new "x", setmetatable({}, { __name = "thing" }), io.stdout, coroutine.create(print),
    } do
      assert.has_error(function() key { messages = { { content = bad } } } end)
    end
    local ok, message = pcall(key, { messages = { { content = print } } })
    assert.is_false(ok)
    assert.matches("cache_key_spec%.lua.*messages%[1%]%.content", message)
  end)

  it("holds when making a value takes another key, or takes the object apart", function()
    local inner = { other = ("x"):rep(3000) }
    local function nested() return { digest = key(inner):sub(1, 3) } end
    local value = setmetatable({}, { __tojson = nested })
    same({ a = ("y"):rep(2000), b = value, c = 1 }, { a = ("y"):rep(2000), b = nested(), c = 1 })
    for _, count in ipairs { 3, 60 } do
      local object, copy = {}, {}
      for index = 1, count do object["key " .. index] = "value " .. index end
      for name, each in pairs(object) do copy[name] = each end
      copy.aaa = "gone"
      object.aaa = setmetatable({}, { __tojson = function()
        for name in pairs(object) do object[name] = nil end
        collectgarbage()
        return "gone"
      end })
      local expected = key { copy }
      assert.are.equal(expected, key { object })
    end
  end)

  it("goes as deep as the JSON codec does, and no deeper", function()
    local function nest(depth, innermost)
      local value = innermost
      for level = 1, depth do value = level % 2 == 0 and { value } or { a = value, b = 1 } end
      return value
    end
    same(nest(990, 1), nest(990, 1))
    apart(nest(990, 1), nest(990, 2))
    assert.has_error(function() key { nest(1001, 1) } end)
    local round = {}
    round[1] = round
    assert.has_error(function() key { round } end)
  end)

  -- Random values: two of them have one key when they are one JSON document, and only then.
  local function random_value(depth)
    local what = math.random(depth > 0 and 8 or 5)
    if what == 1 then return math.random(-2, 2) end
    if what == 2 then return math.random(-2, 2) / 2 end
    if what == 3 then return ("ab"):rep(math.random(0, 2)):sub(math.random(1, 2)) end
    if what == 4 then return math.random(2) == 1 end
    if what == 5 then return json.null end
    local made = what == 6 and json.array {} or {}
    for index = 1, math.random(0, 3) do
      made[what == 6 and index or ("k" .. math.random(3))] = random_value(depth - 1)
    end
    return made
  end

  -- As JSON text in which numbers that are equal are written alike.
  local function plain(value)
    if type(value) ~= "table" then
      local whole = math.type(value) == "float" and math.tointeger(value)
      return whole or value
    end
    local copy = setmetatable({}, getmetatable(value))
    for name, each in pairs(value) do copy[name] = plain(each) end
    return copy
  end

  it("is one for each JSON document", function()
    math.randomseed(11)
    local by_text, by_key = {}, {}
    for _ = 1, 20000 do
      local value = random_value(3)
      local text, made = json.encode(plain(value), { canonical = true }), key { value }
      assert(by_text[text] == nil or by_text[text] == made, text)
      assert(by_key[made] == nil or by_key[made] == text, text)
      by_text[text], by_key[made] = made, text
    end
  end)

  it("refuses other options", function()
    assert.has_error(function() key("text") end)
    assert.has_error(function() key({}, { name_space = "x" }) end)
    assert.has_error(function() key({}, { namespace = "" }) end)
  end)
end)
