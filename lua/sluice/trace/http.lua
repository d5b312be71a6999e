-- SPDX-License-Identifier: MIT
-- The span of a request over the wire, and the header fields that go with it.

local spans = require "sluice.trace.span"
local url = require "sluice.trace.url"

local traced = {}

-- A program asks few servers; those are remembered. URLs with queries are many: then all are forgotten.
local MOST <const> = 100
local known, count = {}, 0

local function parts_of(target)
  local parts = known[target]
  if parts then return parts end
  if count == MOST then known, count = {}, 0 end
  parts = { url.parts(target) }
  known[target], count = parts, count + 1
  return parts
end

local function open(method, target)
  local span = spans.leaf(method, spans.CLIENT)
  if not span then return nil end
  local parts = parts_of(target)
  span.attributes = {
    "http.request.method", method, "url.full", parts[1], "server.address", parts[2], "server.port", parts[3],
    "http.response.status_code", nil, "error.type", nil, n = 8,
  }
  return span
end

local function close(span, res, err)
  if res then
    span.response = res
    span:set("http.response.status_code", res.status)
    span:finish(res.status >= 400 and tostring(res.status) or nil)
  else
    span.err = err or nil
    span:finish(spans.kind_of(err))
  end
end

---Makes a request as `exchange` does, within a span where the running task works for one, and with the fields that
---tell the server of it; those that the caller has set stay. Waits.
---@param exchange fun(client: table, method: string, url: string, flat: string[], ...): any, any
---@param client table
---@param method string
---@param target string
---@param flat string[] name, value, name, value, ...
---@param ... any for exchange
---@return any response
---@return any err
function traced.exchange(exchange, client, method, target, flat, ...)
  local active = spans.active()
  if not active then return exchange(client, method, target, flat, ...) end
  local span <close> = open(method, target)
  flat = spans.carry(flat, span or active)
  if not span then return exchange(client, method, target, flat, ...) end
  local res, err = exchange(client, method, target, flat, ...)
  close(span, res, err)
  return res, err
end

return traced
