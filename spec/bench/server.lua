-- SPDX-License-Identifier: MIT
-- A JSON echo by our server under wrk, 64 connections, against other servers; and what an idle
-- connection costs. Each server is one process on the servers' core, one at a time at work.

local http = require "sluice.http"
local process = require "process"
local socket = require "sluice.core.socket"
local task = require "sluice.task"

local CONNECTIONS <const> = 64
-- For the figure of idle ones, of which both ends need descriptors only in their own process.
local IDLE <const> = 4000

-- One process; nginx's Lua decodes and encodes with cjson, as everybody does there.
local NGINX_CONFIG <const> = [[
load_module MODULES/ndk_http_module.so;
load_module MODULES/ngx_http_lua_module.so;
daemon off;
master_process off;
pid FOLDER/nginx-lua.pid;
error_log FOLDER/nginx-lua-error.log crit;
events { worker_connections 8192; }
http {
  access_log off;
  keepalive_requests 1000000000;
  keepalive_timeout 600s;
  client_body_temp_path FOLDER/lua-body;
  proxy_temp_path FOLDER/lua-proxy;
  fastcgi_temp_path FOLDER/lua-fastcgi;
  uwsgi_temp_path FOLDER/lua-uwsgi;
  scgi_temp_path FOLDER/lua-scgi;
  init_by_lua_block { cjson = require "cjson" }
  server {
    listen 127.0.0.1:PORT backlog=4096;
    location /echo {
      content_by_lua_block {
        ngx.req.read_body()
        local text = cjson.encode(cjson.decode(ngx.req.get_body_data()))
        ngx.header.content_type = "application/json"
        ngx.header.content_length = #text
        ngx.print(text)
      }
    }
  }
}
]]

local function answers(port)
  for _ = 1, 250 do
    local res = http.request { method = "POST", url = ("http://127.0.0.1:%s/echo"):format(port), json = { 1 },
      timeout = 1 }
    if res and res.status == 200 and res.body:gsub("%s", "") == "[1]" then return true end
    task.sleep(0.02)
  end
  return false
end

-- ---- what a server uses ----

