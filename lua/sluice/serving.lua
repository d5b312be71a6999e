-- SPDX-License-Identifier: MIT
-- The serving endpoints of a workspace: every call of the API, waiting for what a call has begun, and what users do
-- with several calls.

local calls = require "sluice.serving.calls"
local client = require "sluice.endpoints.client"
local config = require "sluice.serving.config"
local databricks = require "sluice.endpoints.databricks"
local ensure = require "sluice.serving.ensure"
local errors = require "sluice.errors"
local options = require "sluice.options"
local query_options = require "sluice.endpoints.query_options"
local retry = require "sluice.retry"
local task = require "sluice.task"
local waiter = require "sluice.serving.waiter"

local serving = {}

---The options of a management call.
---@class sluice.CallOptions
---@field timeout? number|sluice.Timeout seconds, 60 in total
---@field request_id? string sent as X-Request-Id

---A model, a version of it and the machines that serve it, as on the wire.
---@class sluice.ServedEntity
---@field name? string of this one among the endpoint's
---@field entity_name? string "catalog.schema.model"
---@field entity_version? string
---@field workload_size? "Small"|"Medium"|"Large"
---@field workload_type? string "CPU", "GPU_SMALL", "GPU_LARGE", ...
---@field scale_to_zero_enabled? boolean
---@field environment_vars? table<string, string>
---@field min_provisioned_throughput? integer
---@field max_provisioned_throughput? integer
---@field external_model? table
---@field [string] any

---What an endpoint serves, as on the wire.
---@class sluice.EndpointConfig
---@field served_entities? sluice.ServedEntity[]
---@field traffic_config? table see traffic.config
---@field auto_capture_config? table the inference table
---@field [string] any

---An endpoint that is to be, as on the wire; what is not named here passes through untouched.
---@class sluice.EndpointBody
---@field name string
---@field config? sluice.EndpointConfig
---@field tags? { key: string, value: string? }[]
---@field ai_gateway? table
---@field email_notifications? table
---@field description? string
---@field route_optimized? boolean
---@field budget_policy_id? string
---@field [string] any

---@alias sluice.ServingAnswer fun(self: sluice.ServingEndpoints, name: string, options?: sluice.CallOptions): table?, sluice.Error?
---@alias sluice.ServingChange fun(self: sluice.ServingEndpoints, name: string, body: table, options?: sluice.CallOptions): table?, sluice.Error?
---@alias sluice.ServingCreation fun(self: sluice.ServingEndpoints, body: sluice.EndpointBody, options?: sluice.CallOptions): table?, sluice.Error?
---@alias sluice.ServingConfig fun(self: sluice.ServingEndpoints, name: string, body: sluice.EndpointConfig, options?: sluice.CallOptions): table?, sluice.Error?
---@alias sluice.ServingConfigWait fun(self: sluice.ServingEndpoints, name: string, body: sluice.EndpointConfig, options?: sluice.WaitOptions): table?, sluice.Error?
---@alias sluice.ServingText fun(self: sluice.ServingEndpoints, name: string, options?: sluice.CallOptions): string?, sluice.Error?
---@alias sluice.ServingLogs fun(self: sluice.ServingEndpoints, name: string, served_model_name: string, options?: sluice.CallOptions): { logs: string }?, sluice.Error?
---@alias sluice.ServingWait fun(self: sluice.ServingEndpoints, name: string, body: table, options?: sluice.WaitOptions): table?, sluice.Error?
---@alias sluice.ServingCreationWait fun(self: sluice.ServingEndpoints, body: sluice.EndpointBody, options?: sluice.WaitOptions): table?, sluice.Error?

