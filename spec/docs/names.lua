-- SPDX-License-Identifier: MIT
-- What the blocks of the docs take for granted: a workspace with endpoints, an app, some texts.

local sluice = require "sluice"
local task = require "sluice.task"

local names = {}

local function entity(name, version)
  return {
    name = name, entity_name = "main.demo.rivers", entity_version = version, workload_size = "Small",
  }
end

local function config_of(first, second)
  return {
    served_entities = { entity(first, "1"), entity(second, "2") },
    traffic_config = sluice.traffic.config { { first, 90 }, { second, 10 } },
  }
end

local MODELS <const> = { "model-control", "model-treatment" }
local ENDPOINTS <const> = {
  rivers = { "rivers-1", "rivers-2" }, chat = { "model-1", "model-2" }, ["my-endpoint"] = MODELS,
  control = MODELS, treatment = MODELS, cheap = MODELS, fast = MODELS,
}

local function make_endpoints(serving)
  local wanted = {}
  for name, models in pairs(ENDPOINTS) do
    wanted[#wanted + 1] = {
      name = name, config = config_of(models[1], models[2]), route_optimized = name == "fast",
    }
  end
  task.map(wanted, function(body) return serving:get_or_create(body) end, { stop_on_error = true })
end

-- A server that answers anything: events where they are asked for.
local function make_server()
  local app = sluice.web.app()
  app:get("/events", function()
    local count = 0
    return { stream = function()
      count = count + 1
      return count < 4 and { data = "event " .. count } or nil
    end }
  end)
  app:any("/*", function() return { json = { answer = "an answer" } } end)
  return assert(app:listen "127.0.0.1:0")
end

local function rows()
  local made = {}
  for row = 1, 400 do
    made[row] = {
      variant = row % 2 == 0 and "model-control" or "model-treatment", execution_time_ms = 100 + row % 37,
      status_code = 200, timestamp_ms = os.time() * 1000 + row,
    }
  end
  return made
end

-- The data plane takes no other tokens.
local function with_oauth(host)
  return assert(sluice.workspace {
    host = host, client_id = "docs", client_secret = "a-secret-of-the-docs", auth_type = "oauth-m2m",
  })
end

local function client_of(url)
  local client = sluice.redis.connect { url = url }
  assert(client:set("n", 1))
  return client
end

-- A console that nobody types into.
local function window()
  return { read = function() return "print 'hello'" end, write = function() end }
end

---Calls f with a table of values by name; what they hold is closed after it.
---@param page string
---@param redis_url? string
---@param f fun(given: table)
function names.with(page, redis_url, f)
  local workspace = assert(sluice.workspace())
  make_endpoints(workspace.serving_endpoints)
  local server <close> = make_server()
  local chat = sluice.pipeline(workspace:endpoint "rivers", { sluice.layers.retry {} })
  package.loaded["sluice.host"] = { ask = function() return "yes" end } -- of a host in C
  local messages = { { role = "user", content = "What is a sluice?" } }
  local app = sluice.web.app()
  app:any("/*", function() return { status = 204 } end)
  local registry = sluice.metrics.registry()
  local file <close> = assert(io.open("page.html", "w"))
  local serving, requests = workspace.serving_endpoints, { { messages = messages } }
  f(setmetatable({
    sluice = sluice, task = task, workspace = workspace, e = serving, chat = chat,
    w = page:find "auth" and with_oauth(workspace.host) or workspace,
    endpoint = chat, other = workspace:endpoint "chat",
    cheaper = workspace:endpoint "cheap", last_resort = workspace:endpoint "chat",
    a = workspace:endpoint "control", b = workspace:endpoint "treatment",
    messages = messages, question = { messages = messages }, requests = requests, app = app,
    registry = registry, url = server.url .. "/events", openai = server.url, token = "any",
    bytes = "data: x\n\n", text = '{"a":1}', value = { a = 1 }, keys = { "a", "b" }, queues = { mail = {} },
    host = workspace.host, monitor = sluice.health.monitor { endpoints = { chat } },
    client = redis_url and client_of(redis_url), my_window = window(), player = {},
    rows = rows(), file = file, store = assert(sluice.capture.open "log.db"),
    split = sluice.traffic.split { { chat, 100 } }, fetch = function() return "fetched" end, mine = {},
    with_capitals = function(request) return request end,
  }, { __index = function(_, name)
    local ok, module = pcall(require, "sluice." .. name)
    return ok and module or nil
  end }))
end

return names
