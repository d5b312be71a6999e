-- SPDX-License-Identifier: MIT
-- scripts/gradual_rollout.lua killed at each step, before an emulator of this process.

local emulator = require "sluice.emulator"
local fixture = require "server_fixture"
local http = require "sluice.http"
local log = require "sluice.log"
local states = require "sluice.rollout.state"
local support = require "support"
local task = require "sluice.task"

local describe = support.needing("server", support.needing("sqlite", describe, pending), pending)
local it_of_program = support.about_program(it, pending)

describe("scripts/gradual_rollout.lua", function()
  -- Starts the script in a shell of its own; its pid, and a function that waits for its end.
  local function start(url, state, out)
    local own = ("DATABRICKS_HOST=%s DATABRICKS_TOKEN=any DATABRICKS_WAREHOUSE_ID=w"):format(url)
    local script = "scripts/gradual_rollout.lua --seconds 0.4 --state"
    local command = ("%s exec %s %s %s"):format(own, support.binary, script, state)
    local shell = io.popen(("( %s ) >>%s 2>&1 & echo $!"):format(command, out))
    local pid = shell:read "n"
    shell:close()
    return pid
  end

  local function ask(url, method, path, body)
    return fixture.need(http.request {
      url = url .. path, method = method, json = body, headers = { authorization = "Bearer any" },
    })
  end

  local function wait_for(what, check)
    local stop = task.now() + 40
    while not check() do
      assert.is_true(task.now() < stop, what)
      task.sleep(0.02)
    end
  end

  it_of_program("terminated gives the traffic back first", function()
    local previous = log.set_output(function() end)
    local server <close> = fixture.need(fixture.need(emulator.new { deploy_time = 0 }):listen "127.0.0.1:0")
    support.with_file("", function(state)
      support.with_file("", function(out)
        os.remove(state)
        local pid = start(server.url, state, out)
        wait_for("the first step", function()
          local noted = states.read(state)
          return noted and noted.phase == "baking" or not support.lives(pid)
        end)
        os.execute("kill " .. pid)
        wait_for("its end", function() return not support.lives(pid) end)
        assert.equal("rolled_back", states.read(state).phase, support.read_file(out))
        local endpoint = ask(server.url, "GET", "/api/2.0/serving-endpoints/rivers"):json()
        assert.equal(100, endpoint.config.traffic_config.routes[1].traffic_percentage)
        os.remove(state .. ".lock")
      end)
    end)
    log.set_output(previous)
  end)

  it("killed at each step leaves the endpoint serving, and goes on where it was", function()
    local previous = log.set_output(function() end)
    local server <close> = fixture.need(fixture.need(emulator.new { deploy_time = 0 }):listen "127.0.0.1:0")
    support.with_file("", function(state)
      support.with_file("", function(out)
        os.remove(state)
        for step, percent in ipairs { 10, 25, 50, 100 } do
          local pid = start(server.url, state, out)
          wait_for("step " .. step, function()
            local noted = states.read(state)
            return noted and noted.step >= step and noted.phase == "baking" or not support.lives(pid)
          end)
          os.execute("kill -9 " .. pid)
          assert.same({ step, "baking" }, { states.read(state).step, states.read(state).phase })
          local endpoint = ask(server.url, "GET", "/api/2.0/serving-endpoints/rivers"):json()
          assert.equal(percent, endpoint.config.traffic_config.routes[2].traffic_percentage)
          local question = { messages = { { role = "user", content = "still there?" } } }
          assert.equal(200, ask(server.url, "POST", "/serving-endpoints/rivers/invocations", question).status)
        end
        local pid = start(server.url, state, out)
        wait_for("its end", function() return not support.lives(pid) end)
        local told = support.read_file(out)
        assert.equal(1, select(2, told:gsub("step_started at 25 %%", "")), told)
        assert.matches("resumed at 100 %%.*\nmodel%-2 has all of the traffic\n$", told)
        assert.equal("completed", states.read(state).phase)
        os.remove(state .. ".lock")
      end)
    end)
    log.set_output(previous)
  end)
end)
