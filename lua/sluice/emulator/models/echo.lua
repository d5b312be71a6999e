-- SPDX-License-Identifier: MIT
-- A model that says what it was told: a chat gets the last user message back, a completion its prompt.

local tokens = require "sluice.emulator.tokens"

local echo = {}

---Begins an answer.
---@param request table `text` is the last user message, or the prompt
---@return fun(): string|nil, string|nil next the next piece of text; at the end `nil` and the finish reason
function echo.generate(request)
  local next_token = tokens.each(request.text)
  return function()
    local piece = next_token()
    if not piece then return nil, "stop" end
    return piece
  end
end

return echo
