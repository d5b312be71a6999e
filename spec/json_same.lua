-- SPDX-License-Identifier: MIT
-- When two values are one JSON document.
local json = require "sluice.json"

-- Equal as JSON: the same numbers with the same subtype, and arrays apart from objects.
local function same(a, b)
  if type(a) ~= "table" or type(b) ~= "table" then
    if math.type(a) ~= math.type(b) then return false end
    if a == 0 and b == 0 and math.type(a) == "float" then return 1 / a == 1 / b end
    return a == b
  end
  if json.is_array(a) ~= json.is_array(b) then return false end
  for key, value in next, a do
    if not same(value, b[key]) then return false end
  end
  for key in next, b do
    if a[key] == nil then return false end
  end
  return true
end

return same
