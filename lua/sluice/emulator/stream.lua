-- SPDX-License-Identifier: MIT
-- An answer as server-sent events: its chunks in the dialect asked for, one frame each.

local json = require "sluice.json"
local reply = require "sluice.emulator.reply"
local task = require "sluice.task"
local tokens = require "sluice.emulator.tokens"
local wire = require "sluice.emulator.wire"

local stream = {}

---The end mark.
---@type string
stream.done = "data: [DONE]\n\n"

---A frame of one event.
---@param value any to be encoded
---@return string
function stream.frame(value) return "data: " .. json.encode(value) .. "\n\n" end

local created_step <const> = 4 -- chunks in which `created` goes up by one, where it varies

local function chunk(state, choices)
  local self, dialect = state.reply, state.dialect
  local created = state.created
  if dialect.created == "varying" then created = created + state.chunks // created_step end
  state.chunks = state.chunks + 1
  local made = {
    id = self.id,
    object = self.kind == "chat" and "chat.completion.chunk" or "text_completion",
    created = created,
    model = self.label,
    choices = json.array(choices),
  }
  if dialect.usage == "cumulative" then made.usage = reply.usage(self.prompt_tokens, state.tokens) end
  coroutine.yield(stream.frame(made))
end

local function delta(state, fields, reason)
  chunk(state, { { index = 0, delta = fields, finish_reason = reason or json.null } })
end

local function text_content(state, piece)
  if state.dialect.content ~= "blocks" then return piece end
  return json.array { { type = "text", text = piece } }
end

local function last_delta(state)
  if state.dialect.last_delta == "absent" then return {} end
  return { content = "" }
end

---Waits as long as a token takes.
---@param state table as stream.run gives it
function stream.pause(state)
  if state.token_time > 0 then task.sleep(state.token_time) end
end

---Calls f with the pieces of the first choice, each in its time: what is streamed has no other choice.
---@param state table as stream.run gives it
---@param f fun(piece: string)
---@return string reason the finish reason
function stream.each_piece(state, f)
  local next_piece = state.reply.choices[1]
  while true do
    local piece, reason = next_piece()
    if not piece then return reason end
    if piece ~= "" then
      stream.pause(state)
      state.tokens = state.tokens + tokens.count(piece)
      f(piece)
    end
  end
end

local function say_chat(state)
  delta(state, { role = "assistant", content = "" })
  if state.dialect.content == "blocks" then delta(state, { content = json.array { reply.thought() } }) end
  local reason = stream.each_piece(state, function(piece)
    delta(state, { content = text_content(state, piece) })
  end)
  delta(state, last_delta(state), reason)
end

local function say_completion(state)
  local function say(piece, reason)
    chunk(state, { { index = 0, text = piece, logprobs = json.null, finish_reason = reason or json.null } })
  end
  local reason = stream.each_piece(state, say)
  say("", reason)
end

-- A call's head has its id and name, its arguments come behind.
local function say_call(state, index, call)
  local declared = call["function"]
  local function piece(fields)
    fields.index = index
    delta(state, { tool_calls = json.array { fields } })
  end
  stream.pause(state)
  state.tokens = state.tokens + tokens.count(declared.name) + tokens.count(declared.arguments)
  if state.dialect.tool_calls == "whole" then
    piece { id = call.id, type = "function", ["function"] = declared }
    return
  end
  piece { id = call.id, type = "function", ["function"] = { name = declared.name, arguments = "" } }
  local half = #declared.arguments // 2
  for _, part in ipairs { declared.arguments:sub(1, half), declared.arguments:sub(half + 1) } do
    if part ~= "" then
      stream.pause(state)
      piece { ["function"] = { arguments = part } }
    end
  end
end

local function call_tools(state)
  delta(state, { role = "assistant", content = "" })
  for index, call in ipairs(state.reply.tool_calls) do say_call(state, index - 1, call) end
  delta(state, last_delta(state), "tool_calls")
end

local function say_all(state)
  local self = state.reply
  if self.tool_calls then
    call_tools(state)
  elseif self.kind == "chat" then
    say_chat(state)
  else
    say_completion(state)
  end
  if state.dialect.usage == "final" and self.include_usage then
    local made = {
      id = self.id,
      object = self.kind == "chat" and "chat.completion.chunk" or "text_completion",
      created = state.created,
      model = self.label,
      choices = json.array {},
      usage = reply.usage(self.prompt_tokens, state.tokens),
    }
    coroutine.yield(stream.frame(made))
  end
  if state.dialect.done == "sent" then coroutine.yield(stream.done) end
end

---The frames of an answer. Waits where tokens take time.
---@param self sluice.emulator.reply
---@param dialect sluice.emulator.dialect
---@param token_time number seconds before each token
---@param say? fun(state: table) yields the frames; those of chats and completions
---@return fun(): string|nil next
---@return fun(): integer used prompt and completion tokens until now
function stream.run(self, dialect, token_time, say)
  local state = {
    reply = self,
    dialect = dialect,
    token_time = token_time,
    created = wire.seconds(),
    chunks = 0,
    tokens = 0,
  }
  local next_frame = coroutine.wrap(function() (say or say_all)(state) end)
  local ended = false
  local function next_or_end()
    if ended then return nil end
    local frame = next_frame()
    if not frame then ended = true end
    return frame
  end
  return next_or_end, function() return self.prompt_tokens + state.tokens end
end

return stream
