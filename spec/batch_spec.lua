-- SPDX-License-Identifier: MIT
local batch = require "sluice.batch"
local errors = require "sluice.errors"
local json = require "sluice.json"
local meta = require "sluice.meta"
local stream = require "sluice.stream"
local support = require "support"
local task = require "sluice.task"

-- An endpoint that calls f(request) and counts.
local function endpoint_of(f)
  local endpoint = { asked = 0, running = 0, most = 0 }
  function endpoint:query(request, options)
    self.asked, self.running = self.asked + 1, self.running + 1
    self.most, self.options = math.max(self.most, self.running), options
    local response, err = f(request, self.asked)
    self.running = self.running - 1
    return response, err
  end
  return endpoint
end

local echo = function(request)
  return { n = request.n, usage = { prompt_tokens = 2, completion_tokens = 3 } }
end

local function requests(count)
  local list = {}
  for n = 1, count do list[n] = { id = "r" .. n, n = n } end
  return list
end

local function rows_of(text)
  local rows = {}
  for line in text:gmatch "[^\n]+" do rows[#rows + 1] = assert(json.decode(line)) end
  return rows
end

local function refusal(seconds)
  return errors.new("TooManyRequests", { status = 429, retry_after = seconds })
end

-- Runs a batch on an input of this text; gives the summary and the rows of the output.
local function run_text(text, given)
  return support.with_file(text, function(input)
    local output = os.tmpname()
    os.remove(output)
    given.input, given.output = input, output
    local summary, err = batch.run(given)
    local rows = rows_of(support.read_file(output))
    os.remove(output)
    os.remove(output .. ".journal")
    return summary, rows, err
  end)
end

describe("batch.run", function()
  it("asks every row of a table, and gives the results in its order", function()
    local endpoint = endpoint_of(function(request)
      task.sleep(request.n % 3 * 0.01)
      return echo(request)
    end)
    local summary = task.simulate(function()
      return batch.run { endpoint = endpoint, input = requests(40), concurrency = 7 }
    end)
    assert.equal(40, #summary.results)
    for n, result in ipairs(summary.results) do
      assert.same({ n, "r" .. n, n }, { result.row, result.id, result.response.n })
    end
    assert.same({ 40, 40, 0, 0, true, 7 },
      { summary.rows, summary.ok, summary.failed, summary.resumed, summary.complete, endpoint.most })
    assert.same({ total = 200, input = 80, output = 120, resumed = 0 }, summary.tokens)
    assert.same({ 0.01, 40 }, { math.floor(summary.latency.p50 * 100 + 0.5) / 100, summary.latency.count })
  end)

  it("leaves ids out of the request, and the caller's table as it is", function()
    local seen = {}
    local endpoint = endpoint_of(function(request)
      seen[#seen + 1] = request
      return {}
    end)
    local items = { { id = 1, custom_id = "b", messages = {} }, { messages = {} } }
    local summary = assert(batch.run { endpoint = endpoint, input = items, concurrency = 1 })
    assert.same({ { messages = {} }, { messages = {} } }, seen)
    assert.same({ id = 1, custom_id = "b", messages = {} }, items[1])
    assert.same({ "b", nil }, { summary.results[1].id, summary.results[2].id })
  end)

  it("writes a line for each row of a file, in its order or as they complete", function()
    local text = '{"n":1,"id":"a"}\n{"n":2}\n{"n":3,"custom_id":7}\n'
    local slow_first = function(request)
      task.sleep(0.02 / request.n)
      return { n = request.n }
    end
    local _, rows = run_text(text, { endpoint = endpoint_of(slow_first) })
    assert.same({
      { row = 1, id = "a", response = { n = 1 } },
      { row = 2, id = json.null, response = { n = 2 } },
      { row = 3, id = 7, response = { n = 3 } },
    }, rows)
    _, rows = run_text(text, { endpoint = endpoint_of(slow_first), order = "completion" })
    assert.same({ 3, 2, 1 }, { rows[1].row, rows[2].row, rows[3].row })
  end)

  it("knows the lines of OpenAI's batch files", function()
    local line = '{"custom_id":"%s","method":"%s","url":"/v1/chat/completions","body":%s}\n'
    local text = line:format("a", "POST", '{"n":1}') .. line:format("b", "GET", "{}")
      .. line:format("c", "POST", "[]")
    local _, rows = run_text(text, { endpoint = endpoint_of(echo) })
    assert.same({ "a", 1 }, { rows[1].id, rows[1].response.n })
    assert.same({ "b", "MalformedRow" }, { rows[2].id, rows[2].error.kind })
    assert.matches('row 2 asks for the method "GET"', rows[2].error.message)
    assert.matches("row 3 has a body that is no JSON object", rows[3].error.message)
  end)

  it("takes an iterator, and a function for the results", function()
    local n, results = 0, {}
    local summary = assert(batch.run {
      endpoint = endpoint_of(echo),
      input = function()
        task.sleep(0)
        n = n + 1
        return n <= 25 and { n = n } or nil
      end,
      output = function(result)
        task.sleep(0)
        results[#results + 1] = result.response.n
      end,
    })
    assert.same({ 25, true, false }, { summary.rows, summary.complete, summary.resumable })
    for index = 1, 25 do assert.equal(index, results[index]) end
  end)

  it("takes objects for the rows and for the results", function()
    local lines, n = {}, 0
    local summary = assert(batch.run {
      endpoint = endpoint_of(echo),
      input = { next = function()
        n = n + 1
        if n <= 3 then return n * 10, '{"n":1}' end
      end },
      output = { write = function(_, ...) lines[#lines + 1] = table.concat { ... } return true end },
    })
    assert.equal(3, summary.ok)
    local rows = rows_of(table.concat(lines))
    assert.same({ 10, 20, 30 }, { rows[1].row, rows[2].row, rows[3].row })
  end)

  it("makes a row of a failure, with its kind, and goes on", function()
    local summary, rows = run_text('{"n":1}\n{"n":2}\n{"n":3}\n{"n":4}\n{"n":5}\n', {
      endpoint = endpoint_of(function(request)
        if request.n == 2 then return nil, errors.new("NotFound", { status = 404, message = "nowhere" }) end
        if request.n == 3 then error "a bug" end
        if request.n == 4 then return { value = 0 / 0 } end
        if request.n == 5 then return nil end
        return {}
      end),
    })
    assert.same({ 1, 4 }, { summary.ok, summary.failed })
    assert.same({ NotFound = 1, EndpointRaised = 3 }, summary.errors)
    assert.same({ "NotFound", 404, "nowhere" },
      { rows[2].error.kind, rows[2].error.status, rows[2].error.message })
    assert.matches("a bug", rows[3].error.message)
    assert.matches("an answer that is no JSON", rows[4].error.message)
    assert.matches("the endpoint gave no answer", rows[5].error.message)
  end)

  it("passes the options of a query on", function()
    local endpoint = endpoint_of(echo)
    assert(batch.run { endpoint = endpoint, input = requests(1), options = { timeout = 3 } })
    assert.same({ timeout = 3 }, endpoint.options)
  end)

  it("counts the tries that the endpoint made by itself", function()
    local function tried(request)
      if request.n == 1 then return meta.set({}, { attempts = { {}, {}, {} } }) end
      return nil, errors.new("InternalError", { attempts = { {}, {} } })
    end
    local summary = batch.run { endpoint = endpoint_of(tried), input = requests(2) }
    assert.equal(3, summary.retries)
  end)

  it("asks for streams where it is told to, or where the request says so", function()
    local function streaming()
      return { query = function() return { plain = true } end, stream = function()
        local sent = false
        local source = {
          next = function()
            if sent then return nil end
            sent = true
            return { choices = { { index = 0, delta = { content = "hello" }, finish_reason = "stop" } } }
          end,
          close = function() end,
        }
        return stream.wrap(meta.set(source, { ttft = 0.25 }))
      end }
    end
    local summary = batch.run { endpoint = streaming(), input = { { stream = true }, {} } }
    assert.equal("hello", summary.results[1].response.choices[1].message.content)
    assert.is_true(summary.results[2].response.plain)
    assert.same({ 1, 0.25 }, { summary.ttft.count, summary.ttft.max })
    assert.equal(2, batch.run({ endpoint = streaming(), input = { {}, {} }, stream = true }).ttft.count)
  end)

  it("writes a report", function()
    support.with_file("", function(path)
      local summary = assert(batch.run { endpoint = endpoint_of(echo), input = requests(3), report = path })
      local report = assert(json.decode(support.read_file(path)))
      assert.same({ 3, summary.tokens.total, nil }, { report.rows, report.tokens.total, report.results })
    end)
    local chunk = [[require("sluice").batch.run {
      endpoint = { query = function() return {} end }, input = { {} }, report = "/dev/stderr" }]]
    local said = support.sluice("-e", chunk)
    assert.equal(1, assert(json.decode(said.err)).rows)
    assert(os.execute "test -L /dev/stderr")
    local summary, err = batch.run {
      endpoint = endpoint_of(echo), input = requests(1), report = "/nowhere/x",
    }
    assert.is_nil(summary)
    assert.same({ "FileError", "ENOENT", 1 }, { err.kind, err.code, err.summary.ok })
  end)

  it("shows how far it is", function()
    local text = ""
    task.simulate(function()
      local bar <close> = require("sluice.progress").bar {
        total = 30, output = { write = function(bytes) text = text .. bytes end }, interval = 0.1,
      }
      batch.run { endpoint = endpoint_of(function(request)
        task.sleep(0.1)
        return echo(request)
      end), input = requests(30), concurrency = 3, progress = bar }
    end)
    assert.matches("at once 3/3", text)
    assert.matches("30/30.*ok 30, failed 0.*tokens/s 1?%d%d", text)
  end)
end)

describe("what batch.run is told", function()
  local function misuse(given, pattern)
    local ok, message = pcall(batch.run, given)
    assert.is_false(ok)
    assert.matches(pattern, tostring(message))
  end

  it("is checked", function()
    local endpoint = endpoint_of(echo)
    misuse({ input = {} }, '"endpoint" is missing')
    misuse({ endpoint = endpoint }, '"input" is missing')
    misuse({ endpoint = {}, input = {} }, "has no method query")
    misuse({ endpoint = endpoint, input = {}, concurency = 3 }, 'did you mean "concurrency"')
    misuse({ endpoint = endpoint, input = {}, concurrency = 0 }, "at least 1")
    misuse({ endpoint = endpoint, input = {}, concurrency = 9, max_concurrency = 8 }, '"max_concurrency"')
    misuse({ endpoint = endpoint, input = {}, order = "random" }, '"input" or "completion"')
    misuse({ endpoint = endpoint, input = { a = 1 } }, "rows are an array")
    misuse({ endpoint = endpoint, input = {}, max_failure_share = 2 }, "from 0 to 1")
    misuse({ endpoint = endpoint, input = {}, journal = true }, "a file name or false")
  end)
end)

describe("a batch stops early", function()
  local function failing() return nil, errors.new("BadRequest", {}) end

  it("after so many failures", function()
    local endpoint = endpoint_of(failing)
    local summary = assert(batch.run {
      endpoint = endpoint, input = requests(100), max_failures = 5, concurrency = 1,
    })
    assert.same({ "max_failures", false, 5, 5 },
      { summary.stopped, summary.complete, summary.failed, endpoint.asked })
  end)

  it("at a share of failures", function()
    local endpoint = endpoint_of(function(request)
      if request.n % 4 == 0 then return failing() end
      return {}
    end)
    local given = { endpoint = endpoint, input = requests(100), max_failure_share = 0.2, concurrency = 1 }
    local summary = assert(batch.run(given))
    assert.same({ "max_failure_share", 20 }, { summary.stopped, summary.rows })
    given.max_failure_share = 0.25
    assert.is_nil(batch.run(given).stopped)
  end)

  it("when the tokens are used up", function()
    local summary = assert(batch.run {
      endpoint = endpoint_of(echo), input = requests(100), max_tokens = 49, concurrency = 1,
    })
    assert.same({ "max_tokens", 10, 50 }, { summary.stopped, summary.rows, summary.tokens.total })
  end)

  it("at its deadline, and gives up what runs", function()
    task.simulate(function()
      local started = task.now()
      local endpoint = endpoint_of(function(request)
        task.sleep(request.n == 3 and 100 or 1)
        return {}
      end)
      local summary = assert(batch.run {
        endpoint = endpoint, input = requests(100), deadline = 4.5, concurrency = 2,
      })
      assert.same({ "deadline", 4.5, 2 }, { summary.stopped, task.now() - started, #summary.results })
    end)
  end)

  it("when the host interrupts it: what runs is finished, and nothing more started", function()
    task.simulate(function()
      local endpoint, summary = endpoint_of(function()
        task.sleep(1)
        return {}
      end), nil
      local job = task.spawn(function()
        summary = batch.run { endpoint = endpoint, input = requests(100), concurrency = 4 }
        task.sleep(0)
      end)
      task.sleep(1.5)
      job:cancel "interrupted"
      local ok, err = pcall(job.join, job)
      assert.same({ false, "TaskCancelled" }, { ok, err.kind })
      assert.same({ "interrupted", 8, 8 }, { summary.stopped, summary.ok, endpoint.asked })
    end)
  end)

  it("also where the endpoint never waits", function()
    local endpoint = endpoint_of(function() return {} end)
    local n = 0
    local summary
    local job = task.spawn(function()
      summary = batch.run { endpoint = endpoint, input = function()
        n = n + 1
        return {}
      end, output = function() end }
    end)
    task.sleep(0.01)
    job:cancel "interrupted"
    job:join()
    assert.same({ "interrupted", n, n }, { summary.stopped, summary.ok, endpoint.asked })
  end)

  it("at once when its task is cancelled or out of time", function()
    task.simulate(function()
      local endpoint = endpoint_of(function()
        task.sleep(10)
        return {}
      end)
      local started = task.now()
      local value, err = task.timeout(2, batch.run, { endpoint = endpoint, input = requests(5) })
      assert.same({ nil, "TimeoutError", 2.0 }, { value, err.kind, task.now() - started })
      local job = task.spawn(batch.run, { endpoint = endpoint, input = requests(5) })
      task.sleep(1)
      job:cancel "enough"
      local ok, raised = pcall(job.join, job)
      assert.same({ false, "TaskCancelled", 3.0 }, { ok, raised.kind, task.now() - started })
    end)
  end)
end)

describe("the concurrency of a batch", function()
  it("grows while all goes well, and is halved by an overload", function()
    task.simulate(function()
      local limit = 12 -- what the server can do at a time
      local function overload() return errors.new("TemporarilyUnavailable", { status = 503 }) end
      local endpoint
      endpoint = endpoint_of(function()
        task.sleep(0.1)
        if endpoint.running > limit then return nil, overload() end
        return {}
      end)
      local summary = assert(batch.run {
        endpoint = endpoint, input = requests(2000), concurrency = 2, max_concurrency = 64, attempts = 20,
      })
      assert.same({ 2000, 0 }, { summary.ok, summary.failed })
      assert.is_true(endpoint.most > limit and endpoint.most <= limit + 4)
      assert.is_true(summary.seconds < 2000 / limit * 0.1 * 1.6, summary.seconds)
      assert.is_true(summary.retries > 0 and summary.retries < 200, summary.retries)
    end)
  end)

  it("never exceeds its bound", function()
    local endpoint = endpoint_of(function()
      task.sleep(0.01)
      return {}
    end)
    task.simulate(function()
      batch.run { endpoint = endpoint, input = requests(500), concurrency = 2, max_concurrency = 9 }
    end)
    assert.equal(9, endpoint.most)
  end)

  it("is nothing for all while the server asks for a pause", function()
    task.simulate(function()
      local asked, started = {}, task.now()
      local endpoint = endpoint_of(function(request, count)
        asked[#asked + 1] = task.now() - started
        task.sleep(0.1)
        if count == 9 then return nil, refusal(5) end
        return echo(request)
      end)
      local summary = assert(batch.run { endpoint = endpoint, input = requests(40), concurrency = 4 })
      assert.same({ 40, 0, 1, 1 }, { summary.ok, summary.failed, summary.pauses, summary.retries })
      for _, at in ipairs(asked) do assert.is_true(at < 0.31 or at >= 5.29, at) end
      assert.equal(1, summary.results[1].row)
    end)
  end)

  it("gives a row up that is refused again and again", function()
    task.simulate(function()
      local endpoint = endpoint_of(function() return nil, refusal(1) end)
      local summary = assert(batch.run { endpoint = endpoint, input = requests(2), attempts = 3 })
      assert.same({ 2, 6, "TooManyRequests" }, { summary.failed, endpoint.asked, (next(summary.errors)) })
      endpoint = endpoint_of(function() return nil, refusal(1) end)
      assert(batch.run { endpoint = endpoint, input = requests(2), attempts = 1 })
      assert.equal(2, endpoint.asked)
    end)
  end)

  it("loses nobody where a checkpoint falls between results and their line", function()
    local endpoint = endpoint_of(function()
      task.sleep(1) -- as long as from one checkpoint to the next
      return {}
    end)
    for _, order in ipairs { "input", "completion" } do
      local rows
      local function run()
        rows = select(2, run_text(('{"n":1}\n'):rep(16), {
          order = order, concurrency = 16, endpoint = endpoint,
        }))
        return true
      end
      assert(task.simulate(function() return task.timeout(60, run) end))
      assert.equal(16, #rows)
    end
  end)

  it("keeps results in order within its window", function()
    task.simulate(function()
      local endpoint
      endpoint = endpoint_of(function(request)
        task.sleep(request.n == 1 and 10 or 0.01)
        if request.n == 1 then assert.equal(20, endpoint.asked) end
        return {}
      end)
      local summary = assert(batch.run {
        endpoint = endpoint, input = requests(100), concurrency = 4, window = 20,
      })
      assert.same({ 100, {} }, { summary.ok, summary.errors })
    end)
  end)
end)
