-- SPDX-License-Identifier: MIT
-- A bag of words as a vector: each word adds or takes one at a place that its hash chooses. Texts that share words are
-- near each other, the same text has the same vector everywhere, and every vector has the length 1.

local base64 = require "sluice.base64"
local random = require "sluice.random"
local tokens = require "sluice.emulator.tokens"
local wire = require "sluice.emulator.wire"

local embedding = {}

---The number of coordinates.
---@type integer
embedding.dimensions = 64

local function add_word(vector, word)
  local hash = random.hash(word:lower())
  local place = (hash & (embedding.dimensions - 1)) + 1
  vector[place] = vector[place] + ((hash >> 6) & 1 == 0 and 1 or -1)
end

local function normalise(vector)
  local square = 0
  for _, x in ipairs(vector) do square = square + x * x end
  -- Words can cancel each other, and a text can have none: the vector must still have a direction.
  if square == 0 then
    vector[1], square = 1, 1
  end
  local length = math.sqrt(square)
  for i, x in ipairs(vector) do vector[i] = x / length end
  return vector
end

---The vector of a text.
---@param text string
---@return number[]
function embedding.vector(text)
  local vector = {}
  for i = 1, embedding.dimensions do vector[i] = 0 end
  for token in tokens.each(text) do
    local word = token:match("%w[%w'_\128-\255-]*")
    if word then add_word(vector, word) end
  end
  return normalise(vector)
end

local function packed(vector)
  return base64.encode(string.pack("<" .. ("f"):rep(#vector), table.unpack(vector)))
end

local function texts_of(input)
  if type(input) == "string" then return { input } end
  if not wire.is_list(input) or #input == 0 then return nil end
  for _, text in ipairs(input) do
    if type(text) ~= "string" then return nil end
  end
  return input
end

---Answers an embedding request.
---@param body table `input` is a string or a list of strings; `encoding_format` "base64" gives packed floats
---@param context table `label` names the model in the answer
---@return sluice.emulator.answer|nil
---@return sluice.emulator.refusal|nil
function embedding.answer(body, context)
  local texts = texts_of(wire.given(body.input))
  if not texts then
    return wire.bad_request("Bad request: input must be a string, or a list of at least one string.")
  end
  local data, count = {}, 0
  for index, text in ipairs(texts) do
    local vector = embedding.vector(text)
    if body.encoding_format == "base64" then vector = packed(vector) end
    data[index] = { index = index - 1, object = "embedding", embedding = vector }
    count = count + tokens.count(text)
  end
  return {
    json = {
      id = wire.uuid(),
      object = "list",
      model = context.label,
      data = data,
      usage = { prompt_tokens = count, total_tokens = count },
    },
  }
end

return embedding
