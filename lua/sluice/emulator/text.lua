-- SPDX-License-Identifier: MIT
-- Chat and completion requests for models that generate text piece by piece: reading the request, and the limits of
-- max_tokens and stop.

local reply = require "sluice.emulator.reply"
local tokens = require "sluice.emulator.tokens"
local wire = require "sluice.emulator.wire"

local text = {}

local most_choices <const> = 5 -- n is 1 to 5
local most_tokens <const> = 1 << 20 -- a bound for a mistyped max_tokens, beyond any answer of these models

local function number(body, name, low, high, default)
  local value = wire.given(body[name])
  if value == nil then return default end
  if type(value) ~= "number" or value < low or value > high then
    return wire.invalid("%s must be a number from %g to %g.", name, low, high)
  end
  return value
end

local function integer(body, name, low, high, default)
  local value = wire.given(body[name])
  if value == nil then return default end
  local whole = math.tointeger(value)
  if not whole or whole < low or whole > high then
    return wire.invalid("%s must be a whole number from %d to %d.", name, low, high)
  end
  return whole
end

local function stops(body)
  local value = wire.given(body.stop)
  if value == nil then return {} end
  if type(value) == "string" then value = { value } end
  if not wire.is_list(value) then return wire.invalid("stop must be a string or a list of strings.") end
  for _, stop in ipairs(value) do
    if type(stop) ~= "string" or stop == "" then
      return wire.invalid("stop must hold strings that are not empty.")
    end
  end
  return value
end

