-- SPDX-License-Identifier: MIT
-- layers.capture and its store: what a row says, what is not kept, what survives.

local sluice = require "sluice"
local support = require "support"

local describe_capture = support.needing("sqlite", describe, pending)
local has_sqlite = support.has "sqlite"
local capture = has_sqlite and sluice.capture
local sqlite = has_sqlite and sluice.sqlite
local errors, json, layers, task = sluice.errors, sluice.json, sluice.layers, sluice.task
local traffic = sluice.traffic
local capture_layer = require "sluice.layers.capture"
local meta = require "sluice.meta"

local function with_path(f)
  support.with_file("", function(path)
    os.remove(path)
    f(path)
    for _, suffix in ipairs { "-wal", "-shm", "-journal" } do os.remove(path .. suffix) end
    if not io.open(path) then io.open(path, "w"):close() end
  end)
end

local function rows_of(path, sql)
  local db <close> = assert(sqlite.open(path, { read_only = true }))
  return assert(db:query(sql or "SELECT * FROM inference_log ORDER BY rowid"))
end

-- An endpoint that takes a while, and answers, fails or raises.
local function endpoint(given)
  given = given or {}
  local self = { name = given.name or "chat" }
  function self.query(_, request)
    task.sleep(0.25)
    if request.fails then
      return nil, errors.new("TooManyRequests", { status = 429, request_id = "theirs" })
    end
    if request.no_connection then return nil, errors.new "ConnectError" end
    local answer = {
      model = "m-1", choices = { { message = { content = "hello" } } },
      usage = { prompt_tokens = 11, completion_tokens = 3 },
    }
    return meta.set(answer, { status = 200, served_model = "entity-1" })
  end
  function self.stream(_, request)
    local left = 3
    return meta.set(sluice.stream.wrap {
      next = function()
        task.sleep(0.1)
        left = left - 1
        if left == 0 and request.breaks then return nil, errors.new "TruncatedStream" end
        return left >= 0 and { choices = { { index = 0, delta = { content = "ab" } } } } or nil
      end,
      close = function() end,
    }, { status = 200, ttft = 0.1 })
  end
  return self
end

