-- SPDX-License-Identifier: MIT
-- sluice top as a program of its own, before pages that others wrote: what it makes of them, and of what is none.

local figures = require "sluice.top.figures"
local fixture = require "server_fixture"
local page = require "sluice.metrics.page"
local process = require "sluice.core.process"
local sources = require "sluice.top.source"
local support = require "support"
local task = require "sluice.task"
local view = require "sluice.top.view"
local web = require "sluice.web"

local describe_served = support.needing("server", describe, pending)
local it_of_program = support.about_program(it, pending)

local function read(text)
  return assert(page.read(text))
end

describe("a page of metrics", function()
  it("is read as it was written", function()
    local found = read(table.concat({
      "# HELP a_total With words.", "# TYPE a_total counter", "",
      'a_total{x="1",y="q\\"\\\\\\n,}"} 3 1700000000', 'a_total{ x = "2" , } 4.5e2', "b NaN", "b{} -Inf",
      "c +Inf\r", 'd{le="0.5"} 1 # {trace_id="x"} 0.4 1.5', "# EOF",
    }, "\n"))
    assert.equal(6, found.count)
    assert.same({ x = "1", y = 'q"\\\n,}' }, found.samples.a_total[1].labels)
    assert.same({ ["1"] = 3, ["2"] = 450 }, found:sums("a_total", "x"))
    assert.equal(453, found:sum "a_total")
    assert.equal(math.huge, found:sum "c")
    assert.is_nil(found:sum "e")
    assert.same({ [""] = { [0.5] = 1 } }, (read('h_bucket{le="0.5"} 1'):buckets("h", "x")))
  end)

  it("is not what looks like one", function()
    local wrong = {
      "", "# HELP x y\n", "<!doctype html>\n<title>hello</title>", "{}", "a", "a{", 'a{x="1"', 'a{x="1} 2',
      "a b c",
      'a{x=1} 2', "a 1 2 3", "a{} x", '1a 2', ("\0"):rep(100),
    }
    for _, text in ipairs(wrong) do
      local found, message = page.read(text)
      assert.is_nil(found, text)
      assert.is_string(message)
      assert.is_true(#message < 100)
    end
  end)

  it("tells shares of a histogram", function()
    local counts = { [1] = 10, [2] = 30, [4] = 40, [math.huge] = 50 }
    assert.equal(1, page.quantile(counts, 0.2))
    assert.equal(1.75, page.quantile(counts, 0.5))
    assert.equal(4, page.quantile(counts, 0.99))
    assert.is_nil(page.quantile({}, 0.5))
    assert.is_nil(page.quantile({ [1] = 0, [math.huge] = 0 }, 0.5))
  end)
end)

-- A page as layers.metrics makes it: so many requests of one endpoint, half of them within 0.1 s.
local function gateway_page(count, failed)
  return ([[
sluice_requests_total{endpoint="rivers",outcome="success"} %d
sluice_requests_total{endpoint="rivers",outcome="error"} %d
sluice_active_requests{endpoint="rivers"} 3
sluice_breakers{endpoint="rivers",state="closed"} 0
sluice_breakers{endpoint="rivers",state="open"} 1
gen_ai_client_operation_duration_seconds_bucket{gen_ai_request_model="rivers",le="0.1"} %d
gen_ai_client_operation_duration_seconds_bucket{gen_ai_request_model="rivers",le="1.0"} %d
gen_ai_client_operation_duration_seconds_bucket{gen_ai_request_model="rivers",le="+Inf"} %d
gen_ai_client_operation_duration_seconds_count{gen_ai_request_model="rivers",error_type="TimeoutError"} %d
gen_ai_client_token_usage_sum{gen_ai_request_model="rivers",gen_ai_token_type="output"} %d
sluice_ab_assignments_total{endpoint="rivers",variant="a"} %d
process_start_time_seconds 1000
process_cpu_seconds_total %f
sluice_tasks 7
]]):format(count - failed, failed, count // 2, count, count, failed, count * 10, count, count / 100)
end

local function reading(text, at, tasks)
  return { page = read(text), at = 1000 + at, started = at, tasks = tasks }
end

describe("the figures of sluice top", function()
  it("are rates between two pages", function()
    local before, now = reading(gateway_page(100, 0), 10), reading(gateway_page(300, 20), 20)
    local made = figures.of(now, before)
    local row = made.endpoints[1]
    assert.same({ "rivers", 20, 2, 3, 200, "open" },
      { row.name, row.rate, row.failed, row.active, row.output, row.breaker })
    assert.same({ { name = "TimeoutError", value = 2 } }, made.errors)
    assert.same({ { name = "a", value = 20 } }, made.variants)
    assert.equal(0.1, row.p50)
    assert.is_true(math.abs(row.p99 - 0.982) < 1e-9)
    assert.is_true(math.abs(made.process.cpu - 0.2) < 1e-9)
    assert.equal(20, made.process.uptime)
  end)

  it("begin at the start where there is one page, or the program began anew", function()
    local made = figures.of(reading(gateway_page(100, 0), 10))
    assert.is_true(made.is_total)
    assert.equal(10, made.endpoints[1].rate)
    made = figures.of(reading(gateway_page(50, 0), 20), reading(gateway_page(1000, 0), 10))
    assert.equal(5, made.endpoints[1].rate)
  end)

  it("tell who waits for what", function()
    local told = { total = 3, tasks = {
      { waits_for = "http", age = 2, name = "a" }, { waits_for = "http", age = 5, name = "b" },
      { state = "ready" },
    } }
    local made = figures.of(reading("a 1", 1, told))
    assert.same({ what = "http", count = 2, oldest = 5, name = "b" }, made.waits[1])
    local text = table.concat(view.lines(made, { url = "u", width = 80, color = false }), "\n")
    assert.matches("2       5s  http  (b)", text, 1, true)
    assert.matches("no requests are counted on this page (1 samples)", text, 1, true)
  end)

  it("are lines of text that fit, whatever the page says", function()
    local odd = gateway_page(100, 5):gsub("rivers", "\27[2J\194\155rivers-of-a-very-long-name\200")
    local made = figures.of(reading(odd, 10))
    for width = 1, 130, 3 do
      local given = { url = "u\n\27[m", width = width, color = false, note = "\7" }
      for _, line in ipairs(view.lines(made, given)) do
        assert.is_nil(line:find "%c")
        assert.is_number(utf8.len(line))
      end
    end
    local wide = view.lines(made, { url = "u", width = 120, color = true })
    assert.matches("\27[31m", table.concat(wide), 1, true)
    assert.matches("breaker", table.concat(wide), 1, true)
    local narrow = table.concat(view.lines(made, { url = "u", width = 40, color = false }))
    assert.matches("p50", narrow, 1, true)
    assert.is_nil(narrow:find("breaker", 1, true))
  end)
end)

describe("the address of sluice top", function()
  it("is a URL, or as much of one as is needed", function()
    local cases = {
      ["127.0.0.1:80"] = "http://127.0.0.1:80/metrics", ["http://x"] = "http://x/metrics",
      ["http://x/v1"] = "http://x/metrics", ["https://x:1/"] = "https://x:1/metrics",
      ["http://x/a/metrics"] = "http://x/a/metrics", ["http://[::1]:8/metrics"] = "http://[::1]:8/metrics",
    }
    for given, wanted in pairs(cases) do
      assert.equal(wanted, sources.new(given, { timeout = 1 }).metrics_url)
    end
    assert.equal("http://x/a/debug/tasks", sources.new("x/a/metrics", { timeout = 1 }).tasks_url)
    for _, wrong in ipairs { "", "ftp://x", "http://", "a b", "http://x y/" } do
      assert.is_nil(sources.new(wrong, { timeout = 1 }), wrong)
    end
  end)
end)

-- What the program writes, and its status.
local function top(...)
  return assert(process.run({ support.binary, "top", ... }, 1 << 20, 1 << 20))
end

-- The same by a line of sh.
local function sh(format, ...)
  return assert(process.run({ "sh", "-c", format:format(...) }, 1 << 20, 1 << 20))
end

describe_served("sluice top", function()
  local server, answer
  before_each(function()
    local app = web.app()
    app:get("/metrics", function(request) return answer(request) end)
    app:get("/debug/tasks", web.tasks())
    server = fixture.need(app:listen "127.0.0.1:0")
  end)
  after_each(function() server:close() end)

  it("prints what happened in an interval", function()
    local looks = 0
    function answer()
      looks = looks + 1
      return gateway_page(looks * 100, looks)
    end
    local said = top("--once", "--interval=0.2", server.address)
    assert.equal(0, said.status, said.err)
    assert.matches("^sluice top   http://[%d.:]+/metrics   in %d+ms\n", said.out)
    assert.matches("\nrivers +%d+ ", said.out)
    assert.matches("TimeoutError", said.out)
    assert.matches("waiting for\n", said.out)
    assert.is_nil(said.out:find "\27")
    assert.equal(2, looks)
    said = top("--once", "--interval", "0", server.url)
    assert.matches("since its start", said.out)
    assert.equal(3, looks)
  end)

  it_of_program("prints a text for each interval until it is interrupted", function()
    function answer() return gateway_page(100, 0) end
    local command = "timeout --preserve-status -s INT 0.8 %s top --interval 0.1 %s"
    local said = sh(command, support.binary, server.address)
    assert.equal("", said.err)
    assert.equal(130, said.status)
    assert.is_true(select(2, said.out:gsub("sluice top ", "")) >= 3, said.out)
    command = "%s top --interval 0.1 %s | head -1"
    said = sh(command, support.binary, server.address)
    assert.matches("^sluice top [^\n]+\n$", said.out)
  end)

  it("says what is wrong with a page, or with where it should be", function()
    local cases = {
      ["it answers with 404"] = { status = 404, body = "no" },
      ["line 1 is no metric: <!doctype html>"] = { body = "<!doctype html>\n<title>x</title>" },
      ["there is no metric in it"] = { body = "" },
      ['line 1 is no metric: {"a": " %[2J"}'] = { body = '{"a": "\27[2J"}' },
    }
    for text, given in pairs(cases) do
      function answer() return given end
      local said = top("--once", server.address)
      assert.equal(1, said.status)
      assert.matches("^sluice top: read metrics http://[%d.:]+/metrics: .*" .. text, said.err)
      assert.equal("", said.out)
    end
    local said = top("--once", "127.0.0.1:1")
    assert.equal(1, said.status)
    assert.matches("onnect", said.err)
  end)

  it("waits for no server that hangs, and keeps what it knew", function()
    function answer() task.sleep(30) end
    local started = task.now()
    local said = top("--once", "--timeout", "0.3", server.address)
    assert.equal(1, said.status)
    assert.matches("0.3 s", said.err, 1, true)
    assert.is_true(task.now() - started < 3)
    local looks = 0
    function answer()
      looks = looks + 1
      if looks > 1 then task.sleep(30) end
      return gateway_page(100, 0)
    end
    local command = "timeout --preserve-status -s INT 1 %s top --timeout 0.1 --interval 0.1 %s"
    said = sh(command, support.binary, server.address)
    assert.matches("0.1 s[^\n]*\n\nendpoint [^\n]+\nrivers +0", said.out)
  end)

  it("shows the program that it looks at where no requests are counted", function()
    function answer() return "process_resident_memory_bytes 1048576\nother_total 5\n" end
    local said = top("--once", "--interval=0", server.address)
    assert.equal(0, said.status)
    assert.matches("\nmemory 1.0 MB\n", said.out, 1, true)
    assert.matches("no requests are counted on this page (2 samples)", said.out, 1, true)
  end)

  it("refuses arguments that it does not know", function()
    local wrong = {
      {}, { "--what", "x" }, { "a", "b" }, { "x", "--interval" }, { "x", "--interval", "y" },
      { "x", "--interval=0" }, { "x", "--timeout=0" }, { "x", "--interval=nan" }, { "ftp://x" }, { "" },
    }
    for _, words in ipairs(wrong) do
      local said = top(table.unpack(words))
      assert.equal(2, said.status, table.concat(words, " "))
      assert.matches("^sluice top: ", said.err)
    end
    local help = top "--help"
    assert.equal(0, help.status)
    assert.matches("^usage: sluice top ", help.out)
  end)
end)

describe("a batch in sluice top", function()
  it("has its own line", function()
    local text = [[
sluice_batch_results_total{result="ok"} %d
sluice_batch_results_total{result="failed"} 5
sluice_batch_rows 1000
sluice_batch_in_flight 8
sluice_batch_concurrency 16
sluice_batch_tokens_total 3000
]]
    local made = figures.of(reading(text:format(245), 20), reading(text:format(145), 10))
    local shown = table.concat(view.lines(made, { url = "u", width = 120, color = false }), "\n")
    assert.matches("batch   250 rows done of 1000 (25%)   10 rows/s   left 0:01:15   at once 8/16   5 failed",
      shown, 1, true)
  end)
end)
