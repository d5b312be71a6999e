-- SPDX-License-Identifier: MIT
-- Lines of the log, for machines and for people, whatever the fields hold.
local errors = require "sluice.errors"
local json = require "sluice.json"
local line = require "sluice.log.line"
local place = require "sluice.log.place"
local plain = require "sluice.log.plain"
local secret = require "sluice.secret"

local function fields_of(fields, base)
  local text = line.json("info", "e", fields, base)
  assert.equal("\n", text:sub(-1))
  return assert(json.decode(text), text), text
end

describe("a line of JSON", function()
  it("is cut where a field is too long", function()
    local found, text = fields_of { big = ("\u{20ac}"):rep(400000), small = "s", n = 1 }
    assert.is_true(#text < 5000)
    assert.matches("\u{20ac}%.%.%. %(1200000 bytes%)$", found.big)
    assert.equal(1365 + #"... (1200000 bytes)", utf8.len(found.big))
    assert.same({ "s", 1, "e" }, { found.small, found.n, found.event })
    found = fields_of { big = ("\255"):rep(1000000), deep = { { ("x"):rep(100000) } }, n = 1 }
    assert.is_true(#found.big < 13000 and #found.deep[1][1] < 5000)
    assert.equal(1, found.n)
  end)

  it("is cut where there is too much of it", function()
    local many, wide = {}, {}
    for index = 1, 100000 do many["k" .. index], wide[index] = ("v"):rep(300), index end
    local found, text = fields_of(many)
    assert.is_true(#text < 140000 and found.cut)
    assert.equal("e", found.event)
    found, text = fields_of { wide = wide, n = 1, [("name"):rep(100000)] = 1 }
    assert.is_true(#text < 20000)
    assert.equal("e", found.event)
    local texts = {}
    for index = 1, 100 do texts[("t%03d"):format(index)] = ("x"):rep(4000) end
    found, text = fields_of(texts)
    assert.is_true(#text < 70000 and found.cut)
    assert.equal(4000, #found.t001)
  end)

  it("is cut where the event is too long", function()
    local text = line.json("info", ("e"):rep(1 << 20))
    assert.is_true(#text < 5000, #text)
    assert.matches("e%.%.%. %(1048576 bytes%)$", json.decode(text).event)
    assert.is_true(#plain.line("info", ("e"):rep(1 << 20), nil, nil, false) < 5000)
  end)

  it("takes what raises when it is looked at", function()
    local function raise() error "not with me" end
    local function next_of_endless(_, n) return (n or 0) + 1, 1 end
    local found = fields_of {
      pairs = setmetatable({}, { __pairs = raise }), text = setmetatable({}, { __tostring = raise }),
      index = setmetatable({}, { __index = raise }), n = 1,
      endless = setmetatable({}, { __pairs = function() return next_of_endless end }),
    }
    assert.same({ "?", "?", {}, 1 }, { found.pairs, found.text, found.index, found.n })
    assert.is_true(found.cut and #found.endless < 1000)
  end)

  it("has one time, one level and one event, whatever the fields are called", function()
    local base = { event = "base", b = 1 }
    for _, given in ipairs { { base }, { { level = "none" }, base }, { { b = 2, time = "never" }, base } } do
      local found, text = fields_of(given[1], given[2])
      assert.same({ "info", "e" }, { found.level, found.event })
      for _, name in ipairs { "time", "level", "event" } do
        assert.equal(1, select(2, text:gsub('"' .. name .. '":', "")), text)
      end
    end
    local found = fields_of({ level = "none" }, base)
    assert.same({ "none", "base" }, { found["fields.level"], found["fields.event"] })
  end)

  it("does not show the half of a secret that a cut would leave", function()
    local token = secret.new "dapi-0123456789-abcdefghij"
    for before = 4060, 4100 do
      local _, text = fields_of { big = ("x"):rep(before) .. secret.reveal(token) .. ("y"):rep(100000) }
      assert.is_nil(text:find("dapi-0", 1, true))
    end
  end)

  it("shows URLs without user, password and the secrets of their queries", function()
    local shown = fields_of({
      url = "https://me:pass-word@h:1/p?a=b&access_token=t-1234&c=d#f",
      text = "at http://h/?api_key=k-1234, or not",
      plain = "http://h/p?q=1", list = { "x://u:p@h" },
    })
    assert.same({
      "https://***@h:1/p?a=b&access_token=***&c=d#f", "at http://h/?api_key=*** or not",
      "http://h/p?q=1", "x://***@h",
    }, { shown.url, shown.text, shown.plain, shown.list[1] })
    assert.equal("x http://***@h", line.masked "x http://u:p@h")
    assert.equal("://a ://b http://***@h h://", line.masked "://a ://b http://u:p@h h://")
    local started = os.clock()
    fields_of { text = ("a"):rep(50000) .. "://" .. ("b"):rep(10000), more = "http://" }
    assert.is_true(os.clock() - started < 0.5)
  end)

  it("has the fields of its base, of which its own go before", function()
    local base = { a = 1, token = "t" }
    assert.same({ 1, 2, "***" }, { fields_of({ b = 2 }, base).a, fields_of({ b = 2 }, base).b,
      fields_of({ b = 2 }, base).token })
    local _, text = fields_of({ a = 3 }, base)
    assert.matches('"a":3', text)
    assert.is_nil(text:find('"a":1', 1, true))
    assert.equal(1, fields_of(nil, base).a)
    assert.equal(2, fields_of({ b = 2 }, {}).b)
    assert.same({ a = 1, b = 2, c = 4 }, line.merged({ a = 1, b = 3 }, { b = 2, c = 4 }))
    assert.same({}, line.merged())
  end)

  it("escapes what an id may bring along", function()
    local found, text = fields_of { request_id = "a\r\n\27[31m\0\"}{" }
    assert.equal("a\r\n\27[31m\0\"}{", found.request_id)
    assert.is_nil(text:sub(1, -2):find "%c")
  end)

  it("knows what is not shown, and values alone", function()
    assert.is_true(line.is_shown "port")
    assert.is_false(line.is_shown "Password")
    assert.equal('"x"', line.value "x")
    assert.is_true(#line.value(("x"):rep(1000000)) < 5000)
  end)
end)

describe("a line for people", function()
  local function show(fields, base, color)
    return plain.line("warn", "what happened", fields, base, color or false)
  end

  it("has time, level, event and fields", function()
    assert.matches("^%d%d:%d%d:%d%d%.%d%d%d WARN  what happened\n$", show())
    assert.matches(" what happened  a=x b=1 c=true d=\"two words\" e=%[1,2%]\n$",
      show({ a = "x", b = 1, c = true, d = "two words", e = { 1, 2 } }))
    assert.matches("  a=2 b=1\n$", show({ a = 2 }, { a = 1, b = 1 }))
    local err = errors.new("BadRequest", { message = "no" })
    assert.matches("error=\".*no.*BadRequest", show { error = err })
    assert.matches("\27%[33mWARN \27%[0m", show({}, nil, true))
  end)

  it("shows no secret, and nothing that a terminal obeys", function()
    local token = secret.new "dapi-0123456789"
    local text = show { token = "abc", a = token, b = "x dapi-0123456789" }
    assert.matches('a=%*%*%* b="x %*%*%*" token=%*%*%*\n$', text)
    text = show { a = "x\27[2J\r\n\127\u{9b}31m", ["\27k"] = 1 }
    text = text .. plain.line("info", "e\27[2J\u{9b}", nil, nil, false)
    assert.is_nil(text:gsub("\n", ""):find "[%c\127]")
    assert.is_nil(text:find("\u{9b}", 1, true))
    assert.is_true(#show { big = ("x"):rep(1000000) } < 5000)
  end)

  it("takes any value", function()
    local raising = setmetatable({}, { __tostring = function() error "no text" end })
    local text = show { f = print, nan = 0 / 0, bytes = "\255\0", [1] = 2, raising = raising }
    assert.matches("bytes=", text)
    assert.matches("raising=", text)
    assert.is_string(fields_of({ raising = raising }).raising)
  end)
end)

describe("a long line for people", function()
  it("is cut as well", function()
    local many = {}
    for index = 1, 100000 do many["k" .. index] = index end
    local text = plain.line("info", "e", many, nil, false)
    assert.is_true(#text < 70000, #text)
    assert.matches(" cut=true\n$", text)
  end)
end)

describe("the place of lines", function()
  it("is opened at the first use, and again when it is gone", function()
    local sink, is_plain, with_color = place.current()
    assert.is_truthy(sink)
    assert.same({ "boolean", "boolean" }, { type(is_plain), type(with_color) })
    place.forget()
    local again = place.current()
    assert.is_truthy(again)
    assert.is_nil((place.set_path "/no/such/folder/log"))
    assert.equal(again, (place.current()))
    assert.is_true(place.set_path(nil))
    assert.same({ 0, 0, 0 }, { place.counts() })
    place.flush()
  end)

  it("is the host's log where there is none", function()
    local script = [[require("sluice.log.place").to_host("a line\n")]]
    assert.equal("a line\n", require("support").sluice("-e", script).err)
  end)
end)
