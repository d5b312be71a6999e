-- SPDX-License-Identifier: MIT
-- The serving endpoints of a workspace: get, list, create, delete, query, and waiting until one is ready.

local client = require "sluice.endpoints.client"
local databricks = require "sluice.endpoints.databricks"
local errors = require "sluice.errors"
local options = require "sluice.options"
local query_options = require "sluice.endpoints.query_options"
local retry = require "sluice.retry"
local task = require "sluice.task"
local waiter = require "sluice.serving.waiter"

local serving = {}

---@class sluice.ServingEndpoints
local methods = {}
local metatable = {
  __name = "sluice.serving_endpoints",
  __index = options.strict("serving_endpoints", methods),
}

local BASE <const> = "/api/2.0/serving-endpoints"

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
    -- reading and deleting may be done twice; creating only where the first time surely did not happen
    _safe = retry.policy { attempts = TRIES, total = TRIES_TOTAL, resend = true },
    _unsafe = retry.policy { attempts = TRIES, total = TRIES_TOTAL, retry_on = surely_not_done },
  }, metatable)
end

local CALL = { timeout = "table|number?", request_id = "string?" }

local function check_call(where, given)
  given = options.check(where, given, CALL)
  options.timeout(where, given.timeout)
  return given
end

local function check_self(where, self)
  options.method(where, self, "_client")
end

local function check_name(where, name)
  options.argument(where, "name", name, "name")
end

local function check_body(where, body)
  options.argument(where, "body", body, "table")
  if type(body.name) ~= "string" or body.name == "" then
    options.misuse("%s: the body needs a name, a string that is not empty", where)
  end
end

local function path_of(name)
  return BASE .. "/" .. client.escape(name)
end

local function call(self, policy, what, given)
  what.timeout = given.timeout or self._timeout
  what.request_id = given.request_id
  return policy:run(function() return self._client:call(what) end)
end

---What is known of an endpoint. Waits.
---@param name string
---@param given? { timeout?: number|sluice.Timeout, request_id?: string }
---@return table? endpoint
---@return sluice.Error? err kind ResourceDoesNotExist where there is none
function methods:get(name, given)
  check_self("serving_endpoints:get", self)
  check_name("serving_endpoints:get", name)
  given = check_call("serving_endpoints:get", given)
  return call(self, self._safe, {
    method = "GET", path = path_of(name), operation = "get endpoint", object = name,
  }, given)
end

---All endpoints, in short form. Waits.
---@param given? { timeout?: number|sluice.Timeout, request_id?: string }
---@return table[]? endpoints
---@return sluice.Error? err
function methods:list(given)
  check_self("serving_endpoints:list", self)
  given = check_call("serving_endpoints:list", given)
  local what = { method = "GET", path = BASE, operation = "list endpoints" }
  local answer, err = call(self, self._safe, what, given)
  if not answer then return nil, err end
  local endpoints = answer.endpoints
  return type(endpoints) == "table" and endpoints or {}
end

---Starts the creation of an endpoint. Waits for the answer, not for the endpoint.
---@param body { name: string, config?: table } the wire's own keys, passed on untouched
---@param given? { timeout?: number|sluice.Timeout, request_id?: string }
---@return table? endpoint as it is now, usually not ready
---@return sluice.Error? err kind ResourceAlreadyExists where the name is taken
function methods:create(body, given)
  check_self("serving_endpoints:create", self)
  check_body("serving_endpoints:create", body)
  given = check_call("serving_endpoints:create", given)
  return call(self, self._unsafe, {
    method = "POST", path = BASE, body = body, operation = "create endpoint", object = body.name,
  }, given)
end

local WAIT = { timeout = "seconds?", on_poll = "callable?" }

---Creates an endpoint and waits until it is ready.
---@param body { name: string, config?: table }
---@param given? sluice.WaitOptions
---@return table? endpoint
---@return sluice.Error? err as of create and wait
function methods:create_and_wait(body, given)
  check_self("serving_endpoints:create_and_wait", self)
  given = options.check("serving_endpoints:create_and_wait", given, WAIT)
  check_body("serving_endpoints:create_and_wait", body)
  local started = task.now()
  local created, err = self:create(body)
  if not created then return nil, err end
  return waiter.wait(self, body.name, given, { started = started, is_new = true, config = body.config })
end

---Waits until an endpoint is ready and no update of it is under way.
---@param name string
---@param given? sluice.WaitOptions
---@return table? endpoint
---@return sluice.Error? err kind OperationFailed, with what the deployment says; OperationTimeout; or as of get
function methods:wait(name, given)
  check_self("serving_endpoints:wait", self)
  check_name("serving_endpoints:wait", name)
  given = options.check("serving_endpoints:wait", given, WAIT)
  return waiter.wait(self, name, given, { started = task.now() })
end

---Deletes an endpoint. Waits for the answer.
---@param name string
---@param given? { timeout?: number|sluice.Timeout, request_id?: string }
---@return table? answer
---@return sluice.Error? err kind ResourceDoesNotExist where there is none
function methods:delete(name, given)
  check_self("serving_endpoints:delete", self)
  check_name("serving_endpoints:delete", name)
  given = check_call("serving_endpoints:delete", given)
  local answer, err = call(self, self._safe, {
    method = "DELETE", path = path_of(name), operation = "delete endpoint", object = name,
    may_be_empty = true,
  }, given)
  -- sent again after a lost answer, the second one finds nothing: the first has done it
  if err and errors.is(err) and err:is "NotFound" and #err.attempts > 1 then return {} end
  return answer, err
end

---Asks an endpoint once, as workspace:endpoint(name):query(...). Waits.
---@param name string
---@param request table
---@param given? sluice.QueryOptions
---@return table? response
---@return sluice.Error? err
function methods:query(name, request, given)
  check_self("serving_endpoints:query", self)
  check_name("serving_endpoints:query", name)
  options.argument("serving_endpoints:query", "request", request, "table")
  options.check("serving_endpoints:query", given, query_options)
  local response, err = databricks.new(self._client, name):query(request, given)
  return response, err
end

return serving
