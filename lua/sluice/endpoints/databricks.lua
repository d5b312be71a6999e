-- SPDX-License-Identifier: MIT
-- A serving endpoint of a Databricks workspace as an endpoint of ours.

local client = require "sluice.endpoints.client"
local options = require "sluice.options"
local query_options = require "sluice.endpoints.query_options"
local state = require "sluice.serving.state"

local databricks = {}

---@class sluice.endpoints.Databricks: sluice.Endpoint
local methods = {}
local metatable = { __name = "sluice.endpoint", __index = methods }

function metatable.__tostring(self)
  return "sluice.endpoint: " .. self.name
end

---@class sluice.EndpointOptions
---@field end_mark? boolean false for a server that never sends one: then a stream may also end without [DONE] and without a finish reason; true
local ENDPOINT = { end_mark = "boolean?" }

---Makes the endpoint. Sends nothing.
---@param connection sluice.endpoints.Client
---@param name string
---@param given? sluice.EndpointOptions
---@return sluice.endpoints.Databricks
function databricks.new(connection, name, given)
  given = options.check("workspace:endpoint", given, ENDPOINT)
  return setmetatable({
    name = name,
    provider = "databricks",
    host = connection.host,
    honours_timeout = connection.honours_timeout,
    _client = connection,
    _end_mark = given.end_mark,
    _path = "/serving-endpoints/" .. client.escape(name),
  }, metatable)
end

-- The data plane has no /api/2.0 before it.
local function path_of(self, served_model)
  if not served_model then return self._path .. "/invocations" end
  return ("%s/served-models/%s/invocations"):format(self._path, client.escape(served_model))
end

---Asks the model once. Nothing is tried again: see layers.retry. Waits.
---@param request sluice.Request the wire's own keys, passed on untouched: `messages`, `prompt`, `input`, `dataframe_split`, ...
---@param given? sluice.QueryOptions
---@return sluice.Answer? response the answer as it came; sluice.meta(response) tells `status`, `request_id`, `served_model`, `timing`, `headers`, `raw`
---@return sluice.Error? err
function methods:query(request, given)
  options.method("endpoint:query", self, "_client")
  options.argument("endpoint:query", "request", request, "table")
  given = options.check("endpoint:query", given, query_options)
  options.timeout("endpoint:query", given.timeout)
  return self._client:call {
    method = "POST",
    path = path_of(self, given.served_model),
    body = request,
    operation = "query endpoint",
    object = self.name,
    timeout = given.timeout,
    request_id = given.request_id,
  }
end

local STATE <const> = { timeout = "table|number?" }

---Whether the endpoint says that it is ready. Costs no tokens, and wakes nothing that is scaled to zero. Waits.
---@param given? { timeout?: number|sluice.Timeout } seconds
---@return sluice.ServingState? state
---@return sluice.Error? err as of serving_endpoints:get
function methods:serving_state(given)
  options.method("endpoint:serving_state", self, "_client")
  given = options.check("endpoint:serving_state", given, STATE)
  local endpoint, err = self._client:call {
    method = "GET",
    path = "/api/2.0" .. self._path,
    operation = "get endpoint",
    object = self.name,
    timeout = given.timeout,
  }
  if endpoint == nil then return nil, err end
  local ready = state.of(endpoint)
  return { ready = ready == "READY", state = tostring(ready), detail = state.describe(endpoint) }
end

---Asks the model once, for an answer as it is made. Returns when the first content, the end or an err is
---known: until then nothing was given out, and another try is possible. Waits.
---@param request sluice.Request as for query; `stream` is set
---@param given? sluice.QueryOptions of `timeout`, `first_event` (300) and `idle` (60) count content, not comments
---@return sluice.Stream? stream
---@return sluice.Error? err
function methods:stream(request, given)
  options.method("endpoint:stream", self, "_client")
  options.argument("endpoint:stream", "request", request, "table")
  given = options.check("endpoint:stream", given, query_options)
  options.timeout("endpoint:stream", given.timeout)
  return self._client:stream {
    method = "POST",
    path = path_of(self, given.served_model),
    body = client.streamed(request),
    operation = "stream endpoint",
    object = self.name,
    timeout = given.timeout,
    request_id = given.request_id,
    end_mark = self._end_mark,
  }
end

return databricks
