-- SPDX-License-Identifier: MIT
-- Connections in their thousands that say nothing: what they cost, and how they end.
local describe = require("support").needing("server", describe, pending)

local fixture = require "server_fixture"
local support = require "support"
local task = require "sluice.task"
local web = require "sluice.web"

local WANTED <const> = 10000
local SLOW <const> = os.getenv "SLUICE_SLOW" ~= nil

-- For whom to connect in, and to be told nothing: longer than it takes to connect, even when busy.
local HEAD_TIME <const> = SLOW and 20 or 3

-- A process of its own, for its descriptors are counted by themselves. After its arguments it says how
-- many have connected, and how many the server has ended in order and without a byte.
local CLIENT <const> = [[
local port, count = arg[1], tonumber(arg[2])
local raw, task = require "sluice.core.socket", require "sluice.task"
local ended, sockets = 0, {}
for index = 1, count do sockets[index] = assert(raw.connect("127.0.0.1", tonumber(port))) end
print("connected", #sockets)
io.stdout:flush()
task.map(sockets, function(socket)
  local bytes, message = socket:read()
  if bytes == nil and message == nil then ended = ended + 1 end
  socket:close()
end, { concurrency = count })
print("ended", ended)
]]

local function descriptors_allowed()
  for line in io.lines("/proc/self/limits") do
    local hard = line:match("^Max open files%s+%S+%s+(%S+)")
    if hard then return hard == "unlimited" and math.huge or tonumber(hard) end
  end
  return 0
end

local function resident()
  local file <close> = io.open("/proc/self/statm")
  return select(2, file:read("n", "n")) * 4096
end

-- Kilobytes. What has a finalizer goes in the second collection.
local function live_heap()
  collectgarbage()
  collectgarbage()
  return collectgarbage "count"
end

local function start(script, port, count)
  local log = os.tmpname()
  os.execute(("%s %s %s %d >%s 2>&1 &"):format(
    support.quote(support.binary), support.quote(script), port, count, log))
  return {
    said = function(word)
      return tonumber(support.read_file(log):match(word .. "%s+(%d+)"))
    end,
    log = log,
  }
end

local function wait_for(client, word)
  local stop = task.now() + (SLOW and 60 or 20)
  while not client.said(word) do
    assert.is_true(task.now() < stop, "the client does not get on: " .. support.read_file(client.log))
    task.sleep(0.01)
  end
  return client.said(word)
end

describe("server: connections that say nothing", function()
  it("cost little, end in order, and leave nothing", function()
    local count = math.min(WANTED, descriptors_allowed() - 256)
    if count < WANTED then
      print(("server_many_spec: %d connections instead of %d, for want of descriptors"):format(count, WANTED))
    end
    local app = web.app()
    local before = fixture.descriptors()
    local server = fixture.need(app:listen("127.0.0.1:0", { timeout = { head = HEAD_TIME } }))
    local heap, memory = live_heap(), resident()
    support.with_file(CLIENT, function(script)
      local client = start(script, server.address:match(":(%d+)$"), count)
      assert.equal(count, wait_for(client, "connected"))
      local most, peak = 0, 0
      local stop = task.now() + HEAD_TIME + 20
      repeat
        most, peak = math.max(most, (server:counts())), math.max(peak, resident())
        task.sleep(0.005)
        assert.is_true(task.now() < stop)
      until client.said("ended")
      assert.equal(count, client.said("ended"))
      assert.equal(count, most)
      -- No Lua object, and less than a kilobyte of C each.
      local grown = live_heap() - heap
      assert.is_true(grown < 256, grown)
      if not SLOW then assert.is_true((peak - memory) / count < 1024, (peak - memory) / count) end
      os.remove(client.log)
    end)
    assert.is_true(fixture.eventually(function() return server:counts() == 0 end))
    server:close()
    assert.equal(before, fixture.descriptors())
  end)
end)