describe_capture("layers.capture", function()
  -- What was captured of a few calls.
  local function captured(given, f)
    local rows
    with_path(function(path)
      local store <close> = assert(capture.open(path))
      local inner = given.endpoint or endpoint()
      given.store, given.endpoint = store, nil
      task.simulate(function()
        f(sluice.pipeline(inner, { layers.capture(given) }))
        store:flush()
      end, { wall = 1700000000.0625 })
      rows = rows_of(path)
    end)
    return rows
  end

  it("writes a query as a row, without its contents", function()
    local rows = captured({ requester = "me" }, function(chat)
      assert(chat:query({ messages = {}, model = "m", client_request_id = "c-1" }, { request_id = "ours" }))
    end)
    assert.same({ {
      databricks_request_id = "ours", client_request_id = "c-1",
      timestamp_ms = 1700000000062, status_code = 200,
      sampling_fraction = 1.0, execution_time_ms = 250, execution_duration_ms = 250,
      request_metadata = '{"endpoint_name":"chat","model_name":"m-1"}', served_entity_id = "entity-1",
      requester = "me", variant = "entity-1", input_tokens = 11, output_tokens = 3, date = "2023-11-14",
      request_date = "2023-11-14", request_time = "2023-11-14 22:13:20.062",
    } }, rows)
  end)

  it("writes failures, and what the server called them", function()
    local rows = captured({}, function(chat)
      chat:query { fails = true }
      chat:query { no_connection = true }
      task.timeout(0.1, chat.query, chat, {})
    end)
    assert.equal(429, rows[1].status_code)
    assert.equal("TooManyRequests", rows[1].error_kind)
    assert.equal("theirs", rows[1].databricks_request_id)
    assert.is_nil(rows[2].status_code)
    assert.equal("ConnectError", rows[2].error_kind)
    assert.equal("TimeoutError", rows[3].error_kind)
    assert.equal(100, rows[3].execution_time_ms)
    assert.is_nil(rows[3].status_code)
  end)

  it("writes streams when they have ended", function()
    local rows = captured({}, function(chat)
      assert(assert(chat:stream {}):collect())
      assert(chat:stream { breaks = true }):collect()
      local left = assert(chat:stream {})
      left:next()
      left:close()
    end)
    assert.same({ 400, 300, 100 },
      { rows[1].execution_time_ms, rows[2].execution_time_ms, rows[3].execution_time_ms })
    assert.same({ 200, 200, 499 }, { rows[1].status_code, rows[2].status_code, rows[3].status_code })
    assert.equal(100.0, rows[1].ttft_ms)
    assert.is_nil(rows[1].error_kind)
    assert.equal("TruncatedStream", rows[2].error_kind)
    assert.equal("ClientGone", rows[3].error_kind)
  end)

  it("charges the variant of a split, on errors too", function()
    local split = traffic.split { { endpoint { name = "a" }, 50 }, { endpoint { name = "b" }, 50 }, seed = 5 }
    local rows = captured({ endpoint = split }, function(chat)
      for _ = 1, 20 do assert(chat:query {}) end
      for _ = 1, 5 do chat:query({ fails = true }, { variant = "b" }) end
    end)
    local counts = {}
    for _, row in ipairs(rows) do counts[row.variant] = (counts[row.variant] or 0) + 1 end
    assert.same({ a = split.variants.a.requests, b = split.variants.b.requests }, counts)
    assert.equal("b", rows[25].variant)
  end)

  it("keeps contents when asked, bounded, and without secrets", function()
    local secret = sluice.secret "hunter2-hunter2"
    local rows = captured({ content = true, max_content = 200 }, function(chat)
      assert(chat:query { messages = { { role = "user", content = "it is hunter2-hunter2" } } })
      assert(assert(chat:stream { prompt = "p" }):collect())
      assert(chat:query { prompt = ("x"):rep(300) })
      chat:query { fails = true }
    end)
    assert.equal("***", tostring(secret))
    assert.equal("it is ***", json.decode(rows[1].request).messages[1].content)
    assert.equal("hello", json.decode(rows[1].response).choices[1].message.content)
    assert.equal("ababab", json.decode(rows[2].response).choices[1].message.content)
    assert.is_nil(rows[3].request)
    assert.equal('["MAX_REQUEST_SIZE_EXCEEDED"]', rows[3].logging_error_codes)
    assert.equal("TooManyRequests", json.decode(rows[4].response).kind)
  end)

  it("keeps a share, and asks who calls", function()
    local function requester(request) return request.user end
    local rows = captured({ share = 0.5, requester = requester }, function(chat)
      for _ = 1, 200 do assert(chat:query { user = "u" }) end
    end)
    assert.near(100, #rows, 40)
    assert.equal(0.5, rows[1].sampling_fraction)
    assert.equal("u", rows[1].requester)
  end)

  it("takes any store, and a path", function()
    assert.equal(capture_layer, layers.capture)
    local kept = {}
    local own = { add = function(_, row) kept[#kept + 1] = row end }
    task.simulate(function()
      assert(sluice.pipeline(endpoint(), { layers.capture { store = own } }):query {})
    end)
    assert.equal(1, #kept)
    with_path(function(path)
      local chat = sluice.pipeline(endpoint(), { layers.capture { store = path } })
      task.simulate(function() assert(chat:query {}) end)
      local store <close> = assert(capture.open(path))
      store:flush()
      assert.equal(1, #rows_of(path))
    end)
    assert.error_matches(function() layers.capture { store = 5 } end, "must be a path")
    assert.error_matches(function() layers.capture { share = 2 } end, "at most 1")
    local good, err = pcall(layers.capture, { store = "/nonexistent/x.db" })
    assert.is_false(good)
    assert.equal("SQLITE_CANTOPEN", err.code)
  end)
end)

describe_capture("capture.open", function()
  it("refuses what another version or another program wrote, and leaves it as it is", function()
    with_path(function(path)
      local db = assert(sqlite.open(path))
      assert(db:exec "CREATE TABLE inference_log(a); INSERT INTO inference_log VALUES (1)")
      assert(db:exec "PRAGMA user_version = 7")
      local store, err = capture.open(path)
      assert.is_nil(store)
      assert.equal("SchemaMismatch", err.kind)
      assert.matches("version 7, and this program writes version 1", tostring(err))
      assert(db:exec "PRAGMA user_version = 0")
      store, err = capture.open(path)
      assert.is_nil(store)
      assert.matches('a database of something else: it has "inference_log"', tostring(err))
      assert.same({ { a = 1 } }, db:query "SELECT * FROM inference_log")
      db:close()
    end)
    support.with_file(("text "):rep(300), function(path)
      local _, err = capture.open(path)
      assert.equal("SQLITE_NOTADB", err.code)
    end)
  end)

  it("is for its owner alone, goes on where it was, and tells what became of rows", function()
    with_path(function(path)
      local first = assert(capture.open(path))
      first:add { timestamp_ms = 1, variant = "a" }
      first:flush()
      assert.same({ queued = 0, dropped = 0, failed = 0 }, first:stats())
      first:close()
      first:close()
      first:add { timestamp_ms = 2 }
      local second <close> = assert(capture.open(path))
      second:add { timestamp_ms = 3, status_code = 200, ttft_ms = 0.5, request = "a\0b" }
      second:flush()
      local rows = rows_of(path)
      assert.equal(2, #rows)
      assert.equal("a\0b", rows[2].request)
      assert.matches("^600", support.shell("stat -c %a " .. support.quote(path)).out)
      assert.error_matches(function() return second.ad end, 'did you mean "add"')
    end)
  end)

  it("counts rows that SQLite refuses, says so in the log, and goes on", function()
    with_path(function(path)
      local store <close> = assert(capture.open(path))
      local lines = {}
      local previous = sluice.log.set_output(function(line) lines[#lines + 1] = line end)
      assert.error_matches(function() store:add() end, 'argument "row" must be a table')
      store:add { variant = "no timestamp" }
      store:flush()
      store:add { timestamp_ms = 5 }
      store:flush()
      sluice.log.set_output(previous)
      local stats = store:stats()
      assert.equal(1, stats.failed)
      assert.equal("SQLITE_CONSTRAINT_NOTNULL", stats.code)
      assert.equal(1, #rows_of(path))
      assert.matches('"event":"capture_lost"', lines[1], 1, true)
    end)
  end)

  it("waits for another program's lock on its own thread", function()
    with_path(function(path)
      local store <close> = assert(capture.open(path))
      local db <close> = assert(sqlite.open(path))
      local longest, before = 0, nil
      db:transaction(function()
        for _ = 1, 20 do store:add { timestamp_ms = 1 } end
        for _ = 1, 10 do
          before = task.now()
          task.sleep(0.002)
          longest = math.max(longest, task.now() - before)
        end
      end)
      store:flush()
      assert.is_true(longest < 0.1)
      assert.equal(20, #rows_of(path))
    end)
  end)

  it("drops the oldest rows beyond its size or their age", function()
    with_path(function(path)
      local store <close> = assert(capture.open(path, { max_bytes = 400000 }))
      for index = 1, 4000 do
        store:add { timestamp_ms = index, request = ("x"):rep(500) }
        if index % 500 == 0 then store:flush() end
      end
      store:flush()
      local bounds = "SELECT min(timestamp_ms) AS first, max(timestamp_ms) AS last FROM inference_log"
      local found = rows_of(path, bounds)[1]
      assert.equal(4000, found.last)
      assert.is_true(found.first > 1000)
      assert.is_true(#support.read_file(path) < 1200000)
    end)
    with_path(function(path)
      local store = assert(capture.open(path))
      local now = os.time() * 1000
      store:add { timestamp_ms = now - 7200000, variant = "old" }
      store:add { timestamp_ms = now + 7200000, variant = "of a clock that was wrong" }
      store:flush()
      store:close()
      store = assert(capture.open(path, { max_age = 3600 }))
      store:add { timestamp_ms = now, variant = "new" }
      store:flush()
      store:close()
      local variants = rows_of(path, "SELECT variant FROM inference_log ORDER BY rowid")
      assert.same({ { variant = "of a clock that was wrong" }, { variant = "new" } }, variants)
    end)
  end)

  it("loses nothing that was written when the program is killed, and flushes at its end", function()
    with_path(function(path)
      local chunk = ([[
        local sluice = require "sluice"
        local store = assert(sluice.capture.open %q)
        for index = 1, 300 do store:add { timestamp_ms = index, variant = "v" } end
        store:flush()
        store:add { timestamp_ms = 301 }
        %s]]):format(path, "%s")
      local kill = [[os.execute("kill -9 " .. io.open("/proc/self/stat"):read "n")]]
      local result = support.sluice("-e", chunk:format(kill))
      assert.not_equal(0, result.status)
      local count = "SELECT count(*) AS n, count(variant) AS v FROM inference_log"
      local rows = rows_of(path, count)[1]
      assert.equal(300, rows.v)
      result = support.sluice("-e", chunk:format "")
      assert.equal(0, result.status)
      assert.equal(600, rows_of(path, count)[1].v)
      assert.is_true(rows_of(path, count)[1].n >= 601)
      assert.same({ { integrity_check = "ok" } }, rows_of(path, "PRAGMA integrity_check"))
    end)
  end)

  it("takes rows of several programs at once", function()
    with_path(function(path)
      local chunk = ([[
        local store = assert(require "sluice".capture.open %q)
        for index = 1, 500 do store:add { timestamp_ms = index } end]]):format(path)
      local quoted = support.quote(support.binary) .. " -e " .. support.quote(chunk)
      local result = support.shell(("%s & %s & wait"):format(quoted, quoted))
      assert.equal("", result.err)
      assert.equal(1000, rows_of(path, "SELECT count(*) AS n FROM inference_log")[1].n)
    end)
  end)
end)
