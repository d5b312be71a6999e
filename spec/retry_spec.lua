-- SPDX-License-Identifier: MIT
local errors = require "sluice.errors"
local layers = require "sluice.layers"
local meta = require "sluice.meta"
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
    local _, message = pcall(function() retry.policy { attemps = 2 } end)
    assert.matches('retry_spec.lua:%d+: retry.policy: unknown option "attemps"', message)
  end)
end)

describe("retry.budget", function()
  it("keeps retries at a fifth of the requests", function()
    task.simulate(function()
      local budget, tries, stopped = retry.budget(), 0, 0
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
    local budget = retry.budget { ratio = 1, min = 2 }
    assert.is_true(budget:take() and budget:take())
    assert.is_false(budget:take())
    for _ = 1, 1000 do budget:add() end
    local taken = 0
    while budget:take() do taken = taken + 1 end
    assert.equal(10, taken)
  end)
end)

describe("layers.retry", function()
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
