-- SPDX-License-Identifier: MIT
-- One answer in both forms: as a whole, and as the chunks of a stream.

local entry = require "sluice.cache.entry"
local json = require "sluice.json"

local render = {}

---Whether a request asks for a chunk with the usage.
---@param request table
---@return boolean
function render.asks_usage(request)
  local asked = request.stream_options
  return type(asked) == "table" and asked.include_usage == true
end

local function delta_of(message)
  local delta = {}
  for key, value in pairs(message) do delta[key] = value end
  if type(delta.tool_calls) == "table" then
    local calls = json.array()
    for at, call in ipairs(delta.tool_calls) do
      if type(call) ~= "table" then return nil end
      calls[at] = { index = at - 1 }
      for key, value in pairs(call) do calls[at][key] = value end
    end
    delta.tool_calls = calls
  end
  return delta
end

-- The content of a choice, and its end; nil where it is of no form that streams have.
local function halves_of(choice, index)
  if type(choice) ~= "table" then return nil end
  local first, last = { index = index, finish_reason = json.null }, {}
  for key, value in pairs(choice) do
    if key ~= "message" and key ~= "text" and key ~= "logprobs" then last[key] = value end
  end
  last.index = index
  if type(choice.message) == "table" then
    first.delta, last.delta = delta_of(choice.message), {}
  elseif type(choice.text) == "string" then
    first.text, last.text = choice.text, ""
  end
  first.logprobs = choice.logprobs
  if first.delta == nil and first.text == nil then return nil end
  return first, last
end

local function chunk_of(answer, choices)
  local chunk = {}
  for key, value in pairs(answer) do chunk[key] = value end
  if chunk.object == "chat.completion" then chunk.object = "chat.completion.chunk" end
  chunk.choices, chunk.usage = choices, nil
  return chunk
end

---The chunks that an answer could have come in: its content, its end, and its usage where that is wanted.
---@param answer table not changed
---@param with_usage boolean
---@return table[]? chunks nil where the answer is of no form that streams have
function render.chunks(answer, with_usage)
  local choices = answer.choices
  if type(choices) ~= "table" or #choices == 0 then return nil end
  if with_usage and type(answer.usage) ~= "table" then return nil end
  local contents, ends = json.array(), json.array()
  for at, choice in ipairs(choices) do
    contents[at], ends[at] = halves_of(choice, at - 1)
    if not contents[at] then return nil end
  end
  local chunks = { chunk_of(answer, contents), chunk_of(answer, ends) }
  if with_usage then
    chunks[3] = chunk_of(answer, json.array())
    chunks[3].usage = answer.usage
  end
  return chunks
end

---Whether a chunk holds the usage and nothing else, as OpenAI's streams end when asked for it.
---@param chunk table
---@return boolean
function render.is_usage(chunk)
  return type(chunk.choices) == "table" and #chunk.choices == 0 and type(chunk.usage) == "table"
end

local function without_usage(list)
  local rest = {}
  for _, chunk in ipairs(list) do
    if not render.is_usage(chunk.value) then rest[#rest + 1] = chunk end
  end
  return rest
end

---What was kept, as the chunks of a stream.
---@param kept sluice.cache.Entry
---@param with_usage boolean whether the caller asks for the usage
---@return sluice.cache.Chunk[]? chunks nil where it cannot be one
function render.stream(kept, with_usage)
  local answer
  if kept.chunks ~= "" then
    if with_usage and not kept.asked_usage and kept.answer == "" then return nil end
    local list = entry.chunks(kept)
    return list and kept.asked_usage and not with_usage and without_usage(list) or list
  end
  answer = entry.answer(kept)
  local chunks = answer and render.chunks(answer, with_usage)
  if not chunks then return nil end
  for at, chunk in ipairs(chunks) do chunks[at] = { value = chunk, at = 0 } end
  return chunks
end

return render
