-- SPDX-License-Identifier: MIT
-- A/B reports over rows in memory: verdicts, alarms, bad logs, and how they are shown.

local errors = require "sluice.errors"
local figures = require "sluice.report.figures"
local fixture = require "server_fixture"
local html = require "sluice.report.html"
local json = require "sluice.json"
local log = require "report_log"
local measures = require "sluice.report.measures"
local node = require "node_client"
local plot = require "sluice.report.plot"
local report = require "sluice.report"
local rows = require "sluice.report.rows"
local sources = require "sluice.report.sources"
local statistics = require "sluice.statistics"
local support = require "support"
local tally = require "sluice.report.tally"
local text = require "sluice.report.text"
local verdict = require "sluice.report.verdict"

local function halves(other)
  other.share = 50
  return { old = { share = 50, errors = 0.005, ttft = 50 }, new = other }
end

local function ab(source, more)
  local given = { source = source, control = "old" }
  for name, value in pairs(more or {}) do given[name] = value end
  return fixture.need(report.ab(given))
end

describe("report.ab", function()
  it("says which version is better, worse, the same, or that it is not known yet", function()
    for _, case in ipairs {
      { 2000, { errors = 0.2 }, "worse", "success rate is lower by" },
      { 2000, { errors = 0.005, median = 400 }, "worse", "take longer by" },
      { 2000, { errors = 0.2, median = 100 }, "worse", "although answers come sooner" },
      { 2000, { errors = 0.005, median = 100 }, "better", "come sooner by" },
      { 20000, { errors = 0.005 }, "no difference shown", "within what is tolerated" },
      { 1000, { errors = 0.005 }, "inconclusive", "about %d+ more requests" },
      { 150, { errors = 0.9 }, "inconclusive", "below 100 nothing is said" },
    } do
      local made = ab(log.rows(case[1], halves(case[2])))
      assert.equal(case[3], made.verdict, made.reason)
      assert.matches(case[4], made.reason)
      assert.same({ made.verdict, made.reason }, { made.comparisons[1].verdict, made.comparisons[1].reason })
    end
    local control = halves { errors = 0.005 }
    control.old.errors = 0.2
    assert.equal("better", ab(log.rows(2000, control)).verdict)
  end)

  it("counts and measures as its statistics do", function()
    local list = log.rows(1000, halves { errors = 0.1, ttft = 80 }, 7)
    local made = ab(list, { split = { old = 50, new = 50 } })
    local successes, requests, times = 0, 0, {}
    for _, row in ipairs(list) do
      if row.variant == "new" then
        requests = requests + 1
        if rows.is_success(row) then
          successes = successes + 1
          times[#times + 1] = row.execution_time_ms
        end
      end
    end
    table.sort(times)
    local its = made.variants[2]
    assert.same({ "new", requests, successes }, { its.variant, its.requests, its.successes })
    local low, high = statistics.wilson(successes, requests)
    assert.same({ value = successes / requests, low = low, high = high }, its.success)
    assert.equal(times[math.ceil(0.95 * #times)] / 1000, its.latency.p95.value)
    local rank = statistics.quantile_ranks(#times, 0.5)
    assert.equal(times[rank] / 1000, its.latency.p50.low)
    assert.same({ 101, times[1] / 1000, times[#times] / 1000 },
      { #its.latency.percentiles, its.latency.percentiles[1], its.latency.percentiles[101] })
    assert.equal(12, its.input_tokens.value)
    local limit = times[#times - 10] / 1000
    local slower, all = made:slower("new", "latency", limit)
    assert.is_true(all == #times and slower > 0 and slower <= 10)
    assert.same({ 0, 0 }, { made:slower("nobody", "ttft", 1) })
    assert.has_error(function() made:slower("new", "tokens", 1) end)
    assert.is_true(its.ttft.p50.value > 0.07 and its.ttft.p50.value < 0.09)
    local difference = made.comparisons[1]
    assert.near(its.success.value - made.variants[1].success.value, difference.success.value, 1e-12)
    assert.is_true(difference.success.always_low < difference.success.low)
    assert.is_true(difference.success.p < 0.05 and difference.latency.typical.p > 0.01)
    assert.is_true(difference.ttft.p50.low > 0)
    assert.same({ p50 = 0.5, p95 = 0.95, p99 = 0.99 }, figures.QUANTILES)
    assert.same({}, figures.difference({ tally = tally.new() }, { tally = tally.new() }, 0.95, 0.05))
    assert.equal(2, verdict.TESTS)
  end)

  it("alarms where the requests are not split as they should be", function()
    local list = log.rows(4000, { old = { share = 60 }, new = { share = 40, errors = 0.2 } })
    local made = ab(list, { split = { old = 50, new = 50 } })
    assert.is_true(made.sample_ratio.alarm)
    assert.equal("inconclusive", made.verdict)
    assert.matches("not split as they should", made.reason)
    assert.is_false(ab(list, { split = { old = 60, new = 40 } }).sample_ratio.alarm)
    assert.is_nil(ab(list).sample_ratio)
  end)

  it("compares several versions with one, and leaves out what the split does not name", function()
    local versions = { old = { share = 40 }, new = { share = 30, errors = 0.3 }, other = { share = 30 } }
    local made = ab(log.rows(3000, versions))
    assert.same({ "old", "new", "other" },
      { made.variants[1].variant, made.variants[2].variant, made.variants[3].variant })
    assert.same({ "worse", "worse" }, { made.verdict, made.comparisons[1].verdict })
    assert.matches("new.*other", made:text())
    made = ab(log.rows(3000, versions), { split = { old = 57, new = 43 } })
    assert.equal(2, #made.variants)
    assert.matches('the split does not name "other"', made.notes[1])
  end)

  it("reads iterators, times and paths in JSON", function()
    local list = log.rows(600, halves { errors = 0.5 })
    for _, row in ipairs(list) do
      row.response, row.variant = ('{"model":"%s"}'):format(row.variant), nil
    end
    local asked
    local function source(since, before)
      asked = { since, before }
      local index = 0
      return function()
        index = index + 1
        return list[index]
      end
    end
    local made = ab(source, { by = "response.model", since = 1.7e9 + 100, before = 1.7e9 + 501 })
    assert.same({ 1.7e9 + 100, 1.7e9 + 501 }, asked)
    assert.equal(401, made.variants[1].requests + made.variants[2].requests)
    local dated = {}
    for index, time in ipairs { "2026-01-31 13:05:07.250", "2026-01-31T13:05:08Z", "yesterday" } do
      dated[index] = { variant = "old", request_time = time, status_code = 200, execution_duration_ms = 5 }
    end
    local times = ab(dated, { since = 1769864707.25, before = 1769864708 })
    assert.equal(1, times.variants[1].requests)
    assert.same({ "1 row left out: no time is given" }, times.notes)
  end)

  it("reads numbers that a table without types holds as texts", function()
    local typed, texts = log.rows(200, halves { errors = 0.5 }), {}
    for index, row in ipairs(typed) do
      local copy = {}
      for name, value in pairs(row) do
        copy[name] = type(value) == "number" and ("%.17g"):format(value) or value
      end
      copy.timestamp_ms = row.timestamp_ms
      texts[index] = copy
    end
    assert.same(ab(typed).variants, ab(texts).variants)
  end)

  it("hands on what a source says, and lets faults through", function()
    local function failing() return nil, errors.new("FileError", { message = "gone" }) end
    local nothing, err = report.ab { source = failing, control = "old" }
    assert.same({ nil, "FileError" }, { nothing, err.kind })
    nothing, err = report.ab { control = "old", source = function()
      return function() error(errors.new("FileError", { message = "half" }), 0) end
    end }
    assert.same({ nil, "FileError" }, { nothing, err.kind })
    assert.has_error(function()
      report.ab { control = "old", source = function() return function() error("a fault", 0) end end }
    end, "a fault")
  end)
end)

describe("a bad log", function()
  it("that is empty, or does not know the control, is told so", function()
    local made = ab {}
    assert.same({ "inconclusive", 1, 0 }, { made.verdict, #made.variants, made.variants[1].requests })
    assert.same({ "the log has no rows in this time" }, made.notes)
    assert.is_string(made:text() .. made:json() .. made:html())
    made = ab(log.rows(500, halves {}), { control = "odl" })
    assert.equal("inconclusive", made.verdict)
    assert.matches('no request of "odl" %(the log has new, old%)', made.reason)
    made = ab({}, { split = { old = 50, new = 50 } })
    assert.matches('no request of "old"', made.reason)
    assert.is_string(made:text() .. made:html())
  end)

  it("with nulls, without columns, from a clock that was set: counted, and told", function()
    local null = json.null
    local made = ab {
      { variant = "old", status_code = 200, execution_time_ms = 10, request = null, ttft_ms = null },
      { variant = "old", status_code = null, execution_time_ms = null, error_kind = "ConnectError" },
      { variant = "old", status_code = 200, execution_time_ms = 10, error_kind = "TruncatedStream" },
      { variant = "old", status_code = 200, execution_time_ms = -5000 },
      { variant = "old", status_code = 200, execution_time_ms = 1e12 },
      { variant = "old", status_code = 200, execution_time_ms = 0 / 0 },
      { variant = "old", status_code = 200, execution_time_ms = 3, cache_result = "hit" },
      { variant = null, status_code = 200 }, { status_code = 200 }, { variant = "", status_code = 200 }, {},
    }
    local its = made.variants[1]
    assert.same({ 6, 4, 1 }, { its.requests, its.successes, its.cached })
    assert.same({ 3, 1 }, { its.unusable, its.latency.count })
    assert.same({
      "1 row of old left out: a cache answered",
      "3 times of old left out: below 0 or above a day, as a clock that is set makes them",
      "4 rows left out: no variant is named",
    }, made.notes)
    assert.is_nil(its.input_tokens)
  end)

  it("with hostile names is shown all the same", function()
    local list = log.rows(400, { old = { share = 50 }, ['<script>"\27[2J\255'] = { share = 50 } })
    local made = ab(list)
    assert.is_nil(made:text():find("[\27\255]"))
    assert.is_nil(made:html():find("<script", 1, true))
    assert.equal("&lt;a&gt; &amp; &quot;b&#39;", plot.escape "<a> & \"b'")
  end)
end)

describe("options of report.ab", function()
  it("that are wrong raise, and say what is wrong", function()
    for _, case in ipairs {
      { { source = 5 }, "source.*must be an array of rows" }, { { source = io.stdout }, "source" },
      { { control = false }, "control" },
      { { split = { old = 50, new = 60 } }, "must sum to 100, got 110" },
      { { split = { old = 110, new = -10 } }, "share of .* must be a percentage above 0" },
      { { split = { old = 100, new = 0 } }, "share of new must be a percentage above 0, got 0" },
      { { split = { odl = 50, new = 50 } }, 'does not name the control "old" %(did you mean "odl"' },
      { { split = { 50, 50 } }, "must map names" },
      { { by = "a; DROP" }, 'option "by"' }, { { by = "a..b" }, 'option "by"' },
      { { level = 95 }, "level" }, { { tolerance = { succes = 1 } }, 'did you mean "success"' },
      { { tolerance = { latency = 0 } }, "latency" }, { { minimum = 0 }, "minimum" },
    } do
      local given = { source = {}, control = "old" }
      for name, value in pairs(case[1]) do given[name] = value end
      local ok, message = pcall(report.ab, given)
      assert.is_false(ok)
      assert.matches(case[2], message)
    end
    assert.has_error(function() sources.of("report.ab", "text") end)
  end)
end)

describe("a report", function()
  local made = ab(log.rows(3000, halves { errors = 0.2, ttft = 90 }), { title = "Trial <1>" })

  it("is a table with bars, for any width and without Unicode", function()
    local shown = made:text()
    assert.equal(shown, tostring(made))
    assert.equal(shown, text.render(made))
    assert.matches("^Trial <1>, %d%d%d%d%-", shown)
    assert.matches("\nnew against old: worse\n", shown)
    assert.matches("\nsuccess rate  old +99%.%d%d %%  [%d.]+ to [%d.]+ %% +█", shown)
    assert.matches("\n +difference +%-%d+%.%d%d points ", shown)
    local wide = ab(log.rows(3000, halves { errors = 1, ttft = 90 }))
    assert.matches("\n +difference %-%d%d+%.%d%d points ", wide:text())
    for line in shown:gmatch "[^\n]+" do assert.is_true(utf8.len(line) <= 80, line) end
    assert.is_nil(made:text { unicode = false }:find "[\128-\255]")
    assert.matches("\27%[31mworse\27%[0m", made:text { color = true })
    assert.is_true(#made:text { columns = 120 } > #shown)
  end)

  it("is JSON", function()
    local plain = fixture.need(json.decode(made:json()))
    assert.same({ "worse", made.reason }, { plain.verdict, plain.reason })
    assert.equal(made.variants[2].latency.p95.value, plain.variants[2].latency.p95.value)
    assert.equal(made.comparisons[1].success.always_low, plain.comparisons[1].success.always_low)
  end)

  it("writes figures as they are read", function()
    local list = {
      measures.count(1234567), measures.count(-12), measures.seconds(0.0123), measures.seconds(1.5),
      measures.seconds(600), measures.percent(0.995),
      measures.interval({ value = 1, low = 0.5, high = 1.5 }, measures.seconds),
      measures.interval({ value = 1, low = 0.5, high = 0.7 }, measures.seconds),
      measures.interval({ value = 1, high = 0.7 }, measures.seconds),
      measures.interval({ value = 1 }, measures.seconds),
    }
    assert.same({
      "1,234,567", "-12", "12 ms", "1.50 s", "600 s", "99.50 %", "500 ms to 1.50 s", "500 to 700 ms",
      "? to 700 ms", "",
    }, list)
    local success = measures.list[1]
    assert.is_true(measures.is_known(made, success))
    assert.equal(1, measures.greatest(made, success))
    assert.equal(made:html(), html.render(made))
    assert.is_nil(plot.curves(ab {}, "ttft"))
    assert.is_nil(plot.intervals(ab {}, measures.list[2]))
    assert.matches("old.*new", plot.legend(made))
    local open = { success = { always_low = -1, always_high = 1 } }
    assert.equal("no difference shown", (verdict.of(open, { success = 1 }, 9)))
    local moments = tally.moments { count = 2, sum = 4, squares = 10 }
    assert.same({ count = 2, mean = 2, variance = 2 }, moments)
    local sum = { count = 0, sum = 0, squares = 0 }
    tally.add_tokens(sum, 3)
    tally.add_tokens(sum, "3")
    assert.same({ count = 1, sum = 3, squares = 9 }, sum)
    local counted = rows.nothing()
    tally.add_time(rows.tally_of(counted, "a"), "latency", 7.9, 2)
    assert.same({ 2, 7 }, { counted.tallies.a.latency.count, counted.tallies.a.latency:at(2) })
  end)

  local found = support.shell "command -v chromium || command -v chromium-browser || command -v google-chrome"
  local browser = found.status == 0 and found.out:match "%S+" or nil
  local why = node.missing() or not browser and "Chromium is not installed" or nil
  if why then
    pending(why, function() end)
    return
  end

  it("is a page that Chromium shows whole, and that asks for nothing", function()
    local page, screenshot = support.build .. "/ab_report.html", support.build .. "/ab_report.png"
    local file <close> = fixture.need(io.open(page, "w"))
    file:write(made:html())
    file:close()
    os.remove(screenshot)
    local folder = support.shell("pwd").out:gsub("\n", "")
    if page:sub(1, 1) ~= "/" then page = folder .. "/" .. page end
    local status, told = node.run("report_page.mjs", browser, "file://" .. page, screenshot)
    assert.equal(0, status, told)
    local seen = fixture.need(json.decode(told))
    assert.same({ "Trial <1>", {}, {}, 0 }, { seen.title, seen.problems, seen.requests, seen.scripts })
    assert.same({ "worse", true, 8 }, { seen.verdict, seen.inside, seen.plots })
    assert.is_true(seen.colors[1] ~= seen.colors[2])
    assert.equal("\x89PNG", support.read_file(screenshot):sub(1, 4))
  end)
end)
