-- SPDX-License-Identifier: MIT
-- The layers by name, and the small helper they are made with.

local options = require "sluice.options"

---One message of a chat.
---@class sluice.Message
---@field role "system"|"user"|"assistant"|"tool"
---@field content? string|table[]
---@field tool_calls? table[] of the assistant
---@field tool_call_id? string of a tool
---@field [string] any

---What an endpoint is asked, as it is on the wire: what is not named here passes through untouched.
---@class sluice.Request
---@field messages? sluice.Message[] of a chat
---@field prompt? string|string[] of a completion
---@field input? string|table of embeddings, and of the Responses API
---@field dataframe_split? table of a model for tables; also `dataframe_records`, `instances`, `inputs`
---@field max_tokens? integer
---@field temperature? number
---@field top_p? number
---@field stop? string|string[]
---@field n? integer
---@field seed? integer
---@field tools? table[]
---@field tool_choice? string|table
---@field response_format? table
---@field [string] any

---What it answers, as it is on the wire.
---@class sluice.Answer
---@field choices? { index: integer, message: sluice.Message, finish_reason: string }[]
---@field usage? { prompt_tokens: integer, completion_tokens: integer, total_tokens: integer }
---@field data? table[] of embeddings
---@field predictions? table[] of a model for tables
---@field model? string
---@field id? string
---@field [string] any

---@class sluice.Endpoint
---@field query fun(self: sluice.Endpoint, request: sluice.Request, options?: sluice.QueryOptions): sluice.Answer?, sluice.Error? one answer
---@field stream? fun(self: sluice.Endpoint, request: sluice.Request, options?: sluice.QueryOptions): sluice.Stream?, sluice.Error? an answer as it is made
---@field name? string
---@field host? string
---@field serving_state? fun(self: sluice.Endpoint, options?: { timeout?: number }): sluice.ServingState?, sluice.Error? whether it says it is ready; costs no tokens
---@field available_in? fun(self: sluice.Endpoint): number seconds until it may be asked, 0: now; an open breaker, a pause after a 429; never waits
---@field provider? string whose API it is, as OpenTelemetry's gen_ai.provider.name: "databricks", "openai"
---@field honours_timeout? boolean whether `options.timeout.total` alone bounds a query; layers do not pass it on

---@alias sluice.AroundCall fun(inner: sluice.Endpoint, request: sluice.Request, options?: sluice.QueryOptions): sluice.Answer|sluice.Stream|nil, sluice.Error?
---@alias sluice.Layer fun(endpoint: sluice.Endpoint): sluice.Endpoint

local layers = {}

local AROUND = { query = "callable?", stream = "callable?", fields = "table?" }

-- What only the endpoint inside can do is still reached from outside, with itself as self.
local function reach_inside(inner)
  return function(_, key)
    if key == "honours_timeout" then return nil end
    local value = inner[key]
    if type(value) ~= "function" then return value end
    return function(_, ...) return value(inner, ...) end
  end
end

---Makes a layer from what it does around a query and around a stream. What is left out passes through
---to the endpoint inside, as do all other fields and methods. `fields` are added to each endpoint made.
---@param what { query?: sluice.AroundCall, stream?: sluice.AroundCall, fields?: table } a request or options that change are copied
---@return sluice.Layer
function layers.around(what)
  options.check("layers.around", what, AROUND)
  local query, stream = what.query, what.stream
  return function(inner)
    local outer = {}
    -- what is asked for often, and stays as it is
    if type(inner) == "table" then outer.name, outer.host = rawget(inner, "name"), rawget(inner, "host") end
    for name, value in pairs(what.fields or {}) do outer[name] = value end
    if query then
      function outer.query(self, request, given)
        if self ~= outer then options.method("endpoint:query", self, "query") end
        return query(inner, request, given)
      end
    end
    if stream and inner.stream then
      function outer.stream(self, request, given)
        if self ~= outer then options.method("endpoint:stream", self, "query") end
        return stream(inner, request, given)
      end
    end
    return setmetatable(outer, { __name = "sluice.endpoint", __index = reach_inside(inner) })
  end
end

---How long an endpoint is left alone, as it says of itself: 0 where it does not. Never waits.
---@param endpoint sluice.Endpoint
---@return number seconds
function layers.available_in(endpoint)
  local ask = endpoint.available_in
  return ask and ask(endpoint) or 0
end

---A copy of options with some of them replaced.
---@param given? table
---@param changes table
---@return table
function layers.with_options(given, changes)
  local copy = {}
  for name, value in pairs(given or {}) do copy[name] = value end
  for name, value in pairs(changes) do copy[name] = value end
  return copy
end

-- What there is: the names above, and one file each.
local function names()
  local all = { breaker = true, cache = true, fallback = true, hedge = true, limit = true, log = true }
  all.capture, all.metrics, all.retry, all.timeout, all.trace = true, true, true, true, true
  for name in next, layers do all[name] = true end
  return all
end

local function load_layer(self, name)
  if type(name) ~= "string" then return nil end
  local ok, layer = pcall(require, "sluice.layers." .. name)
  if not ok then
    if not tostring(layer):find("module 'sluice.layers." .. name .. "' not found", 1, true) then
      error(layer, 2)
    end
    options.misuse('sluice.layers has no field "%s"%s', name, options.hint(name, names()))
  end
  rawset(self, name, layer)
  return layer
end

return setmetatable(layers, { __index = load_layer })
