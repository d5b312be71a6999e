-- SPDX-License-Identifier: MIT
-- Our streams through a real nginx that buffers as it does by default.
local support = require "support"
local describe = support.needing("server", describe, pending)

local fixture = require "server_fixture"
local raw = require "raw_http"
local task = require "sluice.task"
local web = require "sluice.web"

local CONFIG <const> = [[
daemon off;
master_process off;
pid FOLDER/nginx.pid;
error_log FOLDER/error.log crit;
events { worker_connections 64; }
http {
  access_log off;
  client_body_temp_path FOLDER/body;
  proxy_temp_path FOLDER/proxy;
  fastcgi_temp_path FOLDER/fastcgi;
  uwsgi_temp_path FOLDER/uwsgi;
  scgi_temp_path FOLDER/scgi;
  server {
    listen 127.0.0.1:PORT;
    location / { proxy_pass http://UPSTREAM; }
    location /1.1/ { proxy_pass http://UPSTREAM/; proxy_http_version 1.1; }
  }
}
]]

local function find_nginx()
  local found = support.shell "command -v nginx || command -v /usr/sbin/nginx"
  return found.status == 0 and found.out:match "%S+" or nil
end

local nginx <const> = find_nginx()

local function free_port()
  local server <close> = fixture.need(web.app():listen "127.0.0.1:0")
  return server.address:match ":(%d+)$"
end

-- Runs f(address of nginx) with an nginx in front of the server.
local function behind_nginx(server, f)
  local folder, port = support.shell("mktemp -d").out:match "%S+", free_port()
  local path = folder .. "/nginx.conf"
  local file <close> = assert(io.open(path, "w"))
  local values = { FOLDER = folder, PORT = port, UPSTREAM = server.address }
  file:write((CONFIG:gsub("%u%u%u%u+", values)))
  file:close()
  local command = "echo $$; exec setpriv --pdeathsig TERM %s -p %s -c %s 2>&1"
  local pipe = io.popen(command:format(nginx, folder, path))
  local pid = pipe:read "n"
  local address = "127.0.0.1:" .. port
  local ok, message = pcall(function()
    assert.is_true(fixture.eventually(function()
      local c <close> = raw.connect(address)
      return c ~= nil
    end))
    f(address)
  end)
  os.execute("kill -TERM " .. pid)
  pipe:close()
  support.shell("rm -rf " .. support.quote(folder))
  if not ok then error(message, 0) end
end

local function gated_app(app, headers)
  local gate = task.channel(1)
  app:get("/gated", function()
    return { headers = headers, stream = function()
      local data = gate:receive()
      return data ~= "end" and { data = data } or nil
    end }
  end)
  return gate
end

-- Whether a text comes within so many seconds.
local function comes(c, text, seconds)
  local got = task.timeout(seconds, function()
    while not c.buffer:find(text, 1, true) do
      if not c:fill() then return false end
    end
    return true
  end)
  return got == true
end

describe("server: behind nginx with default buffering", function()
  if not nginx then
    pending("nginx is not installed", function() end)
    return
  end

  it("a stream still streams, over HTTP/1.0 and 1.1", function()
    fixture.with_server(function(server, _, app)
      local gate = gated_app(app)
      behind_nginx(server, function(address)
        for _, path in ipairs { "/gated", "/1.1/gated" } do
          local c <close> = fixture.need(raw.connect(address))
          c:write(fixture.get(path))
          for _, word in ipairs { "one", "two", "three" } do
            gate:send(word)
            assert.is_true(comes(c, "data: " .. word .. "\n\n", 5))
          end
          gate:send "end" -- or the next word could be this handler's
          assert.is_true(comes(c, "\r\n0\r\n\r\n", 5))
          -- nginx takes this one for itself
          assert.falsy(c.buffer:lower():find("x-accel-buffering", 1, true))
        end
      end)
    end)
  end)

  it("it is X-Accel-Buffering that does it", function()
    fixture.with_server(function(server, _, app)
      local gate = gated_app(app, { ["X-Accel-Buffering"] = "yes" })
      behind_nginx(server, function(address)
        local c <close> = fixture.need(raw.connect(address))
        c:write(fixture.get "/gated")
        gate:send "one"
        assert.is_false(comes(c, "data: one\n\n", 0.3))
      end)
    end)
  end)

  it("a client that leaves is seen through it", function()
    fixture.with_server(function(server, _, app)
      local closed = 0
      app:get("/gated", function()
        local first = true
        return {
          stream = function()
            if not first then task.sleep(30) end
            first = false
            return { data = "one" }
          end,
          close = function() closed = closed + 1 end,
        }
      end)
      behind_nginx(server, function(address)
        local c = fixture.need(raw.connect(address))
        c:write(fixture.get "/gated")
        assert.is_true(comes(c, "data: one\n\n", 5))
        c:close()
        assert.is_true(fixture.eventually(function() return closed == 1 end))
      end)
    end)
  end)
end)
