-- SPDX-License-Identifier: MIT
-- Another reader of the same texts: what Node accepts and refuses, and what it reads.
local json = require "sluice.json"
local support = require "support"

local has_node = support.shell("command -v node").status == 0

-- Each line in is a JSON string that holds a text; out comes its verdict, and the text as Node writes it.
local judge = [[
const lines = require("fs").readFileSync(0, "utf8").split("\n").filter((line) => line !== "");
for (const line of lines) {
  let answer = { ok: false };
  try {
    answer = { ok: true, text: JSON.stringify(JSON.parse(JSON.parse(line))) };
  } catch (error) {}
  console.log(JSON.stringify(answer));
}]]

---Node's verdicts on the texts, in their order.
local function ask_node(texts)
  local lines = {}
  for index, text in ipairs(texts) do lines[index] = json.encode(text) end
  return support.with_file(table.concat(lines, "\n") .. "\n", function(path)
    local result = support.shell(("node -e %s <%s"):format(support.quote(judge), path))
    assert.are.equal(0, result.status, result.err)
    local verdicts = {}
    for line in result.out:gmatch "[^\n]+" do verdicts[#verdicts + 1] = assert(json.decode(line)) end
    return verdicts
  end)
end

-- Texts near the border: pieces of JSON put together at random, most of them wrong.
local function random_texts(count)
  local pieces = {
    "{", "}", "[", "]", ",", ":", '"a"', '"\\u00e9"', '"\\ud83d\\ude00"', '""', "1", "-1", "0", "01", "-",
    "1.5", "1.", ".5", "1e3", "1E+3", "1e", "true", "false", "null", "nul", "True", " ", "\n", "\t", "\v",
    '"\t"', '"\\x"', '"', "/", "//", "+1", "NaN", "'a'",
  }
  local texts = {}
  for index = 1, count do
    local parts = {}
    for part = 1, math.random(1, 7) do parts[part] = pieces[math.random(#pieces)] end
    texts[index] = table.concat(parts)
  end
  return texts
end

describe("sluice.json and Node", function()
  it("accept and refuse the same texts", function()
    if not has_node then return pending "node is not installed" end
    math.randomseed(20260101)
    local texts = random_texts(6000)
    local accepted = 0
    for index, verdict in ipairs(ask_node(texts)) do
      local ok = json.decode(texts[index]) ~= nil
      if ok then accepted = accepted + 1 end
      assert.are.equal(verdict.ok, ok, texts[index])
    end
    assert(accepted > 200, "hardly any text was right: " .. accepted)
  end)

  it("read the same values", function()
    if not has_node then return pending "node is not installed" end
    math.randomseed(20260102)
    local texts, values = {}, {}
    for index = 1, 2000 do
      -- integers stay within 2^53, which is all that Node keeps
      local value = {
        float = math.random(-2 ^ 30, 2 ^ 30) / math.random(1, 997),
        integer = math.random(-2 ^ 53, 2 ^ 53),
        text = utf8.char(math.random(1, 0xD7FF), math.random(0xE000, 0x10FFFF)),
        list = json.array { true, json.null, index % 2 == 0 },
        none = json.array {},
      }
      texts[index], values[index] = json.encode(value), value
    end
    for index, verdict in ipairs(ask_node(texts)) do
      local back = assert(json.decode(verdict.text))
      assert(back.float == values[index].float, texts[index])
      assert.are.equal(values[index].integer, back.integer)
      assert.are.equal(values[index].text, back.text)
      assert.are.same(values[index].list, back.list)
      assert.are.equal("[]", json.encode(back.none))
    end
  end)
end)
