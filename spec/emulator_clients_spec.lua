-- SPDX-License-Identifier: MIT
-- The emulator as clients that others wrote see it: the npm packages @databricks/sdk-experimental and openai, pinned in
-- spec/node/package.json. The scripts in spec/node are their own judges; each prints its steps.

local emulator = require "sluice.emulator"
local log = require "sluice.log"
local support = require "support"
local task = require "sluice.task"

local folder <const> = "spec/node"
local oldest_node <const> = 20
local patience <const> = 90 -- seconds; the Databricks client waits a second and more between its looks

local function node_version()
  local found = support.shell "node -p process.versions.node"
  return tonumber(found.out:match "^(%d+)%.") or 0
end

-- Why a client cannot be run here; nil where it can.
local function missing(package)
  if node_version() < oldest_node then return "Node is not there, or older than " .. oldest_node end
  if support.shell(("test -d %s/node_modules/%s"):format(folder, package)).status ~= 0 then
    return "the npm package " .. package .. " is not installed (make node-packages)"
  end
  return nil
end

-- Runs a script to its end while this process serves it.
local function run(script, url)
  return support.with_file("", function(out)
    return support.with_file("", function(done)
      os.execute(("{ timeout %d node %s/%s %s >%s 2>&1; echo $? >%s; } &"):format(
        patience, folder, script, url, out, done))
      for _ = 1, patience * 20 do
        local status = support.read_file(done):match "^(%d+)\n"
        if status then return tonumber(status), support.read_file(out) end
        task.sleep(0.05)
      end
      return nil, support.read_file(out)
    end)
  end)
end

local describe = support.needing("server", describe, pending)

for package, client in pairs {
  ["@databricks/sdk-experimental"] = { script = "databricks_client.cjs", steps = 12 },
  openai = { script = "openai_client.mjs", steps = 14 },
} do
  describe("the npm package " .. package, function()
    it("believes the emulator, from create to delete", function()
      local why = missing(package)
      if why then return pending(why) end
      local emulated = emulator.new { deploy_time = 0.2 }
      local server <close> = assert(emulated:listen "127.0.0.1:0") -- luacheck: ignore
      local previous = log.set_output(function() end)
      local status, text = run(client.script, "http://" .. server.address)
      log.set_output(previous)
      assert.equal(0, status, text)
      local _, steps = text:gsub("ok [^\n]+\n", "")
      assert.equal(client.steps, steps, text)
    end)
  end)
end
