-- SPDX-License-Identifier: MIT
-- Files that are not as they should be: inputs, outputs, disks.
local batch = require "sluice.batch"
local json = require "sluice.json"
local log = require "sluice.log"
local support = require "support"
local task = require "sluice.task"

local write_file = support.write_file

-- Calls f with a folder of its own, the paths in it, and a function that runs a batch there.
local function with_batch(f)
  local folder = support.shell("mktemp -d").out:gsub("\n", "")
  local at = { folder = folder, input = folder .. "/in", output = folder .. "/out", asked = 0 }
  function at.run(more)
    local given = { input = at.input, output = at.output, endpoint = { query = function(_, request)
      at.asked = at.asked + 1
      return { n = request.n }
    end } }
    for name, value in pairs(more or {}) do given[name] = value end
    return batch.run(given)
  end
  function at.rows()
    local rows = {}
    for line in io.lines(at.output) do rows[#rows + 1] = assert(json.decode(line)) end
    return rows
  end
  local ok, failure = pcall(f, at)
  os.execute("rm -rf " .. folder)
  if not ok then error(failure, 0) end
end

local function is_refused(pattern, value, err)
  assert.is_nil(value)
  assert.equal("BatchConflict", err.kind)
  assert.matches(pattern, tostring(err))
end

describe("the input of a batch", function()
  it("may be empty", function()
    with_batch(function(at)
      for _, text in ipairs { "", "\n", "\r\n \n" } do
        write_file(at.input, text)
        local summary = assert(at.run())
        assert.same({ 0, true, nil }, { summary.rows, summary.complete, summary.latency })
        assert.equal("", support.read_file(at.output))
      end
      assert.equal(0, assert(at.run { input = {}, output = at.folder .. "/other" }).rows)
    end)
  end)

  it("may have a byte order mark, CRLF, blank lines, and no end of its last line", function()
    with_batch(function(at)
      write_file(at.input, '\xEF\xBB\xBF{"n":1}\r\n\r\n  {"n":2}\r\n{"n":3}')
      assert(at.run())
      local rows = at.rows()
      assert.same({ 1, 1, 3, 2, 4, 3 },
        { rows[1].row, rows[1].response.n, rows[2].row, rows[2].response.n, rows[3].row, rows[3].response.n })
    end)
  end)

  it("may have lines that are no requests: each is a row with an error and its number", function()
    with_batch(function(at)
      write_file(at.input, '{"n":1}\n{"n":\n[1]\n"x"\n\xFF\xFE\n\0\n{"n":7}\n')
      local summary = assert(at.run())
      assert.same({ 2, 5, { MalformedRow = 5 } }, { summary.ok, summary.failed, summary.errors })
      for number, row in ipairs(at.rows()) do
        assert.equal(number, row.row)
        if number > 1 and number < 7 then
          assert.matches("^row " .. number .. " is no JSON", row.error.message)
          assert.equal("MalformedRow", row.error.kind)
        end
      end
    end)
  end)

  -- Megabytes; sanitizers keep for a while what was freed.
  local MOST <const> = os.getenv "SLUICE_SLOW" and 512 or 64

  it("may have a line of 100 MB, which is not held", function()
    with_batch(function(at)
      local file <close> = assert(io.open(at.input, "wb"))
      file:write '{"n":1}\n{"n":"'
      local piece = ("x"):rep(1 << 20)
      for _ = 1, 100 do file:write(piece) end
      file:write '"}\n{"n":3}\n'
      file:close()
      local chunk = ([[
        local batch = require "sluice.batch"
        local summary = assert(batch.run {
          endpoint = { query = function() return {} end }, input = %q, output = %q })
        local most = io.open("/proc/self/status"):read("a"):match "VmHWM:%%s*(%%d+)"
        print(summary.ok, summary.failed, tonumber(most) < %d * 1024)]]):format(at.input, at.output, MOST)
      local result = support.sluice("-e", chunk)
      assert.equal("2\t1\ttrue\n", result.out, result.err)
      assert.matches("row 2 is longer than max_line", at.rows()[2].error.message)
    end)
  end)

  it("may have an id twice: both are asked, and it is said once", function()
    with_batch(function(at)
      write_file(at.input, '{"id":"a","n":1}\n{"id":"a","n":2}\n{"id":"a","n":3}\n')
      local seen = {}
      local previous = log.set_output(function(line) seen[#seen + 1] = line end)
      local summary = assert(at.run())
      log.set_output(previous)
      assert.same({ 3, 2, 1 }, { summary.ok, summary.duplicate_ids, #seen })
      assert.matches("an id comes twice", seen[1])
    end)
  end)

  it("is named where it cannot be read", function()
    with_batch(function(at)
      local summary, err = at.run()
      assert.is_nil(summary)
      assert.same({ "FileError", "ENOENT" }, { err.kind, err.code })
      assert.matches("^read batch input .*/in: No such file", tostring(err))
      summary, err = at.run { input = at.folder }
      assert.same({ nil, "EISDIR" }, { summary, err.code })
      assert.is_nil(io.open(at.output))
    end)
  end)

  it("may be a pipe, and is never read ahead of the requests", function()
    with_batch(function(at)
      local binary = support.quote(support.binary)
      local chunk = [[
        local sluice = require "sluice"
        local function query(_, request) sluice.task.sleep(0.01) return request end
        local summary = assert(sluice.batch.run {
          input = "-", output = "-", concurrency = 2, endpoint = { query = query } })
        local complete, resumable = tostring(summary.complete), tostring(summary.resumable)
        io.stderr:write(summary.rows, " ", complete, " ", resumable, "\n")]]
      local rows = "for i in 1 2 3 4 5; do echo '{\"n\":'$i'}'; sleep 0.02; done"
      local result = support.shell(("%s | %s -e %s"):format(rows, binary, support.quote(chunk)))
      assert.equal("5 true false\n", result.err)
      assert.matches('^{"row":1,"id":null,"response":{"n":1}}\n{"row":2', result.out)
      write_file(at.input, '{"n":1}\n')
      chunk = ([[
        local function query() return {} end
        print(require("sluice").batch.run { input = %q, endpoint = { query = query } }.rows)]])
        :format(at.folder .. "/pipe")
      result = support.shell(("mkfifo %s/pipe; cat %s >%s/pipe & %s -e %s"):format(
        at.folder, at.input, at.folder, binary, support.quote(chunk)))
      assert.equal("1\n", result.out, result.err)
    end)
  end)

  it("ends the batch where it raises", function()
    local ok, message = pcall(batch.run, { endpoint = { query = function() return {} end }, input = function()
      task.sleep(0)
      error("a bug", 0)
    end })
    assert.same({ false, "a bug" }, { ok, message })
  end)
end)

describe("a batch continues", function()
  it("with nothing to do when all is done", function()
    with_batch(function(at)
      write_file(at.input, '{"n":1}\n{"n":2}\nx\n')
      local first = assert(at.run())
      local text = support.read_file(at.output)
      local again = assert(at.run())
      assert.same({ 2, text }, { at.asked, support.read_file(at.output) })
      assert.same({ 3, 2, 1, 3, true, first.errors },
        { again.rows, again.ok, again.failed, again.resumed, again.complete, again.errors })
    end)
  end)

  it("after a stop rule, with another endpoint and concurrency", function()
    for _, order in ipairs { "input", "completion" } do
      with_batch(function(at)
        write_file(at.input, ('{"n":1}\n'):rep(50))
        assert.equal("max_failures", at.run({ order = order, max_failures = 7, concurrency = 3, endpoint = {
          query = function() return nil, require("sluice.errors").new "BadRequest" end,
        } }).stopped)
        local summary = assert(at.run { order = order, concurrency = 30 })
        assert.same({ 50, true, 50 - summary.resumed }, { summary.rows, summary.complete, summary.ok })
        assert.same({ summary.resumed, summary.ok }, { summary.failed, at.asked })
      end)
    end
  end)

  it("from a table that is the same", function()
    with_batch(function(at)
      local items = {}
      for n = 1, 30 do items[n] = { id = n, n = n } end
      assert(at.run { input = items, max_tokens = 1, endpoint = { query = function()
        return { usage = { total_tokens = 1 } }
      end } })
      local summary = assert(at.run { input = items })
      assert.same({ 30, 30 - summary.resumed }, { summary.rows, at.asked })
      items[5] = { n = 0 }
      is_refused("input has changed", at.run { input = items })
    end)
  end)

  it("anew when its output was taken away", function()
    with_batch(function(at)
      write_file(at.input, '{"n":1}\n')
      assert(at.run())
      os.remove(at.output)
      write_file(at.input, '{"n":2}\n{"n":3}\n')
      assert.equal(0, at.run().resumed)
      assert.same({ 2, 3 }, { #at.rows(), at.asked })
    end)
  end)

  it("where its output was cut far behind the journal", function()
    with_batch(function(at)
      write_file(at.input, ('{"n":1}\n'):rep(20))
      assert(at.run())
      local text = support.read_file(at.output)
      write_file(at.output, text:sub(1, #text // 2))
      at.asked = 0
      local summary = assert(at.run())
      assert.same({ 20, text }, { summary.rows, support.read_file(at.output) })
      assert.is_true(at.asked <= 11)
    end)
  end)
end)

describe("a batch refuses", function()
  it("an input that has changed", function()
    with_batch(function(at)
      write_file(at.input, '{"n":1}\n{"n":2}\n')
      assert(at.run())
      for _, text in ipairs { '{"n":1}\n{"n":3}\n', '{"n":1}\n', '{"n":1}\n{"n":2}\n{"n":3}\n' } do
        write_file(at.input, text)
        is_refused("the input has changed since this output was begun", at.run())
      end
      assert.equal(2, at.asked)
    end)
  end)

  it("an output of another run, or of nothing", function()
    with_batch(function(at)
      write_file(at.input, '{"n":1}\n')
      write_file(at.output, "my notes\n")
      is_refused("has no journal", at.run())
      is_refused("it has no journal", at.run { journal = false })
      is_refused("cannot be read again", at.run { input = function() end })
      assert.equal("my notes\n", support.read_file(at.output))
      os.remove(at.output)
      assert(at.run())
      write_file(at.output, ("my notes, which are longer than a row\n"):rep(9))
      is_refused("another run", at.run())
      local row = '{"row":1,"id":null,"response":{"n":1}}\n'
      write_file(at.output, row .. row)
      is_refused("byte 39 begins a line that this batch has not written", at.run())
      write_file(at.output, row .. row:gsub("1", "2", 1))
      is_refused("byte 39 begins a line", at.run())
      is_refused("the output is the input", at.run { output = at.input })
      os.remove(at.output)
      assert(at.run { order = "completion" })
      write_file(at.output, row .. row)
      is_refused("byte 39 begins a line", at.run { order = "completion" })
    end)
  end)

  it("another order", function()
    with_batch(function(at)
      write_file(at.input, '{"n":1}\n')
      assert(at.run())
      is_refused('it was begun with order = "input"', at.run { order = "completion" })
    end)
  end)

  it("an output that another process is writing", function()
    with_batch(function(at)
      write_file(at.input, '{"n":1}\n')
      local job = task.spawn(at.run, { endpoint = { query = function() task.sleep(0.05) return {} end } })
      task.sleep(0.01)
      is_refused("another program writes to it", at.run())
      assert.equal(1, job:join().ok)
    end)
  end)
end)

describe("a disk", function()
  it("that is full ends the batch, and what was written stays", function()
    with_batch(function(at)
      write_file(at.input, ('{"n":1}\n'):rep(400))
      local summary, err = at.run { output = "/dev/full" }
      assert.is_nil(summary)
      assert.same({ "FileError", "ENOSPC", 0 }, { err.kind, err.code, err.summary.rows - err.summary.rows })
      assert.equal("write batch output /dev/full: No space left on device (FileError, ENOSPC)", tostring(err))
      for _, order in ipairs { "input", "completion" } do
        local chunk = ([[
          local sluice = require "sluice"
          local function query(_, request) sluice.task.sleep(0.001) return request end
          local summary, err = sluice.batch.run {
            input = %q, output = %q, order = %q, concurrency = 9, endpoint = { query = query } }
          print(summary, err.kind, err.code, err.summary.stopped)]]):format(at.input, at.output, order)
        local result = support.shell(("ulimit -f 8; %s -e %s"):format(
          support.quote(support.binary), support.quote(chunk)))
        assert.equal("nil\tFileError\tEFBIG\tfailed\n", result.out, result.err)
        local before = #at.rows()
        assert.is_true(before > 50 and before < 400)
        at.asked = 0
        summary = assert(at.run { order = order })
        assert.same({ 400, true }, { summary.rows, summary.complete })
        assert.is_true(at.asked >= 1 and at.asked <= 400 - before)
        assert.equal(400, #at.rows())
        os.remove(at.output)
      end
    end)
  end)

  it("or a folder that cannot be written to is named before anything is asked", function()
    with_batch(function(at)
      write_file(at.input, '{"n":1}\n')
      local summary, err = at.run { output = "/proc/none/out" }
      assert.is_nil(summary)
      assert.same({ "FileError", "ENOENT", 0 }, { err.kind, err.code, at.asked })
      summary, err = at.run { output = at.input .. "/out" }
      assert.same({ nil, "ENOTDIR", 0 }, { summary, err.code, at.asked })
      summary, err = at.run { journal = at.folder .. "/none/journal" }
      assert.same({ nil, "ENOENT", 0 }, { summary, err.code, at.asked })
      assert.matches("write batch journal", tostring(err))
    end)
  end)
end)