---Bodies are the wire's own tables, passed on untouched; so are the answers. Every method waits, and gives nil and
---err where it failed. The names of those below are the official SDKs'.
---@class sluice.ServingEndpoints
---@field list fun(self: sluice.ServingEndpoints, options?: sluice.CallOptions): table[]?, sluice.Error? all endpoints, in short form
---@field get sluice.ServingAnswer what is known of an endpoint; kind ResourceDoesNotExist where there is none
---@field create sluice.ServingCreation starts the creation; gives the endpoint as it is then, usually not ready; kind ResourceAlreadyExists where the name is taken
---@field create_and_wait sluice.ServingCreationWait creates an endpoint and waits until it is ready; errors as of create and wait
---@field delete sluice.ServingAnswer deletes an endpoint
---@field update_config sluice.ServingConfig starts a change of what is served and of the traffic; a body that names no served entities keeps the live ones
---@field update_config_and_wait sluice.ServingConfigWait the same, until the new config is live; errors as of update_config and wait
---@field create_provisioned_throughput_endpoint sluice.ServingCreation
---@field create_provisioned_throughput_endpoint_and_wait sluice.ServingCreationWait
---@field update_provisioned_throughput_endpoint_config sluice.ServingChange
---@field update_provisioned_throughput_endpoint_config_and_wait sluice.ServingWait
---@field patch sluice.ServingChange adds and deletes tags: `add_tags`, `delete_tags`; gives `{ tags = }`
---@field put sluice.ServingChange the old rate limits: `rate_limits`
---@field put_ai_gateway sluice.ServingChange replaces the AI gateway's settings; `{}` unsets them
---@field update_notifications sluice.ServingChange `email_notifications`
---@field patch_telemetry_config sluice.ServingChange `telemetry_config`; `{}` removes it
---@field patch_system_metrics_export_state sluice.ServingChange `uc_system_metrics_export_state`
---@field export_metrics sluice.ServingText metrics in Prometheus' text form
---@field get_open_api sluice.ServingText the OpenAPI document, as text
---@field build_logs sluice.ServingLogs what the build of a served entity's container printed
---@field logs sluice.ServingLogs what a served entity prints
---@field get_permissions sluice.ServingAnswer takes the endpoint's id, not its name
---@field set_permissions sluice.ServingChange replaces them: `access_control_list`; takes the endpoint's id
---@field update_permissions sluice.ServingChange adds to them: `access_control_list`; takes the endpoint's id
---@field get_permission_levels sluice.ServingAnswer takes the endpoint's id
local methods = {}
local metatable = {
  __name = "sluice.serving_endpoints",
  __index = options.strict("serving_endpoints", methods),
}

-- Of a management call; a query has the limits of its own.
local MANAGEMENT_TOTAL <const> = 60

-- Of a management call: one that cannot succeed is told after about two seconds of waiting.
local TRIES <const> = 4
local TRIES_TOTAL <const> = 300

local function surely_not_done(err)
  if not err.retryable then return false end
  return err:is "ConnectError" or err:is "TooManyRequests" or err:is "TemporarilyUnavailable"
end

---Makes the client of a workspace's serving endpoints.
---@param connection sluice.endpoints.Client
---@param timeout? number|sluice.Timeout of management calls
---@return sluice.ServingEndpoints
function serving.new(connection, timeout)
  return setmetatable({
    _client = connection,
    _timeout = timeout or { total = MANAGEMENT_TOTAL },
    -- what may be done twice, and what is tried again only where the first time surely did nothing
    _safe = retry.policy { attempts = TRIES, total = TRIES_TOTAL, resend = true },
    _unsafe = retry.policy { attempts = TRIES, total = TRIES_TOTAL, retry_on = surely_not_done },
  }, metatable)
end

-- ---- the calls of the table ----

local CALL = { timeout = "table|number?", request_id = "string?" }

local function check_call(where, given)
  given = options.check(where, given, CALL)
  options.timeout(where, given.timeout)
  return given
end

local function check_self(where, self)
  options.method(where, self, "_client")
end

-- A path has no place for these two, escaped or not; no endpoint may have such a name.
local function check_segment(where, what, value)
  options.argument(where, what, value, "name")
  if value == "." or value == ".." then
    options.misuse('%s: argument "%s" must be a name, got "%s"', where, what, value)
  end
end

local function check_body(where, body, kind)
  options.argument(where, "body", body, "table")
  if kind ~= "named" then return end
  if type(body.name) ~= "string" or body.name == "" then
    options.misuse("%s: the body needs a name, a string that is not empty", where)
  end
  check_segment(where, "body.name", body.name)
end

-- The arguments of a call by its row: those of the path, the body, the options.
local function read_arguments(where, row, self, ...)
  check_self(where, self)
  local given = table.pack(...)
  for index, what in ipairs(row.takes) do check_segment(where, what, given[index]) end
  local count, body = #row.takes, nil
  if row.body then
    count = count + 1
    body = given[count]
    check_body(where, body, row.body)
  end
  return given, body, given[count + 1]
end

local function fill_in(self, name, body, given)
  if config.names_entities(body) then return body end
  local endpoint, err = self:get(name, given)
  if not endpoint then return nil, err end
  return config.completed(body, endpoint.config)
end

local function send(self, row, arguments, body, given)
  local what = {
    method = row.method,
    path = row.path:gsub("{(%d)}", function(index) return client.escape(arguments[tonumber(index)]) end),
    body = body,
    operation = row.operation,
    object = row.takes[1] and arguments[1] or body and body.name,
    timeout = given.timeout or self._timeout,
    request_id = given.request_id,
    text = row.text,
    may_be_empty = row.may_be_empty,
  }
  local policy = row.is_safe and self._safe or self._unsafe
  local answer, err = policy:run(function() return self._client:call(what) end)
  if err and row.gone_is_done and errors.is(err) and err:is "NotFound" and #err.attempts > 1 then
    return {} -- sent again after a lost answer, the second one finds nothing: the first has done it
  end
  return answer, err
end

