-- SPDX-License-Identifier: MIT
-- When a batch stops before its end, and which ids came twice.

local core = require "sluice.core.file"
local log = require "sluice.log"

local rules = {}

local LEAST_ROWS <const> = 20 -- a share of fewer rows than that says nothing
local MOST_IDS <const> = 50000 -- ids that are remembered, as many as a batch file of OpenAI's may have

---@class sluice.batch.Rules
---@field duplicate_ids integer
---@field is_needed any whether there is a rule
local methods = {}
local metatable = { __name = "sluice.batch.rules", __index = methods }

---The rules of one run.
---@param given { max_failures?: integer, max_failure_share?: number, max_tokens?: integer }
---@param tally sluice.batch.Tally as it is at the start: only what is counted from now on matters
---@return sluice.batch.Rules
function rules.new(given, tally)
  return setmetatable({
    duplicate_ids = 0,
    _max_failures = given.max_failures, _max_share = given.max_failure_share, _max_tokens = given.max_tokens,
    is_needed = given.max_failures or given.max_failure_share or given.max_tokens or false,
    _ok = tally.ok, _failed = tally.failed, _tokens = tally.tokens,
    _ids = {}, _id_count = 0,
  }, metatable)
end

---The rule that does not hold any more; nil for none.
---@param tally sluice.batch.Tally
---@return string?
function methods:broken_by(tally)
  local failed = tally.failed - self._failed
  if self._max_failures and failed >= self._max_failures then return "max_failures" end
  local rows = failed + tally.ok - self._ok
  local share = self._max_share
  if share and rows >= LEAST_ROWS and failed > share * rows then return "max_failure_share" end
  if self._max_tokens and tally.tokens - self._tokens >= self._max_tokens then return "max_tokens" end
  return nil
end

-- Numbers are no work for the collector, as texts would be.
local function key_of(id)
  if type(id) == "string" then return core.hash(id) end
  return math.type(id) == "integer" and core.hash(tostring(id)) or nil
end

---Hears of the id of a row; logs the first one that comes twice.
---@param id any
---@param number integer
function methods:note_id(id, number)
  local ids, key = self._ids, key_of(id)
  local before = key and ids[key]
  if before then
    self.duplicate_ids = self.duplicate_ids + 1
    if self.duplicate_ids == 1 then
      log.warn("batch: an id comes twice, rows are told apart by their number", {
        id = id, row = number, before = before,
      })
    end
  elseif key and self._id_count < MOST_IDS then
    ids[key], self._id_count = number, self._id_count + 1
  end
end

return rules
