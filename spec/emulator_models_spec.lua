-- SPDX-License-Identifier: MIT
-- The emulator's models and its tokenizer, without endpoints around them.

local embedding = require "sluice.emulator.models.embedding"
local json = require "sluice.json"
local models = require "sluice.emulator.models"
local ngram = require "sluice.emulator.models.ngram"
local random = require "sluice.random"
local reply = require "sluice.emulator.reply"
local tabular = require "sluice.emulator.models.tabular"
local text = require "sluice.emulator.text"
local tokens = require "sluice.emulator.tokens"
local wire = require "sluice.emulator.wire"

local ngram_entity = { name = "m-1", entity_name = "main.default.m" }
local echo_entity = { name = "echo-1", entity_name = "main.default.echo" }

local function chat(content, more)
  local body = { messages = { { role = "user", content = content } } }
  for key, value in pairs(more or {}) do body[key] = value end
  return body
end

local function ask(entity, body)
  local answer = assert(models.new {}:answer(entity, nil, body, "e"))
  return answer.reply and reply.whole(answer.reply, {}) or answer.json
end

local function said(entity, body)
  local answer = ask(entity, body)
  return answer.choices[1].message.content, answer.choices[1].finish_reason, answer.usage
end

local function refusal_of(entity, body)
  local answer, refusal = models.new {}:answer(entity, nil, body, "e")
  assert.is_nil(answer)
  return refusal
end

