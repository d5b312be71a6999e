-- SPDX-License-Identifier: MIT
-- An answer on its way: whose it is, its choices as iterators of pieces, or its tool calls; and its shape as a whole.

local json = require "sluice.json"
local tokens = require "sluice.emulator.tokens"
local tools = require "sluice.emulator.tools"
local wire = require "sluice.emulator.wire"

local reply = {}

---@class sluice.emulator.reply
---@field kind "chat"|"completion"
---@field label string what the answer calls its model
---@field id string
---@field prompt_tokens integer
---@field stream boolean whether the request asks for a stream
---@field include_usage boolean whether it asks for the usage at the stream's end
---@field choices (fun(): string|nil, string|nil)[] pieces of text; at the end `nil` and the finish reason
---@field tool_calls table[]|nil
---@field is_responses boolean|nil in the Responses form

---An iterator over the pieces of a text.
---@param content string
---@param reason string the finish reason
---@return fun(): string|nil, string|nil
function reply.pieces(content, reason)
  local next_token = tokens.each(content)
  return function()
    local piece = next_token()
    if not piece then return nil, reason end
    return piece
  end
end

---Begins an answer. Where the request asks for a tool call or for JSON of a schema, the answer is that.
---@param label string
---@param request table as text.read gives it
---@param is_given boolean|nil the model said already what the answer is: no tool is called for it
---@return sluice.emulator.reply
function reply.new(label, request, is_given)
  local options = wire.given(request.body.stream_options)
  local made = {
    kind = request.kind,
    label = label,
    id = (request.kind == "chat" and "chatcmpl_" or "cmpl_") .. wire.uuid(),
    prompt_tokens = request.prompt_tokens,
    stream = request.stream,
    include_usage = wire.is_object(options) and options.include_usage == true,
    choices = {},
  }
  if is_given or request.kind ~= "chat" then return made end
  made.tool_calls = tools.calls(request.body, request.text)
  local content = not made.tool_calls and tools.structured(request.body, request.text)
  if content then
    made.structured = true
    for index = 1, request.n do made.choices[index] = reply.pieces(content, "stop") end
  end
  return made
end

---An answer that was made elsewhere, to be streamed: its first choice, in pieces.
---@param response table in the shape of chat or completion answers
---@param request_body table
---@return sluice.emulator.reply|nil reply nil where it has no such shape
function reply.of_response(response, request_body)
  local first = wire.is_list(response.choices) and response.choices[1]
  if type(first) ~= "table" then return nil end
  local message = wire.given(first.message)
  local options = wire.given(request_body.stream_options)
  local content = wire.given(type(message) == "table" and message.content or first.text)
  local usage = wire.given(response.usage)
  local calls = type(message) == "table" and wire.given(message.tool_calls) or nil
  return {
    kind = message and "chat" or "completion",
    label = response.model or "",
    id = response.id or "",
    prompt_tokens = type(usage) == "table" and usage.prompt_tokens or 0,
    stream = true,
    include_usage = type(options) == "table" and options.include_usage == true,
    choices = {
      reply.pieces(type(content) == "string" and content or "", wire.given(first.finish_reason) or "stop"),
    },
    tool_calls = wire.is_list(calls) and calls or nil,
  }
end

---The usage of an answer.
---@param prompt_tokens integer
---@param completion_tokens integer
---@return table
function reply.usage(prompt_tokens, completion_tokens)
  return {
    prompt_tokens = prompt_tokens,
    completion_tokens = completion_tokens,
    total_tokens = prompt_tokens + completion_tokens,
  }
end

---A thought before an answer, for the dialect in which content is a list of blocks.
---@return table block
function reply.thought()
  local summary = json.array { { type = "summary_text", text = "The question is read, the answer is near." } }
  return { type = "reasoning", summary = summary }
end

local function content_of(content, dialect)
  if dialect.content ~= "blocks" then return content end
  return json.array { reply.thought(), { type = "text", text = content } }
end

local function collect(next_piece)
  local pieces = {}
  while true do
    local piece, reason = next_piece()
    if not piece then return table.concat(pieces), reason end
    pieces[#pieces + 1] = piece
  end
end

local function choice(kind, index, content, reason, dialect)
  if kind == "completion" then
    return { index = index, text = content, logprobs = json.null, finish_reason = reason }
  end
  local message = { role = "assistant", content = content_of(content, dialect) }
  return { index = index, message = message, finish_reason = reason }
end

local function called(self, list)
  local message = { role = "assistant", content = json.null, tool_calls = json.array(self.tool_calls) }
  list[1] = { index = 0, message = message, finish_reason = "tool_calls" }
  local count = 0
  for _, call in ipairs(self.tool_calls) do
    count = count + tokens.count(call["function"].name) + tokens.count(call["function"].arguments)
  end
  return count
end

local function said(self, list, dialect)
  local count = 0
  for index, next_piece in ipairs(self.choices) do
    local content, reason = collect(next_piece)
    list[index] = choice(self.kind, index - 1, content, reason, dialect)
    count = count + tokens.count(content)
  end
  return count
end

---The answer in one piece.
---@param self sluice.emulator.reply
---@param dialect table `content`
---@return table
function reply.whole(self, dialect)
  local list = json.array {}
  local count = (self.tool_calls and called or said)(self, list, dialect)
  return {
    id = self.id,
    object = self.kind == "chat" and "chat.completion" or "text_completion",
    created = wire.seconds(),
    model = self.label,
    choices = list,
    usage = reply.usage(self.prompt_tokens, count),
  }
end

return reply
