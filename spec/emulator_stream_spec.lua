-- SPDX-License-Identifier: MIT
-- The emulator's streams, in every dialect.

local caller = require "emulator_caller"
local dialects = require "sluice.emulator.dialect"
local emulator = require "sluice.emulator"
local json = require "sluice.json"
local reply = require "sluice.emulator.reply"
local stream = require "sluice.emulator.stream"
local task = require "sluice.task"
local text = require "sluice.emulator.text"

local chat <const>, events_of <const> = caller.chat, caller.events
local invocations <const> = "/serving-endpoints/e/invocations"

local function start(options, model, tags)
  options = options or {}
  options.deploy_time = 0
  local call = caller.start(options)
  caller.create(call, "e", { caller.entity(model or "echo") }, { tags = tags })
  return call
end

local function streamed(call, body, path)
  body.stream = true
  local res = call("POST", path or invocations, body)
  assert.equal(200, res.status)
  assert.equal("text/event-stream; charset=utf-8", res.headers["content-type"])
  return events_of(res.body)
end

-- The texts of a chat's deltas.
local function deltas(events)
  local list = {}
  for _, event in ipairs(events) do
    local choice = type(event) == "table" and event.choices[1]
    if choice and choice.delta.content then list[#list + 1] = choice.delta.content end
  end
  return list
end

describe("a stream of a chat", function()
  it("says a word a chunk, with the usage until there, and its end", function()
    local events = streamed(start(), chat "one two three")
    assert.equal("[DONE]", events[#events])
    assert.same({ "", "one", " two", " three", "" }, deltas(events))
    assert.equal("assistant", events[1].choices[1].delta.role)
    for index = 1, 4 do
      assert.equal("chat.completion.chunk", events[index].object)
      assert.equal(events[1].id, events[index].id)
      assert.equal(json.null, events[index].choices[1].finish_reason)
      assert.same({ 3, index - 1, 2 + index },
        { events[index].usage.prompt_tokens, events[index].usage.completion_tokens,
          events[index].usage.total_tokens })
    end
    assert.equal("stop", events[5].choices[1].finish_reason)
    assert.is_true(events[5].created > events[1].created)
  end)

  it("is the same on the OpenAI paths, and for one served entity", function()
    local call = start()
    local direct = "/serving-endpoints/e/served-models/echo-1/invocations"
    for _, path in ipairs { "/serving-endpoints/v1/chat/completions", direct } do
      assert.same({ "", "x", "" }, deltas(streamed(call, chat("x", { model = "e" }), path)))
    end
  end)

  it("ends by max_tokens and by stop strings", function()
    local events = streamed(start(), chat("one two three", { max_tokens = 2 }))
    assert.same({ "length", 2 }, { events[4].choices[1].finish_reason, events[4].usage.completion_tokens })
    assert.same({ "", "one", "" }, deltas(streamed(start(), chat("one two three", { stop = " two" }))))
  end)

  it("takes its time for each token", function()
    task.simulate(function()
      local call = start { token_time = 0.5 }
      local before = task.now()
      local res = call("POST", invocations, chat("one two", { stream = true }))
      local pieces = {}
      for _ in res:chunks() do pieces[#pieces + 1] = task.now() - before end
      assert.equal(5, #pieces)
      for index, at in ipairs { 0, 0.5, 1, 1, 1 } do assert.is_true(math.abs(pieces[index] - at) < 1e-6) end
    end)
  end)

  it("has an empty answer too", function()
    assert.same({ "", "" }, deltas(streamed(start(), chat("x", { stop = "x" }))))
  end)

  it("refuses before it begins, as a plain answer does", function()
    local call = start()
    caller.refused(call("POST", invocations, { messages = "x", stream = true }), 400, "BAD_REQUEST")
    local res = call("POST", invocations, chat("x", { stream = true, n = 2 }))
    caller.refused(res, 400, "BAD_REQUEST", 'parameter "n" must be equal to 1 for streaming mode')
  end)

  it("calls tools in pieces", function()
    local tool = { type = "function", ["function"] = { name = "look", parameters = { type = "object",
      properties = {
      word = { type = "string" } } } } }
    local body = { tools = { tool }, tool_choice = "required" }
    local events = streamed(start(), chat("here", body))
    assert.equal("", events[1].choices[1].delta.content)
    local head = events[2].choices[1].delta.tool_calls[1]
    assert.same({ 0, "look", "" }, { head.index, head["function"].name, head["function"].arguments })
    assert.matches("^call_", head.id)
    local arguments = ""
    for index = 3, 4 do
      local piece = events[index].choices[1].delta.tool_calls[1]
      assert.is_nil(piece.id)
      arguments = arguments .. piece["function"].arguments
    end
    assert.same({ word = "here" }, json.decode(arguments))
    assert.equal("tool_calls", events[5].choices[1].finish_reason)
    events = streamed(start { dialect = { tool_calls = "whole" } }, chat("here", body))
    assert.equal('{"word":"here"}', events[2].choices[1].delta.tool_calls[1]["function"].arguments)
  end)
end)

describe("a stream of a completion", function()
  it("has texts", function()
    local events = streamed(start(), { prompt = "one two" })
    assert.equal("text_completion", events[1].object)
    assert.same({ "one", " two", "" }, {
      events[1].choices[1].text, events[2].choices[1].text, events[3].choices[1].text,
    })
    assert.equal("stop", events[3].choices[1].finish_reason)
  end)
end)

describe("a dialect", function()
  local function events_with(dialect, more) return streamed(start { dialect = dialect }, chat("one two",
    more)) end

  it("has the usage at the end, where that is asked for", function()
    local events = events_with({ usage = "final" }, { stream_options = { include_usage = true } })
    assert.is_nil(events[1].usage)
    assert.same({ 0, 4 }, { #events[5].choices, events[5].usage.total_tokens })
    assert.equal("[DONE]", events[6])
    assert.equal(5, #events_with { usage = "final" })
    for _, event in ipairs(events_with { usage = "none" }) do
      assert.is_true(event == "[DONE]" or event.usage == nil)
    end
  end)

  it("has a fixed time", function()
    task.simulate(function()
      local events = streamed(start { dialect = { created = "fixed" } }, chat "a b c d e f g h")
      assert.equal(events[1].created, events[#events - 1].created)
    end)
  end)

  it("has no content in the last delta, and no end mark", function()
    local events = events_with { last_delta = "absent", done = "absent" }
    assert.same({}, events[4].choices[1].delta)
    assert.equal(4, #events)
  end)

  it("has blocks for content, streamed and whole", function()
    local events = events_with { content = "blocks" }
    assert.equal("reasoning", events[2].choices[1].delta.content[1].type)
    assert.same({ { type = "text", text = "one" } }, events[3].choices[1].delta.content)
    local whole = start { dialect = { content = "blocks" } }("POST", invocations, chat "one two"):json()
    local content = whole.choices[1].message.content
    assert.same({ reply.thought(), { type = "text", text = "one two" } }, content)
  end)

  it("is an endpoint's by its tags", function()
    local tags = { { key = "emulator.done", value = "absent" }, { key = "emulator.usage",
      value = "nonsense" } }
    local events = streamed(start(nil, "echo", tags), chat "x")
    assert.not_equal("[DONE]", events[#events])
    assert.is_table(events[1].usage)
    assert.equal("sent", dialects.of({}, assert(dialects.read())).done)
  end)

  it("is refused where it is none (dialect.read)", function()
    assert.is_nil(dialects.read { done = "maybe" })
    assert.matches("has no option", select(2, dialects.read { ends = "x" }))
    assert.has_error(function() emulator.new { dialect = { done = true } } end)
  end)
end)

describe("a model of the user's", function()
  local function with(run, body) return streamed(start({ models = { mine = run } }, "mine"), body) end

  it("streams the text that it returns (text.say)", function()
    assert.same({ "", "one", " two", "" }, deltas(with(function() return "one two" end, chat "x")))
    assert(text.say("label", "chat", chat "x", "words"))
  end)

  it("streams the whole answer that it returns (reply.of_response)", function()
    local call = { id = "1", type = "function", ["function"] = { name = "f", arguments = "{}" } }
    local answers = {
      text = { id = "a", choices = { { message = { content = "one two" }, finish_reason = "length" } } },
      tools = { choices = { { message = { content = json.null, tool_calls = { call } } } } },
    }
    local events = with(function() return answers.text end, chat "x")
    assert.same({ "", "one", " two", "" }, deltas(events))
    assert.same({ "a", "length" }, { events[4].id, events[4].choices[1].finish_reason })
    events = with(function() return answers.tools end, chat "x")
    assert.equal("f", events[2].choices[1].delta.tool_calls[1]["function"].name)
    assert.is_nil(reply.of_response({ predictions = {} }, {}))
    assert.same({ predictions = { 1 } },
      start({ models = { mine = function() return { predictions = { 1 } } end } }, "mine")(
        "POST", invocations, chat("x", { stream = true })):json())
  end)
end)

describe("an upstream's stream", function()
  it("goes through as it comes", function()
    local behind = start(nil, "echo")
    local transport = {}
    function transport.handle(_, request)
      assert.is_true(request.stream)
      return behind("POST", "/serving-endpoints/v1/chat/completions", request.body)
    end
    local call = caller.start { deploy_time = 0, upstream = "http://up.test/v1",
      upstream_transport = transport }
    caller.create(call, "front", { caller.entity "e" })
    local res = call("POST", "/serving-endpoints/front/invocations", chat("one two", { stream = true }))
    assert.same({ "", "one", " two", "" }, deltas(events_of(res.body)))
  end)
end)

describe("a frame", function()
  it("is one event", function() assert.equal('data: {"a":1}\n\n', stream.frame { a = 1 }) end)
end)
