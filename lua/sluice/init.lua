-- SPDX-License-Identifier: MIT
-- The library under one name; its parts are loaded when first asked for.

---@class sluice
---@field task sluice.task waiting, and doing several things at once
---@field http sluice.http the HTTP client
---@field web sluice.web web apps
---@field json sluice.json the JSON codec
---@field log sluice.log log lines
---@field metrics sluice.metrics counters, gauges and histograms, and their page for Prometheus
---@field retry sluice.retry policies of trying again
---@field layers sluice.layers what goes around an endpoint
---@field cache sluice.cache caches, and the key of a request
---@field transports sluice.transports what carries requests: an app in process, faults, cassettes
---@field errors sluice.errors failures as values
---@field progress sluice.progress progress bars
---@field arguments sluice.arguments the words that a script is called with
---@field batch sluice.batch many requests from a file or a table
---@field report sluice.report A/B reports from an inference log
---@field rollout sluice.rollout gradual rollouts of a new version
---@field statistics sluice.statistics intervals for rates, means and quantiles
---@field bundle sluice.bundle the data files of a program that `sluice bundle` made
---@field sse sluice.sse event streams
---@field stream sluice.stream answers as they are made
---@field redis sluice.redis the Redis client
---@field capture sluice.capture the log of requests that layers.capture writes
---@field traffic sluice.traffic several versions at once: splits, shadows
---@field sqlite sluice.sqlite databases in files and in memory
---@field trace sluice.trace spans, and who they are sent to
---@field health sluice.health whether endpoints are well
---@field headers sluice.headers header fields
---@field response sluice.response responses of handlers and transports
---@field workspace fun(given?: sluice.WorkspaceOptions): sluice.Workspace?, sluice.Error? a workspace: where it is, who calls
---@field openai fun(given?: sluice.OpenAIOptions): sluice.endpoints.OpenAI an endpoint of a server with OpenAI's API
---@field pipeline fun(endpoint: sluice.Endpoint, layers?: sluice.Layer[]): sluice.Endpoint an endpoint inside layers, the first of them outermost
---@field meta fun(object: any): table what is known of an answer: `timing`, `request_id`, `status`, `attempts`
---@field secret fun(text: string|sluice.Secret): sluice.Secret hides a text: it is shown as `***`
---@field run fun(f: function, ...: any): ... calls `f(...)` on a loop of its own, under a stock lua5.4
local sluice = {}

---@type string
sluice.version = "0.1.0"

-- Fields that are functions: the module and the function in it.
local functions = {
  workspace = { "sluice.workspace", "open" },
  openai = { "sluice.endpoints.openai", "new" },
  pipeline = { "sluice.pipeline", "new" },
  meta = { "sluice.meta", "get" },
  secret = { "sluice.secret", "new" },
  run = { "sluice.core.task", "run" },
}

local modules = {
  task = true, http = true, web = true, json = true, log = true, retry = true, layers = true, cache = true,
  errors = true, progress = true, sse = true, stream = true, headers = true, response = true,
  transports = true, redis = true, batch = true, metrics = true, statistics = true, bundle = true,
  sqlite = true, report = true, health = true, traffic = true,
  rollout = true,
  trace = true, capture = true, arguments = true,
}

local function unknown(name)
  local options, names = require "sluice.options", { version = true }
  for _, some in ipairs { functions, modules } do
    for each in pairs(some) do names[each] = true end
  end
  options.misuse('sluice has no field "%s"%s', name, options.hint(name, names))
end

local function load_field(self, name)
  if type(name) ~= "string" then return nil end
  local value
  if functions[name] then
    value = require(functions[name][1])[functions[name][2]]
  elseif modules[name] then
    value = require("sluice." .. name)
  else
    unknown(name)
  end
  rawset(self, name, value)
  return value
end

return setmetatable(sluice, { __name = "sluice", __index = load_field })
