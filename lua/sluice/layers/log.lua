-- SPDX-License-Identifier: MIT
-- The layer that writes one log line for each request.

local errors = require "sluice.errors"
local layers = require "sluice.layers"
local log = require "sluice.log"
local meta = require "sluice.meta"
local options = require "sluice.options"
local task = require "sluice.task"

local LOG = {
  level = function(value)
    return value == "debug" or value == "info" or value == "warn", '"debug", "info" or "warn"'
  end,
  fields = "table?",
}

local function usage_of(response)
  local usage = type(response) == "table" and response.usage
  return type(usage) == "table" and usage or {}
end

local function describe(fields, response, err)
  local facts = meta.get(response)
  local usage = usage_of(response)
  fields.status = facts.status
  fields.request_id = facts.request_id
  fields.served_model = facts.served_model
  fields.prompt_tokens = math.type(usage.prompt_tokens) and usage.prompt_tokens or nil
  fields.completion_tokens = math.type(usage.completion_tokens) and usage.completion_tokens or nil
  local attempts = facts.attempts
  if err ~= nil then
    fields.error = err
    if errors.is(err) then
      fields.status, fields.request_id, attempts = err.status, err.request_id, err.attempts
    end
  end
  fields.attempts = attempts and #attempts or nil
end

---Makes a layer that logs each request when it has ended: event `request`, how long it took, what came.
---Never the contents of a request or an answer.
---@param given? { level?: "debug"|"info"|"warn", fields?: table } `level`: of what succeeds, info; what fails is an error; `fields`: added to each line
---@return sluice.Layer
local function log_layer(given)
  given = options.check("layers.log", given, LOG)
  local level = given.level or "info"

  local function logged(method)
    return function(inner, request, query_options)
      local started = task.now()
      local value, err = inner[method](inner, request, query_options)
      local now_level = value == nil and "error" or level
      if log.is_enabled(now_level) then
        local fields = { operation = method, endpoint = inner.name }
        for name, extra in pairs(given.fields or {}) do fields[name] = extra end
        fields.duration_ms = math.floor((task.now() - started) * 1e6 + 0.5) / 1e3
        describe(fields, value, err)
        log[now_level]("request", fields)
      end
      return value, err
    end
  end

  return layers.around { query = logged "query", stream = logged "stream" }
end

return log_layer
