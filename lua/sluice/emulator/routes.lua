-- SPDX-License-Identifier: MIT
-- The emulator's HTTP face: the serving API's paths, who may call them, and the shape of refusals.

local errors = require "sluice.errors"
local log = require "sluice.log"
local secret = require "sluice.secret"
local task = require "sluice.task"
local wire = require "sluice.emulator.wire"

local routes = {}

local management <const> = "/api/2.0/serving-endpoints"

local function refused(refusal)
  local headers = {}
  if refusal.retry_after then headers["retry-after"] = tostring(math.ceil(refusal.retry_after)) end
  return {
    status = refusal.status,
    headers = headers,
    json = { error_code = refusal.error_code, message = refusal.message },
  }
end

local function answered(value, refusal)
  if value == nil then return refused(refusal) end
  return { status = 200, json = value }
end

-- The decoded body, which must be a JSON object.
local function read_object(request, code)
  local body, err = request:json()
  if err then
    if err.kind == "PayloadTooLarge" then return wire.refuse(413, code, "%s", err.message) end
    return wire.refuse(400, code, "Could not parse request object: %s", err.message)
  end
  if not wire.is_object(body) then
    return wire.refuse(400, code, "Could not parse request object: it must be a JSON object.")
  end
  return body
end

local function no_api(request)
  local message = "No API found for '%s %s'"
  return answered(wire.refuse(404, "ENDPOINT_NOT_FOUND", message, request.method, request.path))
end

-- Whether the caller may go on; the refusals are those of the service for a missing and a wrong token.
local function authorised(emulator, request)
  local given = secret.reveal(request.headers.authorization)
  local bearer = type(given) == "string" and given:match("^[Bb][Ee][Aa][Rr][Ee][Rr] +(%S+)$")
  if not bearer then
    return wire.refuse(401, "UNAUTHENTICATED",
      "Credential was not sent or was of an unsupported type for this API.")
  end
  if emulator.token and not secret.equals(bearer, emulator.token) then
    return wire.refuse(403, "PERMISSION_DENIED", "Invalid access token.")
  end
  return true
end

-- Every answer says what made it. An err of the web server itself gets the service's shape too.
local function mark(emulator)
  return function(next_handler)
    return function(request)
      local answer, err = next_handler(request)
      if not answer then
        if not errors.is(err) then return answer, err end
        answer = refused { status = 500, error_code = "INTERNAL_ERROR", message = err.message }
      end
      answer.headers = answer.headers or {}
      answer.headers["server"] = emulator.server_name
      answer.headers["x-sluice-emulator"] = "true"
      log.debug("emulator request", { method = request.method, path = request.path, status = answer.status })
      return answer
    end
  end
end

local function guarded(emulator, handler)
  return function(request)
    local ok, refusal = authorised(emulator, request)
    if not ok then return refused(refusal) end
    return handler(request)
  end
end

local function add_management(app, emulator)
  local store = emulator.endpoints
  app:get(management, guarded(emulator, function()
    return { status = 200, json = { endpoints = store:list() } }
  end))
  app:post(management, guarded(emulator, function(request)
    local body, refusal = read_object(request, "MALFORMED_REQUEST")
    if not body then return refused(refusal) end
    return answered(store:create(body))
  end))
  app:get(management .. "/:name", guarded(emulator, function(request)
    return answered(store:get(request.params.name))
  end))
  app:put(management .. "/:name/config", guarded(emulator, function(request)
    local body, refusal = read_object(request, "MALFORMED_REQUEST")
    if not body then return refused(refusal) end
    return answered(store:update_config(request.params.name, body))
  end))
  app:delete(management .. "/:name", guarded(emulator, function(request)
    return answered(store:delete(request.params.name))
  end))
end

-- A query: the endpoint's name is in the path, or (on the OpenAI paths) in `model`.
local function query(emulator, request, kind)
  local body, refusal = read_object(request, "BAD_REQUEST")
  if emulator.latency > 0 then task.sleep(emulator.latency) end
  if not body then return refused(refusal) end
  local name = request.params.name or wire.given(body.model)
  if type(name) ~= "string" then
    return answered(wire.bad_request("Bad request: model must be the name of a serving endpoint."))
  end
  local entity, answer
  entity, refusal = emulator.endpoints:route(name, request.params.served, emulator.random())
  if not entity then return refused(refusal) end
  answer, refusal = emulator.models:answer(entity, kind, body, name)
  local result = answered(answer, refusal)
  result.headers = result.headers or {}
  result.headers["served-model-name"] = entity.name
  return result
end

local function add_queries(app, emulator)
  local function add(path, kind)
    app:post("/serving-endpoints" .. path, guarded(emulator, function(request)
      return query(emulator, request, kind)
    end))
  end
  add("/:name/invocations")
  add("/:name/served-models/:served/invocations")
  for _, base in ipairs { "", "/v1" } do
    add(base .. "/chat/completions", "chat")
    add(base .. "/completions", "completion")
    add(base .. "/embeddings", "embedding")
  end
end

---Adds the emulator's routes to a web app.
---@param app table a sluice.web app
---@param emulator table
function routes.add(app, emulator)
  app:use(mark(emulator))
  -- Clients look here first for the workspace's settings, without a token, and go on when there are none.
  app:get("/.well-known/databricks-config", no_api)
  add_management(app, emulator)
  add_queries(app, emulator)
  app:any("/*", no_api)
end

return routes
