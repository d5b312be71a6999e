-- SPDX-License-Identifier: MIT
-- The dialects of answers and streams that servers of this API speak, as options of an emulator or of one endpoint.

local wire = require "sluice.emulator.wire"

local dialect = {}

---@class sluice.emulator.dialect
---@field usage? "cumulative"|"final"|"none" on every chunk; on a last one without choices, where `stream_options.include_usage` asks for it; never
---@field created? "varying"|"fixed" goes up in mid-stream, or not
---@field last_delta? "empty"|"absent" the last delta's content
---@field content? "text"|"blocks" a string, or a list of typed blocks with a thought before the text
---@field tool_calls? "pieces"|"whole"
---@field done? "sent"|"absent" the end mark `[DONE]`

-- The first of each is the default: what Databricks' foundation models do.
local choices = {
  usage = { "cumulative", "final", "none" },
  created = { "varying", "fixed" },
  last_delta = { "empty", "absent" },
  content = { "text", "blocks" },
  tool_calls = { "pieces", "whole" },
  done = { "sent", "absent" },
}

local tag_prefix <const> = "emulator."

local function allows(key, value)
  for _, each in ipairs(choices[key] or {}) do
    if each == value then return true end
  end
  return false
end

---Reads options of a dialect and fills in the defaults.
---@param given table|nil
---@return sluice.emulator.dialect|nil
---@return string|nil problem
function dialect.read(given)
  local made = {}
  for key, values in pairs(choices) do made[key] = values[1] end
  for key, value in pairs(given or {}) do
    if not choices[key] then return nil, ("the dialect has no option %q"):format(tostring(key)) end
    if not allows(key, value) then
      return nil, ("the dialect's %s is one of %s"):format(key, table.concat(choices[key], ", "))
    end
    made[key] = value
  end
  return made
end

---The dialect of an endpoint: its tags `emulator.usage`, `emulator.done` and so on go before the emulator's options.
---@param record table
---@param default sluice.emulator.dialect
---@return sluice.emulator.dialect
function dialect.of(record, default)
  if not record.tags then return default end
  local made = setmetatable({}, { __index = default })
  for _, tag in ipairs(record.tags or {}) do
    local key = tag.key:sub(1, #tag_prefix) == tag_prefix and tag.key:sub(#tag_prefix + 1)
    if key and allows(key, wire.given(tag.value)) then made[key] = tag.value end
  end
  return made
end

return dialect
