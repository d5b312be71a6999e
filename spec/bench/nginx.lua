-- SPDX-License-Identifier: MIT
-- A local nginx that answers each request with the same JSON: one process, its own folder and port.

local http = require "sluice.http"
local process = require "process"
local task = require "sluice.task"
local web = require "sluice.web"

local nginx = {}

-- One process, so that its core is all it has; no log, so that the disk is not measured.
local CONFIG <const> = [[
daemon off;
master_process off;
pid %s/nginx.pid;
error_log %s/error.log crit;
events { worker_connections 8192; }
http {
  access_log off;
  keepalive_requests 1000000000;
  keepalive_timeout 600s;
  client_body_temp_path %s/body;
  proxy_temp_path %s/proxy;
  fastcgi_temp_path %s/fastcgi;
  uwsgi_temp_path %s/uwsgi;
  scgi_temp_path %s/scgi;
  server {
    listen 127.0.0.1:%d backlog=4096;
    location / { default_type application/json; return 200 '%s'; }
  }
}
]]

-- A port that was free a moment ago.
local function free_port()
  local server <close> = assert(web.app():listen "127.0.0.1:0")
  return server.address:match ":(%d+)$"
end

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

---Starts it. Waits until it answers.
---@param bench table
---@param answer string the JSON; without quotes of the shell kind
---@return table server `url`; stop() ends it
function nginx.start(bench, answer)
  local folder, port = bench.folder, free_port()
  local path = folder .. "/nginx.conf"
  local file = assert(io.open(path, "w"))
  -- in nginx's quotes: \ stands before \ and ', and $ begins a variable
  assert(not answer:find "%$")
  file:write(CONFIG:format(folder, folder, folder, folder, folder, folder, folder, port,
    (answer:gsub("[\\']", "\\%0"))))
  file:close()
  local server = process.serve({ process.find("nginx", "/usr/sbin/nginx"), "-p", folder, "-c", path },
    folder .. "/nginx.log")
  server.url = ("http://127.0.0.1:%s/v1/chat/completions"):format(port)
  if not answers(server.url) then
    server:stop()
    error("nginx does not answer: " .. folder .. "/nginx.log", 0)
  end
  return server
end

return nginx
