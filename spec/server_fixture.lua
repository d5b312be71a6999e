-- SPDX-License-Identifier: MIT
-- What the specs of the server share: an app, a server around each spec, requests as bytes.

local assert = require "luassert"
local support = require "support"
local task = require "sluice.task"
local web = require "sluice.web"

local fixture = {}

local HOST = "Host: x\r\n"
fixture.HOST = HOST

-- busted's assert turns an err into text; handlers use this.
function fixture.need(value, err)
  if value == nil then error(err, 0) end
  return value
end

function fixture.new_app(given)
  local app, state = web.app(given), { hits = 0, running = 0, cancelled = 0 }
  app:any("/*", function(request)
    state.hits = state.hits + 1
    return request.method .. " " .. request.path .. " " .. fixture.need(request:text())
  end)
  app:get("/wait", function()
    state.running = state.running + 1
    local ok, err = pcall(task.sleep, 30)
    state.running = state.running - 1
    if not ok then
      state.cancelled, state.reason = state.cancelled + 1, err
      error(err, 0)
    end
    return "waited"
  end)
  return app, state
end

-- Runs f(server, state) on a server of its own, and sees that nothing of it is left.
function fixture.with_server(f, app_options, listen_options)
  local app, state = fixture.new_app(app_options)
  local server <close> = fixture.need(app:listen("127.0.0.1:0", listen_options))
  local ok, message = xpcall(f, debug.traceback, server, state, app)
  server:close()
  assert.same({ 0, 0 }, { server:counts() })
  if not ok then error(message, 0) end
end

function fixture.eventually(check)
  local stop = task.now() + 5
  while not check() do
    if task.now() > stop then return false end
    task.sleep(0.001)
  end
  return true
end

-- Runs f(url, pid) while a script serves as a process of its own, before the workspace at `host_url`, and waits
-- for its end. `words`: the script and its arguments, as a shell reads them; the script prints its URL.
function fixture.with_script(host_url, words, f)
  support.with_file("", function(out)
    support.with_file("", function(errs)
      local command = ("DATABRICKS_HOST=%s DATABRICKS_TOKEN=any exec %s %s"):format(
        host_url, support.binary, words)
      local shell = io.popen(("( %s ) >%s 2>%s & echo $!"):format(command, out, errs))
      local pid = shell:read "n"
      shell:close()
      local url
      local started = fixture.eventually(function()
        url = support.read_file(out):match "^(http://%S+)\n"
        return url ~= nil
      end)
      local ok, message = xpcall(f, debug.traceback, url, pid)
      os.execute(("kill %d 2>/dev/null"):format(pid))
      assert(fixture.eventually(function() return not support.lives(pid) end), "the script does not end")
      assert(started, support.read_file(errs))
      if not ok then error(tostring(message) .. "\n" .. support.read_file(errs), 0) end
    end)
  end)
end

function fixture.pid()
  local file <close> = io.open("/proc/self/stat")
  return file:read("n")
end

-- Bytes of this process that are in memory.
function fixture.resident()
  local file <close> = io.open("/proc/self/statm")
  return select(2, file:read("n", "n")) * 4096
end

-- Without those that only wait for the collector.
function fixture.descriptors()
  collectgarbage()
  collectgarbage()
  local pipe <close> = io.popen("ls /proc/" .. fixture.pid() .. "/fd | wc -l")
  return pipe:read("n")
end

function fixture.post(body, more)
  return "POST /p HTTP/1.1\r\n" .. HOST .. (more or "") .. "Content-Length: " .. #body .. "\r\n\r\n" .. body
end

function fixture.chunked(body, more)
  return "POST /p HTTP/1.1\r\n" .. HOST .. (more or "") .. "Transfer-Encoding: chunked\r\n\r\n" .. body
end

function fixture.get(path, more)
  return "GET " .. path .. " HTTP/1.1\r\n" .. HOST .. (more or "") .. "\r\n"
end

return fixture
