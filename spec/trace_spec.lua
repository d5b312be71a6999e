-- SPDX-License-Identifier: MIT
-- Traces: the fields of W3C, spans of a request and of its parts, the waterfall, what is sent.

local attributes = require "sluice.trace.attributes"
local contexts = require "sluice.trace.context"
local errors = require "sluice.errors"
local json = require "sluice.json"
local layers = require "sluice.layers"
local otlp = require "sluice.trace.otlp"
local sluice = require "sluice"
local spans = require "sluice.trace.span"
local stream = require "sluice.stream"
local task = require "sluice.task"
local trace = require "sluice.trace"
local trace_layer = require "sluice.layers.trace"
local traced_http = require "sluice.trace.http"
local urls = require "sluice.trace.url"
local waterfall = require "sluice.trace.waterfall"
local web = require "sluice.web"

local ID <const>, PARENT <const> = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"

describe("trace.parse", function()
  it("takes a traceparent by the letter, and nothing else", function()
    local context = trace.parse("00-" .. ID .. "-" .. PARENT .. "-01", "a=1, b@c = x")
    assert.same({ ID, PARENT, true }, { context.trace_id, context.span_id, context.sampled })
    assert.is_nil(context.state)
    assert.is_false(trace.parse("00-" .. ID .. "-" .. PARENT .. "-02").sampled)
    assert.is_true(trace.parse("cc-" .. ID .. "-" .. PARENT .. "-01-what-the-future-will-bring").sampled)
    assert.is_table(trace.parse("01-" .. ID .. "-" .. PARENT .. "-01"))
    for _, wrong in ipairs {
      "", "00", "00-" .. ID, "00-" .. ID .. "-" .. PARENT, "00-" .. ID .. "-" .. PARENT .. "-",
      "00-" .. ID .. "-" .. PARENT .. "-1", "00-" .. ID .. "-" .. PARENT .. "-011",
      "00-" .. ID .. "-" .. PARENT .. "-01-", "00-" .. ID .. "-" .. PARENT .. "-01-x",
      "01-" .. ID .. "-" .. PARENT .. "-01x", "ff-" .. ID .. "-" .. PARENT .. "-01",
      "0-" .. ID .. "-" .. PARENT .. "-01", "00-" .. ID:upper() .. "-" .. PARENT .. "-01",
      "00-" .. ("0"):rep(32) .. "-" .. PARENT .. "-01", "00-" .. ID .. "-" .. ("0"):rep(16) .. "-01",
      "00-" .. ID .. "0-" .. PARENT .. "-01", "00-" .. ID:sub(2) .. "-" .. PARENT .. "-01",
      "00-" .. ID .. "-" .. PARENT .. "0-01", "00_" .. ID .. "-" .. PARENT .. "-01",
      " 00-" .. ID .. "-" .. PARENT .. "-01", "00-" .. ID:gsub("4", "g") .. "-" .. PARENT .. "-01",
      ("0"):rep(1e6),
    } do
      assert.is_nil(trace.parse(wrong), wrong:sub(1, 80))
    end
    assert.is_nil(trace.parse(nil))
    assert.is_nil(trace.parse {})
  end)

  it("passes a tracestate on, or drops it alone", function()
    for given, expected in pairs {
      ["a=1"] = "a=1", [" a=1 ,\tb=2, ,"] = "a=1,b=2", ["rojo=00f067aa0ba902b7,congo=t61rcWkgMzE"] = true,
      ["fw529a3039@dt=FfYyNDo"] = true, ["0tenant@sys=v"] = true, ["a= x"] = true, ["a_-*/1=~!"] = true,
      [""] = false, [","] = false, ["a"] = false, ["a="] = false, ["=1"] = false, ["A=1"] = false,
      ["1a=1"] = false,
      ["a=1,a=2"] = false, ["a b=1"] = false, ["a=1=2"] = false, ["a=\1"] = false, ["a=\xc3\xa4"] = false,
      ["a@=1"] = false, ["@a=1"] = false, ["a@b@c=1"] = false, ["a@1b=1"] = false,
      ["a@" .. ("b"):rep(15) .. "=1"] = false, ["a@" .. ("b"):rep(14) .. "=1"] = true,
      [("a"):rep(257) .. "=1"] = false, [("a"):rep(256) .. "=1"] = true,
      ["a=" .. ("b"):rep(257)] = false, ["a=" .. ("b"):rep(256)] = true, [("a"):rep(1e6)] = false,
    } do
      if expected == true then expected = given end
      assert.equal(expected or nil, contexts.state(given), given:sub(1, 80))
    end
    local members = {}
    for index = 1, 32 do members[index] = "k" .. index .. "=v" end
    assert.is_string(contexts.state(table.concat(members, ",")))
    assert.is_nil(contexts.state(table.concat(members, ",") .. ",x=1"))
    assert.is_nil(trace.parse("00-" .. ID .. "-" .. PARENT .. "-01", "A").state)
  end)

  it("is written as it is read", function()
    local text = "00-" .. ID .. "-" .. PARENT .. "-00"
    assert.equal(text, spans.header(trace.parse(text)))
  end)
end)

