-- SPDX-License-Identifier: MIT
-- chat_client.lua inside nginx: its Lua module's sockets, a light thread for each request under way,
-- lua-cjson. The least that speaks HTTP, without an error but a raise: what such a loop can reach.
-- Runs in LuaJIT; return of the file: run(host, port, path, concurrency, seconds) gives the figures.

-- luacheck: globals ngx

local chat = require "chat_body"
local cjson = require "cjson"

local function read_length(socket)
  local length
  assert(assert(socket:receive "*l"):find "^HTTP/1.1 200")
  while true do
    local line = assert(socket:receive "*l")
    if line == "" then return assert(length) end
    length = tonumber(line:match "^[Cc]ontent%-[Ll]ength:%s*(%d+)") or length
  end
end

local function one(socket, head)
  local body = cjson.encode(chat.request())
  assert(socket:send { head, #body, "\r\n\r\n", body })
  local answer = cjson.decode(assert(socket:receive(read_length(socket))))
  assert(answer.usage.total_tokens == chat.total_tokens)
end

local function most_resident()
  for line in io.lines "/proc/self/status" do
    local kilobytes = line:match "^VmHWM:%s*(%d+)"
    if kilobytes then return kilobytes / 1024 end
  end
end

local function now()
  ngx.update_time()
  return ngx.now()
end

local function run_for(host, port, head, concurrency, duration)
  local count, stop, threads = 0, now() + duration, {}
  for index = 1, concurrency do
    threads[index] = ngx.thread.spawn(function()
      local socket = ngx.socket.tcp()
      assert(socket:connect(host, port))
      while now() < stop do
        one(socket, head)
        count = count + 1
      end
      assert(socket:setkeepalive(60000, concurrency))
    end)
  end
  for _, thread in ipairs(threads) do assert(ngx.thread.wait(thread)) end
  return count
end

return function(host, port, path, concurrency, seconds)
  local head = ("POST %s HTTP/1.1\r\nHost: %s:%d\r\nContent-Type: application/json\r\nContent-Length: ")
    :format(path, host, port)
  run_for(host, port, head, concurrency, 0.2)
  local wall, cpu = now(), os.clock()
  local count = run_for(host, port, head, concurrency, seconds)
  wall, cpu = now() - wall, os.clock() - cpu
  return ("rate %.1f\ncpu %.3f\nmb %.2f\n"):format(count / wall, cpu / count * 1e6, most_resident())
end
