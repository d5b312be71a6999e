-- SPDX-License-Identifier: MIT
-- The options of a query: the second argument of endpoint:query, which never reaches a server.

local function is_id(value)
  return type(value) == "string" and not value:find "%c", "a string without control characters"
end

---@class sluice.QueryOptions
---@field timeout? number|sluice.Timeout seconds
---@field request_id? string sent as X-Request-Id; without control characters
---@field served_model? string asks one served model of the endpoint instead of the routes' choice
---@field cache? "no-store"|"refresh"|"only-if-cached"|{ max_age: number } read by layers.cache
---@field probe? boolean a look at whether the endpoint is well: not tried again, not hedged, not answered by another endpoint
---@field variant? string read by traffic.split: the variant to ask
---@field progress? any read by those who show progress

---@type sluice.OptionSpec
local query_options = {
  timeout = "table|number?",
  request_id = is_id,
  served_model = "string?",
  cache = "any?",
  probe = "boolean?",
  variant = "string?",
  progress = "any?",
}

return query_options
