-- SPDX-License-Identifier: MIT
-- A model that is somebody else's: passes chat, completion and embedding requests on to an OpenAI-compatible server.

local errors = require "sluice.errors"
local json = require "sluice.json"
local secret = require "sluice.secret"
local wire = require "sluice.emulator.wire"

local upstream = {}

local paths = { chat = "/chat/completions", completion = "/completions", embedding = "/embeddings" }

local codes = { [400] = "BAD_REQUEST", [404] = "RESOURCE_DOES_NOT_EXIST", [429] = "REQUEST_LIMIT_EXCEEDED" }

-- The upstream's credentials are the emulator's, not the caller's: its 401 and 403 must not read as the caller's.
-- Neither does a redirect or another success mean anything to the caller.
local function refused(res)
  local err = errors.from_response(res)
  local status = res.status
  if status < 400 or status == 401 or status == 403 then status = 502 end
  local code = codes[status] or (status >= 500 and "TEMPORARILY_UNAVAILABLE" or "BAD_REQUEST")
  local _, refusal = wire.refuse(status, code, "The upstream answered %d: %s", res.status, err.message)
  refusal.retry_after = err.retry_after
  return nil, refusal
end

local function request_body(body, context)
  local copy = {}
  for key, value in pairs(body) do copy[key] = value end
  copy.model = context.upstream_model
  return copy
end

local function send(options, body, context)
  local headers = { ["content-type"] = "application/json" }
  if options.key then headers.authorization = secret.join("Bearer ", options.key) end
  -- The HTTP client is not needed by an emulator without an upstream: it is loaded here.
  local transport = options.transport or require "sluice.http"
  return transport:handle {
    method = "POST",
    url = options.url:gsub("/+$", "") .. paths[context.kind],
    headers = headers,
    body = json.encode(request_body(body, context)),
    stream = wire.given(body.stream) == true or nil,
  }
end

-- A stream goes through as it comes.
local function passed_on(res)
  return {
    status = 200,
    headers = { ["content-type"] = res.headers["content-type"] or "text/event-stream" },
    body = function() return res:read() end,
    close = function() res:close() end,
  }
end

---A model that passes requests on.
---@param options table `url` (the base, such as "http://127.0.0.1:8000/v1"), `key` (sluice.secret, sent as bearer token), `transport` (default the shared HTTP client)
---@return table model
function upstream.new(options)
  local model = { name = "upstream", kinds = { chat = true, completion = true, embedding = true } }

  function model.answer(body, context)
    local res, err = send(options, body, context)
    if not res then
      return wire.refuse(502, "BAD_GATEWAY", "The upstream cannot be reached: %s", tostring(err))
    end
    if res.status ~= 200 then return refused(res) end
    if wire.given(body.stream) == true then return { raw = passed_on(res) } end
    local answer, bad = res:json()
    if not answer then
      return wire.refuse(502, "BAD_GATEWAY", "The upstream's answer is not JSON: %s", tostring(bad))
    end
    return { json = answer }
  end

  return model
end

return upstream
