-- SPDX-License-Identifier: MIT
-- layers.metrics: what it counts of requests, and what it lets be seen of the layers inside.

local errors = require "sluice.errors"
local layers = require "sluice.layers"
local log = require "sluice.log"
local meta = require "sluice.meta"
local metrics = require "sluice.metrics"
local metrics_layer = require "sluice.layers.metrics"
local names = require "sluice.metrics.names"
local pipeline = require "sluice.pipeline"
local sources = require "sluice.metrics.sources"
local stream = require "sluice.stream"
local support = require "support"
local task = require "sluice.task"

local QUESTION <const> = { messages = { { role = "user", content = "?" } } }

local has_promtool = os.execute "command -v promtool >/dev/null"

-- The value of a series whose labels include these, whatever others it has; summed.
local function value_of(registry, name, labels)
  local total
  for line in registry:text():gmatch "[^\n]+" do
    local its, value = line:match("^" .. name .. "{?([^}]*)}? (%S+)$")
    local fits = its ~= nil
    for key, wanted in pairs(labels or {}) do
      fits = fits and its:find(('%s="%s"'):format(key, wanted), 1, true) ~= nil
    end
    if fits then total = (total or 0) + tonumber(value) end
  end
  return total
end

-- An endpoint of ours: what it does with a request.
local function endpoint(query, open)
  return { name = "rivers", host = "h.example", query = function(_, ...) return query(...) end,
    stream = open and function(_, ...) return open(...) end }
end

local function answer(more)
  local made = { model = "m-1", usage = { prompt_tokens = 12, completion_tokens = 30 } }
  return meta.set(made, more or {})
end

-- A stream whose chunks come so many seconds after each other; ends with `err` where there is one.
local function chunks(pauses, err)
  local at, closed = 0, false
  return meta.set(stream.wrap {
    next = function()
      at = at + 1
      if not pauses[at] then return nil, err end
      task.sleep(pauses[at])
      local usage = { prompt_tokens = 1, completion_tokens = at }
      return { choices = { { delta = { content = "x" } } }, usage = usage }
    end,
    close = function() closed = true end,
    closed = function() return closed end,
  }, { served_model = "s-1", ttft = 0.3 })
end

