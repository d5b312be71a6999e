-- SPDX-License-Identifier: MIT
-- Remembers what a function gave for short texts: for names, of which a program sees few.

local memo = {}

-- Bounds, for texts that come from elsewhere.
local MOST <const>, LONGEST <const> = 1000, 64

---A table whose field `text` is `make(text)`, and is kept for the next time. Forgets all when there are too
---many; never keeps what is made of long texts, and of values that are no text.
---@param make fun(text: any): any may not wait; nil is never kept
---@return table<any, any>
function memo.new(make)
  local count = 0
  return setmetatable({}, { __index = function(kept, text)
    local made = make(text)
    if type(text) ~= "string" or #text > LONGEST or made == nil then return made end
    if count == MOST then
      for name in next, kept do kept[name] = nil end
      count = 0
    end
    kept[text], count = made, count + 1
    return made
  end })
end

return memo
