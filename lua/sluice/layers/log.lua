-- SPDX-License-Identifier: MIT
-- The layer that logs each request: when it starts, and how it ended.

local log = require "sluice.log"
local observation = require "sluice.observation"
local options = require "sluice.options"

local LOG = {
  level = function(value)
    return value == "debug" or value == "info" or value == "warn", '"debug", "info" or "warn"'
  end,
  fields = "table?",
  content = "boolean?",
  start = "boolean?",
}

local NONE <const> = {}

local function milliseconds(seconds)
  return seconds and (seconds * 1e6 + 0.5) // 1 / 1e3
end

local function with(fields, extras)
  for name, extra in next, extras do fields[name] = extra end
  return fields
end

local function input_of(request)
  return request.messages or request.prompt or request.input or request
end

-- The text of an answer, of whatever shape; else all of it.
local function output_of(facts)
  local value = facts.value
  if value == nil then return nil end
  if facts.streamed then return value:so_far() end
  local choice = type(value) == "table" and type(value.choices) == "table" and value.choices[1]
  local message = type(choice) == "table" and choice.message
  return type(message) == "table" and message.content or value
end

local function text_of(err)
  return err ~= nil and tostring(err) or nil
end

-- Made in one piece: a table that grows costs more than all else here.
local function describe_end(facts)
  return {
    request_id = facts.request_id, upstream_request_id = facts.upstream_request_id,
    endpoint = facts.endpoint, operation = facts.operation, streamed = facts.streamed,
    duration_ms = milliseconds(facts.duration), ttft_ms = milliseconds(facts.ttft), status = facts.status,
    served_model = facts.served_model, variant = facts.variant, cache = facts.cache,
    attempts = facts.attempts, input_tokens = facts.input_tokens, output_tokens = facts.output_tokens,
    answered_by = facts.answered_by, degraded = facts.degraded, hedged = facts.hedged,
    aborted = facts.outcome == "aborted" or nil, limit = facts.limit,
    error_kind = facts.error_kind, error_code = facts.error_code, error = text_of(facts.error),
  }
end

local function describe_start(facts)
  return {
    request_id = facts.request_id, endpoint = facts.endpoint, operation = facts.operation,
    streamed = facts.streamed, input_length = observation.input_length(facts.request), input = nil,
  }
end

---@class sluice.LogOptions
---@field level? "debug"|"info"|"warn" of all but failures, which are errors; info
---@field fields? table added to each line
---@field content? boolean prompts and answers too, as `input` and `output`
---@field start? boolean false leaves `query_start` out

---Makes a layer that logs each query and each stream: event `query_start`, then `query_success` or `query_error`, with
---the same request_id. Durations are milliseconds, whatever came. A stream has ended when its reader is through with
---it; `aborted` is what was cancelled, or whose reader left before the end: that is no error. What goes over the wire
---is not in the lines unless `content` says so.
---@param given? sluice.LogOptions
---@return sluice.Layer
local function log_layer(given)
  given = options.check("layers.log", given, LOG)
  local level, extras, content = given.level or "info", given.fields or NONE, given.content
  local has_start = given.start ~= false

  local function started(facts)
    if not has_start or not log.is_enabled(level) then return end
    local fields = describe_start(facts)
    if content then fields.input = input_of(facts.request) end
    log[level]("query_start", with(fields, extras))
  end

  local function ended(facts)
    local now_level = facts.outcome == "error" and "error" or level
    if not log.is_enabled(now_level) then return end
    local fields = describe_end(facts)
    if content then
      fields.output = output_of(facts)
      if not has_start then fields.input = input_of(facts.request) end
    end
    log[now_level](facts.error == nil and "query_success" or "query_error", with(fields, extras))
  end

  return observation.layer { started = started, ended = ended }
end

return log_layer
