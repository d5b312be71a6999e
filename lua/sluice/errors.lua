-- SPDX-License-Identifier: MIT
-- Failures of the world as values: err tables with a kind, a readable text, and what a caller decides by.

local meta = require "sluice.meta"
local secret = require "sluice.secret"

local errors = {}

---A failure of the world, returned as `nil, err` and raised by iterators.
---@class sluice.Error
---@field kind string the most specific name: "ResourceDoesNotExist"
---@field message string what happened, without operation and object
---@field operation string? what was tried: "query", "get endpoint"
---@field object string? on what: a name, a URL without its query
---@field status integer? the HTTP status, or the one that a frame of a stream names
---@field code string? the wire's own code, as it came
---@field type string? OpenAI's `type`, where there is a `code` too
---@field param string? which part of the request is meant, where the server says
---@field details table? the wire's `details`, see err:detail
---@field envelope { message: string?, code: string? }? what a proxy wrote around the error of an outside provider
---@field request_id string? the server's name for the request
---@field settings sluice.Setting[]? of a refusal: what the client was set to, and by what
---@field retryable boolean whether the same request may succeed when sent again
---@field maybe_executed boolean? the server may have done the work although no answer came
---@field limit string? which time limit fired: "connect", "first_byte", ...
---@field should_retry boolean? the server's `x-should-retry`, where it sent one
---@field retry_after number? seconds the server asks to wait
---@field attempts sluice.Attempt[]? every try, when there were retries
---@field gave_up string? why there was no further try: "attempts", "maybe_executed", "total", "max_hint", "budget"
---@field cause any what this error comes from
---@field response sluice.Response? the answer, when there was one

---A setting of a client, as it is shown.
---@class sluice.Setting
---@field name string "host"
---@field value string `***` for a secret
---@field source string where it came from: "argument", "DATABRICKS_HOST"

-- Each kind and its parent; `false` is a root. 4xx and 5xx kinds are those of the official SDKs
-- (error_code table and status table), below APIError, which answers to DatabricksError as well.
local parents = {
  APIError = false,
  BadRequest = "APIError",
  InvalidState = "BadRequest",
  InvalidParameterValue = "BadRequest",
  Unauthenticated = "APIError",
  PermissionDenied = "APIError",
  PrivateLinkValidationError = "PermissionDenied",
  NotFound = "APIError",
  ResourceDoesNotExist = "NotFound",
  ResourceConflict = "APIError",
  Aborted = "ResourceConflict",
  AlreadyExists = "ResourceConflict",
  ResourceAlreadyExists = "ResourceConflict",
  TooManyRequests = "APIError",
  ResourceExhausted = "TooManyRequests",
  RequestLimitExceeded = "TooManyRequests",
  Cancelled = "APIError",
  ServiceError = "APIError",
  InternalError = "ServiceError",
  Unknown = "InternalError",
  DataLoss = "InternalError",
  NotImplemented = "ServiceError",
  TemporarilyUnavailable = "ServiceError",
  DeadlineExceeded = "ServiceError",

  ConnectError = false,
  TLSError = false,
  TimeoutError = false,
  TaskCancelled = false,
  ProtocolError = false,
  TruncatedStream = "ProtocolError",
  JsonError = "ProtocolError",
  EventTooLarge = "ProtocolError",

  QueueFull = false, -- turned away by a limit of ours, nothing was sent
  CircuitOpen = false, -- turned away by a breaker of ours, nothing was sent
  NotCached = false, -- "only-if-cached", and nothing is kept
  RedisError = false, -- an error reply; `code` says which
  DatabaseError = false, -- SQLite; `code` says which
  DatabaseBusy = "DatabaseError",
  ConstraintFailed = "DatabaseError",
  SchemaMismatch = "DatabaseError", -- a log without the columns that are needed, or of another version
  ConfigError = false, -- host, token or profile: nothing was tried

  LimitExceeded = false, -- a limit that the embedding program has set: instructions, requests, bytes
  HostError = false, -- a function of the program that embeds us
  OperationFailed = false,
  OperationTimeout = "TimeoutError",

  FileError = false, -- a file that cannot be read or written
  BatchConflict = false, -- the files of a batch do not belong together
  MalformedRow = false, -- a row of a batch that is no request
  PoisonedRow = false, -- a row of a shared batch that worker after worker ended with
  EndpointRaised = false, -- an endpoint, or a layer around it, that raised where it should return
  RolledBack = false, -- a rollout whose gate failed, or that could not go on: the traffic is as it was
  RollbackFailed = false, -- the same, but the traffic may not be as it was
  RolloutConflict = false, -- an endpoint or a state file that is not as a rollout needs it
  CassetteError = false, -- a recording that is not there, or cannot be read
  ListenError = false,
  MalformedRequest = false, -- this one and those below: what a handler of a web app sees of its client
  PayloadTooLarge = false,
  RequestTimeout = false,
  ClientGone = false,
}
local aliases = { DatabricksError = "APIError" }

