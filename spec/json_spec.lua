-- SPDX-License-Identifier: MIT
-- JSON: what is read, and what is written, exactly.

local json = require "sluice.json"
local same = require "json_same"

local null, array = json.null, json.array

local function reads(text, expected, options)
  local value, err = json.decode(text, options)
  assert.is_nil(err)
  assert.is_true(same(value, expected), ("%q was read as %s"):format(text, json.encode(value)))
end

local function writes(value, expected)
  assert.are.equal(expected, json.encode(value))
end

local function raises(pattern, f, ...)
  local ok, message = pcall(f, ...)
  assert.is_false(ok)
  assert.matches(pattern, message)
end

describe("json.decode", function()
  it("reads the words, numbers and strings", function()
    reads("null", null)
    reads("true", true)
    reads("false", false)
    reads(" \t\r\n7 ", 7)
    reads('""', "")
    reads('"a"', "a")
    reads([["\"\\\/\b\f\n\r\t"]], "\"\\/\b\f\n\r\t")
    reads('"\127"', "\127")
  end)

  it("reads numbers as integers where they are, as floats otherwise", function()
    reads("0", 0)
    reads("-1", -1)
    reads("1.0", 1.0)
    reads("1e2", 100.0)
    reads("1E+2", 100.0)
    reads("25e-1", 2.5)
    reads("-0", -0.0)
    reads("-0.0", -0.0)
    reads("0e5", 0.0)
    reads("9007199254740993", 9007199254740993)
    reads("9223372036854775807", math.maxinteger)
    reads("-9223372036854775808", math.mininteger)
    reads("9223372036854775808", 9223372036854775808.0)
    reads("-9223372036854775809", -9223372036854775808.0)
    reads("123456789012345678901234567890", 123456789012345678901234567890.0)
  end)

  it("rounds every number correctly", function()
    reads("2.2250738585072011e-308", 2.2250738585072011e-308) -- the text that hung Java and PHP
    reads("4.9e-324", 4.9e-324)
    reads("2.4703282292062327e-324", 0.0)
    reads("2.4703282292062328e-324", 4.9e-324)
    reads("1e-400", 0.0)
    reads("1.7976931348623157e308", 1.7976931348623157e308)
    reads("1.7976931348623158079e308", 1.7976931348623157e308)
    reads("9007199254740993.0", 9007199254740992.0) -- half way: to even
    reads("9007199254740993.00000000000000000000001", 9007199254740994.0)
    reads("0." .. ("0"):rep(400) .. "1e401", 1.0)
    reads(("1"):rep(300) .. ".0e-299", tonumber(("1"):rep(300) .. ".0e-299"))
  end)

  it("reads escapes, and U+FFFD for half of a surrogate pair", function()
    reads([["\u0041\u00e9\u20AC\ud83d\ude00"]], "A\u{e9}\u{20ac}\u{1f600}")
    reads([["\u0000"]], "\0")
    reads([["\ud800"]], "\u{fffd}")
    reads([["\udc00x"]], "\u{fffd}x")
    reads([["\ud800\u0041"]], "\u{fffd}A")
    reads([["\ud800\ud800\udc00"]], "\u{fffd}\u{10000}")
    reads([["\ud83d \ude00"]], "\u{fffd} \u{fffd}")
    reads([["\ud800\n"]], "\u{fffd}\n")
    reads([["\uFFFF\u007f"]], "\u{ffff}\127")
  end)

  it("reads strings of every length around the words they are scanned by", function()
    for length = 0, 70 do
      local text = ("x"):rep(length)
      reads('"' .. text .. '"', text)
      reads('["' .. text .. '"]', array { text })
      reads('{"' .. text .. '":"' .. text .. [[\n"}]], { [text] = text .. "\n" })
      reads('"' .. text .. '\u{e9}\u{6c34}' .. text .. '"', text .. "\u{e9}\u{6c34}" .. text)
    end
  end)

  it("reads containers, keeps [] and {} apart", function()
    reads("[]", array {})
    reads("{}", {})
    reads("[ 1 , [ ] , { } ]", array { 1, array {}, {} })
    reads('{ "a" : { "b" : [ null ] } , "" : 0 }', { a = { b = array { null } }, [""] = 0 })
    assert.is_true(json.is_array(json.decode "[]"))
    assert.is_true(json.is_array(json.decode "[1]"))
    assert.is_false(json.is_array(json.decode "{}"))
    assert.are.equal(json.array_mt, getmetatable(json.decode "[]"))
  end)

  it("lets the last of equal keys win", function()
    reads('{"a":1,"b":2,"a":3}', { a = 3, b = 2 })
    local members = {}
    for i = 1, 5000 do members[i] = ('"k%d":%d'):format(i % 7, i) end
    local value = json.decode("{" .. table.concat(members, ",") .. "}")
    assert.are.equal(5000, value["k" .. 5000 % 7])
    assert.are.equal(4999, value["k" .. 4999 % 7])
  end)

  it("reads arrays and objects of any size", function()
    for _, count in ipairs { 1, 2, 3, 63, 64, 65, 4000, 4090, 4096, 4100, 9000, 100000 } do
      local numbers, members = {}, {}
      for i = 1, count do
        numbers[i] = ("%d"):format(i)
        members[i] = ('"k%d":[%d]'):format(i, i)
      end
      local list = json.decode("[" .. table.concat(numbers, ",") .. "]")
      assert.are.equal(count, #list)
      for i = 1, count do assert(list[i] == i) end
      local object, seen = json.decode("{" .. table.concat(members, ",") .. "}"), 0
      for key, value in next, object do
        assert(key == "k" .. value[1])
        seen = seen + 1
      end
      assert.are.equal(count, seen)
    end
  end)

  it("keeps keys apart that look alike to a cache of keys", function()
    local texts = {}
    for length = 1, 30 do
      for at = 1, length do
        texts[#texts + 1] = ("a"):rep(at - 1) .. "b" .. ("a"):rep(length - at)
      end
    end
    for _ = 1, 3 do
      for _, key in ipairs(texts) do
        local found = next(json.decode('{"' .. key .. '":1}'))
        assert.are.equal(key, found)
      end
    end
  end)

  it("nests 1000 levels deep and no more, or as max_depth says", function()
    local function nested(depth, inner)
      return ("["):rep(depth) .. (inner or "") .. ("]"):rep(depth)
    end
    assert.is_truthy(json.decode(nested(1000)))
    local value, err = json.decode(nested(1001))
    assert.is_nil(value)
    assert.are.equal(1001, err.offset)
    assert.is_truthy(json.decode(nested(3), { max_depth = 3 }))
    assert.are.equal(3, select(2, json.decode(nested(3), { max_depth = 2 })).offset)
    local deep = assert(json.decode(nested(100000, "7"), { max_depth = 100000 }))
    for _ = 1, 100000 do deep = deep[1] end
    assert.are.equal(7, deep)
    local objects = ('{"a":'):rep(100000) .. "1" .. ("}"):rep(100000)
    assert.is_truthy(json.decode(objects, { max_depth = 100000 }))
    assert.are.equal(100001, select(2, json.decode(("["):rep(1000000), { max_depth = 100000 })).offset)
  end)

  it("refuses invalid UTF-8, or replaces it", function()
    local replaced = { invalid_utf8 = "replace" }
    local function broken(bytes, offset, becomes)
      local _, err = json.decode('"ab' .. bytes .. 'c"')
      assert.are.equal(3 + offset, err.offset)
      reads('"ab' .. bytes .. 'c"', "ab" .. becomes .. "c", replaced)
    end
    local mark = "\u{fffd}"
    broken("\xff", 1, mark)
    broken("\x80", 1, mark)
    broken("\xc0\x80", 1, mark .. mark)
    broken("\xc1\xbf", 1, mark .. mark)
    broken("\xe0\x9f\xbf", 1, mark:rep(3))
    broken("\xed\xa0\x80", 1, mark:rep(3)) -- a surrogate
    broken("\xf0\x8f\xbf\xbf", 1, mark:rep(4))
    broken("\xf4\x90\x80\x80", 1, mark:rep(4))
    broken("\xf5\x80", 1, mark .. mark)
    broken("\xe6\xb0", 1, mark) -- a part of one character: one mark
    broken("\xf0\x9f\x98", 1, mark)
    broken("\u{e9}\xe6\xb0x", 3, "\u{e9}" .. mark .. "x")
  end)
end)

describe("json.encode", function()
  it("writes the words, integers and floats", function()
    writes(null, "null")
    writes(nil, "null")
    writes(true, "true")
    writes(false, "false")
    writes(0, "0")
    writes(-7, "-7")
    writes(math.maxinteger, "9223372036854775807")
    writes(math.mininteger, "-9223372036854775808")
    writes(1.0, "1.0")
    writes(0.0, "0.0")
    writes(-0.0, "-0.0")
  end)

  it("writes doubles in the shortest form that reads back", function()
    writes(0.1, "0.1")
    writes(1 / 3, "0.3333333333333333")
    writes(0.1 + 0.2, "0.30000000000000004")
    writes(100.5, "100.5")
    writes(1e15, "1000000000000000.0")
    writes(1e16, "10000000000000000.0")
    writes(1e17, "1e17")
    writes(123456789012345678.0, "1.2345678901234568e17")
    writes(9007199254740993.0, "9007199254740992.0")
    writes(0.00001, "0.00001")
    writes(0.000001, "1e-6")
    writes(1.5e-7, "1.5e-7")
    writes(5e-324, "5e-324")
    writes(2.2250738585072014e-308, "2.2250738585072014e-308")
    writes(1.7976931348623157e308, "1.7976931348623157e308")
    writes(9.5367431640625e-7, "9.5367431640625e-7")
    writes(2 ^ 63, "9.223372036854776e18")
    writes(1e23, "1e23")
  end)

  it("escapes what must be escaped and nothing else", function()
    writes("", '""')
    writes("\"\\\b\f\n\r\t", [["\"\\\b\f\n\r\t"]])
    writes("\0\1\11\31", [["\u0000\u0001\u000b\u001f"]])
    writes("/\127", '"/\127"')
    writes("\u{e9}\u{2028}\u{2029}\u{1f600}", '"\u{e9}\u{2028}\u{2029}\u{1f600}"')
  end)

  it("writes strings of every length, with an escape at every place", function()
    for length = 0, 40 do
      local plain = ("x"):rep(length)
      writes(plain, '"' .. plain .. '"')
      for at = 0, length do
        local before, after = plain:sub(1, at), plain:sub(at + 1)
        writes(before .. "\n" .. after, '"' .. before .. "\\n" .. after .. '"')
        writes(before .. '"\\' .. after, '"' .. before .. '\\"\\\\' .. after .. '"')
        writes(before .. "\u{6c34}" .. after, '"' .. before .. "\u{6c34}" .. after .. '"')
        writes({ [before .. "\1" .. after] = 1 }, '{"' .. before .. "\\u0001" .. after .. '":1}')
      end
    end
    local long = ("\n"):rep(100000)
    writes(long, '"' .. ("\\n"):rep(100000) .. '"')
    writes(("x"):rep(100000) .. "\n", '"' .. ("x"):rep(100000) .. '\\n"')
  end)

  it("escapes every control character, at every place of a word", function()
    for byte = 0, 31 do
      local character = string.char(byte)
      local escaped = json.encode(character):sub(2, -2)
      assert.are.equal(character, json.decode('"' .. escaped .. '"'))
      for length = 0, 20 do
        local before, after = ("x"):rep(length), ("x"):rep(20 - length)
        writes(before .. character .. after, '"' .. before .. escaped .. after .. '"')
        local _, err = json.decode('"' .. before .. character .. after .. '"')
        assert.are.equal(length + 2, err.offset)
      end
      writes("x" .. character .. "xxx", '"x' .. escaped .. 'xxx"')
    end
  end)

  it("replaces invalid UTF-8, or raises", function()
    writes("a\xffb", '"a\u{fffd}b"')
    writes("\xed\xa0\x80", '"' .. ("\u{fffd}"):rep(3) .. '"')
    writes("12345678\xe6\xb0", '"12345678\u{fffd}"')
    writes({ ["\xff"] = 1 }, '{"\u{fffd}":1}')
    raises("a%[2%]: a string that is not valid UTF%-8", json.encode, { a = { "x", "\xff" } },
      { invalid_utf8 = "error" })
    assert.are.equal('"\u{e9}"', json.encode("\u{e9}", { invalid_utf8 = "error" }))
  end)

  it("tells arrays from objects", function()
    writes({}, "{}")
    writes(array {}, "[]")
    writes(array(), "[]")
    writes({ 1, 2 }, "[1,2]")
    writes(array { 1, "a", null, false }, '[1,"a",null,false]')
    writes({ a = array {} }, '{"a":[]}')
    writes({ { {} }, array { array {} } }, "[[{}],[[]]]")
    writes({ ["1"] = 1 }, '{"1":1}')
  end)

  it("writes arrays whose keys come in another order", function()
    local values = {}
    for i = 20, 1, -1 do values[i] = i * i end
    writes(values, "[" .. table.concat(values, ",") .. "]")
    local inner = { [2] = "b" }
    inner[1] = "a"
    writes({ inner, x = nil }, '[["a","b"]]')
    local shrunk = {}
    for i = 1, 100 do shrunk[i] = i end
    for i = 100, 4, -1 do shrunk[i] = nil end
    writes(shrunk, "[1,2,3]")
  end)

  it("sorts keys by their bytes when canonical", function()
    local inner = array { { z = 1, y = {} } }
    local value = { b = 1, a = inner, ["a\0"] = 2, aa = 3, ["\u{e9}"] = 4, [""] = 5, B = 6 }
    assert.are.equal('{"":5,"B":6,"a":[{"y":{},"z":1}],"a\\u0000":2,"aa":3,"b":1,"\u{e9}":4}',
      json.encode(value, { canonical = true }))
    local many, keys = {}, {}
    for i = 1, 2000 do keys[i] = ("key %d"):format(i * 7919 % 2000) end
    for _, key in ipairs(keys) do many[key] = true end
    table.sort(keys)
    local expected = '{"' .. table.concat(keys, '":true,"') .. '":true}'
    assert.are.equal(expected, json.encode(many, { canonical = true }))
  end)

  it("writes one member a line when pretty", function()
    local text = json.encode({ b = { 1, {}, array {} }, a = { c = "x" } }, { pretty = true })
    assert.are.equal([[
{
  "a": {
    "c": "x"
  },
  "b": [
    1,
    {},
    []
  ]
}]], text)
    assert.are.equal("[]", json.encode(array {}, { pretty = true }))
    assert.is_true(same(json.decode(text), { b = array { 1, {}, array {} }, a = { c = "x" } }))
  end)

  it("asks __tojson of a metatable for a plain value", function()
    local object = setmetatable({ hidden = print }, {
      __name = "some.object",
      __tojson = function(self) return { shown = self.hidden == print } end,
    })
    writes({ object, object }, '[{"shown":true},{"shown":true}]')
    local itself = setmetatable({}, { __tojson = function(self) return self end })
    writes(itself, "{}")
    local failing = setmetatable({}, { __tojson = function() error("no way", 0) end })
    raises("^no way$", json.encode, { failing })
    local nested = setmetatable({}, { __tojson = function() return json.encode { 1 } end })
    writes({ ("x"):rep(5000), nested }, '["' .. ("x"):rep(5000) .. '","[1]"]')
    local vanishing = { z = 1, y = 2 }
    vanishing.a = setmetatable({}, { __tojson = function()
      vanishing.y, vanishing.z = nil, nil
      collectgarbage()
      return 0
    end })
    assert.are.equal('{"a":0,"y":null,"z":null}', json.encode(vanishing, { canonical = true }))
  end)

  it("uses raw access only", function()
    local proxy = setmetatable({ a = 1 }, {
      __index = function() error "no" end,
      __pairs = function() error "no" end,
      __len = function() error "no" end,
    })
    writes(proxy, '{"a":1}')
  end)
end)