local function around(registry, inner, more)
  local list = { layers.metrics { registry = registry, provider = "test" } }
  return pipeline.new(inner, table.move(more or {}, 1, #(more or {}), 2, list))
end

local DURATION <const> = names.histograms.duration.name

describe("layers.metrics", function()
  local registry
  before_each(function() registry = metrics.registry() end)

  it("counts an answer: its time, its tokens", function()
    task.simulate(function()
      local chat = around(registry, endpoint(function()
        task.sleep(0.5)
        return answer { served_model = "s-1", timing = { queue = 0.02 } }
      end))
      for _ = 1, 3 do assert(chat:query(QUESTION)) end
    end)
    local labels = {
      gen_ai_operation_name = "chat", gen_ai_provider_name = "test", gen_ai_request_model = "rivers",
      gen_ai_response_model = "s-1",
    }
    assert.equal(3, value_of(registry, DURATION .. "_count", labels))
    assert.equal(1.5, value_of(registry, DURATION .. "_sum", labels))
    labels.le = "0.32"
    assert.equal(0, value_of(registry, DURATION .. "_bucket", labels))
    labels.le = "0.64"
    assert.equal(3, value_of(registry, DURATION .. "_bucket", labels))
    local tokens = names.histograms.tokens.name .. "_sum"
    assert.equal(36, value_of(registry, tokens, { gen_ai_token_type = "input" }))
    assert.equal(90, value_of(registry, tokens, { gen_ai_token_type = "output" }))
    local good = { outcome = "success", endpoint = "rivers" }
    assert.equal(3, value_of(registry, names.counters.requests.name, good))
    assert.equal(0.06, value_of(registry, "sluice_pool_wait_seconds_sum", { endpoint = "rivers" }))
    assert.equal(0, value_of(registry, names.gauges.active.name, { endpoint = "rivers" }))
  end)

  it("counts what fails by its kind, and what raises", function()
    local chat = around(registry, endpoint(function(request)
      if request.raise then error("a bug", 0) end
      return nil, errors.new("TooManyRequests", { status = 429, message = "slow down" })
    end))
    chat:query(QUESTION)
    pcall(chat.query, chat, { raise = true })
    assert.equal(1, value_of(registry, DURATION .. "_count", { error_type = "TooManyRequests" }))
    assert.equal(1, value_of(registry, DURATION .. "_count", { error_type = "Fault" }))
    assert.equal(2, value_of(registry, "sluice_requests_total", { outcome = "error" }))
    assert.equal(0, value_of(registry, "sluice_active_requests"))
  end)

  it("takes nobody who leaves for an error", function()
    task.simulate(function()
      local chat = around(registry, endpoint(function()
        task.sleep(10)
      end, function()
        return chunks { 0, 1, 1 }
      end))
      local asking = task.spawn(chat.query, chat, QUESTION)
      task.sleep(1)
      assert.equal(1, value_of(registry, "sluice_active_requests"))
      asking:cancel "the caller left"
      pcall(asking.join, asking)
      local reading = assert(chat:stream(QUESTION))
      reading:next()
      assert.equal(1, value_of(registry, "sluice_active_requests"))
      reading:close()
    end)
    assert.equal(2, value_of(registry, "sluice_requests_total", { outcome = "aborted" }))
    assert.is_nil(value_of(registry, "sluice_requests_total", { outcome = "error" }))
    assert.is_nil(value_of(registry, DURATION .. "_count"))
    assert.equal(0, value_of(registry, "sluice_active_requests"))
  end)

  it("counts the first content of streams and the gaps between chunks", function()
    task.simulate(function()
      local chat = around(registry, endpoint(nil, function() return chunks { 0.3, 0.05, 2, 0.05 } end))
      assert(chat:stream(QUESTION):collect())
    end)
    local gap = names.histograms.gap.name
    assert.equal(3, value_of(registry, gap .. "_count", { gen_ai_response_model = "s-1" }))
    assert.is_true(math.abs(value_of(registry, gap .. "_sum") - 2.1) < 1e-9)
    assert.equal(2, value_of(registry, gap .. "_bucket", { le = "0.08" }))
    assert.equal(1, value_of(registry, names.histograms.first_chunk.name .. "_count"))
    assert.equal(0.3, value_of(registry, names.histograms.first_chunk.name .. "_sum"))
    local tokens = names.histograms.tokens.name .. "_sum"
    assert.equal(4, value_of(registry, tokens, { gen_ai_token_type = "output" }))
  end)

  it("counts streams that broke off", function()
    local broken = errors.new("TruncatedStream", { message = "cut" })
    local chat = around(registry, endpoint(nil, function() return chunks({ 0 }, broken) end))
    assert.is_nil(chat:stream(QUESTION):collect())
    assert.equal(1, value_of(registry, names.counters.truncated.name, { endpoint = "rivers" }))
    assert.equal(1, value_of(registry, DURATION .. "_count", { error_type = "TruncatedStream" }))
  end)

  it("counts variants, degraded answers, cache results and joins", function()
    task.simulate(function()
      local asked = 0
      local chat = around(registry, endpoint(function(request)
        asked = asked + 1
        task.sleep(1)
        if request.fail then return nil, errors.new("TemporarilyUnavailable", { message = "no" }) end
        return answer { variant = asked % 2 == 0 and "b" or "a" }
      end), { layers.fallback { endpoint(function() return answer() end) }, layers.cache {} })
      task.map({ 1, 2, 3 }, function() return chat:query(QUESTION) end)
      chat:query(QUESTION)
      chat:query { prompt = "x" }
      chat:query { prompt = "x", fail = true }
    end)
    local results = { hit = 1, join = 2, miss = 2 }
    for result, count in pairs(results) do
      assert.equal(count, value_of(registry, names.counters.cache.name, { result = result }), result)
    end
    assert.equal(1, value_of(registry, names.counters.assignments.name, { variant = "a" }))
    assert.equal(1, value_of(registry, names.counters.assignments.name, { variant = "b" }))
    local degraded = { error_type = "TemporarilyUnavailable" }
    assert.equal(1, value_of(registry, names.counters.degraded.name, degraded))
    assert.equal(2, value_of(registry, DURATION .. "_count", { gen_ai_operation_name = "text_completion" }))
  end)

  it("lets breakers, budgets, hedges and limits be seen", function()
    task.simulate(function()
      local fails = true
      local chat = around(registry, endpoint(function()
        task.sleep(fails and 0 or 2)
        if not fails then return answer() end
        return nil, errors.new("InternalError", { status = 500, message = "no", retryable = true })
      end), {
        layers.breaker { minimum = 2, cooldown = 5 }, layers.retry { attempts = 2, base = 0.1 },
        layers.hedge { delay = 1 }, layers.limit { rate = 1, burst = 1 },
      })
      chat:query(QUESTION)
      assert.equal(1, value_of(registry, "sluice_breakers", { state = "closed", endpoint = "rivers" }))
      assert.equal(1, value_of(registry, names.counters.retries.name))
      local taken = { host = "h.example", result = "taken" }
      assert.equal(1, value_of(registry, "sluice_retry_budget_total", taken))
      chat:query(QUESTION)
      chat:query(QUESTION)
      assert.equal(1, value_of(registry, "sluice_breakers", { state = "open" }))
      assert.equal(0, value_of(registry, "sluice_breakers", { state = "closed" }))
      assert.equal(1, value_of(registry, "sluice_breaker_opened_total"))
      assert.equal(1, value_of(registry, "sluice_breaker_refused_total"))
      assert.equal(1, value_of(registry, DURATION .. "_count", { error_type = "CircuitOpen" }))
      task.sleep(10)
      fails = false
      assert(chat:query(QUESTION))
      assert.is_true(value_of(registry, "sluice_hedges_total", { result = "sent" }) >= 1)
      assert.equal(0, value_of(registry, "sluice_hedges_total", { result = "won" }))
      assert.is_true(value_of(registry, "sluice_limiter_waits_total") >= 1)
      assert.is_true(value_of(registry, "sluice_limiter_wait_seconds_total") > 0.5)
      assert.equal(0, value_of(registry, "sluice_limiter_waiting"))
      assert.is_true(value_of(registry, "sluice_retry_budget_left") < 100)
      assert.is_string(chat.name)
    end)
  end)

  it("counts what several endpoints share once, and nothing that is gone", function()
    local shared = layers.breaker {}
    for _ = 1, 3 do sources.add(registry, shared(endpoint(function() end))) end
    local own = layers.breaker {} (endpoint(function() end))
    sources.add(registry, own)
    sources.add(registry, { name = "odd", breaker = "none", hedges = setmetatable({}, { __index = error }) })
    sources.add(registry, setmetatable({}, { __index = function() error "strict" end }))
    assert.equal(2, value_of(registry, "sluice_breakers", { state = "closed" }))
    own = own.none -- lets go of it
    collectgarbage()
    collectgarbage()
    assert.is_nil(own)
    assert.equal(1, value_of(registry, "sluice_breakers", { state = "closed" }))
  end)

  it("keeps to few series, whatever servers call their models", function()
    registry = metrics.registry { max_series = 5 }
    local count = 0
    local chat = around(registry, endpoint(function()
      count = count + 1
      return answer { served_model = "model-" .. count }
    end))
    local previous = log.set_output(function() end)
    for _ = 1, 100 do chat:query(QUESTION) end
    log.set_output(previous)
    assert.equal(95, value_of(registry, DURATION .. "_count", { gen_ai_response_model = "other" }))
    assert.equal(100, value_of(registry, "sluice_requests_total"))
  end)

  if has_promtool then
    it("pleases promtool", function()
      require("sluice.metrics.runtime").add(registry)
      local chat = around(registry, endpoint(function()
        return answer { variant = "a" }
      end, function()
        return chunks { 0, 0 }
      end), { layers.breaker {}, layers.retry {}, layers.hedge { delay = 1 }, layers.limit { rate = 100 } })
      assert(chat:query(QUESTION))
      assert(chat:stream(QUESTION):collect())
      support.with_file(registry:text(), function(path)
        local said = support.shell("promtool check metrics <" .. path)
        assert.same({ "", "", 0 }, { said.out, said.err, said.status })
      end)
    end)
  else
    pending "pleases promtool: it is not here (Debian's prometheus)"
  end

  it("needs a registry", function()
    for _, wrong in ipairs { {}, { registry = {} }, { registry = registry, provider = "" }, { x = 1 } } do
      assert.has_error(function() layers.metrics(wrong) end)
    end
    assert.equal(metrics_layer, layers.metrics)
    assert.has_error(function() layers.metrics() end)
  end)
end)
