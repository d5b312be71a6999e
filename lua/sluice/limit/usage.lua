-- SPDX-License-Identifier: MIT
-- Tokens: how many a request may take, and how many it took.

local usage = {}

-- Bytes of English text for one token; of other languages fewer.
local BYTES_PER_TOKEN = 4

-- What an image or a sound in a request counts as: its base64 text is no measure of its tokens.
local MEDIA_BYTES = 4000

-- Deeper than this a request is no request.
local DEEPEST = 32

local function text_bytes(value, depth)
  if type(value) == "string" then
    return value:find("^data:[%w/+.-]+;base64,") and MEDIA_BYTES or #value
  end
  if type(value) ~= "table" or depth > DEEPEST then return 0 end
  local sum = 0
  for _, inner in next, value do sum = sum + text_bytes(inner, depth + 1) end
  return sum
end

local function positive(value)
  return type(value) == "number" and value > 0 and value < math.huge and value or nil
end

---The most tokens that the request lets the model write; nil where it does not say.
---@param request table
---@return number?
function usage.most_output(request)
  local each = positive(request.max_tokens) or positive(request.max_completion_tokens)
    or positive(request.max_output_tokens)
  return each and each * (positive(request.n) or 1)
end

---An estimate of the tokens of a request's own texts: a quarter of their bytes.
---@param request table
---@return integer
function usage.input(request)
  return math.ceil(text_bytes(request, 0) / BYTES_PER_TOKEN)
end

---An estimate of the tokens of a text.
---@param bytes integer
---@return integer
function usage.of_bytes(bytes)
  return math.ceil(bytes / BYTES_PER_TOKEN)
end

---The tokens that an answer, or a chunk of a stream, says it took; nil where it does not.
---@param answer table `usage` as OpenAI, Databricks or Anthropic write it
---@return number? total
---@return number? output
function usage.of(answer)
  local told = type(answer) == "table" and answer.usage
  if type(told) ~= "table" then return nil end
  local input = positive(told.prompt_tokens) or positive(told.input_tokens)
  local output = positive(told.completion_tokens) or positive(told.output_tokens)
  local total = positive(told.total_tokens) or (input or output) and (input or 0) + (output or 0)
  return total or nil, output
end

return usage
