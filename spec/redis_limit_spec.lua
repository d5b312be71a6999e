-- SPDX-License-Identifier: MIT
-- layers.limit with its state in Redis: the same limits as in one process, shared by several.
local describe = require("support").needing("redis", describe, pending)

local errors = require "sluice.errors"
local fixture = require "redis_server"
local layers = require "sluice.layers"
local log = require "sluice.log"
local sluice = require "sluice"
local support = require "support"
local task = require "sluice.task"

describe("layers.limit with its state in Redis", function()
  local server, client, other, lines, previous

  setup(function() server = fixture.start() end)
  teardown(function() server:stop() end)
  before_each(function()
    client, other = sluice.redis.connect { url = server.unix_url }, sluice.redis.connect { url = server.url }
    assert(client:flushall())
    lines = {}
    previous = log.set_output(function(line) lines[#lines + 1] = line end)
  end)
  after_each(function()
    log.set_output(previous)
    client:close()
    other:close()
  end)

  -- An endpoint that notes when it is asked; `answer(count)` may give something else.
  local function noting(times, answer)
    local started = task.now()
    return {
      name = "e",
      query = function()
        times[#times + 1] = task.now() - started
        if answer then return answer(#times) end
        return {}
      end,
    }
  end

  local function limit(store, given)
    given.store = store
    return layers.limit(given)
  end

  local function spawn_queries(endpoint, count, request)
    for _ = 1, count do task.spawn(function() endpoint:query(request or {}) end) end
  end

  -- Fails where more than `most` of the times lie within `seconds`.
  local function check_window(times, most, seconds)
    table.sort(times)
    for index = most + 1, #times do
      assert.is_true(times[index] - times[index - most] > seconds)
    end
  end

  it("lets the burst through at once and the rest at the rate", function()
    local times = {}
    local limited = limit(client:limit_store "chat", { rate = 50, burst = 5 })(noting(times))
    task.scope(function() spawn_queries(limited, 15) end)
    assert.equal(15, #times)
    assert.is_true(times[15] - times[1] > 0.14 and times[15] < 2) -- 0.2, by Redis's own clock
    assert.same({ 15, 0 }, { limited.limiter.passed, limited.limiter.waiting })
    assert.is_true(limited.limiter.waited > 0)
  end)

  it("holds requests and tokens in any period, corrected by the answers", function()
    local times = {}
    local limited = limit(client:limit_store "period", { requests = 4, period = 0.3 })(noting(times))
    task.scope(function() spawn_queries(limited, 10) end)
    check_window(times, 4, 0.28)
    assert.is_true(times[10] > 0.55)

    local function answer() return { usage = { total_tokens = 10 } } end
    times = {}
    local by_tokens = limit(client:limit_store "tokens", { tokens = 100, period = 30 })(noting(times, answer))
    for _ = 1, 6 do by_tokens:query { max_tokens = 50, messages = {} } end -- each takes 10 in truth
    assert.is_true(times[6] < 1)
    local _, err = by_tokens:query({ max_tokens = 50, messages = {} }, { timeout = { queue = 0.05 } })
    assert.is_truthy(err and err:is "TimeoutError")
    assert.equal(6, client:zcard "sluice:limit:{tokens}:tokens")
    assert.equal(0, client:zcard "sluice:limit:{tokens}:under_way")
  end)

  it("is shared: a 429 to one holds back the other, as does what the server says is left", function()
    local plan = { rate = 1000, period = 60, max_pause = 60, burst = 1000 }
    local mine, theirs = client:limit_store "shared" (plan), other:limit_store "shared" (plan)
    local wait, ticket = mine:take(0)
    assert.equal(0, wait)
    assert.is_true(mine:pause(ticket, 0.3))
    assert.is_false(mine:pause(ticket, 0.1))
    assert.is_true(mine:paused_for() > 0.2)
    mine:settle(ticket)
    client:ping() -- what was posted has arrived
    wait = theirs:take(0)
    assert.is_true(wait > 0.1 and wait <= 0.3)
    task.sleep(wait)
    wait, ticket = theirs:take(0)
    assert.equal(0, wait)
    theirs:settle(ticket, nil, true)
    theirs:told { { name = "r", quantity = "requests", left = 2, reset = 20, limit = 10 } }
    other:ping()
    task.sleep(0.02) -- after a pause they go at the rate
    assert.equal(0, (mine:take(0)))
    task.sleep(0.02)
    assert.equal(0, (mine:take(0)))
    task.sleep(0.02)
    wait = mine:take(0)
    assert.is_true(wait > 15 and wait <= 20)
  end)

  it("makes the pause of a 429 without a time longer while 429s go on", function()
    local state = client:limit_store "row" { period = 60, max_pause = 3, random = function() return 0 end }
    local waits = {}
    for index = 1, 3 do
      local _, ticket = state:take(0)
      assert.is_true(state:pause(ticket) or index > 1)
      waits[index] = state:take(0)
      state._client:hset("sluice:limit:{row}:state", "paused_until", 0) -- the time has passed
    end
    for index, expected in ipairs { 1, 2, 3 } do assert.is_true(math.abs(waits[index] - expected) < 0.1) end
  end)

  it("ends a request that is cancelled", function()
    local never = { name = "e", query = function() task.sleep(60) end }
    local limited = limit(client:limit_store "cancelled", { rate = 1000 })(never)
    local running = task.spawn(function() return limited:query {} end)
    fixture.eventually(function() return client:zcard "sluice:limit:{cancelled}:under_way" == 1 end)
    running:cancel "the spec says so"
    fixture.eventually(function() return client:zcard "sluice:limit:{cancelled}:under_way" == 0 end)
  end)

  it("is shared by two processes", function()
    local program = ([[
      local layers, redis, task = require "sluice.layers", require "sluice.redis", require "sluice.task"
      local client = redis.connect { url = %q }
      local asked = { name = "e", query = function() print(("%%.6f"):format(task.wall())) return {} end }
      local limited = layers.limit { requests = 6, period = 0.5, store = client:limit_store "both" } (asked)
      task.scope(function() for _ = 1, 12 do task.spawn(function() assert(limited:query {}) end) end end)
      client:close()]]):format(server.url)
    local times, counts = {}, {}
    support.with_file(program, function(path)
      local outs = { os.tmpname(), os.tmpname() }
      for _, out in ipairs(outs) do
        local binary = support.quote(support.binary)
        os.execute(("{ %s %s >%s 2>&1; echo end >>%s; } &"):format(binary, path, out, out))
      end
      for index, out in ipairs(outs) do
        local text = fixture.eventually(function()
          local text = support.read_file(out)
          return text:find "end" and text
        end)
        counts[index] = 0
        for line in text:gmatch "[^\n]+" do
          if line ~= "end" then
            times[#times + 1], counts[index] = assert(tonumber(line), text), counts[index] + 1
          end
        end
        os.remove(out)
      end
    end)
    assert.same({ 12, 12 }, counts)
    check_window(times, 6, 0.4)
    assert.is_true(times[24] - times[1] > 1.4)
  end)

  describe("while Redis cannot be asked", function()
    local lost

    before_each(function() lost = fixture.start() end)
    after_each(function() lost:stop() end)

    local function events()
      local list = {}
      for index, line in ipairs(lines) do list[index] = line:match '"event":"([^"]*)"' end
      return list
    end

    it("each process limits by itself, with one log line, and its return is noticed", function()
      local far <close> = sluice.redis.connect { url = lost.unix_url }
      local times = {}
      local limited = limit(far:limit_store "far", { rate = 100, burst = 2 })(noting(times))
      limited:query {}
      lost:kill()
      times = {}
      limited = limit(far:limit_store "far", { rate = 100, burst = 2 })(noting(times))
      task.scope(function() spawn_queries(limited, 12) end)
      assert.is_true(times[12] >= 0.099 and times[12] < 2)
      assert.same({ "the rate limit is not shared: Redis cannot be asked" }, events())
      assert.matches('"when_down":"local"', lines[1])
      assert.matches('"kind":"ConnectError"', lines[1])
      lost:boot()
      fixture.eventually(function()
        limited:query {}
        return #lines > 1
      end)
      assert.equal("the rate limit is shared again", events()[2])
      assert.is_truthy(lost:cli "keys '*'":find "far")
    end)

    it("all go, or nobody", function()
      local far <close> = sluice.redis.connect { url = lost.unix_url }
      lost:kill()
      local times = {}
      local free = limit(far:limit_store("free", { when_down = "pass" }), { rate = 1 })(noting(times))
      for _ = 1, 5 do free:query {} end
      assert.is_true(times[5] < 0.9)
      local shut = limit(far:limit_store("shut", { when_down = "wait" }), { rate = 1000 })(noting(times))
      local value, err = shut:query({}, { timeout = { queue = 0.05 } })
      assert.is_nil(value)
      assert.equal("TimeoutError", err.kind)
      assert.equal(2, #lines)
      assert.has_error(function() far:limit_store("x", { when_down = "maybe" }) end)
    end)

    it("does not wait for a server that hangs, nor trust a key of another type", function()
      local far <close> = sluice.redis.connect { url = lost.unix_url }
      far:set("sluice:limit:{odd}:state", "text")
      local plan = { rate = 10, burst = 10, period = 60, max_pause = 60 }
      local state = far:limit_store "odd" (plan)
      assert.equal(0, (state:take(0)))
      assert.matches('"code":"WRONGTYPE"', lines[1])
      lost:signal "STOP"
      local slow = far:limit_store("slow", { timeout = 0.05 })(plan)
      local started = task.now()
      for _ = 1, 5 do
        local wait, ticket = slow:take(0)
        assert.equal(0, wait)
        slow:pause(ticket, 0)
        slow:told {}
        slow:settle(ticket, 0, true)
      end
      assert.is_true(task.now() - started < 0.9)
      assert.matches('"limit":"slow"', lines[2])
    end)
  end)

  it("tells a failure of the endpoint as before", function()
    local function refuse() return nil, errors.new("TooManyRequests", { status = 429, retry_after = 0.1 }) end
    local limited = limit(client:limit_store "told", { rate = 1000 })(noting({}, refuse))
    local _, err = limited:query {}
    assert.equal("TooManyRequests", err.kind)
    assert.equal(1, limited.limiter.pauses)
    assert.is_string(require("sluice.limit.redis_script").text)
    assert.is_function(require("sluice.limit.redis").new)
    local digest = client:script "return 1"
    assert.is_true(digest:post {})
  end)
end)
