-- SPDX-License-Identifier: MIT
-- How an endpoint differs from the body that would create it. What the service fills in by itself, and what it never
-- gives back, is no difference; nor is the order of entities, routes and tags.

local config = require "sluice.serving.config"

local drift = {}

local table_of, given = config.table_of, config.given

---One difference.
---@class sluice.Difference
---@field path string such as `config.served_entities.m-1.entity_version`
---@field wanted any nil where the endpoint has something that is not wanted
---@field found any nil where something that is wanted is missing

---All differences: an array, whose tostring is one text.
---@class sluice.Drift
---@field [integer] sluice.Difference

local function shown(value)
  if value == nil then return "nothing" end
  if type(value) == "string" then return ('"%s"'):format(value) end
  if type(value) ~= "table" then return tostring(value) end
  local encoded, text = pcall(require("sluice.json").encode, value, { canonical = true })
  return encoded and text or "a table"
end

-- What a variable is set to may be a secret in plain text: it is in the fields, but in no text.
local function readable(self)
  local wanted, found = self.wanted, self.found
  if self.path:find(".environment_vars.", 1, true) then
    wanted, found = wanted ~= nil and "***" or nil, found ~= nil and "***" or nil
  end
  return wanted, found
end

local difference_metatable = {
  __name = "sluice.difference",
  __tostring = function(self)
    local wanted, found = readable(self)
    return ("%s: wanted %s, found %s"):format(self.path, shown(wanted), shown(found))
  end,
  __tojson = function(self)
    local wanted, found = readable(self)
    return { path = self.path, wanted = wanted, found = found }
  end,
}

