-- SPDX-License-Identifier: MIT
-- The parts of a batch, each by itself.
local core = require "sluice.core.file"
local engine = require "sluice.batch.engine"
local errors = require "sluice.errors"
local files = require "sluice.batch.files"
local histogram = require "sluice.batch.histogram"
local input = require "sluice.batch.input"
local journal = require "sluice.batch.journal"
local lines = require "sluice.batch.lines"
local resume = require "sluice.batch.resume"
local row = require "sluice.batch.row"
local rules = require "sluice.batch.rules"
local summary = require "sluice.batch.summary"
local support = require "support"
local tally = require "sluice.batch.tally"
local task = require "sluice.task"
local throttle = require "sluice.batch.throttle"
local view = require "sluice.batch.view"
local window = require "sluice.batch.window"

describe("sluice.core.file", function()
  it("hashes as XXH64 does", function()
    local vectors = {
      [""] = "ef46db3751d8e999", a = "d24ec4f1a98c6e5b", abc = "44bc2cf5ad770999",
      ["Nobody inspects the spammish repetition"] = "fbcea83c8a378bf1",
    }
    for text, hash in pairs(vectors) do
      assert.equal(hash, core.checksum(text))
      assert.equal(hash, core.checksum(text:sub(1, 2), text:sub(3)))
      assert.equal(hash, ("%016x"):format(core.hash(text)))
      local scan = core.scan()
      for char in text:gmatch "." do scan:add(char) end
      assert.equal(hash, (scan:result()))
    end
  end)

  it("counts lines that are not blank, in whatever pieces they come", function()
    for text, rows in pairs { [""] = 0, a = 1, ["a\n"] = 1, ["\n\n a\n\t\r\nb"] = 2, [" \n "] = 0 } do
      local whole, pieces = core.scan(), core.scan()
      whole:add(text)
      for char in text:gmatch "." do pieces:add(char) end
      assert.same({ rows, rows }, { select(2, whole:result()), (select(2, pieces:result())) })
    end
  end)

  it("appends, reads, cuts and syncs", function()
    support.with_file("one", function(path)
      local file <close> = assert(core.open(path, "append"))
      assert.is_true(file:write(" ", "tw", "o"))
      assert.same({ "one two", "two" }, { file:read(100, 0), file:read(3, 4) })
      assert.is_nil(file:read(10, 7))
      assert.is_true(file:truncate(3))
      assert.is_true(file:sync())
      local size, is_regular, identity = file:stat()
      assert.same({ 3, true, "string" }, { size, is_regular, type(identity) })
    end)
  end)

  it("takes more while a sync waits for the disk", function()
    support.with_file("", function(path)
      local file <close> = assert(core.open(path, "append"))
      local job = task.spawn(file.sync, file)
      task.sleep(0)
      assert.equal("waiting", job:status())
      assert.is_true(file:write "more")
      assert.equal("more", file:read(10, 0))
      assert.has_error(function() file:sync() end)
      assert.is_true(job:join())
      assert.is_true(file:sync())
      job = task.spawn(file.sync, file) -- cancelled, its thread goes on
      task.sleep(0)
      job:cancel()
      assert.is_false((pcall(job.join, job)))
      assert.is_true(file:sync())
    end)
  end)

  it("lets nobody else append", function()
    support.with_file("", function(path)
      local file <close> = assert(core.open(path, "append"))
      local other, reason = core.open(path, "append")
      assert.is_nil(other)
      assert.equal("another program writes to it", reason)
      file:close()
      core.open(path, "append"):close()
    end)
  end)

  it("says what is wrong", function()
    assert.same({ nil, "No such file or directory", 2 }, { core.open("/nowhere/x", "read") })
    assert.same({ nil, "Is a directory", 21 }, { core.open("/tmp", "append") })
    assert.same({ nil, "Is a directory", 21 }, { core.open("/tmp", "read") })
    local full <close> = assert(core.open("/dev/full", "append"))
    assert.same({ nil, "No space left on device", 28, 0 }, { full:write "x" })
    full:close()
    assert.has_error(function() full:write "x" end, "calling 'write' on bad self (the file is closed)")
    assert.has_error(function() core.open("x", "w") end)
    assert.has_error(function() core.standard(2) end)
  end)

  it("survives a limit on the size of files", function()
    support.with_file("", function(path)
      local chunk = ('local f = require("sluice.core.file").open(%q, "append")\n'
        .. 'print(f:write(("x"):rep(500)), f:write(("y"):rep(600)))'):format(path)
      local result = support.shell(("ulimit -f 1; %s -e %s"):format(
        support.quote(support.binary), support.quote(chunk)))
      assert.equal("true\tnil\tFile too large\t27\t12\n", result.out)
      assert.equal(0, result.status)
    end)
  end)

  it("waits for a pipe without holding up the others", function()
    local chunk = [[
      local task, file = require "sluice.task", require("sluice.core.file").standard(0)
      local ticks = 0
      local ticker = task.spawn(function() while true do task.sleep(0.01) ticks = ticks + 1 end end)
      io.open(..., "w"):close() -- the writer may begin
      print(file:read(100), ticks > 3, file:read(100))
      ticker:cancel()
      pcall(ticker.join, ticker)
      print(task.timeout(0.01, task.sleep, 1))]]
    local begun = os.tmpname()
    os.remove(begun)
    finally(function() os.remove(begun) end)
    local writer = "while [ ! -e %s ]; do sleep 0.01; done; sleep 0.1; echo hello"
    local result = support.shell(("{ %s; } | %s -e %s %s"):format(
      writer:format(begun), support.quote(support.binary), support.quote(chunk), begun))
    assert.matches("^hello\n\ttrue\tnil\nnil\t", result.out)
  end)
end)

