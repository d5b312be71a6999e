-- SPDX-License-Identifier: MIT
local cassette = require "sluice.transports.cassette"
local errors = require "sluice.errors"
local faults = require "sluice.transports.faults"
local http = require "sluice.http"
local in_process = require "sluice.transports.in_process"
local json = require "sluice.json"
local meta = require "sluice.meta"
local recorder = require "sluice.transports.recorder"
local redact = require "sluice.transports.redact"
local sluice = require "sluice"
local support = require "support"
local task = require "sluice.task"
local web = require "sluice.web"

local STREAM <const> = { url = "http://h/stream", stream = true }

-- A model that streams a piece a second, and counts.
local function model()
  local asked = { count = 0 }
  return in_process(function(request)
    asked.count = asked.count + 1
    if request.path ~= "/stream" then
      task.sleep(2)
      return { status = 201, headers = { ["x-number"] = tostring(asked.count) },
        json = { got = request:json() or json.null } }
    end
    local count = 0
    return {
      headers = { ["content-type"] = "text/event-stream" },
      body = function()
        task.sleep(1)
        count = count + 1
        return count <= 3 and ("data: %d\n\n"):format(count) or nil
      end,
    }
  end), asked
end

local function read(res)
  local pieces, started = {}, task.now()
  while true do
    local piece, err = res:read()
    if not piece then return pieces, err end
    pieces[#pieces + 1] = ("%g %s"):format(task.now() - started, piece)
  end
end

-- Calls f with the path of a new file, in simulated time.
local function simulated(f)
  return function()
    support.with_file("", function(path) task.simulate(function() f(path) end) end)
  end
end

local function lines_of(path)
  local lines = {}
  for line in support.read_file(path):gmatch "[^\n]+" do lines[#lines + 1] = line end
  return lines
end

describe("transports.cassette", function()
  it("replays what it recorded, in the same pieces and time", simulated(function(path)
    local inner, asked = model()
    local recording = cassette { path = path, mode = "record", inner = inner }
    local first = recording:handle { url = "http://h/plain", json = { b = 1, a = 2 } }
    assert.same({ 201, "1", 2 }, { first.status, first.headers["x-number"], task.now() })
    local live = { read(recording:handle(STREAM)) }
    assert.same({ { "1 data: 1\n\n", "2 data: 2\n\n", "3 data: 3\n\n" } }, live)
    assert.same({ 2, 0 }, { recording.recorded, recording.replayed })
    recording:close()

    local replaying = cassette { path = path, mode = "replay" }
    local started = task.now()
    local res = replaying:handle { url = "http://h/plain", body = '{"a":2,"b":1}', method = "POST" }
    assert.same({ 201, "1", first.body, 2 },
      { res.status, res.headers["x-number"], res.body, task.now() - started })
    assert.same({ path = path, line = 2 }, meta.get(res).cassette)
    assert.same(live, { read(replaying:handle(STREAM)) })
    assert.same({ 2, 0, 2 }, { asked.count, replaying.recorded, replaying.replayed })
    assert.equal(cassette, sluice.transports.cassette)
  end))

  it("replays without the time, or with a part of it", simulated(function(path)
    local recording <close> = cassette { path = path, mode = "record", inner = (model()) }
    for _ = 1, 2 do read(recording:handle(STREAM)) end
    local function seconds(timing)
      local started = task.now()
      read(cassette({ path = path, mode = "replay", timing = timing }):handle(STREAM))
      return task.now() - started
    end
    assert.same({ 4, 0, 2, 12 }, { seconds "recorded", seconds "none", seconds(0.5), seconds(3) })
  end))

  it("keeps a replay to the time limits", simulated(function(path)
    local recording <close> = cassette { path = path, mode = "record", inner = (model()) }
    for _ = 1, 2 do recording:handle { url = "http://h/" } end
    read(recording:handle(STREAM))
    local replaying = cassette { path = path, mode = "replay" }
    local _, err = replaying:handle { url = "http://h/", timeout = 1 }
    assert.same({ "TimeoutError", "total" }, { err.kind, err.limit })
    _, err = replaying:handle { url = "http://h/", timeout = { first_byte = 1.5 } }
    assert.same({ "TimeoutError", "first_byte" }, { err.kind, err.limit })
    _, err = read(replaying:handle { url = "http://h/stream", stream = true, timeout = { idle = 0.9 } })
    assert.same({ "TimeoutError", "idle" }, { err.kind, err.limit })
  end))

  it("records errors and cuts, and replays them", simulated(function(path)
    local inner = faults { inner = (model()), rules = { { kind = "refuse", times = 1 },
      { kind = "status", status = 429, headers = { ["retry-after"] = "7" }, times = 1 },
      { kind = "truncate", bytes = 12, times = 1 } } }
    local function run(transport)
      local seen = {}
      for index = 1, 4 do
        local res, err = transport:handle(STREAM)
        local pieces
        if res then pieces, err = read(res) end
        seen[index] = { res and res.status, res and res.headers["retry-after"], pieces, err and err.kind,
          err and err.phase, err and err.maybe_executed, err and err.message }
      end
      return seen, task.now()
    end
    local recording = cassette { path = path, mode = "record", inner = inner }
    local live = run(recording)
    recording:close()
    assert.same({ "ConnectError", "connect" }, { live[1][4], live[1][5] })
    assert.equal("TruncatedStream", live[3][4])
    assert.same(live, (run(cassette { path = path, mode = "replay" })))
  end))

  it("records a stream that was left as aborted", simulated(function(path)
    local recording = cassette { path = path, mode = "record", inner = (model()) }
    local res = recording:handle(STREAM)
    res:read()
    res:close()
    res:close()
    local left = task.spawn(function() read(recording:handle(STREAM)) end)
    task.sleep(2.5)
    left:cancel()
    pcall(left.join, left)
    local unread = recording:handle(STREAM)
    recording:close()
    unread:close()
    local outcomes = {}
    for index, line in ipairs(lines_of(path)) do
      local record = json.decode(line)
      if index > 1 then
        outcomes[#outcomes + 1] = { record.outcome, #record.response.pieces, record.ended }
      end
    end
    assert.same({ { "aborted", 1, 1 }, { "aborted", 2, 2.5 }, { "aborted", 0, 0 } }, outcomes)
    local replaying = cassette { path = path, mode = "replay" }
    local pieces, err = read(replaying:handle(STREAM))
    assert.same({ "1 data: 1\n\n" }, pieces)
    assert.equal("CassetteError", err.kind)
    assert.matches("the recording in line 2 of .* ends here, after 9 bytes", err.message)
  end))

  it("records what runs at once, and replays it in the order of the beginnings", simulated(function(path)
    local inner = in_process(function(request)
      local seconds = assert(tonumber(request.query.s))
      task.sleep(seconds)
      return tostring(seconds)
    end)
    local function run(transport)
      return task.map({ 3, 1, 2, 1 }, function(seconds)
        return transport:handle({ url = "http://h/?s=" .. seconds }).body
      end)
    end
    local recording <close> = cassette { path = path, mode = "record", inner = inner }
    local live = run(recording)
    assert.same({ 2, 4, 3, 1 }, (function(lines)
      local order = {}
      for index = 2, #lines do order[index - 1] = json.decode(lines[index]).n end
      return order
    end)(lines_of(path)))
    assert.same(live, run(cassette { path = path, mode = "replay" }))
  end))

  it("records what it does not have in mode auto", simulated(function(path)
    local inner, asked = model()
    os.remove(path)
    local function ask(words)
      local transport <close> = cassette { path = path, inner = inner, timing = "none" }
      for _, word in ipairs(words) do
        assert(transport:handle { url = "http://h/", json = { word = word } })
      end
      return { transport.recorded, transport.replayed }
    end
    assert.same({ 2, 0 }, ask { "a", "b" })
    assert.same({ 1, 2 }, ask { "b", "a", "c" })
    assert.same({ 0, 3 }, ask { "a", "b", "c" })
    assert.same({ 1, 1 }, ask { "a", "a" })
    assert.equal(4, asked.count)
    local lines, order = lines_of(path), {}
    for index = 2, #lines do order[index - 1] = json.decode(lines[index]).n end
    assert.same({ 1, 2, 3, 4 }, order)
  end))

  it("says which request is nearest, and sends nothing", simulated(function(path)
    local recording <close> = cassette { path = path, mode = "record", inner = (model()) }
    recording:handle { url = "http://h/chat", json = { model = "small", n = 1 } }
    local sends = { handle = function() error "sent" end }
    local replaying = cassette { path = path, mode = "replay", inner = sends }
    local _, err = replaying:handle { url = "http://h/chat", json = { model = "large", n = 1 } }
    assert.equal("replay cassette " .. path .. ": no recording of POST http://h/chat with this body: "
      .. 'body.model is "small" in line 2, and "large" here (CassetteError)', tostring(err))
    assert.is_false(err.retryable)
    replaying = cassette { path = path, mode = "replay", timing = "none", ignore = { "model" } }
    assert.equal(201, replaying:handle({ url = "http://h/chat", json = { model = "large", n = 1 } }).status)
  end))

  it("tells what is wrong with its file, at the first request", simulated(function(path)
    local function problem(mode, content)
      local file = assert(io.open(path, "wb"))
      file:write(content):close()
      local res, err = cassette({ path = path, mode = mode }):handle { url = "http://h/" }
      assert.is_nil(res)
      return err.kind .. ": " .. err.message
    end
    assert.equal("CassetteError: line 1 is not that of a cassette", problem("replay", ""))
    assert.equal("CassetteError: line 1 is not that of a cassette", problem("auto", "my notes\n"))
    assert.matches("line 2, the last one, is cut in the middle",
      problem("auto", '{"cassette":1}\n{"n":1,"re'))
    os.remove(path)
    local _, err = cassette({ path = path, mode = "replay" }):handle { url = "http://h/" }
    assert.matches("there is no such file: record it first", err.message)
    _, err = cassette({ path = path .. "/x", mode = "record" }):handle { url = "http://h/" }
    assert.equal("CassetteError", err.kind)
    _, err = cassette({ path = "/", mode = "replay" }):handle { url = "http://h/" }
    assert.equal("CassetteError", err.kind)
  end))

  it("writes no secret", simulated(function(path)
    local inner = in_process(function(request)
      local echo = request.headers["authorization"] and "bearer-of-this-call"
      return { headers = { ["set-cookie"] = "session=cookie-of-eight" }, json = {
        access_token = "token-of-the-answer", echo = echo, url = request.target, max_tokens = 7,
      } }
    end)
    local recording = cassette { path = path, mode = "record", inner = inner, redact = { "tenant" } }
    local request = {
      url = "https://user:password-in-url@h/p?api_key=key-in-the-query&page=2",
      headers = { Authorization = "Bearer bearer-of-this-call",
        ["X-Api-Key"] = sluice.secret "key-in-a-header",
        Cookie = "id=cookie-of-the-client", ["X-Plain"] = "shown", Tenant = "tenant-header" },
      json = { client_secret = "secret-in-the-body", tenant = "tenant-field", max_tokens = 5,
        note = "the key is key-in-a-header" },
    }
    recording:handle(request)
    recording:handle { url = "http://h/token-of-the-answer" }
    recording:close()
    local content = support.read_file(path)
    for _, hidden in ipairs {
      "password-in-url", "key-in-the-query", "bearer-of-this-call", "key-in-a-header",
      "cookie-of-the-client", "tenant-header", "tenant-field", "secret-in-the-body", "token-of-the-answer",
      "cookie-of-eight",
    } do assert.is_nil(content:find(hidden, 1, true), hidden) end
    assert.is_nil(content:find("content-length", 1, true), "it would be a wrong one")
    for _, shown in ipairs { "shown", "page=2", '\\"max_tokens\\":5', '\\"max_tokens\\":7' } do
      assert.is_truthy(content:find(shown, 1, true), shown)
    end
    -- other secrets, the same request
    request.url = "https://user:other@h/p?api_key=other&page=2"
    request.headers = {}
    request.json.client_secret, request.json.tenant = "other", "other"
    request.json.note = "the key is ***"
    local replaying = cassette { path = path, mode = "replay", redact = { "tenant" } }
    assert.equal("***", assert(replaying:handle(request)):json().access_token)
  end))

  it("takes a body that comes in pieces for one, and gives up with it", simulated(function(path)
    local recording = cassette { path = path, inner = (model()), timing = "none" }
    local function pieces()
      local list = { '{"a":', "1}" }
      return function() return table.remove(list, 1) end
    end
    assert.equal(1, recording:handle({ url = "http://h/", body = pieces() }):json().got.a)
    recording:close()
    assert.equal(1, recording:handle({ url = "http://h/", body = pieces() }):json().got.a)
    assert.same({ 1, 1 }, { recording.recorded, recording.replayed })
    local _, err = recording:handle { url = "http://h/", body = function() return nil, "no more" end }
    assert.equal("no more", err)
  end))

  it("works below an endpoint, without a key", simulated(function(path)
    local inner = in_process(function(request)
      return { json = { answer = request:json().prompt:upper() } }
    end)
    local function ask(transport, key)
      local endpoint = sluice.openai { transport = transport, model = "m", api_key = key }
      return endpoint:query { prompt = "hello" }
    end
    local recording <close> = cassette { path = path, mode = "record", inner = inner }
    assert.equal("HELLO", ask(recording, "sk-not-for-the-file").answer)
    local replaying = cassette { path = path, mode = "replay" }
    assert.equal("HELLO", ask(replaying).answer)
    local _, err = ask(replaying)
    assert.matches("^query model m: replay cassette .*used up", tostring(err))
  end))

  it("replays a whole run against the emulator: creating, waiting, a stream", simulated(function(path)
    local config = { served_entities = { { entity_name = "main.demo.rivers", entity_version = "1",
      workload_size = "Small", scale_to_zero_enabled = true } } }
    local token = "dapi" .. ("0123456789abcdef"):rep(2)
    local function run(transport)
      local w = assert(sluice.workspace { host = "http://h", token = token, transport = transport })
      assert(w.serving_endpoints:create_and_wait { name = "rivers", config = config })
      local pieces = {}
      local stream = assert(w:endpoint("rivers"):stream { max_tokens = 10,
        messages = { { role = "user", content = "Where does it begin?" } } })
      for text in stream:text() do pieces[#pieces + 1] = text end
      return pieces
    end
    local emulated = require("sluice.emulator").new { deploy_time = 5, latency = 0.1 }
    local recording = cassette { path = path, mode = "record", inner = in_process(emulated.app) }
    local live = run(recording)
    recording:close()
    assert.is_true(#live > 3)
    assert.is_nil(support.read_file(path):find(token, 1, true))
    local replaying = cassette { path = path, mode = "replay" }
    local split = faults { inner = replaying, rules = { { kind = "split", size = 3 } } }
    assert.same(live, run(split))
    assert.equal(recording.recorded, replaying.replayed)
  end))

  it("refuses wrong options at the caller", function()
    local function misuse(given) return select(2, pcall(function() cassette(given) end)) end
    assert.matches('cassette_spec.lua:%d+: transports.cassette: option "path" is missing', misuse {})
    assert.matches('option "mode" must be "record", "replay" or "auto"', misuse { path = "x", mode = "rec" })
    assert.matches('option "timing" must be "recorded", "none" or a factor',
      misuse { path = "x", timing = -1 })
    assert.matches("inner is no transport", misuse { path = "x", inner = {} })
  end)
end)

describe("transports.recorder", function()
  it("goes on when its file cannot be written, and says so", function()
    local log, lines = require "sluice.log", {}
    log.set_output(function(line) lines[#lines + 1] = line end)
    local full = io.open("/dev/full", "wb")
    local writer = recorder.new(full, redact.new(), 0, function() error "written" end)
    local shown = { method = "GET", url = "http://h/", headers = {} }
    local res = writer:record(in_process(function() return "ok" end), { url = "http://h/" }, shown)
    writer:close()
    log.set_output(nil)
    assert.same({ "ok", 1 }, { res.body, #lines })
    assert.matches("a cassette cannot be written", lines[1])
    assert.is_false(errors.is(res))
  end)
end)

support.needing("server", describe, pending)("transports.cassette", function()
  it("records a real run, pieces as they came from the socket", function()
    local app = web.app()
    app:get("/", function()
      local count = 0
      return { body = function()
        count = count + 1
        if count > 1 then task.sleep(0.03) end
        return count <= 4 and ("piece %d;"):format(count) or nil
      end }
    end)
    local server = assert(app:listen "127.0.0.1:0")
    support.with_file("", function(path)
      local request = { url = server.url .. "/", stream = true }
      local recording = cassette { path = path, mode = "record" }
      local res = recording:handle(request)
      local live, heard = {}, {}
      for piece in res:chunks() do live[#live + 1] = piece end
      recording:close()
      server:stop(0)
      local started = task.now()
      local replayed = cassette({ path = path, mode = "replay" }):handle(request)
      for piece in replayed:chunks() do heard[#heard + 1] = piece end
      assert.is_true(#live >= 2)
      assert.same(live, heard)
      assert.is_true(task.now() - started >= 0.08)
      local _, err = http.request { url = server.url, timeout = 1 }
      assert.equal("ConnectError", err.kind)
    end)
  end)
end)
