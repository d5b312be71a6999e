-- SPDX-License-Identifier: MIT
-- A local serving workspace: Databricks' serving API on this machine, with small real models behind it.

local dialects = require "sluice.emulator.dialect"
local endpoints = require "sluice.emulator.endpoints"
local faults = require "sluice.emulator.faults"
local journals = require "sluice.emulator.journal"
local limits = require "sluice.emulator.limits"
local metrics = require "sluice.emulator.metrics"
local models = require "sluice.emulator.models"
local oauth = require "sluice.emulator.oauth"
local options = require "sluice.options"
local random = require "sluice.random"
local routes = require "sluice.emulator.routes"
local secret = require "sluice.secret"
local statements = require "sluice.emulator.sql.statements"
local tables = require "sluice.emulator.tables"
local upstream = require "sluice.emulator.models.upstream"
local web = require "sluice.web"
local wire = require "sluice.emulator.wire"

local emulator = {}

---@class sluice.emulator
---@field app table the web app: also a transport, in process
---@field token table|nil the token it asks for (a sluice.secret); nil accepts any bearer token
---@field endpoints table the store
---@field faults table the fault rules
local methods = {}
local metatable = { __index = methods, __name = "sluice.emulator" }

local largest_body <const> = 16 << 20 -- what the service takes for custom models

-- Seconds from create to READY: long enough to see NOT_READY, short enough to wait for.
local default_deploy_time <const> = 1

local default_token_lifetime <const> = 3600 -- of OAuth tokens, as the service's

local default_chunk_rows <const> = 1000 -- of a result of SQL

local spec = {
  deploy_time = "seconds?",
  latency = "seconds?",
  token = "text|boolean?",
  models = "table?",
  upstream = "string?",
  upstream_key = "text?",
  upstream_transport = "table|userdata?",
  seed = "integer?",
  token_time = "seconds?",
  dialect = "table?",
  retry_after = "boolean?",
  clients = "table?",
  token_lifetime = "positive?",
  base_url = "string?",
  state = "string?",
  statement_time = "seconds?",
  chunk_rows = "count?",
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

local function chosen_dialect(given)
  local dialect, problem = dialects.read(given)
  if not dialect then options.misuse("emulator.new: %s", problem) end
  return dialect
end

local function add_store(self, given)
  self.endpoints = endpoints.new {
    deploy_time = given.deploy_time or default_deploy_time,
    journal = self.journal,
    task_of = function(entity)
      local model = self.models:named(entity)
      return model and model.task
    end,
  }
  self.tables = tables.new(self.endpoints)
  self.statements = statements.new(self, {
    chunk_rows = given.chunk_rows or default_chunk_rows, statement_time = given.statement_time or 0,
  })
end

---An emulator. It does nothing until its app is asked.
---
---Options: `deploy_time` (seconds an endpoint takes from create to READY; default 1), `latency` (seconds before each
---answer to a query; default 0), `token_time` (seconds before each token of a stream; default 0), `dialect` (of answers
---and streams, see emulator/dialect.lua), `token` (what callers must send; `true` makes one up; none accepts any),
---`clients` (client id -> secret, for OAuth; none accepts any where `token` is none, too), `token_lifetime` (seconds of an
---OAuth token; default 3600), `retry_after` (whether a 429 says when to come again; default true),
---`models` (name -> function(request, context) -> response | text | nil, err), `upstream` (base URL of an
---OpenAI-compatible server that answers text and embeddings), `upstream_key` (its token), `upstream_transport` (what reaches it;
---default the shared HTTP client), `seed` (of the traffic split), `base_url` (at which callers reach it; default by each
---request's Host), `state` (a file that keeps the endpoints, across kill -9 too), `statement_time` (seconds that an SQL
---statement takes; default 0), `chunk_rows` (rows in a chunk of its result; default 1000).
---@param given table|nil
---@return sluice.emulator|nil
---@return sluice.Error|nil err kind ConfigError, where the state file is of no use
function emulator.new(given)
  given = options.check("emulator.new", given, spec)
  local journal, err
  if given.state then
    journal, err = journals.open(given.state)
    if not journal then return nil, err end
  end
  local token = chosen_token(given.token)
  local self = setmetatable({
    token = token,
    latency = given.latency or 0,
    token_time = given.token_time or 0,
    dialect = chosen_dialect(given.dialect),
    base_url = given.base_url and given.base_url:gsub("/+$", ""),
    models = models.new(given.models or {}, upstream_model(given)),
    random = random.new(given.seed or wire.seed()),
    server_name = "sluice-emulator/" .. require "sluice".version,
    app = web.app { max_body = largest_body },
    oauth = oauth.new {
      token = token, clients = given.clients, lifetime = given.token_lifetime or default_token_lifetime,
    },
    limits = limits.new { retry_after = given.retry_after ~= false },
    metrics = metrics.new(),
    faults = faults.new(),
    journal = journal,
  }, metatable)
  add_store(self, given)
  faults.guard(self.app)
  routes.add(self.app, self)
  return self
end

---Adds a fault rule: see sluice.FaultRule and docs/emulator.md. Raises where it is none.
---@param rule table
---@return integer id for `emulator.faults:remove(id)`
function methods:fault(rule)
  local id, problem = self.faults:add(rule)
  if not id then options.misuse("emulator:fault: %s", problem) end
  return id
end

---Listens. Waits.
---@param address string|nil HOST:PORT; default a free port of 127.0.0.1
---@return table|nil server its `address` is HOST:PORT
---@return table|nil err
function methods:listen(address) return self.app:listen(address or "127.0.0.1:0") end

return emulator
