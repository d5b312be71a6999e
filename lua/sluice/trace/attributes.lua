-- SPDX-License-Identifier: MIT
-- Attributes of spans, by OpenTelemetry's semantic conventions: those of generative AI (v1.42, in development) and of HTTP.

local json = require "sluice.json"
local memo = require "sluice.memo"
local url = require "sluice.trace.url"

local math_type = math.type

local attributes = {}

local parts_of = memo.new(function(authority) return table.pack(url.authority(authority)) end)

local function finish_reasons(value)
  local choices, reasons = value.choices, nil
  if type(choices) ~= "table" then return nil end
  for _, choice in ipairs(choices) do
    local reason = type(choice) == "table" and choice.finish_reason
    if type(reason) == "string" then
      if not reasons then reasons = { reason } else reasons[#reasons + 1] = reason end
    end
  end
  return reasons
end

local function text(value)
  return type(value) == "string" and value or nil
end

-- Of a request, what stands in its span.
local REQUESTED <const> = {
  max_tokens = "gen_ai.request.max_tokens", max_completion_tokens = "gen_ai.request.max_tokens",
  temperature = "gen_ai.request.temperature", top_p = "gen_ai.request.top_p", top_k = "gen_ai.request.top_k",
  seed = "gen_ai.request.seed", frequency_penalty = "gen_ai.request.frequency_penalty",
  presence_penalty = "gen_ai.request.presence_penalty", n = "gen_ai.request.choice.count",
}

local function add_request(all, request)
  local count = all.n
  for field, value in next, request do
    local name = REQUESTED[field]
    if name and math_type(value) and not (field == "n" and value == 1) then
      all[count + 1], all[count + 2] = name, value
      count = count + 2
    end
  end
  all.n = count
end

-- In one piece: an array that grows costs more than all else here.
local function of_facts(facts, value, provider, host)
  return {
    "gen_ai.operation.name", facts.operation, "gen_ai.provider.name", provider,
    "gen_ai.request.model", text(facts.model) or facts.endpoint,
    "gen_ai.request.stream", facts.streamed or nil,
    "gen_ai.response.id", value and text(value.id), "gen_ai.response.model", text(facts.answer_model),
    "gen_ai.response.finish_reasons", value and finish_reasons(value),
    "gen_ai.response.time_to_first_chunk", facts.ttft,
    "gen_ai.usage.input_tokens", facts.input_tokens, "gen_ai.usage.output_tokens", facts.output_tokens,
    "server.address", host[1], "server.port", host[2], "http.response.status_code", facts.status,
    "sluice.endpoint", facts.endpoint, "sluice.request_id", facts.request_id,
    "sluice.upstream_request_id", facts.upstream_request_id, "sluice.served_model", facts.served_model,
    "sluice.variant", facts.variant, "sluice.attempts", facts.attempts, "sluice.cache.result", facts.cache,
    "sluice.answered_by", facts.degraded and facts.answered_by or nil, "sluice.limit", facts.limit,
    "sluice.aborted", facts.outcome == "aborted" or nil,
    n = 46,
  }
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
  local request, value = facts.request, facts.value
  if facts.streamed or type(value) ~= "table" then value = nil end
  local all = of_facts(facts, value, provider, parts_of[facts.host])
  if type(request) == "table" then add_request(all, request) end
  span.attributes = all
  if contents then of_contents(span, facts) end
end

return attributes