describe("the lines of an input", function()
  local function read(text, max_line)
    return support.with_file(text, function(path)
      local source = assert(input.open(path, max_line or 1000))
      local found = {}
      for number, line, offset in function() return source:next() end do
        found[#found + 1] = { number, line, offset }
        if line then assert.equal(line, text:sub(offset + 1, offset + #line)) end
      end
      local identity, rows = source:identify()
      assert.same({ "file", #text, core.checksum(text) }, { identity.kind, identity.size, identity.hash })
      source:close()
      return found, rows
    end)
  end

  it("have numbers and places", function()
    local found, rows = read "a\n\n b\r\n \r\nc"
    assert.same({ { 1, "a", 0 }, { 3, " b\r", 3 }, { 5, "c", 10 } }, found)
    assert.equal(3, rows)
    assert.same({}, (read ""))
    assert.same({}, (read "\n \n"))
  end)

  it("may be longer than a buffer, to a bound", function()
    local long = ("x"):rep(200000)
    local text = "a\n" .. long .. "\nb\n"
    assert.same({ { 1, "a", 0 }, { 2, long, 2 }, { 3, "b", 200003 } }, (read(text, 200000)))
    assert.same({ { 1, "a", 0 }, { 2, false, 2 }, { 3, "b", 200003 } }, (read(text, 199999)))
    assert.same({ { 1, false, 0 } }, (read(long, 10)))
    assert.same({ { 1, false, 0 }, { 2, "ab", 5 } }, (read("abcd\nab", 3)))
  end)

  it("can be gone on with anywhere", function()
    support.with_file("one\ntwo\nthree\n", function(path)
      local source = input.open(path, 100)
      source:seek(3, 8)
      assert.same({ 3, "three", 8 }, { source:next() })
      local other = source:another()
      assert.same({ 1, "one", 0 }, { other:next() })
      assert.is_nil((source:next()))
      assert.is_nil((source:next()))
      source:close()
    end)
  end)
end)

describe("a table of rows", function()
  it("is known by its contents", function()
    local function hash_of(items) return (input.open(items, 1):identify()).hash end
    assert.equal(hash_of { { a = 1, b = 2 } }, hash_of { { b = 2, a = 1 } })
    assert.not_equal(hash_of { { a = 1 } }, hash_of { { a = 2 } })
    assert.not_equal(hash_of { "a", "b" }, hash_of { "ab" })
    local items = input.open({ "a", "b" }, 1)
    items:seek(2, 2)
    assert.same({ 2, "b", 2 }, { items:next() })
    assert.same({ 1, "a", 1 }, { items:another():next() })
  end)
end)

describe("a row", function()
  it("is read from a line", function()
    local request, id, err = row.read(3, '{"id":"x","n":1}')
    assert.same({ { n = 1 }, "x", nil }, { request, id, err })
    for item, pattern in pairs {
      ["{"] = "row 3 is no JSON", ["[1]"] = "no JSON object", ["7"] = "no JSON object",
      [false] = "longer than max_line", [7] = "no table",
    } do
      request, id, err = row.read(3, item)
      assert.is_nil(id)
      assert.is_nil(request)
      assert.matches(pattern, err.message)
      assert.equal("MalformedRow", err.kind)
    end
  end)

  it("is written as a line, and read again", function()
    local line = row.answer_line(2, "x", { a = { 2 } })
    assert.equal('{"row":2,"id":"x","response":{"a":[2]}}\n', line)
    assert.equal(2, row.parse(line:sub(1, -2)).row)
    line = row.error_line(3, nil, errors.new("NotFound", { status = 404 }))
    assert.equal("NotFound", row.parse(line:sub(1, -2)).error.kind)
    local told, err = row.answer_line(1, nil, { f = print })
    assert.equal("EndpointRaised", err.kind)
    assert.equal("EndpointRaised", row.parse(told).error.kind)
    for _, text in ipairs { "", "{}", '{"row":1}', '{"row":0,"response":1}', '{"row":1,"response":1' } do
      assert.is_nil(row.parse(text))
    end
  end)
end)

describe("a histogram", function()
  it("knows percentiles to 2.2 %", function()
    local times = histogram.new()
    assert.is_nil(times:quantile(0.5))
    assert.is_nil(times:summary())
    for n = 1, 10000 do times:add(n / 1000) end
    for _, each in ipairs { times, histogram.new(times:save()) } do
      for _, share in ipairs { 0.01, 0.5, 0.9, 0.99 } do
        local wanted = share * 10
        assert.is_true(math.abs(each:quantile(share) - wanted) <= 0.022 * wanted)
      end
      assert.same({ 10000, 10.0 }, { each.count, each:summary().max })
    end
    times:add(0)
    assert.is_true(times:quantile(0) < 2e-6)
  end)
end)

describe("the window of results", function()
  it("writes them in order, and keeps what comes early", function()
    local written, kept = {}, {}
    local sink = { write = function(_, text) written[#written + 1] = text return true end }
    local keeper = { keep = function(_, early) table.move(early, 1, #early, #kept + 1, kept) return true end }
    local results = window.new(sink, keeper, 3, 100, 0)
    for _, each in ipairs { 2, 5, 7 } do results:expect(each) end
    assert.is_false(results:has_room())
    results:put(7, "c")
    results:put(5, "b")
    assert.is_true(results:flush())
    assert.is_true(results:flush())
    assert.same({ {}, { "c", "b" }, 2, 0 }, { written, kept, results.held, results.last })
    assert.equal(2, #results:entries())
    results:put(2, "a")
    assert.is_true(results:flush())
    assert.same({ { "abc" }, { "c", "b" }, 0, 7 }, { written, kept, results.held, results.last })
    assert.is_true(results:has_room())
  end)

  it("is full by bytes as well, and stops where its sink fails", function()
    local sink = { write = function() return nil, "no" end }
    local results = window.new(sink, nil, 10, 5, 3)
    results:expect(4)
    results:expect(5)
    results:put(5, "12345")
    assert.is_true(results:flush())
    assert.is_false(results:has_room())
    results:put(4, "x")
    assert.same({ nil, "no" }, { results:flush() })
    assert.same({ 3, 2 }, { results.last, results.held })
  end)

  it("has a twin that holds nothing", function()
    local written = {}
    local results = window.direct { write = function(_, text) written[#written + 1] = text return true end }
    results:expect(1)
    results:put(2, "b")
    assert.is_true(results:flush())
    assert.same({ { "b" }, 0, 0, 0, {}, true },
      { written, results.held, results.held_bytes, results.last, results:entries(), results:has_room() })
  end)
end)

describe("the throttle", function()
  it("halves once for all that were under way", function()
    task.simulate(function()
      local limits = throttle.new(8, 16)
      local started = task.now()
      task.sleep(1)
      limits:overloaded(started)
      limits:overloaded(started)
      assert.same({ 4.0, 1 }, { limits.limit, limits.decreases })
      for _ = 1, 5 do limits:succeeded(4) end
      assert.is_true(limits.limit >= 5)
      limits:succeeded(1) -- nobody waits: no reason to grow
      task.sleep(1)
      assert.equal(1, limits:tries_before({ { status = 503 }, {} }, task.now()))
      assert.equal(2, limits.decreases)
      for _ = 1, 9 do
        task.sleep(1)
        limits:overloaded(task.now())
      end
      assert.equal(1, limits.limit)
    end)
  end)

  it("pauses as long as the longest hint, within reason", function()
    task.simulate(function()
      local limits, started = throttle.new(8, 8), task.now()
      assert.is_true(limits:pause(5))
      assert.is_false(limits:pause(4))
      assert.is_true(limits:pause(1e9))
      assert.same({ 600.0, 1 }, { limits.paused_until - started, limits.pauses })
    end)
  end)

  it("knows what nothing was done for", function()
    local function is(kind, fields) return throttle.is_refusal(errors.new(kind, fields)) end
    assert.is_true(is("TooManyRequests", { status = 429 }))
    assert.is_true(is("ResourceExhausted", { status = 400 }))
    assert.is_true(is("TemporarilyUnavailable", { status = 503 }))
    assert.is_true(is "CircuitOpen")
    assert.same({ false, false, false }, { is "NotFound", is("TimeoutError", { limit = "total" }),
      is("TooManyRequests", { status = 429, retryable = false }) })
    assert.is_false(throttle.is_refusal "no")
  end)
end)

describe("the counts of a batch", function()
  it("are saved, and counted again from lines", function()
    local counts = tally.new()
    counts:succeed({ usage = { prompt_tokens = 1, completion_tokens = 2 } }, 0.5, 0.1)
    counts:fail "NotFound"
    counts.retries = 3
    local again = tally.new(counts:save())
    assert.same(counts:save(), again:save())
    again:recount { error = { kind = "NotFound" } }
    again:recount { response = { usage = { total_tokens = 7 } } }
    assert.same({ 2, 2, { NotFound = 2 }, 10, 2 },
      { again.ok, again.failed, again.errors, again.tokens, again.output_tokens })
  end)

  it("break rules from where the run began", function()
    local counts = tally.new { ok = 5, failed = 9, tokens = 100 }
    local all = rules.new({ max_failures = 2, max_tokens = 50 }, counts)
    assert.is_nil(all:broken_by(counts))
    counts.tokens = 150
    assert.equal("max_tokens", all:broken_by(counts))
    counts.failed = 11
    assert.equal("max_failures", all:broken_by(counts))
    assert.is_nil(rules.new({}, counts):broken_by(counts))
  end)

  it("know ids that come twice", function()
    local log, seen = require "sluice.log", {}
    local previous = log.set_output(function(line) seen[#seen + 1] = line end)
    local all = rules.new({}, tally.new())
    for number, id in ipairs { "a", "b", "a", "a" } do all:note_id(id, number) end
    log.set_output(previous)
    assert.same({ 2, 1 }, { all.duplicate_ids, #seen })
    assert.matches('"before":1.*"row":3', seen[1])
  end)
end)

describe("the journal", function()
  it("gives back what it was told, as far as it is whole", function()
    support.with_file("", function(path)
      local head = { input = { hash = "x" }, order = "input" }
      local book = assert(journal.create(path, head, { next = 1 }, { "a\n" }))
      assert.is_true(book:keep { "b\n" })
      assert.is_true(book:add { next = 2 })
      assert.is_true(book:sync())
      assert.is_false(book:is_large())
      local function all()
        local results = {}
        journal.results(path, function(line) results[#results + 1] = line end)
        return results
      end
      local found = assert(journal.read(path))
      assert.same({ "x", "input", 2, { "a", "b" } },
        { found.head.input.hash, found.head.order, found.checkpoint.next, all() })
      assert.is_true(book:rewrite({ next = 3 }, { "c\n" }))
      assert.same({ 3, { "c" } }, { journal.read(path).checkpoint.next, all() })
      book:close()
      local text = support.read_file(path)
      local file = io.open(path, "wb")
      file:write(text:sub(1, -3), "!\n") -- one byte of the last record
      file:close()
      assert.same({}, all())
    end)
  end)

  it("is not there, or not ours, or of another time", function()
    assert.is_nil(journal.read "/nowhere/x")
    assert.same({ nil, nil }, { journal.read "/nowhere/x" })
    support.with_file("hello\n", function(path) assert.same({ nil, nil }, { journal.read(path) }) end)
    local function record(letter, text) return letter .. core.checksum(text, "\n") .. " " .. text .. "\n" end
    support.with_file(record("H", '{"version":2}') .. record("C", "{}"), function(path)
      local found, err = journal.read(path)
      assert.is_nil(found)
      assert.matches("of version 2", err.message)
    end)
  end)
end)

describe("what is left of a run", function()
  it("starts at the beginning where nothing is done", function()
    local plan = resume.fresh(input.open({ 1 }, 1))
    assert.same({ 1, 1, {}, {} }, { plan.next, plan.offset, plan.missing, plan.held })
    plan.missing[4] = 9
    local checkpoint = resume.checkpoint(plan, 77)
    assert.same({ 1, 77, { { 4, 9 } } }, { checkpoint.next, checkpoint.out, { checkpoint.missing[1] } })
    assert.is_function(resume.plan)
  end)
end)

describe("the files of a batch", function()
  it("are named in errors", function()
    local file, err = files.append("/nowhere/x", "write batch output")
    assert.is_nil(file)
    local text = "write batch output /nowhere/x: No such file or directory (FileError, ENOENT)"
    assert.equal(text, tostring(err))
    assert.equal("BatchConflict", files.conflict("x", "no").kind)
    assert.is_false(files.standard_output().identity == nil)
  end)

  it("are appended to whole or not at all", function()
    support.with_file("one\n", function(path)
      local file <close> = assert(files.append(path, "write"))
      assert.is_true(file:write "two\n")
      assert.same({ 8, "two\n" }, { file.size, file:read(4) })
      assert.same({ 1, "one", 0 }, { file:lines():next() })
      assert.is_true(file:cut(4))
      assert.is_true(file:sync())
      assert.is_true(task.simulate(function() return file:sync() end))
    end)
  end)
end)

describe("the workers of a batch", function()
  it("tell whether all is done", function()
    local group <close> = task.group()
    local counts = tally.new()
    local results = {}
    local sink = { write = function(_, each) results[#results + 1] = each return true end }
    local work = engine.new {
      endpoint = { query = function() return {} end }, source = input.open({ {}, {} }, 1), group = group,
      out = window.direct(sink), wants_tables = true, tally = counts, throttle = throttle.new(4, 4),
      attempts = 1, stream = false, todo = {}, rules = rules.new({}, counts),
    }
    assert.is_false(work:is_complete())
    work:grow()
    work:wait()
    assert.is_true(work:is_complete())
    assert.equal(2, #results)
    work:stop "why"
    work:cancel "not any more"
    work:fail "at all"
    assert.same({ "why", "at all", false }, { work.stopped, work.failure, work:is_complete() })
    for _, f in ipairs { lines.new, view.new, summary.of, summary.write } do assert.is_function(f) end
  end)
end)
