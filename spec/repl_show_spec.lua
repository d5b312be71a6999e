-- SPDX-License-Identifier: MIT
-- Values as text: sluice.repl.show.

local show = require "sluice.repl.show"
local sluice = require "sluice"

describe("a value", function()
  it("is shown as it would be written", function()
    assert.equal("nil", show.value(nil))
    assert.equal("1.0", show.value(1.0))
    assert.same({ "inf", "-inf", "nan" }, { show.value(1 / 0), show.value(-1 / 0), show.value(0 / 0) })
    assert.equal('"a\\n\\"b\\\\"', show.value 'a\n"b\\')
    assert.equal("{}", show.value {})
    assert.equal("{ 1, 2, [4] = 4, a = true, [\"b c\"] = { x = 1 }, [\"end\"] = 2 }",
      show.value { 1, 2, nil, 4, a = true, ["b c"] = { x = 1 }, ["end"] = 2 })
  end)

  it("has its keys in order", function()
    assert.equal("{ [-1] = 1, [2.5] = 2, A = 3, a = 4, b = 5, [false] = 6 }",
      show.value { b = 5, a = 4, A = 3, [2.5] = 2, [-1] = 1, [false] = 6 })
  end)

  it("is told where it contains itself", function()
    local a = { name = "a" }
    a.self, a.list = a, { a, { a } }
    assert.equal('{ list = { <cycle>, { <cycle> } }, name = "a", self = <cycle> }', show.value(a))
    local shared = { 1 }
    assert.equal("{ { 1 }, { 1 } }", show.value { shared, shared })
  end)

  it("is cut where it is deep or long", function()
    assert.equal("{ { { {...} } } }", show.value({ { { { { 1 } } } } }, { depth = 3 }))
    assert.equal("{ { {}, {...} } }", show.value({ { {}, { 1 } } }, { depth = 2 }))
    local many = {}
    for n = 1, 1000 do many[n] = n end
    assert.equal("{ 1, 2, 3, ... 997 more }", show.value(many, { items = 3 }))
    assert.equal("{ 1, 2, ... 2 more }", show.value({ 1, 2, a = 1, b = 1 }, { items = 2 }))
    local text = show.value(("é"):rep(2000))
    assert.matches(' %(2000 of 4000 bytes%)$', text)
    assert.is_truthy(utf8.len(text))
  end)

  it("has a line for each item where one line is too short", function()
    assert.equal('{\n  a = 1,\n  b = {\n    "cccccccccc",\n    "dddddddddd"\n  }\n}',
      show.value({ a = 1, b = { ("c"):rep(10), ("d"):rep(10) } }, { columns = 24 }))
  end)

  it("cannot speak to the terminal", function()
    local text = show.value { "\27[31m", "\7", "\xc2\x9b1m", "\xff\xfe" }
    assert.equal('{ "\\27[31m", "\\x07", "\\xC2\\x9B1m", "\\xFF\\xFE" }', text)
  end)

  it("speaks for itself where it can", function()
    local function named(name, extra)
      extra.__name = name
      return setmetatable({ shown = 1, _own = 2 }, extra)
    end
    assert.equal("thing { shown = 1 }", show.value(named("thing", {})))
    assert.equal("I am", show.value(named("thing", { __tostring = function() return "I am" end })))
    local broken = { __tostring = function() error "no" end, __pairs = function() error "no" end }
    assert.matches("^thing {", show.value(named("thing", broken)))
    assert.equal("***", show.value(sluice.secret "abc"))
    assert.equal("{ token = *** }", show.value { token = sluice.secret "abc" })
    assert.matches("(NotFound)", show.value(sluice.errors.new("NotFound", { message = "gone" })), 1, true)
    assert.equal('sluice.headers { a = "b" }', show.value(require("sluice.headers").new { a = "b" }))
    assert.equal("{ json.null }", show.value { sluice.json.null })
    assert.matches("^function: spec/repl_show_spec.lua:%d+$", show.value(function() end))
    assert.equal("function: built in", show.value(string.rep))
    assert.matches("^file %(0x", show.value(io.stdout))
  end)

  it("is coloured only on request", function()
    local text = show.value({ "a", 1, true, print }, { color = true })
    assert.matches('\27[32m"a"\27[0m', text, 1, true)
    assert.equal(show.width(show.value { "a", 1, true, print }), show.width(text))
    assert.equal("\27[31mx\27[0m", show.paint("error", "x", true))
    assert.equal("x", show.paint("error", "x"))
  end)

  it("takes little time however large it is", function()
    local huge = {}
    for n = 1, 200000 do huge["key" .. n] = n end
    local began = os.clock()
    assert.matches("more, at least }$", (show.value(huge):gsub(",?\n%s*", " ")))
    assert.is_true(os.clock() - began < 2)
  end)
end)
