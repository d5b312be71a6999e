-- SPDX-License-Identifier: MIT
-- A batch that processes share, its parts in this process, and what they are told wrong.
local describe = require("support").needing("redis", describe, pending)

local batch = require "sluice.batch"
local collector = require "sluice.batch.shared.collector"
local errors = require "sluice.errors"
local feeder = require "sluice.batch.shared.feeder"
local fixture = require "redis_server"
local json = require "sluice.json"
local log = require "sluice.log"
local scripts = require "sluice.batch.shared.scripts"
local servers = require "sluice.batch.shared.server"
local sluice = require "sluice"
local summary = require "sluice.batch.summary"
local support = require "support"
local tally = require "sluice.batch.tally"
local task = require "sluice.task"
local workers = require "sluice.batch.shared.worker"

local write_file = support.write_file

local rows_of = support.json_lines

local function numbers_of(path)
  local numbers = {}
  for index, each in ipairs(rows_of(path)) do numbers[index] = each.row end
  return numbers
end

local function requests(count)
  local list = {}
  for n = 1, count do list[n] = { id = "r" .. n, n = n } end
  return list
end

-- An endpoint that calls f and keeps what it was asked.
local function endpoint_of(f)
  local endpoint = { asked = {}, running = 0, most = 0 }
  function endpoint:query(request)
    self.asked[#self.asked + 1], self.running = request.n, self.running + 1
    self.most = math.max(self.most, self.running)
    local response, err = (f or function(each) return { n = each.n } end)(request, #self.asked)
    self.running = self.running - 1
    return response, err
  end
  return endpoint
end

describe("a shared batch", function()
  local server, client, folder

  setup(function()
    server = fixture.start()
    client = sluice.redis.connect { url = server.unix_url }
  end)
  teardown(function()
    client:close()
    server:stop()
  end)
  before_each(function()
    folder = support.shell("mktemp -d -p /dev/shm || mktemp -d").out:gsub("\n", "") .. "/"
    client:flushall()
  end)
  after_each(function() os.execute("rm -rf " .. folder) end)

  local function open(given)
    given = given or {}
    given.client, given.name = given.client or client, given.name or "spec"
    return sluice.redis.stream(given)
  end

  -- Feeds, works and collects together; gives what each of them does.
  local function run(shared, input, endpoint, given)
    given = given or {}
    local fed, worked, collected
    task.scope(function(scope)
      scope:spawn(function() fed = { shared:feed { input = input, max_line = given.max_line } } end)
      scope:spawn(function()
        collected = {
          shared:collect { output = folder .. "out", order = given.order, report = given.report },
        }
      end)
      worked = { batch.run { endpoint = endpoint, input = shared, concurrency = given.concurrency } }
    end)
    return fed[1], worked[1], collected[1]
  end

  it("is fed, worked on and collected, and leaves no rows in Redis", function()
    local shared, endpoint = open(), endpoint_of(function(request)
      task.sleep(request.n % 3 * 0.002)
      if request.n == 7 then return nil, errors.new("NotFound", { status = 404 }) end
      return { n = request.n, usage = { prompt_tokens = 2, completion_tokens = 3, total_tokens = 5 } }
    end)
    assert.is_nil(shared:status())
    local fed, worked, collected = run(shared, requests(30), endpoint, { report = folder .. "report" })
    assert.same({ rows = 30, fed = 30 }, fed)
    assert.same({ 30, 29, 1, true }, { worked.rows, worked.ok, worked.failed, worked.complete })
    assert.equal(10, endpoint.most) -- of the requests that are free, and no more
    local tokens = { total = 145, input = 58, output = 87, resumed = 0 }
    assert.same({ 30, 29, 1, true, { NotFound = 1 }, tokens }, {
      collected.rows, collected.ok, collected.failed, collected.complete, collected.errors, collected.tokens,
    })
    assert.equal(29, collected.latency.count)
    assert.equal(30, json.decode(support.read_file(folder .. "report")).rows)
    local rows = rows_of(folder .. "out")
    for n = 1, 30 do assert.same({ n, "r" .. n }, { rows[n].row, rows[n].id }) end
    assert.same({ 404, 8 }, { rows[7].error.status, rows[8].response.n })
    assert.same({ rows = 30, fed = 30, ok = 29, failed = 1, collected = 30, waiting = 0, under_way = 0,
      complete = true }, shared:status())
    assert.same({ "sluice:batch:{spec}:state" }, client:keys "*")
    assert.is_true(client:ttl "sluice:batch:{spec}:state" > 86000)
    assert.is_true(shared:delete())
    assert.same({}, client:keys "*")
  end)

  it("has its keys in one slot of a cluster", function()
    local cluster <close> = fixture.start "--cluster-enabled yes"
    cluster:cli "cluster addslotsrange 0 16383"
    fixture.eventually(function() return cluster:cli("cluster info"):find "cluster_state:ok" end)
    local node <close> = sluice.redis.connect { url = cluster.unix_url }
    local _, worked, collected = run(open { client = node, name = "a:b" }, requests(7), endpoint_of())
    assert.same({ 7, 7, true }, { worked.ok, collected.ok, collected.complete })
  end)

  it("is done with nothing more to do for who comes later", function()
    local shared, endpoint = open(), endpoint_of()
    run(shared, requests(5), endpoint)
    local fed, worked, collected = run(open(), requests(5), endpoint)
    assert.same({ rows = 5, fed = 0 }, fed)
    assert.same({ 0, true }, { worked.rows, worked.complete })
    assert.same({ 5, 5, 5, true }, { collected.rows, collected.ok, collected.resumed, collected.complete })
    assert.equal(5, #endpoint.asked)
    write_file(folder .. "out", "")
    local _, err = shared:collect { output = folder .. "out" }
    assert.equal("BatchConflict", err.kind)
    assert.matches("shorter than what was collected", err.message)
  end)

  it("may be empty", function()
    write_file(folder .. "in", "\n \n")
    local fed, worked, collected = run(open(), folder .. "in", endpoint_of())
    assert.same({ 0, 0, 0, true }, { fed.rows, worked.rows, collected.rows, collected.complete })
    assert.equal("", support.read_file(folder .. "out"))
  end)

  it("has the rows of a file by their lines: blank, broken, too long ones too", function()
    write_file(folder .. "in", '\xEF\xBB\xBF{"n":1}\r\n\n[1]\n{"n":' .. (" "):rep(200) .. '4}\noops\n{"n":6}')
    local _, _, collected = run(open(), folder .. "in", endpoint_of(), { max_line = 100 })
    local rows = rows_of(folder .. "out")
    assert.same({ 5, 2, { MalformedRow = 3 } }, { collected.rows, collected.ok, collected.errors })
    assert.same({ 1, 3, 4, 5, 6 }, numbers_of(folder .. "out"))
    assert.matches("row 3 is no JSON object", rows[2].error.message)
    assert.matches("row 4 is longer than max_line allows", rows[3].error.message)
    assert.equal(6, rows[5].response.n)
  end)

  it("is written as rows complete, where that is asked for", function()
    local endpoint = endpoint_of(function(request)
      task.sleep(request.n == 1 and 0.1 or 0.001)
      return { n = request.n }
    end)
    run(open(), requests(20), endpoint, { order = "completion" })
    local numbers = numbers_of(folder .. "out")
    assert.same({ 20, 1 }, { #numbers, numbers[20] })
    local _, err = open():collect { output = folder .. "out", order = "input" }
    assert.matches("begun with another order", tostring(err))
  end)

  it("is never further ahead than it may be, neither in Redis nor in the collector", function()
    local shared, most = open { ahead = 20 }, 0
    local endpoint = endpoint_of(function(request)
      local status = assert(shared:status())
      most = math.max(most, status.fed - status.collected)
      return { n = request.n }
    end)
    local _, _, collected = run(shared, requests(90), endpoint)
    assert.equal(90, collected.rows)
    assert.is_true(most > 10 and most <= 20, most)
  end)

  it("holds results that come early, small and large", function()
    local endpoint = endpoint_of(function(request)
      if request.n == 1 then task.sleep(0.2) end
      return { n = request.n, text = ("x"):rep(950000) }
    end)
    run(open(), requests(10), endpoint)
    for n, each in ipairs(rows_of(folder .. "out")) do
      assert.same({ n, 950000 }, { each.row, #each.response.text })
    end
  end)

  it("asks a row again that was refused, though all requests wait for rows", function()
    local endpoint = endpoint_of(function(request, times)
      if times <= 3 then return nil, errors.new("TooManyRequests", { status = 429, retry_after = 0.03 }) end
      return { n = request.n }
    end)
    local _, worked, collected = run(open(), requests(2), endpoint, { concurrency = 8 })
    assert.same({ 2, 3, 2, 3 }, { worked.ok, worked.retries, collected.ok, collected.retries })
  end)

  it("tells of streams how long their first content took", function()
    local endpoint = {}
    function endpoint.stream(_, request)
      local given = 0
      return sluice.stream.wrap {
        next = function()
          given = given + 1
          if given > 2 then return nil end
          return { choices = { { index = 0, delta = { content = request.messages[1].content } } } }
        end,
        close = function() end,
      }
    end
    endpoint.query = endpoint.stream
    local rows = { { stream = true, messages = { { role = "user", content = "x" } } } }
    local _, worked, collected = run(open(), rows, endpoint)
    assert.same({ 1, 1 }, { worked.ok, collected.ok })
    assert.equal(worked.ttft and 1, collected.ttft and collected.ttft.count)
  end)

  describe("has workers", function()
    it("that share its rows", function()
      local shared = open()
      local slow = function(request)
        task.sleep(0.005)
        return { n = request.n }
      end
      local one, two = endpoint_of(slow), endpoint_of(slow)
      local other = task.spawn(function()
        return batch.run { endpoint = two, input = open(), concurrency = 4 }
      end)
      local _, worked, collected = run(shared, requests(100), one, { concurrency = 4 })
      local rest = other:join()
      assert.same({ 100, 100 }, { collected.ok, worked.ok + rest.ok })
      assert.is_true(#one.asked > 20 and #two.asked > 20, #one.asked)
      assert.equal(100, #one.asked + #two.asked)
    end)

    it("that keep what they take long for", function()
      local endpoint = endpoint_of(function(request)
        task.sleep(1.5)
        return { n = request.n }
      end)
      local other = task.spawn(function()
        return batch.run { endpoint = endpoint, input = open { idle = 0.6 }, concurrency = 2 }
      end)
      local _, _, collected = run(open { idle = 0.6 }, requests(3), endpoint, { concurrency = 2 })
      other:join()
      assert.same({ 3, 3 }, { collected.ok, #endpoint.asked })
    end)

    it("whose rows others have when they say nothing any more", function()
      local shared = open { idle = 0.3 }
      assert(shared:feed { input = requests(3) })
      -- a worker that is killed leaves this behind
      assert(client:xreadgroup("GROUP", "workers", "dead", "COUNT", 2, "STREAMS",
        "sluice:batch:{spec}:rows", ">"))
      assert.equal(2, shared:status().under_way)
      local endpoint, started = endpoint_of(), task.now()
      local _, worked = run(shared, requests(3), endpoint)
      local seconds = task.now() - started
      assert.is_true(seconds > 0.25 and seconds < 20, seconds)
      assert.same({ 3, 3 }, { worked.ok, #endpoint.asked })
      assert.equal(3, endpoint.asked[1])
    end)

    it("that leave their rows to others when they go", function()
      local shared = open()
      assert(shared:feed { input = requests(6) })
      local slow = endpoint_of(function() task.sleep(60) end)
      local value, err = task.timeout(0.1, batch.run, { endpoint = slow, input = shared, concurrency = 4 })
      assert.same({ "TimeoutError", 4 }, { value == nil and err.kind, #slow.asked })
      assert.same({ 2, 4 }, { shared:status().waiting, shared:status().under_way })
      local started = task.now()
      local _, worked = run(open { max_deliveries = 1 }, requests(6), endpoint_of())
      assert.is_true(task.now() - started < 20)
      assert.equal(6, worked.ok) -- nobody has ended with them
      assert.same({}, client:keys "*:rows")
    end)

    it("that stop by their rules, and the rest is left to others", function()
      local shared = open()
      assert(shared:feed { input = requests(30) })
      local failing = endpoint_of(function() return nil, errors.new "BadRequest" end)
      local worked = assert(batch.run {
        endpoint = failing, input = shared, concurrency = 2, max_failures = 4,
      })
      assert.same({ "max_failures", false, true }, { worked.stopped, worked.complete, worked.resumable })
      local _, _, collected = run(open(), requests(30), endpoint_of())
      assert.same({ 30, worked.failed }, { collected.rows, collected.failed })
    end)

    it("that ask nothing before somebody feeds, and say so", function()
      local lines = {}
      log.set_output(function(line) lines[#lines + 1] = line end)
      local other = task.spawn(function()
        return batch.run { endpoint = endpoint_of(), input = open { idle = 0.05 } }
      end)
      fixture.eventually(function() return lines[1] end)
      log.set_output()
      assert.matches("nobody has fed it yet", table.concat(lines))
      local collecting = task.spawn(function() return open():collect { output = folder .. "out" } end)
      task.sleep(0.01)
      assert(open():feed { input = requests(3) })
      assert.same({ 3, 3 }, { other:join().ok, collecting:join().ok })
    end)
  end)

  describe("is made of", function()
    local FACTS <const> = { ok = true, seconds = 0.5, ttft = 0.25, retries = 2 }

    it("a side of Redis, whose steps are safe to take twice", function()
      assert.equal("sluice:batch:{spec}:results", servers.keys("spec")[2])
      local redis = servers.new(client, "spec", 1)
      assert.same({ "none" }, redis:try("status", ""))
      assert.same({ "ok", "run", "0", "0", "0", "" }, redis:call("begin", "run", "identity", 0))
      assert.same({ "ok", "2", "0" }, redis:call("feed", "run", 0, 3, 50, 1, 1, "one", 3, "three"))
      assert.same({ "moved", "2", "3", "50", "2" }, redis:call("feed", "run", 0, 3, 50, 1, 1, "one"))
      local taken = redis:call("take", "", "me", 9, 0, 1000, 2, 1)
      assert.same({ "ok", "run", { { "1-1", "one", 0 }, { "2-3", "three", 0 } } }, taken)
      assert.is_true(redis:refresh("me", { "1-1", "2-3" }))
      assert.same({ "ok", 1 }, redis:call("settle", "run", "1-1", 1, "answer", "facts"))
      assert.same({ "ok", 0 }, redis:call("settle", "run", "1-1", 1, "another", "facts"))
      client:xack("sluice:batch:{spec}:rows", "workers", "2-3") -- as if Redis had lost who has it
      assert.same({ "ok", 1 }, redis:call("settle", "run", "2-3", 0, "late", "facts"))
      local entry = redis:call("drain", "run", 1, "0", 9, 999)[4][1]
      assert.same({ "id", "1-1", "line", "answer", "facts", "facts" }, entry[2])
      assert.equal("answer", redis:line_of(entry[1]))
      assert.is_nil((redis:call("settle", "old")))
      assert.equal("BatchConflict", select(2, redis:try("settle", "old")).kind)
      assert.is_true(redis:delete())
      assert.is_nil(redis:line_of(entry[1]))
      assert.is_truthy(scripts.texts.settle:find("XACK", 1, true))
    end)

    it("a worker that takes no more than is asked for, and lets go of who waits", function()
      local redis, shared = servers.new(client, "spec", 1), open()
      assert.same({ rows = 3, fed = 3 }, feeder.run(redis, { input = requests(3), max_line = 99, ahead = 9 }))
      local worker = workers.new(redis, { consumer = "me", idle = 9, max_deliveries = 3 })
      local nameless = shared:consume()
      assert.matches("^worker%-%x+$", nameless.consumer)
      nameless:close()
      local number, line = worker:next()
      assert.same({ 1, '"n":1' }, { number, line:match '"n":1' })
      assert.same({ 2, 1 }, { shared:status().waiting, shared:status().under_way })
      worker.out:put(1, "answer\n", FACTS)
      assert.same({ true, nil, {} }, { worker.out:has_room(), worker.out.expect(1), worker.out:entries() })
      assert.is_true(worker.out:flush())
      assert.equal(1, shared:status().ok)
      worker:next()
      worker:next()
      local waiting = task.spawn(worker.next, worker)
      task.sleep(0.03)
      worker:nudge()
      assert.is_false(waiting:join())
      worker:close()
      worker:close()
      assert.same({}, client:xpending("sluice:batch:{spec}:rows", "workers", "-", "+", 9, "you"))
    end)

    it("a worker that finds again what was handed to it in a reply that was lost", function()
      local redis = servers.new(client, "spec", 1)
      assert(feeder.run(redis, { input = requests(4), max_line = 99, ahead = 9 }))
      local worker <close> = setmetatable({}, { __close = function(self) self.made:close() end })
      worker.made = workers.new(redis, { consumer = "me", idle = 60, max_deliveries = 2 })
      assert.equal(1, (worker.made:next()))
      assert(client:xreadgroup("GROUP", "workers", "me", "COUNT", 2, "STREAMS", servers.keys("spec")[1], ">"))
      redis.failures = redis.failures + 1
      local numbers = {}
      for index = 1, 3 do numbers[index] = worker.made:next() end
      table.sort(numbers)
      assert.same({ 2, 3, 4 }, numbers)
      local times = {}
      for index, pending in ipairs(client:xpending(servers.keys("spec")[1], "workers", "-", "+", 9, "me")) do
        times[index] = pending[4]
      end
      assert.same({ 1, 1, 1, 1 }, times) -- nobody has died of them
    end)

    it("a worker that still has the results that it was cancelled at giving", function()
      local other <close> = fixture.start "--appendonly yes --appendfsync always"
      local patient <close> = sluice.redis.connect { url = other.unix_url }
      local redis = servers.new(patient, "spec", 60)
      assert(feeder.run(redis, { input = requests(1), max_line = 99, ahead = 9 }))
      local worker <close> = setmetatable({}, { __close = function(self) self.made:close() end })
      worker.made = workers.new(redis, { idle = 60, max_deliveries = 3 })
      worker.made:next()
      worker.made.out:put(1, "answer\n", FACTS)
      other:kill()
      log.set_output(function() end)
      local giving = task.spawn(function() worker.made.out:flush() end)
      task.sleep(0.02)
      giving:cancel "the spec says so"
      assert.is_false((pcall(giving.join, giving)))
      other:boot()
      assert.is_true(worker.made.out:flush())
      assert.equal(1, open({ client = patient }):status().ok)
      log.set_output()
    end)

    it("a collector, which counts for all", function()
      local redis = servers.new(client, "spec", 1)
      assert(feeder.run(redis, { input = requests(1), max_line = 99, ahead = 9 }))
      local worker <close> = setmetatable({}, { __close = function(self) self.made:close() end })
      worker.made = workers.new(redis, { idle = 9, max_deliveries = 3 })
      worker.made:next()
      worker.made.out:put(1, '{"row":1,"id":null,"response":{"usage":{"total_tokens":7}}}\n', FACTS)
      assert(worker.made.out:flush())
      local told = assert(collector.run(redis, { output = folder .. "out", order = "input", keep = 9 }))
      assert.same({ 0.5, 0.25, 2, 7 }, { told.latency.max, told.ttft.max, told.retries, told.tokens.total })
      local counts = tally.new()
      counts:succeed({}, 1)
      counts:fail "NotFound"
      told = summary.of_shared(counts, 2, { rows = 1, tokens = 0 }, false)
      assert.same({ 2, 1, 0.5, false }, { told.rows, told.resumed, told.rows_per_second, told.complete })
    end)
  end)

  describe("is refused", function()
    local function fails(pattern, kind, value, err)
      assert.is_nil(value)
      assert.equal(kind, err.kind)
      assert.matches(pattern, tostring(err))
    end

    it("another input, and one that cannot be read twice", function()
      local shared = open()
      assert(shared:feed { input = requests(3) })
      assert.same({ rows = 3, fed = 0 }, shared:feed { input = requests(3) })
      fails("begun with another input", "BatchConflict", shared:feed { input = requests(4) })
      shared:delete()
      local row = 0
      local function iterator()
        row = row + 1
        return row <= 3 and { n = row } or nil
      end
      assert.same({ rows = 3, fed = 3 }, shared:feed { input = iterator })
      fails("cannot be read twice", "BatchConflict", shared:feed { input = iterator })
      fails("No such file", "FileError", shared:feed { input = folder .. "none" })
    end)

    it("another output", function()
      local shared = open()
      assert(shared:feed { input = requests(3) })
      write_file(folder .. "other", "mine\n")
      fails("is not the file that was begun", "BatchConflict", shared:collect { output = folder .. "other" })
      assert.equal("mine\n", support.read_file(folder .. "other"))
      fails("Is a directory", "FileError", shared:collect { output = folder })
      fails("needs a regular file", "FileError", shared:collect { output = "/dev/null" })
    end)

    it("a second collector beside the first", function()
      local shared = open()
      assert(shared:feed { input = requests(3) })
      local first = task.spawn(function() return { shared:collect { output = folder .. "one" } } end)
      task.sleep(0.05)
      fails("", "BatchConflict", shared:collect { output = folder .. "one" }) -- the file is locked
      local second = task.spawn(function() return { shared:collect { output = folder .. "two" } } end)
      fails("another collector has taken over", "BatchConflict", table.unpack(first:join(), 1, 2))
      assert(batch.run { endpoint = endpoint_of(), input = shared })
      assert.equal(3, second:join()[1].ok)
      assert.same({ 1, 2, 3 }, numbers_of(folder .. "two"))
    end)

    it("keys of another type, or of another time", function()
      client:set("sluice:batch:{spec}:rows", "x")
      fails("WRONGTYPE", "RedisError", open():feed { input = requests(1) })
      assert.equal("x", client:get "sluice:batch:{spec}:rows")
      client:del "sluice:batch:{spec}:rows"
      client:set("sluice:batch:{spec}:state", "x")
      fails("WRONGTYPE", "RedisError", open():feed { input = requests(1) })
      fails("WRONGTYPE", "RedisError", open():status())
      fails("WRONGTYPE", "RedisError", open():collect { output = folder .. "out" })
      local worked, err = batch.run { endpoint = endpoint_of(), input = open() }
      fails("WRONGTYPE", "RedisError", worked, err)
      assert.equal(0, err.summary.rows)
      client:flushall()
      client:xadd("sluice:batch:{spec}:rows", "*", "a", "b")
      fails("rows of another time", "BatchConflict", open():feed { input = requests(1) })
    end)

    it("a wrong password, at once", function()
      local guarded <close> = fixture.start "--requirepass right"
      local wrong <close> = sluice.redis.connect { url = guarded.unix_url, password = "wrong" }
      local started = task.now()
      local worked, err = batch.run { endpoint = endpoint_of(), input = open { client = wrong } }
      assert.matches("WRONGPASS", tostring(err))
      assert.is_nil(worked)
      fails("WRONGPASS", "RedisError", open({ client = wrong }):collect { output = folder .. "out" })
      assert.is_true(task.now() - started < 20)
    end)

    it("a Redis that does not come back", function()
      local away <close> = sluice.redis.connect { url = "redis://127.0.0.1:1" }
      log.set_output(function() end)
      local shared = open { client = away, patience = 0.1 }
      fails("Connection refused", "ConnectError", shared:feed { input = requests(1) })
      fails("Connection refused", "ConnectError", batch.run { endpoint = endpoint_of(), input = shared })
      fails("Connection refused", "ConnectError", shared:delete())
      log.set_output()
    end)

    it("when it was taken away meanwhile", function()
      local shared = open()
      assert(shared:feed { input = requests(3) })
      local endpoint = endpoint_of(function()
        client:flushall()
        return {}
      end)
      local collecting = task.spawn(function() return { shared:collect { output = folder .. "out" } } end)
      task.sleep(0.03)
      fails("not in Redis any more", "BatchConflict", batch.run { endpoint = endpoint, input = shared })
      fails("not in Redis any more", "BatchConflict", table.unpack(collecting:join(), 1, 2))
    end)

    it("what has no meaning", function()
      local function misuse(pattern, f, ...)
        local ok, message = pcall(f, ...)
        assert.is_false(ok)
        assert.matches(pattern, tostring(message))
      end
      local shared, endpoint = open(), endpoint_of()
      for name, value in pairs { output = "x", order = "input", journal = "x", window = 3 } do
        local given = { endpoint = endpoint, input = shared, [name] = value }
        misuse('option "' .. name .. '" has no meaning', batch.run, given)
      end
      misuse('"client" must be a client of redis.connect', sluice.redis.stream, { client = {}, name = "x" })
      misuse("without blanks and braces", sluice.redis.stream, { client = client, name = "a{b}" })
      misuse('did you mean "consumer"', sluice.redis.stream, { client = client, name = "x", consumr = "y" })
      misuse('"input" is missing', shared.feed, shared, {})
      misuse('"input" or "completion"', shared.collect, shared, { output = "x", order = "random" })
    end)
  end)
end)
