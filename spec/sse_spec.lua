-- SPDX-License-Identifier: MIT
local sse = require "sluice.sse"
local task = require "sluice.task"
local reference = require "sse_reference"

---All events of a stream that comes in these pieces, without their times.
local function read(pieces, options)
  local reader, all = sse.reader(options), {}
  for _, piece in ipairs(pieces) do
    for _, event in ipairs(assert(reader:feed(piece))) do
      assert.are.equal("number", type(event.at))
      event.at = nil
      all[#all + 1] = event
    end
  end
  local last_event_id, retry = reader.last_event_id, reader.retry
  assert.are.same({}, reader:finish())
  return all, last_event_id, retry
end

local function bytes_of(text)
  local pieces = {}
  for index = 1, #text do pieces[index] = text:sub(index, index) end
  return pieces
end

-- Name, stream, events. Those of the Web Platform Tests (eventsource/format-*) are among them.
local CASES <const> = {
  { "an event", "data: hello\n\n", { { data = "hello" } } },
  { "no space behind the colon", "data:hello\n\n", { { data = "hello" } } },
  { "one space is dropped, not two", "data:  hello\n\n", { { data = " hello" } } },
  { "a tab is no space", "data:\thello\n\n", { { data = "\thello" } } },
  { "blanks at the end stay", "data: hello  \n\n", { { data = "hello  " } } },
  { "several lines", "data: a\ndata:\ndata: b\n\n", { { data = "a\n\nb" } } },
  { "data without a colon", "data\n\n", { { data = "" } } },
  { "two of them", "data\ndata\n\ndata:test\n\n", { { data = "\n" }, { data = "test" } } },
  { "an event without data", "event: ping\n\ndata: x\n\n", { { data = "x" } } },
  { "only blank lines", "\n\r\n\r\r\n", {} },
  { "an unfinished event", "data: a\n\ndata: b\n", { { data = "a" } } },
  { "an unfinished line", "data: a\n\ndata: b", { { data = "a" } } },
  { "CRLF", "data: a\r\ndata: b\r\n\r\n", { { data = "a\nb" } } },
  { "CR", "data: a\rdata: b\r\r", { { data = "a\nb" } } },
  { "all three", "data:a\rdata:b\ndata:c\r\n\rdata:d\n\r\n", { { data = "a\nb\nc" }, { data = "d" } } },
  { "LF CR is two line ends", "data:a\n\rdata:b\n\n", { { data = "a" }, { data = "b" } } },
  { "a byte order mark", "\u{FEFF}data: a\n\n", { { data = "a" } } },
  { "two of them", "\u{FEFF}\u{FEFF}data: a\ndata: b\n\n", { { data = "b" } } },
  { "one in the middle", "data: a\n\n\u{FEFF}data: b\n\n", { { data = "a" } } },
  { "one inside data", "data: \u{FEFF}a\n\n", { { data = "\u{FEFF}a" } } },
  { "a mark before a comment", "\u{FEFF}: x\ndata: a\n\n", { { data = "a" } } },
  { "comments", ": x\n:\n:x:y\ndata: a\n: data: no\n\n", { { data = "a" } } },
  { "a comment is no event", "data: a\n\n: x\n\n: y\n\n", { { data = "a" } } },
  { "an unknown field", "foo: bar\ndata: a\nfoobar\n\n", { { data = "a" } } },
  { "names are case-sensitive", "Data: a\nDATA: b\ndata: c\n\n", { { data = "c" } } },
  { "a blank before the name", " data: a\ndata: b\n\n", { { data = "b" } } },
  { "a blank behind the name", "data : a\ndata: b\n\n", { { data = "b" } } },
  { "no name", ": a\n\n:\n\ndata: b\n\n", { { data = "b" } } },
  { "NULs", "data: a\0b\n\n\0data: c\ndata: d\n\n", { { data = "a\0b" }, { data = "d" } } },
  { "a type", "event: add\ndata: 1\n\ndata: 2\n\n", { { data = "1", event = "add" }, { data = "2" } } },
  { "the last type holds", "event: a\nevent: b\ndata: 1\n\n", { { data = "1", event = "b" } } },
  { "an empty type", "event: a\nevent\ndata: 1\n\n", { { data = "1" } } },
  { "an id stays", "id: 1\ndata: a\n\ndata: b\n\n", { { data = "a", id = "1" }, { data = "b", id = "1" } } },
  { "an empty id", "id: 1\n\nid\ndata: b\n\n", { { data = "b", id = "" } } },
  { "an id with NUL", "id: 1\n\nid: 2\0\ndata: b\n\n", { { data = "b", id = "1" } } },
  { "an id without data", "id: 9\n\ndata: b\n\n", { { data = "b", id = "9" } } },
  { "retry", "retry: 1500\ndata: a\n\n", { { data = "a", retry = 1500 } } },
  { "retry alone", "retry: 1500\n\ndata: a\n\n", { { data = "a" } } },
  { "no retry", "retry: -5\nretry: 1_0\nretry: 0x10\nretry: 1e3\nretry\nretry: 1 \ndata: a\n\n",
    { { data = "a" } } },
  { "an endless retry", "retry: 99999999999999999999\ndata: a\n\n",
    { { data = "a", retry = math.maxinteger } } },
  { "leading zeros", "retry: 0010\ndata: a\n\n", { { data = "a", retry = 10 } } },
  { "UTF-8", "data: é水\u{1F600}\n\n", { { data = "é水\u{1F600}" } } },
  { "broken UTF-8", "data: a\xFFb\xE2\x82\n\n", { { data = "a\u{FFFD}b\u{FFFD}" } } },
  { "surrogates", "data: \xED\xA0\x80\n\n", { { data = "\u{FFFD}\u{FFFD}\u{FFFD}" } } },
  { "overlong", "data: \xC0\xAF\xF0\x80\n\n", { { data = ("\u{FFFD}"):rep(4) } } },
  { "a broken type and id", "event: \xFF\nid: \xFE\ndata: a\n\n",
    { { data = "a", event = "\u{FFFD}", id = "\u{FFFD}" } } },
}

describe("sse.reader", function()
  for _, case in ipairs(CASES) do
    it("reads " .. case[1], function()
      assert.are.same(case[3], (read { case[2] }))
      assert.are.same(case[3], (read(bytes_of(case[2]))))
      assert.are.same(case[3], (reference.read(case[2])))
    end)
  end

  it("gives the same events wherever the bytes are split", function()
    for _, case in ipairs(CASES) do
      local stream = case[2]
      for cut = 0, #stream do
        assert.are.same(case[3], (read { stream:sub(1, cut), stream:sub(cut + 1) }), case[1])
      end
    end
  end)

  it("agrees with the rules on random streams at random splits", function()
    math.randomseed(20260504)
    for _ = 1, 4000 do
      local stream = reference.random_stream(math.random(1, 40))
      local events, last_event_id, retry = reference.read(stream)
      local pieces, at = {}, 1
      while at <= #stream do
        local size = math.random(1, 12)
        pieces[#pieces + 1] = stream:sub(at, at + size - 1)
        at = at + size
      end
      local ours, our_id, our_retry = read(pieces)
      assert.are.same(events, ours, ("%q"):format(stream))
      assert.are.equal(last_event_id, our_id)
      assert.are.equal(retry, our_retry)
    end
  end)

  it("stamps each event with the time it was fed at", function()
    task.simulate(function()
      local reader = sse.reader()
      assert(reader:feed "data: a\n")
      task.sleep(3)
      local before = task.now()
      assert.are.equal(before, assert(reader:feed "\n")[1].at)
    end)
  end)

  it("knows the last event id and the time to wait, and keeps them for the next stream", function()
    local reader = sse.reader { last_event_id = "5" }
    assert.are.equal("5", reader.last_event_id)
    assert.is_nil(reader.retry)
    assert.are.equal("5", assert(reader:feed "data: a\n\n")[1].id)
    assert(reader:feed "id: 6\nretry: 20\ndata: x\n")
    assert.are.equal("5", reader.last_event_id) -- that event has not ended
    assert(reader:finish())
    assert.are.equal("5", reader.last_event_id)
    assert.are.equal(20, reader.retry)
    local events = assert(reader:feed "\u{FEFF}data: b\n\n")
    assert.are.equal("b", events[1].data)
    assert.are.equal("5", events[1].id)
    assert.is_nil(reader.unknown)
  end)

  it("refuses an event over the limit, wherever it is split, and keeps what came before", function()
    local stream = "data: ok\n\n" .. "data: " .. ("x"):rep(50) .. "\n" .. "data: " .. ("y"):rep(50) .. "\n\n"
    local size = 2 * 56
    assert.are.equal(2, #read({ stream }, { max_event = size }))
    for _, pieces in ipairs { { stream }, bytes_of(stream) } do
      local reader, count, err = sse.reader { max_event = size - 1 }, 0, nil
      for _, piece in ipairs(pieces) do
        local events
        events, err = reader:feed(piece)
        if not events then break end
        count = count + #events
      end
      assert(err and err:is "ProtocolError")
      assert.are.equal("EventTooLarge", err.kind)
      assert.is_false(err.retryable)
      assert.are.equal(1, count + #(err.events or {}))
      local _, again = reader:feed "\n\ndata: z\n\n"
      assert.are.equal("EventTooLarge", again.kind)
    end
  end)

  it("refuses a line that never ends", function()
    local reader = sse.reader { max_event = 1000 }
    local err
    for _ = 1, 200 do
      local events
      events, err = reader:feed "data: xxxxx"
      if not events then break end
    end
    assert.are.equal("EventTooLarge", err.kind)
  end)

  it("reads comments without end, whatever their length", function()
    local reader = sse.reader { max_event = 100 }
    for _ = 1, 100 do assert.are.same({}, reader:feed((": x\n"):rep(100))) end
    assert.are.same({}, reader:feed ":")
    for _ = 1, 100 do assert.are.same({}, reader:feed(("x"):rep(1000))) end
    assert.are.equal("a", assert(reader:feed "\ndata: a\n\n")[1].data)
  end)

  it("takes the same time for each byte of a huge line", function()
    local function cost(count)
      local reader = sse.reader()
      local from = os.clock()
      for _ = 1, count do reader:feed "x" end
      return (os.clock() - from) / count
    end
    cost(1000)
    local small, large = cost(20000), cost(400000)
    assert(large < small * 5, ("%g us a byte, then %g us"):format(small * 1e6, large * 1e6))
  end)

  it("holds no memory for what it has given out", function()
    local reader = sse.reader()
    local block = ("data: " .. ("x"):rep(500) .. "\n\n"):rep(100)
    for _ = 1, 20 do reader:feed(block) end
    collectgarbage()
    local before = collectgarbage "count"
    for _ = 1, 200 do reader:feed(block) end
    collectgarbage()
    assert(collectgarbage "count" < before + 64)
  end)

  it("checks its options", function()
    assert.has_error(function() sse.reader { max_events = 1 } end)
    assert.has_error(function() sse.reader { max_event = 0 } end)
    assert.has_error(function() sse.reader():feed(nil) end)
  end)
end)
