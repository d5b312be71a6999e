-- SPDX-License-Identifier: MIT
-- JSON: which texts and which values are refused, and how the error tells where.

local json = require "sluice.json"
local core = require "sluice.core.json"

local array = json.array

local function raises(pattern, f, ...)
  local ok, message = pcall(f, ...)
  assert.is_false(ok)
  assert.matches(pattern, message)
end

-- Offsets of the first wrong byte.
local refused = {
  ["the text ends too early"] = {
    { 1, "" }, { 2, " " }, { 2, "\n" }, { 2, "[" }, { 2, "{" }, { 3, "[1" }, { 4, "[1," },
    { 7, '{"a":1' }, { 12, '["a",\n4\n,1,' }, { 2, "-" }, { 3, "1." }, { 3, "1e" }, { 4, "1e+" },
    { 4, "1E-" }, { 3, "0e" },
  },
  ["unexpected character"] = {
    { 1, "]" }, { 1, "}" }, { 2, "[,1]" }, { 4, "[1,,2]" }, { 4, "[1,]" }, { 2, "[,]" }, { 4, "[1 2]" },
    { 3, "[1}" }, { 2, "[}" }, { 5, '{"a"}' }, { 6, '{"a":}' }, { 6, '{"a" 1}' }, { 8, '{"a":1 "b":2}' },
    { 11, '{"a":1,"b"}' }, { 6, '{"a"::1}' }, { 8, '{"a":[1}]' }, { 1, ":" }, { 1, "," }, { 2, "[:1]" },
    { 5, '["a":1]' }, { 1, "/* */[1]" }, { 1, "<html>" }, { 1, "\x0b1" }, { 1, "\x0c1" },
    { 2, "[\xc2\xa0]" }, { 3, "[1\x00]" }, { 1, "\x00" }, { 1, "*" }, { 1, "NaN" }, { 1, "Infinity" },
    { 1, "True" }, { 1, "TRUE" }, { 1, "undefined" }, { 1, "+1" }, { 1, ".5" }, { 1, "\xef\xbc\x91" },
    { 1, "'a'" },
  },
  ["the text goes on behind the value"] = {
    { 4, "[1]]" }, { 4, "[1]x" }, { 3, "[]\x00" }, { 3, "1 2" }, { 8, '{"a":1}}' }, { 4, "[1]/**/" },
    { 4, "[1]//" }, { 4, "[1]#" }, { 5, "nulll" }, { 5, "truee" }, { 4, "1.2.3" }, { 2, "0x10" },
    { 2, "0x" }, { 2, "1_0" }, { 2, "1a" }, { 4, "1e1.5" }, { 4, '"a"b' },
  },
  ["a key must be a string"] = {
    { 2, "{]" }, { 2, "{1:2}" }, { 2, "{a:1}" }, { 2, "{'a':1}" }, { 8, '{"a":1,}' }, { 2, '{,"a":1}' },
    { 8, '{"a":1,,"b":2}' }, { 2, "{null:1}" }, { 2, "{[]:1}" },
  },
  ["a byte order mark must not begin the text"] = {
    { 1, "\xef\xbb\xbf{}" },
  },
  ["not a word of JSON (true, false, null)"] = {
    { 1, "nul" }, { 1, "nan" }, { 1, "tru" }, { 1, "fals" }, { 2, "[nULL]" },
  },
  ["not a number as JSON writes it"] = {
    { 2, "-Infinity" }, { 3, "[-NaN]" }, { 2, "01" }, { 3, "-01" }, { 2, "00" }, { 2, "-.5" },
    { 3, "1.e1" }, { 3, "1eE2" }, { 2, "- 1" }, { 2, "--1" }, { 2, "-e1" }, { 4, "[1e]" }, { 4, "[1.]" },
    { 3, "[-]" },
  },
  ["a number beyond the range of a double"] = {
    { 1, "1e400" }, { 1, "-1e400" }, { 1, "1e1000000000000000000000" },
  },
  ["the text ends inside a string"] = {
    { 2, '"' }, { 3, '"a' }, { 3, '"\\' }, { 4, '"\\"' }, { 4, '"\\n' },
  },
  ["not an escape sequence"] = {
    { 3, '"\\x"' }, { 3, '"\\a"' }, { 3, "\"\\'\"" }, { 3, '"\\U0041"' }, { 3, '"\\\x00"' },
    { 3, '"\\\xc3\xa9"' },
  },
  ["four hexadecimal digits must follow \\u"] = {
    { 4, '"\\u"' }, { 6, '"\\u12"' }, { 6, '"\\u12g4"' }, { 4, '"\\u 123"' }, { 10, '"\\uD800\\u"' },
    { 10, '"\\uD800\\uZZZZ"' },
  },
  ["a control character in a string must be escaped"] = {
    { 2, '"\x00"' }, { 2, '"\n"' }, { 2, '"\t"' }, { 3, '"a\x1f"' }, { 10, '"abcdefgh\x01"' },
    { 4, '"\\n\x01"' },
  },
  ["invalid UTF-8"] = {
    { 2, '"\xff"' }, { 2, '"\xc3"' }, { 2, '"\xe6\xb0"' }, { 2, '"\xed\xa0\x80"' },
    { 2, '"\xf0\x9f\x98' }, { 3, '{"\xff":1}' }, { 10, '"abcdefgh\xff"' }, { 4, '"\\n\xff"' },
  },
}

