-- SPDX-License-Identifier: MIT
-- The layer that writes each request as a row of the inference log.

local errors = require "sluice.errors"
local json = require "sluice.json"
local memo = require "sluice.memo"
local meta = require "sluice.meta"
local observation = require "sluice.observation"
local options = require "sluice.options"
local secret = require "sluice.secret"
local system = require "sluice.core.system"

local random_float = system.random_float

---@class sluice.CaptureLayerOptions
---@field store? string|sluice.CaptureStore where rows go: a path, see capture.open, or a store; "inference_log.db"
---@field content? boolean prompts and answers too, as `request` and `response`; false: these are NULL
---@field max_content? integer bytes of one prompt or answer; a longer one is NULL, and `logging_error_codes` says so; 1 MiB
---@field share? number of the requests that is kept, from 0 to 1; the rows' `sampling_fraction`; 1
---@field requester? string|fun(request: table, options: table?): string? who calls; may not wait
local CAPTURE <const> = {
  store = "any?", content = "boolean?", max_content = "count?", requester = "name|callable?",
  share = function(value)
    return type(value) == "number" and value > 0 and value <= 1, "a number above 0, and at most 1"
  end,
}

local DEFAULT_PATH <const> = "inference_log.db"

-- As the service: what is longer is not kept.
local MAX_CONTENT <const> = 1 << 20

local ABORTED <const>, SUCCESS <const> = 499, 200

local function store_of(store)
  if store == nil then store = DEFAULT_PATH end
  if type(store) == "string" then
    local opened, err = require("sluice.capture").open(store)
    return opened or error(err, 0)
  end
  local kind = type(store)
  if (kind ~= "table" and kind ~= "userdata") or not store.add then
    options.misuse('layers.capture: option "store" must be a path, or an object with the method add')
  end
  return store
end

-- The JSON of both names, made once.
local metadata_of = memo.new(function(endpoint)
  return memo.new(function(model)
    return json.encode({ endpoint_name = endpoint ~= "" and endpoint or nil,
      model_name = model ~= "" and model or nil }, { canonical = true })
  end)
end)

local function status_of(facts)
  local outcome = facts.outcome
  if outcome == "aborted" then return ABORTED end
  return facts.status or outcome == "success" and SUCCESS or nil
end

local function kind_of(facts)
  if facts.outcome == "success" then return nil end
  return facts.error_kind or facts.outcome == "aborted" and "ClientGone" or "Fault"
end

-- ---- contents ----

local function encoded(value)
  local raw = meta.get(value).raw
  if type(raw) == "string" then return raw end
  local good, text = pcall(json.encode, value)
  return good and text or nil
end

-- Of a stream the answer that it adds up to, as far as it came.
local function answer_of(facts)
  local value = facts.value
  if value == nil then return errors.is(facts.error) and errors.to_table(facts.error) or nil end
  if not facts.streamed then return value end
  if facts.outcome == "success" then return (value:collect()) end
  local message = { role = "assistant", content = value:so_far() }
  return { choices = json.array { { index = 0, message = message } } }
end

local function add_content(row, facts, most)
  local codes = {}
  local answer = answer_of(facts)
  local request, response = encoded(facts.request), answer and encoded(answer)
  if request and #request > most then request, codes[1] = nil, "MAX_REQUEST_SIZE_EXCEEDED" end
  if response and #response > most then response, codes[#codes + 1] = nil, "MAX_RESPONSE_SIZE_EXCEEDED" end
  row.request = request and secret.mask_json(request)
  row.response = response and secret.mask_json(response)
  row.logging_error_codes = codes[1] and json.encode(json.array(codes))
end

---Makes a layer that writes each query and each stream as a row, when it has ended, whatever came of it; see
---docs/ab.md for the columns. Outermost it sees what the caller gets; inside a layers.retry, each try. The
---thread that writes is not waited for.
---@param given? sluice.CaptureLayerOptions
---@return sluice.Layer layer raises an err where the store cannot be opened
local function capture_layer(given)
  given = options.check("layers.capture", given, CAPTURE)
  local share, requester = given.share or 1, given.requester
  local content = given.content and (given.max_content or MAX_CONTENT)
  local store = store_of(given.store)
  local asks_who = requester ~= nil and type(requester) ~= "string"

  local function ended(facts)
    if share < 1 and random_float() >= share then return end
    local ttft, who = facts.ttft, requester
    if asks_who then who = requester(facts.request, facts.options) end
    local request = facts.request
    local row = {
      databricks_request_id = facts.upstream_request_id or facts.request_id,
      client_request_id = type(request) == "table" and request.client_request_id or facts.request_id,
      timestamp_ms = facts.started_at * 1000 // 1 | 0,
      status_code = status_of(facts),
      sampling_fraction = share,
      execution_time_ms = (facts.duration * 1000 + 0.5) // 1 | 0,
      request_metadata = metadata_of[facts.endpoint or ""][facts.answer_model or facts.model or ""],
      served_entity_id = facts.served_model,
      requester = who,
      variant = facts.variant or facts.served_model,
      ttft_ms = ttft and facts.streamed and (ttft * 1e6 + 0.5) // 1 / 1000 or nil,
      input_tokens = facts.input_tokens,
      output_tokens = facts.output_tokens,
      cache_result = facts.cache,
      error_kind = kind_of(facts),
      request = nil, response = nil, logging_error_codes = nil,
    }
    if content then add_content(row, facts, content) end
    store:add(row)
  end

  return observation.layer { ended = ended }
end

return capture_layer
