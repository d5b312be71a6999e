-- SPDX-License-Identifier: MIT
-- What a workspace was set to and by what, to be read by people: secrets are stars.

local config = require "sluice.auth.config"
local secret = require "sluice.secret"

local description = {}

local function shown(value)
  if secret.is(value) then return "***" end
  if type(value) ~= "table" then return tostring(value) end
  -- of a command the program alone: any other word may be a password
  return #value == 1 and value[1] or ("%s and %d more words"):format(value[1], #value - 1)
end

---The settings in a fixed order; `facts` are what was learned since.
---@param resolved sluice.auth.Config
---@param facts? sluice.auth.Facts
---@return sluice.Setting[]
function description.list(resolved, facts)
  local list = {}
  for _, name in ipairs(config.names) do
    local value = resolved.values[name]
    if value ~= nil then
      list[#list + 1] = { name = name, value = shown(value), source = resolved.sources[name] }
    end
  end
  if facts and facts.token_endpoint then
    list[#list + 1] = {
      name = "token_endpoint", value = facts.token_endpoint, source = facts.token_endpoint_source,
    }
  end
  if facts and facts.workspace_id and not resolved.values.workspace_id then
    list[#list + 1] = { name = "workspace_id", value = facts.workspace_id, source = "metadata of the host" }
  end
  return list
end

---What workspace:describe() gives: by the name of a setting its value, as text, and its source.
---@class sluice.WorkspaceDescription
---@field [string] { value: string, source: string }

-- The rows of a description, in their order.
local rows_of = setmetatable({}, { __mode = "k" })

local metatable = {
  __name = "sluice.workspace.description",
  __tojson = function(self)
    local plain = {}
    for name, row in pairs(self) do plain[name] = row end
    return plain
  end,
}

function metatable.__tostring(self)
  local lines, widest = {}, 0
  for _, row in ipairs(rows_of[self]) do widest = math.max(widest, #row.name) end
  for index, row in ipairs(rows_of[self]) do
    lines[index] = ("%-" .. widest .. "s  %s  (%s)"):format(row.name, row.value, row.source)
  end
  return table.concat(lines, "\n")
end

---The table that workspace:describe() gives.
---@param resolved sluice.auth.Config
---@param facts? sluice.auth.Facts
---@return sluice.WorkspaceDescription
function description.new(resolved, facts)
  local self, rows = {}, description.list(resolved, facts)
  for _, row in ipairs(rows) do self[row.name] = { value = row.value, source = row.source } end
  rows_of[self] = rows
  return setmetatable(self, metatable)
end

return description
