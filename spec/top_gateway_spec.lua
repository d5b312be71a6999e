-- SPDX-License-Identifier: MIT
-- The metrics of scripts/gateway.lua, and sluice top on a terminal before it: tmux shows what it draws.

local fixture = require "server_fixture"
local http = require "sluice.http"
local support = require "support"
local it_of_program = support.about_program(it, pending)
local task = require "sluice.task"
local web = require "sluice.web"

local has_tmux = os.execute "command -v tmux >/dev/null"

local PATIENCE <const>, POLL <const> = 8, 0.05 -- seconds

local socket = "sluice-top" .. fixture.pid()

local function tmux(format, ...)
  local command = ("tmux -L %s -f /dev/null %s 2>&1"):format(socket, format:format(...))
  local pipe <close> = assert(io.popen(command))
  return pipe:read "a"
end

local function screen(more)
  return (tmux("capture-pane -p %s", more or ""):gsub("[ ]+\n", "\n"):gsub("%s+$", ""))
end

-- Waits until the screen has this pattern; gives the screen.
local function wait_for(pattern)
  local shown
  for _ = 1, PATIENCE / POLL do
    shown = screen()
    if shown:find(pattern) then return shown end
    task.sleep(POLL)
  end
  error(("%q is not on the screen:\n%s"):format(pattern, shown), 2)
end

local function start(words, environment, columns)
  local command = ("env %s %s top %s; echo status $?; sleep 60"):format(environment or "LANG=C.UTF-8",
    support.quote(support.binary), words)
  tmux("new-session -d -x %d -y 20 %s", columns or 120, support.quote("echo before; " .. command))
end

-- Runs f(url, pid, app state) with a gateway to an upstream of ours.
local function with_gateway(words, f)
  local app, upstream = web.app(), { waits = 0, fails = false }
  app:post("/serving-endpoints/:name/invocations", function()
    task.sleep(upstream.waits)
    if upstream.fails then return { status = 400, json = { error_code = "BAD_REQUEST", message = "no" } } end
    return { json = { model = "m-1", usage = { prompt_tokens = 3, completion_tokens = 50, total_tokens = 53 },
      choices = { { message = { role = "assistant", content = "x" } } } } }
  end)
  local server <close> = fixture.need(app:listen "127.0.0.1:0")
  fixture.with_script("http://" .. server.address, "scripts/gateway.lua --listen 127.0.0.1:0 " .. words,
    function(url, pid)
      local ok, message = xpcall(f, debug.traceback, url, pid, upstream)
      if not ok then error("\n" .. screen() .. "\n" .. tostring(message), 0) end
    end)
end

local function ask(url, headers)
  return http.request { method = "POST", url = url .. "/chat/completions", headers = headers,
    json = { model = "m", messages = { { role = "user", content = "?" } } } }
end

local describe_here = has_tmux and support.needing("server", describe, pending) or function(name)
  pending(name .. ": no tmux here", function() end)
end

support.needing("server", describe, pending)("the metrics of a gateway", function()
  it("tell of requests, and please promtool", function()
    with_gateway("m=some,other", function(url, _, upstream)
      assert.equal(200, ask(url).status)
      upstream.fails = true
      assert.equal(400, ask(url).status)
      local answer = http.request { url = url:gsub("/v1$", "/metrics") }
      assert.equal("text/plain; version=0.0.4; charset=utf-8", answer.headers["content-type"])
      for _, series in ipairs {
        'sluice_requests_total{endpoint="some",outcome="success"} 1',
        'sluice_requests_total{endpoint="some",outcome="error"} 1',
        'sluice_active_requests{endpoint="some"} 0', 'sluice_active_requests{endpoint="other"} 0',
        'sluice_breakers{endpoint="some",state="closed"} 1', "http_server_active_requests 1",
        'gen_ai_request_model="some",gen_ai_response_model="m-1",le="+Inf"} 1',
        'error_type="BadRequest",le="+Inf"} 1',
        'gen_ai_client_token_usage_sum{gen_ai_operation_name="chat",gen_ai_provider_name="databricks",',
      } do
        assert.matches(series, answer.body, 1, true)
      end
      assert.equal(404, http.request({ url = url:gsub("/v1$", "/debug/tasks") }).status) -- nobody asked for it
      if not os.execute "command -v promtool >/dev/null" then return end
      support.with_file(answer.body, function(path)
        local said = support.shell("promtool check metrics <" .. path)
        assert.same({ "", "", 0 }, { said.out, said.err, said.status })
      end)
    end)
  end)

  it("take no caller who leaves for an error", function()
    with_gateway("m=some", function(url, _, upstream)
      upstream.waits = 30
      assert.is_nil(task.timeout(0.2, ask, url))
      local page
      assert.is_true(fixture.eventually(function()
        page = http.request({ url = url:gsub("/v1$", "/metrics") }).body
        return page:find('outcome="aborted"} 1', 1, true)
      end))
      assert.is_nil(page:find('outcome="error"', 1, true))
      assert.is_nil(page:find("duration_seconds_count", 1, true))
    end)
  end)
end)

