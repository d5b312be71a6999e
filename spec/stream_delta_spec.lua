-- SPDX-License-Identifier: MIT
local collector = require "sluice.stream.collector"
local delta = require "sluice.stream.delta"
local errors = require "sluice.errors"
local json = require "sluice.json"
local meta = require "sluice.meta"
local stream = require "sluice.stream"

local function choice(fields)
  return { choices = { fields } }
end

describe("sluice.stream.delta", function()
  local CASES <const> = {
    -- chunk, text, whether it has content, whether it is the last
    { choice { delta = { content = "a" } }, "a", true, false },
    { choice { index = 0, delta = { role = "assistant", content = "" } }, "", false, false },
    { choice { index = 1, delta = { content = "a" } }, nil, true, false },
    { choice { delta = { content = json.null } }, nil, false, false },
    { choice { delta = {}, finish_reason = "stop" }, nil, true, true },
    { choice { delta = {}, finish_reason = json.null }, nil, false, false },
    { choice { delta = { tool_calls = { { id = "x" } } } }, nil, true, false },
    { choice { delta = { reasoning_content = "hm" } }, nil, true, false },
    { choice { text = "a" }, "a", true, false },
    { choice { text = "", finish_reason = "length" }, "", true, true },
    { choice { message = { content = "a" } }, "a", true, false },
    { choice { delta = { content = { { type = "text", text = "a" }, { text = "b" } } } }, "ab", true, false },
    { choice { delta = { content = { { type = "reasoning", summary = {} } } } }, "", true, false },
    { { choices = {}, usage = { total_tokens = 1 } }, nil, false, false },
    { { choices = json.null, usage = {} }, nil, false, false },
    { { choices = { "odd", json.null } }, nil, false, false },
    { { usage = {} }, nil, false, false },
    { { type = "response.output_text.delta", delta = "a" }, "a", true, false },
    { { type = "response.function_call_arguments.delta", delta = "{" }, nil, true, false },
    { { type = "response.created", response = {} }, nil, false, false },
    { { type = "response.completed", response = {} }, nil, true, true },
    { { delta = { role = "assistant", content = "a" } }, "a", true, false },
    { { type = "content_block_delta", delta = { type = "text_delta", text = "a" } }, "a", true, false },
    { { predictions = { 1 } }, nil, true, false },
    { {}, nil, false, false },
    { 17, nil, true, false },
  }

  it("tells text, content and end of a chunk", function()
    for _, case in ipairs(CASES) do
      local chunk = case[1]
      local shown = json.encode(chunk)
      assert.are.equal(case[2], delta.text(chunk), shown)
      assert.are.equal(case[3], delta.has_content(chunk), shown)
      if type(chunk) == "table" then assert.are.equal(case[4], delta.is_last(chunk), shown) end
    end
    assert.are.equal("stop", delta.finish_reason(CASES[5][1]))
    local plain = {}
    for _, case in ipairs(CASES) do plain[#plain + 1] = delta.plain(case[1]) end
    assert.are.same({ "a" }, plain) -- the first one; the others say more, or say it differently
    assert.are.equal("b", delta.plain(choice { index = 0, delta = { role = "assistant", content = "b" } }))
    assert.is_nil(delta.plain(choice { delta = { content = "b", refusal = "no" } }))
    assert.is_nil(delta.plain { choices = { { delta = { content = "b" } } }, error = {} })
    assert.are.equal("ab", delta.text_of_content { { type = "text", text = "ab" }, 7 })
    assert.is_nil(delta.text_of_content(json.null))
  end)
end)

describe("sluice.stream.collector", function()
  it("makes the same of plain text, told apart or not", function()
    local one, other = collector.new(), collector.new()
    for index = 1, 1000 do
      local usage = index % 100 == 0 and { total_tokens = index } or nil
      local piece = { id = "c", choices = { { delta = { content = index .. " " } } }, usage = usage }
      one:add_text(index .. " ", piece)
      other:add(piece)
    end
    assert.are.same(other:answer(), one:answer())
    assert.are.equal(1000, one:answer().usage.total_tokens)
    assert(one:text():find "^1 2 3 .* 999 1000 $")
    one:add(choice { delta = { content = { { type = "text", text = "end" } } } })
    one:add_text("!", choice { delta = { content = "!" } })
    local content = one:answer().choices[1].message.content
    assert.are.same({ { type = "text", text = other:text() .. "end!" } }, content)
  end)

  it("takes whatever comes", function()
    math.randomseed(20260801)
    local values = {
      json.null, 1, "x", "", true, {}, { 1 }, { { 1 } }, { index = 0 }, { index = "a", id = 1 },
      { delta = 1 }, { delta = { content = 1, tool_calls = 2 } },
      { delta = { tool_calls = { 1, {}, { ["function"] = 1 } } } },
      { delta = { content = { 1, {}, { type = "text" } }, role = 7 } },
      { text = {}, logprobs = { content = 1 } },
      { finish_reason = 1 }, { finish_reason = "stop", index = 5 }, { message = { content = "m" } },
      { delta = { function_call = 1 } }, { delta = { function_call = { name = "f", arguments = "a" } } },
    }
    local function any() return values[math.random(#values)] end
    for _ = 1, 3000 do
      local made = collector.new()
      for _ = 1, math.random(1, 6) do
        made:add { choices = math.random(4) > 1 and { any(), any() } or any(), usage = any(), type = any(),
          response = any(), item = any(), delta = any() }
      end
      assert.are.equal("string", type(made:text()))
      assert.are.equal("table", type(made:answer()))
    end
  end)
end)

describe("stream.wrap", function()
  -- A source of these chunks; an err among them is a failure.
  local function source_of(chunks)
    local at, source = 0, { closed = 0 }
    function source.next()
      at = at + 1
      if errors.is(chunks[at]) then return nil, chunks[at] end
      return chunks[at], chunks[at] and "event " .. at
    end
    function source.close() source.closed = source.closed + 1 end
    return source
  end

  local A <const> = choice { delta = { content = "a" } }
  local B <const> = choice { delta = { content = "b" }, finish_reason = "stop" }

  it("gives an object with next and close the rest", function()
    local source = source_of { A, B }
    local wrapped = stream.wrap(source)
    assert.is_true(stream.is(wrapped))
    assert.is_false(stream.is(source))
    assert.are.equal(wrapped, stream.wrap(wrapped))
    assert.are.same({ A, "event 1" }, { wrapped:next() })
    local text = {}
    for piece in wrapped:text() do text[#text + 1] = piece end
    assert.are.same({ "b" }, text)
    assert.are.equal("ab", assert(wrapped:collect()).choices[1].message.content)
    wrapped:close()
    assert(source.closed >= 1)
  end)

  it("gives an err the text so far, and raises it from iterators", function()
    local failure = errors.new("ConnectError")
    local wrapped = stream.wrap(source_of { A, failure })
    local ok, err = pcall(function()
      for _ in wrapped:chunks() do assert.is_nil(failure.partial) end
    end)
    assert.is_false(ok)
    assert.are.equal(failure, err)
    assert.are.equal("a", err.partial)
    assert.are.same({ nil, failure }, { wrapped:collect() })
  end)

  it("closes its source once a loop is left", function()
    local source = source_of { A, B }
    for _ in stream.wrap(source):chunks() do
      if source then break end
    end
    assert.are.equal(1, source.closed)
    local again = source_of { A, B }
    do
      local _ <close> = stream.wrap(again)
    end
    assert.are.equal(1, again.closed)
  end)

  it("shares what is known of its source", function()
    local source = source_of { A, B }
    local wrapped = stream.wrap(source)
    meta.set(source, { ttft = 2 })
    assert.are.equal(2, meta.get(wrapped).ttft)
    local answer = assert(wrapped:collect())
    meta.set(wrapped, { attempts = { 1 } })
    assert.are.same({ ttft = 2, attempts = { 1 } }, meta.get(answer))
    local one, other = {}, {}
    meta.set(meta.share(one, other), { x = 1 })
    assert.are.equal(1, meta.get(other).x)
  end)

  it("refuses what is no source", function()
    for _, wrong in ipairs { 1, "x", {}, { next = print }, function() end } do
      assert.has_error(function() stream.wrap(wrong) end)
    end
  end)
end)
