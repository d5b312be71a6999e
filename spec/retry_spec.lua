-- SPDX-License-Identifier: MIT
local client = require "sluice.endpoints.client"
local databricks = require "sluice.endpoints.databricks"
local errors = require "sluice.errors"
local json = require "sluice.json"
local layers = require "sluice.layers"
local meta = require "sluice.meta"
local response = require "sluice.response"
local retry = require "sluice.retry"
local task = require "sluice.task"

local function most() return 1 end -- the longest wait that jitter allows

-- A function that fails with each err in turn, then succeeds.
local function failing(...)
  local left, calls = { ... }, 0
  return function(attempt)
    calls = calls + 1
    assert.equal(calls, attempt)
    local err = table.remove(left, 1)
    if err then return nil, err end
    return { answer = 42 }
  end, function() return calls end
end

local function unavailable(fields)
  return errors.new("TemporarilyUnavailable", fields)
end

-- What policy:run gives for f, and how long it took.
local function run(options, f)
  return task.simulate(function()
    local started = task.now()
    local value, err = retry.policy(options):run(f)
    return value, err, task.now() - started
  end)
end

describe("retry.policy", function()
  it("does nothing about a success", function()
    local f, calls = failing()
    local value, err, took = run({}, f)
    assert.same({ 42, nil, 0, 1 }, { value.answer, err, took, calls() })
    assert.same({}, meta.get(value))
  end)

  it("doubles the wait up to the cap", function()
    local f, calls = failing(unavailable(), unavailable(), unavailable(), unavailable())
    local value, _, took = run({ attempts = 5, base = 1, cap = 4, random = most }, f)
    assert.equal(5, calls())
    assert.is_true(math.abs(took - (1 + 2 + 4 + 4)) < 1e-4, took)
    local attempts = meta.get(value).attempts
    assert.equal(5, #attempts)
    assert.same({ "TemporarilyUnavailable", 1.0 }, { attempts[1].kind, attempts[1].delay })
    assert.is_nil(attempts[5].kind)
    assert.is_true(math.abs(attempts[3].started - attempts[1].started - 3) < 1e-4)
  end)

  it("spreads the waits by full jitter", function()
    local least, longest = math.huge, 0
    for _ = 1, 200 do
      local f = failing(unavailable())
      local _, _, took = run({ base = 1 }, f)
      least, longest = math.min(least, took), math.max(longest, took)
    end
    assert.is_true(least < 0.1 and longest > 0.9 and longest < 1.001, least .. " " .. longest)
  end)

  it("gives the last error with every try", function()
    local f, calls = failing(unavailable { status = 503 }, unavailable(), errors.new("InternalError"))
    local value, err, took = run({ attempts = 3, base = 1, random = most }, f)
    assert.is_nil(value)
    assert.same({ "InternalError", "attempts", 3, 3 }, { err.kind, err.gave_up, #err.attempts, calls() })
    assert.equal(503, err.attempts[1].status)
    assert.is_nil(err.attempts[3].delay)
    assert.is_true(math.abs(took - 3) < 1e-4)
    assert.matches("after 3 attempts", tostring(err))
  end)

  it("leaves alone what another try will not mend", function()
    for _, err in ipairs {
      errors.new("BadRequest"), errors.new("TLSError"), errors.new("TimeoutError", { limit = "first_byte" }),
      errors.new("TruncatedStream"), errors.new("TaskCancelled", { retryable = true }), "a text",
    } do
      local f, calls = failing(err)
      local value, got = run({}, f)
      assert.is_nil(value)
      assert.equal(err, got)
      assert.equal(1, calls())
    end
  end)

  it("keeps what was decided after each try", function()
    local f = failing(unavailable { status = 503, request_id = "r-1", retry_after = 2 },
      errors.new("BadRequest", { status = 400 }))
    local _, err = run({ random = most }, f)
    local first, second = table.unpack(err.attempts)
    assert.same({ "retry", 2, "r-1", 503 },
      { first.decision, first.retry_after, first.request_id, first.status })
    assert.is_true(math.abs(first.delay - 2.2) < 1e-9)
    assert.same({ "not_retryable", "BadRequest", nil }, { second.decision, second.kind, second.delay })
    local value = run({}, failing(unavailable()))
    assert.equal("success", meta.get(value).attempts[2].decision)
  end)

  it("gives f the number of the try, and what else it was given", function()
    local seen = {}
    local value, extra = task.simulate(function()
      return retry.policy {}:run(function(attempt, a, b)
        seen[#seen + 1] = attempt .. a .. b
        if attempt < 2 then return nil, unavailable() end
        return "value", "more"
      end, "a", "b")
    end)
    assert.same({ "1ab", "2ab" }, seen)
    assert.same({ "value", "more" }, { value, extra })
  end)

  it("sends again what may have been executed only when told to", function()
    local f, calls = failing(errors.new("TimeoutError", { limit = "total" }))
    assert.is_table(run({ resend = true }, f))
    assert.equal(2, calls())
    f, calls = failing(errors.new("TimeoutError", { limit = "connect" }))
    assert.is_table(run({}, f))
    assert.equal(2, calls())
  end)

  it("says that it gave up because the work may have been done", function()
    local _, err = run({}, function() return nil, errors.new("TimeoutError", { limit = "total" }) end)
    assert.same({ "maybe_executed", 1 }, { err.gave_up, #err.attempts })
    assert.matches("%(TimeoutError, not sent again: maybe executed%)", tostring(err))
    assert.equal("maybe_executed", errors.to_table(err).gave_up)
    _, err = run({ attempts = 1 }, function() return nil, errors.new("TimeoutError", { limit = "total" }) end)
    assert.equal("attempts", err.gave_up)
    _, err = run({}, function() return nil, errors.new "BadRequest" end)
    assert.is_nil(err.gave_up)
  end)

  it("retries what retry_on says: a function, or kinds", function()
    local f, calls = failing(errors.new("BadRequest"))
    assert.is_table(run({ retry_on = function(err) return err.kind == "BadRequest" end }, f))
    assert.equal(2, calls())
    f, calls = failing(errors.new("ResourceDoesNotExist"))
    assert.is_table(run({ retry_on = { "NotFound" } }, f))
    assert.equal(2, calls())
    f, calls = failing(unavailable())
    assert.is_nil(run({ retry_on = { "NotFound" } }, f))
    assert.equal(1, calls())
    f, calls = failing(errors.new("TimeoutError"))
    assert.is_nil(run({ retry_on = { "TimeoutError" } }, f))
    assert.equal(1, calls())
  end)

  it("leaves an err that is none of ours to retry_on", function()
    local f, calls = failing("a text")
    assert.is_table(run({ retry_on = function(err) return err == "a text" end }, f))
    assert.equal(2, calls())
    f, calls = failing("a text")
    assert.is_nil(run({ retry_on = { "ServiceError" } }, f))
    assert.equal(1, calls())
  end)

  it("lets a server's plain word go before a list of kinds", function()
    local f, calls = failing(errors.new("NotFound", { should_retry = true }))
    assert.is_table(run({ retry_on = { "ServiceError" } }, f))
    assert.equal(2, calls())
    f, calls = failing(unavailable { should_retry = false })
    assert.is_nil(run({ retry_on = { "ServiceError" } }, f))
    assert.equal(1, calls())
  end)

  it("has rules for some kinds, the nearest one for each", function()
    local function limited() return errors.new "RequestLimitExceeded" end
    local options = {
      attempts = 2, base = 1, random = most,
      per_kind = {
        DatabricksError = { base = 4 },
        TooManyRequests = { attempts = 4, base = 10, cap = 20 },
        InternalError = { attempts = 1 },
      },
    }
    local f, calls = failing(limited(), limited(), limited(), limited())
    local _, err, took = run(options, f)
    assert.same({ 4, "attempts" }, { calls(), err.gave_up })
    assert.is_true(math.abs(took - (10 + 20 + 20)) < 1e-3, took)
    f, calls = failing(errors.new "DataLoss")
    assert.is_nil(run(options, f))
    assert.equal(1, calls())
    _, err, took = run(options, failing(unavailable(), unavailable()))
    assert.equal(2, #err.attempts)
    assert.is_true(math.abs(took - 4) < 1e-3, took)
  end)

  it("obeys Retry-After, and tells the hook", function()
    local seen = {}
    local f = failing(errors.new("TooManyRequests", { retry_after = 7 }))
    local _, _, took = run({ on_retry = function(...) seen = { ... } end }, f)
    assert.is_true(took >= 7 and took <= 7.5, took)
    assert.same({ "TooManyRequests", 1, took }, { seen[1].kind, seen[2], math.floor(seen[3] * 1e6) / 1e6 })
  end)

  it("refuses a hint that is too long", function()
    local f, calls = failing(unavailable { retry_after = 61 })
    local value, err, took = run({}, f)
    assert.same({ "max_hint", 0, 1 }, { err.gave_up, took, calls() })
    assert.is_nil(value)
    f, calls = failing(unavailable { retry_after = 61 })
    assert.is_table(run({ max_hint = 100 }, f))
    assert.equal(2, calls())
    f = failing(unavailable { retry_after = 20 })
    value, err, took = run({ total = 10 }, f)
    assert.is_nil(value)
    assert.same({ "total", 0 }, { err.gave_up, took })
  end)

  it("obeys or cuts a long hint when told to", function()
    for long, expected in pairs { obey = 3600, cap = 60 } do
      local f, calls = failing(unavailable { retry_after = 3600 })
      local value, _, took = run({ long_hint = long, random = function() return 0 end }, f)
      assert.is_table(value)
      assert.equal(2, calls())
      assert.is_true(math.abs(took - expected) < 1e-3, took)
      f = failing(unavailable { retry_after = 3600 })
      assert.equal("total", select(2, run({ long_hint = long, total = 30 }, f)).gave_up)
    end
  end)

  it("takes a hint that is no time for none", function()
    for _, hint in ipairs { -5, math.huge, 0 / 0, "7" } do
      local f = failing(unavailable { retry_after = hint })
      local _, _, took = run({ base = 2, random = most }, f)
      assert.is_true(math.abs(took - 2) < 1e-4, took)
    end
  end)

  it("backs off as usual when the hint is 0", function()
    local f = failing(unavailable { retry_after = 0 })
    local _, _, took = run({ base = 2, random = most }, f)
    assert.is_true(math.abs(took - 2) < 1e-4)
  end)

  it("ends within the total, the running try too", function()
    local tries = 0
    local value, err, took = run({ total = 10, attempts = 100, base = 1 }, function()
      tries = tries + 1
      task.sleep(4)
      return nil, unavailable()
    end)
    assert.is_nil(value)
    assert.is_true(took <= 10.001, took)
    assert.is_true(tries >= 2)
    assert.is_true(err.gave_up == "total" or err.kind == "TimeoutError")
    value, err, took = run({ total = 10 }, function() task.sleep(60) return true end)
    assert.is_nil(value)
    assert.same({ "TimeoutError", "total", true, 1 },
      { err.kind, err.limit, err.maybe_executed, #err.attempts })
    assert.is_true(math.abs(took - 10) < 1e-3)
    assert.matches("10 s for all tries", tostring(err))
    err = select(2, run({ total = 10, base = 1, random = most }, function(attempt)
      if attempt == 1 then return nil, unavailable { message = "busy" } end
      task.sleep(60)
    end))
    assert.matches("10 s for all tries.*because: busy %(TemporarilyUnavailable", tostring(err))
  end)

  it("never retries a cancellation, and stops waiting at once", function()
    task.simulate(function()
      local tries = 0
      local job = task.spawn(function()
        return retry.policy { base = 100, cap = 100, attempts = 9, random = most }:run(function()
          tries = tries + 1
          return nil, unavailable()
        end)
      end)
      task.sleep(1)
      job:cancel("enough")
      local ok, err = pcall(job.join, job)
      assert.is_false(ok)
      assert.equal("TaskCancelled", err.kind)
      assert.equal(1, tries)
      assert.is_true(task.now() < 50)
    end)
  end)

  it("does not outlive a deadline around it", function()
    task.simulate(function()
      local started = task.now()
      local value, err = task.timeout(5, function()
        return retry.policy { base = 100, cap = 100, random = most }:run(failing(unavailable()))
      end)
      assert.is_nil(value)
      assert.equal("TimeoutError", err.kind)
      assert.is_true(math.abs(task.now() - started - 5) < 1e-3)
      assert.same({ "TemporarilyUnavailable", 1 }, { err.cause.kind, #err.attempts })
    end)
  end)

  it("lets a fault of the program through", function()
    local ok, err = pcall(run, {}, function() error("a fault", 0) end)
    assert.is_false(ok)
    assert.matches("a fault", tostring(err))
  end)

  it("refuses kinds that there are not, under the name it was called by", function()
    for expected, misuse in pairs {
      ['retry.policy: retry_on: unknown kind "Notfound" %(did you mean "NotFound"'] = function()
        retry.policy { retry_on = { "TimeoutError", "Notfound" } }
      end,
      ['layers.retry: unknown option "attemps"'] = function() layers.retry { attemps = 3 } end,
      ['layers.retry: option "retry_on" must name kinds'] = function() layers.retry { retry_on = {} } end,
    } do
      local _, message = pcall(misuse)
      assert.matches("retry_spec.lua:%d+: " .. expected, message)
    end
    assert.is_table(retry.policy { retry_on = { "DatabricksError", "TimeoutError" } })
  end)

  it("refuses wrong options", function()
    assert.has_error(function() retry.policy { attempts = 0 } end)
    assert.has_error(function() retry.policy { budget = 5 } end)
    assert.has_error(function() retry.policy { budget = true } end)
    assert.is_table(retry.policy { budget = false })
    for expected, given in pairs {
      ['long_hint" must be "refuse", "cap" or "obey"'] = { long_hint = "ignore" },
      ['per_kind: unknown kind "NotFuond" %(did you mean "NotFound"%?%)'] = { per_kind = { NotFuond = {} } },
      ['per_kind: NotFound: unknown option "atempts" %(did you mean "attempts"'] =
        { per_kind = { NotFound = { atempts = 2 } } },
    } do
      local _, message = pcall(retry.policy, given)
      assert.matches(expected, message)
    end
    local _, message = pcall(function() retry.policy { attemps = 2 } end)
    assert.matches('retry_spec.lua:%d+: retry.policy: unknown option "attemps"', message)
  end)
end)

describe("retry.budget", function()
  it("keeps retries at a fifth of the requests", function()
    task.simulate(function()
      local budget, tries, stopped = retry.budget { burst = 3, per_second = 0 }, 0, 0
      local policy = retry.policy { attempts = 4, base = 0.001, budget = budget }
      for _ = 1, 100 do
        local _, err = policy:run(function() tries = tries + 1 return nil, unavailable() end)
        if err.gave_up == "budget" then stopped = stopped + 1 end
      end
      assert.is_true(tries >= 100 + 3 and tries <= 100 + 3 + 20, tries)
      assert.is_true(stopped >= 90)
    end)
  end)

  it("allows the first few, and saves up no storm", function()
    task.simulate(function()
      local budget = retry.budget { ratio = 1, burst = 2 }
      assert.is_true(budget:take() and budget:take())
      assert.is_false(budget:take())
      for _ = 1, 1000 do budget:add() end
      assert.equal(2, budget.left)
      local taken = 0
      while budget:take() do taken = taken + 1 end
      assert.equal(2, taken)
      assert.same({ 0, 4, 2 }, { budget.left, budget.taken, budget.refused })
      assert.equal('{"left":0,"refused":2,"taken":4}', json.encode(budget, { canonical = true }))
    end)
  end)

  it("allows some a second, however few the requests are", function()
    task.simulate(function()
      local budget = retry.budget { burst = 5, per_second = 0.5 }
      while budget:take() do end
      task.sleep(4.1)
      assert.is_true(budget:take() and budget:take())
      assert.is_false(budget:take())
      task.sleep(1000)
      for _ = 1, 5 do assert.is_true(budget:take()) end
      assert.is_false(budget:take())
    end)
  end)

  it("is not charged for what the host asked for or never saw", function()
    task.simulate(function()
      local budget = retry.budget { burst = 0 }
      for _, err in ipairs {
        errors.new("RequestLimitExceeded", { retry_after = 1 }), errors.new("QueueFull", { retry_after = 1 }),
      } do
        local f, calls = failing(err)
        retry.policy { budget = budget }:run(f)
        assert.equal(2, calls())
      end
      local _, err = retry.policy { budget = budget }:run(failing(unavailable { retry_after = 1 }))
      assert.equal("budget", err.gave_up)
      _, err = retry.policy { budget = budget }:run(failing(errors.new "TooManyRequests"))
      assert.equal("budget", err.gave_up)
    end)
  end)

  it("survives a clock that starts again", function()
    local budget = retry.budget { burst = 5, per_second = 1 }
    task.simulate(function()
      task.sleep(1000)
      while budget:take() do end
    end)
    task.simulate(function()
      assert.is_false(budget:take())
      task.sleep(1.5)
      assert.is_true(budget:take())
    end)
  end)

  it("belongs to a host, whatever its letters", function()
    assert.equal(retry.budget_of "H.example:1", retry.budget_of "h.example:1")
    assert.are_not.equal(retry.budget_of "h.example:1", retry.budget_of "h.example:2")
    assert.has_error(function() retry.budget_of(nil) end)
  end)

  it("refuses what is no share", function()
    for _, given in ipairs { { ratio = -1 }, { burst = 0 / 0 }, { per_second = math.huge }, { min = 3 } } do
      local _, message = pcall(retry.budget, given)
      assert.matches("retry_spec.lua:%d+: retry.budget: ", message)
    end
  end)
end)

describe("layers.retry", function()
  -- An endpoint that is never there, and how many calls it gets.
  local function down(host)
    local endpoint = { host = host, calls = 0 }
    function endpoint.query(self)
      self.calls = self.calls + 1
      return nil, unavailable()
    end
    return endpoint
  end

  it("multiplies no outage: all that call one host share its allowance", function()
    task.simulate(function()
      local first, second, other = down "budget.spec", down "budget.spec", down "other.spec"
      local layer = layers.retry { attempts = 10, base = 0.001 }
      local one, two, three = layer(first), layers.retry { attempts = 10, base = 0.001 }(second), layer(other)
      local started = task.now()
      for _ = 1, 200 do
        one:query {}
        two:query {}
      end
      local retries = first.calls + second.calls - 400
      local allowed = 100 + 0.2 * 400 + 10 * (task.now() - started)
      assert.is_true(retries > 150 and retries <= allowed, retries)
      assert.equal(one.retry_budget, two.retry_budget)
      assert.equal(one.retry_budget, retry.budget_of "budget.spec")
      assert.equal("budget", select(2, one:query {}).gave_up)
      three:query {}
      assert.equal(10, other.calls)
    end)
  end)

  it("takes another allowance, or none", function()
    task.simulate(function()
      local own, endpoint = retry.budget { burst = 1 }, down "own.spec"
      local wrapped = layers.retry { attempts = 5, base = 0.001, budget = own }(endpoint)
      wrapped:query {}
      assert.same({ 2, own }, { endpoint.calls, wrapped.retry_budget })
      endpoint = down "none.spec"
      wrapped = layers.retry { attempts = 500, base = 0, budget = false }(endpoint)
      wrapped:query {}
      assert.same({ 500, nil }, { endpoint.calls, wrapped.retry_budget })
      assert.is_table(layers.retry {}(down(nil)).retry_budget)
      local policy = retry.policy { budget = false }:with_budget(retry.budget { burst = 0 })
      assert.equal("budget", select(2, policy:run(failing(unavailable()))).gave_up)
    end)
  end)

  -- A serving endpoint whose streams are these texts, one after the other.
  local function streaming(...)
    local bodies, calls = { ... }, 0
    local transport = {}
    function transport:handle() -- luacheck: ignore self
      calls = calls + 1
      return response.new {
        status = 200, headers = { ["content-type"] = "text/event-stream" }, body = bodies[calls],
      }
    end
    local connection = client.new { base = "http://stream.spec", host = "stream.spec", transport = transport }
    return databricks.new(connection, "e"), function() return calls end
  end

  local OVERLOADED = 'data: {"error":{"message":"m","type":"overloaded_error"}}\n\n'
  local HELLO = 'data: {"choices":[{"index":0,"delta":{"role":"assistant","content":""}}]}\n\n'
    .. 'data: {"choices":[{"index":0,"delta":{"content":"hello"}}]}\n\n'

  it("tries a stream again that fails before its first content", function()
    task.simulate(function()
      local endpoint, calls = streaming(OVERLOADED, OVERLOADED, HELLO .. "data: [DONE]\n\n")
      local stream = assert(layers.retry {}(endpoint):stream { messages = {} })
      assert.equal("hello", assert(stream:collect()).choices[1].message.content)
      assert.equal(3, calls())
      assert.equal("ServiceError", meta.get(stream).attempts[2].kind)
      endpoint, calls = streaming(OVERLOADED, OVERLOADED, OVERLOADED)
      local none, err = layers.retry {}(endpoint):stream { messages = {} }
      assert.is_nil(none)
      assert.same({ "ServiceError", "attempts", 3, 3 }, { err.kind, err.gave_up, #err.attempts, calls() })
    end)
  end)

  it("never tries a stream again that fails after its first content", function()
    task.simulate(function()
      local endpoint, calls = streaming(HELLO .. OVERLOADED, HELLO)
      local stream = assert(layers.retry {}(endpoint):stream { messages = {} })
      local value, err = stream:collect()
      assert.is_nil(value)
      assert.same({ "ServiceError", 1 }, { err.kind, calls() })
    end)
  end)

  it("tries a query again, and a stream until it has begun", function()
    task.simulate(function()
      local log = {}
      local endpoint = {}
      for _, method in ipairs { "query", "stream" } do
        local tries = 0
        endpoint[method] = function(_, request, options)
          tries = tries + 1
          log[#log + 1] = method .. tries .. request.x .. options.request_id
          if tries < 3 then return nil, unavailable() end
          return { tries = tries }
        end
      end
      local wrapped = layers.retry { attempts = 3 }(endpoint)
      assert.equal(3, wrapped:query({ x = "a" }, { request_id = "i" }).tries)
      assert.equal(3, wrapped:stream({ x = "b" }, { request_id = "j" }).tries)
      assert.same({ "query1ai", "query2ai", "query3ai", "stream1bj", "stream2bj", "stream3bj" }, log)
    end)
  end)
end)
