-- SPDX-License-Identifier: MIT
-- The file in which a rollout notes where it is: replaced in one step, so that a kill at any time leaves the old or
-- the new one.

local errors = require "sluice.errors"
local files = require "sluice.batch.files"
local json = require "sluice.json"

local state = {}

local VERSION <const> = 1
local PRETTY <const> = { pretty = true, canonical = true }

---Where a rollout is.
---@class sluice.rollout.State
---@field version integer
---@field endpoint string
---@field candidate string
---@field control string
---@field steps integer[]
---@field before { [1]: string, [2]: integer }[] the traffic as it was: names and percentages
---@field phase "shifting"|"baking"|"retiring"|"rolling_back"|"completed"|"rolled_back"
---@field step integer of steps
---@field since number? when the step's traffic began, in seconds since 1970
---@field reason string? of a rollback

local PHASES <const> = {
  shifting = true, baking = true, retiring = true, rolling_back = true, completed = true, rolled_back = true,
}

local function conflict(path, message)
  return errors.new("RolloutConflict", { operation = "continue rollout", object = path, message = message })
end

local function is_share(value)
  return type(value) == "table" and type(value[1]) == "string" and math.type(value[2]) == "integer"
end

local function is_state(value)
  if type(value) ~= "table" or not PHASES[value.phase] then return false end
  if math.type(value.step) ~= "integer" then return false end
  for _, name in ipairs { "endpoint", "candidate", "control" } do
    if type(value[name]) ~= "string" then return false end
  end
  if type(value.steps) ~= "table" or type(value.before) ~= "table" or #value.before == 0 then return false end
  for _, share in ipairs(value.before) do
    if not is_share(share) then return false end
  end
  return value.steps[value.step] ~= nil and (value.since == nil or type(value.since) == "number")
end

---Reads a state file.
---@param path string
---@return sluice.rollout.State|false|nil state false where there is no file
---@return sluice.Error? err
function state.read(path)
  local file, reason, number = io.open(path, "rb")
  if not file then
    if number == 2 then return false end -- ENOENT
    return nil, files.failure("read rollout state", path, reason, number)
  end
  local text
  text, reason, number = file:read "a"
  file:close()
  if not text then return nil, files.failure("read rollout state", path, reason, number) end
  local value = json.decode(text)
  if type(value) == "table" and value.version ~= nil and value.version ~= VERSION then
    local message = ("it is of version %s, and this program knows version %d"):format(value.version, VERSION)
    return nil, conflict(path, message)
  end
  if not is_state(value) then return nil, conflict(path, "it is no state of a rollout") end
  return value
end

---Replaces a state file. Waits until it is on the disk.
---@param path string
---@param value sluice.rollout.State
---@return boolean? written
---@return sluice.Error? err
function state.write(path, value)
  value.version = VERSION
  local temporary = path .. ".new"
  os.remove(temporary)
  local file, err = files.append(temporary, "write rollout state")
  if not file then return nil, err end
  local handle <close> = file
  local ok
  ok, err = handle:write(json.encode(value, PRETTY) .. "\n")
  if ok then ok, err = handle:sync() end
  if not ok then return nil, err end
  local reason, number
  ok, reason, number = os.rename(temporary, path)
  if not ok then return nil, files.failure("write rollout state", path, reason, number) end
  return true
end

---Keeps other programs from the file. The lock ends with the program.
---@param path string
---@return table? lock closes
---@return sluice.Error? err kind RolloutConflict where another program has it
function state.lock(path)
  local lock, err = files.append(path .. ".lock", "lock rollout state")
  if lock or err.kind ~= "BatchConflict" then return lock, err end
  return nil, conflict(path, "another program is at this rollout")
end

return state