-- User and system time of a process in microseconds. The kernel counts in hundredths of a second.
local function used(pid)
  local file <close> = assert(io.open(("/proc/%d/stat"):format(pid)))
  local fields = {}
  for field in file:read("a"):match("^.*%) (.*)$"):gmatch "%S+" do fields[#fields + 1] = field end
  return (tonumber(fields[12]) + tonumber(fields[13])) * 1e4 -- utime and stime, after the name
end

local function resident(pid)
  local file <close> = assert(io.open(("/proc/%d/statm"):format(pid)))
  return select(2, file:read("n", "n")) * 4096
end

local function load(bench, server)
  local cpu = used(server.pid)
  local words = { "wrk", "-t1", "-c" .. CONNECTIONS, "-d" .. math.ceil(bench.seconds) .. "s",
    "-s", bench.here .. "server_wrk.lua", ("http://127.0.0.1:%s/echo"):format(server.port) }
  local said = process.measure(words)
  if said.failed > 0 then error(("%s: %d requests failed"):format(server.name, said.failed), 0) end
  return {
    rate = said.requests / said.microseconds * 1e6,
    cpu = (used(server.pid) - cpu) / said.requests,
    mb = resident(server.pid) / (1 << 20),
  }
end

local REQUEST <const> = "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
  .. "Content-Length: 3\r\n\r\n[1]"

local function connect_many(server, count)
  local open = {}
  for index = 1, count do
    local connection = assert(socket.connect("127.0.0.1", tonumber(server.port)))
    open[index] = connection
    assert(connection:write(REQUEST))
    assert(assert(connection:read()):find "^HTTP/1.1 200")
  end
  return open
end

local function close_all(connections)
  for _, connection in ipairs(connections) do connection:close() end
end

-- Opens IDLE connections, has a request answered on each, and looks at what the server has grown by.
-- Some go before them, which bring in what is there once.
local function idle(server)
  close_all(connect_many(server, 64))
  local before = resident(server.pid)
  local open = connect_many(server, IDLE)
  task.sleep(0.1)
  local grown = resident(server.pid) - before
  close_all(open)
  return { bytes = math.max(grown, 1) / IDLE }
end

-- ---- the servers ----

local function start(bench, name, words_of)
  local port = process.free_port()
  local file = name:gsub("[^%w]+", "-")
  local server = process.serve(words_of(port), ("%s/%s.log"):format(bench.folder, file))
  server.port, server.name = port, name
  if answers(port) then return server end
  server:stop()
  return nil
end

local MODULES <const> = "/usr/lib/nginx/modules"

local function nginx_lua(bench)
  local program = process.find("nginx", "/usr/sbin/nginx")
  local module = io.open(MODULES .. "/ngx_http_lua_module.so")
  if not program or not module then return nil end
  module:close()
  return function(port)
    local path = bench.folder .. "/nginx-lua.conf"
    local file <close> = assert(io.open(path, "w"))
    local values = { FOLDER = bench.folder, PORT = port, MODULES = MODULES }
    file:write((NGINX_CONFIG:gsub("%u%u%u%u+", values)))
    return { program, "-p", bench.folder, "-c", path }
  end
end

local function node(bench)
  local program = process.find("node", "nodejs")
  return program and function(port) return { program, bench.here .. "server_node.mjs", port } end
end

local function fastapi(bench)
  for _, program in ipairs { process.find "/usr/bin/python3", process.find "python3" } do
    if process.succeeds { program, "-c", "import fastapi, uvicorn" } then
      return function(port) return { program, bench.here .. "server_fastapi.py", port } end
    end
  end
  return nil
end

local function ours(bench)
  return function(port) return { bench.binary, bench.here .. "server_echo.lua", port } end
end

local SERVERS <const> = {
  { "sluice", ours }, { "nginx, content_by_lua", nginx_lua }, { "node http", node }, { "FastAPI", fastapi },
}

local function open_all(bench, contestant)
  for _, name in ipairs { "wrk", "setpriv" } do
    if not process.find(name) then return { { name = "sluice", missing = name .. " is not installed" } } end
  end
  local contestants = {}
  for index, entry in ipairs(SERVERS) do
    local words_of = entry[2](bench)
    contestants[index] = words_of and contestant(entry[1], words_of) or { missing = "not installed" }
    contestants[index].name = entry[1]
  end
  return contestants
end

-- All servers run from the start; one that nobody talks to costs the others nothing.
local function open_for_load(bench)
  local running = {}
  local contestants = open_all(bench, function(name, words_of)
    local server = start(bench, name, words_of)
    if not server then return { missing = "does not answer" } end
    running[#running + 1] = server
    return { run = function() return load(bench, server) end }
  end)
  function contestants.close()
    for _, server in ipairs(running) do server:stop() end
  end
  return contestants
end

-- A new process each time: what an allocator has once got from the kernel it keeps for the next ones.
local function open_for_idle(bench)
  return open_all(bench, function(name, words_of)
    return { run = function()
      local server <close> = assert(start(bench, name, words_of), name .. " does not answer")
      return idle(server)
    end }
  end)
end

local ECHO <const> = ("JSON echo, c = %d"):format(CONNECTIONS)

return {
  {
    name = ECHO,
    open = open_for_load,
    rows = {
      { key = "rate", label = ECHO, unit = "/s", better = "more",
        ratios = { ["nginx, content_by_lua"] = 0.9, ["node http"] = 2, ["FastAPI"] = 5 } },
      { key = "cpu", label = "processor time of each", unit = "us", digits = 1, better = "less" },
      { key = "mb", label = "resident then", unit = "MB", digits = 1, better = "less" },
    },
  },
  {
    name = "an idle connection",
    open = open_for_idle,
    rows = {
      { key = "bytes", label = "an idle connection, answered", unit = "B", better = "less", bar = 1024 },
    },
  },
}