local function call(self, row, arguments, body, given)
  local err
  if row.fills then
    body, err = fill_in(self, arguments[1], body, given)
    if not body then return nil, err end
  end
  local answer
  answer, err = send(self, row, arguments, body, given)
  if answer ~= nil and row.read then return row.read(answer) end
  return answer, err
end

local function define(row)
  local where = "serving_endpoints:" .. row.name
  return function(self, ...)
    local arguments, body, given = read_arguments(where, row, self, ...)
    return call(self, row, arguments, body, check_call(where, given))
  end
end

local NO_OPTIONS <const> = {}

local function define_wait(row)
  local where = "serving_endpoints:" .. row.name .. "_and_wait"
  return function(self, ...)
    local arguments, body, given = read_arguments(where, row, self, ...)
    given = options.check(where, given, waiter.OPTIONS)
    local name = row.takes[1] and arguments[1] or body.name
    -- a config that is part of the body, or the body itself
    local sent = row.fills and body or body.config
    return waiter.after(self, name, given, row.waits, sent, function()
      return call(self, row, arguments, body, NO_OPTIONS)
    end)
  end
end

for _, row in ipairs(calls) do
  methods[row.name] = define(row)
  if row.waits then methods[row.name .. "_and_wait"] = define_wait(row) end
end

-- ---- what takes several calls ----

---Waits until an endpoint is ready and no update of it is under way.
---@param name string
---@param given? sluice.WaitOptions
---@return table? endpoint
---@return sluice.Error? err kind OperationFailed, with what the deployment says, and the end of its build log as `err.build_log`; OperationTimeout; or as of get
function methods:wait(name, given)
  check_self("serving_endpoints:wait", self)
  check_segment("serving_endpoints:wait", "name", name)
  given = options.check("serving_endpoints:wait", given, waiter.OPTIONS)
  return waiter.wait(self, name, given, { started = task.now() })
end

---Whether there is an endpoint of this name. Waits.
---@param name string
---@param given? sluice.CallOptions
---@return boolean? there nil where it cannot be known
---@return sluice.Error? err
function methods:exists(name, given)
  check_self("serving_endpoints:exists", self)
  check_segment("serving_endpoints:exists", "name", name)
  return ensure.exists(self, name, check_call("serving_endpoints:exists", given))
end

---The endpoint of this name; created where there is none, by this call or by somebody who was faster. One that is
---there is not changed: `sluice.meta(endpoint).drift` tells how it differs from the body (nil: not at all), and
---a warning is logged; `.created` tells whether this call created it. Waits until it is ready.
---@param body sluice.EndpointBody
---@param given? sluice.WaitOptions
---@return table? endpoint
---@return sluice.Error? err as of get, create and wait
function methods:get_or_create(body, given)
  check_self("serving_endpoints:get_or_create", self)
  check_body("serving_endpoints:get_or_create", body, "named")
  given = options.check("serving_endpoints:get_or_create", given, waiter.OPTIONS)
  return ensure.get_or_create(self, body, given)
end

---The endpoint of this name as the body says: created where there is none, changed where `config`, `tags`,
---`ai_gateway` or `email_notifications` differ. `sluice.meta(endpoint).created` and `.updated` (the differences
---there were, or false) tell what was done. Waits until it is ready.
---@param body sluice.EndpointBody
---@param given? sluice.WaitOptions
---@return table? endpoint
---@return sluice.Error? err as of the calls it makes; OperationFailed where something differs that the service cannot change
function methods:create_or_update(body, given)
  check_self("serving_endpoints:create_or_update", self)
  check_body("serving_endpoints:create_or_update", body, "named")
  given = options.check("serving_endpoints:create_or_update", given, waiter.OPTIONS)
  return ensure.create_or_update(self, body, given)
end

local function endpoint_for(where, self, name, request, given)
  check_self(where, self)
  check_segment(where, "name", name)
  options.argument(where, "request", request, "table")
  options.check(where, given, query_options)
  return databricks.new(self._client, name)
end

---Asks an endpoint once, as workspace:endpoint(name):query(...). Nothing is tried again. Waits.
---@param name string
---@param request sluice.Request
---@param given? sluice.QueryOptions `served_model` asks one served entity, whatever the traffic says
---@return sluice.Answer? response
---@return sluice.Error? err
function methods:query(name, request, given)
  local endpoint = endpoint_for("serving_endpoints:query", self, name, request, given)
  return endpoint:query(request, given)
end

---Asks an endpoint once, for an answer as it is made, as workspace:endpoint(name):stream(...). Waits for the first
---content, the end or an err.
---@param name string
---@param request sluice.Request
---@param given? sluice.QueryOptions
---@return sluice.Stream? stream
---@return sluice.Error? err
function methods:stream(name, request, given)
  local endpoint = endpoint_for("serving_endpoints:stream", self, name, request, given)
  return endpoint:stream(request, given)
end

return serving
