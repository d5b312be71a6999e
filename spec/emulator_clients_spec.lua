-- SPDX-License-Identifier: MIT
-- The emulator as clients that others wrote see it: the npm packages @databricks/sdk-experimental and openai, pinned in
-- spec/node/package.json. The scripts in spec/node are their own judges; each prints its steps.

local emulator = require "sluice.emulator"
local log = require "sluice.log"
local node = require "node_client"
local support = require "support"

local describe = support.needing("server", describe, pending)

for package, client in pairs {
  ["@databricks/sdk-experimental"] = { script = "databricks_client.cjs", steps = 12 },
  openai = { script = "openai_client.mjs", steps = 15 },
} do
  describe("the npm package " .. package, function()
    it("believes the emulator, from create to delete", function()
      local why = node.missing(package)
      if why then return pending(why) end
      local emulated = emulator.new { deploy_time = 0.2 }
      local server <close> = assert(emulated:listen "127.0.0.1:0") -- luacheck: ignore
      local previous = log.set_output(function() end)
      local status, text = node.run(client.script, "http://" .. server.address)
      log.set_output(previous)
      assert.equal(0, status, text)
      local _, steps = text:gsub("ok [^\n]+\n", "")
      assert.equal(client.steps, steps, text)
    end)
  end)
end