-- An error_code decides whatever the status is: a 400 with REQUEST_LIMIT_EXCEEDED is a rate limit.
local kind_of_code = {
  INVALID_STATE = "InvalidState",
  INVALID_PARAMETER_VALUE = "InvalidParameterValue",
  RESOURCE_DOES_NOT_EXIST = "ResourceDoesNotExist",
  ABORTED = "Aborted",
  ALREADY_EXISTS = "AlreadyExists",
  RESOURCE_ALREADY_EXISTS = "ResourceAlreadyExists",
  RESOURCE_EXHAUSTED = "ResourceExhausted",
  REQUEST_LIMIT_EXCEEDED = "RequestLimitExceeded",
  UNKNOWN = "Unknown",
  DATA_LOSS = "DataLoss",
  PRIVATE_LINK_VALIDATION_ERROR = "PrivateLinkValidationError",
}

local kind_of_status = {
  [400] = "BadRequest",
  [401] = "Unauthenticated",
  [403] = "PermissionDenied",
  [404] = "NotFound",
  [409] = "ResourceConflict",
  [429] = "TooManyRequests",
  [499] = "Cancelled",
  [500] = "InternalError",
  [501] = "NotImplemented",
  [503] = "TemporarilyUnavailable",
  [504] = "DeadlineExceeded",
}

-- Whether a kind is worth another try when the error itself does not say. The nearest ancestor
-- decides. What may have been executed is a second question: err.maybe_executed.
local retryable_kinds = {
  TooManyRequests = true,
  ServiceError = true,
  NotImplemented = false,
  ConnectError = true,
  TimeoutError = true,
  QueueFull = true,
  CircuitOpen = true,
  DatabaseBusy = true,
  OperationTimeout = false,
  TruncatedStream = true,
}

-- Time limits that fire before anything was sent.
local UNSENT_LIMITS = { queue = true, connect = true }

local MAX_EXCERPT = 500

-- Loaded when something is wrong: errors.lua is needed by every other file.
local function options()
  return require "sluice.options"
end

local function load_metatable()
  local there, task = pcall(require, "sluice.core.task")
  return there and type(task) == "table" and task.error_metatable or {}
end

---@class sluice.Error
local methods = {}
local metatable = load_metatable()
metatable.__name = "sluice.error"
metatable.__index = methods

---Whether the value is an err table.
---@param value any
---@return boolean
function errors.is(value)
  return type(value) == "table" and getmetatable(value) == metatable
end

---Adds a kind of one's own.
---@param kind string
---@param parent? string
function errors.define(kind, parent)
  if parents[kind] ~= nil then options().misuse("errors.define: %q exists", kind) end
  local problem = parent and errors.unknown_kind(parent)
  if problem then options().misuse("errors.define: parent: %s", problem) end
  parents[kind] = parent or false
end

local function is_kind(kind, wanted)
  while kind do
    if kind == wanted then return true end
    kind = parents[kind]
  end
  return false
end

---What is wrong with the name of a kind, and which one is near; nil for a name in the hierarchy.
---@param kind any
---@return string?
function errors.unknown_kind(kind)
  if aliases[kind] or parents[kind] ~= nil then return nil end
  return ('unknown kind "%s"%s'):format(tostring(kind), options().hint(tostring(kind), parents))
end

---Whether the error is of this kind or of one below it. Raises for a kind that does not exist.
---@param kind string
---@return boolean
function methods:is(kind)
  local problem = errors.unknown_kind(kind)
  if problem then options().misuse("err:is: %s", problem) end
  return is_kind(self.kind, aliases[kind] or kind)
end

---The first of the wire's `details` of this name, as google.rpc has them: "ErrorInfo" with `reason`,
---`domain` and `metadata`, "RequestInfo", "RetryInfo", "QuotaFailure", ...
---@param name string
---@return table?
function methods:detail(name)
  options().argument("err:detail", "name", name, "string")
  return require("sluice.wire_error").detail(self.details, name)
end

---The name in the hierarchy that is meant: that of an alias is another one.
---@param kind string
---@return string
function errors.kind_named(kind)
  return aliases[kind] or kind