describe("the tokenizer", function()
  local samples = {
    "", "   ", "one", " one two ", "Don't stop, now!", "tail  \n", "caf\u{e9} \u{1f642}!", "a-b c_d 1.5",
    "\0\1 x", "...", "line\nline\n\n",
  }

  it("gives the text back when its tokens are joined", function()
    for _, sample in ipairs(samples) do
      local pieces = {}
      for token in tokens.each(sample) do pieces[#pieces + 1] = token end
      local joined = table.concat(pieces)
      if sample:find "%S" then assert.equal(sample, joined) else assert.equal("", joined) end
      assert.equal(#pieces, tokens.count(sample))
    end
  end)

  it("counts words and punctuation", function()
    assert.equal(0, tokens.count " \n ")
    assert.equal(5, tokens.count "Don't stop, now!")
  end)
end)

describe("the wire helpers", function()
  it("make refusals", function()
    local function refusal(...) return select(2, ...) end
    local made = refusal(wire.refuse(404, "X", "no %d%%", 5))
    assert.same({ status = 404, error_code = "X", message = "no 5%" }, made)
    made = refusal(wire.invalid "100% wrong")
    assert.same({ status = 400, error_code = "INVALID_PARAMETER_VALUE", message = "100% wrong" }, made)
    assert.equal("BAD_REQUEST", refusal(wire.bad_request "x").error_code)
  end)

  it("tell lists from objects, and null from values", function()
    assert.is_nil(wire.given(json.null))
    assert.is_false(wire.given(false))
    local kinds = {
      ["[]"] = "list", ["[1]"] = "list", ["{}"] = "object", ['{"a":1}'] = "object", ["5"] = "no",
    }
    for sample, kind in pairs(kinds) do
      local value = json.decode(sample)
      assert.equal(kind == "list", wire.is_list(value))
      assert.equal(kind == "object", wire.is_object(value))
    end
  end)

  it("make identifiers, seeds and times", function()
    assert.is_truthy(wire.hex(4):find "^%x%x%x%x%x%x%x%x$")
    assert.is_truthy(wire.uuid():find "^%x+%-%x%x%x%x%-4%x%x%x%-[89ab]%x%x%x%-%x+$")
    assert.equal(36, #wire.uuid())
    assert.not_equal(wire.uuid(), wire.uuid())
    assert.not_equal(wire.seed(), wire.seed())
    assert.is_true(math.abs(wire.milliseconds() / 1000 - os.time()) < 3)
    assert.is_true(math.abs(wire.seconds() - os.time()) < 3)
  end)
end)

describe("the seeded generator", function()
  it("repeats its series for a seed and stays in [0, 1)", function()
    local a, b, sum = random.new(7), random.new(7), 0
    for _ = 1, 1000 do
      local x = a()
      assert.equal(x, b())
      assert.is_true(x >= 0 and x < 1)
      sum = sum + x
    end
    assert.is_true(math.abs(sum / 1000 - 0.5) < 0.05)
    assert.not_equal(random.new(7)(), random.new(8)())
    assert.equal(random.hash "gate", random.hash "gate")
    assert.not_equal(random.hash "gate", random.hash "gale")
  end)
end)

describe("the n-gram model", function()
  it("counts contexts of every order", function()
    local model = ngram.train "the gate opens.\n\nthe gate shuts."
    assert.equal(2, model.two.the.count.gate)
    assert.equal(1, model.three["the\0gate"].count.opens)
    assert.equal(2, model.one[""].count["."])
  end)

  it("says the same for a seed and something else for another", function()
    local first = said(ngram_entity, chat("What is a lock?", { seed = 1 }))
    assert.equal(first, (said(ngram_entity, chat("What is a lock?", { seed = 1 }))))
    assert.not_equal(first, (said(ngram_entity, chat("What is a lock?", { seed = 2 }))))
  end)

  it("takes the likeliest words at temperature 0, whatever the seed", function()
    local first = said(ngram_entity, chat("Tell me about mills", { temperature = 0, seed = 1 }))
    assert.equal(first, (said(ngram_entity, chat("Tell me about mills", { temperature = 0, seed = 2 }))))
    assert.equal(first, (said(ngram_entity, chat("Tell me about mills", { top_p = 0, seed = 3 }))))
  end)

  it("answers with words of its text only", function()
    local known = {}
    for token in tokens.each(require "sluice.emulator.corpus") do known[token:match "%S+"] = true end
    for seed = 1, 50 do
      for token in tokens.each((said(ngram_entity, chat("ping", { seed = seed })))) do
        assert.is_true(known[token:match "%S+"], token)
      end
    end
  end)

  it("answers about the words of the question", function()
    local about_keeper, otherwise = 0, 0
    for seed = 1, 200 do
      local about = said(ngram_entity, chat("the keeper", { seed = seed }))
      local other = said(ngram_entity, chat("ping", { seed = seed }))
      about_keeper = about_keeper + (about:find "keeper" and 1 or 0)
      otherwise = otherwise + (other:find "keeper" and 1 or 0)
    end
    assert.is_true(about_keeper > 1.5 * otherwise, ("%d against %d"):format(about_keeper, otherwise))
  end)

  it("stops at max_tokens exactly, and counts what it says", function()
    for limit = 1, 30, 7 do
      local body = chat("What is a lock?", { max_tokens = limit, seed = 3, ignore_eos = true })
      local content, reason, usage = said(ngram_entity, body)
      assert.equal("length", reason)
      assert.equal(limit, usage.completion_tokens)
      assert.equal(limit, tokens.count(content))
      assert.equal(5, usage.prompt_tokens)
      assert.equal(limit + 5, usage.total_tokens)
    end
  end)

  it("ends after its default number of tokens", function()
    local _, reason, usage = said(ngram_entity, chat("What is a lock?", { ignore_eos = true }))
    assert.same({ "length", ngram.default_max_tokens }, { reason, usage.completion_tokens })
  end)

  it("ends by itself when it has said enough", function()
    for seed = 1, 50 do
      local content, reason = said(ngram_entity, chat("What is a lock?", { seed = seed, max_tokens = 4096 }))
      assert.equal("stop", reason)
      assert.is_truthy(content:find "[.?!]$")
    end
  end)

  it("goes on from the words of a prompt", function()
    local answer = ask(ngram_entity, { prompt = "The keeper looks at", temperature = 0, max_tokens = 2 })
    assert.equal("text_completion", answer.object)
    assert.equal(" the water", answer.choices[1].text)
  end)

  it("gives n answers with seeds of their own", function()
    local answer = ask(ngram_entity, chat("What is a lock?", { n = 3, seed = 10 }))
    assert.equal(3, #answer.choices)
    local twelve = said(ngram_entity, chat("What is a lock?", { seed = 12 }))
    assert.equal(twelve, answer.choices[3].message.content)
    assert.equal(2, answer.choices[3].index)
  end)
end)

describe("a text request", function()
  it("ends before the first stop string, also one that spans tokens", function()
    for _, case in ipairs {
      { stop = "three", content = "one two " },
      { stop = { "four", "two" }, content = "one " },
      { stop = "o thr", content = "one tw" },
      { stop = { "ree", "th" }, content = "one two " },
      { stop = "one", content = "" },
      { stop = "five!", content = "one two three four, five" },
    } do
      local content, reason, usage = said(echo_entity, chat("one two three four, five", { stop = case.stop }))
      assert.equal(case.content, content)
      assert.equal("stop", reason)
      assert.equal(tokens.count(content), usage.completion_tokens)
    end
  end)

  it("never lets a piece out that may begin a stop string", function()
    local pieces, given = { "a", "b", "c", "a", "b", "d", "a" }, 0
    local function generate()
      given = given + 1
      if pieces[given] then return pieces[given] end
      return nil, "stop"
    end
    local out = {}
    local next_piece = text.bounded(generate, { stop = { "abd" } })
    for piece in next_piece do out[#out + 1] = piece end
    assert.same({ "", "", "abc", "", "", "" }, out)
    assert.same({ nil, "stop" }, { next_piece() })
    assert.equal(6, given)
  end)

  it("reads content in parts and counts every message", function()
    local parts = { { type = "text", text = "one" }, { type = "image_url" }, { type = "text", text = "two" } }
    local content, _, usage = said(echo_entity, {
      messages = {
        { role = "system", content = "Be brief." },
        { role = "user", content = parts },
        { role = "assistant", content = json.null, tool_calls = { { id = "1" } } },
        { role = "tool", content = "" },
      },
    })
    assert.equal("one\ntwo", content)
    assert.equal(5, usage.prompt_tokens)
  end)

  it("echoes exactly", function()
    for _, sample in ipairs { "  two  spaces \n", "", "caf\u{e9}", "a\tb" } do
      assert.equal(sample, (said(echo_entity, chat(sample))))
    end
  end)

  it("refuses what is out of range, and says what", function()
    for name, values in pairs {
      temperature = { -1, 2.5, "hot" },
      max_tokens = { 0, -1, 1.5, "many" },
      n = { 0, 6 },
      stop = { 1, { 1 }, "", { "" } },
      seed = { 0.5 },
      top_p = { 1.5 },
    } do
      for _, value in ipairs(values) do
        local refusal = refusal_of(ngram_entity, chat("x", { [name] = value }))
        assert.equal(400, refusal.status)
        assert.equal("INVALID_PARAMETER_VALUE", refusal.error_code)
        assert.is_truthy(refusal.message:find(name, 1, true))
      end
    end
  end)

  it("takes null for absent", function()
    local nothing = { temperature = json.null, max_tokens = json.null, stop = json.null, stream = false }
    assert.equal("one two", (said(echo_entity, chat("one two", nothing))))
  end)

  it("refuses messages that are none", function()
    local without_role, bad_content = { { content = "no role" } }, { { role = "user", content = 5 } }
    local bad_role = { { role = "usr", content = "hi" } }
    local bad_call = { { role = "user", tool_calls = { {} } } }
    local none = { { role = "assistant", content = json.null } }
    for _, messages in ipairs { {}, "hi", { "hi" }, without_role, bad_content, bad_role, bad_call, none } do
      local refusal = refusal_of(echo_entity, { messages = messages })
      assert.equal("BAD_REQUEST", refusal.error_code)
    end
  end)

  it("refuses to stream more than one choice", function()
    local refusal = refusal_of(echo_entity, chat("x", { stream = true, n = 2 }))
    assert.equal("BAD_REQUEST", refusal.error_code)
    assert.equal('parameter "n" must be equal to 1 for streaming mode', refusal.message)
  end)
end)

describe("the embedding model", function()
  local function dot(a, b)
    local sum = 0
    for i = 1, embedding.dimensions do sum = sum + a[i] * b[i] end
    return sum
  end

  it("gives vectors of length 1 that are near for shared words", function()
    for _, sample in ipairs { "", "...", "one", "the river runs to the sea" } do
      local vector = embedding.vector(sample)
      assert.equal(embedding.dimensions, #vector)
      assert.is_true(math.abs(dot(vector, vector) - 1) < 1e-12)
    end
    local river = embedding.vector "the river runs to the sea"
    local near = dot(river, embedding.vector "a river runs into the sea")
    local far = dot(river, embedding.vector "bread tastes of smoke")
    assert.is_true(near > far + 0.3)
    assert.same(river, embedding.vector "The River runs to the SEA!")
  end)

  it("answers a string and a list of strings", function()
    local one = assert(embedding.answer({ input = "a b" }, { label = "x" })).json
    assert.equal(1, #one.data)
    local two = assert(embedding.answer({ input = { "a b", "c" } }, { label = "x" })).json
    assert.equal("list", two.object)
    assert.same({ 0, 1 }, { two.data[1].index, two.data[2].index })
    assert.same(one.data[1].embedding, two.data[1].embedding)
    assert.same({ prompt_tokens = 3, total_tokens = 3 }, two.usage)
  end)

  it("packs floats for clients that ask for base64", function()
    local answer = assert(embedding.answer({ input = "a", encoding_format = "base64" }, { label = "x" })).json
    local packed = answer.data[1].embedding
    assert.equal(344, #packed) -- 64 floats of 4 bytes
    assert.is_truthy(packed:find "^[%w+/]+==$")
  end)

  it("refuses other inputs", function()
    for _, input in ipairs { 5, {}, { 5 }, { a = 1 } } do
      local answer, refusal = embedding.answer({ input = input }, { label = "x" })
      assert.is_nil(answer)
      assert.equal("BAD_REQUEST", refusal.error_code)
    end
  end)
end)

describe("the tabular model", function()
  local function predictions(body) return assert(tabular.answer(body)).json.predictions end

  it("is 1 + x1/1 + x2/2 + ... in the order of the columns' names", function()
    local split = { columns = { "b", "a" }, data = { { 1, 2 }, { 3, 4 } } }
    assert.same({ 3.5, 6.5 }, predictions { dataframe_split = split })
    assert.same({ 3.5, 6.5 }, predictions { dataframe_records = { { a = 2, b = 1 }, { a = 4, b = 3 } } })
    assert.same({ 3.5, 6.5 }, predictions { inputs = { a = { 2, 4 }, b = { 1, 3 } } })
    assert.same({ 3.5, 6.5 }, predictions { instances = { { a = 2, b = 1 }, { a = 4, b = 3 } } })
    assert.same({ 3.5, 6.5 }, predictions { inputs = { { 2, 1 }, { 4, 3 } } })
    assert.same({ 3.5 }, predictions { instances = { { { 2 }, { 1 } } } })
  end)

  it("counts true as 1 and what is no number as 0", function()
    local record = { a = true, b = 1, c = "text", d = json.null }
    assert.same({ 2.5 }, predictions { dataframe_records = { record } })
  end)

  it("gives null where the sum is beyond floats", function()
    assert.same({ json.null }, predictions { instances = { { 1.7e308, 1.7e308 } } })
  end)

  it("keeps an empty answer a list", function()
    local answer = assert(tabular.answer { dataframe_records = json.array {} }).json
    assert.equal('{"predictions":[]}', json.encode(answer))
  end)

  it("wants exactly one of the four keys", function()
    for _, body in ipairs { {}, { instances = { 1 }, inputs = { 1 } }, { inputs = json.null } } do
      local answer, refusal = tabular.answer(body)
      assert.is_nil(answer)
      assert.same({ 400, "BAD_REQUEST" }, { refusal.status, refusal.error_code })
      assert.is_truthy(refusal.message:find("exactly one of the input fields", 1, true))
    end
  end)

  it("refuses rows that do not fit, and keys beside inputs", function()
    for _, body in ipairs {
      { dataframe_split = { columns = { "a" }, data = { { 1, 2 } } } },
      { dataframe_split = { data = { { 1 } } } },
      { dataframe_split = "x" },
      { dataframe_records = { 1 } },
      { instances = 5 },
      { inputs = { a = { 1 }, b = { 1, 2 } } },
      { inputs = { 1 }, name = "e" },
    } do
      local answer, refusal = tabular.answer(body)
      assert.is_nil(answer)
      assert.equal("BAD_REQUEST", refusal.error_code)
    end
  end)
end)
