-- SPDX-License-Identifier: MIT
-- The Responses form of the emulator: its requests as chats, its answers and its events.

local caller = require "emulator_caller"
local json = require "sluice.json"
local models = require "sluice.emulator.models"
local responses = require "sluice.emulator.responses"
local stream = require "sluice.emulator.stream"

local path <const>, invocations <const> = "/serving-endpoints/responses", "/serving-endpoints/e/invocations"

local function start(model, given)
  local call = caller.start { deploy_time = 0, models = given }
  caller.create(call, "e", { caller.entity(model or "echo") })
  return call
end

local function names_of(body)
  local names = {}
  for name in body:gmatch "event: ([^\n]+)\n" do names[#names + 1] = name end
  return names
end

describe("the Responses form", function()
  it("answers a text and a list of items", function()
    local call = start()
    for _, input in ipairs { "one two", { { role = "user", content = { { type = "input_text",
      text = "one two" } } } } } do
      local answer = call("POST", path, { model = "e", input = input }):json()
      assert.same({ "response", "completed" }, { answer.object, answer.status })
      assert.equal("one two", answer.output[1].content[1].text)
      assert.same({ 2, 2, 4 },
        { answer.usage.input_tokens, answer.usage.output_tokens, answer.usage.total_tokens })
    end
    local answer = call("POST", path, { model = "e", input = "one two", max_output_tokens = 1 }):json()
    assert.same({ "incomplete", "max_output_tokens" }, { answer.status, answer.incomplete_details.reason })
  end)

  it("is known on invocations by its items (responses.is)", function()
    local items = { { role = "user", content = "x" } }
    assert.equal("responses", models.kind_of { input = items })
    assert.equal("embedding", models.kind_of { input = { "x" } })
    assert.is_false(responses.is { input = "x" })
    assert.equal("response", start()("POST", invocations, { input = items }):json().object)
  end)

  it("streams events with their names and numbers (responses.say)", function()
    local call = start()
    local res = call("POST", path, { model = "e", input = "one two", stream = true })
    assert.equal("text/event-stream; charset=utf-8", res.headers["content-type"])
    assert.same({
      "response.created", "response.in_progress", "response.output_item.added", "response.content_part.added",
      "response.output_text.delta", "response.output_text.delta", "response.output_text.done",
      "response.content_part.done", "response.output_item.done", "response.completed",
    }, names_of(res.body))
    local events = caller.events(res.body)
    assert.equal("[DONE]", events[#events])
    for index = 1, #events - 1 do assert.equal(index - 1, events[index].sequence_number) end
    assert.equal("one two", events[10].response.output[1].content[1].text)
    assert.equal(events[1].response.id, events[10].response.id)
    assert.is_function(responses.say)
    assert.is_function(stream.run)
    assert.is_function(stream.each_piece)
    assert.is_function(stream.pause)
  end)

  it("calls tools, and takes their results (responses.to_chat)", function()
    local call = start()
    local tools = { { type = "function", name = "look",
      parameters = { properties = { word = { type = "string" } } } } }
    local body = { model = "e", input = "here", tools = tools, tool_choice = { type = "function",
      name = "look" } }
    local item = call("POST", path, body):json().output[1]
    assert.same({ "function_call", "look", '{"word":"here"}' }, { item.type, item.name, item.arguments })
    body.stream = true
    local events = caller.events(call("POST", path, body).body)
    assert.equal("response.function_call_arguments.delta", events[4].type)
    local chat = responses.to_chat {
      instructions = "be brief",
      input = {
        { type = "reasoning" }, { role = "developer", content = "x" }, item,
        { type = "function_call_output", call_id = item.call_id, output = "found" },
      },
      text = { format = { type = "json_schema", schema = {} } },
    }
    local roles = {}
    for index, message in ipairs(chat.messages) do roles[index] = message.role end
    assert.same({ "system", "system", "assistant", "tool" }, roles)
    assert.equal(item.call_id, chat.messages[3].tool_calls[1].id)
    assert.equal("json_schema", chat.response_format.type)
  end)

  it("passes on what a model of the user's says", function()
    local given = {
      whole = function() return { choices = { { message = { content = "from me" } } } } end,
      other = function() return { predictions = { 1 } } end,
    }
    local answer = start("whole", given)("POST", path, { model = "e", input = "x" }):json()
    assert.equal("from me", responses.whole and answer.output[1].content[1].text)
    assert.same({ predictions = { 1 } }, start("other", given)("POST", path, { model = "e",
      input = "x" }):json())
  end)

  it("is refused where it has no input", function()
    for _, input in ipairs { json.null, 5, json.array {} } do
      caller.refused(start()("POST", path, { model = "e", input = input }), 400, "BAD_REQUEST")
    end
  end)
end)