describe("what json.decode refuses", function()
  it("comes back as nil and an error with the offset", function()
    for message, cases in pairs(refused) do
      for _, case in ipairs(cases) do
        local offset, text = case[1], case[2]
        local value, err = json.decode(text)
        assert.is_nil(value, ("%q was accepted"):format(text))
        assert.are.equal(offset, err.offset, ("%q: offset"):format(text))
        assert.matches(message, err.message, 1, true)
      end
    end
  end)

  it("names line and column, and the byte when it can be shown", function()
    local _, err = json.decode '{\n  "a": 1,\n  "b": <html>\n}'
    assert.are.equal("JsonError", err.kind)
    assert.is_true(err:is "ProtocolError")
    assert.are.same({ 20, 3, 8 }, { err.offset, err.line, err.column })
    assert.are.equal('unexpected character at byte 20 (line 3, column 8): "<"', err.message)
    _, err = json.decode "\1"
    assert.are.equal("unexpected character at byte 1 (line 1, column 1)", err.message)
  end)

  it("is every text that is cut short", function()
    local text = [[{"a":[1,-2.5e-3,"x\u00e9\ud83d\ude00",true,null],"b":{"":{}}}]]
    assert.is_truthy(json.decode(text))
    for length = 0, #text - 1 do
      local value, err = json.decode(text:sub(1, length))
      assert.is_nil(value)
      assert(err.offset <= length + 1)
    end
  end)

  it("is misuse when it is no text", function()
    raises("string expected, got no value", json.decode)
    raises("string expected, got number", json.decode, 1)
    raises("string expected, got table", json.decode, {})
  end)

  it("leaves the module working", function()
    for _ = 1, 100 do
      assert.is_nil(json.decode('["' .. ("x\\n"):rep(3000) .. '", }'))
      assert.are.equal(("x\n"):rep(3000), json.decode('["' .. ("x\\n"):rep(3000) .. '"]')[1])
    end
  end)
end)

