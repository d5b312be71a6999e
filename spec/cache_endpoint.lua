-- SPDX-License-Identifier: MIT
-- Endpoints of our own for the specs of layers.cache: they count, wait, fail on request.

local errors = require "sluice.errors"
local json = require "sluice.json"
local meta = require "sluice.meta"
local stream = require "sluice.stream"
local task = require "sluice.task"

local endpoint = {}

---An answer to a chat.
function endpoint.answer(text)
  return {
    id = "chatcmpl-1", object = "chat.completion", created = 1764000000, model = "m",
    choices = json.array { {
      index = 0, finish_reason = "stop", message = { role = "assistant", content = text },
    } },
    usage = { prompt_tokens = 3, completion_tokens = 5, total_tokens = 8 },
  }
end

---A chunk; without content the last one.
function endpoint.chunk(content)
  return {
    id = "chatcmpl-1", object = "chat.completion.chunk", created = 1764000000, model = "m",
    choices = json.array { {
      index = 0, delta = { content = content }, finish_reason = not content and "stop" or json.null,
    } },
  }
end

---The chunk that OpenAI's servers send last when they are asked for the usage.
function endpoint.usage_chunk()
  local made = endpoint.chunk()
  made.choices = json.array {}
  made.usage = { prompt_tokens = 3, completion_tokens = 5, total_tokens = 8 }
  return made
end

local function describe(value, given)
  return meta.set(value, { served_model = given.served_model or "m-1", request_id = "r-1", status = 200 })
end

local function open(made, given)
  local at, source = 0, {}
  function source.next()
    while true do
      at = at + 1
      local piece = given.pieces[at]
      if type(piece) == "function" then piece = piece() end
      if errors.is(piece) then return nil, piece end
      if type(piece) ~= "number" then
        if piece == nil then made.ended = made.ended + 1 end
        return piece
      end
      task.sleep(piece)
    end
  end
  function source.close() made.closed = made.closed + 1 end
  return describe(stream.wrap(source), given)
end

---An endpoint. `given`: what it does now, and may be changed: `seconds` it takes, `kind` of its failure,
---`text` of its answer or a function that makes the answer, `pieces` of its streams (chunks; a number is slept, an err fails).
---It counts: `asked`, `cancelled`, `ended`, `closed`; `requests`, `options` are what came last.
function endpoint.new(given)
  local made = { name = "e", host = "h", asked = 0, cancelled = 0, ended = 0, closed = 0, given = given }
  local function begin(request, options)
    made.asked, made.request, made.options = made.asked + 1, request, options
    local number, is_over = made.asked, false
    local _ <close> = setmetatable({}, { __close = function()
      if not is_over then made.cancelled = made.cancelled + 1 end
    end })
    if given.raises then error(given.raises, 0) end
    if (given.seconds or 0) > 0 then task.sleep(given.seconds) end
    is_over = true
    if given.kind then return nil, errors.new(given.kind, { message = "no " .. number }) end
    return number
  end
  function made.query(_, request, options)
    local number, err = begin(request, options)
    if not number then return nil, err end
    if type(given.text) == "function" then return given.text(number) end
    return describe(endpoint.answer((given.text or "answer") .. " " .. number), given)
  end
  function made.stream(_, request, options)
    local number, err = begin(request, options)
    if not number then return nil, err end
    return open(made, given)
  end
  return made
end

return endpoint
