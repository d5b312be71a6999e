-- SPDX-License-Identifier: MIT
-- The routes of queries: invocations, one served entity, the OpenAI-compatible paths, the data plane.

local answers = require "sluice.emulator.routes.answers"
local dialects = require "sluice.emulator.dialect"
local json = require "sluice.json"
local reply = require "sluice.emulator.reply"
local responses = require "sluice.emulator.responses"
local stream = require "sluice.emulator.stream"
local task = require "sluice.task"
local view = require "sluice.emulator.view"
local wire = require "sluice.emulator.wire"

local queries = {}

-- Where OpenAI-compatible clients put `/chat/completions` behind.
local openai_bases = {
  "/serving-endpoints", "/serving-endpoints/v1", "/ai-gateway/mlflow/v1", "/ai-gateway/openai/v1",
}

local event_stream <const> = "text/event-stream; charset=utf-8"

local function tokens_in(body)
  local usage = type(body) == "table" and wire.given(body.usage)
  return type(usage) == "table" and math.tointeger(usage.total_tokens) or 0
end

-- A stream's tokens are known at its end, however it comes.
local function streamed(query, made, finish)
  local say = made.is_responses and responses.say or nil
  local frames, used = stream.run(made, query.dialect, query.emulator.token_time, say)
  return {
    status = 200,
    headers = { ["content-type"] = event_stream, ["cache-control"] = "no-cache" },
    body = frames,
    close = function() finish(200, used()) end,
  }
end

local function whole(made, dialect)
  if made.is_responses then return responses.whole(made) end
  return reply.whole(made, dialect)
end

local function passed_on(raw, finish)
  local close = raw.close
  raw.close = function()
    if close then close() end
    finish(raw.status, 0)
  end
  return raw
end

-- What one served entity says.
local function say(query, entity)
  local done = query.emulator.metrics:begin(query.record.id, entity.name)
  local is_done = false
  local function finish(status, tokens)
    if is_done then return end
    is_done = true
    query.pass.spend(tokens)
    done(status)
  end
  local answer, refusal = query.emulator.models:answer(entity, query.kind, query.body, query.name)
  local result
  if not answer then
    result = answers.refused(refusal)
    finish(refusal.status, 0)
  elseif answer.raw then
    result = passed_on(answer.raw, finish)
  elseif answer.reply and answer.reply.stream then
    result = streamed(query, answer.reply, finish)
  else
    local body = answer.json or whole(answer.reply, query.dialect)
    result = answers.of(body)
    finish(200, tokens_in(body))
  end
  return result
end

-- A version that is slow or fails by its own config, so that a script needs no fault rule: by environment variables.
local function suffer(query, entity)
  local variables, random = entity.environment_vars, query.emulator.random
  if not variables then return nil end
  local delay = tonumber(variables.SLUICE_EMULATOR_DELAY_MS)
  local rate = tonumber(variables.SLUICE_EMULATOR_ERROR_RATE)
  if delay and delay > 0 then task.sleep(delay / 1000 * (0.75 + 0.5 * random())) end
  if not rate or random() >= rate then return nil end
  local _, refusal = wire.refuse(500, "INTERNAL_ERROR", "It fails, as its SLUICE_EMULATOR_ERROR_RATE says.")
  return answers.refused(refusal)
end

-- The result of one served entity, or of the fault that it has.
local function ask(query, entity)
  local function handler() return suffer(query, entity) or say(query, entity) end
  local result = query.emulator.faults:serve(handler, query.request, query.name, entity.name)
  result.headers = result.headers or {}
  result.headers["served-model-name"] = entity.name
  return result
end

-- Asks the entity that was chosen, and where the gateway says so the others in their order, until one has an answer.
local function ask_all(query, entity)
  local result = ask(query, entity)
  local gateway = query.record.ai_gateway
  if not (gateway and gateway.fallback_config and gateway.fallback_config.enabled) then return result end
  for _, other in ipairs(query.record.live.config.served_entities) do
    if result.status < 500 and result.status ~= 429 then break end
    if other ~= entity then result = ask(query, other) end
  end
  return result
end

