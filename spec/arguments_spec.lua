-- SPDX-License-Identifier: MIT
-- The words that a script is called with.

local arguments = require "sluice.arguments"
local sluice = require "sluice"
local support = require "support"

local SPEC <const> = {
  about = "Asks an endpoint.",
  { "ENDPOINT", "who is asked", required = true },
  { "WORDS...", "what it is asked" },
  { "--concurrency N", "requests at a time", type = "count", default = 8 },
  { "--order ORDER", "of the results", choices = { "input", "completion" } },
  { "--every SECONDS", "between two looks", type = "seconds" },
  { "--share P", type = "number" },
  { "--offset N", type = "integer" },
  { "--tag NAME", "may come again", many = true },
  { "--probe", "asks the model too" },
  notes = "Exit status: 0.",
}

local function parse(...)
  return arguments.parse(SPEC, { ... })
end

describe("arguments", function()
  it("are options and words, in any order", function()
    assert.same({ endpoint = "e", concurrency = 8 }, parse "e")
    assert.same({
      endpoint = "e", words = { "a", "b" }, concurrency = 2, every = 0.5, share = -1.5, offset = -3,
      tag = { "x", "y" }, probe = true, order = "input",
    }, parse("--concurrency", "2", "e", "--every=0.5", "a", "--tag", "x", "--probe", "b", "--tag=y",
      "--share", "-1.5", "--offset=-3", "--order", "input"))
    assert.same({ endpoint = "-5", words = { "--probe", "--" }, concurrency = 8 },
      parse("-5", "--", "--probe", "--"))
    assert.equal("", parse("").endpoint)
  end)

  for text, words in pairs {
    ["ENDPOINT is missing"] = {},
    ['unknown option --concurency (did you mean "--concurrency"?)'] = { "e", "--concurency", "3" },
    ["unknown option -x"] = { "e", "-x" },
    ["--concurrency needs a value: N"] = { "e", "--concurrency" },
    ['--concurrency has to be an integer of at least 1, not "0"'] = { "e", "--concurrency", "0" },
    ['--concurrency has to be an integer of at least 1, not "many"'] = { "e", "--concurrency=many" },
    ['--offset has to be an integer, not "1.5"'] = { "e", "--offset", "1.5" },
    ['--every has to be a number of seconds, not "-1"'] = { "e", "--every", "-1" },
    ['--share has to be a number, not "inf"'] = { "e", "--share", "inf" },
    ['--order has to be input or completion, not "none"'] = { "e", "--order", "none" },
    ["--probe takes no value"] = { "e", "--probe=yes" },
    ["help"] = { "--order", "none", "--help", "--nothing" },
  } do
    it("say what is wrong: " .. text, function()
      local given, wrong = parse(table.unpack(words))
      assert.is_nil(given)
      assert.equal(text, wrong:sub(1, #text))
    end)
  end

  it("that are too many are told", function()
    assert.same({ nil, "one word too many: b" }, { arguments.parse({ { "ONE" } }, { "a", "b" }) })
    assert.same({ nil, "one word too many: b" }, { arguments.parse({}, { "b" }) })
  end)

  it("make the text of --help", function()
    assert.equal([[
usage: sluice ask.lua ENDPOINT [WORDS...] [--concurrency N] [--order ORDER]
                      [--every SECONDS] [--share P] [--offset N] [--tag NAME]...
                      [--probe]

Asks an endpoint.

  ENDPOINT               who is asked
  WORDS...               what it is asked
  --concurrency N        requests at a time (8)
  --order ORDER          of the results: input, completion
  --every SECONDS        between two looks
  --share P
  --offset N
  --tag NAME             may come again
  --probe                asks the model too

Exit status: 0.
]], arguments.help(SPEC, "ask.lua"))
    assert.equal("usage: sluice a.lua", arguments.usage({}, "a.lua"))
    assert.equal("usage: app", arguments.usage({}, "app"))
  end)

  it("of a list that is wrong raise at its line", function()
    local function fails(message, spec)
      local ok, err = pcall(function()
        local given = arguments.parse(spec, {})
        return given
      end)
      assert.is_false(ok)
      assert.matches(message, err, 1, true)
      assert.matches("arguments_spec.lua:%d+: ", err)
    end
    fails('arguments.read: unknown option "abaut" (did you mean "about"?)', { abaut = "a" })
    fails('arguments.read: --a N: option "type" must be string, number', { { "--a N", type = "text" } })
    fails('arguments.read: argument "[1] of a row" must be a string', { {} })
  end)
end)

support.about_program(describe, pending)("a script's arguments", function()
  local SCRIPT <const> = [[
    local given, refuse = require("sluice").arguments.read { { "NAME" }, { "--count N", type = "count" } }
    if given.name == "nobody" then refuse "nobody is no name" end
    print(given.name, given.count)]]

  local function run(...)
    local words = { ... }
    return support.with_file(SCRIPT, function(path) return support.sluice(path, table.unpack(words)) end)
  end

  it("end it with status 2 where they are wrong, and 0 for --help", function()
    assert.equal("a\t3\n", run("a", "--count", "3").out)
    local result = run "--cuont"
    assert.equal(2, result.status)
    local said = '^[^/\n]*: unknown option %-%-cuont %(did you mean "%-%-count"%?%)\nusage: [^/\n]*'
    assert.matches(said, result.err)
    result = run "nobody"
    assert.same({ 2, "" }, { result.status, result.out })
    assert.matches(": nobody is no name\nusage: ", result.err)
    result = run "--help"
    assert.same({ 0, "" }, { result.status, result.err })
    assert.matches("^usage: [^\n]* %[NAME%] %[%-%-count N%]\n", result.out)
    assert.is_function(sluice.arguments.read)
  end)
end)
