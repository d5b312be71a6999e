-- SPDX-License-Identifier: MIT
-- The parts of layers.cache: what is kept, the two forms of an answer, calls that are shared.
local endpoint = require "cache_endpoint"
local entry = require "sluice.cache.entry"
local fetch = require "sluice.cache.fetch"
local flights = require "sluice.cache.flights"
local json = require "sluice.json"
local render = require "sluice.cache.render"
local stream = require "sluice.stream"
local task = require "sluice.task"

local function made_entry(given)
  local made = { created = 5.5, model = "m-1", answer = "{}", chunks = "", asked_usage = false }
  for name, value in pairs(given or {}) do made[name] = value end
  return made
end

describe("what is kept", function()
  it("comes out as it went in", function()
    for _, given in ipairs {
      {}, { answer = "" }, { chunks = "\0\255" }, { model = "" }, { asked_usage = true },
      { answer = ("x"):rep(70000) },
    } do
      local made = made_entry(given)
      assert.are.same(made, entry.unpack(entry.pack(made)))
    end
  end)

  it("is nothing where it is of another version, cut short, or longer", function()
    local bytes = entry.pack(made_entry { answer = '{"a":1}', chunks = "chunks" })
    for size = 0, #bytes - 1 do assert.is_nil(entry.unpack(bytes:sub(1, size))) end
    assert.is_nil(entry.unpack(bytes .. "\0"))
    assert.is_nil(entry.unpack("slc0" .. bytes:sub(5)))
    assert.is_nil(entry.unpack(nil))
    assert.is_nil(entry.unpack(entry.pack(made_entry { created = 0 / 0 })))
  end)

  it("is no answer where it does not decode to a table", function()
    assert.are.same({ a = 1 }, entry.answer(made_entry { answer = '{"a":1}' }))
    for _, text in ipairs { "", "{", "5", "null" } do
      assert.is_nil(entry.answer(made_entry { answer = text }))
    end
  end)

  it("has chunks with their times", function()
    local packed = entry.pack_chunk(1.5, '{"a":1}') .. entry.pack_chunk(2, "{}")
    assert.are.same({
      { value = { a = 1 }, text = '{"a":1}', at = 1.5 }, { value = {}, text = "{}", at = 2.0 },
    }, entry.chunks(made_entry { chunks = packed }))
    assert.is_nil(entry.chunks(made_entry()))
    for size = 1, #packed - 1 do
      if size ~= 8 + 4 + 7 then assert.is_nil(entry.chunks(made_entry { chunks = packed:sub(1, size) })) end
    end
    assert.is_nil(entry.chunks(made_entry { chunks = entry.pack_chunk(0 / 0, "{}") }))
    assert.is_nil(entry.chunks(made_entry { chunks = entry.pack_chunk(0, "5") }))
  end)
end)