-- Route-optimised endpoints answer at their own URL only, and nothing else answers there.
local function check_place(emulator, request, record, at_data_plane)
  if record.route_optimized == at_data_plane then return true end
  if at_data_plane then
    return wire.refuse(404, "RESOURCE_DOES_NOT_EXIST", "Endpoint '%s' is not route optimized.", record.name)
  end
  local url = view.detailed(record, answers.base_of(emulator, request)).endpoint_url
  return wire.bad_request("Endpoint '%s' is route optimized: it answers at %s only.", record.name, url)
end

local function add_limit_headers(result, headers)
  for name, value in pairs(headers) do result.headers[name] = value end
end

-- A query: the endpoint's name is in the path, or (on the OpenAI paths) in `model`.
local function query_of(emulator, request, place)
  local body, refusal = answers.read_object(request, "BAD_REQUEST")
  if emulator.latency > 0 then task.sleep(emulator.latency) end
  if not body then return nil, refusal end
  local name = request.params.name or wire.given(body.model)
  if type(name) ~= "string" then
    return wire.bad_request("Bad request: model must be the name of a serving endpoint.")
  end
  local share = emulator.random()
  local entity, record = emulator.endpoints:route(name, request.params.served, share)
  if not entity then return nil, record end
  local ok
  ok, refusal = check_place(emulator, request, record, place.is_data_plane == true)
  if not ok then return nil, refusal end
  return {
    emulator = emulator,
    request = request,
    record = record,
    entity = entity,
    name = name,
    body = body,
    kind = place.kind,
    dialect = dialects.of(record, emulator.dialect),
    is_direct = request.params.served ~= nil,
  }
end

local function answer_query(emulator, request, place)
  local query, refusal = query_of(emulator, request, place)
  if not query then return answers.refused(refusal) end
  query.pass, refusal = emulator.limits:enter(query.record, request.caller)
  if not query.pass then
    emulator.metrics:begin(query.record.id, query.entity.name)(refusal.status)
    local result = answers.refused(refusal)
    if place.kind then add_limit_headers(result, refusal.limit_headers) end
    return result
  end
  local written = emulator.tables:begin(query.record, request, query.body)
  local result = query.is_direct and ask(query, query.entity) or ask_all(query, query.entity)
  if written then result = written(result) end
  if place.kind then add_limit_headers(result, query.pass.headers()) end
  return result
end

local function add_data_plane(app, emulator, guarded)
  local place = { is_data_plane = true }
  app:post("/" .. wire.workspace_id .. "/serving-endpoints/:name/invocations", guarded(function(request)
    local caller = request.caller
    if not caller.is_oauth then
      return answers.of(wire.refuse(403, "PERMISSION_DENIED", "The data plane takes OAuth tokens only."))
    end
    local record, refusal = emulator.endpoints:get(request.params.name)
    if not record then return answers.refused(refusal) end
    if caller.endpoint_id and caller.endpoint_id ~= record.id then
      return answers.of(wire.refuse(403, "PERMISSION_DENIED", "The token is for another endpoint."))
    end
    return answer_query(emulator, request, place)
  end, true))
end

-- OpenAI's list of models: the endpoints that can be asked. The service has no such path.
local function models_list(emulator)
  local list = json.array {}
  for _, record in ipairs(emulator.endpoints:list()) do
    if record.live then
      list[#list + 1] = {
        id = record.name, object = "model", created = record.created // 1000, owned_by = "sluice-emulator",
      }
    end
  end
  return answers.of { object = "list", data = list }
end

---Adds the routes.
---@param app table a sluice.web app
---@param emulator table
---@param guarded fun(handler: function, at_data_plane: boolean|nil): function lets only known callers through
function queries.add(app, emulator, guarded)
  local function add(path, place)
    app:post(path, guarded(function(request) return answer_query(emulator, request, place) end))
  end
  add("/serving-endpoints/:name/invocations", {})
  add("/serving-endpoints/:name/served-models/:served/invocations", {})
  for _, base in ipairs(openai_bases) do
    add(base .. "/chat/completions", { kind = "chat" })
    add(base .. "/completions", { kind = "completion" })
    add(base .. "/embeddings", { kind = "embedding" })
    add(base .. "/responses", { kind = "responses" })
    app:get(base .. "/models", guarded(function() return models_list(emulator) end))
  end
  add_data_plane(app, emulator, guarded)
end

return queries
