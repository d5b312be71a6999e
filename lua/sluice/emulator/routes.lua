-- SPDX-License-Identifier: MIT
-- The emulator's HTTP face: who may call, and what every answer carries.

local answers = require "sluice.emulator.routes.answers"
local control = require "sluice.emulator.routes.control"
local errors = require "sluice.errors"
local log = require "sluice.log"
local login = require "sluice.emulator.routes.login"
local management = require "sluice.emulator.routes.management"
local queries = require "sluice.emulator.routes.queries"
local sql = require "sluice.emulator.routes.sql"
local wire = require "sluice.emulator.wire"

local routes = {}

-- Every answer says what made it. An err of the web server itself gets the service's shape too.
local function mark(emulator)
  return function(next_handler)
    return function(request)
      local answer, err = emulator.faults:handle(next_handler, request)
      if not answer then
        if not errors.is(err) then return answer, err end
        answer = answers.refused { status = 500, error_code = "INTERNAL_ERROR", message = err.message }
      end
      answer.headers = answer.headers or {}
      answer.headers["server"] = emulator.server_name
      answer.headers["x-sluice-emulator"] = "true"
      answer.headers["x-databricks-org-id"] = wire.workspace_id
      log.debug("emulator request", { method = request.method, path = request.path, status = answer.status })
      return answer
    end
  end
end

-- Lets a request through whose caller is known. A token for one endpoint is good for the data plane only.
local function guard(emulator)
  return function(handler, at_data_plane)
    return function(request)
      local caller, refusal = emulator.oauth:caller(request.headers.authorization)
      if not caller then return answers.refused(refusal) end
      if caller.endpoint_id and not at_data_plane then
        local message = "The token is good for one endpoint's data plane only."
        return answers.of(wire.refuse(403, "PERMISSION_DENIED", message))
      end
      request.caller = caller
      return handler(request)
    end
  end
end

---Adds the emulator's routes to a web app.
---@param app table a sluice.web app
---@param emulator table
function routes.add(app, emulator)
  local guarded = guard(emulator)
  app:use(mark(emulator))
  login.add(app, emulator)
  management.add(app, emulator, guarded)
  queries.add(app, emulator, guarded)
  sql.add(app, emulator, guarded)
  control.add(app, emulator, guarded)
  app:any("/*", answers.no_api)
end

return routes
