-- SPDX-License-Identifier: MIT
local cache = require "sluice.cache"
local cache_layer = require "sluice.layers.cache"
local endpoint = require "cache_endpoint"
local errors = require "sluice.errors"
local json = require "sluice.json"
local layers = require "sluice.layers"
local log = require "sluice.log"
local sluice = require "sluice"
local task = require "sluice.task"
local tiers = require "sluice.cache.tiers"

local function content(answer)
  return answer.choices[1].message.content
end

local function facts(answer)
  return sluice.meta(answer).cache
end

local function result(answer)
  return facts(answer).result
end

local function simulated(f)
  return function() task.simulate(f) end
end

-- What log lines are written meanwhile.
local function logged(f)
  local lines = {}
  local before = log.set_output(function(line) lines[#lines + 1] = json.decode(line) end)
  local ok, err = pcall(f)
  log.set_output(before)
  if not ok then error(err, 0) end
  return lines
end

describe("layers.cache", function()
  local request = { messages = { { role = "user", content = "hi" } } }

  it("is a layer of its own name", function()
    assert.are.equal(cache_layer, layers.cache)
  end)

  it("gives an answer again, a fresh table each time", simulated(function()
    local inner = endpoint.new {}
    local chat = layers.cache { ttl = 60 } (inner)
    local first = assert(chat:query(request))
    first.choices[1].message.content = "spoilt"
    task.sleep(2.5)
    local second = assert(chat:query { messages = { { content = "hi", role = "user" } } })
    assert.are.equal("answer 1", content(second))
    second.choices[1].message.content = "spoilt"
    local third = assert(chat:query(request))
    assert.are.same(endpoint.answer "answer 1", third)
    assert.is_true(json.is_array(third.choices))
    assert.are.equal(1, inner.asked)
    local key = cache.key(request, { endpoint = chat })
    assert.are.same({ result = "miss", age = 0, key = key }, facts(first))
    assert.are.same({ result = "hit", age = 2.5, key = key }, facts(second))
    assert.are.equal("r-1", sluice.meta(first).request_id)
    assert.are.equal("m-1", sluice.meta(third).served_model)
    assert.is_nil(sluice.meta(third).request_id)
    assert.are.equal('{"bypassed":0,"hits":2,"joins":0,"misses":1,"refreshes":0,"stale":0,"store_failures":0,'
      .. '"stored":1}', json.encode(chat.cache, { canonical = true }))
  end))

  it("asks anew when the answer is too old, or another one is meant", simulated(function()
    local inner = endpoint.new {}
    local chat = layers.cache { ttl = 60 } (inner)
    assert(chat:query(request))
    task.sleep(59.9)
    assert.are.equal("hit", result(chat:query(request)))
    task.sleep(0.1)
    local again = chat:query(request)
    assert.are.same({ "miss", "answer 2" }, { result(again), content(again) })
    for _, other in ipairs {
      { messages = { { role = "user", content = "ho" } } },
      { messages = request.messages, max_tokens = 5 },
      { messages = request.messages, temperature = 0 },
    } do
      assert.are.equal("miss", result(chat:query(other)))
    end
    assert.are.equal("miss", result(chat:query(request, { served_model = "m-2" })))
    local given = { served_model = "m-2", timeout = 5, request_id = "x" }
    assert.are.equal("hit", result(chat:query(request, given)))
    assert.are.equal(6, inner.asked)
  end))

  it("keeps the answers of one endpoint, namespace and layer apart from others", simulated(function()
    local store, answers = cache.lru(), {}
    local function ask(given, name)
      local inner = endpoint.new { text = name }
      inner.name, inner.host = name, nil
      local answer = layers.cache(given)(inner):query(request)
      answers[#answers + 1] = result(answer) .. " " .. content(answer)
    end
    ask({ store = store }, "a")
    ask({ store = store }, "b")
    ask({ store = store, namespace = "n" }, "a")
    ask({}, "a")
    ask({ store = store }, "a")
    ask({ store = store, namespace = "n" }, "a")
    assert.are.same({ "miss a 1", "miss b 1", "miss a 1", "miss a 1", "hit a 1", "hit a 1" }, answers)
    -- of two without a name, none knows the other's answers
    for _ = 1, 2 do
      local inner = endpoint.new {}
      inner.name, inner.host = nil, nil
      local chat = layers.cache { store = store } (inner)
      assert.are.equal("miss", result(chat:query(request)))
      assert.are.equal("hit", result(chat:query(request)))
    end
  end))

  it("does for one request what it asks for", simulated(function()
    local inner = endpoint.new {}
    local chat = layers.cache { ttl = 60 } (inner)
    local function ask(wanted)
      local answer, err = chat:query(request, { cache = wanted })
      if not answer then return err.kind end
      return ("%s %s"):format(result(answer), content(answer))
    end
    assert.are.equal("NotCached", ask "only-if-cached")
    assert.are.equal(0, inner.asked)
    assert.are.equal("bypass answer 1", ask "no-store")
    assert.are.equal("miss answer 2", ask())
    assert.are.equal("hit answer 2", ask "only-if-cached")
    assert.are.equal("bypass answer 3", ask "no-store")
    assert.are.equal("hit answer 2", ask())
    assert.are.equal("miss answer 4", ask "refresh")
    assert.are.equal("hit answer 4", ask())
    task.sleep(10)
    assert.are.equal("hit answer 4", ask { max_age = 10.5 })
    assert.are.equal("miss answer 5", ask { max_age = 10 })
    task.sleep(70)
    assert.are.equal("NotCached", ask "only-if-cached")
    assert.are.equal("miss answer 6", ask { max_age = 1000 })
    local _, err = chat:query({}, { cache = "only-if-cached" })
    assert.is_true(err:is "NotCached")
    assert.is_false(err.retryable)
    assert.matches("query e: no answer is kept", tostring(err))
    for _, bad in ipairs { "no_store", "", 5, true, { max_ag = 5 }, { max_age = -1 } } do
      local ok, message = pcall(chat.query, chat, request, { cache = bad })
      assert.is_false(ok)
      assert.matches("cache", message)
    end
    local _, message = pcall(chat.query, chat, request, { cache = "no_store" })
    assert.matches('cache_spec.*did you mean "no%-store"', message)
  end))

  it("does not keep what was drawn, unless asked to, and says so once", simulated(function()
    local inner = endpoint.new {}
    local chat = layers.cache {} (inner)
    local lines = logged(function()
      for _ = 1, 3 do assert.are.equal("bypass", result(chat:query { temperature = 0.7 })) end
    end)
    assert.are.equal(1, #lines)
    assert.matches("temperature", lines[1].event)
    assert.are.same({ "info", "e" }, { lines[1].level, lines[1].endpoint })
    for _, drawn_once in ipairs {
      { temperature = 0 }, { temperature = 0.7, seed = 1 }, { top_p = 0.5 }, { temperature = json.null },
    } do
      assert.are.equal("miss", result(chat:query(drawn_once)))
      assert.are.equal("hit", result(chat:query(drawn_once)))
    end
    assert.are.equal("bypass", result(chat:query { temperature = 0.7, seed = json.null }))
    local sampled = layers.cache { sampled = true } (inner)
    assert.are.equal("miss", result(sampled:query { temperature = 0.7 }))
    assert.are.equal("hit", result(sampled:query { temperature = 0.7 }))
  end))

  it("keeps several answers, and gives one at random", simulated(function()
    local inner, drawn = endpoint.new {}, 0
    local chat = layers.cache { variants = 3, random = function()
      drawn = drawn + 1
      return (drawn % 3) / 3
    end } (inner)
    local seen = {}
    for _ = 1, 12 do
      local answer = chat:query { temperature = 1 }
      seen[content(answer)] = (seen[content(answer)] or 0) + 1
    end
    assert.are.same({ ["answer 1"] = 4, ["answer 2"] = 4, ["answer 3"] = 4 }, seen)
    logged(function()
      local strict = layers.cache { variants = 3, sampled = false } (inner)
      assert.are.equal("bypass", result(strict:query { temperature = 1 }))
    end)
  end))

  it("never keeps a failure", simulated(function()
    local inner = endpoint.new { kind = "TemporarilyUnavailable" }
    local chat = layers.cache {} (inner)
    for number = 1, 2 do
      local answer, err = chat:query(request)
      assert.is_nil(answer)
      assert.are.same({ "TemporarilyUnavailable", "no " .. number }, { err.kind, err.message })
    end
    inner.given.kind, inner.given.text = nil, function() return { error = { message = "no" } } end
    assert.are.equal("miss", result(chat:query(request)))
    assert.are.equal("miss", result(chat:query(request)))
    inner.given.text = nil
    assert.are.equal("answer 5", content(chat:query(request)))
    assert.are.equal("answer 5", content(chat:query(request)))
    inner.given.raises = "a bug"
    local ok, message = pcall(chat.query, chat, { other = true })
    assert.is_false(ok)
    assert.are.equal("a bug", message)
    inner.given.raises = nil
    inner.given.text = function() return nil end
    assert.is_nil(chat:query { other = true })
  end))

  it("does not keep what another endpoint said, what is no JSON, and what is too large", simulated(function()
    local inner, other = endpoint.new { kind = "InternalError" }, endpoint.new { text = "cheaper" }
    other.name = "other"
    local chat = layers.cache {} (layers.fallback { other } (inner))
    for number = 1, 2 do
      local answer = chat:query(request)
      assert.are.same({ "miss", "cheaper " .. number, "other" },
        { result(answer), content(answer), sluice.meta(answer).answered_by })
    end
    inner.given.kind = nil
    assert.are.equal("answer 3", content(chat:query(request)))
    assert.are.equal("hit", result(chat:query(request)))

    local odd = endpoint.new { text = function() return { f = print } end }
    chat = layers.cache {} (odd)
    for _ = 1, 2 do assert.are.equal(print, assert(chat:query(request)).f) end
    local large = endpoint.new { text = ("x"):rep(2000) }
    chat = layers.cache { max_answer = 2000 } (large)
    for _ = 1, 2 do assert.are.equal("miss", result(chat:query(request))) end
    assert.are.equal(2, large.asked)
    assert.are.equal(0, chat.cache.stored)
  end))

  it("refuses a request that JSON cannot hold, at the line that asked", function()
    local chat = layers.cache {} (endpoint.new {})
    local ok, message = pcall(chat.query, chat, { messages = { print } })
    assert.is_false(ok)
    assert.matches("cache_spec.*messages%[1%]", message)
    assert.has_error(function() chat:query "hi" end)
  end)

  it("refuses what is no option", function()
    for _, bad in ipairs {
      { tll = 1 }, { ttl = 0 }, { store = {} }, { store = 5 }, { replay = "fast" }, { variants = 0 },
      { namespace = "" }, { stale_if_error = -1 }, { max_answer = 0 },
    } do
      assert.has_error(function() layers.cache(bad) end)
    end
  end)

  -- ---- stores ----

  local function table_store()
    local kept = { values = {}, ttls = {} }
    function kept.get(_, key) return kept.values[key] end
    function kept.set(_, key, value, ttl)
      kept.values[key], kept.ttls[key] = value, ttl
      return true
    end
    return kept
  end

  it("takes a value that was spoilt for none", simulated(function()
    local store, inner = table_store(), endpoint.new {}
    local chat = layers.cache { store = store } (inner)
    local key = facts(chat:query(request)).key
    local good = store.values[key]
    assert.are.equal(3600, store.ttls[key])
    local asked = 1
    local function spoil(bytes)
      store.values[key] = bytes
      asked = asked + 1
      local answer = assert(chat:query(request))
      assert.are.same({ "miss", "answer " .. asked }, { result(answer), content(answer) })
      assert.are.equal("hit", result(chat:query(request)))
    end
    for size = 0, #good - 1, 7 do spoil(good:sub(1, size)) end
    spoil(good .. "x")
    spoil("slc2" .. good:sub(5))
    spoil((good:gsub("{", "[")))
    spoil(false)
    for _ = 1, 300 do -- any byte: never an error
      local at = math.random(#good)
      store.values[key] = good:sub(1, at - 1) .. string.char(math.random(0, 255)) .. good:sub(at + 1)
      assert(chat:query(request))
    end
  end))

  it("asks stores in turn, and puts into the nearer ones what the farther one has", simulated(function()
    local near, far, inner = table_store(), table_store(), endpoint.new {}
    local chat = layers.cache { ttl = 100, store = { near, far } } (inner)
    local key = facts(chat:query(request)).key
    assert.are.equal(far.values[key], near.values[key])
    assert.are.equal(1, chat.cache.stored)
    task.sleep(30)
    local bytes = near.values[key]
    for _, spoilt in ipairs { false, bytes:sub(1, -2) } do
      near.values[key] = spoilt or nil
      local answer = chat:query(request)
      assert.are.same({ "hit", 30.0 }, { result(answer), facts(answer).age })
      assert.are.same({ bytes, 70.0 }, { near.values[key], near.ttls[key] })
    end
    function near.get() return nil, "down" end
    function near.set() return nil, "down" end
    assert.are.equal("hit", result(chat:query(request)))
    assert.are.equal("miss", result(chat:query { other = true }))
    assert.are.same({ 2, 4 }, { chat.cache.stored, chat.cache.store_failures })
    task.sleep(80)
    assert.are.equal("miss", result(chat:query(request)))
    local own = tiers.new(cache.lru(), 10, chat.cache)
    assert.is_nil(own:find "k")
    own:keep("k", { created = task.wall(), model = "", answer = "{}", chunks = "", asked_usage = false })
    assert.are.equal("{}", own:find "k".answer)
    assert.is_true(tiers.rule { near, cache.lru() })
    for _, bad in ipairs { {}, { near, {} }, "redis" } do assert.is_false((tiers.rule(bad))) end
  end))

  it("makes do without a store that fails, and waits for one that is slow", simulated(function()
    local store, inner = table_store(), endpoint.new {}
    local chat = layers.cache { store = store } (inner)
    local get, set = store.get, store.set
    function store.get() return nil, errors.new("ConnectError", {}) end
    function store.set() return nil, errors.new("ConnectError", {}) end
    for number = 1, 2 do assert.are.equal("answer " .. number, content(chat:query(request))) end
    assert.are.equal(4, chat.cache.store_failures)
    function store.get(...)
      task.sleep(1)
      return get(...)
    end
    function store.set(...)
      task.sleep(5)
      return set(...)
    end
    -- those who looked before there was an answer join; nobody waits until it is kept
    local results = task.map({ 1, 2, 3 }, function() return chat:query(request) end)
    assert.are.equal(3.0, task.now() + 2)
    for _, each in ipairs(results) do assert.are.equal("answer 3", content(each.value)) end
    assert.are.equal("join", result(chat:query(request)))
    task.sleep(5)
    assert.are.equal("hit", result(chat:query(request)))
    assert.are.equal(3, inner.asked)
  end))

  -- ---- single flight ----

  it("asks once for a thousand who ask at once", simulated(function()
    local inner, everyone, results, tables = endpoint.new { seconds = 3 }, {}, {}, {}
    local chat = layers.cache {} (inner)
    for index = 1, 1000 do everyone[index] = index end
    local answers = task.map(everyone, function() return chat:query(request) end, { concurrency = 1000 })
    for _, each in ipairs(answers) do
      local answer = assert(each.value)
      assert.are.equal("answer 1", content(answer))
      results[result(answer)] = (results[result(answer)] or 0) + 1
      assert.is_nil(tables[answer])
      tables[answer] = true
      assert.are.equal("r-1", sluice.meta(answer).request_id)
    end
    assert.are.same({ miss = 1, join = 999 }, results)
    assert.are.same({ 1, 3.0 }, { inner.asked, task.now() })
  end))

  it("shares an err, and each gets his own", simulated(function()
    local inner = endpoint.new { seconds = 1, kind = "InternalError" }
    local chat = layers.cache {} (inner)
    local results = task.map({ 1, 2 }, function() return chat:query(request) end)
    local a, b = results[1].error, results[2].error
    assert.are.same({ "InternalError", "no 1" }, { b.kind, b.message })
    assert.are_not.equal(a, b)
    assert.is_true(b:is "ServiceError")
    inner.given.kind, inner.given.raises = nil, { "raised" }
    results = task.map({ 1, 2 }, function() return chat:query(request) end)
    assert.are.same({ { "raised" }, { "raised" } }, { results[1].error, results[2].error })
    assert.are.equal(2, inner.asked)
  end))

  it("goes on when one of those who wait leaves, and ends with the last one", simulated(function()
    local inner = endpoint.new { seconds = 10 }
    local chat = layers.cache {} (inner)
    local first = task.spawn(function() return task.timeout(2, chat.query, chat, request) end)
    local second = task.spawn(function() return chat:query(request) end)
    task.sleep(1)
    local answer, err = first:join()
    assert.is_nil(answer)
    assert.are.same({ "TimeoutError", 2.0 }, { err.kind, task.now() })
    assert.are.same({ "join", "answer 1" }, { result(second:join()), content((second:join())) })
    assert.are.equal(0, inner.cancelled)

    local other = { messages = {} }
    first = task.spawn(function() pcall(chat.query, chat, other) end)
    second = task.spawn(function() pcall(chat.query, chat, other) end)
    task.sleep(1)
    first:cancel()
    task.sleep(1)
    assert.are.equal(0, inner.cancelled)
    second:cancel()
    task.sleep(0)
    task.sleep(0)
    assert.are.equal(1, inner.cancelled)
    assert.are.equal("answer 3", content(chat:query(other)))
    first:join()
    second:join()
  end))

  it("asks with what the first one meant, whatever he does to it later", simulated(function()
    local inner = endpoint.new { seconds = 5 }
    local asked
    local chat = layers.cache {} { name = "e", query = function(_, given)
      task.sleep(3)
      asked = json.encode(given, { canonical = true })
      return inner:query(given)
    end }
    local mine = { messages = json.array { { content = "hi" } }, stop = json.array {} }
    task.spawn(function()
      task.timeout(1, chat.query, chat, mine)
      mine.messages[1].content = "changed"
    end)
    task.sleep(0.5)
    assert(chat:query { messages = { { content = "hi" } }, stop = json.array {} })
    assert.are.equal('{"messages":[{"content":"hi"}],"stop":[]}', asked)
  end))

  it("has each caller's total for himself, and shares the other limits", simulated(function()
    local inner = endpoint.new { seconds = 10 }
    local chat = layers.cache {} (inner)
    local first = task.spawn(function()
      local answer, err = chat:query(request, { timeout = { total = 3, idle = 7 }, request_id = "x" })
      return answer, err, task.now()
    end)
    local second = task.spawn(function() return chat:query(request, { timeout = 20 }) end)
    local answer, err, when = first:join()
    assert.is_nil(answer)
    assert.are.same({ "TimeoutError", "total", true, 3.0 }, { err.kind, err.limit, err.maybe_executed, when })
    assert.matches("^query e: no answer within 3 s", tostring(err))
    assert.are.equal("answer 1", content((second:join())))
    assert.are.same({ timeout = { total = 600, idle = 7 }, request_id = "x" }, inner.options)
    assert(chat:query({ x = 1 }, { timeout = 1000 }))
    assert.are.same({ timeout = { total = 1000 } }, inner.options)
    assert.has_error(function() chat:query({ x = 2 }, { timeout = "soon" }) end)
  end))

  it("asks for those whose limits are others than those that ended the call", simulated(function()
    local asked = 0
    local chat = layers.cache {} { name = "e", query = function(_, _, given)
      asked = asked + 1
      local limit = given and given.timeout and given.timeout.first_byte or math.huge
      task.sleep(math.min(limit, 10))
      if limit < 10 then return nil, errors.new("TimeoutError", { limit = "first_byte" }) end
      return endpoint.answer "late"
    end }
    local short = { timeout = { first_byte = 2 } }
    local tasks = {}
    for index, given in ipairs { short, short, false, false } do
      tasks[index] = task.spawn(function() return chat:query(request, given or nil) end)
    end
    for index = 1, 2 do
      local answer, err = tasks[index]:join()
      assert.is_nil(answer)
      assert.are.equal("first_byte", err.limit)
    end
    for index = 3, 4 do assert.are.equal("late", content((tasks[index]:join()))) end
    assert.are.equal(2, asked)
  end))

  it("lets a refresh win over what was asked before it", simulated(function()
    local seconds, asked = { 10, 2 }, 0
    local chat = layers.cache {} { name = "e", query = function()
      asked = asked + 1
      local number = asked
      task.sleep(seconds[number])
      return endpoint.answer("answer " .. number)
    end }
    local old = task.spawn(function() return chat:query(request) end)
    task.sleep(1)
    assert.are.equal("answer 2", content(chat:query(request, { cache = "refresh" })))
    assert.are.equal("answer 1", content((old:join())))
    task.sleep(1)
    assert.are.equal("answer 2", content(chat:query(request)))
  end))

  it("ends what is under way when it is closed", simulated(function()
    local inner = endpoint.new { seconds = 10 }
    local chat = layers.cache {} (inner)
    local waiting = task.spawn(function() return chat:query(request) end)
    task.sleep(1)
    chat.cache:close()
    chat.cache:close()
    local answer, err = waiting:join()
    assert.is_nil(answer)
    assert.are.equal("TaskCancelled", err.kind)
    assert.are.equal(1, inner.cancelled)
    assert.are.equal("bypass", result(chat:query(request)))
    assert.has_error(function() chat.cache.close {} end)
  end))

  it("leaves nothing behind", simulated(function()
    local before = #task.tree()
    local chat = layers.cache {} (endpoint.new {})
    chat:query(request)
    chat = nil -- luacheck: ignore
    task.sleep(1)
    collectgarbage()
    assert.are.equal(before, #task.tree())
  end))

  -- ---- stale answers ----

  it("gives an old answer while it asks for a new one", simulated(function()
    local inner = endpoint.new { seconds = 3 }
    local chat = layers.cache { ttl = 10, stale_while_revalidate = 20 } (inner)
    assert(chat:query(request))
    task.sleep(15)
    local from = task.now()
    for _ = 1, 5 do
      local answer = task.timeout(1, chat.query, chat, request) -- neither deadline nor scope of the caller
      assert.are.same({ "stale", "answer 1" }, { result(answer), content(answer) })
    end
    assert.are.equal(15.0, facts(chat:query(request)).age)
    assert.are.equal(from, task.now())
    task.sleep(3.5)
    local answer = chat:query(request)
    assert.are.same({ "hit", "answer 2", 0.5 }, { result(answer), content(answer), facts(answer).age })
    assert.are.same({ 2, 1, 6 }, { inner.asked, chat.cache.refreshes, chat.cache.stale })
    task.sleep(40)
    assert.are.equal("miss", result(chat:query(request)))
    task.sleep(12)
    assert.are.equal("miss", result(chat:query(request, { cache = { max_age = 5 } })))
    task.sleep(12)
    assert.are.equal("stale", result(chat:query(request, { cache = "only-if-cached" })))
    task.sleep(4)
    assert.are.equal(4, inner.asked)
  end))

  it("tells in the log when the new one is not to be had", simulated(function()
    local inner = endpoint.new {}
    local chat = layers.cache { ttl = 10, stale_while_revalidate = 20 } (inner)
    assert(chat:query(request))
    task.sleep(15)
    inner.given.kind = "InternalError"
    local lines = logged(function()
      assert.are.equal("stale", result(chat:query(request)))
      task.sleep(1)
    end)
    local line = lines[1]
    assert.are.same({ "warn", "e", "InternalError" }, { line.level, line.endpoint, line.error.kind })
  end))

  it("gives an old answer where no new one is to be had, and says so", simulated(function()
    local inner = endpoint.new {}
    local chat = layers.cache { ttl = 10, stale_if_error = 100 } (inner)
    assert(chat:query(request))
    task.sleep(50)
    inner.given.kind, inner.given.seconds = "TemporarilyUnavailable", 2
    local answer = assert(chat:query(request))
    assert.are.same({ result = "stale", age = 52.0, key = facts(answer).key }, facts(answer))
    local degraded = sluice.meta(answer).degraded
    assert.are.same({ "e", "TemporarilyUnavailable" }, { degraded[1].endpoint, degraded[1].error.kind })
    -- his own time limit is an error, too; what he did wrong is no reason
    assert.are.equal("stale", result(chat:query(request, { timeout = 1 })))
    inner.given.kind = "PermissionDenied"
    assert.are.equal("PermissionDenied", select(2, chat:query(request)).kind)
    inner.given.kind = "InternalError"
    assert.are.equal("InternalError", select(2, chat:query(request, { cache = { max_age = 5 } })).kind)
    task.sleep(70)
    assert.are.equal("InternalError", select(2, chat:query(request)).kind)
    inner.given.kind = nil
    assert.are.equal("miss", result(chat:query(request)))
  end))

  it("stands in the log line of a request", simulated(function()
    local chat = layers.log { start = false } (layers.cache {} (endpoint.new {}))
    local lines = logged(function()
      chat:query(request)
      chat:query(request)
    end)
    assert.are.same({ "miss", "hit" }, { lines[1].cache, lines[2].cache })
  end))
end)
