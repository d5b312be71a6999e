-- SPDX-License-Identifier: MIT
-- The layer that writes one log line for each request.

local errors = require "sluice.errors"
local layers = require "sluice.layers"
local log = require "sluice.log"
local meta = require "sluice.meta"
local options = require "sluice.options"
local stream = require "sluice.stream"
local task = require "sluice.task"

local math_type = math.type

local LOG = {
  level = function(value)
    return value == "debug" or value == "info" or value == "warn", '"debug", "info" or "warn"'
  end,
  fields = "table?",
}

local function usage_of(response)
  local usage = type(response) == "table" and response.usage
  return type(usage) == "table" and usage or nil
end

local function milliseconds(seconds)
  return (seconds * 1e6 + 0.5) // 1 / 1e3
end

local function number(value)
  return math_type(value) and value or nil
end

local NONE <const> = {}

-- `value`: a response, or a stream and how it has ended. Made in one piece: a table
-- that grows costs more than all else here.
local function describe(method, inner, seconds, value, how)
  local facts = meta.get(value)
  local usage = (how and value:usage() or usage_of(value)) or NONE
  return {
    operation = method,
    endpoint = inner.name,
    closed_early = how == "closed" or nil,
    duration_ms = milliseconds(seconds),
    ttft_ms = facts.ttft and milliseconds(facts.ttft),
    status = facts.status,
    request_id = facts.request_id,
    served_model = facts.served_model,
    answered_by = facts.degraded and facts.answered_by,
    degraded = facts.degraded and facts.degraded[1].error.kind,
    hedged = facts.hedged and facts.hedged.won,
    cache = facts.cache and facts.cache.result,
    prompt_tokens = number(usage.prompt_tokens),
    completion_tokens = number(usage.completion_tokens),
    attempts = facts.attempts and #facts.attempts,
  }
end

local function describe_err(fields, err)
  fields.error = err
  if not errors.is(err) then return end
  fields.status, fields.request_id = err.status, err.request_id
  fields.attempts = err.attempts and #err.attempts
end

---Makes a layer that logs each request when it has ended: event `request`, how long it took, what came.
---A stream has ended when its reader is through with it: `closed_early` where that was before its end.
---Never the contents of a request or an answer.
---@param given? { level?: "debug"|"info"|"warn", fields?: table } `level`: of what succeeds, info; what fails is an error; `fields`: added to each line
---@return sluice.Layer
local function log_layer(given)
  given = options.check("layers.log", given, LOG)
  local level, extras = given.level or "info", given.fields or NONE

  local function write(method, inner, started, value, err, how)
    local now_level = (value == nil or err ~= nil) and "error" or level
    if not log.is_enabled(now_level) then return end
    local fields = describe(method, inner, task.now() - started, value, how)
    if err ~= nil then describe_err(fields, err) end
    for name, extra in next, extras do fields[name] = extra end
    log[now_level]("request", fields)
  end

  local function query(inner, request, query_options)
    local started = task.now()
    local value, err = inner:query(request, query_options)
    write("query", inner, started, value, err)
    return value, err
  end

  local function open_stream(inner, request, query_options)
    local started = task.now()
    local value, err = inner:stream(request, query_options)
    if value == nil then
      write("stream", inner, started, nil, err)
      return nil, err
    end
    return stream.watch(value, function(opened, how, failure)
      write("stream", inner, started, opened, failure, how)
    end)
  end

  return layers.around { query = query, stream = open_stream }
end

return log_layer