-- The text of a message: a string, or the text parts of a list of parts.
local function content_text(content)
  content = wire.given(content)
  if content == nil then return "" end
  if type(content) == "string" then return content end
  if not wire.is_list(content) then return nil end
  local parts = {}
  for _, part in ipairs(content) do
    if type(part) ~= "table" then return nil end
    if type(part.text) == "string" then parts[#parts + 1] = part.text end
  end
  return table.concat(parts, "\n")
end

local roles <const> = { system = true, user = true, assistant = true, tool = true }

-- What is wrong with a message; nil where nothing is.
local function message_problem(message)
  if not wire.is_object(message) then return " must be an object with a role" end
  if not roles[message.role] then return ".role must be one of system, user, assistant and tool" end
  local calls = wire.given(message.tool_calls)
  if wire.given(message.content) == nil and not (message.role == "assistant" and wire.is_list(calls)) then
    return " needs content (an assistant's may have tool_calls instead)"
  end
  return nil
end

local function read_messages(body, request)
  local messages = wire.given(body.messages)
  if not wire.is_list(messages) or #messages == 0 then
    return wire.bad_request("Bad request: messages must be a list of at least one message.")
  end
  for index, message in ipairs(messages) do
    local problem = message_problem(message)
    if problem then return wire.bad_request("Bad request: messages[%d]%s.", index - 1, problem) end
    local content = content_text(message.content)
    if not content then
      return wire.bad_request("Bad request: messages[%d].content must be a string or a list.", index - 1)
    end
    request.prompt_tokens = request.prompt_tokens + tokens.count(content)
    if message.role == "user" then request.text = content end
  end
  return request
end

local function read_prompt(body, request)
  local prompt = wire.given(body.prompt)
  if wire.is_list(prompt) and #prompt == 1 then prompt = prompt[1] end
  if type(prompt) ~= "string" then
    return wire.bad_request("Bad request: prompt must be a string, or a list of one string.")
  end
  request.text = prompt
  request.prompt_tokens = tokens.count(prompt)
  return request
end

local function read_knobs(body, request, default_max_tokens)
  local refusal
  local function keep(name, value, why)
    request[name] = value
    refusal = refusal or why
  end
  keep("temperature", number(body, "temperature", 0, 2, 1))
  keep("top_p", number(body, "top_p", 0, 1, 1))
  keep("n", integer(body, "n", 1, most_choices, 1))
  keep("seed", integer(body, "seed", math.mininteger, math.maxinteger, wire.seed()))
  keep("stop", stops(body))
  local limit = wire.given(body.max_tokens) ~= nil and "max_tokens" or "max_completion_tokens"
  keep("max_tokens", integer(body, limit, 1, most_tokens, default_max_tokens))
  request.ignore_eos = body.ignore_eos == true
  if refusal then return nil, refusal end
  if request.stream and request.n > 1 then
    return wire.bad_request('parameter "n" must be equal to 1 for streaming mode')
  end
  return request
end

---Reads a chat or completion request.
---@param kind "chat"|"completion"
---@param body table the decoded body
---@param default_max_tokens integer|nil when the body sets none; nil is no limit
---@return table|nil request `kind`, `text`, `prompt_tokens`, `temperature`, `top_p`, `n`, `seed`, `stop`, `max_tokens`, `ignore_eos`, `stream`
---@return sluice.emulator.refusal|nil
function text.read(kind, body, default_max_tokens)
  local request = { kind = kind, body = body, text = "", prompt_tokens = 0, stream = body.stream == true }
  local ok, refusal = (kind == "chat" and read_messages or read_prompt)(body, request)
  if not ok then return nil, refusal end
  return read_knobs(body, request, default_max_tokens)
end

-- The place where the first of the stop strings begins.
local function find_stop(buffer, stop)
  local first
  for _, s in ipairs(stop) do
    local at = buffer:find(s, 1, true)
    if at and (not first or at < first) then first = at end
  end
  return first
end

-- How many bytes at the end of the buffer may be the beginning of a stop string.
local function held_back(buffer, stop)
  local most = 0
  for _, s in ipairs(stop) do
    for length = math.min(#s - 1, #buffer), most + 1, -1 do
      if buffer:sub(-length) == s:sub(1, length) then
        most = length
        break
      end
    end
  end
  return most
end

---Bounds a generation by max_tokens and the stop strings; what may be the beginning of a stop string is held back.
---@param generate fun(): string|nil, string|nil the model's pieces; at the end `nil` and the finish reason
---@param request table `max_tokens` and `stop`, as `text.read` gives them
---@return fun(): string|nil, string|nil next pieces of text (some may be ""); at the end `nil` and the finish reason
function text.bounded(generate, request)
  local buffer, count, reason = "", 0, nil
  return function()
    if reason then return nil, reason end
    local piece, ended
    if count == request.max_tokens then
      ended = "length"
    else
      piece, ended = generate()
    end
    if not piece then
      reason = ended
      return buffer
    end
    count = count + 1
    buffer = buffer .. piece
    local at = find_stop(buffer, request.stop)
    if at then
      reason = "stop"
      return buffer:sub(1, at - 1)
    end
    local held = held_back(buffer, request.stop)
    local out = buffer:sub(1, #buffer - held)
    buffer = buffer:sub(#buffer - held + 1)
    return out
  end
end

---Begins an answer of a model that generates pieces.
---@param model table `name`, `label`, `generate(request)`, `default_max_tokens`
---@param kind "chat"|"completion"
---@param body table the decoded body
---@return sluice.emulator.reply|nil
---@return sluice.emulator.refusal|nil
function text.begin(model, kind, body)
  local request, refusal = text.read(kind, body, model.default_max_tokens)
  if not request then return nil, refusal end
  local made = reply.new(model.label, request)
  if made.tool_calls or made.structured then return made end
  local seed = request.seed
  for index = 1, request.n do
    request.seed = seed + index - 1
    made.choices[index] = text.bounded(model.generate(request), request)
  end
  return made
end

---Begins an answer that says a text.
---@param label string what the answer calls its model
---@param kind "chat"|"completion"
---@param body table the decoded body
---@param content string
---@return sluice.emulator.reply|nil
---@return sluice.emulator.refusal|nil
function text.say(label, kind, body, content)
  local request, refusal = text.read(kind, body)
  if not request then return nil, refusal end
  local made = reply.new(label, request, true)
  made.choices[1] = reply.pieces(content, "stop")
  return made
end

return text
