-- SPDX-License-Identifier: MIT
-- A local serving workspace: Databricks' serving API on this machine, with small real models behind it.

local endpoints = require "sluice.emulator.endpoints"
local models = require "sluice.emulator.models"
local options = require "sluice.options"
local random = require "sluice.random"
local routes = require "sluice.emulator.routes"
local secret = require "sluice.secret"
local task = require "sluice.task"
local upstream = require "sluice.emulator.models.upstream"
local web = require "sluice.web"
local wire = require "sluice.emulator.wire"

local emulator = {}

---@class sluice.emulator
---@field app table the web app: also a transport, in process
---@field token table|nil the token it asks for (a sluice.secret); nil accepts any bearer token
---@field endpoints table the store
local methods = {}
local metatable = { __index = methods, __name = "sluice.emulator" }

local largest_body <const> = 16 << 20 -- what the service takes for custom models

-- Seconds from create to READY: long enough to see NOT_READY, short enough to wait for.
local default_deploy_time <const> = 1

local spec = {
  deploy_time = "seconds?",
  latency = "seconds?",
  token = "text|boolean?",
  models = "table?",
  upstream = "string?",
  upstream_key = "text?",
  upstream_transport = "table|userdata?",
  seed = "integer?",
}

local function chosen_token(given)
  if given == true then return secret.new("dapi" .. wire.hex(16)) end
  return given and secret.new(given) or nil
end

local function upstream_model(given)
  if not given.upstream then return nil end
  local key = given.upstream_key and secret.new(given.upstream_key)
  return upstream.new { url = given.upstream, key = key, transport = given.upstream_transport }
end

---An emulator. It does nothing until its app is asked.
---
---Options: `deploy_time` (seconds an endpoint takes from create to READY; default 1), `latency` (seconds before each
---answer to a query; default 0), `token` (what callers must send; `true` makes one up; none accepts any),
---`models` (name -> function(request, context) -> response | text | nil, err), `upstream` (base URL of an
---OpenAI-compatible server that answers text and embeddings), `upstream_key` (its token), `upstream_transport` (what reaches it;
---default the shared HTTP client), `seed` (of the traffic split).
---@param given table|nil
---@return sluice.emulator
function emulator.new(given)
  given = options.check("emulator.new", given, spec)
  local self = setmetatable({
    token = chosen_token(given.token),
    latency = given.latency or 0,
    models = models.new(given.models or {}, upstream_model(given)),
    random = random.new(given.seed or wire.seed()),
    server_name = "sluice-emulator/" .. require "sluice".version,
    app = web.app { max_body = largest_body },
  }, metatable)
  self.endpoints = endpoints.new {
    deploy_time = given.deploy_time or default_deploy_time,
    now = task.now,
    task_of = function(entity)
      local model = self.models:named(entity)
      return model and model.task
    end,
  }
  routes.add(self.app, self)
  return self
end

---Listens. Waits.
---@param address string|nil HOST:PORT; default a free port of 127.0.0.1
---@return table|nil server its `address` is HOST:PORT
---@return table|nil err
function methods:listen(address) return self.app:listen(address or "127.0.0.1:0") end

return emulator
