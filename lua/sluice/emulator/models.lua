-- SPDX-License-Identifier: MIT
-- Which model answers a request, and how it is asked.
--
-- A served entity whose name ends (after its last dot) in the name of a model is that model. Any other entity answers
-- each request by its kind: text with the n-gram model (or the upstream, where one is set), `input` with the
-- embedding model, tables with the tabular model.

local deployment = require "sluice.emulator.deployment"
local echo = require "sluice.emulator.models.echo"
local embedding = require "sluice.emulator.models.embedding"
local keys = require "sluice.emulator.keys"
local ngram = require "sluice.emulator.models.ngram"
local tabular = require "sluice.emulator.models.tabular"
local reply = require "sluice.emulator.reply"
local responses = require "sluice.emulator.responses"
local text = require "sluice.emulator.text"
local user = require "sluice.emulator.models.user"
local wire = require "sluice.emulator.wire"

local models = {}

---@class sluice.emulator.model
---@field name string
---@field label string what answers call it; it says that this is an emulator
---@field task string|nil the task of an endpoint that serves it
---@field kinds table<string, boolean>|nil the kinds of request it can answer; nil is any
---@field generate nil|fun(request: table): fun(): string|nil, string|nil text models: pieces
---@field answer nil|fun(body: table, context: table): sluice.emulator.answer|nil, sluice.emulator.refusal|nil other models

local function built_in()
  local text_kinds = { chat = true, completion = true }
  return {
    echo = { kinds = text_kinds, task = "llm/v1/chat", generate = echo.generate },
    ngram = {
      kinds = text_kinds,
      task = "llm/v1/chat",
      generate = ngram.generate,
      default_max_tokens = ngram.default_max_tokens,
    },
    embedding = { kinds = { embedding = true }, task = "llm/v1/embeddings", answer = embedding.answer },
    tabular = { kinds = { table = true }, answer = tabular.answer },
  }
end

local by_kind = { chat = "ngram", completion = "ngram", embedding = "embedding", table = "tabular" }

---@class sluice.emulator.Models
local methods = {}
local metatable = { __index = methods, __name = "sluice.emulator.models" }

---The models of an emulator.
---@param given table<string, function> the user's models: function(request, context) -> response | text | nil, err
---@param upstream sluice.emulator.model|nil answers text and embeddings where the entity's name says nothing
---@return table registry
function models.new(given, upstream)
  local known = built_in()
  for name, model in pairs(known) do
    model.name, model.label = name, "sluice-emulator-" .. name
  end
  for name, run in pairs(given) do known[name] = user.new(name, run) end
  return setmetatable({ known = known, upstream = upstream }, metatable)
end

---The model that a served entity's name asks for.
---@param entity table a served entity
---@return sluice.emulator.model|nil model nil where the name says nothing
function methods:named(entity) return self.known[deployment.model_name(entity)] end

---The kind of a request, by the keys in its body. A body without any known key is a (bad) table.
---@param body table
---@return "chat"|"completion"|"responses"|"embedding"|"table"
function models.kind_of(body)
  if wire.given(body.messages) ~= nil then return "chat" end
  if wire.given(body.prompt) ~= nil then return "completion" end
  if responses.is(body) then return "responses" end
  if wire.given(body.input) ~= nil then return "embedding" end
  return "table"
end

local function choose(self, entity, kind)
  local named = self:named(entity)
  if named then return named end
  if self.upstream and self.upstream.kinds[kind] then return self.upstream end
  return self.known[by_kind[kind]]
end

local kind_names = {
  chat = "chat requests",
  completion = "completion requests",
  embedding = "embedding requests",
  table = "requests without messages, prompt or input",
}

---@class sluice.emulator.answer one of these
---@field reply? sluice.emulator.reply a text on its way
---@field json? table a whole answer
---@field raw? table a handler's result, passed on as it is

-- A request of the Responses form is asked as a chat.
local function answer_responses(self, entity, body, endpoint)
  local chat, refusal = responses.to_chat(body)
  if not chat then return nil, refusal end
  local answer
  answer, refusal = self:answer(entity, "chat", chat, endpoint)
  if not answer then return nil, refusal end
  local made = answer.reply or reply.of_response(answer.json, body)
  if not made then return answer end
  made.is_responses, made.stream = true, wire.given(body.stream) == true
  return { reply = made }
end

---Answers a request.
---@param entity table the served entity that the traffic split chose
---@param kind string|nil as a path fixes it; else the body decides
---@param body table the decoded body
---@param endpoint string the endpoint's name
---@return sluice.emulator.answer|nil answer
---@return sluice.emulator.refusal|nil
function methods:answer(entity, kind, body, endpoint)
  kind = kind or models.kind_of(body)
  if kind == "responses" then return answer_responses(self, entity, body, endpoint) end
  local model = choose(self, entity, kind)
  if model.kinds and not model.kinds[kind] then
    return wire.bad_request("Bad request: the model %s does not take %s.", model.name, kind_names[kind])
  end
  local ok, refusal = keys.check(entity, kind, body)
  if not ok then return nil, refusal end
  if model.generate then
    local made, why = text.begin(model, kind, body)
    return made and { reply = made }, why
  end
  return model.answer(body, {
    kind = kind,
    endpoint = endpoint,
    served_entity = entity.name,
    entity = entity,
    label = model.label,
    upstream_model = deployment.model_name(entity),
  })
end

return models
