-- SPDX-License-Identifier: MIT
-- A batch that processes share by way of a real Redis, while feeder, workers, collector and Redis are killed.
local describe = require("support").needing("redis", describe, pending)

local fixture = require "redis_server"
local json = require "sluice.json"
local sluice = require "sluice"
local support = require "support"
local task = require "sluice.task"

-- What each process does; workers say in a file what they ask. A row with `deadly` ends who asks it.
local CHILD <const> = [[
local sluice = require "sluice"
local url, role, folder, order, consumer = arg[1], arg[2], arg[3], arg[4], arg[5]
local client = sluice.redis.connect { url = url }
local shared = sluice.redis.stream {
  client = client, name = "spec", idle = 0.4, ahead = 300, consumer = consumer,
  max_deliveries = tonumber(arg[6]),
}
if role == "feed" then
  assert(shared:feed { input = folder .. "in" })
elseif role == "collect" then
  print(sluice.json.encode(assert(shared:collect { output = folder .. "out", order = order })))
else
  local log = assert(io.open(folder .. "log", "ab"))
  log:setvbuf "no"
  local endpoint = {}
  function endpoint:query(request)
    log:write("asked " .. request.n .. "\n")
    if request.deadly then os.execute "kill -9 $PPID" end
    sluice.task.sleep(request.n % 7 == 0 and 0.004 or 0.0005 * (request.n % 3))
    if request.n % 11 == 0 then return nil, sluice.errors.new("BadRequest") end
    return { n = request.n, text = ("x"):rep(request.n % 50), usage = { total_tokens = 2 } }
  end
  assert(sluice.batch.run { endpoint = endpoint, input = shared, concurrency = 8 })
end
]]

local write_file = support.write_file

local function lines_of(count, deadly)
  local lines = {}
  for n = 1, count do
    lines[n] = ('{"id":"r%d","n":%d%s}\n'):format(n, n, n == deadly and ',"deadly":true' or "")
  end
  return table.concat(lines)
end

local function with_folder(f)
  local folder = support.shell("mktemp -d -p /dev/shm || mktemp -d").out:gsub("\n", "")
  local ok, failure = pcall(f, folder .. "/")
  os.execute("rm -rf " .. folder)
  if not ok then error(failure, 0) end
end

