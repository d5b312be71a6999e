-- SPDX-License-Identifier: MIT
-- A local nginx that answers each request with the same JSON, and one that sends such requests by its
-- Lua module: a process each, with a configuration and a port of its own.

local http = require "sluice.http"
local process = require "process"
local task = require "sluice.task"

local nginx = {}

-- One process, so that its core is all it has; no log, so that the disk is not measured.
local CONFIG <const> = [[
MODULES
daemon off;
master_process off;
pid FOLDER/NAME.pid;
error_log FOLDER/NAME-error.log crit;
events { worker_connections 8192; }
http {
  access_log off;
  keepalive_requests 1000000000;
  keepalive_timeout 600s;
  client_body_temp_path FOLDER/NAME-body;
  proxy_temp_path FOLDER/NAME-proxy;
  fastcgi_temp_path FOLDER/NAME-fastcgi;
  uwsgi_temp_path FOLDER/NAME-uwsgi;
  scgi_temp_path FOLDER/NAME-scgi;
  SETTINGS
  server {
    listen 127.0.0.1:PORT backlog=4096;
    LOCATION
  }
}
]]

local CLIENT_SETTINGS <const> = [[
  lua_package_path "HERE?.lua;;";
  lua_socket_log_errors off;
]]

local CLIENT_LOCATION <const> = [[
    location = /ready { return 200; }
    location = /run {
      content_by_lua_block {
        local given = ngx.req.get_uri_args()
        local run = require "chat_nginx"
        local concurrency, seconds = tonumber(given.concurrency), tonumber(given.seconds)
        ngx.print(run(given.host, given.port, given.path, concurrency, seconds))
      }
    }
]]

local FOLDER_OF_MODULES <const> = "/usr/lib/nginx/modules/"

local function answers(url)
  for _ = 1, 100 do
    local res = http.request { url = url, timeout = 1 }
    if res and res.status == 200 then return true end
    task.sleep(0.02)
  end
  return false
end

---Whether it can run here: nil, or why not.
function nginx.missing()
  if not process.find("nginx", "/usr/sbin/nginx") then return "nginx is not installed" end
  if not process.find "setpriv" then return "setpriv is not installed" end
  return nil
end

-- Writes a configuration, and gives the command of it. `values` are the words of CONFIG in capitals.
local function configure(bench, port, values)
  values.FOLDER, values.PORT = bench.folder, port
  local path = ("%s/%s.conf"):format(bench.folder, values.NAME)
  local file <close> = assert(io.open(path, "w"))
  file:write((CONFIG:gsub("%u%u%u%u+", values)))
  return { process.find("nginx", "/usr/sbin/nginx"), "-p", bench.folder, "-c", path }
end

-- Starts one.
local function start(bench, core, probe, values)
  local port = process.free_port()
  local words = configure(bench, port, values)
  local log = ("%s/%s.log"):format(bench.folder, values.NAME)
  local server = process.serve(words, log, core)
  server.port = port
  if answers(("http://127.0.0.1:%s%s"):format(port, probe)) then return server end
  server:stop()
  error("nginx does not answer: " .. log, 0)
end

---Starts one that answers every request alike. Waits until it does.
---@param bench table
---@param answer string the JSON
---@param core? integer the servers'
---@return table server `url`; stop() ends it
function nginx.start(bench, answer, core)
  -- in nginx's quotes: \ stands before \ and ', and $ begins a variable
  assert(not answer:find "%$")
  local quoted = answer:gsub("[\\']", "\\%0")
  local server = start(bench, core or process.server_core, "/", {
    NAME = "answers", MODULES = "", SETTINGS = "",
    LOCATION = ("location / { default_type application/json; return 200 '%s'; }"):format(quoted),
  })
  server.url = ("http://127.0.0.1:%s/v1/chat/completions"):format(server.port)
  return server
end

---The command of one that passes all on to an upstream, over connections that it keeps.
---@param bench table
---@param port string its own
---@param upstream string the base URL
---@return string[]
function nginx.gateway(bench, port, upstream)
  local host, path = upstream:match "^http://([^/]+)(/.*)$"
  return configure(bench, port, {
    NAME = "passes", MODULES = "", SETTINGS = ("upstream behind { server %s; keepalive 128; }"):format(host),
    LOCATION = ([[location /v1/ {
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_buffering off;
      proxy_pass http://behind%s/;
    }]]):format(path),
  })
end

---A contestant of chat.lua: nginx's own Lua and sockets as the client. Waits until it is up.
---@param bench table
---@param name string
---@param url string
---@param concurrency integer
---@return table contestant with `stop`, where it runs
function nginx.client(bench, name, url, concurrency)
  local module = io.open(FOLDER_OF_MODULES .. "ngx_http_lua_module.so")
  if not module then return { name = name, missing = "not installed" } end
  module:close()
  local client = start(bench, process.client_core, "/ready", {
    NAME = "asks", SETTINGS = CLIENT_SETTINGS:gsub("HERE", bench.here), LOCATION = CLIENT_LOCATION,
    MODULES = ("load_module %sndk_http_module.so;\nload_module %sngx_http_lua_module.so;"):format(
      FOLDER_OF_MODULES, FOLDER_OF_MODULES),
  })
  local host, port, path = url:match "^http://([%d.]+):(%d+)(/.*)$"
  local asked = {
    url = ("http://127.0.0.1:%s/run"):format(client.port), timeout = 120,
    query = { host = host, port = port, path = path, concurrency = concurrency, seconds = bench.seconds },
  }
  return {
    name = name,
    stop = function() client:stop() end,
    run = function()
      local res = assert(http.request(asked))
      if res.status ~= 200 then error(name .. ": " .. res.body, 0) end
      return process.figures(res.body)
    end,
  }
end

return nginx
