-- SPDX-License-Identifier: MIT
-- How long the deployment of a config takes and how it ends, by the names of its entities or by a fault rule.
--
-- A name that ends in `_deploy_` and words asks for it: `echo_deploy_fails`, `echo_deploy_600s`,
-- `echo_deploy_600s_fails`. What stands before names the model.

local entity = require "sluice.emulator.entity"

local deployment = {}

---@class sluice.emulator.plan
---@field seconds number
---@field outcome string|nil "fails", "dies" or "canceled"; nil where it succeeds
---@field message string|nil of a deployment that does not succeed
---@field entity string|nil the name of the served entity that decides the outcome; nil is all of them

---The outcomes beside success, and what an entity's deployment and the endpoint's update are called then.
---A deployment that `dies` leaves the endpoint NOT_READY without a failed update.
---@type table<string, { deployment: string, update: string, message: string }>
deployment.outcomes = {
  fails = {
    deployment = "DEPLOYMENT_FAILED",
    update = "UPDATE_FAILED",
    message = "Failed to deploy: the container exited with code 1 while it loaded the model.",
  },
  dies = {
    deployment = "DEPLOYMENT_FAILED",
    update = "NOT_UPDATING",
    message = "Failed to deploy: no capacity was found.",
  },
  canceled = {
    deployment = "DEPLOYMENT_ABORTED",
    update = "UPDATE_CANCELED",
    message = "The update was canceled.",
  },
}

-- The model's name, the seconds and the outcome that an entity's name says; the whole name where it says neither.
local function parse(name)
  local base, words = name:match("^(.+)[_-]deploy[_-](.+)$")
  if not base then return name end
  local seconds, outcome
  for word in words:gmatch("[^_-]+") do
    local digits = word:match("^(%d+)s$")
    if digits then
      seconds = tonumber(digits)
    elseif deployment.outcomes[word] then
      outcome = word
    else
      return name
    end
  end
  return base, seconds, outcome
end

---The model's name in an entity's name, without what it says about the deployment.
---@param made table a served entity
---@return string
function deployment.model_name(made)
  return (parse(entity.model_name(made)))
end

local function same(a, b)
  if type(a) ~= "table" or type(b) ~= "table" then return a == b end
  for key, value in pairs(a) do
    if not same(value, b[key]) then return false end
  end
  for key in pairs(b) do
    if a[key] == nil then return false end
  end
  return true
end

local function is_served(made, live)
  for _, each in ipairs(live and live.served_entities or {}) do
    if same(made, each) then return true end
  end
  return false
end

---Plans the deployment of a config. Entities that are served as they are need none.
---@param settings table the new config
---@param live table|nil the config that is served now
---@param seconds number how long a deployment takes where nothing says otherwise
---@param rule table|nil a fault rule of kind "deployment": `outcome`, `message`, `seconds`
---@return sluice.emulator.plan
function deployment.plan(settings, live, seconds, rule)
  local plan = { seconds = seconds }
  local longest
  for _, made in ipairs(settings.served_entities) do
    if not is_served(made, live) then
      local _, own, outcome = parse(entity.model_name(made))
      if own then longest = math.max(longest or 0, own) end
      if outcome and not plan.outcome then plan.outcome, plan.entity = outcome, made.name end
    end
  end
  plan.seconds = longest or seconds
  if rule then
    plan.seconds = rule.seconds or plan.seconds
    if rule.outcome then plan.outcome, plan.entity = rule.outcome, nil end
  end
  if plan.outcome then
    plan.message = rule and rule.message or deployment.outcomes[plan.outcome].message
  end
  return plan
end

return deployment
