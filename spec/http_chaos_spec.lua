-- SPDX-License-Identifier: MIT
-- Requests, limits and cancellations at random against a server that fails at random. What is checked
-- is what must always hold: a typed error or an answer, no slot and no descriptor left. SEED=N repeats.
local errors = require "sluice.errors"
local helper = require "http_helper"
local http = require "sluice.http"
local task = require "sluice.task"

local seed = tonumber(os.getenv "SEED") or os.time()
local random = math.random

local function wait_at_most(seconds)
  task.sleep(random() * seconds)
end

-- What a server may do to a connection after its first request.
local mishaps = {
  function(connection) connection:reset() end,
  function() end,
  function() wait_at_most(0.05) end,
  function(connection) connection:write("HTTP/1.1 200 OK\r\nContent-Le") wait_at_most(0.02) end,
  function(connection)
    connection:write("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nabc")
    wait_at_most(0.02)
    connection:reset()
  end,
  function(connection) connection:write("garbage\r\n\r\n") end,
  function(connection)
    connection:write("HTTP/1.1 200 OK\r\n\r\n")
    for _ = 1, 20 do
      if not connection:write(("x"):rep(random(100000))) then return end
    end
  end,
  function(connection)
    connection:write("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabcde\r\n")
    wait_at_most(0.02)
    connection:write("zz\r\n")
  end,
}

local function answer_some(connection)
  repeat
    connection:write(helper.answer(("y"):rep(random(300000))))
    wait_at_most(0.01)
  until random(5) == 1 or not connection:read()
end

local function misbehave(connection)
  if not connection:read() then return end
  local mishap = mishaps[random(#mishaps * 2)] or answer_some
  mishap(connection)
end

local function upload()
  local left = random(10)
  return function()
    if random(20) == 1 then task.sleep(0.005) end
    left = left - 1
    if left >= 0 then return ("z"):rep(random(50000)) end
  end
end

local function any_request(base)
  local given = {
    url = random(10) == 1 and "http://name.test/" or base,
    stream = random(2) == 1,
    method = ({ "GET", "POST", "PUT" })[random(3)],
    max_response = random(4) == 1 and random(100000) or nil,
    timeout = {
      first_byte = random() * 0.05, idle = random() * 0.05, connect = 0.05,
      queue = random() * 0.2, total = random() * 0.3,
    },
  }
  if random(4) == 1 then given.method, given.body = "POST", upload() end
  return given
end

local function use(res)
  local way = random(4)
  if way == 1 then
    res:close()
  elseif way == 2 then
    return res:text()
  elseif way == 3 then
    local _ <close> = res
    res:read()
    wait_at_most(0.02)
    return res:read()
  end -- else it is forgotten
end

local function one(client, base)
  local res, err = client:request(any_request(base))
  if res and res._read then err = select(2, use(res)) end
  assert(err == nil or errors.is(err), err)
end

local function run(client, base)
  for _ = 1, 10 do
    local request = task.spawn(pcall, one, client, base)
    if random(3) == 1 then
      wait_at_most(0.03)
      request:cancel("chaos")
    end
    local ok, good, err = pcall(request.join, request)
    local raised = not ok and good or not good and err
    assert(not raised or raised.kind == "TaskCancelled", raised)
  end
end

describe("sluice.http under failures and cancellations at random", function()
  it("leaves nothing behind, seed " .. seed, function()
    math.randomseed(seed)
    local before = helper.descriptors()
    local server = helper.serve(misbehave)
    local client = http.client {
      max_connections = 40, max_per_host = 30, dns_servers = "127.0.0.1:1", dns_over_tcp = true,
    }
    task.scope(function()
      for _ = 1, 60 do task.spawn(run, client, server.base) end
    end)
    helper.wait_until(function()
      collectgarbage()
      return client:stats().active == 0
    end)
    assert.are.equal(0, client:stats().waiting)
    client:close()
    helper.stop()
    helper.check_descriptors(before)
  end)
end)
