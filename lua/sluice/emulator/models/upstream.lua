-- SPDX-License-Identifier: MIT
-- A model that is somebody else's: passes chat, completion and embedding requests on to an OpenAI-compatible server.

local http = require "sluice.http"
local secret = require "sluice.secret"
local wire = require "sluice.emulator.wire"

local upstream = {}

local paths = { chat = "/chat/completions", completion = "/completions", embedding = "/embeddings" }

local longest_excerpt <const> = 500 -- of an upstream's error, in our message

-- What the upstream says when it refuses: its error's text, or the beginning of its body.
local function refusal_text(res)
  local body = res:json()
  local inner = type(body) == "table" and body.error
  if type(inner) == "table" and type(inner.message) == "string" then return inner.message end
  return tostring(res.body):sub(1, longest_excerpt)
end

local codes = { [400] = "BAD_REQUEST", [404] = "RESOURCE_DOES_NOT_EXIST", [429] = "REQUEST_LIMIT_EXCEEDED" }

-- The upstream's credentials are the emulator's, not the caller's: its 401 and 403 must not read as the caller's.
local function refused(res)
  local status = res.status
  if status == 401 or status == 403 then status = 502 end
  local code = codes[status] or (status >= 500 and "TEMPORARILY_UNAVAILABLE" or "BAD_REQUEST")
  local _, refusal = wire.refuse(status, code, "The upstream answered %d: %s", res.status, refusal_text(res))
  refusal.retry_after = tonumber(res.headers["retry-after"])
  return nil, refusal
end

local function request_body(body, context)
  local copy = {}
  for key, value in pairs(body) do copy[key] = value end
  copy.model = context.upstream_model
  return copy
end

local function send(options, body, context)
  local headers = {}
  if options.key then headers.authorization = secret.join("Bearer ", options.key) end
  return http.request {
    method = "POST",
    url = options.url:gsub("/+$", "") .. paths[context.kind],
    headers = headers,
    json = request_body(body, context),
  }
end

---A model that passes requests on.
---@param options table `url` (the base, such as "http://127.0.0.1:8000/v1"), `key` (sluice.secret, sent as bearer token)
---@return table model
function upstream.new(options)
  local model = { name = "upstream", kinds = { chat = true, completion = true, embedding = true } }

  function model.answer(body, context)
    if wire.given(body.stream) then
      return wire.invalid("This emulator does not stream yet: send the request without stream.")
    end
    local res, err = send(options, body, context)
    if not res then
      return wire.refuse(502, "BAD_GATEWAY", "The upstream cannot be reached: %s", tostring(err))
    end
    if res.status ~= 200 then return refused(res) end
    local answer, bad = res:json()
    if not answer then
      return wire.refuse(502, "BAD_GATEWAY", "The upstream's answer is not JSON: %s", tostring(bad))
    end
    return answer
  end

  return model
end

return upstream
