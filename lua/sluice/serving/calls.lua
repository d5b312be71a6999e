-- SPDX-License-Identifier: MIT
-- The calls of the serving API as a table: one row a call, from which sluice.serving makes its methods. Names and
-- paths are those of the official SDKs.

local errors = require "sluice.errors"
local meta = require "sluice.meta"

local ENDPOINTS <const> = "/api/2.0/serving-endpoints"
local PERMISSIONS <const> = "/api/2.0/permissions/serving-endpoints"

---One call.
---@class sluice.serving.Call
---@field name string of the method
---@field method string
---@field path string `{1}`, `{2}` are the arguments, escaped
---@field takes string[] the arguments that go into the path
---@field operation string for messages
---@field body? "named"|"given" the argument after them: one with a name of its own, or any table
---@field is_safe? boolean whether doing it twice is as good as once
---@field waits? "new"|"update" there is an `_and_wait` of it too
---@field fills? boolean what the body leaves out of the config is filled in from the live one
---@field text? boolean the answer is text
---@field may_be_empty? boolean
---@field gone_is_done? boolean a second try that finds nothing has succeeded
---@field read? fun(answer: table): table?, sluice.Error? what the method gives

-- The key may be missing where there are none; the SDKs read it so too.
local function read_list(answer)
  local list, kind = answer.endpoints, type(answer.endpoints)
  if kind == "nil" or kind == "userdata" then return {} end
  if kind == "table" then return meta.set(list, meta.get(answer)) end
  return nil, errors.new("ProtocolError", {
    operation = "list endpoints", message = ("the answer's endpoints are a %s and no list"):format(kind),
  })
end

-- The service has answered with an object and with an array.
local function read_tags(answer)
  if type(answer.tags) == "table" or (answer[1] == nil and next(answer) ~= nil) then return answer end
  return meta.set({ tags = answer }, meta.get(answer))
end

---@type sluice.serving.Call[]
local calls = {
  { name = "list", method = "GET", path = ENDPOINTS, takes = {}, operation = "list endpoints",
    is_safe = true, read = read_list },
  { name = "get", method = "GET", path = ENDPOINTS .. "/{1}", takes = { "name" },
    operation = "get endpoint", is_safe = true },
  { name = "create", method = "POST", path = ENDPOINTS, takes = {}, body = "named",
    operation = "create endpoint", waits = "new" },
  { name = "delete", method = "DELETE", path = ENDPOINTS .. "/{1}", takes = { "name" },
    operation = "delete endpoint", is_safe = true, may_be_empty = true, gone_is_done = true },
  -- sent again after a lost answer it would meet itself: 409, the endpoint is being updated
  { name = "update_config", method = "PUT", path = ENDPOINTS .. "/{1}/config", takes = { "name" },
    body = "given", operation = "update endpoint", waits = "update", fills = true },
  { name = "create_provisioned_throughput_endpoint", method = "POST", path = ENDPOINTS .. "/pt", takes = {},
    body = "named", operation = "create provisioned throughput endpoint", waits = "new" },
  { name = "update_provisioned_throughput_endpoint_config", method = "PUT",
    path = ENDPOINTS .. "/pt/{1}/config", takes = { "name" }, body = "given",
    operation = "update provisioned throughput endpoint", waits = "update" },
  -- not known: whether deleting a tag that is gone is an error
  { name = "patch", method = "PATCH", path = ENDPOINTS .. "/{1}/tags", takes = { "name" }, body = "given",
    operation = "patch tags of endpoint", read = read_tags },
  { name = "put", method = "PUT", path = ENDPOINTS .. "/{1}/rate-limits", takes = { "name" },
    body = "given", operation = "put rate limits of endpoint", is_safe = true },
  { name = "put_ai_gateway", method = "PUT", path = ENDPOINTS .. "/{1}/ai-gateway", takes = { "name" },
    body = "given", operation = "put AI gateway of endpoint", is_safe = true },
  { name = "update_notifications", method = "PATCH", path = ENDPOINTS .. "/{1}/notifications",
    takes = { "name" }, body = "given", operation = "update notifications of endpoint", is_safe = true },
  { name = "patch_telemetry_config", method = "PATCH", path = ENDPOINTS .. "/{1}/telemetry-config",
    takes = { "name" }, body = "given", operation = "patch telemetry of endpoint", is_safe = true },
  { name = "patch_system_metrics_export_state", method = "PATCH",
    path = ENDPOINTS .. "/{1}/system-metrics-export-state", takes = { "name" }, body = "given",
    operation = "patch metrics export of endpoint", is_safe = true },
  { name = "export_metrics", method = "GET", path = ENDPOINTS .. "/{1}/metrics", takes = { "name" },
    operation = "export metrics of endpoint", is_safe = true, text = true },
  { name = "get_open_api", method = "GET", path = ENDPOINTS .. "/{1}/openapi", takes = { "name" },
    operation = "get OpenAPI document of endpoint", is_safe = true, text = true },
  { name = "build_logs", method = "GET", path = ENDPOINTS .. "/{1}/served-models/{2}/build-logs",
    takes = { "name", "served_model_name" }, operation = "get build logs of endpoint", is_safe = true },
  { name = "logs", method = "GET", path = ENDPOINTS .. "/{1}/served-models/{2}/logs",
    takes = { "name", "served_model_name" }, operation = "get logs of endpoint", is_safe = true },
  { name = "get_permissions", method = "GET", path = PERMISSIONS .. "/{1}", takes = { "endpoint_id" },
    operation = "get permissions of endpoint", is_safe = true },
  { name = "set_permissions", method = "PUT", path = PERMISSIONS .. "/{1}", takes = { "endpoint_id" },
    body = "given", operation = "set permissions of endpoint", is_safe = true },
  { name = "update_permissions", method = "PATCH", path = PERMISSIONS .. "/{1}", takes = { "endpoint_id" },
    body = "given", operation = "update permissions of endpoint", is_safe = true },
  { name = "get_permission_levels", method = "GET", path = PERMISSIONS .. "/{1}/permissionLevels",
    takes = { "endpoint_id" }, operation = "get permission levels of endpoint", is_safe = true },
}

return calls
