-- SPDX-License-Identifier: MIT
local errors = require "sluice.errors"
local headers = require "sluice.headers"
local layers = require "sluice.layers"
local memory = require "sluice.limit.memory"
local meta = require "sluice.meta"
local response = require "sluice.response"
local task = require "sluice.task"

-- An endpoint that notes when it is asked; `answer(count)` may give an err.
local function endpoint_noting(times, answer)
  return {
    name = "e",
    query = function(_, request)
      times[#times + 1] = { at = task.now(), id = request.id }
      local err = answer and answer(#times)
      if err then return nil, err end
      return { id = request.id }
    end,
  }
end

local function too_many(seconds)
  return errors.new("TooManyRequests", { status = 429, retry_after = seconds })
end

-- For pauses without chance.
local function never() return 0 end

local function rounded(numbers)
  local list = {}
  for index, number in ipairs(numbers) do list[index] = math.floor(number * 1000 + 0.5) / 1000 end
  return list
end

local function near(expected, actual)
  assert.is_true(math.abs(expected - actual) < 1e-3, ("%g expected, got %g"):format(expected, actual))
end

describe("layers.limit", function()
  it("lets the burst through at once and the rest at the rate, in order", function()
    task.simulate(function()
      local times, started = {}, task.now()
      local limited = layers.limit { rate = 10, burst = 5 }(endpoint_noting(times))
      task.scope(function()
        for id = 1, 20 do task.spawn(function() limited:query { id = id } end) end
      end)
      for index, entry in ipairs(times) do
        assert.equal(index, entry.id)
        near(math.max(0, (index - 5) / 10), entry.at - started)
      end
      local limiter = limited.limiter
      assert.same({ 10, 20, 15, 0, 0, 0 },
        { limiter.rate, limiter.passed, limiter.waited, limiter.waiting, limiter.refused, limiter.pauses })
      near((1 + 15) * 15 / 2 / 10, limiter.waited_seconds)
    end)
  end)

  it("lets nobody overtake one who waits", function()
    task.simulate(function()
      local times = {}
      local limited = layers.limit { rate = 1, burst = 1 }(endpoint_noting(times))
      limited:query { id = 1 }
      task.scope(function()
        task.spawn(function()
          task.sleep(1) -- the moment at which the token is there
          limited:query { id = 3 }
        end)
        task.spawn(function() limited:query { id = 2 } end)
      end)
      assert.same({ 1, 2, 3 }, { times[1].id, times[2].id, times[3].id })
    end)
  end)

  it("saves up a burst in a rest, not more", function()
    task.simulate(function()
      local times = {}
      local limited = layers.limit { rate = 2 }(endpoint_noting(times))
      task.sleep(100)
      local started = task.now()
      for id = 1, 4 do limited:query { id = id } end
      near(1, task.now() - started)
    end)
  end)

  it("shares the rate among the endpoints it is put around", function()
    task.simulate(function()
      local times, started = {}, task.now()
      local layer = layers.limit { rate = 1 }
      local a, b = layer(endpoint_noting(times)), layer(endpoint_noting(times))
      a:query { id = 1 }
      b:query { id = 2 }
      near(1, task.now() - started)
    end)
  end)

  it("shuts the gate for as long as a 429 says", function()
    task.simulate(function()
      local times, started = {}, task.now()
      local limited = layers.limit { rate = 100, burst = 50 }(endpoint_noting(times, function(count)
        if count == 1 then return errors.new("TooManyRequests", { status = 429, retry_after = 30 }) end
      end))
      local _, err = limited:query { id = 1 }
      assert.equal("TooManyRequests", err.kind)
      task.scope(function()
        for id = 2, 5 do task.spawn(function() limited:query { id = id } end) end
      end)
      for index = 2, 5 do near(30 + (index - 2) / 100, times[index].at - started) end
      assert.equal(1, limited.limiter.pauses)
    end)
  end)

  it("does not believe a pause that is too long", function()
    task.simulate(function()
      local times = {}
      local limited = layers.limit { rate = 100, max_pause = 5 }(endpoint_noting(times, function(count)
        if count == 1 then return too_many(1e9) end
      end))
      for id = 1, 2 do limited:query { id = id } end
      near(5, times[2].at)
    end)
  end)

  it("pauses by itself where a 429 has no time, longer while they go on", function()
    task.simulate(function()
      local times = {}
      local refused = { true, true, true, true, true, false, true, true }
      local limited = layers.limit { random = never, max_pause = 10 }(endpoint_noting(times, function(count)
        if refused[count] then return too_many(count == 2 and 0 or nil) end
      end))
      for id = 1, 9 do limited:query { id = id } end
      local waits = {}
      for index = 2, 9 do waits[index - 1] = times[index].at - times[index - 1].at end
      assert.same({ 1, 2, 4, 8, 10, 0, 1, 2 }, rounded(waits))
      assert.equal(7, limited.limiter.pauses)
    end)
  end)

  it("lets one 429 hold all tasks back, and those under way not make it longer", function()
    task.simulate(function()
      local times, asked = {}, 0
      local limited = layers.limit { random = never } {
        query = function()
          asked = asked + 1
          times[asked] = task.now()
          local mine = asked
          task.sleep(mine / 10) -- the answers come one after the other, the first pause is there already
          if mine <= 5 then return nil, too_many(mine == 3 and 2 or nil) end
          return {}
        end,
      }
      task.scope(function()
        for _ = 1, 5 do task.spawn(function() limited:query {} end) end
        task.sleep(0.15) -- the first refusal is at 0.1
        for _ = 1, 3 do task.spawn(function() limited:query {} end) end
      end)
      -- 0.1 + 1 from the first; 0.3 + 2 from the third, which is later; the others add nothing
      assert.same({ 0, 0, 0, 0, 0, 2.3, 2.3, 2.3 }, rounded(times))
      assert.equal(2, limited.limiter.pauses)
    end)
  end)

  it("turns away what the queue has no place or no time for", function()
    task.simulate(function()
      local times = {}
      local limited = layers.limit { rate = 1, burst = 1, max_queue = 2, queue_timeout = 1.5 }(
        endpoint_noting(times))
      local results = task.map({ 1, 2, 3, 4 }, function(id) return limited:query { id = id } end)
      assert.is_true(results[1].ok and results[2].ok)
      local late, full = results[3].error, results[4].error
      assert.same({ "TimeoutError", "queue" }, { late.kind, late.limit })
      assert.is_nil(late.maybe_executed)
      assert.is_true(late.retryable)
      assert.same({ "QueueFull", 3 }, { full.kind, full.retry_after })
      assert.matches("query e: waited 1.5 s for the limit of 1 requests a second", tostring(late))
      assert.same({ 2, 2, 0 }, { limited.limiter.passed, limited.limiter.refused, limited.limiter.waiting })
    end)
  end)

  it("gives its place back when the one who waits is cancelled", function()
    task.simulate(function()
      local times, started = {}, task.now()
      local limited = layers.limit { rate = 1, burst = 1 }(endpoint_noting(times))
      limited:query { id = 1 }
      local waits = task.spawn(function() limited:query { id = 2 } end)
      local next_one = task.spawn(function() limited:query { id = 3 } end)
      task.sleep(0.5)
      assert.equal(2, limited.limiter.waiting)
      waits:cancel()
      pcall(waits.join, waits)
      next_one:join()
      near(1, times[2].at - started)
      assert.equal(3, times[2].id)
      assert.equal(0, limited.limiter.waiting)
    end)
  end)

  it("counts streams as well", function()
    task.simulate(function()
      local started = task.now()
      local function none() return nil end
      local limited = layers.limit { rate = 1 } { query = none, stream = function()
        return { next = none, close = none }
      end }
      limited:stream {}
      limited:stream {}
      near(1, task.now() - started)
    end)
  end)

  it("refuses a rate that is none", function()
    for _, rate in ipairs { 0, -1, math.huge, 0 / 0 } do
      assert.has_error(function() layers.limit { rate = rate } end)
    end
    local _, message = pcall(function() layers.limit { rat = 1 } end)
    assert.matches('limit_spec.lua:%d+: layers.limit: unknown option "rat" %(did you mean "rate"', message)
    _, message = pcall(function() layers.limit { rate = 1, period = 5 } end)
    assert.matches('limit_spec.lua:%d+: layers.limit: "period" goes with "requests" or "tokens"', message)
  end)

  it("shows its counts in JSON", function()
    local endpoint = layers.limit { rate = 5 } { query = function() return {} end }
    endpoint:query {}
    assert.equal('{"passed":1,"pauses":0,"rate":5,"refused":0,"waited":0,"waited_seconds":0,"waiting":0}',
      require("sluice.json").encode(endpoint.limiter, { canonical = true }))
  end)
end)

-- An endpoint whose answers take `seconds` and tell what they took; notes when it was asked.
local function model(given)
  local times = {}
  return {
    times = times,
    name = "m",
    query = function(_, request)
      times[#times + 1] = task.now()
      task.sleep(given.seconds or 0)
      local answer, err = given.answer(#times, request)
      if answer == nil then return nil, err end
      return meta.set(answer, { headers = headers.new(given.headers and given.headers(#times) or {}) })
    end,
  }
end

local function ask_all(limited, count, request)
  task.scope(function()
    for _ = 1, count do task.spawn(function() limited:query(request or {}) end) end
  end)
end

describe("layers.limit: requests and tokens in a period", function()
  local function most_within(times, period)
    local most = 0
    for first = 1, #times do
      local count = 0
      for index = first, #times do
        if times[index] < times[first] + period - 1e-6 then count = count + 1 end
      end
      most = math.max(most, count)
    end
    return most
  end

  it("lets no more than so many requests through in any period", function()
    task.simulate(function()
      local endpoint = model { answer = function() return {} end }
      local limited = layers.limit { requests = 10, period = 60 }(endpoint)
      task.sleep(30)
      ask_all(limited, 35)
      assert.equal(10, most_within(endpoint.times, 60))
      near(30, endpoint.times[10])
      near(90, endpoint.times[11])
      near(30 + 180, endpoint.times[35])
      near(10 / 60, limited.limiter.rate)
    end)
  end)

  it("spreads them with a burst, and still keeps to the period", function()
    task.simulate(function()
      local endpoint = model { answer = function() return {} end }
      local limited = layers.limit { requests = 10, period = 60, burst = 2 }(endpoint)
      ask_all(limited, 30)
      assert.equal(10, most_within(endpoint.times, 60))
      assert.same({ 0, 0, 6, 12 }, rounded { table.unpack(endpoint.times, 1, 4) })
    end)
  end)

  it("takes a rate and a period together", function()
    task.simulate(function()
      local endpoint = model { answer = function() return {} end }
      ask_all(layers.limit { rate = 1, burst = 1, requests = 3, period = 10 }(endpoint), 5)
      assert.same({ 0, 1, 2, 10, 11 }, rounded(endpoint.times))
    end)
  end)

  it("estimates tokens first and corrects them after the answer", function()
    task.simulate(function()
      local used = { total_tokens = 100 }
      local endpoint = model { seconds = 1, answer = function() return { usage = used } end }
      local limited = layers.limit { tokens = 1000, period = 60 }(endpoint)
      -- 400 each as estimated: two go at once; each answer gives 300 back
      ask_all(limited, 11, { messages = { { role = "user", content = ("x"):rep(1188) } }, max_tokens = 100 })
      assert.same({ 0, 0, 1, 1 }, rounded { table.unpack(endpoint.times, 1, 4) })
      assert.equal(1100, limited.limiter.tokens)
      -- after seven answers 300 are left: too few for another estimate
      assert.same({ 4, 60 }, rounded { endpoint.times[7], endpoint.times[8] })
    end)
  end)

  it("charges what was taken beyond the estimate", function()
    task.simulate(function()
      local used = { prompt_tokens = 1, completion_tokens = 2999 }
      local endpoint = model { answer = function() return { usage = used } end }
      local limited = layers.limit { tokens = 1000, period = 60 }(endpoint)
      limited:query {}
      limited:query {}
      near(60, endpoint.times[2])
    end)
  end)

  it("gives the tokens of what was refused back, and keeps those of what may have been executed", function()
    task.simulate(function()
      local endpoint = model { answer = function(count)
        if count == 1 then return nil, errors.new("ConnectError", {}) end
        return nil, errors.new("TimeoutError", { limit = "total" })
      end }
      local function estimate() return 100 end
      local limited = layers.limit { tokens = 100, period = 60, estimate = estimate }(endpoint)
      for _ = 1, 3 do limited:query {} end
      assert.same({ 0, 0, 60 }, rounded(endpoint.times))
    end)
  end)

  it("lets one that is larger than all go alone", function()
    task.simulate(function()
      local endpoint = model { answer = function() return {} end }
      local function estimate(request) return request.size end
      local limited = layers.limit { tokens = 100, period = 60, estimate = estimate }(endpoint)
      limited:query { size = 10 }
      limited:query { size = 500 }
      limited:query { size = 1 }
      assert.same({ 0, 60, 120 }, rounded(endpoint.times))
    end)
  end)

  it("learns how long answers are where the request does not say", function()
    task.simulate(function()
      local endpoint = model { seconds = 1, answer = function()
        return { usage = { prompt_tokens = 10, completion_tokens = 490 } }
      end }
      local limited = layers.limit { tokens = 2000, period = 60 }(endpoint)
      limited:query { prompt = ("x"):rep(40) }
      ask_all(limited, 4, { prompt = ("x"):rep(40) })
      -- by now each counts as 500: three more go at once, the fourth after the period
      assert.same({ 0, 1, 1, 1, 60 }, rounded(endpoint.times))
    end)
  end)

  it("gives back what a cancelled request held", function()
    task.simulate(function()
      local state
      local function open(plan)
        state = memory.open(plan)
        return state
      end
      local limited = layers.limit { tokens = 100, store = open } { query = function() task.sleep(100) end }
      local waits = task.spawn(function() limited:query { max_tokens = 60 } end)
      task.sleep(1)
      local wait, ticket = state:take(30)
      assert.equal(0, wait)
      state:settle(ticket, 0)
      waits:cancel()
      pcall(waits.join, waits)
      state:told { { name = "n", quantity = "requests", left = 1, reset = 10 } }
      assert.equal(0, (state:take(1)), "nothing is under way any more")
    end)
  end)
end)

describe("layers.limit: streams", function()
  local function chunk(text, usage) return { choices = { { delta = { content = text } } }, usage = usage } end

  -- A stream of these chunks, a second apart.
  local function streaming(chunks, err)
    local endpoint = { times = {}, closed = 0 }
    function endpoint.query() error "not asked" end
    function endpoint:stream()
      self.times[#self.times + 1] = task.now()
      local index = 0
      return {
        next = function()
          task.sleep(1)
          index = index + 1
          if chunks[index] then return chunks[index] end
          return nil, err
        end,
        close = function() self.closed = self.closed + 1 end,
      }
    end
    return endpoint
  end

  local function drain(stream)
    local count = 0
    while true do
      local piece, err = stream:next()
      if not piece then return count, err end
      count = count + 1
    end
  end

  it("count once, and their tokens at the end", function()
    task.simulate(function()
      local endpoint = streaming { chunk("a", { total_tokens = 10 }), chunk("b", { total_tokens = 20 }) }
      local limited = layers.limit { tokens = 100, estimate = function() return 90 end }(endpoint)
      local first = limited:stream {}
      local second = task.spawn(function() limited:stream {} end)
      assert.same({ 2, nil }, { drain(first) })
      assert.equal(20, limited.limiter.tokens)
      assert.same({ nil, nil }, { first:next() })
      second:join()
      near(60, endpoint.times[2]) -- 20 and 90 are more than 100
      assert.equal(20, limited.limiter.tokens)
    end)
  end)

  it("count by their texts where nothing is told, also when closed early or cut", function()
    task.simulate(function()
      local endpoint = streaming({ chunk(("x"):rep(40)), chunk(("x"):rep(40)) }, "cut")
      local limited = layers.limit { tokens = 1000 }(endpoint)
      local stream = limited:stream { prompt = ("y"):rep(80) }
      stream:next()
      stream:close()
      stream:close()
      assert.equal(20 + 10, limited.limiter.tokens)
      local _, err = drain(limited:stream { prompt = ("y"):rep(80) })
      assert.equal("cut", err)
      assert.equal(30 + 40, limited.limiter.tokens)
      assert.equal(0, limited.limiter.pauses)
      assert.equal(2, endpoint.closed)
    end)
  end)
end)

describe("layers.limit: a stream that ends with a 429", function()
  it("pauses all", function()
    task.simulate(function()
      local limited = layers.limit {} {
        query = function() return {} end,
        stream = function()
          return { next = function() return nil, too_many(5) end, close = function() end }
        end,
      }
      local stream = limited:stream {}
      assert.equal("TooManyRequests", select(2, stream:collect()).kind)
      limited:query {}
      near(5, task.now())
      assert.equal(1, limited.limiter.pauses)
    end)
  end)
end)

describe("layers.limit: what the server says is left", function()
  it("waits for the reset when nothing is left", function()
    task.simulate(function()
      local endpoint = model { answer = function() return {} end, headers = function(count)
        return { ["X-RateLimit-Limit-Requests"] = "60", ["X-RateLimit-Reset-Requests"] = "30s",
          ["X-RateLimit-Remaining-Requests"] = tostring(3 - count) }
      end }
      local limited = layers.limit {}(endpoint)
      for _ = 1, 4 do limited:query {} end
      assert.same({ 0, 0, 0, 30 }, rounded(endpoint.times))
    end)
  end)

  it("counts what is under way", function()
    task.simulate(function()
      local asked, most, busy = 0, 0, 0
      local left, reset_at = 20, 100
      local limited = layers.limit { max_pause = 200 } {
        query = function()
          asked, busy, left = asked + 1, busy + 1, left - 1
          most = math.max(most, busy)
          assert.is_true(left >= 0, "more than the server lets through")
          local told = left
          task.sleep(1)
          busy = busy - 1
          return meta.set({}, { headers = headers.new { ["x-ratelimit-limit-requests"] = "20",
            ["x-ratelimit-remaining-requests"] = tostring(told),
            ["x-ratelimit-reset-requests"] = ("%gs"):format(reset_at - task.now()) } })
        end,
      }
      limited:query {}
      task.spawn(function()
        task.sleep(98.9)
        assert.equal(20, asked)
        task.sleep(0.1)
        left = 20
      end)
      ask_all(limited, 30)
      assert.equal(31, asked)
      assert.is_true(most > 8, "it is used up at once, not one by one")
    end)
  end)

  it("heeds tokens, and an err's headers", function()
    task.simulate(function()
      local endpoint = model { answer = function(count)
        if count > 1 then return {} end
        local res = response.new { status = 500, headers = { ["x-ratelimit-limit-tokens"] = "1000",
          ["x-ratelimit-remaining-tokens"] = "100", ["x-ratelimit-reset-tokens"] = "6s" } }
        return nil, errors.new("InternalError", { status = 500, response = res })
      end }
      local limited = layers.limit {}(endpoint)
      limited:query {}
      limited:query { max_tokens = 60 }
      limited:query { max_tokens = 60 }
      assert.same({ 0, 0, 6 }, rounded(endpoint.times))
    end)
  end)

  it("takes an answer that comes later for what is true, and can be told not to heed", function()
    task.simulate(function()
      local function ask(given, left)
        local endpoint = model { answer = function() return {} end, headers = function(count)
          return { ["ratelimit-remaining"] = tostring(left[count]), ["ratelimit-reset"] = "50" }
        end }
        local started, limited = task.now(), layers.limit(given)(endpoint)
        for _ = 1, 3 do limited:query {} end
        return rounded { endpoint.times[3] - started }
      end
      assert.same({ 0 }, ask({}, { 1, 5, 5 }))
      assert.same({ 50 }, ask({}, { 1, 0, 5 }))
      assert.same({ 0 }, ask({ headers = false }, { 0, 0, 0 }))
      assert.same({ 7 }, ask({ max_pause = 7 }, { 1, 0, 5 }))
    end)
  end)

  it("tries one where it does not know how many", function()
    task.simulate(function()
      local endpoint = model { seconds = 1, answer = function() return {} end, headers = function(count)
        if count == 1 then return { ["x-ratelimit-remaining"] = "0", ["x-ratelimit-reset"] = "10" } end
        return { ["x-ratelimit-remaining"] = "100", ["x-ratelimit-reset"] = "10" }
      end }
      local limited = layers.limit {}(endpoint)
      limited:query {}
      ask_all(limited, 4)
      assert.same({ 0, 11, 12, 12, 12 }, rounded(endpoint.times))
    end)
  end)
end)

describe("layers.limit: the queue", function()
  it("ends a wait at the request's own timeout.queue", function()
    task.simulate(function()
      local times = {}
      local limited = layers.limit { rate = 0.05, burst = 1, queue_timeout = 8 }(endpoint_noting(times))
      limited:query {}
      local _, err = limited:query({}, { timeout = { queue = 3 } })
      assert.same({ "TimeoutError", "queue", 3 }, { err.kind, err.limit, task.now() })
      _, err = limited:query({}, { timeout = { queue = 100 } })
      assert.same({ "TimeoutError", "queue" }, { err.kind, err.limit })
      near(11, task.now())
    end)
  end)

  it("says what it waits for", function()
    task.simulate(function()
      local limited = layers.limit { requests = 1, tokens = 5, max_queue = 0 }(endpoint_noting {})
      limited:query {}
      local _, err = limited:query {}
      assert.matches("0 requests wait for the limit of 1 requests in 60 s and 5 tokens in 60 s", err.message)
      near(60, err.retry_after)
    end)
  end)
end)
