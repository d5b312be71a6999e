-- SPDX-License-Identifier: MIT
-- Which keys a request may have beside its content. Foundation models (of `system.ai`) refuse what they do not know,
-- as the service's do; other models take it.

local wire = require "sluice.emulator.wire"

local keys = {}

local function set(words)
  local members = {}
  for word in words:gmatch "%S+" do members[word] = true end
  return members
end

local text_keys <const> = [[ model max_tokens max_completion_tokens temperature top_p top_k n stop stream
  stream_options seed logprobs top_logprobs logit_bias presence_penalty frequency_penalty user metadata store
  extra_params client_request_id usage_context ignore_eos service_tier ]]

local known = {
  chat = set(text_keys .. [[messages tools tool_choice parallel_tool_calls response_format reasoning_effort
    thinking]]),
  completion = set(text_keys .. "prompt suffix echo best_of"),
  embedding = set [[model input encoding_format dimensions user instruction extra_params client_request_id
    usage_context]],
}

---Refuses a key that a foundation model does not know.
---@param entity table the served entity
---@param kind string
---@param body table
---@return true|nil
---@return sluice.emulator.refusal|nil
function keys.check(entity, kind, body)
  if not entity.foundation_model or not known[kind] then return true end
  local unknown
  for key in pairs(body) do
    if not known[kind][key] and (not unknown or key < unknown) then unknown = key end
  end
  if not unknown then return true end
  return wire.bad_request('Bad request: json: unknown field "%s"', unknown)
end

return keys
