-- SPDX-License-Identifier: MIT
-- The routes of the management API: endpoints, their parts, their papers, their permissions.

local answers = require "sluice.emulator.routes.answers"
local features = require "sluice.emulator.features"
local json = require "sluice.json"
local papers = require "sluice.emulator.papers"
local permissions = require "sluice.emulator.permissions"
local view = require "sluice.emulator.view"
local wire = require "sluice.emulator.wire"

local management = {}

local base_path <const> = "/api/2.0/serving-endpoints"
local permissions_path <const> = "/api/2.0/permissions/serving-endpoints/:id"

-- An absent body is an empty one where everything in it may be left out.
local function read_body(request, is_optional)
  if is_optional and (request:text() or "") == "" then return {} end
  return answers.read_object(request, "MALFORMED_REQUEST")
end

-- A handler that calls f(record or name, body, request), with what it needs read before.
local function add_endpoints(app, emulator, guarded)
  local store = emulator.endpoints

  local function shown(request, record, refusal)
    if not record then return answers.refused(refusal) end
    return answers.of(view.detailed(record, answers.base_of(emulator, request)))
  end

  -- A change of the store's own, answered with the whole endpoint.
  local function change(method, path, f)
    app[method](app, base_path .. path, guarded(function(request)
      local body, refusal = read_body(request)
      if not body then return answers.refused(refusal) end
      return shown(request, f(request, body))
    end))
  end

  app:get(base_path, guarded(function()
    local list = json.array {}
    for index, record in ipairs(store:list()) do list[index] = view.summary(record) end
    return answers.of { endpoints = list }
  end))
  app:get(base_path .. "/:name", guarded(function(request)
    return shown(request, store:get(request.params.name))
  end))
  app:delete(base_path .. "/:name", guarded(function(request)
    local record, refusal = store:get(request.params.name)
    if not record then return answers.refused(refusal) end
    emulator.metrics:forget(record.id)
    return answers.of(store:delete(record.name))
  end))
  change("post", "", function(request, body) return store:create(body, request.deployment) end)
  change("post", "/pt", function(request, body) return store:create_pt(body, request.deployment) end)
  change("put", "/:name/config", function(request, body)
    return store:update_config(request.params.name, body, request.deployment)
  end)
  change("put", "/pt/:name/config", function(request, body)
    return store:update_pt_config(request.params.name, body, request.deployment)
  end)
end

local parts = {
  { "patch", "/tags", features.patch_tags },
  { "put", "/rate-limits", features.put_rate_limits },
  { "put", "/ai-gateway", features.put_ai_gateway },
  { "patch", "/notifications", features.patch_notifications },
  { "patch", "/telemetry-config", features.patch_telemetry, whole = true },
  { "patch", "/system-metrics-export-state", features.patch_export, whole = true },
}

-- The changes of one part of an endpoint; `whole` ones are answered with the endpoint.
local function add_parts(app, emulator, guarded)
  for _, part in ipairs(parts) do
    local method, path, change = table.unpack(part)
    app[method](app, base_path .. "/:name" .. path, guarded(function(request)
      local record, refusal = emulator.endpoints:get(request.params.name)
      if not record then return answers.refused(refusal) end
      local body, answer
      body, refusal = read_body(request, true)
      if not body then return answers.refused(refusal) end
      answer, refusal = change(record, body)
      if not answer then return answers.refused(refusal) end
      record.updated = wire.milliseconds()
      emulator.endpoints:save(record)
      if part.whole then answer = view.detailed(record, answers.base_of(emulator, request)) end
      return answers.of(answer)
    end))
  end
end

local metrics_type <const> = "text/plain; version=0.0.4; charset=utf-8"

local function add_papers(app, emulator, guarded)
  local function add(path, read)
    app:get(base_path .. "/:name" .. path, guarded(function(request)
      local record, refusal = emulator.endpoints:get(request.params.name)
      if not record then return answers.refused(refusal) end
      return read(record, request)
    end))
  end
  add("/metrics", function(record)
    local headers = { ["content-type"] = metrics_type }
    return { status = 200, headers = headers, body = emulator.metrics:text(record) }
  end)
  add("/openapi", function(record, request)
    return answers.of(papers.openapi(record, answers.base_of(emulator, request)))
  end)
  add("/served-models/:served/build-logs", function(record, request)
    return answers.of(papers.build_logs(record, request.params.served))
  end)
  add("/served-models/:served/logs", function(record, request)
    return answers.of(papers.logs(record, request.params.served))
  end)
end

local function add_permissions(app, emulator, guarded)
  local function add(method, path, f)
    app[method](app, permissions_path .. path, guarded(function(request)
      local record, refusal = emulator.endpoints:with_id(request.params.id)
      if not record then return answers.refused(refusal) end
      return f(record, request)
    end))
  end
  local function change(method, f)
    add(method, "", function(record, request)
      local body, refusal = read_body(request)
      if not body then return answers.refused(refusal) end
      local answer
      answer, refusal = f(record, body)
      if answer then emulator.endpoints:save(record) end
      return answers.of(answer, refusal)
    end)
  end
  add("get", "", function(record) return answers.of(permissions.get(record)) end)
  add("get", "/permissionLevels", function() return answers.of(permissions.levels()) end)
  change("put", permissions.set)
  change("patch", permissions.update)
end

-- Not of serving, but what clients ask to see whether their token is good.
local function add_me(app, guarded)
  app:get("/api/2.0/preview/scim/v2/Me", guarded(function(request)
    local name = request.caller.name
    return answers.of {
      schemas = json.array { "urn:ietf:params:scim:schemas:core:2.0:User" },
      id = "1",
      userName = name,
      displayName = name,
      active = true,
      emails = json.array { { value = name, type = "work", primary = true } },
    }
  end))
end

---Adds the routes.
---@param app table a sluice.web app
---@param emulator table
---@param guarded fun(handler: function): function lets only known callers through
function management.add(app, emulator, guarded)
  add_endpoints(app, emulator, guarded)
  add_parts(app, emulator, guarded)
  add_papers(app, emulator, guarded)
  add_permissions(app, emulator, guarded)
  add_me(app, guarded)
end

return management