local drift_metatable = {
  __name = "sluice.drift",
  __tostring = function(self)
    local texts = {}
    for index, each in ipairs(self) do texts[index] = tostring(each) end
    return table.concat(texts, "; ")
  end,
  __tojson = function(self) return table.move(self, 1, #self, 1, {}) end,
}

local function add(out, path, wanted, found)
  out[#out + 1] = setmetatable({ path = path, wanted = wanted, found = found }, difference_metatable)
end

-- Taken and never told again: secrets in plain text, and what the service keeps to itself.
local NOT_TOLD = { burst_scaling_enabled = true, relocate_pt_commitment = true }

local function is_told(key)
  return not NOT_TOLD[key] and not tostring(key):find("_plaintext$")
end

local function is_empty(value)
  return value == nil or value == false or value == "" or (type(value) == "table" and next(value) == nil)
end

-- Numbers may arrive as strings, 1 as 1.0.
local function same_scalar(a, b)
  if a == b then return true end
  local x, y = tonumber(a), tonumber(b)
  return x ~= nil and x == y and type(a) ~= type(b)
end

local compare

-- Arrays are compared without their order.
local function same_array(wanted, found)
  local left = {}
  for index, item in ipairs(found) do left[index] = item end
  for _, item in ipairs(wanted) do
    local at
    for index, other in ipairs(left) do
      local differences = {}
      compare(differences, "", item, other)
      if #differences == 0 then at = index break end
    end
    if not at then return false end
    table.remove(left, at)
  end
  return #left == 0
end

-- What is wanted must be found; what else is found, the service has filled in.
function compare(out, path, wanted, found)
  wanted, found = given(wanted), given(found)
  if wanted == nil or (is_empty(wanted) and is_empty(found)) then return end
  if type(wanted) == "table" and wanted[1] == nil and found == nil then found = {} end
  if type(wanted) ~= "table" or type(found) ~= "table" then
    if not same_scalar(wanted, found) then add(out, path, wanted, found) end
  elseif wanted[1] ~= nil or found[1] ~= nil then
    if not same_array(wanted, found) then add(out, path, wanted, found) end
  else
    for key, value in pairs(wanted) do
      if is_told(key) then compare(out, path .. "." .. tostring(key), value, found[key]) end
    end
  end
end

-- ---- served entities ----

-- An entity in the newer of the two forms, without nulls, with the defaults that the service fills in.
local function normal(entity)
  local copy = {}
  for key, value in pairs(entity) do copy[key] = given(value) end
  copy.entity_name = copy.entity_name or copy.model_name
  copy.entity_version = copy.entity_version or copy.model_version
  copy.model_name, copy.model_version = nil, nil
  copy.environment_vars = copy.environment_vars or {}
  if not copy.external_model then copy.workload_type = copy.workload_type or "CPU" end
  return copy
end

local function normal_list(part)
  local list = {}
  for index, entity in ipairs(config.entities(part)) do list[index] = normal(entity) end
  return list
end

-- The names that the service may have given to an entity without one; the first is for messages.
local function default_names(entity)
  if type(entity.external_model) == "table" then
    return { (tostring(entity.external_model.name):gsub("[.:]", "-")) }
  end
  local full, version = tostring(entity.entity_name), tostring(entity.entity_version)
  local short = full:match("[^.]*$")
  return { ("%s-%s"):format(short, version), ("%s-%s"):format(full, version), short }
end

local function identity(entity)
  local external = entity.external_model
  if type(external) ~= "table" then return tostring(entity.entity_name) end
  return ("external %s %s"):format(tostring(external.provider), tostring(external.name))
end

local function names_of(entity)
  return entity.name ~= nil and { entity.name } or default_names(entity)
end

local function find(list, taken, test)
  for index, entity in ipairs(list) do
    if not taken[index] and test(entity) then return index end
  end
  return nil
end

-- Which found entity each wanted one is: by its name, by one that it may have been given, by what it serves.
local function match(wanted, found)
  local taken, matched = {}, {}
  local function claim(index, test)
    local at = not matched[index] and find(found, taken, test)
    if at then matched[index], taken[at] = found[at], true end
  end
  for index, entity in ipairs(wanted) do
    for _, name in ipairs(names_of(entity)) do
      claim(index, function(other) return other.name == name end)
    end
  end
  for index, entity in ipairs(wanted) do
    if entity.name == nil then
      claim(index, function(other) return identity(other) == identity(entity) end)
    end
  end
  return matched, taken
end

local function summary(entity)
  local version = entity.entity_version and " " .. tostring(entity.entity_version) or ""
  return identity(entity) .. version
end

local ENTITIES <const> = "config.served_entities."

local function compare_entity(out, wanted, found)
  local path = ENTITIES .. tostring(found.name)
  local rest = {}
  for key, value in pairs(wanted) do rest[key] = value end
  rest.name, rest.environment_vars = nil, nil
  compare(out, path, rest, found)
  -- a variable that was taken out of the script is still set
  local variables, set = wanted.environment_vars, table_of(found.environment_vars)
  path = path .. ".environment_vars"
  compare(out, path, variables, set)
  for name, value in pairs(set) do
    if table_of(variables)[name] == nil then add(out, ("%s.%s"):format(path, name), nil, value) end
  end
end

local function compare_entities(out, wanted, found)
  local matched, taken = match(wanted, found)
  for index, entity in ipairs(wanted) do
    if matched[index] then
      compare_entity(out, entity, matched[index])
    else
      add(out, ENTITIES .. names_of(entity)[1], summary(entity), nil)
    end
  end
  for index, entity in ipairs(found) do
    if not taken[index] then add(out, ENTITIES .. tostring(entity.name), nil, summary(entity)) end
  end
  return matched
end

-- ---- traffic ----

-- Percentages by the name of the served entity; `rename` gives the found name for a wanted one.
local function shares(traffic, rename)
  local by_name = {}
  for _, route in ipairs(table_of(table_of(traffic).routes)) do
    route = table_of(route)
    local name = given(route.served_entity_name) or given(route.served_model_name)
    local share = tonumber(route.traffic_percentage)
    if name ~= nil and share and share ~= 0 then
      name = rename[name] or tostring(name)
      by_name[name] = (by_name[name] or 0) + share
    end
  end
  return by_name
end

local function names_found(wanted, matched)
  local rename = {}
  for index, entity in ipairs(wanted) do
    for _, name in ipairs(names_of(entity)) do
      if matched[index] then rename[name] = matched[index].name end
    end
  end
  return rename
end

local function sorted(names)
  local list = {}
  for name in pairs(names) do list[#list + 1] = name end
  table.sort(list)
  return list
end

local function compare_shares(out, wanted, found)
  local all = {}
  for name in pairs(wanted) do all[name] = true end
  for name in pairs(found) do all[name] = true end
  for _, name in ipairs(sorted(all)) do
    if wanted[name] ~= found[name] then
      add(out, "config.traffic_config." .. name, wanted[name] or 0, found[name] or 0)
    end
  end
end

-- Without a word about it all traffic goes to the one entity.
local function compare_traffic(out, wanted, found, entities, matched)
  local traffic, there = given(wanted.traffic_config), shares(found.traffic_config, {})
  if traffic ~= nil then
    compare_shares(out, shares(traffic, names_found(entities, matched)), there)
  elseif #entities == 1 and matched[1] and given(found.traffic_config) ~= nil then
    compare_shares(out, { [tostring(matched[1].name)] = 100 }, there)
  end
end

local function compare_config(out, wanted, found)
  wanted, found = table_of(wanted), table_of(found)
  local entities = normal_list(wanted)
  local matched = compare_entities(out, entities, normal_list(found))
  compare_traffic(out, wanted, found, entities, matched)
  compare(out, "config.auto_capture_config", wanted.auto_capture_config, found.auto_capture_config)
end

-- ---- all of it ----

local function tags_by_key(list)
  local tags = {}
  for _, tag in ipairs(table_of(list)) do
    tag = table_of(tag)
    if tag.key ~= nil then tags[tag.key] = given(tag.value) or "" end
  end
  return tags
end

local PARTS <const> = { "description", "route_optimized", "ai_gateway", "email_notifications" }

---How an endpoint differs from the body that would create it: from its pending config where an update is under way.
---Compared are `config`, `tags`, `description`, `route_optimized`, `ai_gateway` and `email_notifications`, as far as
---the body has them.
---@param wanted table a body as `create` takes it
---@param endpoint table as `get` gives it
---@return sluice.Drift? differences nil where there are none
function drift.between(wanted, endpoint)
  local out = setmetatable({}, drift_metatable)
  endpoint = table_of(endpoint)
  if given(wanted.config) ~= nil then
    compare_config(out, wanted.config, given(endpoint.pending_config) or endpoint.config)
  end
  local tags = tags_by_key(endpoint.tags)
  for key, value in pairs(tags_by_key(wanted.tags)) do
    if tags[key] ~= value then add(out, "tags." .. tostring(key), value, tags[key]) end
  end
  for _, part in ipairs(PARTS) do compare(out, part, wanted[part], endpoint[part]) end
  table.sort(out, function(a, b) return a.path < b.path end)
  return #out > 0 and out or nil
end

return drift