-- The numbers of the rows of an output; each must say of itself what it is.
local function rows_of(path, count)
  local seen, list = {}, {}
  for line in io.lines(path) do
    local parsed = assert(json.decode(line), line)
    local row = parsed.row
    assert.is_nil(seen[row], "twice: " .. row)
    assert.equal("r" .. row, parsed.id)
    if parsed.response then assert.equal(row, parsed.response.n) end
    seen[row] = parsed
    list[#list + 1] = row
  end
  assert.equal(count, #list)
  return list, seen
end

local function is_sorted(list)
  for index = 2, #list do
    if list[index] < list[index - 1] then return false end
  end
  return true
end

local function asked(path)
  local counts, sum = {}, 0
  for line in io.lines(path) do
    local n = tonumber(line:match "^asked (%d+)$")
    if n then counts[n], sum = (counts[n] or 0) + 1, sum + 1 end
  end
  return counts, sum
end

-- A shell loop that starts one process again and again, killed after a while each time, at last not.
local function loop(command, kills, name)
  local parts = {}
  for index = 1, kills do
    local after = 0.02 + math.random() * 0.12
    parts[index] = ("timeout -s KILL %.4f %s && exit 0; echo kill >>%s.kills"):format(after, command, name)
  end
  return ("( %s; %s ) & "):format(table.concat(parts, "; "), command)
end

describe("a shared batch", function()
  local server

  setup(function() server = fixture.start() end)
  teardown(function() server:stop() end)

  local function kill_often(order, rows, kills)
    with_folder(function(folder)
      server:cli "flushall"
      math.randomseed(os.time())
      write_file(folder .. "child.lua", CHILD)
      write_file(folder .. "in", lines_of(rows))
      local words = ("%s %schild.lua %s %%s %s %s '' 1000"):format(
        support.quote(support.binary), folder, server.unix_url, folder, order)
      words = words:gsub("''", "%%s")
      local command = loop(words:format("feed", "f"), kills, folder .. "feed")
        .. loop(words:format("work", "a"), kills, folder .. "work")
        .. loop(words:format("work", "b"), kills, folder .. "work")
        .. loop(words:format("collect", "c"), kills, folder .. "collect")
      local result = support.shell("exec 2>" .. folder .. "err; " .. command .. "wait")
      local list, seen = rows_of(folder .. "out", rows)
      assert.is_true(order == "completion" or is_sorted(list))
      for row = 1, rows do
        assert.equal(row % 11 == 0, seen[row].error ~= nil)
      end
      local counts, sum = asked(folder .. "log")
      local killed = #support.read_file(folder .. "work.kills") // 5
      assert.is_true(sum - rows <= killed * 8, sum) -- what was in flight
      assert.equal(1, counts[rows] and 1)
      local summary = json.decode(result.out:match "({[^\n]*})\n?$")
      assert.same({ rows, rows - rows // 11, rows // 11, true, 2 * (rows - rows // 11) },
        { summary.rows, summary.ok, summary.failed, summary.complete, summary.tokens.total })
      assert.equal(summary.ok, summary.latency.count)
      assert.equal(1, #server:cli "--raw keys 'sluice:batch:*'" // #"sluice:batch:{spec}:state\n")
    end)
  end

  local ROWS <const> = os.getenv "SLUICE_SLOW" and 20000 or 1000
  local KILLS <const> = os.getenv "SLUICE_SLOW" and 100 or 6 -- of each of four processes

  it("whose processes are killed has each row once, in the order of the input", function()
    kill_often("input", ROWS, KILLS)
  end)

  it("whose processes are killed has each row once, as they complete", function()
    kill_often("completion", ROWS, KILLS)
  end)

  it("makes an error of a row that worker after worker dies of", function()
    with_folder(function(folder)
      server:cli "flushall"
      write_file(folder .. "child.lua", CHILD)
      write_file(folder .. "in", lines_of(40, 17))
      local words = ("%s %schild.lua %s %%s %s input %%s 2"):format(
        support.quote(support.binary), folder, server.unix_url, folder)
      local again = ("( until %s; do echo died >>%sdied; done ) & "):format(words:format("work", "w"), folder)
      support.shell(("exec 2>%serr; %s & %s & "):format(folder, words:format("feed", "f"),
        words:format("collect", "c")) .. again .. "wait")
      local _, seen = rows_of(folder .. "out", 40)
      assert.equal("PoisonedRow", seen[17].error.kind)
      assert.matches("row 17: 2 workers ended while they had it", seen[17].error.message)
      for row = 1, 40 do
        local err = seen[row].error or {}
        if row ~= 17 then assert.equal(row % 11 == 0 and "BadRequest" or nil, err.kind) end
      end
      assert.equal(2, (asked(folder .. "log"))[17])
      assert.equal("died\ndied\n", support.read_file(folder .. "died"))
    end)
  end)
end)

describe("Redis, killed and started again in the middle of a shared batch,", function()
  it("loses nothing", function()
    local server <close> = fixture.start "--appendonly yes --appendfsync always"
    with_folder(function(folder)
      write_file(folder .. "in", lines_of(600))
      local client <close> = sluice.redis.connect { url = server.unix_url }
      local shared = sluice.redis.stream { client = client, name = "spec", ahead = 200 }
      local told, summary
      local started = task.now()
      local function query(_, request)
        task.sleep(0.02)
        return { n = request.n }
      end
      sluice.log.set_output(function() end)
      task.scope(function(scope)
        scope:spawn(function() told = assert(shared:feed { input = folder .. "in" }) end)
        scope:spawn(function() summary = assert(shared:collect { output = folder .. "out" }) end)
        for _ = 1, 2 do
          scope:spawn(function()
            assert(sluice.batch.run { endpoint = { query = query }, input = shared, concurrency = 12 })
          end)
        end
        for _ = 1, 3 do
          task.sleep(0.15)
          server:kill()
          task.sleep(0.05)
          server:boot()
        end
      end)
      sluice.log.set_output()
      assert.is_true(task.now() - started < 30) -- half of `idle`: nobody had to wait for that
      assert.same({ rows = 600, fed = 600 }, told)
      assert.same({ 600, 600, true }, { summary.rows, summary.ok, summary.complete })
      assert.is_true(is_sorted((rows_of(folder .. "out", 600))))
    end)
  end)
end)
