-- SPDX-License-Identifier: MIT
local errors = require "sluice.errors"
local log = require "sluice.log"
local meta = require "sluice.meta"
local observation = require "sluice.observation"
local task = require "sluice.task"

-- An endpoint that answers with what `f(request, options)` gives, after 2 seconds.
local function endpoint_of(f)
  local function answer(_, request, options)
    task.sleep(2)
    return f(request, options)
  end
  return { name = "e", host = "h", query = answer, stream = answer }
end

-- What both functions of a layer are told while `f(endpoint)` runs around `inner`, in simulated time.
local function observed(inner, f, identify)
  local told = {}
  local layer = observation.layer {
    identify = identify,
    started = function(facts) told[#told + 1] = { "started", facts, facts.outcome } end,
    ended = function(facts) told[#told + 1] = { "ended", facts, facts.outcome } end,
  }
  task.simulate(function() f(layer(inner)) end)
  return told[1] and told[1][2], told
end

local function source_of(chunks)
  return { next = function() return table.remove(chunks, 1) end, close = function() end }
end

local function query(endpoint) endpoint:query {} end

describe("observation", function()
  it("tells of a query that succeeds", function()
    local answer = { model = "m-2", usage = { prompt_tokens = 3, completion_tokens = 4 } }
    meta.set(answer, {
      status = 200, request_id = "theirs", served_model = "s", variant = "b", attempts = { {}, {} },
      cache = { result = "miss" }, answered_by = "other", hedged = { won = 2 },
      degraded = { { error = { kind = "TooManyRequests" } } },
    })
    local request = { model = "m", messages = { { role = "user", content = "ping" } } }
    local facts, told = observed(endpoint_of(function() return answer end), function(endpoint)
      assert.equal(answer, endpoint:query(request))
    end)
    assert.same({ "started", "ended" }, { told[1][1], told[2][1] })
    assert.same({ nil, "success" }, { told[1][3], told[2][3] })
    assert.equal(facts, told[2][2])
    assert.same({ "chat", false, "e", "h", "m", "m-2", 2, 200, "theirs", "s", "b" }, {
      facts.operation, facts.streamed, facts.endpoint, facts.host, facts.model, facts.answer_model,
      facts.duration, facts.status, facts.upstream_request_id, facts.served_model, facts.variant,
    })
    assert.same({ 3, 4, 2, "miss", "other", "TooManyRequests", 2 }, {
      facts.input_tokens, facts.output_tokens, facts.attempts, facts.cache, facts.answered_by, facts.degraded,
      facts.hedged,
    })
    assert.is_true(facts.request == request and facts.value == answer)
    assert.is_number(facts.started_at)
    assert.is_nil(facts.error)
  end)

  it("tells of an err, of a raise and of a cancellation", function()
    local err = errors.new("TooManyRequests", {
      message = "slow", status = 429, code = "REQUEST_LIMIT_EXCEEDED", request_id = "theirs",
      attempts = { {}, {}, {} },
    })
    local facts = observed(endpoint_of(function() return nil, err end), function(endpoint)
      assert.same({ nil, err }, { endpoint:query {} })
    end)
    assert.same({ "error", "TooManyRequests", "REQUEST_LIMIT_EXCEEDED", 429, "theirs", 3, 2 }, {
      facts.outcome, facts.error_kind, facts.error_code, facts.status, facts.upstream_request_id,
      facts.attempts, facts.duration,
    })
    facts = observed(endpoint_of(function() error("a bug", 0) end), function(endpoint)
      assert.same({ false, "a bug" }, { pcall(endpoint.query, endpoint, {}) })
    end)
    assert.same({ "error", "Fault", "a bug", 1 },
      { facts.outcome, facts.error_kind, facts.error, facts.attempts })
    for _, method in ipairs { "query", "stream" } do
      local _, told = observed(endpoint_of(print), function(endpoint)
        local asking = task.spawn(endpoint[method], endpoint, {})
        task.sleep(1)
        asking:cancel "enough"
        assert.is_false((pcall(asking.join, asking)))
      end)
      assert.equal(2, #told)
      facts = told[2][2]
      assert.same({ "aborted", "TaskCancelled", 1 }, { facts.outcome, facts.error_kind, facts.duration })
    end
  end)

  it("tells of a stream at its end", function()
    local usage = { prompt_tokens = 1, completion_tokens = 2 }
    local facts, told = observed(endpoint_of(function()
      local source = source_of { { choices = {}, usage = usage } }
      meta.set(source, { status = 200, ttft = 0.5 })
      return source
    end), function(endpoint)
      local opened = assert(endpoint:stream { prompt = "x" })
      task.sleep(1)
      assert(opened:collect())
      opened:close()
    end)
    assert.equal(2, #told)
    assert.same({ "text_completion", true, "success", 3, 0.5, 1, 2 }, {
      facts.operation, facts.streamed, facts.outcome, facts.duration, facts.ttft, facts.input_tokens,
      facts.output_tokens,
    })
  end)

  it("tells of a stream that fails, that raises, that its reader leaves, that never opens", function()
    local function outcome_of(source, f)
      local facts, told = observed(endpoint_of(function() return source end), function(endpoint)
        f(assert(endpoint:stream {}))
      end)
      assert.equal(2, #told)
      return { facts.outcome, facts.error_kind }
    end
    local err = errors.new("TruncatedStream", { message = "cut" })
    local failing = { next = function() return nil, err end, close = function() end }
    assert.same({ "error", "TruncatedStream" },
      outcome_of(failing, function(opened) assert.is_nil((opened:collect())) end))
    local raising = { next = function() error("bug", 0) end, close = function() end }
    assert.same({ "error", "Fault" }, outcome_of(raising, function(opened) pcall(opened.next, opened) end))
    assert.same({ "aborted" }, outcome_of(source_of { {} }, function(opened) opened:close() end))
    local facts, told = observed(endpoint_of(function() return nil, err end), function(endpoint)
      assert.same({ nil, err }, { endpoint:stream {} })
    end)
    assert.same({ 2, "error" }, { #told, facts.outcome })
  end)

  it("gives each request an id, and sends it", function()
    local sent = {}
    local inner = endpoint_of(function(_, options)
      sent[#sent + 1] = options and options.request_id or "none"
      return {}
    end)
    local given = { timeout = 3 }
    local facts = observed(inner, function(endpoint) endpoint:query({}, given) end)
    assert.matches("^%x+$", facts.request_id)
    assert.same({ timeout = 3 }, given)
    assert.equal(16, #facts.request_id)
    assert.equal("mine", observed(inner, function(endpoint)
      endpoint:query({}, { request_id = "mine" })
    end).request_id)
    assert.equal("the-task's", observed(inner, function(endpoint)
      local _ <close> = log.bind { request_id = "the-task's" }
      endpoint:query {}
    end).request_id)
    for _, odd in ipairs { "a\r\nb", "a b", "", ("x"):rep(201), 7 } do
      assert.matches("^%x+$", observed(inner, function(endpoint)
        local _ <close> = log.bind { request_id = odd }
        endpoint:query {}
      end).request_id)
      table.remove(sent)
    end
    assert.is_nil(observed(inner, query, false).request_id)
    assert.same({ facts.request_id, "mine", "the-task's", "none" }, sent)
  end)

  it("names the operation, and knows the length of what a model is given", function()
    local cases = {
      { { messages = { { content = "ab" }, { content = { { text = "cde" }, { image = 1 } } } } }, "chat", 5 },
      { { prompt = "abc" }, "text_completion", 3 },
      { { prompt = { "abc", "d" } }, "text_completion", 4 },
      { { input = { "ab", "c" } }, "embeddings", 3 },
      { { input = { { role = "user", content = "abcd" } } }, "chat", 4 },
      { { dataframe_records = { { a = 1 } } }, "predict", nil },
      { { messages = 3 }, "chat", nil }, { { messages = { 1, { content = 2 } } }, "chat", 0 },
    }
    for _, case in ipairs(cases) do
      local facts = observed(endpoint_of(function() return {} end), function(endpoint)
        endpoint:query(case[1])
      end)
      assert.equal(case[2], facts.operation)
      assert.equal(case[3], observation.input_length(case[1]))
    end
    assert.is_nil(observation.input_length(nil))
    local deep = {}
    for _ = 1, 100000 do deep = { { content = deep } } end
    assert.equal(0, observation.input_length { messages = deep })
  end)

  it("is one for layers that follow each other", function()
    local told = {}
    local function layer_of(name, what)
      what.started = function(facts) told[#told + 1] = { name .. " started", facts } end
      what.ended = function(facts) told[#told + 1] = { name .. " ended", facts } end
      return observation.layer(what)
    end
    local outer, inner = layer_of("outer", { identify = false }), layer_of("inner", {})
    local shared = inner(endpoint_of(function(_, options) return { id = options.request_id } end))
    local id
    task.simulate(function()
      id = outer(shared):query({}).id
      shared:query {} -- is still one of its own
    end)
    local names = {}
    for index, each in ipairs(told) do names[index] = each[1] end
    assert.same({
      "outer started", "inner started", "inner ended", "outer ended", "inner started", "inner ended",
    }, names)
    assert.equal(told[1][2], told[2][2])
    assert.equal(id, told[1][2].request_id)
    assert.not_equal(told[1][2], told[5][2])
  end)

  it("leaves misuse to the endpoint, and checks its own", function()
    local layer = observation.layer { ended = function() end }
    local endpoint = layer { query = function(_, request) assert(type(request) == "table", "no table") end }
    assert.matches("no table", select(2, pcall(function() endpoint:query() end)).message)
    assert.has_error(function() observation.layer {} end)
    assert.has_error(function() observation.layer { ended = print, end_ed = print } end)
  end)

  it("counts no try for an answer out of a cache, and takes usage of any shape", function()
    local hit = meta.set({ usage = { input_tokens = 5, output_tokens = 6 } }, { cache = { result = "hit" } })
    local facts = observed(endpoint_of(function() return hit end), query)
    assert.same({ 0, 5, 6, "hit" }, { facts.attempts, facts.input_tokens, facts.output_tokens, facts.cache })
    facts = observed(endpoint_of(function() return "text" end), query)
    assert.same({ "success", 1 }, { facts.outcome, facts.attempts })
    facts = observed(endpoint_of(function() return { usage = "?" } end), query)
    assert.is_nil(facts.input_tokens)
  end)
end)
