-- SPDX-License-Identifier: MIT
-- What a handler's stream becomes: frames, failures, headers; in process.

local errors = require "sluice.errors"
local json = require "sluice.json"
local log = require "sluice.log"
local result = require "sluice.web.result"
local sse = require "sluice.sse"
local streams = require "sluice.web.stream"
local task = require "sluice.task"
local web = require "sluice.web"

-- An endpoint's stream of these chunks; the last may be an err.
local function chunk_stream(chunks)
  local self = { pulled = 0, closed = 0 }
  function self.next()
    self.pulled = self.pulled + 1
    local chunk = chunks[self.pulled]
    if errors.is(chunk) then return nil, chunk end
    return chunk
  end
  function self.close() self.closed = self.closed + 1 end
  return self
end

local function items(list)
  local index = 0
  return function()
    index = index + 1
    return list[index]
  end
end

local function get(given, method)
  local app = web.app()
  app:get("/", function() return given end)
  return assert(app:handle { path = "/", method = method })
end

local function read_all(res)
  local pieces = {}
  while true do
    local piece, err = res:read()
    if not piece then return table.concat(pieces), err, #pieces end
    pieces[#pieces + 1] = piece
  end
end

-- The error in a frame.
local function told(frame)
  return assert(json.decode(frame:match "^\n?\n?data: (.*)\n\n$")).error
end

local function err(kind, fields) return errors.new(kind, fields or { message = "it broke" }) end

describe("web: a stream", function()
  it("of an endpoint becomes JSON events and [DONE]", function()
    local source = chunk_stream { { a = 1 }, { b = "x\ny" } }
    local res = get { stream = source }
    assert.equal(200, res.status)
    assert.equal("text/event-stream", res.headers["content-type"])
    assert.equal("no-cache", res.headers["cache-control"])
    assert.equal("no", res.headers["x-accel-buffering"])
    assert.is_nil(res.headers["content-length"])
    local text, failure, pieces = read_all(res)
    assert.is_nil(failure)
    assert.equal('data: {"a":1}\n\ndata: {"b":"x\\ny"}\n\ndata: [DONE]\n\n', text)
    assert.equal(3, pieces)
    assert.equal(1, source.closed)
  end)

  it("of texts is passed on as it is", function()
    local text, failure = read_all(get { stream = items { "data: a\n", "", "\ndata: b\n\n" } })
    assert.same({ "data: a\n\ndata: b\n\n", nil }, { text, failure })
  end)

  it("of events is serialised", function()
    local all = items { { data = "a" }, "data: b\n\n", { data = { 1 }, event = "e" } }
    local text = read_all(get { stream = all })
    assert.equal("data: a\n\ndata: b\n\nevent: e\ndata: [1]\n\n", text)
  end)

  it("is passed on from another response's events", function()
    local behind = get { stream = items { { data = "a\nb", event = "e", id = "7" }, { data = "c" } } }
    local text = read_all(get { stream = behind:events() })
    assert.equal("event: e\nid: 7\ndata: a\ndata: b\n\nid: 7\ndata: c\n\n", text)
  end)

  it("may be a callable object, which is closed as well", function()
    local source = setmetatable({ close = function(self) self.closed = true end }, { __call = items { "x" } })
    local closes = 0
    local text = read_all(get { stream = source, close = function() closes = closes + 1 end })
    assert.same({ "x", true, 1 }, { text, source.closed, closes })
  end)

  it("keeps the handler's own headers and status", function()
    local own = { ["Cache-Control"] = "private", X = "1" }
    local res = get { status = 201, stream = items { "x" }, headers = own }
    assert.same({ 201, "private", "1", "text/event-stream", "no" },
      { res.status, res.headers["cache-control"], res.headers.x, res.headers["content-type"],
        res.headers["x-accel-buffering"] })
    res = get { stream = items { "x" }, headers = { ["content-type"] = "text/plain" } }
    assert.equal("text/plain", res.headers["content-type"])
  end)

  it("is not pulled for HEAD, but closed", function()
    local source = chunk_stream { { a = 1 } }
    local res = get({ stream = source }, "HEAD")
    assert.same({ 200, "text/event-stream", "" }, { res.status, res.headers["content-type"], res.body })
    assert.same({ 0, 1 }, { source.pulled, source.closed })
  end)

  it("is closed where the reader lets go", function()
    local source = chunk_stream { { a = 1 }, { a = 2 } }
    local res = get { stream = source }
    assert.truthy(res:read())
    res:close()
    assert.equal(1, source.closed)
  end)

  it("is closed where its first piece is cancelled", function()
    task.simulate(function()
      local closed = 0
      local app = web.app()
      app:get("/", function()
        return {
          stream = { next = function() task.sleep(10) end, close = function() closed = closed + 1 end },
        }
      end)
      local _, failure = task.timeout(1, app.handle, app, { path = "/" })
      assert.same({ "TimeoutError", 1 }, { failure.kind, closed })
    end)
  end)

  it("passes through middleware, which may change its headers", function()
    local app = web.app()
    app:use(function(inner)
      return function(request)
        local res, failure = inner(request)
        if res then
          assert.equal("text/event-stream", res.headers["content-type"])
          res.headers["X-Seen"], res.keep_alive = "1", false
        end
        return res, failure
      end
    end)
    app:get("/", function() return { stream = items { { data = "a" } }, keep_alive = 3 } end)
    local res = app:handle { path = "/" }
    assert.same({ "1", "data: a\n\n" }, { res.headers["x-seen"], res.body })
  end)

  it("of a response that is passed on is told to nginx, too", function()
    local own = { ["content-type"] = "text/event-stream; charset=utf-8" }
    local behind = get { body = "data: x\n\n", headers = own }
    assert.equal("no", get(behind).headers["x-accel-buffering"])
    assert.is_nil(get(get { body = "x", headers = { ["content-type"] = "text/event-streams" } })
      .headers["x-accel-buffering"])
  end)
end)

describe("web: an event", function()
  local CASES <const> = {
    { { data = "a" }, "data: a\n\n" },
    { { data = "" }, "data: \n\n" },
    { { data = " a" }, "data:  a\n\n" },
    { { data = "a\nb\n" }, "data: a\ndata: b\ndata: \n\n" },
    { { data = "a\r\nb\rc" }, "data: a\ndata: b\ndata: c\n\n" },
    { { data = { x = 1 } }, 'data: {"x":1}\n\n' },
    { { data = 5 }, "data: 5\n\n" },
    { { data = false }, "data: false\n\n" },
    { { event = "e", id = "", data = "a" }, "event: e\nid: \ndata: a\n\n" },
    { { retry = 1500 }, "retry: 1500\n\n" },
    { { data = "a", at = 5 }, "data: a\n\n" },
  }

  it("is serialised by the letter", function()
    for _, case in ipairs(CASES) do assert.equal(case[2], streams.frame(case[1])) end
  end)

  it("is what a reader reads", function()
    local alphabet = { "a", "\n", "\r", " ", ":", "\r\n", "data", "\u{FEFF}", "水" }
    for _ = 1, 500 do
      local words = {}
      for index = 1, math.random(0, 8) do words[index] = alphabet[math.random(#alphabet)] end
      local data = table.concat(words)
      local events = assert(sse.reader():feed(streams.frame { data = data, event = "e", id = "1" }))
      assert.equal(1, #events)
      assert.same({ (data:gsub("\r\n?", "\n")), "e", "1" }, { events[1].data, events[1].event, events[1].id })
    end
  end)

  it("is refused where it is none", function()
    for _, case in ipairs {
      { { dta = "x" }, 'no dta %(did you mean "data"%?%)' },
      { {}, "empty" },
      { { event = "a\nb" }, "event is one line" },
      { { id = "a\rb" }, "id is one line" },
      { { id = "a\0b" }, "NUL" },
      { { id = 5 }, "id is a string" },
      { { retry = -1 }, "milliseconds" },
      { { retry = 1.5 }, "milliseconds" },
      { { data = print }, "cannot be encoded" },
    } do
      local ok, message = pcall(streams.frame, case[1])
      assert.is_false(ok)
      assert.matches(case[2], message)
    end
  end)
end)

describe("web: a stream that fails", function()
  local logged, write

  before_each(function()
    logged = {}
    write = log.set_output(function(line) logged[#logged + 1] = line end)
  end)

  after_each(function() log.set_output(write) end)

  it("before its first piece has the status of its failure, returned or raised", function()
    local failure = err("RequestLimitExceeded", { message = "slow down", retry_after = 2 })
    for _, source in ipairs {
      chunk_stream { failure }, function() return nil, failure end, function() error(failure, 0) end,
    } do
      local res = get { stream = source }
      assert.same({ 429, "2" }, { res.status, res.headers["retry-after"] })
      assert.same({ error = { message = "slow down", type = "RequestLimitExceeded" } }, res:json())
    end
  end)

  it("closes its source, then and later", function()
    local source = chunk_stream { err "NotFound" }
    assert.equal(404, get({ stream = source }).status)
    assert.equal(1, source.closed)
    source = chunk_stream { { a = 1 }, err "NotFound" }
    read_all(get { stream = source })
    assert.equal(1, source.closed)
  end)

  it("after it tells by an error frame and ends in disorder", function()
    local res = get { stream = chunk_stream { { a = 1 }, err "TimeoutError" } }
    local text, failure = read_all(res)
    assert.equal('data: {"a":1}\n\n', text:sub(1, 15))
    assert.same({ message = "it broke", type = "TimeoutError" }, told(text:sub(16)))
    assert.equal("TruncatedStream", failure.kind)
  end)

  it("inside of an event ends that first", function()
    local source = items { "data: half", err "TimeoutError" }
    local text = read_all(get { stream = function()
      local item = source()
      if errors.is(item) then error(item, 0) end
      return item
    end })
    assert.equal("data: half\n\n", text:sub(1, 12))
    assert.equal("TimeoutError", told(text:sub(13)).type)
  end)

  it("tells nothing in a type that has no events", function()
    local source = items { "half" }
    local text, failure = read_all(get {
      stream = function() return source() or error(err "NotFound", 0) end,
      headers = { ["content-type"] = "text/plain" },
    })
    assert.same({ "half", "TruncatedStream" }, { text, failure.kind })
  end)

  it("by a fault of the program shows nothing of it, and logs it", function()
    local first = true
    local res = get { stream = function()
      if first then
        first = false
        return { data = "a" }
      end
      error "the secret plan"
    end }
    local text = read_all(res)
    assert.equal("data: a\n\n", text:sub(1, 9))
    assert.matches("^the server failed", told(text:sub(10)).message)
    assert.falsy(text:find("plan", 1, true))
    assert.equal(1, #logged)
    assert.truthy(logged[1]:find("the secret plan", 1, true))
    assert.truthy(logged[1]:find("web_stream_spec.lua", 1, true))
    assert.equal(500, get({ stream = function() return 5 end }).status)
    assert.matches("texts and events, got a number", logged[2])
    assert.equal(500, get({ stream = chunk_stream { { f = print } } }).status)
  end)

  it("is one that a client of ours reads as such", function()
    local res = get { stream = chunk_stream { { a = 1 }, err "TooManyRequests" } }
    local events = {}
    local ok = pcall(function()
      for event in res:events() do events[#events + 1] = event.data end
    end)
    assert.is_false(ok)
    local found = require("sluice.wire_error").from_frame(json.decode(events[2]))
    assert.truthy(found:is "APIError")
  end)
end)

describe("web: a handler's result", function()
  local logged, write

  before_each(function()
    logged = {}
    write = log.set_output(function(line) logged[#logged + 1] = line end)
  end)

  after_each(function() log.set_output(write) end)

  it("with a wrong name is a fault that names the right one", function()
    for _, case in ipairs {
      { { staus = 200 }, "no staus .did you mean .\"status" },
      { { json = 1, header = {} }, "no header .did you mean .\"headers" },
      { { streams = 1 }, "no streams .did you mean .\"stream" },
      { { 200, "text" }, "no [12]" },
    } do
      assert.equal(500, get(case[1]).status)
      assert.matches(case[2], logged[#logged])
    end
  end)

  it("that is refused has its stream closed", function()
    for _, wrong in ipairs {
      { keepalive = 1 }, { keep_alive = 0 }, { keep_alive = true }, { status = 20 }, { body = "x" },
      { json = 1 },
    } do
      wrong.stream = chunk_stream { { a = 1 } }
      assert.equal(500, get(wrong).status)
      assert.same({ 0, 1 }, { wrong.stream.pulled, wrong.stream.closed })
    end
  end)

  it("has a stream that is one", function()
    for _, wrong in ipairs { "text", 5, {}, { next = 1, close = print } } do
      assert.equal(500, get({ stream = wrong }).status)
      assert.matches("has next.. and close.., or is an iterator", logged[#logged])
    end
  end)

  it("says how long a stream may be silent", function()
    local function silence(given) return (select(6, result.parts(given))) end
    assert.equal(15, silence { stream = print })
    assert.equal(0, silence { stream = print, keep_alive = false })
    assert.equal(0.5, silence { stream = print, keep_alive = 0.5 })
    assert.equal(0, silence { stream = print, keep_alive = 5, headers = { ["content-type"] = "text/plain" } })
    assert.is_nil(silence { body = "x" })
  end)

  it("is opened as frames, which close once", function()
    local source, closes = chunk_stream { { a = 1 } }, 0
    local frames = streams.open(source, function() closes = closes + 1 end)
    assert.equal('data: {"a":1}\n\n', frames:next())
    assert.equal("data: {}\n\n", frames:failure "{}")
    frames:close()
    frames:close()
    assert.same({ 1, 1 }, { source.closed, closes })
    streams.close("not a stream", function() closes = closes + 1 end)
    assert.equal(2, closes)
    local order = {}
    frames = streams.open(chunk_stream {}, function() order[#order + 1] = "its own" end)
    streams.on_close(frames, function() order[#order + 1] = "ours" end)
    frames:close()
    assert.same({ "ours", "its own" }, order)
  end)
end)
