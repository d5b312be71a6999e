-- SPDX-License-Identifier: MIT
-- Event streams whose events say when they were made, for server_stream.lua: sluice server_streams.lua PORT

local task = require "sluice.task"
local web = require "sluice.web"

local app = web.app()

local function stamp()
  return ("%d"):format(task.now() * 1e6 // 1)
end

app:get("/every/:milliseconds", function(request)
  local seconds, due = tonumber(request.params.milliseconds) / 1000, task.now()
  return { stream = function()
    due = due + seconds
    task.sleep(due - task.now())
    return { data = stamp() }
  end }
end)

assert(app:listen("127.0.0.1:" .. arg[1])):serve()
