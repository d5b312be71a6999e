-- SPDX-License-Identifier: MIT
-- A serving endpoint of a Databricks workspace as an endpoint of ours.

local client = require "sluice.endpoints.client"
local options = require "sluice.options"
local query_options = require "sluice.endpoints.query_options"

local databricks = {}

---@class sluice.endpoints.Databricks: sluice.Endpoint
local methods = {}
local metatable = { __name = "sluice.endpoint", __index = methods }

function metatable.__tostring(self)
  return "sluice.endpoint: " .. self.name
end

---Makes the endpoint. Sends nothing.
---@param connection sluice.endpoints.Client
---@param name string
---@return sluice.endpoints.Databricks
function databricks.new(connection, name)
  return setmetatable({
    name = name,
    host = connection.host,
    honours_timeout = connection.honours_timeout,
    _client = connection,
    _path = "/serving-endpoints/" .. client.escape(name),
  }, metatable)
end

-- The data plane has no /api/2.0 before it.
local function path_of(self, served_model)
  if not served_model then return self._path .. "/invocations" end
  return ("%s/served-models/%s/invocations"):format(self._path, client.escape(served_model))
end

---Asks the model once. Nothing is tried again: see layers.retry. Waits.
---@param request table the wire's own keys, passed on untouched: `messages`, `prompt`, `input`, `dataframe_split`, ...
---@param given? sluice.QueryOptions
---@return table? response the answer as it came; sluice.meta(response) tells `status`, `request_id`, `served_model`, `timing`, `headers`, `raw`
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

return databricks
