-- SPDX-License-Identifier: MIT
-- The traffic of a serving endpoint: reading it, and having it changed.

local config = require "sluice.serving.config"
local errors = require "sluice.errors"
local task = require "sluice.task"
local traffic = require "sluice.traffic"

local shift = {}

-- Between two tries while another update of the endpoint is under way.
local PAUSE <const> = 1

local function share_of(route)
  local name = config.given(route.served_entity_name) or config.given(route.served_model_name)
  return tostring(name), math.tointeger(tonumber(route.traffic_percentage)) or 0
end

---The live traffic, as names and percentages.
---@param endpoint table as the server tells it
---@return { [1]: string, [2]: integer }[]
function shift.traffic(endpoint)
  local live = config.table_of(endpoint.config)
  local shares = {}
  for index, route in ipairs(config.table_of(config.table_of(live.traffic_config).routes)) do
    shares[index] = { share_of(config.table_of(route)) }
  end
  return shares
end

---The percentage of one served entity; 0 for none.
---@param shares { [1]: string, [2]: integer }[]
---@param name string
---@return integer
function shift.share(shares, name)
  for _, share in ipairs(shares) do
    if share[1] == name then return share[2] end
  end
  return 0
end

---The names of the served entities.
---@param endpoint table
---@return string[]
function shift.entities(endpoint)
  local names = {}
  for index, entity in ipairs(config.entities(endpoint.config)) do names[index] = tostring(entity.name) end
  return names
end

local function is_same(one, other)
  local shares = {}
  for _, share in ipairs(one) do
    if share[2] > 0 then shares[share[1]] = share[2] end
  end
  for _, share in ipairs(other) do
    if share[2] > 0 and shares[share[1]] ~= share[2] then return false end
    shares[share[1]] = nil
  end
  return next(shares) == nil
end

---Waits until no update of an endpoint is under way, whatever its end.
---@param serving sluice.ServingEndpoints
---@param name string of the endpoint
---@param timeout number seconds
---@return table? endpoint
---@return sluice.Error? err
function shift.settled(serving, name, timeout)
  local endpoint, err = serving:wait(name, { timeout = timeout })
  if endpoint then return endpoint end
  -- an update that failed left the old config alive; the next one replaces it
  if errors.is(err) and err.kind == "OperationFailed" then return serving:get(name) end
  return nil, err
end

---Has the traffic changed, and waits until it is live; nothing is sent where it is so already. Waits while another
---update is under way.
---@param serving sluice.ServingEndpoints
---@param name string of the endpoint
---@param shares { [1]: string, [2]: integer }[]
---@param timeout number seconds for all of it
---@return table? endpoint
---@return sluice.Error? err
function shift.to(serving, name, shares, timeout)
  local stop_at = task.now() + timeout
  while true do
    local endpoint, err = shift.settled(serving, name, math.max(0, stop_at - task.now()))
    if not endpoint then return nil, err end
    if is_same(shift.traffic(endpoint), shares) then return endpoint end
    local body, left = { traffic_config = traffic.config(shares) }, math.max(0, stop_at - task.now())
    endpoint, err = serving:update_config_and_wait(name, body, { timeout = left })
    if endpoint then return endpoint end
    local is_busy = errors.is(err) and err:is "ResourceConflict" and task.now() + PAUSE < stop_at
    if not is_busy then return nil, err end
    task.sleep(PAUSE)
  end
end

---Takes all other served entities away. Waits until that is live.
---@param serving sluice.ServingEndpoints
---@param name string of the endpoint
---@param kept string the served entity that stays
---@param timeout number
---@return table? endpoint
---@return sluice.Error? err
function shift.retire(serving, name, kept, timeout)
  local endpoint, err = serving:get(name)
  if not endpoint then return nil, err end
  local body = config.completed({}, endpoint.config)
  for _, key in ipairs { "served_entities", "served_models" } do
    local list = {}
    for _, entity in ipairs(body[key] or {}) do
      if entity.name == kept then list[#list + 1] = entity end
    end
    if body[key] then body[key] = list end
  end
  body.traffic_config = traffic.config { { kept, 100 } }
  return serving:update_config_and_wait(name, body, { timeout = timeout })
end

return shift
