-- SPDX-License-Identifier: MIT
-- Clients of npm packages, in spec/node: whether they can be run here, and running one while this process serves it.

local support = require "support"
local task = require "sluice.task"

local node = {}

local FOLDER <const> = "spec/node"
local OLDEST <const> = 20
local PATIENCE <const> = 90 -- seconds; the Databricks client waits a second and more between its looks

local function version()
  local found = support.shell "node -p process.versions.node"
  return tonumber(found.out:match "^(%d+)%.") or 0
end

---Why a client of this package, or one without any, cannot be run here; nil where it can.
---@param package? string
function node.missing(package)
  if version() < OLDEST then return "Node is not there, or older than " .. OLDEST end
  if package and support.shell(("test -d %s/node_modules/%s"):format(FOLDER, package)).status ~= 0 then
    return "the npm package " .. package .. " is not installed (make node-packages)"
  end
  return nil
end

---Runs a script of spec/node to its end while this process serves it.
---@return integer? status nil where it took too long
---@return string text what it printed
function node.run(script, ...)
  local words = table.pack(...)
  for index = 1, words.n do words[index] = support.quote(words[index]) end
  return support.with_file("", function(out)
    return support.with_file("", function(done)
      os.execute(("{ timeout %d node %s/%s %s >%s 2>&1; echo $? >%s; } &"):format(
        PATIENCE, FOLDER, script, table.concat(words, " "), out, done))
      for _ = 1, PATIENCE * 20 do
        local status = support.read_file(done):match "^(%d+)\n"
        if status then return tonumber(status), support.read_file(out) end
        task.sleep(0.05)
      end
      return nil, support.read_file(out)
    end)
  end)
end

return node
