-- SPDX-License-Identifier: MIT
-- sluice.traffic: who answers, who is charged with it, and what a candidate gets to see.

local sluice = require "sluice"
local errors, layers, task, traffic = sluice.errors, sluice.layers, sluice.task, sluice.traffic
local file = require "sluice.core.file"
local meta = require "sluice.meta"

-- An endpoint that says its name, fails its first `failures` times, and keeps what it was asked.
local function arm(name, given)
  given = given or {}
  local self = { name = name, asked = {}, host = given.host }
  local function answer(request, given_options)
    self.asked[#self.asked + 1] = { request = request, options = given_options }
    if given.wait then task.sleep(given.wait) end
    if given.raises then error(given.raises, 0) end
    if #self.asked <= (given.failures or 0) then
      return nil, errors.new("TemporarilyUnavailable", { status = 503 })
    end
    return true
  end
  function self.query(_, request, given_options)
    local good, err = answer(request, given_options)
    if not good then return nil, err end
    return { choices = {}, model = self.name }
  end
  function self.stream(_, request, given_options)
    local good, err = answer(request, given_options)
    if not good then return nil, err end
    local left = 3
    return sluice.stream.wrap {
      next = function()
        left = left - 1
        return left >= 0 and { choices = { { delta = { content = self.name } } } } or nil
      end,
      close = function() end,
    }
  end
  return self
end

local function misuse(text, f)
  local good, message = pcall(f)
  assert.is_false(good)
  assert.matches(text, message, 1, true)
end

describe("traffic.config", function()
  it("makes the config of an endpoint", function()
    assert.same({ routes = {
      { served_entity_name = "control", traffic_percentage = 90 },
      { served_entity_name = "treatment", traffic_percentage = 10 },
    } }, traffic.config { { "control", 90 }, { "treatment", 10.0 } })
    local endpoint = { config = { served_entities = { { name = "a" }, { name = "b" } } } }
    assert.equal(2, #traffic.config({ { "a", 100 }, { "b", 0 } }, endpoint).routes)
    assert.equal(1, #traffic.config({ { "a", 100 } }, { "a", "b" }).routes)
  end)

  it("says what is wrong", function()
    misuse("add up to 99, not to 100", function() traffic.config { { "a", 90 }, { "b", 9 } } end)
    misuse("add up to 0", function() traffic.config {} end)
    misuse("the share of b must be a whole number from 0 to 100, got -10",
      function() traffic.config { { "a", 90 }, { "b", -10 } } end)
    misuse("got 33.3", function() traffic.config { { "a", 33.3 } } end)
    misuse("got nil", function() traffic.config { { "a" } } end)
    misuse('"a" is there twice', function() traffic.config { { "a", 50 }, { "a", 50 } } end)
    misuse('1 must be { "name", percentage }', function() traffic.config { "a", 100 } end)
    misuse('no served entity "contrl" (did you mean "control"?)',
      function() traffic.config({ { "contrl", 100 } }, { "control", "treatment" }) end)
  end)
end)

describe("traffic.split", function()
  it("spreads requests by their shares", function()
    local split = traffic.split { { arm "a", 70 }, { arm "b", 20 }, { arm "c", 10 }, seed = 7 }
    for _ = 1, 10000 do assert(split:query {}) end
    local requests = {}
    for index, variant in ipairs(split.variants) do requests[index] = variant.requests end
    assert.equal(10000, requests[1] + requests[2] + requests[3])
    -- five standard deviations
    assert.near(7000, requests[1], 5 * 46)
    assert.near(2000, requests[2], 5 * 40)
    assert.near(1000, requests[3], 5 * 30)
  end)

  it("gives nothing to a share of nothing", function()
    local split = traffic.split { { arm "a", 0 }, { arm "b", 100 }, { arm "c", 0 }, seed = 1 }
    for _ = 1, 1000 do assert(split:query {}) end
    assert.equal(1000, split.variants.b.requests)
  end)

  it("charges answers, streams, errors and raises to their variant", function()
    local split = traffic.split { { arm "a", 100 }, { arm "b", 0 } }
    assert.equal("a", sluice.meta(split:query {}).variant)
    local stream = assert(split:stream {})
    assert.equal("a", sluice.meta(stream).variant)
    assert.equal("a", sluice.meta(assert(stream:collect())).variant)
    local failing = traffic.split { { arm("bad", { failures = 9 }), 100 } }
    local _, err = failing:query {}
    assert.equal("bad", sluice.meta(err).variant)
    _, err = failing:stream {}
    assert.equal("bad", sluice.meta(err).variant)
    local raising = traffic.split { { arm("loud", { raises = errors.new "TaskCancelled" }), 100 } }
    _, err = pcall(raising.query, raising, {})
    assert.equal("loud", sluice.meta(err).variant)
  end)

  it("keeps the variant of a request through retries and fallbacks around it", function()
    for seed = 1, 20 do
      local a, b = arm("a", { failures = 2 }), arm("b", { failures = 2 })
      local chat = sluice.pipeline(traffic.split { { a, 50 }, { b, 50 }, seed = seed },
        { layers.retry { attempts = 3, base = 0.001, budget = false } })
      task.simulate(function()
        local answer = assert(chat:query {})
        assert.equal(answer.model, sluice.meta(answer).variant)
      end)
      assert.equal(3, math.max(#a.asked, #b.asked))
      assert.equal(0, math.min(#a.asked, #b.asked))
      assert.is_nil((a.asked[3] or b.asked[3]).options.variant)
    end
    local chat = sluice.pipeline(traffic.split { { arm("a", { failures = 1 }), 100 } }, {
      layers.fallback { arm "other" },
    })
    local answer = assert(chat:query {})
    assert.equal("other", answer.model)
    assert.equal("a", sluice.meta(answer).variant)
  end)

  it("asks the variant that the options name", function()
    local b = arm "b"
    local split = traffic.split { { arm "a", 100 }, { b, 0 }, key = function() return "k" end }
    assert.equal("b", split:query({}, { variant = "b", request_id = "r" }).model)
    assert.same({ request_id = "r" }, b.asked[1].options)
    misuse('no variant "bb" (did you mean "b"?)', function() split:query({}, { variant = "bb" }) end)
  end)

  describe("with a key", function()
    local function by_user(request) return request.user end
    local function assignments(shares, salt, count)
      local given = { key = by_user, salt = salt }
      for index, share in ipairs(shares) do given[index] = { arm(("abc"):sub(index, index)), share } end
      local split, list = traffic.split(given), {}
      for user = 1, count do list[user] = split:query({ user = "user-" .. user }).model end
      return list, split
    end
    local function moves(before, after)
      local found = {}
      for index, name in ipairs(before) do
        if after[index] ~= name then found[name .. after[index]] = (found[name .. after[index]] or 0) + 1 end
      end
      return found
    end

    it("gives a key the same variant always, and each its share", function()
      local list = assignments({ 90, 10 }, nil, 10000)
      assert.same(list, (assignments({ 90, 10 }, nil, 10000)))
      local b = 0
      for _, name in ipairs(list) do b = b + (name == "b" and 1 or 0) end
      assert.near(1000, b, 5 * 30)
    end)

    it("moves keys one way only when a share is raised", function()
      local before, after = assignments({ 90, 10 }, nil, 5000), assignments({ 50, 50 }, nil, 5000)
      local found = moves(before, after)
      assert.is_nil(found.ba)
      assert.near(2000, found.ab, 5 * 35)
      -- of three, only towards the one that was raised while the others keep their ratio
      found = moves(assignments({ 60, 30, 10 }, nil, 5000), assignments({ 40, 20, 40 }, nil, 5000))
      for name in pairs(found) do assert.equal("c", name:sub(2)) end
    end)

    it("follows shares that are set, the same way", function()
      local before, split = assignments({ 90, 10 }, nil, 1000)
      split:set_shares { a = 50, b = 50 }
      local after = {}
      for user = 1, 1000 do after[user] = split:query({ user = "user-" .. user }).model end
      assert.same(after, (assignments({ 50, 50 }, nil, 1000)))
      assert.is_nil(moves(before, after).ba)
      misuse('"b" is missing', function() split:set_shares { a = 100 } end)
      misuse('no variant "c"', function() split:set_shares { a = 50, b = 50, c = 0 } end)
      misuse("add up to 90", function() split:set_shares { a = 50, b = 40 } end)
    end)

    it("hashes as documented, with a salt for each experiment", function()
      local function draw(name, salt, key, share)
        local u = ((file.hash(name .. "\0" .. salt .. "\0" .. key) >> 11) + 0.5) / (1 << 53)
        return math.log(u) / share
      end
      local list, other = assignments({ 70, 30 }, "s1", 500), assignments({ 70, 30 }, "s2", 500)
      for user = 1, 500 do
        local key = "user-" .. user
        local wanted = draw("a", "s1", key, 70) > draw("b", "s1", key, 30) and "a" or "b"
        assert.equal(wanted, list[user])
      end
      assert.not_same(list, other)
    end)

    it("draws where the key is nil, and takes numbers and strings", function()
      local split = traffic.split { { arm "a", 50 }, { arm "b", 50 }, key = by_user, seed = 3 }
      for _ = 1, 200 do assert(split:query {}) end
      assert.is_true(split.variants.a.requests > 50 and split.variants.b.requests > 50)
      assert.equal(split:query({ user = 17 }).model, split:query({ user = "17" }).model)
      misuse("key must give a string, a number or nil, got table", function() split:query { user = {} } end)
    end)
  end)

  it("says what is wrong", function()
    local a, b = arm "a", arm "b"
    misuse("the share of b must be a number from 0 to 100, got -10",
      function() traffic.split { { a, 100 }, { b, -10 } } end)
    misuse("add up to 99.5, not to 100", function() traffic.split { { a, 90 }, { b, 9.5 } } end)
    misuse("at least one", function() traffic.split {} end)
    misuse("1 must be { endpoint, percentage }", function() traffic.split { { "a", 100 } } end)
    misuse("1 must be { endpoint, percentage }", function() traffic.split { a, 100 } end)
    misuse('two variants are named "a"', function() traffic.split { { a, 50 }, { a, 50 } } end)
    misuse("1 needs a name", function() traffic.split { { { query = print }, 100 } } end)
    misuse('unknown option "kye"', function() traffic.split { { a, 100 }, kye = print } end)
    assert.equal("x", traffic.split({ { a, 50, name = "x" }, { a, 50, name = "y" } }).variants[1].name)
    local one, other = arm("a", { host = "h" }), arm("b", { host = "h" })
    assert.equal("h", traffic.split({ { one, 50 }, { other, 50 } }).host)
    assert.equal(100, traffic.split({ { a, 100 / 3 }, { b, 200 / 3 } }).variants[1].share * 3)
  end)
end)

describe("traffic.shadow", function()
  it("sends copies of a share, whose answers nobody gets", function()
    task.simulate(function()
      local main, candidate = arm "main", arm("candidate", { failures = 5 })
      local shadow <close> = traffic.shadow(main, candidate, 0.5, { seed = 2, max = 1000 })
      for index = 1, 100 do
        local request = { messages = { { content = "m" .. index } } }
        local answer = assert(shadow:query(request, { request_id = "r", served_model = "s", timeout = 3 }))
        assert.equal("main", answer.model)
        request.messages[1].content = "changed by the caller"
      end
      task.sleep(1)
      assert.equal(100, #main.asked)
      assert.equal(#candidate.asked, shadow.sent)
      assert.near(50, shadow.sent, 25)
      assert.equal(5, shadow.failed)
      assert.equal(0, shadow.active)
      assert.same({ request_id = "r" }, candidate.asked[1].options)
      assert.matches("^m%d+$", candidate.asked[1].request.messages[1].content)
      assert.equal("main", shadow.name)
    end)
  end)

  it("never slows or fails the main answer, and is bounded", function()
    task.simulate(function()
      local main, candidate = arm("main", { wait = 0.1 }), arm("candidate", { wait = 1000 })
      local shadow <close> = traffic.shadow(main, candidate, 1, { max = 3, timeout = 20 })
      local started = task.now()
      for _ = 1, 10 do assert(shadow:query {}) end
      assert.near(1, task.now() - started, 1e-6)
      assert.equal(3, shadow.active)
      assert.equal(7, shadow.skipped)
      task.sleep(30)
      assert.equal(0, shadow.active)
      assert.equal(3, shadow.failed)
      local loud <close> = traffic.shadow(main, arm("loud", { raises = "no err at all" }), 1)
      assert(loud:query {})
      task.sleep(1)
      assert.equal(1, loud.failed)
    end)
  end)

  it("reads a candidate's stream to its end, and outlives neither close nor the caller's deadline", function()
    task.simulate(function()
      local main, candidate = arm "main", arm("candidate", { wait = 5 })
      local shadow = traffic.shadow(main, candidate, 1)
      task.timeout(1, function()
        local stream = assert(shadow:stream {})
        assert.equal("mainmainmain", table.concat((function()
          local texts = {}
          for text in stream:text() do texts[#texts + 1] = text end
          return texts
        end)()))
      end)
      task.sleep(10)
      assert.equal(1, #candidate.asked)
      assert.equal(0, shadow.failed)
      assert(shadow:query {})
      shadow:close()
      shadow:close()
      assert.equal(0, shadow.active)
      assert(shadow:query {})
      assert.equal(2, shadow.sent)
    end)
  end)

  it("says what is wrong", function()
    local a = arm "a"
    misuse("from 0 to 1 (0.1 is 10 %), got 10", function() traffic.shadow(a, a, 10) end)
    misuse("candidate must be an endpoint", function() traffic.shadow(a, "b", 0.1) end)
  end)
end)

describe("meta.note", function()
  it("adds what many objects share, made or not", function()
    local more = { variant = "a" }
    local object = {}
    assert.equal(object, meta.note(object, more))
    meta.later(object, function() return { status = 200 } end)
    assert.same({ variant = "a", status = 200 }, meta.get(object))
    meta.set(object, { variant = "b" })
    assert.same({ variant = "a" }, more)
    local lazy = meta.later({}, function() return { status = 201 } end)
    meta.note(lazy, more)
    assert.same({ variant = "a", status = 201 }, meta.get(lazy))
  end)
end)
