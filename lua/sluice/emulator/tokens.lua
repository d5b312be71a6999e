-- SPDX-License-Identifier: MIT
-- The emulator's tokenizer: a token is a word or one punctuation mark, with the white space before it.
-- Cutting a text and joining the tokens gives the text back, so prompts and completions count alike.

local tokens = {}

-- Words hold letters, digits, inner ' - _ and any byte of a UTF-8 sequence.
local word_pattern = "^%s*[%w'_\128-\255-]+()"
local mark_pattern = "^%s*[^%s]()"

---Iterates over the tokens of a text; white space at its very end comes with the last one.
---@param text string
---@return fun(): string|nil next the next token; `nil` at the end
function tokens.each(text)
  local position = 1
  return function()
    local stop = text:match(word_pattern, position) or text:match(mark_pattern, position)
    if not stop then return nil end
    local start = position
    if not text:find("%S", stop) then stop = #text + 1 end
    position = stop
    return text:sub(start, stop - 1)
  end
end

---The number of tokens of a text.
---@param text string
---@return integer
function tokens.count(text)
  local count, position = 0, 1
  while true do
    position = text:match(word_pattern, position) or text:match(mark_pattern, position)
    if not position then return count end
    count = count + 1
  end
end

return tokens
