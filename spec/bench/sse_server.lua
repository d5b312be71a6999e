-- SPDX-License-Identifier: MIT
-- The server of chat streams in C, sse_server.c.

local process = require "process"
local task = require "sluice.task"

local sse_server = {}

---Starts it on the servers' core; its streams never end.
---@param bench table
---@param interval integer milliseconds between two chunks of a stream
---@return table? server nil without a C compiler
---@return string url, or the reason
function sse_server.start(bench, interval)
  local program = process.compile(bench, "sse_server")
  if not program then return nil, "no C compiler" end
  local log = bench.folder .. "/sse_server.log"
  os.remove(log) -- of a server before this one: its port
  local server = process.serve({ program, interval }, log)
  for _ = 1, 100 do
    local file = io.open(log)
    local port = file and file:read "n"
    if file then file:close() end
    if port then return server, ("http://127.0.0.1:%d/"):format(port) end
    task.sleep(0.02)
  end
  error("sse_server does not start", 0)
end

return sse_server
