-- SPDX-License-Identifier: MIT
-- What an open event stream adds to this process, beside the task that every request has. Prints bytes.

local socket = require "sluice.core.socket"
local task = require "sluice.task"
local web = require "sluice.web"

local COUNT <const> = 2000

local function resident()
  for _ = 1, 3 do collectgarbage() end
  local file <close> = assert(io.open "/proc/self/statm")
  return select(2, file:read("n", "n")) * 4096
end

local function grown(open)
  local before = resident()
  local close <close> = setmetatable({}, { __close = open() }) -- luacheck: ignore
  task.sleep(1.2)
  return (resident() - before) / COUNT
end

local app = web.app()
app:get("/", function()
  return { stream = function()
    task.sleep(0.5)
    return { data = "x" }
  end }
end)
local server <close> = assert(app:listen "127.0.0.1:0")

-- Connected before: what a connection costs without a request is another figure.
local clients = {}
local port <const> = tonumber(server.address:match ":(%d+)$")
for index = 1, COUNT do clients[index] = assert(socket.connect("127.0.0.1", port)) end
task.sleep(0.2)

local stream = grown(function()
  for _, client in ipairs(clients) do client:write "GET / HTTP/1.1\r\nHost: x\r\n\r\n" end
  return function() for _, client in ipairs(clients) do client:reset() end end
end)

local a_task = grown(function()
  local group = task.group()
  for _ = 1, COUNT do
    group:spawn(function()
      while true do task.sleep(0.5) end
    end)
  end
  return function() group:close() end
end)

print(("bytes %.0f"):format(stream - a_task))
