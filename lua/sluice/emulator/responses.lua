-- SPDX-License-Identifier: MIT
-- OpenAI's Responses form, which agents speak too: its requests as chats, its answers and its events.

local json = require "sluice.json"
local stream = require "sluice.emulator.stream"
local tokens = require "sluice.emulator.tokens"
local wire = require "sluice.emulator.wire"

local responses = {}

-- Parts of a message: their text alone counts.
local function text_of(content)
  content = wire.given(content)
  if type(content) ~= "table" then return content end
  local parts = json.array {}
  for index, part in ipairs(content) do
    parts[index] = { type = "text", text = wire.is_object(part) and part.text or nil }
  end
  return parts
end

-- An item of the input as a message of a chat: a message, a call that was made, or its result.
local function message_of(item)
  if not wire.is_object(item) then return item end
  if item.type == "function_call" then
    local called = { name = item.name, arguments = item.arguments }
    local call = { id = item.call_id, type = "function", ["function"] = called }
    return { role = "assistant", tool_calls = json.array { call } }
  end
  if item.type == "function_call_output" then
    return { role = "tool", tool_call_id = item.call_id, content = text_of(item.output) }
  end
  local role = item.role == "developer" and "system" or item.role
  return { role = role, content = text_of(item.content) }
end

local function messages_of(body)
  local messages, input = json.array {}, wire.given(body.input)
  local instructions = wire.given(body.instructions)
  if instructions then messages[1] = { role = "system", content = instructions } end
  if type(input) == "string" then input = { { role = "user", content = input } } end
  if not wire.is_list(input) then return nil end
  for _, item in ipairs(input) do
    local is_thought = wire.is_object(item) and item.type == "reasoning"
    if not is_thought then messages[#messages + 1] = message_of(item) end
  end
  return messages
end

local function tools_of(list)
  if not wire.is_list(list) then return nil end
  local tools = json.array {}
  for _, tool in ipairs(list) do
    if wire.is_object(tool) and tool.type == "function" then
      tools[#tools + 1] = { type = "function", ["function"] = tool["function"] or tool }
    end
  end
  return #tools > 0 and tools or nil
end

local function choice_of(choice)
  if wire.is_object(choice) and choice.name then return { ["function"] = { name = choice.name } } end
  return choice
end

local function format_of(text)
  local format = wire.is_object(text) and wire.given(text.format)
  if not wire.is_object(format) then return nil end
  return { type = format.type, json_schema = format }
end

---Whether a body is one of this form: its input is a list of items.
---@param body table
---@return boolean
function responses.is(body)
  local first = wire.is_list(body.input) and body.input[1]
  return wire.is_object(first) and (first.role ~= nil or first.type ~= nil)
end

---A request as that of a chat, which is never streamed.
---@param body table
---@return table|nil chat
---@return sluice.emulator.refusal|nil
function responses.to_chat(body)
  local messages = messages_of(body)
  if not messages then
    return wire.bad_request("Bad request: input must be a string or a list of items.")
  end
  return {
    model = body.model,
    messages = messages,
    max_tokens = body.max_output_tokens,
    temperature = body.temperature,
    top_p = body.top_p,
    tools = tools_of(wire.given(body.tools)),
    tool_choice = choice_of(wire.given(body.tool_choice)),
    response_format = format_of(wire.given(body.text)),
  }
end

local function message_item(id, text, status)
  local content = json.array {}
  if text then content[1] = { type = "output_text", text = text, annotations = json.array {} } end
  return { type = "message", id = id, status = status, role = "assistant", content = content }
end

local function call_item(call)
  local declared = call["function"]
  return {
    type = "function_call", id = "fc_" .. wire.uuid(), call_id = call.id, status = "completed",
    name = declared.name, arguments = declared.arguments,
  }
end

local function usage(self, completion_tokens)
  return {
    input_tokens = self.prompt_tokens,
    input_tokens_details = { cached_tokens = 0 },
    output_tokens = completion_tokens,
    output_tokens_details = { reasoning_tokens = 0 },
    total_tokens = self.prompt_tokens + completion_tokens,
  }
end

-- The whole object; `ended` is nil while it is made.
local function object(self, output, ended)
  local cut = ended and ended.reason == "length"
  return {
    id = self.id:gsub("^chatcmpl_", "resp_"),
    object = "response",
    created_at = self.created,
    model = self.label,
    status = not ended and "in_progress" or cut and "incomplete" or "completed",
    incomplete_details = cut and { reason = "max_output_tokens" } or json.null,
    error = json.null,
    instructions = json.null,
    metadata = {},
    output = output,
    parallel_tool_calls = true,
    tool_choice = "auto",
    tools = json.array {},
    usage = ended and usage(self, ended.tokens) or json.null,
  }
end

local function call_tokens(call)
  return tokens.count(call["function"].name) + tokens.count(call["function"].arguments)
end

local function collect(next_piece)
  local pieces = {}
  while true do
    local piece, reason = next_piece()
    if not piece then return table.concat(pieces), reason end
    pieces[#pieces + 1] = piece
  end
end

---The answer in one piece.
---@param self sluice.emulator.reply
---@return table
function responses.whole(self)
  self.created = wire.seconds()
  local output, count = json.array {}, 0
  if self.tool_calls then
    for index, call in ipairs(self.tool_calls) do
      output[index], count = call_item(call), count + call_tokens(call)
    end
    return object(self, output, { tokens = count })
  end
  local content, reason = collect(self.choices[1])
  output[1] = message_item("msg_" .. wire.uuid(), content, "completed")
  return object(self, output, { tokens = tokens.count(content), reason = reason })
end

-- A frame with the event's name, and a number that counts the events.
local function event(state, name, fields)
  state.events = (state.events or -1) + 1
  fields.type, fields.sequence_number = name, state.events
  coroutine.yield("event: " .. name .. "\n" .. stream.frame(fields))
end

local function say_text(state)
  local id = "msg_" .. wire.uuid()
  local place = { item_id = id, output_index = 0, content_index = 0 }
  local function say(name, fields)
    for key, value in pairs(place) do fields[key] = value end
    event(state, name, fields)
  end
  local begun = message_item(id, nil, "in_progress")
  event(state, "response.output_item.added", { output_index = 0, item = begun })
  say("response.content_part.added", { part = message_item(id, "", nil).content[1] })
  local pieces = {}
  local reason = stream.each_piece(state, function(piece)
    pieces[#pieces + 1] = piece
    say("response.output_text.delta", { delta = piece, logprobs = json.array {} })
  end)
  local item = message_item(id, table.concat(pieces), "completed")
  say("response.output_text.done", { text = item.content[1].text, logprobs = json.array {} })
  say("response.content_part.done", { part = item.content[1] })
  event(state, "response.output_item.done", { output_index = 0, item = item })
  return json.array { item }, reason
end

local function say_calls(state)
  local output = json.array {}
  for index, call in ipairs(state.reply.tool_calls) do
    stream.pause(state)
    state.tokens = state.tokens + call_tokens(call)
    local item = call_item(call)
    local place = { output_index = index - 1, item_id = item.id }
    local arguments = item.arguments
    local begun = { type = item.type, id = item.id, call_id = item.call_id, name = item.name, arguments = "" }
    event(state, "response.output_item.added", { output_index = index - 1, item = begun })
    event(state, "response.function_call_arguments.delta", {
      delta = arguments, output_index = place.output_index, item_id = place.item_id,
    })
    event(state, "response.function_call_arguments.done", {
      arguments = arguments, name = item.name, output_index = place.output_index, item_id = place.item_id,
    })
    event(state, "response.output_item.done", { output_index = index - 1, item = item })
    output[index] = item
  end
  return output
end

---Yields the frames of an answer: for stream.run.
---@param state table
function responses.say(state)
  local self = state.reply
  self.created = state.created
  event(state, "response.created", { response = object(self, json.array {}) })
  event(state, "response.in_progress", { response = object(self, json.array {}) })
  local output, reason = (self.tool_calls and say_calls or say_text)(state)
  local ended = object(self, output, { tokens = state.tokens, reason = reason })
  event(state, "response." .. ended.status, { response = ended })
  if state.dialect.done == "sent" then coroutine.yield(stream.done) end
end

return responses
