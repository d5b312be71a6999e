-- SPDX-License-Identifier: MIT
-- Attributes of spans, by OpenTelemetry's semantic conventions: those of generative AI (v1.42, in development) and of HTTP.

local json = require "sluice.json"
local url = require "sluice.trace.url"

local attributes = {}

-- Of a request, what it says, and what that is called.
local REQUEST <const> = {
  { "seed", "gen_ai.request.seed" }, { "top_k", "gen_ai.request.top_k" }, { "top_p", "gen_ai.request.top_p" },
  { "temperature", "gen_ai.request.temperature" }, { "max_tokens", "gen_ai.request.max_tokens" },
  { "max_completion_tokens", "gen_ai.request.max_tokens" },
  { "frequency_penalty", "gen_ai.request.frequency_penalty" },
  { "presence_penalty", "gen_ai.request.presence_penalty" },
}

local function of_request(span, request)
  for _, each in ipairs(REQUEST) do
    local value = request[each[1]]
    if math.type(value) then span:set(each[2], value) end
  end
  if math.type(request.n) == "integer" and request.n ~= 1 then
    span:set("gen_ai.request.choice.count", request.n)
  end
end

local function finish_reasons(value)
  local reasons = {}
  if type(value.choices) ~= "table" then return nil end
  for _, choice in ipairs(value.choices) do
    local reason = type(choice) == "table" and choice.finish_reason
    if type(reason) == "string" then reasons[#reasons + 1] = reason end
  end
  return #reasons > 0 and reasons or nil
end

local function text(value)
  return type(value) == "string" and value or nil
end

local function of_answer(span, facts)
  local value = facts.value
  if type(value) == "table" and not facts.streamed then
    span:set("gen_ai.response.id", text(value.id))
    span:set("gen_ai.response.finish_reasons", finish_reasons(value))
  end
  span:set("gen_ai.response.model", text(facts.answer_model))
  span:set("gen_ai.response.time_to_first_chunk", facts.ttft)
  span:set("gen_ai.usage.input_tokens", facts.input_tokens)
  span:set("gen_ai.usage.output_tokens", facts.output_tokens)
end

local function of_contents(span, facts)
  local request, value = facts.request, facts.value
  local given = type(request) == "table" and (request.messages or request.prompt or request.input)
  if given ~= nil then span:set("gen_ai.input.messages", json.encode(given)) end
  if value == nil then return end
  if facts.streamed then return span:set("gen_ai.output.messages", value:so_far()) end
  if type(value) == "table" then span:set("gen_ai.output.messages", json.encode(value.choices or value)) end
end

---Notes what is known of a query or a stream at its end.
---@param span sluice.trace.Span
---@param facts sluice.Observation
---@param provider? string gen_ai.provider.name
---@param contents? boolean also what was asked and answered
function attributes.of_query(span, facts, provider, contents)
  span:set("gen_ai.operation.name", facts.operation)
  span:set("gen_ai.provider.name", provider)
  span:set("gen_ai.request.model", text(facts.model) or facts.endpoint)
  if facts.streamed then span:set("gen_ai.request.stream", true) end
  if type(facts.request) == "table" then of_request(span, facts.request) end
  of_answer(span, facts)
  local address, port = url.authority(facts.host)
  span:set("server.address", address)
  span:set("server.port", port)
  span:set("http.response.status_code", facts.status)
  span:set("sluice.endpoint", facts.endpoint)
  span:set("sluice.request_id", facts.request_id)
  span:set("sluice.upstream_request_id", facts.upstream_request_id)
  span:set("sluice.served_model", facts.served_model)
  span:set("sluice.variant", facts.variant)
  span:set("sluice.attempts", facts.attempts)
  span:set("sluice.cache.result", facts.cache)
  span:set("sluice.answered_by", facts.degraded and facts.answered_by)
  span:set("sluice.limit", facts.limit)
  if facts.outcome == "aborted" then span:set("sluice.aborted", true) end
  if contents then of_contents(span, facts) end
end

return attributes
