-- SPDX-License-Identifier: MIT
-- Any server that speaks OpenAI's HTTP API, as an endpoint.

local client = require "sluice.endpoints.client"
local options = require "sluice.options"
local query_options = require "sluice.endpoints.query_options"
local settings = require "sluice.settings"

local openai = {}

---@class sluice.endpoints.OpenAI: sluice.Endpoint
local methods = {}
local metatable = { __name = "sluice.endpoint", __index = methods }

function metatable.__tostring(self)
  return "sluice.endpoint: " .. tostring(self.name)
end

---@class sluice.OpenAIOptions
---@field base_url? string up to and with `/v1`; OPENAI_BASE_URL, or OpenAI's own
---@field api_key? string|sluice.Secret OPENAI_API_KEY, unless base_url is given
---@field model? string for requests without one
---@field path? string such as "responses"; else the keys of the request choose
---@field headers? table more header fields; a value may be a secret
---@field transport? table
---@field end_mark? boolean false for a server that never sends one: then a stream may also end without [DONE] and without a finish reason; true
local OPENAI = {
  base_url = "string?",
  api_key = "text?",
  model = "string?",
  path = "string?",
  headers = "table?",
  transport = "table|userdata?",
  end_mark = "boolean?",
}

local DEFAULT_BASE <const> = "https://api.openai.com/v1"

-- A key of the environment goes to the server of the environment, never to one that a script names.
local function server_of(given)
  if given.base_url then return given.base_url, given.api_key end
  local base = settings.get("OPENAI_BASE_URL") or (given.transport and "http://localhost/v1") or DEFAULT_BASE
  return base, given.api_key or settings.get("OPENAI_API_KEY")
end

---Makes an endpoint of a server with OpenAI's API. Sends nothing.
---@param given? sluice.OpenAIOptions
---@return sluice.endpoints.OpenAI
function openai.new(given)
  given = options.check("sluice.openai", given, OPENAI)
  local url, key = server_of(given)
  local base, host = client.parse_base(url)
  if not base then options.misuse("sluice.openai: base_url %q: %s", url, host) end
  local connection = client.new {
    base = base, host = host, token = key, transport = given.transport, headers = given.headers,
  }
  return setmetatable({
    name = given.model or host,
    provider = "openai",
    host = host,
    honours_timeout = connection.honours_timeout,
    _client = connection,
    _model = given.model,
    _end_mark = given.end_mark,
    _path = given.path and "/" .. given.path:gsub("^/+", ""),
  }, metatable)
end

local function path_of(self, request)
  if self._path then return self._path end
  if request.messages ~= nil then return "/chat/completions" end
  if request.input ~= nil then return "/embeddings" end
  return request.prompt ~= nil and "/completions" or "/chat/completions"
end

local function with_model(request, model)
  if not model or request.model ~= nil then return request end
  local copy = {}
  for name, value in pairs(request) do copy[name] = value end
  copy.model = model
  return copy
end

---Asks the model once. Nothing is tried again: see layers.retry. Waits.
---@param request sluice.Request the wire's own keys, passed on untouched; `model` is added where it is missing
---@param given? sluice.QueryOptions served_model is sent as the model
---@return sluice.Answer? response the answer as it came, described by sluice.meta
---@return sluice.Error? err
function methods:query(request, given)
  options.method("endpoint:query", self, "_client")
  options.argument("endpoint:query", "request", request, "table")
  given = options.check("endpoint:query", given, query_options)
  options.timeout("endpoint:query", given.timeout)
  return self._client:call {
    method = "POST",
    path = path_of(self, request),
    body = with_model(request, given.served_model or self._model),
    operation = "query model",
    object = request.model or given.served_model or self.name,
    timeout = given.timeout,
    request_id = given.request_id,
  }
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
    path = path_of(self, request),
    body = client.streamed(with_model(request, given.served_model or self._model)),
    operation = "stream model",
    object = request.model or given.served_model or self.name,
    timeout = given.timeout,
    request_id = given.request_id,
    end_mark = self._end_mark,
  }
end

return openai
