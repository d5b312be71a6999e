-- SPDX-License-Identifier: MIT
-- What is known of a query or a stream from its start to its end: the facts that logs, metrics, traces and
-- captured traffic share, under the same names and in the same units.

local errors = require "sluice.errors"
local layers = require "sluice.layers"
local meta = require "sluice.meta"
local options = require "sluice.options"
local stream = require "sluice.stream"
local system = require "sluice.core.system"
local core = require "sluice.core.task"

local now, wall, random_float = core.now, core.wall, system.random_float
local math_type = math.type

local observation = {}

---The facts of one query or stream. Durations are seconds; who shows them converts. What is not known is nil; the
---names are the same whether it succeeded or failed. A layer sees what is inside of it: layers.log around
---layers.retry sees one query with `attempts`, inside of it one query for each attempt.
---@class sluice.Observation
---@field operation "chat"|"text_completion"|"embeddings"|"predict" as OpenTelemetry's gen_ai.operation.name; "predict": neither messages, prompt nor input
---@field streamed boolean asked for as a stream
---@field endpoint string? its name
---@field host string?
---@field model string? what the request asks for
---@field request table as it came to the layer: not to be changed
---@field options sluice.QueryOptions? as they go on, with the request_id
---@field request_id string? ours: the caller's `options.request_id`, else that of the task (log.bind), else a new one; sent as X-Request-Id
---@field started number task.now() at the start
---@field started_at number seconds since the epoch at the start
---@field outcome "success"|"error"|"aborted"|nil nil until the end; "aborted": cancelled, or the reader of a stream left before its end
---@field duration number? seconds, from the start to the end of the answer
---@field value any the response; the stream, once it is open
---@field error any the err, or what was raised
---@field error_kind string? the err's kind; "Fault" for a raise that is no err
---@field error_code string? the wire's error_code
---@field limit string? the limit of time that fired
---@field status integer? of HTTP
---@field ttft number? seconds to the first content of a stream
---@field served_model string? who of the endpoint's served models answered
---@field answer_model string? what the answer says that its model is
---@field variant string? of an experiment: sluice.meta(value).variant
---@field upstream_request_id string? the server's name for it, where it is not ours
---@field input_tokens integer?
---@field output_tokens integer?
---@field attempts integer tries that were made: 1 without layers.retry, 0 for an answer out of a cache
---@field cache string? the result of layers.cache: "hit", "miss", "stale", "joined", "bypass", ...
---@field answered_by string? the endpoint that answered instead, with layers.fallback
---@field degraded string? the kind of the err that layers.fallback went on from
---@field hedged integer? the number of the request that won, with layers.hedge

local function usage_of(value, is_stream)
  if is_stream then return value:usage() end
  local usage = type(value) == "table" and value.usage
  return type(usage) == "table" and usage or nil
end

local function count(value, other)
  return math_type(value) == "integer" and value or math_type(other) == "integer" and other or nil
end

local function attempts_of(facts, err)
  local attempts = facts.attempts or type(err) == "table" and err.attempts
  if attempts then return #attempts end
  return facts.cache and facts.cache.result == "hit" and 0 or 1
end

local function take_error(self, err)
  self.error = err
  if not errors.is(err) then
    self.error_kind = "Fault"
    return
  end
  self.error_kind, self.error_code, self.limit = err.kind, err.code, err.limit
  self.status = self.status or err.status
  local theirs = err.request_id
  if theirs and theirs ~= self.request_id then self.upstream_request_id = theirs end
end

local function take_usage(self, value, is_stream)
  local usage = usage_of(value, is_stream)
  if not usage then return end
  self.input_tokens = count(usage.prompt_tokens, usage.input_tokens)
  self.output_tokens = count(usage.completion_tokens, usage.output_tokens)
end

local function take_facts(self, facts)
  self.status, self.ttft = facts.status, facts.ttft
  self.served_model, self.variant = facts.served_model, facts.variant
  local theirs, degraded = facts.request_id, facts.degraded
  if theirs ~= self.request_id then self.upstream_request_id = theirs end
  self.cache = facts.cache and facts.cache.result
  if degraded then
    self.answered_by, self.degraded = facts.answered_by, degraded[1] and degraded[1].error.kind
  end
  self.hedged = facts.hedged and facts.hedged.won
end

local function is_abort(how, err)
  return how == "closed" or how == "raised" and errors.is(err) and err.kind == "TaskCancelled"
end

-- The outermost is told first of a beginning, and last of an end.
local function tell_started(self)
  for _, hooks in ipairs(self._watchers) do
    if hooks.started then hooks.started(self) end
  end
end

local function tell(self, name)
  local watchers = self._watchers
  for index = #watchers, 1, -1 do
    local hook = watchers[index][name]
    if hook then hook(self) end
  end
end

-- `how`: as stream.watch tells it; of a query "done", "failed" or "raised".
local function finish(self, how, value, err)
  local facts = meta.get(value == nil and err or value)
  local is_stream = self.streamed and value ~= nil
  self.duration = now() - self.started
  self.value = value
  take_facts(self, facts)
  if value ~= nil then take_usage(self, value, is_stream) end
  self.attempts = attempts_of(facts, err)
  if how == "done" then
    self.outcome = "success"
    self.answer_model = type(value) == "table" and rawget(value, "model") or nil
  else
    self.outcome = is_abort(how, err) and "aborted" or "error"
    if err ~= nil then take_error(self, err) end
  end
  tell(self, "ended")