end

---What a map from kinds says of this kind, or else of the nearest one above it; nil for nothing.
---@param kind string
---@param map table<string, any>
---@return any
function errors.nearest(kind, map)
  while kind do
    local found = map[kind]
    if found ~= nil then return found end
    kind = parents[kind]
  end
  return nil
end

-- One line of text without control characters, at most MAX_EXCERPT bytes, cut between characters.
local function excerpt(text)
  if #text > 4 * MAX_EXCERPT then text = text:sub(1, 4 * MAX_EXCERPT) end
  text = text:gsub("[%c\127]+", " "):gsub("^ +", "")
  if #text <= MAX_EXCERPT then return text end
  local stop = MAX_EXCERPT - 3
  while stop > 0 and (text:byte(stop + 1) & 0xC0) == 0x80 do stop = stop - 1 end
  return text:sub(1, stop) .. "..."
end

---The text as one line of at most 500 bytes, secrets masked: for quoting a body in a message.
---@param text string
---@return string
function errors.excerpt(text)
  return excerpt(secret.mask(text))
end

---Makes an err. What is not given is worked out: `retryable` and `maybe_executed` from the kind and
---the limit, the message from the kind. Secrets in texts are masked. A kind that is not known becomes
---one without a parent.
---@param kind string
---@param fields? table see sluice.Error
---@return sluice.Error
function errors.new(kind, fields)
  local err = {}
  if fields then
    for name, value in pairs(fields) do
      err[name] = type(value) == "string" and secret.mask(value) or value
    end
  end
  err.kind = kind
  if parents[kind] == nil then parents[kind] = false end
  err.message = tostring(err.message or kind)
  if err.retryable == nil then err.retryable = (errors.nearest(kind, retryable_kinds) or false) end
  if err.maybe_executed == nil then
    local cut = is_kind(kind, "TimeoutError") and not UNSENT_LIMITS[err.limit]
    if cut or kind == "TruncatedStream" then err.maybe_executed = true end
  end
  return setmetatable(err, metatable)
end

-- Whatever its value looks like, a setting of such a name is not shown.
local HIDDEN <const> = { "token$", "secret$", "password$", "key$", "authorization$" }

local function is_hidden(name)
  for _, pattern in ipairs(HIDDEN) do
    if name:find(pattern) then return true end
  end
  return false
end

local function shown_setting(setting)
  local name, value = tostring(setting.name), setting.value
  local hide = secret.is(value) or is_hidden(name:lower())
  return {
    name = errors.excerpt(name),
    value = hide and "***" or errors.excerpt(tostring(value)),
    source = errors.excerpt(tostring(setting.source)),
  }
end

---Settings as an err keeps them: secrets as `***`.
---@param given sluice.Setting[]|(fun(): sluice.Setting[])|nil a value may be a secret
---@return sluice.Setting[]?
function errors.settings(given)
  if type(given) == "function" then given = given() end
  if type(given) ~= "table" then return nil end
  local list = {}
  for index, setting in ipairs(given) do list[index] = shown_setting(setting) end
  return list
end

