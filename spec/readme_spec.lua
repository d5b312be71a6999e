-- SPDX-License-Identifier: MIT
-- What the README shows works as it stands, against the emulator.
local describe = require("support").needing("server", describe, pending)
local emulator = require "sluice.emulator"
local http = require "sluice.http"
local settings = require "sluice.settings"
local task = require "sluice.task"

local function blocks_of(path)
  local file <close> = assert(io.open(path, "rb"))
  local blocks = {}
  for block in file:read("a"):gmatch "```lua\n(.-)```" do blocks[#blocks + 1] = block end
  return blocks
end

-- Runs a chunk as a script; gives the lines that it prints, in `lines` as they come.
local function run(chunk, name, lines)
  lines = lines or {}
  local environment = setmetatable({
    print = function(...)
      local words = table.pack(...)
      for index = 1, words.n do words[index] = tostring(words[index]) end
      lines[#lines + 1] = table.concat(words, " ")
    end,
    io = { flush = function() end, write = function(text) lines[#lines + 1] = text end },
  }, { __index = _G })
  assert(load(chunk, "=" .. name, "t", environment))()
  return lines
end

describe("README.md", function()
  local server
  before_each(function()
    local emulated = emulator.new { token = true, deploy_time = 0.05 }
    server = assert(emulated:listen "127.0.0.1:0")
    settings.set { DATABRICKS_HOST = "http://" .. server.address, DATABRICKS_TOKEN = emulated.token }
  end)
  after_each(function()
    server:close()
    settings.set { DATABRICKS_HOST = false, DATABRICKS_TOKEN = false }
  end)

  it("has a script that works, the second time too, and an app that serves it", function()
    local blocks = blocks_of "README.md"
    for _ = 1, 2 do
      local lines = run(blocks[1], "README")
      assert.equal(3, #lines)
      for row, line in ipairs(lines) do assert.matches("^" .. row .. " %u.*%.$", line) end
    end
    local words = run(blocks[2], "README")
    assert.is_true(#words > 5)
    assert.matches("^%u[%a ]+", table.concat(words))
    local lines = {}
    local app = task.spawn(run, (blocks[3]:gsub("127%.0%.0%.1:8080", "127.0.0.1:0")), "README", lines)
    while not lines[1] do task.sleep(0.001) end
    local question = { messages = { { role = "user", content = "What is a lock?" } } }
    local url = lines[1]:match "http://%S+"
    local res = assert(http.request { method = "POST", url = url .. "/query", json = question })
    assert.is_string(res:json().choices[1].message.content)
    res = assert(http.request { method = "POST", url = url .. "/chat", json = question })
    assert.matches("^data: {.*\ndata: %[DONE%]\n\n$", res.body)
    app:cancel "enough"
    assert.is_false((pcall(app.join, app)))
  end)
end)
