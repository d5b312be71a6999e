-- SPDX-License-Identifier: MIT
-- How soon the upstream of a request sees that our client has left. Prints the 99th percentile of 500, in
-- milliseconds, of streams and of plain answers.

local http = require "sluice.http"
local socket = require "sluice.core.socket"
local task = require "sluice.task"
local web = require "sluice.web"

local COUNT <const> = 500

-- An upstream that answers so much and never ends; `gone` is told when its client is.
local function upstream(answer, gone)
  local listener = assert(socket.listen("127.0.0.1", 0))
  task.spawn(function()
    for connection in function() return listener:accept() end do
      task.spawn(function()
        connection:read()
        if answer ~= "" then connection:write(answer) end
        while connection:read() do task.sleep(0) end
        connection:close()
        gone:send(task.now())
      end)
    end
  end)
  return "http://127.0.0.1:" .. listener.port
end

local HEAD <const> = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
local EVENT <const> = "9\r\ndata: x\n\n\r\n"

local function measure(address, path, gone)
  local late = {}
  for index = 1, COUNT do
    local client = assert(socket.connect(address:match "^(.*):", tonumber(address:match ":(%d+)$")))
    client:write(("GET %s HTTP/1.1\r\nHost: x\r\n\r\n"):format(path))
    if path == "/stream" then client:read() end
    task.sleep(0.004)
    local start = task.now()
    if index % 2 == 0 then client:reset() else client:close() end
    late[index] = (gone:receive() - start) * 1000
  end
  table.sort(late)
  return late[math.ceil(COUNT * 0.99)]
end

local gone = task.channel(1)
local streaming, silent = upstream(HEAD .. EVENT, gone), upstream("", gone)
local app = web.app()
app:get("/stream", function()
  local res = assert(http.request { url = streaming, stream = true })
  return { stream = res:events(), close = function() res:close() end }
end)
app:get("/plain", function() return assert(http.request { url = silent }) end)
local server <close> = assert(app:listen "127.0.0.1:0")

print(("stream %.3f"):format(measure(server.address, "/stream", gone)))
print(("plain %.3f"):format(measure(server.address, "/plain", gone)))
os.exit(0)
