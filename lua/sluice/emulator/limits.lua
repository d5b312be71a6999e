-- SPDX-License-Identifier: MIT
-- The rate limits that users set for an endpoint: calls and tokens in each minute, for all of it or for each caller.

local task = require "sluice.task"
local wire = require "sluice.emulator.wire"

local limits = {}

local minute <const> = 60
local most_windows <const> = 1000 -- before those that are over are swept out

---@class sluice.emulator.Limits
local methods = {}
local metatable = { __index = methods, __name = "sluice.emulator.limits" }

---Counters of all endpoints.
---@param options table `retry_after` (boolean: whether refusals say when to come again)
---@return table limits
function limits.new(options)
  return setmetatable({ retry_after = options.retry_after, windows = {}, count = 0 }, metatable)
end

-- Whom a limit counts together; nil where the caller is none of its concern. Groups have no members here, so a limit
-- of a group holds for every user.
local function counted(limit, caller)
  if limit.key == "endpoint" then return "" end
  if limit.key == "service_principal" then return limit.principal == caller.name and caller.key or nil end
  if limit.key == "user_group" and caller.is_client then return nil end
  return caller.key
end

local function sweep(self)
  for key, window in pairs(self.windows) do
    if task.now() >= window.ends then
      self.windows[key], self.count = nil, self.count - 1
    end
  end
end

-- A window begins with the first call in it.
local function window_of(self, key)
  local window = self.windows[key]
  if window and task.now() < window.ends then return window end
  if not window then
    if self.count >= most_windows then sweep(self) end
    self.count = self.count + 1
  end
  window = { calls = 0, tokens = 0, ends = task.now() + minute }
  self.windows[key] = window
  return window
end

-- The limits of an endpoint, old kind and new; nil where there are none.
local function all_limits(record)
  local old, new = record.rate_limits, record.ai_gateway and record.ai_gateway.rate_limits
  if not old or not new then return old or new end
  local list = {}
  for _, limit in ipairs(old) do list[#list + 1] = limit end
  for _, limit in ipairs(new) do list[#list + 1] = limit end
  return list
end

-- The limits that concern a caller, each with its window.
local function matching(self, record, caller, list)
  local found = {}
  for index, limit in ipairs(list) do
    local who = counted(limit, caller)
    if who then
      local key = table.concat({ record.id, index, who }, "\0")
      found[#found + 1] = { limit = limit, window = window_of(self, key) }
    end
  end
  return found
end

local units = {
  { key = "calls", name = "requests", short = "Requests-per-minute (RPM)" },
  { key = "tokens", name = "tokens", short = "Tokens-per-minute (TPM)" },
}

local function left(each, key)
  local most = each.limit[key]
  return most and math.max(0, most - each.window[key])
end

local function exceeded(self, record, each, unit)
  local _, refusal = wire.refuse(429, "REQUEST_LIMIT_EXCEEDED",
    "REQUEST_LIMIT_EXCEEDED: User defined rate limit(s) exceeded for endpoint %s: %s, key %s.",
    record.name, unit.short, each.limit.key)
  if self.retry_after then refusal.retry_after = math.max(1, math.ceil(each.window.ends - task.now())) end
  return refusal
end

-- The x-ratelimit-* headers of the tightest limit of each unit, as OpenAI's servers send them.
local function headers_of(found)
  local headers = {}
  for _, unit in ipairs(units) do
    local tightest
    for _, each in ipairs(found) do
      local now = left(each, unit.key)
      if now and (not tightest or now < left(tightest, unit.key)) then tightest = each end
    end
    if tightest then
      headers["x-ratelimit-limit-" .. unit.name] = tostring(tightest.limit[unit.key])
      headers["x-ratelimit-remaining-" .. unit.name] = tostring(left(tightest, unit.key))
      local rest = math.max(0, tightest.window.ends - task.now())
      headers["x-ratelimit-reset-" .. unit.name] = ("%.3fs"):format(rest)
    end
  end
  return headers
end

local no_headers <const> = {}
local unlimited <const> = { spend = function() end, headers = function() return no_headers end }

---Counts a call, or refuses it.
---@param record table the endpoint's record
---@param caller sluice.emulator.caller
---@return { spend: fun(tokens: integer), headers: fun(): table<string, string> }|nil pass what the answer is to tell and to be told
---@return sluice.emulator.refusal|nil
function methods:enter(record, caller)
  local list = all_limits(record)
  if not list then return unlimited end
  local found = matching(self, record, caller, list)
  for _, each in ipairs(found) do
    for _, unit in ipairs(units) do
      if left(each, unit.key) == 0 then
        local refusal = exceeded(self, record, each, unit)
        refusal.limit_headers = headers_of(found)
        return nil, refusal
      end
    end
  end
  for _, each in ipairs(found) do each.window.calls = each.window.calls + 1 end
  return {
    spend = function(tokens)
      for _, each in ipairs(found) do each.window.tokens = each.window.tokens + tokens end
    end,
    headers = function() return headers_of(found) end,
  }
end

return limits
