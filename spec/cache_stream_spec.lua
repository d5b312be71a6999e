-- SPDX-License-Identifier: MIT
local endpoint = require "cache_endpoint"
local errors = require "sluice.errors"
local json = require "sluice.json"
local layers = require "sluice.layers"
local reader = require "sluice.cache.reader"
local sluice = require "sluice"
local stream = require "sluice.stream"
local task = require "sluice.task"

local chunk, usage_chunk = endpoint.chunk, endpoint.usage_chunk

local function result(answer)
  return sluice.meta(answer).cache.result
end

-- The text of a stream, and when each piece of it came.
local function read(opened)
  local pieces, times = {}, {}
  for piece in opened:text() do
    pieces[#pieces + 1], times[#times + 1] = piece, task.now()
  end
  return table.concat(pieces), times
end

local function simulated(f)
  return function() task.simulate(f) end
end

-- Chunks with the usage in the last one with content, as Databricks sends it.
local function with_usage(...)
  local pieces = { ... }
  pieces[#pieces].usage = { prompt_tokens = 3, completion_tokens = 5, total_tokens = 8 }
  return pieces
end

describe("streams through layers.cache", function()
  local request = { messages = { { role = "user", content = "hi" } } }

  it("are kept when they are complete, and replayed", simulated(function()
    local inner = endpoint.new { pieces = with_usage(2, chunk "a", 3, chunk "b", chunk()), seconds = 1 }
    local chat = layers.cache {} (inner)
    local opened = assert(chat:stream(request))
    assert.are.equal("miss", result(opened))
    assert.are.same({ 1.0, "r-1" }, { task.now(), sluice.meta(opened).request_id })
    local text, times = read(opened)
    assert.are.same({ "ab", { 3.0, 6.0 } }, { text, times })
    local live = assert(opened:collect())
    for _ = 1, 2 do
      opened = assert(chat:stream(request))
      assert.are.equal("hit", result(opened))
      local value, event = opened:next()
      assert.are.same(chunk "a", value)
      assert.are.same(value, json.decode(event.data))
      value.choices[1].delta.content = "spoilt"
      text, times = read(opened)
      assert.are.same({ "b", { 6.0 } }, { text, times })
    end
    opened = assert(chat:stream(request))
    assert.are.same(live, (opened:collect()))
    assert.are.same({ 1, 1 }, { inner.asked, inner.closed })
  end))

  it("come with their pauses where that is asked for", simulated(function()
    local inner = endpoint.new { pieces = with_usage(2, chunk "a", 3, chunk "b", chunk()), seconds = 1 }
    local chat = layers.cache { replay = "recorded" } (inner)
    read(assert(chat:stream(request)))
    task.sleep(100)
    local from = task.now()
    local _, times = read(assert(chat:stream(request)))
    assert.are.same({ 3.0, 6.0 }, { times[1] - from, times[2] - from })
    local opened = assert(chat:stream(request))
    opened:close()
    assert.is_nil(opened:next())
  end))

  it("share their answer with queries, and the other way about", simulated(function()
    local inner = endpoint.new { pieces = with_usage(chunk "a", chunk "b", chunk()) }
    local chat = layers.cache {} (inner)
    read(assert(chat:stream(request)))
    local answer = assert(chat:query(request))
    assert.are.same({ "hit", "ab", 8, "chat.completion" },
      { result(answer), answer.choices[1].message.content, answer.usage.total_tokens, answer.object })

    local other = { messages = {} }
    answer = assert(chat:query(other))
    local opened = assert(chat:stream(other))
    assert.are.equal("hit", result(opened))
    assert.are.equal("answer 2", (read(opened)))
    local collected = assert(opened:collect())
    assert.is_nil(collected.usage)
    answer.usage = nil
    assert.are.same(answer, collected)
    opened = assert(chat:stream({ messages = {}, stream_options = { include_usage = true } }))
    assert.are.same({ "hit", 8 }, { result(opened), assert(opened:collect()).usage.total_tokens })
    assert.are.equal(2, inner.asked)
  end))

  it("give no query an answer whose usage is not known, and no stream without the one it asks for",
    simulated(function()
      local inner = endpoint.new { pieces = { chunk "a", chunk() } }
      local chat = layers.cache {} (inner)
      local asking = { messages = request.messages, stream_options = { include_usage = true } }
      read(assert(chat:stream(request)))
      assert.are.equal("hit", result(assert(chat:stream(request))))
      assert.are.equal("miss", result(assert(chat:stream(asking))))
      task.sleep(1)
      local answer = assert(chat:query(request))
      assert.are.same({ "miss", 8 }, { result(answer), answer.usage.total_tokens })
      assert.are.equal("hit", result(assert(chat:stream(asking))))
      assert.are.equal(3, inner.asked)
    end))

  it("give the chunk with the usage to those who ask for it", simulated(function()
    local inner = endpoint.new { pieces = { chunk "a", chunk(), usage_chunk() } }
    local chat = layers.cache {} (inner)
    local asking = { messages = request.messages, stream_options = { include_usage = true } }
    local function chunks_of(asked)
      local list = {}
      for each in assert(chat:stream(asked)):chunks() do list[#list + 1] = each end
      return list
    end
    local first = task.spawn(chunks_of, asking)
    local second = task.spawn(chunks_of, request)
    assert.are.same({ chunk "a", chunk(), usage_chunk() }, first:join())
    assert.are.same({ chunk "a", chunk() }, second:join())
    assert.are.same({ chunk "a", chunk(), usage_chunk() }, chunks_of(asking))
    assert.are.same({ chunk "a", chunk() }, chunks_of(request))
    assert.are.same({ 1, 1 }, { inner.asked, chat.cache.joins })
    -- who did not ask for it gets what the server sends by itself
    inner.given.pieces = { chunk "b", chunk(), usage_chunk() }
    assert.are.same({ chunk "b", chunk(), usage_chunk() }, chunks_of { messages = {} })
    assert.are.same({ chunk "b", chunk(), usage_chunk() }, chunks_of { messages = {} })
  end))

  it("are one call for all who ask at once; who comes late gets the beginning again", simulated(function()
    local pieces = with_usage(2, chunk "a", 3, chunk "b", 4, chunk "c", chunk())
    local inner = endpoint.new { seconds = 1, pieces = pieces }
    local chat, tasks = layers.cache {} (inner), {}
    for index = 0, 9 do
      tasks[index] = task.spawn(function()
        task.sleep(index)
        local opened = assert(chat:stream(request))
        local text, times = read(opened)
        return result(opened), text, times, task.now()
      end)
    end
    for index = 0, 9 do
      local how, text, times = tasks[index]:join()
      assert.are.same({ index == 0 and "miss" or "join", "abc" }, { how, text })
      assert.are.same({ math.max(index, 3.0), math.max(index, 6.0), 10.0 }, times)
    end
    assert.are.equal(1, inner.asked)
    task.sleep(1)
    assert.are.equal("hit", result(assert(chat:stream(request))))
  end))

  it("are shared with queries that come meanwhile, and the other way about", simulated(function()
    local inner = endpoint.new { seconds = 1, pieces = with_usage(2, chunk "a", chunk()) }
    local chat = layers.cache {} (inner)
    local first = task.spawn(function() return (read(assert(chat:stream(request)))) end)
    task.sleep(0.5)
    local answer = assert(chat:query(request))
    assert.are.same({ "join", "a", 3.0 }, { result(answer), answer.choices[1].message.content, task.now() })
    assert.are.equal("a", (first:join()))

    first = task.spawn(function() return chat:query { messages = {} } end)
    task.sleep(0.5)
    local opened = assert(chat:stream { messages = {} })
    assert.are.same({ "join", "answer 2" }, { result(opened), (read(opened)) })
    first:join()
    assert.are.equal(2, inner.asked)
    -- a stream without its usage is none: the query asks, once for all
    inner.given.pieces = { 2, chunk "a", chunk() }
    local other = { messages = json.array {}, n = 1 }
    first = task.spawn(function() return (read(assert(chat:stream(other)))) end)
    task.sleep(0.5)
    local results = task.map({ 1, 2, 3 }, function() return chat:query(other) end)
    for _, each in ipairs(results) do
      assert.are.equal("answer 4", each.value.choices[1].message.content)
    end
    first:join()
    assert.are.equal(4, inner.asked)
  end))

  it("go on when a reader leaves, and end with the last one", simulated(function()
    local inner = endpoint.new { pieces = with_usage(1, chunk "a", 1, chunk "b", 1, chunk "c", chunk()) }
    local chat = layers.cache {} (inner)
    local first, second = assert(chat:stream(request)), assert(chat:stream(request))
    assert(first:next())
    first:close()
    first:close()
    assert.is_nil(first:next())
    assert.are.equal("abc", (read(second)))
    task.sleep(0)
    assert.are.equal("hit", result(assert(chat:stream(request))))
    assert.are.equal(1, inner.ended)

    first, second = assert(chat:stream { messages = {} }), assert(chat:stream { messages = {} })
    assert(second:next())
    second:close()
    first:close()
    task.sleep(0)
    assert.are.same({ 1, 2 }, { inner.ended, inner.closed })
    assert.are.equal("miss", result(assert(chat:stream { messages = {} })))
  end))

  it("are let go of with a reader that is forgotten", simulated(function()
    local inner = endpoint.new { pieces = with_usage(1, chunk "a", 1, chunk "b", chunk()) }
    local chat = layers.cache {} (inner)
    local function forget() assert(assert(chat:stream(request)):next()) end
    forget()
    for _ = 1, 3 do collectgarbage() end
    task.sleep(0)
    assert.are.same({ 0, 1 }, { inner.ended, inner.closed })
  end))

  it("are never kept when they fail or break off", simulated(function()
    local inner = endpoint.new { pieces = with_usage(chunk "a", errors.new("TruncatedStream", {
      message = "cut", partial = "a",
    })) }
    local chat = layers.cache {} (inner)
    local first, second = assert(chat:stream(request)), assert(chat:stream(request))
    for _, opened in ipairs { first, second } do
      local answer, err = opened:collect()
      assert.is_nil(answer)
      assert.are.same({ "TruncatedStream", "cut", "a" }, { err.kind, err.message, err.partial })
      assert.are.same({ nil, err }, { opened:next() })
    end
    task.sleep(0)
    assert.are.equal("miss", result(assert(chat:stream(request))))
    inner.given.pieces = { chunk "a", function() error("a bug", 0) end }
    task.sleep(1)
    local opened = assert(chat:stream { messages = {} })
    opened:next()
    local ok, message = pcall(opened.next, opened)
    assert.are.same({ false, "a bug" }, { ok, message })
    inner.given.kind = "InternalError"
    local answer, err = chat:stream { n = 1 }
    assert.is_nil(answer)
    assert.are.equal("InternalError", err.kind)
    inner.given.kind, inner.given.pieces = nil, {}
    assert.is_nil(assert(chat:stream { n = 2 }):next())
    task.sleep(0)
    assert.are.equal("miss", result(assert(chat:stream { n = 2 })))
    assert.are.equal(0, chat.cache.stored)
  end))

  it("keep within the caller's own total", simulated(function()
    local inner = endpoint.new { seconds = 2, pieces = with_usage(3, chunk "a", 3, chunk "b", chunk()) }
    local chat = layers.cache {} (inner)
    local keeper = task.spawn(function() return (read(assert(chat:stream(request)))) end)
    local answer, err = chat:stream(request, { timeout = 1 })
    assert.is_nil(answer)
    assert.are.same({ "TimeoutError", "total", 1.0 }, { err.kind, err.limit, task.now() })
    local opened = assert(chat:stream(request, { timeout = { total = 5, idle = 9 } }))
    assert(opened:next())
    answer, err = opened:collect()
    assert.is_nil(answer)
    assert.are.same({ "total", "a", 6.0 }, { err.limit, err.partial, task.now() })
    assert.are.equal("ab", (keeper:join()))
    assert(chat:stream({ n = 1 }, { timeout = { total = 5, idle = 9 } }))
    assert.are.same({ timeout = { idle = 9 } }, inner.options)
  end))

  it("end with the cache", simulated(function()
    local inner = endpoint.new { pieces = with_usage(1, chunk "a", 100, chunk "b", chunk()) }
    local chat = layers.cache {} (inner)
    local opened = assert(chat:stream(request))
    assert(opened:next())
    chat.cache:close()
    local value, err = opened:next()
    assert.is_nil(value)
    assert.are.equal("TaskCancelled", err.kind)
    assert.are.equal(1, inner.closed)
  end))

  it("may be larger than what is kept: then the slowest reader holds them back", simulated(function()
    local sent = 0
    local pieces = {}
    for index = 1, 100 do
      pieces[index] = function()
        sent = math.max(sent, index)
        return chunk(("x"):rep(1000))
      end
    end
    pieces[101] = chunk()
    table.insert(pieces, 1, 0.5)
    local inner = endpoint.new { pieces = pieces }
    local chat = layers.cache { max_answer = 10000 } (inner)
    local fast, slow = assert(chat:stream(request)), assert(chat:stream(request))
    assert.are.equal("join", result(slow))
    task.sleep(1)
    assert.is_true(sent < 15, "sent " .. sent)
    local reading = task.spawn(function() return #read(fast) end)
    task.sleep(1)
    assert.is_true(sent < 15, "sent " .. sent)
    local late <close> = assert(chat:stream(request))
    assert.are.equal("miss", result(late)) -- it is not joined any more
    for _ = 1, 20 do assert(slow:next()) end
    task.sleep(1)
    assert.is_true(sent >= 20 and sent < 35, "sent " .. sent)
    slow:close()
    assert.are.equal(100000, reading:join())
    assert.are.equal(0, chat.cache.stored)
  end))

  it("give an old answer while they ask for a new one, or where none is to be had", simulated(function()
    local inner = endpoint.new { pieces = with_usage(1, chunk "a", chunk()) }
    local chat = layers.cache { ttl = 10, stale_while_revalidate = 10, stale_if_error = 100 } (inner)
    read(assert(chat:stream(request)))
    task.sleep(15)
    inner.given.pieces = with_usage(1, chunk "b", chunk())
    local opened = assert(chat:stream(request))
    assert.are.same({ "stale", "a" }, { result(opened), (read(opened)) })
    task.sleep(2)
    assert.are.equal("b", (read(assert(chat:stream(request)))))
    task.sleep(50)
    inner.given.kind = "TooManyRequests"
    opened = assert(chat:stream(request))
    assert.are.same({ "stale", "b" }, { result(opened), (read(opened)) })
    assert.are.equal("TooManyRequests", sluice.meta(opened).degraded[1].error.kind)
  end))

  it("go by the cache where that is asked for", simulated(function()
    local inner = endpoint.new { pieces = { chunk "a", chunk() } }
    local chat = layers.cache {} (inner)
    assert.are.equal("bypass", result(assert(chat:stream(request, { cache = "no-store" }))))
    local answer, err = chat:stream(request, { cache = "only-if-cached" })
    assert.is_nil(answer)
    assert.are.equal("NotCached", err.kind)
    assert.is_nil(layers.cache {} { query = print }.stream)
  end))

  it("are streams like others, with the events of their chunks", simulated(function()
    local inner, text = endpoint.new {}, '{"choices": [{"delta":{"content":"a"}}]}'
    function inner.stream()
      local sent = false
      return { close = function() end, next = function()
        if sent then return nil end
        sent = true
        return json.decode(text), { data = text }
      end }
    end
    local chat = layers.cache {} (inner)
    for _ = 1, 2 do
      local opened = assert(chat:stream(request))
      assert.is_true(stream.is(opened))
      local _, event = opened:next()
      assert.are.equal(text, event.data)
      assert.is_nil(opened:next())
      task.sleep(0)
    end
    local kept <const> = stream.wrap(reader.kept({ { value = { n = 1 }, at = 0 } }, false))
    assert.are.same({ { n = 1 } }, { kept:next() })
  end))
end)
