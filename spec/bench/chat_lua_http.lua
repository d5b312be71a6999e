-- SPDX-License-Identifier: MIT
-- chat_client.lua with lua-http and lua-cjson, in the stock Lua that Debian packages them for: a
-- connection for each request under way, since lua-http keeps no pool.
--
--     lua5.1 chat_lua_http.lua URL CONCURRENCY SECONDS

package.path = arg[0]:match "^(.*/)" .. "?.lua;" .. package.path

local chat = require "chat_body"
local cjson = require "cjson"
local client = require "http.client"
local cqueues = require "cqueues"
local new_headers = require "http.headers".new

local url, concurrency, seconds = arg[1], tonumber(arg[2]), tonumber(arg[3])
local host, port, path = url:match "^http://([%d.]+):(%d+)(/.*)$"
local connections = {}
local count, stop

local function one(connection)
  local body = cjson.encode(chat.request())
  local fields = new_headers()
  fields:append(":method", "POST")
  fields:append(":scheme", "http")
  fields:append(":authority", host .. ":" .. port)
  fields:append(":path", path)
  fields:append("content-type", "application/json")
  fields:append("content-length", tostring(#body))
  local stream = assert(connection:new_stream())
  assert(stream:write_headers(fields, false))
  assert(stream:write_body_from_string(body))
  assert(assert(stream:get_headers()):get ":status" == "200")
  local answer = cjson.decode(assert(stream:get_body_as_string()))
  assert(answer.usage.total_tokens == chat.total_tokens)
  stream:shutdown()
  count = count + 1
end

local function run_for(duration)
  count, stop = 0, cqueues.monotime() + duration
  local loop = cqueues.new()
  for index = 1, concurrency do
    loop:wrap(function()
      local connection = connections[index]
      if not connection then connection = assert(client.connect { host = host, port = port, tls = false }) end
      connections[index] = connection
      while cqueues.monotime() < stop do one(connection) end
    end)
  end
  assert(loop:loop())
end

local function most_resident()
  for line in io.lines "/proc/self/status" do
    local kilobytes = line:match "^VmHWM:%s*(%d+)"
    if kilobytes then return kilobytes / 1024 end
  end
end

run_for(0.2)
local wall, cpu = cqueues.monotime(), os.clock()
run_for(seconds)
wall, cpu = cqueues.monotime() - wall, os.clock() - cpu
print(("rate %.1f\ncpu %.3f\nmb %.2f"):format(count / wall, cpu / count * 1e6, most_resident()))
