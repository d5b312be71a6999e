-- SPDX-License-Identifier: MIT
-- Spans on their way to a collector, a real server each: one that takes them, refuses, hangs, or is none.

local emulator = require "sluice.emulator"
local exporters = require "sluice.trace.exporter"
local fixture = require "server_fixture"
local http = require "sluice.http"
local json = require "sluice.json"
local layers = require "sluice.layers"
local log = require "sluice.log"
local samplers = require "sluice.trace.sampler"
local settings = require "sluice.settings"
local sluice = require "sluice"
local spans = require "sluice.trace.span"
local support = require "support"
local task = require "sluice.task"
local trace = require "sluice.trace"
local traced = require "sluice.web.trace"
local web = require "sluice.web"

local describe = support.needing("server", describe, pending)

-- As a server writes a moment, in seconds since 1970.
local function http_date(at)
  return os.date("!%a, %d %b %Y %H:%M:%S GMT", at // 1 | 0)
end

-- Runs f(url, got, lines) with a collector that answers as `how(request, count)` does; `got.spans` are those
-- it was sent, `lines` what was logged.
local function with_collector(how, f)
  local got, lines = { spans = {}, requests = 0 }, {}
  local previous = log.set_output(function(line) lines[#lines + 1] = line end)
  local app = web.app { max_body = 64 << 20 }
  app:post("/v1/traces", function(request)
    got.requests = got.requests + 1
    got.headers = request.headers
    local answer = how and how(request, got.requests)
    if answer then return answer end
    local body = fixture.need(request:json())
    got.resource = body.resourceSpans[1].resource
    for _, span in ipairs(body.resourceSpans[1].scopeSpans[1].spans) do got.spans[#got.spans + 1] = span end
    return { json = {} }
  end)
  local server <close> = fixture.need(app:listen "127.0.0.1:0")
  local ok, message = xpcall(f, debug.traceback, server.url, got, lines)
  log.set_output(previous)
  if not ok then error(message, 0) end
end

local function emit(exporter, count)
  for index = 1, count or 1 do spans.start("span " .. index, spans.INTERNAL, nil, exporter):finish() end
end

local function count_of(lines, text)
  local count = 0
  for _, line in ipairs(lines) do
    if line:find(text, 1, true) then count = count + 1 end
  end
  return count
end

describe("trace.exporter", function()
  it("sends batches, with the resource and the headers", function()
    with_collector(nil, function(url, got, lines)
      local exporter <close> = trace.exporter {
        endpoint = url .. "/", batch = 10, every = 60, service = "spec",
        attributes = { ["deployment.name"] = "x" },
        headers = { Authorization = sluice.secret "Bearer canary" },
      }
      emit(exporter, 25)
      assert.is_true(fixture.eventually(function() return #got.spans == 20 end))
      assert.equal(5, exporter:queued())
      assert.is_true(exporter:flush())
      assert.same({ 25, 25, 0, 0, 3 },
        { #got.spans, exporter.exported, exporter.dropped, exporter.failed, got.requests })
      assert.equal("Bearer canary", sluice.secret(got.headers.authorization) and got.headers.authorization)
      assert.same({ key = "service.name", value = { stringValue = "spec" } }, got.resource.attributes[1])
      assert.matches("^%x+$", got.spans[1].traceId)
      assert.same({ 32, 16 }, { #got.spans[1].traceId, #got.spans[1].spanId })
      assert.same({}, lines)
      assert.same({ exported = 25, dropped = 0, failed = 0, queued = 0 }, json.decode(json.encode(exporter)))
    end)
  end)

  it("sends what is left when it is closed, and takes no more", function()
    with_collector(nil, function(url, got)
      local exporter = exporters.new { endpoint = url }
      emit(exporter, 3)
      exporter:close()
      exporter:close()
      assert.equal(3, #got.spans)
      emit(exporter, 2)
      assert.equal(2, exporter.dropped)
    end)
  end)

  it("tries again where that may help, says so once, and that it is over", function()
    local function busy(_, count)
      return count <= 2 and { status = 503, headers = { ["retry-after"] = "0" }, json = {} } or nil
    end
    with_collector(busy, function(url, got, lines)
      local exporter <close> = trace.exporter { endpoint = url, every = 0.01 }
      emit(exporter, 2)
      assert.is_true(fixture.eventually(function() return #got.spans == 2 end))
      assert.equal(3, got.requests)
      assert.is_true(fixture.eventually(function() return #lines == 2 end))
      assert.same({ 1, 1 },
        { count_of(lines, "cannot be exported"), count_of(lines, "exported again") })
    end)
  end)

  it("waits as long as a collector says, in seconds or until a date", function()
    task.simulate(function()
      for _, form in ipairs { "seconds", "date" } do
        local count, collector = 0, web.app()
        collector:any("/*", function()
          count = count + 1
          local said = form == "seconds" and "20" or http_date(task.wall() + 20)
          return count == 1 and { status = 503, headers = { ["retry-after"] = said } } or { json = {} }
        end)
        local exporter <close> = trace.exporter { endpoint = "http://c", every = 0.01, transport = collector }
        local started = task.now()
        local previous = log.set_output(function() end)
        emit(exporter, 1)
        exporter:flush(60)
        log.set_output(previous)
        assert.same({ 2, 1 }, { count, exporter.exported })
        assert.is_true(task.now() - started >= 19, tostring(task.now() - started))
      end
    end)
  end)

  it("gives a batch up where that does not: refused, or answered in HTML", function()
    local answers = {
      { status = 400, json = { message = "no" } },
      { status = 200, headers = { ["content-type"] = "text/html" }, body = "<html>Sign in</html>" },
      { status = 302, headers = { location = "/" } },
    }
    for _, answer in ipairs(answers) do
      with_collector(function() return answer end, function(url, got, lines)
        local exporter <close> = trace.exporter { endpoint = url, every = 0.01 }
        for round = 1, 3 do
          emit(exporter, 2)
          assert.is_true(fixture.eventually(function() return exporter.failed == 2 * round end))
        end
        assert.same({ 3, 0, 1 }, { got.requests, exporter.exported, #lines })
        assert.matches("spans cannot be exported", lines[1])
      end)
    end
  end)

  it("counts what a collector rejects", function()
    local function partly() return { json = { partialSuccess = { rejectedSpans = "2" } } } end
    with_collector(partly, function(url)
      local exporter <close> = trace.exporter { endpoint = url }
      emit(exporter, 5)
      exporter:flush()
      assert.same({ 3, 2 }, { exporter.exported, exporter.failed })
    end)
  end)

  it("holds nobody up where a collector hangs or is not there", function()
    with_collector(function() task.sleep(60) end, function(url, _, lines)
      for _, endpoint in ipairs { url, "http://127.0.0.1:1" } do
        local exporter <close> = trace.exporter {
          endpoint = endpoint, every = 0.01, queue = 10, timeout = 0.1, attempts = 1, flush = 0.2,
        }
        local started = task.now()
        emit(exporter, 100)
        assert.is_true(task.now() - started < 0.1)
        assert.equal(90, exporter.dropped)
        assert.equal(endpoint ~= url, exporter:flush(0.05))
        assert.is_true(fixture.eventually(function() return exporter.failed == 10 end))
      end
      assert.same({ 2, 2 }, { count_of(lines, "cannot be exported"), count_of(lines, "queue is full") })
    end)
  end)

  it("takes 1,000,000 spans in little memory: sent, or dropped and counted", function()
    with_collector(nil, function(url, got, lines)
      local exporter = trace.exporter { endpoint = url, every = 0.001 }
      local root = spans.start("root", spans.INTERNAL)
      root:finish()
      collectgarbage()
      local before = collectgarbage "count"
      for index = 1, 1000000 do
        exporter:export(root)
        if index % 100000 == 0 then task.sleep(0.001) end
      end
      assert.is_true(collectgarbage "count" - before < 20000)
      exporter:close(5)
      assert.equal(1000000, exporter.exported + exporter.dropped + exporter.failed)
      assert.is_true(exporter.dropped > 900000)
      assert.equal(exporter.exported, #got.spans)
      assert.equal(1, count_of(lines, "queue is full"))
    end)
  end)

  it("comes from the settings of OpenTelemetry", function()
    with_collector(nil, function(url, got)
      settings.set {
        OTEL_EXPORTER_OTLP_ENDPOINT = url, OTEL_EXPORTER_OTLP_HEADERS = "X-Key=canary%20key , b=2",
        OTEL_SERVICE_NAME = "named",
      }
      local ok, message = pcall(function()
        local exporter <close> = fixture.need(exporters.shared())
        assert.equal(exporter, exporters.shared())
        local chat = layers.trace {} { name = "e", query = function() return {} end }
        chat:query { messages = {} }
        exporter:flush()
        assert.same({ "canary key", "2" }, { got.headers["x-key"], got.headers.b })
        assert.equal("named", got.resource.attributes[1].value.stringValue)
        assert.equal("chat e", got.spans[1].name)
        settings.set { OTEL_SDK_DISABLED = "true" }
        exporter:close()
        assert.is_nil(exporters.shared())
      end)
      settings.set {
        OTEL_EXPORTER_OTLP_ENDPOINT = false, OTEL_EXPORTER_OTLP_HEADERS = false, OTEL_SERVICE_NAME = false,
        OTEL_SDK_DISABLED = false,
      }
      assert(ok, message)
    end)
    assert.has_error(function() trace.exporter {} end)
    assert.has_error(function() trace.exporter { endpoint = "x", batches = 1 } end)
  end)

  it("sends the spans of a script that ends at once", function()
    with_collector(nil, function(url, got)
      local chunk = [[
        local sluice = require "sluice"
        local chat = sluice.layers.trace {} { name = "e", query = function() return {} end }
        chat:query { messages = {} }
        if arg[1] then error "ends badly" end ]]
      support.with_file(chunk, function(path)
        for _, word in ipairs { "", "x" } do
          os.execute(("OTEL_EXPORTER_OTLP_ENDPOINT=%s %s %s %s >/dev/null 2>&1 &"):format(
            url, support.quote(support.binary), path, word))
          local wanted = word == "" and 1 or 2
          assert.is_true(fixture.eventually(function() return #got.spans == wanted end))
        end
      end)
    end)
  end)
end)

describe("which new traces are recorded", function()
  -- How many of 1000 that an app's spans and those of layers.trace are.
  local function recorded(values, given)
    settings.set(values)
    local sample = samplers.new(given)
    local count = 0
    for _ = 1, 1000 do count = count + (sample() and 1 or 0) end
    settings.set { OTEL_TRACES_SAMPLER = false, OTEL_TRACES_SAMPLER_ARG = false }
    return count
  end

  it("is what the settings say, or the option", function()
    assert.equal(1000, recorded {})
    for name, expected in pairs {
      always_on = 1000, always_off = 0, parentbased_always_on = 1000, parentbased_always_off = 0,
      traceidratio = 1000, parentbased_traceidratio = 1000,
    } do
      assert.equal(expected, recorded { OTEL_TRACES_SAMPLER = name }, name)
    end
    local ratio = { OTEL_TRACES_SAMPLER = "parentbased_traceidratio", OTEL_TRACES_SAMPLER_ARG = "0.1" }
    local count = recorded(ratio)
    assert.is_true(count > 40 and count < 200, count)
    assert.equal(0, recorded(ratio, 0))
    assert.equal(1000, recorded(ratio, 1))
  end)

  it("is all, said in the log, where the settings say what nobody knows", function()
    local lines = {}
    local previous = log.set_output(function(line) lines[#lines + 1] = line end)
    for _, values in ipairs {
      { OTEL_TRACES_SAMPLER = "jaeger_remote" },
      { OTEL_TRACES_SAMPLER = "traceidratio", OTEL_TRACES_SAMPLER_ARG = "many" },
      { OTEL_TRACES_SAMPLER = "traceidratio", OTEL_TRACES_SAMPLER_ARG = "1.5" },
    } do
      assert.equal(1000, recorded(values))
    end
    log.set_output(previous)
    assert.equal(3, #lines)
    assert.matches('"sampler":"jaeger_remote"', lines[1])
    assert.is_true((samplers.check(0.5)))
    for _, wrong in ipairs { -1, 1.5, "1", 0 / 0 } do assert.is_false((samplers.check(wrong))) end
  end)

  it("holds for all that is inside of a request, and the caller's word before it", function()
    local app, exported = web.app(), 0
    local exporter = { export = function() exported = exported + 1 end }
    local chat = layers.trace { exporter = exporter } { name = "e", query = function() return {} end }
    local told
    app:get("/", function()
      assert(chat:query {})
      told = spans.outgoing()
      return { body = "ok" }
    end)
    web.trace(app, { exporter = exporter, sample = 0 })
    local function ask(traceparent)
      local res = assert(app:handle { url = "http://h/", headers = { traceparent = traceparent } })
      assert.equal(200, res.status)
    end
    ask()
    assert.equal(0, exported)
    assert.matches("%-00$", told)
    local id = ("4bf92f35"):rep(4)
    ask("00-" .. id .. "-00f067aa0ba902b7-01")
    assert.equal(2, exported)
    assert.matches("^00%-" .. id .. "%-%x+%-01$", told)
    assert.has_error(function() web.trace(app, { sample = 2 }) end)
  end)
end)

describe("web.trace, where no collector is named", function()
  it("makes what handlers ask a part of the caller's trace all the same", function()
    local app, seen = web.app {}, nil
    web.trace(app)
    app:get("/", function()
      seen = trace.current()
      return "x"
    end)
    local field = { "traceparent", "00-" .. ("ab"):rep(16) .. "-00f067aa0ba902b7-01" }
    app:handle { path = "/", headers = { field } }
    assert.equal(("ab"):rep(16), seen.trace_id)
    assert.is_nil(trace.current())
    app:handle { path = "/", headers = { field, field } }
    assert.is_nil(seen)
    assert.is_nil(trace.shared())
  end)
end)

describe("a trace, from a caller through a server to a model", function()
  it("is one, and each request over the wire is told of it", function()
    with_collector(nil, function(collector, got)
      local model <close> = fixture.need(emulator.new { deploy_time = 0 }:listen "127.0.0.1:0")
      local workspace = fixture.need(sluice.workspace { host = model.url, token = "any" })
      local served = { entity_name = "main.default.echo", entity_version = "1" }
      local config = { served_entities = { served } }
      fixture.need(workspace.serving_endpoints:create { name = "chat", config = config })
      local exporter <close> = trace.exporter { endpoint = collector }
      local chat = sluice.pipeline(workspace:endpoint "chat", {
        layers.trace { exporter = exporter }, layers.retry {},
      })
      local seen
      local app = web.app {}
      web.trace(app, { exporter = exporter })
      app:post("/chat/:id", function(request)
        local body = fixture.need(request:json())
        if body.stream then return { stream = fixture.need(chat:stream(body)) } end
        local answer = fixture.need(chat:query(body))
        seen = tostring(sluice.meta(answer).trace)
        return { json = answer }
      end)
      app:get("/fails", function() error "broken" end)
      local server <close> = fixture.need(app:listen "127.0.0.1:0")
      local messages = { { role = "user", content = "one two" } }
      local id, parent = ("ab"):rep(16), ("cd"):rep(8)
      local headers = { traceparent = "00-" .. id .. "-" .. parent .. "-01" }
      local function ask(body)
        local res, err = http.request { url = server.url .. "/chat/7", headers = headers, json = body }
        fixture.need(res, err)
        return fixture.need(res:text())
      end
      ask { messages = messages }
      exporter:flush()
      local by_name, parents = {}, {}
      for _, span in ipairs(got.spans) do
        assert.equal(id, span.traceId)
        by_name[span.name], parents[span.name] = span, span.parentSpanId
      end
      assert.equal(parent, parents["POST /chat/:id"])
      assert.equal(by_name["POST /chat/:id"].spanId, parents["chat chat"])
      assert.equal(by_name["chat chat"].spanId, parents["attempt 1"])
      assert.equal(by_name["attempt 1"].spanId, parents.POST)
      assert.matches("\n      POST .* 200\n", seen)
      assert.matches("\n        first byte +[%d.]+ ms", seen)
      got.spans = {}
      assert.matches("one", ask { messages = messages, stream = true })
      assert.is_true(fixture.eventually(function()
        exporter:flush()
        return #got.spans == 5
      end))
      headers.traceparent = "00-" .. ("0"):rep(32) .. "-" .. parent .. "-01"
      got.spans = {}
      ask { messages = messages }
      local previous = log.set_output(function() end)
      http.request { url = server.url .. "/fails" }
      log.set_output(previous)
      exporter:flush()
      assert.not_equal(("0"):rep(32), got.spans[1].traceId)
      local last = got.spans[#got.spans]
      assert.same({ "GET /fails", 2 }, { last.name, last.status.code })
      assert.equal(app, traced.around(app, { exporter = exporter }))
    end)
  end)
end)
