-- SPDX-License-Identifier: MIT
local helper = require "http_helper"
local json = require "sluice.json"
local sluice = require "sluice"
local stream_server = require "stream_server"
local task = require "sluice.task"

local delta, DONE = stream_server.delta, stream_server.DONE
local REQUEST <const> = { messages = { { role = "user", content = "hi" } } }

-- One event that holds this value.
local function frame(value)
  return ("data: %s\n\n"):format(json.encode(value))
end

local function chunk_of(choice, more)
  local value = { id = "c1", object = "chat.completion.chunk", created = 1, model = "m" }
  value.choices = json.array { choice }
  for name, field in pairs(more or {}) do value[name] = field end
  return frame(value)
end

describe("endpoint:stream", function()
  local before

  before_each(function()
    before = helper.descriptors()
  end)

  after_each(function()
    helper.stop()
    collectgarbage()
  end)

  -- An endpoint of a server that answers with these pieces; `seen` gets what it is sent.
  local function endpoint_of(pieces, given, seen, kind, fields)
    local server = stream_server.start(function(head, body)
      if seen then seen.head, seen.body, seen.count = head, body, (seen.count or 0) + 1 end
      return pieces, kind, fields
    end)
    local options = { base_url = server.base, api_key = "k", model = "m" }
    for name, value in pairs(given or {}) do options[name] = value end
    return sluice.openai(options)
  end

  local function stream_of(pieces, ...)
    return endpoint_of(pieces, ...):stream(REQUEST)
  end

  local function texts(stream)
    local all = {}
    for piece in stream:text() do all[#all + 1] = piece end
    return all
  end

  local ROLE <const> = chunk_of { index = 0, delta = { role = "assistant", content = "" } }

  it("gives the text as it comes and ends at the end mark", function()
    local seen = {}
    local endpoint = endpoint_of({ ROLE, delta "Hel", delta "lo", delta(nil, "stop"), DONE }, nil, seen)
    local stream = assert(endpoint:stream(REQUEST))
    assert.are.same({ "Hel", "lo" }, texts(stream))
    assert.are.same({}, { stream:next() })
    local sent = assert(json.decode(seen.body))
    assert.is_true(sent.stream)
    assert.is_nil(REQUEST.stream)
    assert.are.equal("m", sent.model)
    assert(seen.head:find("POST /chat/completions", 1, true))
    assert(seen.head:lower():find("accept: text/event-stream", 1, true))
  end)

  it("gives the chunks as they came, with their events", function()
    local stream = assert(stream_of { ROLE, delta "a", delta(nil, "stop"), DONE })
    local chunk, event = stream:next()
    assert.are.equal("assistant", chunk.choices[1].delta.role)
    assert.are.equal(chunk.id, json.decode(event.data).id)
    local contents = {}
    for each in stream:chunks() do contents[#contents + 1] = each.choices[1].delta.content or "none" end
    assert.are.same({ "a", "none" }, contents)
  end)

  it("waits for the first content, not for a role", function()
    task.scope(function()
      local pieces = { ROLE, 0.1, delta "a", delta(nil, "stop"), DONE }
      local from = task.now()
      local stream <close> = assert(stream_of(pieces))
      assert(task.now() - from >= 0.1)
      local facts = sluice.meta(stream)
      assert(facts.ttft >= 0.1 and facts.ttft < 5)
      assert.are.equal(200, facts.status)
      assert(facts.headers["content-type"])
      assert(facts.timing.first_byte)
    end)
  end)

  it("collects the shape of a query's answer", function()
    local usage = { prompt_tokens = 3, completion_tokens = 2, total_tokens = 5 }
    local stream = assert(stream_of {
      chunk_of({ index = 0, delta = { role = "assistant" } }, { usage = { total_tokens = 3 } }),
      chunk_of({ index = 0, delta = { content = "Hel" } }, { usage = { total_tokens = 4 } }),
      chunk_of({ index = 0, delta = { content = "lo" }, finish_reason = "stop" }, { usage = usage }),
      DONE,
    })
    local answer = assert(stream:collect())
    assert.are.same({
      id = "c1", object = "chat.completion", created = 1, model = "m", usage = usage,
      choices = { {
        index = 0, finish_reason = "stop", message = { role = "assistant", content = "Hello" },
      } },
    }, answer)
    assert.are.equal(200, sluice.meta(answer).status)
    assert(sluice.meta(answer).ttft)
    assert(sluice.meta(answer).timing.total)
    assert.are.equal(answer, stream:collect())
  end)

  it("collects what was read before as well", function()
    local stream = assert(stream_of { ROLE, delta "a", delta "b", delta(nil, "stop"), DONE })
    assert.are.same({ "a", "b" }, texts(stream))
    assert.are.equal("ab", assert(stream:collect()).choices[1].message.content)
  end)

  it("takes the last usage, from a chunk without choices too", function()
    local stream = assert(stream_of {
      delta "a", delta(nil, "stop"), frame { choices = json.array(), usage = { total_tokens = 9 } }, DONE,
    })
    assert.are.same({ total_tokens = 9 }, assert(stream:collect()).usage)
  end)

  it("reads content that is missing, null, or made of blocks", function()
    local function blocks(...) return chunk_of { index = 0, delta = { content = json.array { ... } } } end
    local function summary(text)
      return { type = "reasoning", summary = json.array { { type = "summary_text", text = text } } }
    end
    local stream = assert(stream_of {
      chunk_of { index = 0, delta = { role = "assistant", content = json.null } },
      blocks(summary "I thi"), blocks(summary "nk."), blocks { type = "text", text = "Yes" },
      blocks { type = "text", text = ", so." },
      chunk_of { index = 0, delta = json.decode "{}", finish_reason = "stop" }, DONE,
    })
    assert.are.same({ "Yes", ", so." }, texts(stream))
    assert.are.same({ summary "I think.", { type = "text", text = "Yes, so." } },
      assert(stream:collect()).choices[1].message.content)
  end)

  local function calls(...)
    return chunk_of { index = 0, delta = { tool_calls = json.array { ... } } }
  end

  it("puts tool calls together", function()
    local function call(index, id, name, arguments)
      local part = { name = name, arguments = arguments }
      return { index = index, id = id, type = "function", ["function"] = part }
    end
    local stream = assert(stream_of {
      ROLE,
      calls(call(0, "call_1", "sum", "")),
      calls { index = 0, ["function"] = { arguments = '{"a":' } },
      calls(call(1, "call_2", "now", "{}")),
      calls { index = 0, ["function"] = { arguments = "1}" } },
      delta(nil, "tool_calls"), DONE,
    })
    local choice = assert(stream:collect()).choices[1]
    assert.are.equal("tool_calls", choice.finish_reason)
    assert.are.equal(json.null, choice.message.content)
    assert.are.same({
      { id = "call_1", type = "function", ["function"] = { name = "sum", arguments = '{"a":1}' } },
      { id = "call_2", type = "function", ["function"] = { name = "now", arguments = "{}" } },
    }, choice.message.tool_calls)
  end)

  it("tells tool calls apart that are all numbered 0, or not at all", function()
    for _, index in ipairs { 0, false } do
      local function call(id, name, arguments)
        local part = { name = name, arguments = arguments }
        return { index = index or nil, id = id, ["function"] = part }
      end
      local stream = assert(stream_of {
        calls(call("c1", "f", "{")), calls(call("c1", "f", "}")), calls(call("c2", "g", "[")),
        calls(call(nil, nil, "]")), delta(nil, "tool_calls"), DONE,
      })
      local made = assert(stream:collect()).choices[1].message
      assert.are.equal(json.null, made.content)
      assert.are.same({
        { id = "c1", ["function"] = { name = "f", arguments = "{}" } },
        { id = "c2", ["function"] = { name = "g", arguments = "[]" } },
      }, made.tool_calls)
    end
  end)

  it("keeps several choices, log probabilities and what else a message has", function()
    local function piece(content, reasoning, number)
      local change = { content = content, reasoning_content = reasoning }
      return chunk_of { index = 0, delta = change, logprobs = { content = { number } } }
    end
    local stream = assert(stream_of {
      chunk_of { index = 1, delta = { role = "assistant", content = "b" } },
      piece("a", "h", 1), piece("A", "m", 2),
      chunk_of { index = 1, delta = {}, finish_reason = "length", stop_reason = 7 },
      chunk_of { index = 0, delta = {}, finish_reason = "stop" }, DONE,
    })
    local answer = assert(stream:collect())
    assert.are.same({
      { index = 0, finish_reason = "stop", logprobs = { content = { 1, 2 } },
        message = { role = "assistant", content = "aA", reasoning_content = "hm" } },
      { index = 1, finish_reason = "length", stop_reason = 7,
        message = { role = "assistant", content = "b" } },
    }, answer.choices)
  end)

  it("reads legacy completions", function()
    local function piece(text, reason)
      return frame {
        id = "x", object = "text_completion",
        choices = json.array { { index = 0, text = text, finish_reason = reason or json.null } },
      }
    end
    local stream = assert(stream_of { piece "Hel", piece "lo", piece("", "stop"), DONE })
    assert.are.same({ "Hel", "lo" }, texts(stream))
    local answer = assert(stream:collect())
    assert.are.equal("text_completion", answer.object)
    assert.are.same({ { index = 0, text = "Hello", finish_reason = "stop" } }, answer.choices)
  end)

  it("reads events of the Responses API", function()
    local function event(kind, more)
      more.type = kind
      return ("event: %s\n"):format(kind) .. frame(more)
    end
    local item = { type = "message", content = { { type = "output_text", text = "Hello" } } }
    local pieces = {
      event("response.created", { response = { id = "r" } }),
      event("response.output_text.delta", { delta = "Hel" }),
      event("response.output_text.delta", { delta = "lo" }),
      event("response.output_item.done", { item = item }),
    }
    local stream = assert(stream_of { table.concat(pieces), DONE })
    assert.are.same({ "Hel", "lo" }, texts(stream))
    assert.are.same({ object = "response", output = { item } }, stream:collect())
    pieces[#pieces + 1] = event("response.completed", { response = { id = "r", output = { item } } })
    stream = assert(stream_of(pieces)) -- this one has no end mark
    assert.are.same({ id = "r", output = { item } }, stream:collect())
  end)

  it("passes on chunks that nobody knows", function()
    local stream = assert(stream_of { frame { predictions = { 1, 2 } }, DONE })
    assert.are.same({ predictions = { 1, 2 } }, stream:collect())
  end)

  -- ---- ends ----

  it("says that a stream without an end mark or a finish reason is cut, with the text", function()
    local stream = assert(stream_of { delta "Hel", delta "lo" })
    local answer, err = stream:collect()
    assert.is_nil(answer)
    assert.are.equal("TruncatedStream", err.kind)
    assert.are.equal("Hello", err.partial)
    assert.are.equal(2, err.events)
    assert.are.same({ nil, err }, { stream:next() })
    assert(tostring(err):find("stream model m", 1, true), tostring(err))
  end)

  it("takes a finish reason for an end", function()
    local stream = assert(stream_of { delta "a", delta(nil, "length") })
    assert.are.equal("length", assert(stream:collect()).choices[1].finish_reason)
  end)

  it("takes any end where the endpoint never sends a mark", function()
    local stream = assert(stream_of({ delta "a" }, { end_mark = false }))
    assert.are.equal("a", assert(stream:collect()).choices[1].message.content)
    local none, err = stream_of({ ": nothing\n\n" }, { end_mark = false })
    assert.is_nil(none)
    assert.are.equal("TruncatedStream", err.kind)
  end)

  it("reads nothing behind the end mark", function()
    local stream = assert(stream_of { delta "a", DONE, delta "b", "data: {no json\n\n" })
    assert.are.same({ "a" }, texts(stream))
  end)

  it("knows the end mark by its letter", function()
    local stream = assert(stream_of { delta "a", "data: [DONE] x\n\n", DONE })
    local _, err = stream:collect()
    assert.are.equal("JsonError", err.kind)
    assert(err.message:find("[DONE] x", 1, true))
  end)

  it("does not wait for a server that stays after the end mark", function()
    local gone = false
    local stream = assert(stream_of { delta "a", DONE, function(connection)
      connection:read()
      gone = true
    end })
    local from = task.now()
    assert.are.same({ "a" }, texts(stream))
    assert(task.now() - from < 1)
    local limit = task.now() + 2
    while not gone and task.now() < limit do task.sleep(0.001) end
    assert.is_true(gone)
  end)

  it("leaves a connection that serves again", function()
    local seen = {}
    local client = sluice.http.client()
    local endpoint = endpoint_of({ delta "a", delta(nil, "stop"), DONE }, { transport = client }, seen)
    for _ = 1, 5 do assert.are.same({ "a" }, texts(assert(endpoint:stream(REQUEST)))) end
    assert.are.same({ 5, 1 }, { seen.count, client:stats().open })
    client:close()
  end)

  it("ends with a stream that has no content", function()
    local stream = assert(stream_of { DONE })
    assert.are.same({}, texts(stream))
    assert.are.same({}, stream:collect())
  end)

  -- ---- what is no stream, and errors in one ----

  local function failure_of(pieces, kind, fields)
    local stream, err = stream_of(pieces, nil, nil, kind, fields)
    assert.is_nil(stream)
    return err
  end

  it("refuses a page, and a whole answer, quoting a part of them", function()
    local page = "<html><body>" .. ("Sign in! "):rep(20000) .. "</body></html>"
    for _, kind in ipairs { "text/html; charset=utf-8", "text/event-stream" } do
      local err = failure_of({ page }, kind)
      assert.are.equal("ProtocolError", err.kind)
      assert.are.equal("NOT_A_STREAM", err.code)
      assert(err.message:find("an HTML page", 1, true) and err.message:find("Sign in!", 1, true))
      assert(#err.message < 700)
    end
    local whole = json.encode { choices = { { message = { content = "all of it" } } } }
    for _, kind in ipairs { "application/json", "text/event-stream", "text/plain" } do
      local err = failure_of({ " \n", whole }, kind)
      assert.are.equal("NOT_A_STREAM", err.code)
      assert(err.message:find("one whole JSON answer", 1, true) and err.message:find("all of it", 1, true))
    end
  end)

  it("reads an error in an answer of 200", function()
    local body = '{"error_code":"REQUEST_LIMIT_EXCEEDED","message":"slow down"}'
    local err = failure_of({ body }, "application/json")
    assert.are.equal("RequestLimitExceeded", err.kind)
    assert.are.equal("slow down", err.message)
  end)

  it("gives the error of a status that is no success", function()
    local server = helper.serve_requests(function()
      return "HTTP/1.1 429 Too Many Requests\r\nRetry-After: 7\r\nContent-Length: 22\r\n\r\n"
        .. '{"error":{"code":"x"}}'
    end)
    local stream, err = sluice.openai({ base_url = server.base }):stream(REQUEST)
    assert.is_nil(stream)
    assert.are.same({ "TooManyRequests", 7, "stream model" }, { err.kind, err.retry_after, err.operation })
  end)

  local ERRORS <const> = {
    { "RequestLimitExceeded", 'data: {"error_code":"REQUEST_LIMIT_EXCEEDED","message":"wait"}\n\n' },
    { "TooManyRequests", 'data: {"error":{"message":"wait","code":"rate_limit_exceeded"}}\n\n' },
    { "ServiceError", 'data: {"error":"wait"}\n\n' },
    { "ServiceError", 'event: error\ndata: {"message":"wait"}\n\n' },
    { "ServiceError", "event: error\ndata: wait\n\n" },
    { "ServiceError", 'data: {"type":"response.failed","response":{"error":{"message":"wait"}}}\n\n' },
  }

  it("types the error of a frame, whatever shape it has", function()
    for _, case in ipairs(ERRORS) do
      local err = failure_of { ROLE, case[2], DONE }
      assert.are.equal(case[1], err.kind, case[2])
      assert.are.equal("wait", err.message)
      assert.are.equal("stream model", err.operation)
      local stream = assert(stream_of { delta "a", case[2], DONE })
      assert.are.equal("a", (require "sluice.stream.delta").text(assert(stream:next())))
      local chunk
      chunk, err = stream:next()
      assert.is_nil(chunk)
      assert.are.same({ case[1], "a" }, { err.kind, err.partial })
    end
  end)

  it("says what is wrong with a frame that is no JSON, or no object", function()
    local stream = assert(stream_of { delta "a", 'data: {"choices":[{"del\n\n', DONE })
    local _, err = stream:collect()
    assert.are.same({ "JsonError", "a", 2 }, { err.kind, err.partial, err.events })
    assert(err.message:find('{"choices":[{"del', 1, true))
    stream = assert(stream_of { delta "a", "data: 17\n\n", DONE })
    _, err = stream:collect()
    assert.are.equal("JsonError", err.kind)
  end)

  it("passes over events without data and comments", function()
    local stream = assert(stream_of { ": hi\n\n", "data:\n\n", delta "a", "event: ping\n\n", DONE })
    assert.are.same({ "a" }, texts(stream))
  end)

  it("says when the connection is cut", function()
    local stream = assert(stream_of { delta "a", 'data: {"cho', 0.01, false })
    local _, err = stream:collect()
    assert.is_true(err:is "TruncatedStream" or err:is "ConnectError")
    assert.are.same({ "a", 1, "stream model" }, { err.partial, err.events, err.operation })
    assert(err.bytes > 100)
  end)

  it("refuses an event over the limit", function()
    local stream = assert(stream_of { delta "a", "data: " .. ("x"):rep(2 << 20) .. "\n\n", DONE })
    local _, err = stream:collect()
    assert.are.same({ "EventTooLarge", "a" }, { err.kind, err.partial })
  end)

  it("reads a compressed answer", function()
    local plain = delta "a" .. delta(nil, "stop") .. DONE
    local packed = require("support").with_file(plain, function(path)
      return require("support").shell("gzip -c <" .. path).out
    end)
    local stream = assert(stream_of({ packed }, nil, nil, nil, "Content-Encoding: gzip\r\n"))
    assert.are.same({ "a" }, texts(stream))
  end)

  -- ---- leaving ----

  it("closes the connection when it is closed, or its loop is left", function()
    for _, leave in ipairs {
      function(stream) stream:close() end,
      function(stream)
        for _ in stream:text() do
          if stream then break end
        end
      end,
      function(stream) local _ <close> = stream end,
    } do
      local gone = false
      local stream = assert(stream_of { delta "a", function(connection)
        connection:read()
        gone = true
      end })
      leave(stream)
      local limit = task.now() + 2
      while not gone and task.now() < limit do task.sleep(0.001) end
      assert.is_true(gone)
      assert.is_nil(stream:next())
      local answer, err = stream:collect()
      assert.is_nil(answer)
      assert.are.same({ "TruncatedStream", false }, { err.kind, err.retryable })
    end
  end)

  it("closes the connection when its reader is cancelled", function()
    local gone = false
    local endpoint = endpoint_of { delta "a", function(connection)
      connection:read()
      gone = true
    end }
    task.scope(function(scope)
      scope:spawn(function() texts(assert(endpoint:stream(REQUEST))) end)
      task.sleep(0.05)
      scope:cancel "enough"
    end)
    local limit = task.now() + 2
    while not gone and task.now() < limit do task.sleep(0.001) end
    assert.is_true(gone)
  end)

  it("does not grow while its readers sleep", function()
    local written, streams = 0, {}
    local endpoint = endpoint_of { function(connection)
      local piece = stream_server.chunk(delta(("x"):rep(8000)))
      while connection:write(piece) do written = written + 1 end
    end }
    for index = 1, 10 do streams[index] = assert(endpoint:stream(REQUEST)) end
    local still
    repeat -- until the sockets are full
      still = written
      task.sleep(0.2)
    until written == still
    collectgarbage()
    local heap = collectgarbage "count"
    task.sleep(0.3)
    collectgarbage()
    assert(collectgarbage "count" < heap + 64)
    assert.are.equal(still, written)
    for _, stream in ipairs(streams) do
      assert(stream:next())
      stream:close()
    end
  end)

  it("leaves nothing open", function()
    for _ = 1, 3 do texts(assert(stream_of { delta "a", DONE })) end
    helper.stop()
    collectgarbage()
    assert(helper.descriptors() <= before + 8) -- the pool that the program shares keeps a few
  end)

  it("checks its arguments", function()
    local endpoint = sluice.openai { base_url = "http://localhost/v1", model = "m" }
    assert.has_error(function() endpoint:stream() end)
    assert.has_error(function() endpoint:stream({}, { timeouts = 1 }) end)
    assert.has_error(function() endpoint.stream {} end)
    assert.has_error(function() sluice.openai { end_mark = 1 } end)
    local workspace = assert(sluice.workspace { host = "http://localhost", token = "t" })
    assert(workspace:endpoint("e", { end_mark = false }))
    assert.has_error(function() workspace:endpoint("e", { endmark = false }) end)
  end)
end)