-- Who keeps the spans by name.
local function keeper()
  local kept = { all = {} }
  function kept.export(_, span)
    kept.all[#kept.all + 1] = span
    kept[span.name] = span
  end
  return kept
end

local function attribute(span, name)
  for index = 1, span.attributes.n, 2 do
    if span.attributes[index] == name then return span.attributes[index + 1] end
  end
end

-- An endpoint over a transport in process, whose app answers with `answer(request)`.
local function endpoint_of(answer)
  local app = web.app()
  app:any("/*", answer)
  local base = "http://model.example/v1"
  return sluice.openai { base_url = base, api_key = "sk-canary", model = "m", transport = app }
end

local function sent(all)
  local texts = {}
  for index, span in ipairs(all) do texts[index] = otlp.span(span) end
  return otlp.request(texts, "[]", "1")
end

local ANSWER <const> = {
  id = "r1", model = "m-1", choices = { { message = { content = "hi" }, finish_reason = "stop" } },
  usage = { prompt_tokens = 3, completion_tokens = 2 },
}
local REQUEST <const> = { messages = { { role = "user", content = "canary prompt" } }, max_tokens = 5, n = 2 }

local function simulated(name, f)
  it(name, function() task.simulate(f) end)
end

describe("layers.trace", function()
  it("is a layer of its own name, and switches tracing on", function()
    assert.equal(trace_layer, layers.trace)
    layers.trace { exporter = false }
    assert.is_true(spans.is_on)
    assert.equal("trace", spans.LOCAL)
  end)

  simulated("notes a query by the conventions, and neither contents nor secrets", function()
    local kept = keeper()
    local chat = layers.trace { exporter = kept } (endpoint_of(function() return { json = ANSWER } end))
    local answer = assert(chat:query(REQUEST))
    local span = kept["chat m"] or kept.all[#kept.all]
    assert.equal(span, sluice.meta(answer).trace)
    for name, value in pairs {
      ["gen_ai.operation.name"] = "chat", ["gen_ai.provider.name"] = "openai", ["gen_ai.response.id"] = "r1",
      ["gen_ai.response.model"] = "m-1", ["gen_ai.request.max_tokens"] = 5, ["gen_ai.usage.input_tokens"] = 3,
      ["gen_ai.usage.output_tokens"] = 2, ["server.address"] = "model.example",
      ["http.response.status_code"] = 200, ["gen_ai.request.choice.count"] = 2,
    } do
      assert.equal(value, attribute(span, name), name)
    end
    assert.same({ "stop" }, attribute(span, "gen_ai.response.finish_reasons"))
    assert.same({ spans.CLIENT, nil, nil }, { span.kind, span.parent_id, span.failure })
    assert.not_matches("canary", sent(kept.all))
    local open = layers.trace { exporter = kept, contents = true, provider = "x" } (
      endpoint_of(function() return { json = ANSWER } end))
    span = sluice.meta(assert(open:query(REQUEST))).trace
    assert.matches("canary prompt", attribute(span, "gen_ai.input.messages"))
    assert.matches("hi", attribute(span, "gen_ai.output.messages"))
    assert.equal("x", attribute(span, "gen_ai.provider.name"))
  end)

  simulated("has a part for each try and each look into a cache", function()
    local kept, tries = keeper(), 0
    local chat = sluice.pipeline(endpoint_of(function()
      tries = tries + 1
      task.sleep(0.5)
      return tries == 1 and { status = 503, json = { message = "busy" } } or { json = ANSWER }
    end), {
      layers.trace { exporter = kept }, layers.cache {},
      layers.retry { attempts = 2, random = function() return 0.5 end },
    })
    local span = sluice.meta(assert(chat:query(REQUEST))).trace
    local first, second, look = kept["attempt 1"], kept["attempt 2"], kept["cache look-up"]
    assert.same({ "TemporarilyUnavailable", nil, "miss" },
      { first.failure, second.failure, attribute(look, "sluice.cache.result") })
    for _, each in ipairs { first, second, look } do
      assert.same({ span.trace_id, span.span_id }, { each.trace_id, each.parent_id })
    end
    assert.equal(2, attribute(span, "sluice.attempts"))
    assert.is_true(math.abs(first.duration - 0.5) < 1e-3)
    local again = sluice.meta(assert(chat:query(REQUEST))).trace
    assert.equal("hit", attribute(again, "sluice.cache.result"))
    assert.equal(0, attribute(again, "sluice.attempts"))
    assert.not_equal(span.trace_id, again.trace_id)
    local text = tostring(span)
    assert.matches("^trace %x+: [%d.]+ ms\n  chat", text)
    assert.matches("\n    attempt 1 +500.0 ms  #+ +TemporarilyUnavailable\n", text)
    assert.matches("\n    cache look%-up +0.0 ms  # +miss\n", text)
  end)

  simulated("follows a stream to its end, and leaves the task when it is open", function()
    local kept, left = keeper(), { "a", "b", "c" }
    local source = { name = "s" }
    function source.query() return {} end
    function source.stream()
      return stream.wrap {
        next = function()
          task.sleep(1)
          return table.remove(left, 1)
        end,
        close = function() end,
      }
    end
    local chat = layers.trace { exporter = kept } (source)
    local opened = assert(chat:stream(REQUEST))
    assert.is_nil(trace.current())
    local span = sluice.meta(opened).trace
    assert.is_nil(span.duration)
    assert.matches("chat s %(runs%)", tostring(span))
    opened:next()
    opened:next()
    opened:next()
    opened:next()
    assert.is_true(math.abs(span.duration - 4) < 1e-3)
    assert.same({ "stream", span.span_id }, { kept.stream.name, kept.stream.parent_id })
    left = { "a" }
    opened = assert(chat:stream(REQUEST))
    opened:close()
    local last = kept.all[#kept.all]
    assert.is_true(attribute(last, "sluice.aborted"))
    assert.is_nil(last.failure)
  end)

  simulated("ends with an err, a raise and a cancellation, and leaves the task as it was", function()
    local kept, what = keeper(), nil
    local chat = layers.trace { exporter = kept } { name = "e", query = function()
      if what == "sleep" then task.sleep(100) end
      if what == "raise" then error "broken" end
      return nil, errors.new("ConnectError", { message = "canary" })
    end }
    local _, err = chat:query(REQUEST)
    assert.equal("ConnectError", sluice.meta(err).trace.failure)
    what = "raise"
    assert.is_false((pcall(chat.query, chat, REQUEST)))
    assert.equal("Fault", kept.all[2].failure)
    what = "sleep"
    assert.is_nil((task.timeout(1, chat.query, chat, REQUEST)))
    assert.equal(3, #kept.all)
    assert.is_nil(trace.current())
    assert.not_matches("canary", sent(kept.all))
  end)

  simulated("belongs to who called, and to the task that it is in", function()
    local kept, seen = keeper(), nil
    local chat = layers.trace { exporter = kept } { name = "e", query = function()
      seen = spans.outgoing()
      return task.spawn(function() return { inner = spans.active().span_id } end):join()
    end }
    local before = trace.adopt(trace.parse("00-" .. ID .. "-" .. PARENT .. "-01", "a=1"))
    local answer = assert(chat:query(REQUEST))
    local span = sluice.meta(answer).trace
    assert.same({ ID, PARENT, "a=1" }, { span.trace_id, span.parent_id, span.state })
    assert.same({ "00-" .. ID .. "-" .. span.span_id .. "-01", span.span_id }, { seen, answer.inner })
    trace.adopt(trace.parse("00-" .. ID .. "-" .. PARENT .. "-00"))
    answer = assert(chat:query(REQUEST))
    assert.same({ nil, 1 }, { sluice.meta(answer).trace, #kept.all })
    assert.matches("^00%-" .. ID .. "%-%x+%-00$", seen)
    trace.adopt(before)
    assert.is_nil(trace.current())
  end)

  simulated("records a share of the traces, and only values without an exporter", function()
    local kept = keeper()
    local function answer() return {} end
    local none = layers.trace { exporter = kept, sample = 0 } { name = "e", query = answer }
    none:query(REQUEST)
    assert.equal(0, #kept.all)
    local alone = layers.trace { exporter = false } { name = "e", query = answer }
    assert.is_string(sluice.meta(alone:query(REQUEST)).trace.span_id)
    for _, wrong in ipairs { { exporter = 1 }, { exporter = {} }, { sample = 2 }, { content = true } } do
      assert.has_error(function() layers.trace(wrong) end)
    end
  end)
end)

describe("trace.span", function()
  simulated("is a part of what the task works for", function()
    local kept = keeper()
    assert.is_nil(trace.span "nobody works for anything")
    local chat = layers.trace { exporter = kept } { name = "e", query = function()
      do
        local part <close> = trace.span "look up"
        part:set("rows", 3)
        part:set("nothing", nil)
        part:event("found", task.now())
        task.sleep(2)
      end
      local around = trace.current()
      assert.is_true(spans.is(spans.leaf("leaf", spans.INTERNAL)))
      assert.equal(around, trace.current())
      pcall(function()
        local _ <close> = trace.span "fails"
        error "broken"
      end)
      return {}
    end }
    assert(chat:query(REQUEST))
    local part = kept["look up"]
    assert.same({ spans.INTERNAL, 3 }, { part.kind, attribute(part, "rows") })
    assert.is_true(spans.is(part))
    assert.is_true(math.abs(spans.wall(part, part.started) - (task.wall() - 2)) < 1e-3)
    assert.equal("_OTHER", kept.fails.failure)
    part:finish()
    part:leave()
    assert.equal(3, #kept.all)
    local shown = assert(json.decode(otlp.span(part)))
    assert.same({ "look up", 1, "found" }, { shown.name, shown.kind, shown.events[1].name })
    assert.equal(2e9, tonumber(shown.endTimeUnixNano) - tonumber(shown.startTimeUnixNano))
    assert.same({ key = "rows", value = { intValue = "3" } }, shown.attributes[1])
    assert.equal("look up", json.decode(json.encode(part)).name)
    assert.has_error(function() trace.span "" end)
    assert.has_error(function() return trace.spam end)
  end)
end)

describe("spans as OTLP", function()
  it("have a value of the right type for whatever they are given", function()
    local function value(of)
      return assert(json.decode(otlp.attributes { "a", of }))[1].value
    end
    assert.same({ stringValue = 'x"\n' }, value 'x"\n')
    assert.same({ stringValue = "a\u{FFFD}b" }, value "a\xffb")
    assert.same({ boolValue = false }, value(false))
    assert.same({ intValue = "9007199254740993" }, value(9007199254740993))
    assert.same({ doubleValue = 1.5 }, value(1.5))
    assert.same({ stringValue = "inf" }, value(math.huge))
    assert.same({ arrayValue = { values = { { stringValue = "a" }, { intValue = "1" } } } }, value { "a", 1 })
    assert.same({ stringValue = "***" }, value(sluice.secret "canary-12345"))
    local masked = otlp.attributes { "a", "canary-12345" }
    assert.is_string(masked)
  end)

  it("are written whole, whatever their texts hold, and however long they are", function()
    local span = spans.start('a "name"', spans.CLIENT)
    local given = {
      'quote " and \\', "\0\n\u{e4}", "\xff", ("x"):rep(10000),
      ("\1"):rep(3000), 1.5, -7, true, { "a" }, "", { "a", '"', "c" }, { "a", 1 }, { true },
    }
    for index, value in ipairs(given) do span:set("k" .. index, value) end
    span:finish "NotFound"
    local shown = assert(json.decode(otlp.span(span)))
    assert.same({ 'a "name"', 3, "NotFound" }, { shown.name, shown.kind, shown.status.message })
    for index, value in ipairs(given) do
      local attribute_of = shown.attributes[index]
      assert.equal("k" .. index, attribute_of.key)
      assert.same(json.decode(otlp.attributes { "k", value })[1].value, attribute_of.value)
    end
    assert.equal(14, #shown.attributes)
    assert.has_error(function() spans.json() end)
    local function empty() return "" end
    assert.has_error(function() spans.json(span, empty) end)
    span:set("table", {})
    assert.has_error(function() spans.json(span, empty, function() error "no" end) end)
    assert.has_error(function() spans.json(span, empty, function() end) end)
    span.attributes = { {}, 1, n = 2 }
    assert.has_error(function() otlp.span(span) end)
  end)

  it("have fields that are there to be read", function()
    local context = { trace_id = ID, span_id = PARENT, sampled = true, state = "a=1" }
    local span = spans.start("s", spans.SERVER, context)
    local part = spans.start("p", spans.CLIENT, span)
    assert.same({ ID, PARENT, true, "a=1", "s", 2 },
      { span.trace_id, span.parent_id, span.sampled, span.state, span.name, span.kind })
    assert.same({ ID, span.span_id, span, part }, { part.trace_id, part.parent_id, part.root, span.parts[1] })
    assert.same({ nil, nil, nil, nil }, { part.duration, part.attributes, part.started_at, part.whatever })
    part.name, part.whatever = "q", 7
    assert.same({ "q", 7 }, { part.name, part.whatever })
    assert.equal("00-" .. ID .. "-" .. part.span_id .. "-01", spans.header(part))
    for name, value in pairs { trace_id = ID, parts = {}, name = 1, attributes = 2, started = "x" } do
      assert.has_error(function() part[name] = value end)
    end
    local fields = { "a", "b", "x-traceparent", "c" }
    assert.same({ "a", "b", "x-traceparent", "c", "traceparent", spans.header(part), "tracestate", "a=1" },
      spans.carry(fields, part))
    assert.same({ "traceparent", "00-" .. ID .. "-" .. PARENT .. "-00" },
      spans.carry({}, { trace_id = ID, span_id = PARENT, sampled = false }))
    fields[5], fields[6] = "TraceParent", "mine"
    assert.equal(fields, spans.carry(fields, part))
    assert.same(6, #fields)
    assert.has_error(function() spans.carry({}, {}) end)
    assert.has_error(function() spans.header {} end)
    for _, wrong in ipairs {
      { trace_id = ID }, { trace_id = ID:upper(), span_id = PARENT }, { trace_id = ID, span_id = 1 },
    } do
      assert.has_error(function() spans.start("s", spans.SERVER, wrong) end)
    end
    assert.has_error(function() spans.start() end)
    assert.has_error(function() span.finish {} end)
    for _ = 1, 300 do spans.start("many", spans.INTERNAL, span) end
    assert.equal(256, #span.parts)
  end)

  it("show no query and no password of a URL", function()
    assert.same({ "https://h:8443/p", "h", 8443 }, { urls.parts "https://me:pw@h:8443/p?key=1#f" })
    assert.same({ "http://[::1]/", "::1", 80 }, { (urls.parts "http://[::1]/"), "::1", 80 })
    assert.same({ "::1", 81 }, { urls.authority "[::1]:81" })
    assert.is_nil((urls.authority(nil)))
  end)
end)

describe("the waterfall of a trace", function()
  it("bounds its parts, and takes what still runs", function()
    task.simulate(function()
      local root = spans.start("root", spans.INTERNAL):enter()
      for _ = 1, 1000 do spans.inside("part", spans.INTERNAL):finish() end
      root:leave()
      task.sleep(1)
      local _, lines = waterfall.of_span(root, 80, true):gsub("\n", "")
      assert.equal(257, lines)
      assert.equal("X", spans.kind_of(errors.new("NotFound")) == "NotFound" and "X")
      assert.equal("_OTHER", spans.kind_of "x")
      assert.same({ 1, 2 }, { root:done(1, 2) })
    end)
  end)
end)

describe("a request over the wire", function()
  local function exchange(_, _, _, flat) return { status = 200, flat = flat } end

  simulated("tells the trace, unless the caller does", function()
    assert.same({}, traced_http.exchange(exchange, nil, "GET", "http://h/", {}).flat)
    trace.adopt(trace.parse("00-" .. ID .. "-" .. PARENT .. "-01", "a=1"))
    local own = { "Traceparent", "x" }
    assert.equal(own, traced_http.exchange(exchange, nil, "GET", "http://h/", own).flat)
    local flat = traced_http.exchange(exchange, nil, "GET", "http://h/", { "a", "b" }).flat
    assert.same({ "a", "b", "traceparent", "00-" .. ID .. "-" .. PARENT .. "-01", "tracestate", "a=1" }, flat)
    local kept = keeper()
    local root = spans.start("root", spans.INTERNAL, trace.current(), kept):enter()
    flat = traced_http.exchange(exchange, nil, "GET", "http://u:p@h/x?y=1", {}).flat
    local span = kept.GET
    assert.equal("00-" .. ID .. "-" .. span.span_id .. "-01", flat[2])
    assert.same({ root.span_id, "http://h/x", 200 },
      { span.parent_id, attribute(span, "url.full"), attribute(span, "http.response.status_code") })
    traced_http.exchange(function() return { status = 500 } end, nil, "POST", "http://h/", {})
    assert.equal("500", kept.POST.failure)
    traced_http.exchange(function() return nil, errors.new "ConnectError" end, nil, "PUT", "http://h/", {})
    assert.equal("ConnectError", kept.PUT.failure)
    pcall(traced_http.exchange, function() error "x" end, nil, "HEAD", "http://h/", {})
    assert.equal("_OTHER", kept.HEAD.failure)
    root:finish()
    assert.is_function(attributes.of_query)
    trace.adopt(nil)
  end)
end)