describe("the two forms of an answer", function()
  local function collected(chunks)
    local at = 0
    return stream.wrap({ close = function() end, next = function()
      at = at + 1
      return chunks[at]
    end }):collect()
  end

  local call = { id = "c1", type = "function", ["function"] = { name = "f", arguments = '{"x":1}' } }
  local second = { id = "c2", type = "function", ["function"] = { name = "g", arguments = "{}" } }

  local function answer_of(choice)
    local made = endpoint.answer "hi"
    for name, value in pairs(choice) do made.choices[1][name] = value end
    return made
  end

  it("say the same", function()
    local two = endpoint.answer "one"
    local message = { role = "assistant", content = "two" }
    two.choices[2] = { index = 1, finish_reason = "length", message = message }
    for _, answer in ipairs {
      endpoint.answer "hi",
      two,
      answer_of { finish_reason = "tool_calls", message = {
        role = "assistant", content = json.null, tool_calls = json.array { call, second },
      } },
      answer_of { message = { role = "assistant", content = "hi", reasoning_content = "hm", refusal = nil } },
      answer_of { message = { role = "assistant", content = json.array {
        { type = "reasoning", summary = json.array { { type = "summary_text", text = "hm" } } },
        { type = "text", text = "hi" },
      } } },
      answer_of { logprobs = { content = json.array { { token = "hi", logprob = -0.5 } } } },
      answer_of { stop_reason = 128 },
      { id = "x", object = "text_completion", usage = { total_tokens = 1 },
        choices = json.array { { index = 0, text = "hi", finish_reason = "stop" } } },
    } do
      local before = json.encode(answer, { canonical = true })
      assert.are.same(answer, (collected(render.chunks(answer, true))))
      assert.are.equal(before, json.encode(answer, { canonical = true }))
      local chunks = render.chunks(answer, false)
      assert.are.equal(2, #chunks)
      for _, chunk in ipairs(chunks) do
        assert.is_nil(chunk.usage)
        assert.is_false(render.is_usage(chunk))
      end
    end
    local chunks = render.chunks(answer_of { message = { tool_calls = { call, second } } }, true)
    assert.are.same({ 0, 1 }, {
      chunks[1].choices[1].delta.tool_calls[1].index, chunks[1].choices[1].delta.tool_calls[2].index,
    })
    assert.is_true(render.is_usage(chunks[3]))
  end)

  it("are one where streams have no such form", function()
    for _, answer in ipairs {
      {}, { choices = json.array {} }, { choices = 5 }, { choices = { "hi" } },
      { choices = { { index = 0 } } },
      { object = "list", data = json.array {} }, answer_of { message = { tool_calls = { "f" } } },
    } do
      assert.is_nil(render.chunks(answer, false))
    end
    local answer = endpoint.answer "hi"
    answer.usage = nil
    assert.is_nil(render.chunks(answer, true))
  end)

  it("are told from what was kept", function()
    assert.is_true(render.asks_usage { stream_options = { include_usage = true } })
    assert.is_false(render.asks_usage { stream_options = json.null })
    assert.is_false(render.asks_usage { stream_options = { include_usage = "yes" } })
    local whole = made_entry { answer = json.encode(endpoint.answer "hi") }
    assert.are.equal(2, #render.stream(whole, false))
    assert.are.equal(3, #render.stream(whole, true))
    assert.is_nil(render.stream(made_entry { answer = "" }, false))
    local chunks = made_entry { answer = "", chunks = entry.pack_chunk(0, json.encode(endpoint.chunk "a")) }
    assert.are.equal(1, #render.stream(chunks, false))
    assert.is_nil(render.stream(chunks, true))
    assert.is_nil(render.stream(made_entry { chunks = "spoilt" }, false))
  end)
end)

describe("a flight", function()
  local function flight_of(key)
    return { key = key, method = "query", is_held = false, asks_usage = false }
  end

  it("is found until what came of it is kept", function()
    task.simulate(function()
      local all, order = flights.new(), {}
      local flight = flight_of "k"
      all:start(flight, function()
        task.sleep(1)
        order[#order + 1] = "asked"
      end, function()
        order[#order + 1] = flight.done and "keep"
        task.sleep(1)
      end)
      assert.are.equal(flight, all:find "k")
      local seat <close> = all:sit(flight)
      assert.is_false(flights.wait(flight, task.now() + 0.5))
      assert.is_true(flights.wait(flight, task.now() + 5))
      assert.are.same({ 1.0, true }, { task.now(), flight.done })
      assert.are.equal(flight, all:find "k")
      task.sleep(1.5)
      assert.is_nil(all:find "k")
      assert.are.same({ "asked", "keep" }, order)
      assert.is_false(flights.wait(flight, task.now()))
      seat:leave()
    end)
  end)

  it("is forgotten for a newer one", function()
    task.simulate(function()
      local all = flights.new()
      local old, new = flight_of "k", flight_of "k"
      for _, flight in ipairs { old, new } do
        all:start(flight, function() task.sleep(1) end, function() end)
      end
      all:forget(old)
      assert.are.equal(new, all:find "k")
      all:forget(new)
      assert.is_nil(all:find "k")
      all:close()
      assert.is_true(all.closed)
    end)
  end)

  it("gives each his own err", function()
    assert.are.equal("text", flights.copy "text")
    assert.is_nil(flights.copy(nil))
  end)

  it("asks, and makes of the answer what is kept", function()
    local inner = endpoint.new { pieces = { endpoint.chunk "a", endpoint.chunk() } }
    local flight = { method = "query", key = "k" }
    fetch.query(flight, { inner = inner, request = {}, max_answer = 1000 })
    assert.is_true(flight.keeps)
    assert.are.same(endpoint.answer "answer 1", entry.answer(flight.entry))
    fetch.trim(flight)
    local all = flights.new()
    local streamed = { method = "stream", key = "k", is_held = true, asks_usage = false }
    all:start(streamed, function()
      fetch.stream(streamed, { inner = inner, request = {}, max_answer = 1000, flights = all })
    end, function() end)
    while not streamed.done do flights.wait(streamed) end
    assert.are.equal(2, #entry.chunks(streamed.entry))
  end)
end)