describe_here("sluice top on a terminal", function()
  after_each(function() tmux "kill-server" end)

  it_of_program("shows a gateway at work, again and again, and leaves the screen as it was", function()
    with_gateway("--debug m=some", function(url, pid, upstream)
      for _ = 1, 20 do assert.equal(200, ask(url).status) end
      start("--interval 0.2 " .. url)
      local shown = wait_for "\nsome +%d"
      assert.matches("^sluice top   http://[%d.:]+/metrics   since its start", shown)
      assert.matches("up 0:00:%d%d   cpu %d+%%   memory %d+%.%d MB   tasks %d", shown)
      assert.is_nil(shown:find("before", 1, true))
      upstream.fails, upstream.waits = true, 0.05
      local load <close> = task.group() -- luacheck: ignore
      load:spawn(function()
        while true do ask(url) end
      end)
      shown = wait_for "errors +%S+ [%d.]+/s"
      assert.matches("\nsome +%S+ +%S+ +%d+%.?%d*ms", shown) -- the median of what came since
      assert.matches("waiting for\n", shown)
      assert.matches("  in %d+ms", shown)
      load:close()
      os.execute("kill -TERM " .. pid)
      wait_for "connect"
      tmux "send-keys C-c"
      shown = wait_for "status %d+$"
      assert.matches("^before\nstatus 130$", shown)
    end)
  end)

  it("follows the size of the screen, and knows colors where they are wanted", function()
    with_gateway("m=some", function(url)
      ask(url)
      start("--interval 60 " .. url)
      assert.matches("breaker", wait_for "\nsome +%d")
      assert.matches("\27%[1m", screen "-e")
      assert.matches("there is no /debug/tasks for us", screen())
      tmux "resize-window -x 50 -y 20"
      wait_for "active\n" -- the columns behind it do not fit any more
      tmux "resize-window -x 50 -y 4"
      wait_for "^sluice top[^\n]*\n[^\n]*\n\n[^\n]*$"
      tmux "kill-server"
      task.sleep(0.2)
      start("--interval 60 " .. url, "NO_COLOR=1")
      wait_for "\nsome +%d"
      assert.is_nil(screen("-e"):find "\27%[%d*m")
      tmux "kill-server"
      task.sleep(0.2)
      start("--interval 60 " .. url, "TERM=dumb")
      assert.matches("^before\nsluice top", wait_for "\nsome +%d") -- a text
    end)
  end)

  it("brings its key where one is needed", function()
    support.with_file("ops sk-top-0123456789\n", function(keys)
      with_gateway("--keys " .. keys .. " m=some", function(url)
        ask(url, { authorization = "Bearer sk-top-0123456789" })
        local bare = support.sluice("top", "--once", "--interval=0", url)
        assert.equal(1, bare.status)
        assert.matches("it answers with 401", bare.err)
        start("--interval 60 " .. url, "SLUICE_TOP_KEY=sk-top-0123456789")
        wait_for "\nsome +%d"
      end)
    end)
  end)
end)
