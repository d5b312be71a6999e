-- SPDX-License-Identifier: MIT
-- A server whose streams say one word and then nothing for as long as they are read, for gateway.lua:
--     sluice gateway_upstream.lua PORT

local task = require "sluice.task"
local web = require "sluice.web"

local app = web.app()
app:any("/*", function()
  local said = false
  return { keep_alive = false, stream = function()
    if said then task.sleep(600) end
    said = true
    return { data = '{"object":"chat.completion.chunk","choices":[{"index":0,"delta":{"content":"So"}}]}' }
  end }
end)
assert(app:listen("127.0.0.1:" .. arg[1])):serve(0)
