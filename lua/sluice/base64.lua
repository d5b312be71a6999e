-- SPDX-License-Identifier: MIT
-- Bytes as letters that any text may hold: base64 with padding (RFC 4648, section 4).

local base64 = {}

local DIGITS <const> = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"

local digit_of, value_of = {}, {}
for index = 1, #DIGITS do
  digit_of[index - 1] = DIGITS:sub(index, index)
  value_of[DIGITS:byte(index)] = index - 1
end

---The base64 text of bytes. Never waits.
---@param bytes string
---@return string
function base64.encode(bytes)
  local out = {}
  for at = 1, #bytes, 3 do
    local a, b, c = bytes:byte(at, at + 2)
    local bits = a << 16 | (b or 0) << 8 | (c or 0)
    local third = b and digit_of[bits >> 6 & 63] or "="
    local fourth = c and digit_of[bits & 63] or "="
    out[#out + 1] = digit_of[bits >> 18] .. digit_of[bits >> 12 & 63] .. third .. fourth
  end
  return table.concat(out)
end

---The bytes of a base64 text; nil for what is none. Never waits.
---@param text string
---@return string?
function base64.decode(text)
  local digits = text:match "^([%w+/]*)=?=?$"
  if not digits or #text % 4 ~= 0 then return nil end
  local out = {}
  for at = 1, #digits, 4 do
    local bits, count = 0, 0
    for index = at, at + 3 do
      local value = value_of[digits:byte(index)]
      bits = bits << 6 | (value or 0)
      if value then count = count + 1 end
    end
    out[#out + 1] = string.pack(">I3", bits):sub(1, count - 1)
  end
  return table.concat(out)
end

return base64
