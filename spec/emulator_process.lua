-- SPDX-License-Identifier: MIT
-- An emulator in a process of its own, with an endpoint "e" that echoes, for specs that run a script several times.

local support = require "support"

local fixture = {}

local methods = {}
local metatable = { __index = methods, __close = function(self) self:stop() end }

local CREATE <const> = [[
  assert(assert(require("sluice").workspace()).serving_endpoints:create_and_wait {
    name = "e", config = { served_entities = { { entity_name = "main.demo.echo", entity_version = "1",
      workload_size = "Small", scale_to_zero_enabled = true } } } }) ]]

---The command of a program of ours that uses the emulator, for a shell.
function methods:command(...)
  local words = { "DATABRICKS_HOST=" .. self.host, "DATABRICKS_TOKEN=x", support.quote(support.binary) }
  for _, word in ipairs { ... } do words[#words + 1] = support.quote(word) end
  return table.concat(words, " ")
end

function methods:stop()
  os.execute("kill " .. self.pid)
  self.pipe:close()
end

---Starts one.
function fixture.start()
  local words = "echo $$; exec %s emulate --listen 127.0.0.1:0 --deploy-time 0 2>/dev/null"
  local pipe = assert(io.popen(words:format(support.quote(support.binary))))
  local self = setmetatable({ pipe = pipe, pid = pipe:read "l", host = pipe:read "l" }, metatable)
  local result = support.shell(self:command("-e", CREATE))
  assert(result.status == 0, result.err)
  return self
end

return fixture
