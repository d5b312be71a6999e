-- SPDX-License-Identifier: MIT
-- The span of a request over the wire, and the header fields that go with it.

local contexts = require "sluice.trace.context"
local spans = require "sluice.trace.span"
local url = require "sluice.trace.url"

local traced = {}

local function has_traceparent(flat)
  for index = 1, #flat, 2 do
    if #flat[index] == 11 and flat[index]:lower() == "traceparent" then return true end
  end
  return false
end

local function with_context(flat, active)
  local count, copy = #flat, table.move(flat, 1, #flat, 1, {})
  copy[count + 1], copy[count + 2] = "traceparent", contexts.header(active)
  if active.state then copy[count + 3], copy[count + 4] = "tracestate", active.state end
  return copy
end

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
  local span <close> = open(method, target) -- luacheck: ignore
  if not has_traceparent(flat) then flat = with_context(flat, span or active) end
  local res, err = exchange(client, method, target, flat, ...)
  if span then close(span, res, err) end
  return res, err
end

return traced