end

-- A raise passes through the layer, seen and unchanged.
local metatable = { __name = "sluice.observation" }

function metatable.__close(self, err)
  if self.outcome == nil and not self._opened then finish(self, "raised", nil, err) end
end

local function operation_of(request)
  if type(request) ~= "table" then return "predict" end -- the endpoint says what is wrong with it
  if request.messages ~= nil then return "chat" end
  if request.prompt ~= nil then return "text_completion" end
  local input = request.input
  if input == nil then return "predict" end
  return type(input) == "table" and type(input[1]) == "table" and "chat" or "embeddings"
end

local LONGEST_ID <const> = 200

local function new_id()
  return ("%08x%08x"):format(random_float() * 4294967296 // 1 | 0, random_float() * 4294967296 // 1 | 0)
end

-- The caller's, the task's, or a new one; and the options that send it.
local function identified(given)
  local id = given and given.request_id
  if id then return id, given end
  local bound = core.get_local "log"
  id = bound and bound.request_id
  -- what cannot stand in a header came from outside, and is no id
  if type(id) ~= "string" or #id > LONGEST_ID or not id:find "^[\33-\126]+$" then id = new_id() end
  return id, layers.with_options(given, { request_id = id })
end

-- Made in one piece, with room for what comes: a table that grows costs more than all else here.
local function begin(watchers, inner, streamed, request, given)
  local id
  if watchers.identify then id, given = identified(given) end
  return setmetatable({
    operation = operation_of(request), streamed = streamed, endpoint = inner.name, host = inner.host,
    model = type(request) == "table" and request.model or nil, request = request, options = given,
    request_id = id, started = now(), started_at = wall(),
    _watchers = watchers, _opened = false,
    outcome = nil, duration = nil, value = nil, status = nil, ttft = nil, served_model = nil,
    answer_model = nil, variant = nil, upstream_request_id = nil, input_tokens = nil, output_tokens = nil,
    attempts = nil, cache = nil,
  }, metatable)
end

local function ended_query(self, value, err)
  finish(self, value ~= nil and "done" or "failed", value, err)
  return value, err
end

local function opened_stream(self, value, err)
  if value == nil then
    finish(self, "failed", nil, err)
    return nil, err
  end
  self._opened = true
  self.value = stream.watch(value, function(opened, how, failure) finish(self, how, opened, failure) end)
  tell(self, "opened")
  return self.value
end

local WHAT <const> = {
  started = "callable?", opened = "callable?", ended = "callable", identify = "boolean?",
}

---@class sluice.ObservationHooks each is told once, with the same table; they may not wait, and should not raise
---@field started? fun(facts: sluice.Observation)
---@field opened? fun(facts: sluice.Observation) the first content of a stream is known: it is the `value`
---@field ended fun(facts: sluice.Observation)
---@field identify? boolean false: no request_id is made up

-- Of the endpoints that are watched: the one inside, and who watches.
local watched = setmetatable({}, { __mode = "k" })

local function watch(inner, watchers)
  local function query(_, request, given)
    local self <close> = begin(watchers, inner, false, request, given)
    tell_started(self)
    return ended_query(self, inner:query(request, self.options))
  end

  local function open(_, request, given)
    local self <close> = begin(watchers, inner, true, request, given)
    tell_started(self)
    return opened_stream(self, inner:stream(request, self.options))
  end

  local outer = layers.around { query = query, stream = open } (inner)
  watched[outer] = { inner = inner, watchers = watchers }
  return outer
end

---Makes a layer that watches each query and each stream from its start to its end, however it ends: an answer, an
---err, a raise, a cancellation, a reader who leaves. It changes nothing but the options, which get a request_id.
---Layers that follow each other see the same, and share the facts.
---@param what sluice.ObservationHooks
---@return sluice.Layer
function observation.layer(what)
  options.check("observation.layer", what, WHAT)
  return function(endpoint)
    local inside = watched[endpoint]
    local watchers = { what, table.unpack(inside and inside.watchers or {}) }
    watchers.identify = what.identify ~= false or inside and inside.watchers.identify or false
    return watch(inside and inside.inner or endpoint, watchers)
  end
end

-- Messages hold contents, which hold parts, which hold texts.
local DEEPEST <const> = 3

local function content_length(content, depth)
  if type(content) == "string" then return #content end
  if type(content) ~= "table" or depth == DEEPEST then return 0 end
  local total = 0
  for _, part in ipairs(content) do
    if type(part) == "table" then part = part.text or part.content end
    total = total + content_length(part, depth + 1)
  end
  return total
end

---The bytes of text that a request gives to a model: its messages' contents, its prompt or its input.
---@param request any
---@return integer? bytes nil where it has none of these
function observation.input_length(request)
  if type(request) ~= "table" then return nil end
  local messages, given = request.messages, request.prompt or request.input
  if type(messages) == "table" then return content_length(messages, 0) end
  return given ~= nil and content_length(given, 0) or nil
end

return observation
