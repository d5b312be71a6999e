-- SPDX-License-Identifier: MIT
-- What an endpoint has to read: its OpenAPI document, build logs and service logs.

local json = require "sluice.json"
local wire = require "sluice.emulator.wire"

local papers = {}

local chat_schema = {
  type = "object",
  required = json.array { "messages" },
  properties = {
    messages = { type = "array", items = { type = "object" } }, max_tokens = { type = "integer" },
  },
}
local embedding_schema = {
  type = "object", required = json.array { "input" }, properties = { input = {} },
}
local table_schema = {
  type = "object",
  properties = {
    dataframe_split = { type = "object" }, dataframe_records = { type = "array" },
    inputs = {}, instances = {},
  },
}

local schemas = {
  ["llm/v1/chat"] = chat_schema,
  ["llm/v1/completions"] = {
    type = "object", required = json.array { "prompt" }, properties = { prompt = {} },
  },
  ["llm/v1/embeddings"] = embedding_schema,
}

local function operation(record)
  local schema = schemas[record.task] or table_schema
  return {
    requestBody = { required = true, content = { ["application/json"] = { schema = schema } } },
    responses = {
      ["200"] = {
        description = "The answer.", content = { ["application/json"] = { schema = { type = "object" } } },
      },
    },
  }
end

---The OpenAPI document of an endpoint: a path for each served entity.
---@param record table
---@param base string the URL at which the caller reaches this server
---@return table
function papers.openapi(record, base)
  local paths = {}
  for _, made in ipairs(record.live and record.live.config.served_entities or {}) do
    paths["/served-models/" .. made.name .. "/invocations"] = { post = operation(record) }
  end
  return {
    openapi = "3.1.0",
    info = { title = record.name, version = tostring(record.live and record.live.number or 0) },
    servers = json.array { { url = base .. "/serving-endpoints/" .. record.name } },
    paths = paths,
  }
end

-- The newest version that has the entity, and how far it has come.
local function version_of(record, name)
  for _, key in ipairs { "pending", "failed", "live" } do
    local version = record[key]
    for _, made in ipairs(version and version.config.served_entities or {}) do
      if made.name == name then return version, key end
    end
  end
end

local function stamp(milliseconds)
  return os.date("!%Y-%m-%dT%H:%M:%SZ ", milliseconds // 1000)
end

local function find(record, name)
  local version, phase = version_of(record, name)
  if version then return version, phase end
  return wire.refuse(404, "RESOURCE_DOES_NOT_EXIST", "Endpoint '%s' does not serve '%s'.", record.name, name)
end

---The log of the build of a served entity's container.
---@param record table
---@param name string of the served entity
---@return table|nil answer
---@return sluice.emulator.refusal|nil
function papers.build_logs(record, name)
  local version, phase = find(record, name)
  if not version then return nil, phase end
  local began, done = stamp(version.start_time), stamp(math.floor(version.ready_at * 1000))
  local lines = {
    began .. "Building the container of " .. name .. " for config version " .. version.number,
    began .. "Downloading the artifacts of the model",
    began .. "Installing its requirements",
  }
  if phase == "live" then lines[#lines + 1] = done .. "The container was built" end
  if phase == "failed" then
    lines[#lines + 1] = done .. "ERROR " .. version.plan.message
    lines[#lines + 1] = done .. "The build ended without a container"
  end
  return { logs = table.concat(lines, "\n") .. "\n" }
end

---The newest lines of what a served entity wrote.
---@param record table
---@param name string of the served entity
---@return table|nil answer
---@return sluice.emulator.refusal|nil
function papers.logs(record, name)
  local version, phase = find(record, name)
  if not version then return nil, phase end
  if phase ~= "live" then return { logs = "" } end
  local ready = stamp(math.floor(version.ready_at * 1000))
  local lines = { "[INFO] Listening at: http://0.0.0.0:8080", "[INFO] Booting worker" }
  return { logs = ready .. table.concat(lines, "\n" .. ready) .. "\n" }
end

return papers
