-- SPDX-License-Identifier: MIT
-- The routes of SQL statements.

local answers = require "sluice.emulator.routes.answers"
local wire = require "sluice.emulator.wire"

local sql = {}

local path <const> = "/api/2.0/sql/statements"

---Adds the routes.
---@param app table a sluice.web app
---@param emulator table
---@param guarded fun(handler: function): function lets only known callers through
function sql.add(app, emulator, guarded)
  local store = emulator.statements
  app:post(path, guarded(function(request)
    local body, refusal = answers.read_object(request, "MALFORMED_REQUEST")
    if not body then return answers.refused(refusal) end
    local base = answers.base_of(emulator, request)
    return answers.of(store:submit(body, request.headers.authorization, base))
  end))
  app:get(path .. "/:id", guarded(function(request)
    return answers.of(store:get(request.params.id, answers.base_of(emulator, request)))
  end))
  app:get(path .. "/:id/result/chunks/:index", guarded(function(request)
    local params = request.params
    return answers.of(store:chunk(params.id, params.index, answers.base_of(emulator, request)))
  end))
  app:post(path .. "/:id/cancel", guarded(function(request)
    return answers.of(store:cancel(request.params.id))
  end))
  -- as cloud storage: the link is all it takes, and a token beside it is refused
  app:get("/emulator/results/:id/:index", function(request)
    if request.headers.authorization then
      return answers.of(wire.refuse(400, "INVALID_PARAMETER_VALUE", "A link takes no Authorization."))
    end
    return answers.of(store:linked(request.params.id, request.params.index, request.query.key))
  end)
end

return sql
