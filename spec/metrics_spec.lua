-- SPDX-License-Identifier: MIT
-- Registries: what is counted, what is refused, how few series there are, and what Prometheus thinks of the page.

local log = require "sluice.log"
local metrics = require "sluice.metrics"
local secret = require "sluice.secret"
local support = require "support"

local has_promtool = os.execute "command -v promtool >/dev/null"
local it_checked = has_promtool and it or function(name)
  pending(name .. ": no promtool here (Debian's prometheus)", function() end)
end

-- What Prometheus' own checker says of a page; "" is good.
local function promtool(page)
  return support.with_file(page, function(path)
    local said = support.shell("promtool check metrics <" .. path)
    return said.out .. said.err .. (said.status == 0 and "" or "status " .. said.status)
  end)
end

-- The lines of log that f writes.
local function logged(f)
  local lines = {}
  local previous = log.set_output(function(line) lines[#lines + 1] = line end)
  local ok, err = pcall(f)
  log.set_output(previous)
  assert(ok, err)
  return lines
end

local function said(f, ...)
  local ok, message = pcall(f, ...)
  assert.is_false(ok)
  return tostring(message)
end

describe("a registry", function()
  it("shows what was counted", function()
    local registry = metrics.registry()
    local chats = registry:counter { name = "chats_total", help = "Chats." }
    chats:inc()
    chats:inc(2)
    chats:inc(0.5)
    local open = registry:gauge { name = "open", help = "Open \\ now.\nYes.", labels = { "room", "kind" } }
    open:labels("a", 'q"\\\n'):set(7)
    open:labels("a", 'q"\\\n'):inc()
    open:labels("b", ""):dec(3)
    open:labels("b", ""):inc(0.25)
    local wait = registry:histogram { name = "wait_seconds", help = "Wait.", buckets = { 0.1, 1, 10 } }
    for _, seconds in ipairs { 0.1, 0.05, 1, 1.5, 11, math.huge } do wait:observe(seconds) end
    assert.equal([[
# HELP chats_total Chats.
# TYPE chats_total counter
chats_total 3.5
# HELP open Open \\ now.\nYes.
# TYPE open gauge
open{room="a",kind="q\"\\\n"} 8
open{room="b"} -2.75
# HELP wait_seconds Wait.
# TYPE wait_seconds histogram
wait_seconds_bucket{le="0.1"} 2
wait_seconds_bucket{le="1"} 3
wait_seconds_bucket{le="10"} 4
wait_seconds_bucket{le="+Inf"} 6
wait_seconds_sum +Inf
wait_seconds_count 6
]], registry:text())
    assert.equal("", metrics.registry():text())
  end)

  it_checked("pleases promtool, whatever stands in labels", function()
    local registry = metrics.registry { max_series = 3 }
    local odd = registry:counter { name = "odd_total", help = "Odd\n\\ ones.", labels = { "a", "b" } }
    for _, value in ipairs { "\255\254", "new\nline", '"quoted\\"', ("é"):rep(200), "\0", "end\xC3" } do
      logged(function() odd:labels(value, true):inc() end)
    end
    registry:gauge({ name = "now_seconds", help = "Now." }):set(0 / 0)
    local sizes = registry:histogram { name = "size_bytes", help = "Sizes.", labels = { "a" },
      buckets = { 1, 2.5, 1e6, 1e21 } }
    sizes:labels("x"):observe(1e300)
    sizes:labels(200):observe(3)
    assert.equal("", promtool(registry:text()))
    assert.matches("no help text", promtool "a_total 1\n") -- it can fail
  end)

  it("gives the same series for the same values", function()
    local registry = metrics.registry()
    local family = registry:counter { name = "a_total", help = "A.", labels = { "status", "late" } }
    assert.equal(family:labels(200, true), family:labels("200", "true"))
    assert.equal(family:labels(200, true), family:labels(200, true))
    assert.not_equal(family:labels(200, true), family:labels(200, false))
    assert.equal(family:labels("\255", ""), family:labels("\254", ""))
    assert.equal(family, registry:counter { name = "a_total", help = "A.", labels = { "status", "late" } })
    assert.equal(family:labels(("x"):rep(128), 1), family:labels(("x"):rep(129), 1))
    assert.is_true(registry:has "a_total")
    assert.is_false(registry:has "b_total")
    assert.is_true(metrics.is_registry(registry))
    assert.is_false(metrics.is_registry {})
  end)

  it("counts a label without end as one series, and says so once", function()
    local registry = metrics.registry { max_series = 100 }
    local family = registry:counter { name = "a_total", help = "A.", labels = { "user", "kind" } }
    local lines = logged(function()
      for user = 1, 100000 do family:labels(user, "x"):inc() end
    end)
    assert.equal(1, #lines)
    assert.matches('"metric":"a_total"', lines[1], 1, true)
    local text = registry:text()
    assert.matches('a_total{user="other",kind="other"} 99900\n', text, 1, true)
    assert.matches('sluice_metrics_surplus_total{metric="a_total"} 99900\n', text, 1, true)
    assert.equal(102, select(2, text:gsub("\n%l[^\n]+{", "")))
    family:labels(7, "x"):inc() -- who was there before keeps counting
    assert.matches('a_total{user="7",kind="x"} 2\n', registry:text(), 1, true)
  end)

  it("reads what others count when somebody looks", function()
    local registry, rows = metrics.registry(), { { 1, "a" }, { 2, "b" }, { 3, "a" } }
    registry:gauge { name = "held", help = "Held.", labels = { "by" }, read = function(add)
      for _, row in ipairs(rows) do add(row[1], row[2]) end
    end }
    registry:counter { name = "read_total", help = "Read.", read = function(add) add(rows[1][1]) end }
    assert.matches('held{by="a"} 4\nheld{by="b"} 2\n', registry:text(), 1, true)
    assert.matches("read_total 1\n", registry:text(), 1, true)
    rows = { { 5, "b" } }
    local text = registry:text()
    assert.matches('gauge\nheld{by="b"} 5\n', text, 1, true)
  end)

  it("goes on without a metric that cannot be read, and says so once", function()
    local registry = metrics.registry()
    registry:gauge { name = "bad", help = "Bad.", read = function() error "no such thing" end }
    registry:gauge { name = "worse", help = "Worse.", read = function(add) add "x" end }
    registry:gauge({ name = "good", help = "Good." }):set(1)
    local lines = logged(function()
      for _ = 1, 3 do assert.matches("^# HELP good Good.\n# TYPE good gauge\ngood 1\n$", registry:text()) end
    end)
    assert.equal(2, #lines)
    assert.matches("no such thing", lines[1])
  end)

  it("shows no secret", function()
    local token, registry = secret.new "dapi-in-a-label", metrics.registry()
    local family = registry:counter { name = "a_total", help = "A.", labels = { "url" } }
    family:labels("http://x/?key=dapi-in-a-label"):inc()
    assert.matches('url="http://x/?key=***"', registry:text(), 1, true)
    assert.equal("***", tostring(token))
  end)
end)

describe("a metric", function()
  local registry
  before_each(function() registry = metrics.registry() end)

  local function refused(method, given)
    return said(registry[method], registry, given)
  end

  it("has a name that Prometheus takes", function()
    for _, name in ipairs { "a-b_total", "1_total", "a b_total", "requests", "a_total\n", "\195_total" } do
      assert.matches("registry:counter: a", refused("counter", { name = name, help = "A." }))
    end
    assert.matches("ends in _total", refused("gauge", { name = "x_total", help = "A." }))
    for _, name in ipairs { "x_count", "x_sum", "x_bucket" } do
      assert.matches("parts of histograms", refused("gauge", { name = name, help = "A." }))
    end
    assert.matches('option "help" is missing', refused("gauge", { name = "x" }))
    local given = { name = "x", help = "X.", lables = {} }
    assert.matches('did you mean "labels"', refused("gauge", given))
  end)

  it("has labels that Prometheus takes", function()
    local wrong = { { "a-b" }, { "__x" }, { "le" }, { "quantile" }, { 1 }, { "a", "a" }, { a = "b" }, { "" } }
    for _, labels in ipairs(wrong) do
      assert.matches("label", refused("counter", { name = "a_total", help = "A.", labels = labels }))
    end
    local family = registry:counter { name = "a_total", help = "A.", labels = { "x" } }
    assert.matches("1 values expected, .* got 2", said(family.labels, family, "a", "b"))
    assert.matches("x must be a text", said(family.labels, family, {}))
    assert.matches("x must be a text", said(family.labels, family, nil))
  end)

  it("is one of its name", function()
    registry:counter { name = "a_total", help = "A.", labels = { "x" } }
    assert.matches("another metric", refused("counter", { name = "a_total", help = "A." }))
    registry:gauge { name = "b", help = "B." }
    assert.matches("another metric", refused("histogram", { name = "b", help = "B.", buckets = { 1 } }))
  end)

  it("takes numbers only, and a counter none that is negative", function()
    local counter = registry:counter { name = "a_total", help = "A." }
    local gauge = registry:gauge { name = "g", help = "G." }
    local histogram = registry:histogram { name = "h", help = "H.", buckets = { 1, 2 } }
    for _, wrong in ipairs { -1, 0 / 0, math.huge, "1", {} } do
      local text = "counter:inc: argument 1 must be a number of at least 0"
      assert.matches(text, said(counter.inc, counter, wrong))
    end
    for _, wrong in ipairs { "1", {}, true } do
      assert.matches("gauge:set", said(gauge.set, gauge, wrong))
      assert.matches("gauge:inc", said(gauge.inc, gauge, wrong))
      assert.matches("gauge:dec", said(gauge.dec, gauge, wrong))
      assert.matches("histogram:observe", said(histogram.observe, histogram, wrong))
    end
    for _, wrong in ipairs { 0 / 0, -math.huge } do
      assert.matches("histogram:observe", said(histogram.observe, histogram, wrong))
    end
    assert.matches("metrics_spec.lua:%d+:", said(function() counter:inc(-1) end))
    assert.matches("\na_total 0\n", "\n" .. registry:text())
  end)

  it("has buckets that ascend", function()
    for _, buckets in ipairs { {}, { 2, 1 }, { 1, 1 }, { 0 / 0 }, { 1, math.huge }, { "1" } } do
      local given = { name = "h", help = "H.", buckets = buckets }
      assert.matches("bucket", refused("histogram", given))
    end
  end)
end)
