-- SPDX-License-Identifier: MIT
-- A model that the user wrote: a Lua file that returns function(request, context) -> response | text | nil, err.

local errors = require "sluice.errors"
local reply = require "sluice.emulator.reply"
local text = require "sluice.emulator.text"
local tokens = require "sluice.emulator.tokens"
local wire = require "sluice.emulator.wire"

local user = {}

-- A model's error that carries a status chooses its answer; any other is the model's fault, 400 as a served model's.
local function refused(err)
  if type(err) == "table" and math.type(err.status) == "integer" then
    local code = err.error_code or err.code or (err.status >= 500 and "INTERNAL_ERROR" or "BAD_REQUEST")
    local why = err.message or (getmetatable(err) or {}).__tostring and tostring(err)
    why = tostring(why or ("The model refused the request with status %d."):format(err.status))
    local _, refusal = wire.refuse(err.status, tostring(code), "%s", why)
    refusal.retry_after = tonumber(err.retry_after)
    return nil, refusal
  end
  if type(err) == "table" then err = err.message or "the model refused the request" end
  return wire.bad_request("%s", tostring(err or "the model gave no answer"))
end

-- A text becomes an answer in the shape that the request asks for.
local function of_text(model, body, context, content)
  if context.kind ~= "chat" and context.kind ~= "completion" then
    return { json = { predictions = { content } } }
  end
  local made, refusal = text.say(model.label, context.kind, body, content)
  return made and { reply = made }, refusal
end

-- A whole answer is streamed where that is asked for and it has a text to stream.
local function of_table(body, answer)
  local made = wire.given(body.stream) == true and reply.of_response(answer, body)
  return made and { reply = made } or { json = answer }
end

local function keep_err(err)
  -- Cancellation and deadlines go on their way untouched; anything else is the model's own error.
  if errors.is(err) then return err end
  -- What lies below the call is ours and says nothing to the model's author.
  local trace = debug.traceback(tostring(err), 2):gsub("\n%s*%[C%]: in function 'xpcall'.*$", "")
  return { traceback = trace }
end

local function call(run, body, context)
  local ok, answer, err = xpcall(run, keep_err, body, context)
  if ok then return answer, err end
  if errors.is(answer) then error(answer, 0) end
  return nil, answer.traceback
end

---A model of a user's function.
---@param name string
---@param run fun(request: table, context: table): table|string|nil, any
---@return table model
function user.new(name, run)
  local model = { name = name, label = "sluice-emulator-" .. name }

  function model.answer(body, context)
    context.count_tokens = tokens.count
    local answer, err = call(run, body, context)
    if type(answer) == "string" then return of_text(model, body, context, answer) end
    if type(answer) == "table" then return of_table(body, answer) end
    return refused(err)
  end

  return model
end

return user
