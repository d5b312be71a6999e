-- SPDX-License-Identifier: MIT
-- The JSON echo by our server, for server.lua: sluice server_echo.lua PORT

local web = require "sluice.web"

local app = web.app()
app:post("/echo", function(request) return { json = assert(request:json()) } end)
assert(app:listen("127.0.0.1:" .. arg[1])):serve()
