-- SPDX-License-Identifier: MIT
-- The control path, /emulator: what the emulator is, its fault rules, and what no API does.

local answers = require "sluice.emulator.routes.answers"
local json = require "sluice.json"
local view = require "sluice.emulator.view"
local wire = require "sluice.emulator.wire"

local control = {}

-- One rule, or a list of them; all of them are right, or none is added.
local function add_rules(emulator, given)
  local list = wire.is_list(given) and given or { given }
  local ids = json.array {}
  for index, rule in ipairs(list) do
    local id, problem = emulator.faults:add(rule)
    if not id then
      for _, added in ipairs(ids) do emulator.faults:remove(added) end
      return wire.invalid("%s%s", #list > 1 and ("rule %d: "):format(index) or "", problem)
    end
    ids[index] = id
  end
  return { ids = ids }
end

local function add_faults(app, emulator, guarded)
  app:get("/emulator/faults", guarded(function()
    return answers.of { faults = emulator.faults:list() }
  end))
  app:post("/emulator/faults", guarded(function(request)
    local given, err = request:json()
    if err or type(given) ~= "table" then
      return answers.of(wire.invalid("A fault rule is a JSON object, and more than one a list of them."))
    end
    return answers.of(add_rules(emulator, given))
  end))
  app:delete("/emulator/faults", guarded(function()
    emulator.faults:clear()
    return answers.of {}
  end))
  app:delete("/emulator/faults/:id", guarded(function(request)
    local id = math.tointeger(tonumber(request.params.id))
    if id and emulator.faults:remove(id) then return answers.of {} end
    local message = "There is no fault rule %s."
    return answers.of(wire.refuse(404, "RESOURCE_DOES_NOT_EXIST", message, request.params.id))
  end))
end

---Adds the routes.
---@param app table a sluice.web app
---@param emulator table
---@param guarded fun(handler: function): function lets only known callers through
function control.add(app, emulator, guarded)
  app:get("/emulator", guarded(function()
    return answers.of {
      server = emulator.server_name,
      workspace_id = wire.workspace_id,
      endpoints = #emulator.endpoints:list(),
      faults = #emulator.faults:list(),
    }
  end))
  app:post("/emulator/endpoints/:name/cancel-update", guarded(function(request)
    local record, refusal = emulator.endpoints:cancel_update(request.params.name)
    if not record then return answers.refused(refusal) end
    return answers.of(view.detailed(record, answers.base_of(emulator, request)))
  end))
  add_faults(app, emulator, guarded)
end

return control