describe("what json.encode refuses", function()
  local function refuses(message, value, options)
    local ok, err = pcall(json.encode, value, options)
    assert.is_false(ok, "accepted: " .. message)
    assert.are.equal(message, err:gsub("^[^:]*:%d+: ", "", 1))
  end

  it("raises with the path to the value", function()
    refuses("value: a function cannot be encoded as JSON", print)
    refuses("messages[2].content: a function cannot be encoded as JSON",
      { messages = { { content = "x" }, { content = print } } })
    local thread = coroutine.create(print)
    refuses('["odd key"][1]: a thread cannot be encoded as JSON', { ["odd key"] = { thread } })
    refuses('a["1x"].b: a FILE* cannot be encoded as JSON', { a = { ["1x"] = { b = io.stdout } } })
    refuses('["??"]: a function cannot be encoded as JSON', { ["\n\xc3"] = print })
    local long = ("k"):rep(99)
    refuses('["' .. long:sub(1, 60) .. '..."]: a function cannot be encoded as JSON', { [long] = print })
    refuses("a.b: a function cannot be encoded as JSON", { a = { b = print, a = 1 } }, { canonical = true })
  end)

  it("raises at the caller", function()
    local _, err = pcall(function() json.encode(print) end)
    assert.matches("^spec/json_refused_spec%.lua:%d+: value: ", err)
  end)

  it("has numbers that JSON lacks", function()
    refuses("[1]: NaN cannot be encoded as JSON", { 0 / 0 })
    refuses("a: infinity cannot be encoded as JSON", { a = math.huge })
    refuses("a: infinity cannot be encoded as JSON", { a = -math.huge })
  end)

  it("has tables that are neither array nor object", function()
    local mixed = "a table with both indices and string keys cannot be encoded as JSON"
    refuses("value: " .. mixed, { 1, a = 2 })
    refuses("a: " .. mixed, { a = { [5] = 1, b = 2 } })
    refuses("[2]: an array with holes (2 values, the last at 3) cannot be encoded as JSON: "
      .. "fill them with json.null", { 1, { "a", nil, "c" } })
    refuses("value: an array with holes (1 values, the last at 1000) cannot be encoded as JSON: "
      .. "fill them with json.null", { [1000] = 1 })
    refuses("value: a table with a boolean key cannot be encoded as JSON", { [true] = 1 })
    refuses("value: a table with a fractional key cannot be encoded as JSON", { [1.5] = 1 })
    refuses("value: a table with a zero key cannot be encoded as JSON", { [0] = 1 })
    refuses("value: a table with a negative key cannot be encoded as JSON", { 1, 2, [-1] = 1 })
    refuses("a: a json.array with a string key cannot be encoded", { a = array { b = 1 } })
    refuses("a: a json.array with a string key cannot be encoded", { a = array { 1, b = 1 } })
    local canonical = { canonical = true }
    refuses("value: a table with a boolean key cannot be encoded as JSON", { a = 1, [true] = 1 }, canonical)
  end)

  it("has tables that contain themselves, or are nested too deeply", function()
    local a = {}
    a.b = { c = { a } }
    refuses("b.c[1]: a table that contains itself cannot be encoded as JSON", a)
    local shared = { 1 }
    assert.are.equal("[[1],[1]]", json.encode { shared, shared })
    local long = {}
    local inner = long
    for _ = 1, 200 do
      inner[1] = {}
      inner = inner[1]
    end
    inner[1] = long
    raises("nested more than 1000 levels deep", json.encode, long)
    local deep = 1
    for _ = 1, 20 do deep = { deep } end
    refuses(("[1]"):rep(12) .. "..." .. ("[1]"):rep(4) .. ": tables nested more than 19 levels deep", deep,
      { max_depth = 19 })
    assert.are.equal(("["):rep(20) .. 1 .. ("]"):rep(20), json.encode(deep, { max_depth = 20 }))
    for _ = 1, 99980 do deep = { a = deep } end
    local text = json.encode(deep, { max_depth = 100000 })
    assert.are.equal(text, json.encode(deep, { max_depth = 100000, canonical = true }))
    assert.are.equal(text, json.encode(json.decode(text, { max_depth = 100000 }), { max_depth = 100000 }))
  end)

  it("has objects: secrets above all", function()
    local secret = require("sluice.secret").new "a token that nobody may see"
    refuses("headers.key: a secret cannot be encoded as JSON", { headers = { key = secret } })
    local object = setmetatable({ 1 }, { __name = "sluice.endpoint" })
    refuses("[1]: an endpoint cannot be encoded as JSON", { object })
    refuses("value: a my.class cannot be encoded as JSON", setmetatable({}, { __name = "my.class" }))
  end)

  it("has options that do not exist", function()
    raises('json%.encode: unknown option "prety".*did you mean "pretty"', json.encode, 1, { prety = true })
    raises('json%.decode: unknown option "maxdepth".*"max_depth"', json.decode, "1", { maxdepth = 2 })
    raises('"max_depth" must be an integer from 1 to 100000', json.decode, "1", { max_depth = 0 })
    raises('"invalid_utf8" must be "error" or "replace"', json.encode, "1", { invalid_utf8 = "ignore" })
    raises("value expected", json.encode)
    local _, err = pcall(function() json.encode(1, { prety = true }) end)
    assert.matches("^spec/json_refused_spec%.lua:%d+: ", err)
    raises("max_depth must be an integer", core.decode, "1", { max_depth = 1.5 })
  end)

  it("has no other array than a table", function()
    raises("json.array: a table is needed, got string", json.array, "x")
    raises("metatable of its own", json.array, setmetatable({}, {}))
  end)
end)