local function parenthesis(err)
  local parts = { err.kind }
  if err.status then parts[#parts + 1] = "HTTP " .. tostring(err.status) end
  if err.code then parts[#parts + 1] = tostring(err.code) end
  if err.request_id then parts[#parts + 1] = "request " .. tostring(err.request_id) end
  local attempts = err.attempts
  if type(attempts) == "table" and #attempts > 1 then
    parts[#parts + 1] = ("after %d attempts"):format(#attempts)
  end
  if err.gave_up == "maybe_executed" then parts[#parts + 1] = "not sent again: maybe executed" end
  local envelope = err.envelope
  if type(envelope) == "table" and envelope.message then
    parts[#parts + 1] = "in: " .. excerpt(tostring(envelope.message))
  end
  return table.concat(parts, ", ")
end

-- "; with host https://x (DATABRICKS_HOST), token *** (argument)"
local function settings_text(settings)
  local parts = {}
  for index, setting in ipairs(settings) do
    parts[index] = ("%s %s (%s)"):format(setting.name, setting.value, setting.source)
  end
  return #parts > 0 and "; called with " .. table.concat(parts, ", ") or ""
end

function metatable.__tostring(err)
  local where = err.operation and tostring(err.operation) or ""
  if err.object then where = (where .. " " .. tostring(err.object)):gsub("^ ", "") end
  if where ~= "" then where = where .. ": " end
  local text = ("%s%s (%s)"):format(where, tostring(err.message or err.kind), parenthesis(err))
  if type(err.settings) == "table" then text = text .. settings_text(err.settings) end
  if err.cause ~= nil then text = text .. "; because: " .. tostring(err.cause) end
  return secret.mask(text)
end

function metatable.__concat(a, b)
  return tostring(a) .. tostring(b)
end

local TEXTS = { "kind", "operation", "object", "message", "code", "request_id", "limit", "gave_up" }

---The error as a plain table for JSON: no response, no object of ours, texts masked and bounded.
---@param err sluice.Error
---@return table
function errors.to_table(err)
  local plain = {}
  for _, name in ipairs(TEXTS) do
    if err[name] ~= nil then plain[name] = errors.excerpt(tostring(err[name])) end
  end
  for _, name in ipairs { "status", "retryable", "retry_after" } do plain[name] = err[name] end
  if type(err.attempts) == "table" and #err.attempts > 0 then plain.attempts = #err.attempts end
  if err.cause ~= nil then plain.cause = errors.excerpt(tostring(err.cause)) end
  plain.settings = err.settings
  return plain
end

-- An err inside a value that is encoded: the same, and never its response.
metatable.__tojson = errors.to_table

---The kind that a wire code alone decides, whatever the status is; nil for any other code.
---@param code string?
---@return string?
function errors.kind_of_code(code)
  return kind_of_code[code]
end

---The kind for a status and a wire code.
---@param status integer
---@param code? string
---@return string
function errors.kind_of(status, code)
  local kind = kind_of_code[code] or kind_of_status[status]
  return kind or (status >= 500 and status <= 599 and "ServiceError") or "APIError"
end

-- 429, and nothing that waiting would change.
local NEVER_MENDED = { insufficient_quota = true }

-- The kinds of status that refuse who calls.
local REFUSALS = { Unauthenticated = true, PermissionDenied = true }

local function text_of(value)
  return type(value) == "string" and value ~= "" and value or nil
end

local function request_id_of(res)
  return res.headers["x-request-id"] or res.headers["x-databricks-request-id"]
end

-- What x-should-retry says: nil for nothing.
local function should_retry(res)
  local word = res.headers["x-should-retry"]
  word = word and word:lower():match "^%s*(%a+)%s*$"
  if word == "true" then return true end
  if word == "false" then return false end
  return nil
end

-- A server that says it outright is believed before all tables.
local function retryable_answer(res, kind, said, given)
  local status = res.status
  if said ~= nil then return said end
  if given ~= nil then return given end
  if status == 408 or status == 425 then return true end
  if status == 505 then return false end
  return (errors.nearest(kind, retryable_kinds) or false)
end

---The fields that what a server said gives to an err: for those who read frames and answers.
---@param found sluice.WireError
---@return table fields
function errors.wire_fields(found)
  local info = require("sluice.wire_error").detail(found.details, "RequestInfo")
  local fields = {
    code = found.code, type = found.type, param = found.param, details = found.details,
    envelope = found.envelope, request_id = info and text_of(info.request_id),
  }
  if NEVER_MENDED[found.code] then fields.retryable = false end
  return fields
end

---The err that an answer means, whatever its body looks like; for any status that is no success, and
---for a login page in place of an answer. Reads the body, and so may wait when it is streamed.
---@param res sluice.Response
---@param context? table fields to add: `operation`, `object`, ...; `settings`: sluice.Setting[], or a function that gives them, kept where the server refuses who calls
---@return sluice.Error
function errors.from_response(res, context)
  local body, failure = res:text()
  local wire = require("sluice.wire_error")
  local found = wire.read(res, body or "")
  local status = found.status or res.status
  local outer = found.envelope and found.envelope.code
  local kind = errors.kind_of_code(found.code) or errors.kind_of(status, outer)
  local fields = errors.wire_fields(found)
  fields.status = status
  fields.message = errors.excerpt(found.message)
  fields.request_id = request_id_of(res) or fields.request_id
  fields.retry_after = wire.retry_after(res, found.details)
  fields.should_retry = should_retry(res)
  fields.retryable = retryable_answer(res, kind, fields.should_retry, fields.retryable)
  fields.response, fields.cause = res, failure
  for name, value in pairs(context or {}) do fields[name] = value end
  fields.settings = REFUSALS[errors.kind_of(status)] and errors.settings(fields.settings) or nil
  local err = errors.new(kind, fields)
  local facts = meta.get(res)
  if facts.timing then meta.set(err, { timing = facts.timing }) end
  return err
end

return errors
