-- SPDX-License-Identifier: MIT
-- Faults by rule: what a client of the emulator sees of each kind, in process and over a socket.

local caller = require "emulator_caller"
local control = require "sluice.emulator.routes.control"
local emulator = require "sluice.emulator"
local faults = require "sluice.emulator.faults"
local http = require "sluice.http"
local json = require "sluice.json"
local log = require "sluice.log"
local support = require "support"
local task = require "sluice.task"
local web = require "sluice.web"

local chat <const>, refused <const>, management <const> = caller.chat, caller.refused, caller.management
local invocations <const> = "/serving-endpoints/e/invocations"

local function start()
  local call, emulated = caller.start { deploy_time = 0 }
  caller.create(call, "e", { caller.entity "echo" })
  return call, emulated
end

-- The bytes of a body, and how it ended.
local function read_all(res)
  local pieces = {}
  while true do
    local piece, err = res:read()
    if not piece then return table.concat(pieces), err end
    pieces[#pieces + 1] = piece
  end
end

describe("a fault rule", function()
  it("answers a status with body and headers, for so many requests", function()
    local call, emulated = start()
    emulated:fault {
      kind = "status", status = 503, json = { error_code = "TEMPORARILY_UNAVAILABLE", message = "soon" },
      headers = { ["retry-after"] = "7" }, path = "/serving-endpoints/*/invocations", skip = 1, times = 2,
    }
    local statuses = {}
    for index = 1, 4 do statuses[index] = call("POST", invocations, chat "x").status end
    assert.same({ 200, 503, 503, 200 }, statuses)
    assert.equal(2, emulated.faults:list()[1].hits)
    assert.equal(200, call("GET", management .. "/e").status)
  end)

  it("is for one served entity, whichever the traffic chooses", function()
    local call, emulated = caller.start { deploy_time = 0, seed = 4 }
    local entities = { caller.entity("echo", { name = "old" }), caller.entity("echo", { name = "new" }) }
    local routes = {}
    for index, name in ipairs { "old", "new" } do
      routes[index] = { served_entity_name = name, traffic_percentage = 50 }
    end
    local config = { served_entities = entities, traffic_config = { routes = routes } }
    assert.equal(200, call("POST", management, { name = "e", config = config }).status)
    emulated:fault { kind = "status", status = 500, served_entity = "new", skip = 1 }
    emulated:fault { kind = "status", status = 503, served_entity = "other" }
    local failed, answered = {}, {}
    for _ = 1, 60 do
      local res = call("POST", invocations, chat "x")
      local counts = res.status == 200 and answered or failed
      local name = res.headers["served-model-name"]
      counts[name] = (counts[name] or 0) + 1
    end
    assert.is_true(failed.new > 15 and answered.new == 1 and answered.old > 15)
    assert.is_nil(failed.old)
    assert.equal(500, call("POST", "/serving-endpoints/e/served-models/new/invocations", chat "x").status)
    assert.equal(failed.new + 2, emulated.faults:list()[1].seen)
    emulated.faults:remove(1)
    task.simulate(function()
      emulated:fault { kind = "delay", seconds = 7, served_entity = "new" }
      local started = task.now()
      call("POST", "/serving-endpoints/e/served-models/new/invocations", chat "x")
      assert.equal(7, task.now() - started)
      call("POST", "/serving-endpoints/e/served-models/old/invocations", chat "x")
      assert.equal(7, task.now() - started)
    end)
  end)

  it("answers in every shape that the service has", function()
    local call, emulated = start()
    local shapes = {
      { status = 400, json = { error_code = "BAD_REQUEST", message = "m" } },
      { status = 400, json = { error = "m" } },
      { status = 404, json = { schemas = {}, detail = "d", status = "404", scimType = "t" } },
      { status = 400, body = "MALFORMED_REQUEST: m" },
      { status = 502, body = "<html><pre>m</pre></html>", headers = { ["content-type"] = "text/html" } },
      { status = 500, body = "" },
      { status = 500, body = "\xff no JSON" },
      { status = 302, headers = { location = "/login.html?error=private-link-validation-error" } },
    }
    for _, shape in ipairs(shapes) do
      shape.kind, shape.times = "status", 1
      emulated:fault(shape)
      local res = call("GET", management)
      assert.equal(shape.status, res.status)
      if shape.body then assert.equal(shape.body, res.body) end
      if shape.json then assert.same(json.decode(json.encode(shape.json)), res:json()) end
    end
    assert.matches("<pre>", call("GET", "/login.html").body, 1, true)
  end)

  it("happens before the change, or after it", function()
    local call, emulated = start()
    emulated:fault { kind = "status", status = 500, method = "DELETE", times = 1 }
    assert.equal(500, call("DELETE", management .. "/e").status)
    assert.equal(200, call("GET", management .. "/e").status)
    emulated:fault { kind = "status", status = 500, method = "DELETE", after = true, times = 1 }
    assert.equal(500, call("DELETE", management .. "/e").status)
    assert.equal(404, call("GET", management .. "/e").status)
    emulated:fault { kind = "reset", method = "POST", after = true, times = 1 }
    local res, err = call("POST", management, { name = "new" })
    assert.is_nil(res)
    assert.same({ "ConnectError", true }, { err.kind, err.maybe_executed })
    assert.equal(200, call("GET", management .. "/new").status)
  end)

  it("is for one endpoint, also where the path does not name it", function()
    local call, emulated = start()
    emulated:fault { kind = "status", status = 500, endpoint = "e" }
    assert.equal(500, call("POST", invocations, chat "x").status)
    local completions = "/serving-endpoints/chat/completions"
    assert.equal(500, call("POST", completions, chat("x", { model = "e" })).status)
    assert.equal(404, call("POST", completions, chat("x", { model = "other" })).status)
    assert.equal(500, call("POST", management, { name = "e" }).status)
    assert.equal(200, call("POST", management, { name = "other" }).status)
    assert.equal(400, call("POST", completions, "{").status)
  end)

  it("spoils the body: cut, clean, split, HTML, no JSON", function()
    local call, emulated = start()
    local whole = #call("GET", management .. "/e").body
    local function with(rule)
      rule.times = 1
      emulated:fault(rule)
      return call("GET", management .. "/e")
    end
    local res = with { kind = "truncate", bytes = 10 }
    local text, err = read_all(res)
    assert.equal(10, #text)
    assert.equal("TruncatedStream", err.kind)
    assert.equal(10, #with { kind = "truncate", bytes = 10, clean = true }.body)
    local count = 0
    for _ in with { kind = "split", size = 100 }:chunks() do count = count + 1 end
    assert.equal(math.ceil(whole / 100), count)
    assert.matches("<title>Sign in</title>", with { kind = "html" }.body, 1, true)
    assert.is_nil((with { kind = "bad_json" }:json()))
  end)

  it("takes time", function()
    task.simulate(function()
      local call, emulated = start()
      local function time(rule)
        rule.times = 1
        emulated:fault(rule)
        local before = task.now()
        assert.equal(200, call("GET", management .. "/e").status)
        return task.now() - before
      end
      assert.is_true(math.abs(time { kind = "delay", seconds = 5 } - 5) < 1e-6)
      assert.is_true(math.abs(time { kind = "stall", seconds = 7, after = true } - 7) < 1e-6)
      emulated:fault { kind = "drip", pause = 1, size = 100, times = 1 }
      local before, body = task.now(), call("GET", management .. "/e").body
      assert.is_true(task.now() - before >= #body // 100)
      emulated:fault { kind = "stall", times = 1 }
      local _, err = task.timeout(100, call, "GET", management)
      assert.equal("TimeoutError", err.kind)
    end)
  end)

  it("is refused where it is none", function()
    local _, emulated = start()
    assert.has_error(function() emulated:fault { kind = "explode" } end)
    assert.has_error(function() emulated:fault { kind = "stream_error", shape = "other" } end)
    assert.has_error(function() emulated:fault "reset" end)
  end)

  it("may have a condition in Lua beside its own", function()
    local call, emulated = start()
    emulated:fault {
      kind = "stream_cut", chunks = 0, when = function(request) return request.headers["x-test"] == "1" end,
    }
    local body = chat("x", { stream = true })
    local headers = { authorization = "Bearer x", ["x-test"] = "1" }
    assert.matches("%[DONE%]", call("POST", invocations, body).body)
    assert.is_nil((call("POST", invocations, body, headers):read()))
    assert.equal(200, call("POST", invocations, chat "x", headers).status)
  end)
end)

describe("a fault in mid-stream", function()
  local function stream_with(rule)
    local call, emulated = start()
    emulated:fault(rule)
    local res = assert(call("POST", invocations, chat("one two three", { stream = true })))
    assert.equal(200, res.status)
    return read_all(res)
  end

  it("cuts after some chunks", function()
    local text, err = stream_with { kind = "stream_cut", chunks = 2 }
    assert.equal(2, #caller.events(text))
    assert.equal("TruncatedStream", err.kind)
  end)

  it("says an error in each shape, and ends", function()
    local function last(rule)
      rule.kind, rule.chunks = "stream_error", 1
      local text, err = stream_with(rule)
      local events = caller.events(text)
      assert.is_nil(err)
      assert.equal(2, #events)
      return events[2]
    end
    local frame = last { code = "REQUEST_LIMIT_EXCEEDED", message = "slow", status = 429 }
    assert.same({ "slow", "REQUEST_LIMIT_EXCEEDED", 429 }, {
      frame.error.message, frame.error.code, frame.error.status,
    })
    assert.same({ error_code = "INTERNAL_ERROR", message = "m" }, last { shape = "databricks",
      message = "m" })
    assert.same({ error = "m" }, last { shape = "text", message = "m" })
  end)

  it("sends what is no JSON, and goes on", function()
    local text = stream_with { kind = "stream_bad_json", chunks = 1 }
    local events = caller.events(text)
    assert.equal("string", type(events[2]))
    assert.equal("[DONE]", events[#events])
    assert.equal(7, #events)
  end)

  it("stalls, and drips", function()
    task.simulate(function()
      local before = task.now()
      stream_with { kind = "stream_stall", chunks = 1, seconds = 9 }
      assert.is_true(math.abs(task.now() - before - 9) < 1e-6)
      before = task.now()
      stream_with { kind = "stream_drip", chunks = 2, pause = 2 }
      assert.is_true(math.abs(task.now() - before - 10) < 1e-6) -- four frames, and the look at the end
      local _, err = task.timeout(50, stream_with, { kind = "stream_stall", chunks = 0 })
      assert.equal("TimeoutError", err.kind)
    end)
  end)

  it("leaves plain answers and other requests alone", function()
    local call, emulated = start()
    emulated:fault { kind = "stream_cut", chunks = 0 }
    assert.equal(200, call("POST", invocations, chat "x").status)
    assert.equal(200, call("GET", management).status)
    assert.equal(0, emulated.faults:list()[1].seen)
  end)
end)

describe("the control path", function()
  it("adds, lists and takes out rules (control.add)", function()
    assert.is_function(control.add)
    local call = start()
    local rule = { kind = "status", status = 418, times = 1 }
    assert.same({ ids = { 1 } }, call("POST", "/emulator/faults", rule):json())
    assert.same({ ids = { 2, 3 } }, call("POST", "/emulator/faults", { rule, rule }):json())
    local list = call("GET", "/emulator/faults"):json().faults
    assert.same({ id = 1, kind = "status", status = 418, times = 1, seen = 0, hits = 0 }, list[1])
    assert.equal(200, call("DELETE", "/emulator/faults/2").status)
    refused(call("DELETE", "/emulator/faults/2"), 404, "RESOURCE_DOES_NOT_EXIST")
    assert.equal(418, call("GET", management).status)
    assert.equal(200, call("DELETE", "/emulator/faults").status)
    assert.equal(200, call("GET", management).status)
    local about = call("GET", "/emulator"):json()
    assert.same({ 1, 0 }, { about.endpoints, about.faults })
  end)

  it("refuses rules that are none, and adds none of a list with one", function()
    local call = start()
    for _, body in ipairs { "{", "5", "{}", '{"kind":"reset","extra":1}',
      '[{"kind":"reset"},{"kind":"x"}]' } do
      refused(call("POST", "/emulator/faults", body), 400, "INVALID_PARAMETER_VALUE")
    end
    assert.equal(0, #call("GET", "/emulator/faults"):json().faults)
    refused(call("GET", "/emulator/faults", nil, {}), 401, "UNAUTHENTICATED")
  end)

  it("is spared by the rules (faults.new)", function()
    local call, emulated = start()
    emulated:fault { kind = "status", status = 500 }
    assert.equal(500, call("GET", management).status)
    assert.equal(200, call("GET", "/emulator/faults").status)
    assert.equal(0, faults.new().count)
  end)

  it("shows a reset in process as an err (faults.guard)", function()
    local app = { handle = function() error("another fault", 0) end }
    faults.guard(app)
    assert.has_error(function() app:handle {} end, "another fault")
  end)
end)

support.needing("server", describe, pending)("a fault over a socket", function()
  local function with_server(use)
    local emulated = emulator.new { deploy_time = 0 }
    local server <close> = assert(emulated:listen "127.0.0.1:0") -- luacheck: ignore
    local function request(method, path, body, options)
      local given = { method = method, url = "http://" .. server.address .. path, json = body }
      given.headers = { authorization = "Bearer x" }
      for key, value in pairs(options or {}) do given[key] = value end
      return http.request(given)
    end
    local served = { served_entities = { caller.entity "echo" } }
    assert(request("POST", management, { name = "e", config = served }))
    local previous = log.set_output(function() end)
    local ok, err = pcall(use, request, emulated)
    log.set_output(previous)
    if not ok then error(err, 0) end
  end

  it("resets the connection, before an answer and in its middle", function()
    with_server(function(request, emulated)
      emulated:fault { kind = "reset", method = "GET" }
      local res, err = request("GET", management)
      assert.is_nil(res)
      assert.is_true(err.kind == "ConnectError" or err.kind == "ProtocolError", tostring(err))
      assert.is_true(emulated.faults:list()[1].hits >= 1)
      emulated.faults:clear()
      emulated:fault { kind = "reset", bytes = 5, times = 1 }
      res, err = request("GET", management)
      assert.is_nil(res)
      assert.equal("TruncatedStream", err.kind)
      assert.equal(200, assert(request("GET", management)).status)
    end)
  end)

  it("cuts a stream, and the client sees an end that is none", function()
    with_server(function(request, emulated)
      emulated:fault { kind = "stream_cut", chunks = 2, times = 1 }
      local res = assert(request("POST", invocations, chat("one two three", { stream = true }),
        { stream = true }))
      local text, err = read_all(res)
      assert.equal(2, #caller.events(text))
      assert.equal("TruncatedStream", err.kind)
    end)
  end)

  it("is told by a handler that aborts its request", function()
    local app = web.app {}
    app:get("/", function(request) return { json = { cut = request:abort() } } end)
    assert.equal('{"cut":false}', app:handle { path = "/" }.body)
    local server <close> = assert(app:listen "127.0.0.1:0") -- luacheck: ignore
    assert.is_nil((http.request { url = "http://" .. server.address .. "/" }))
  end)

  it("streams to a client as it goes, and a client that leaves ends the answer", function()
    with_server(function(request, emulated)
      emulated.token_time = 0.02
      local body = chat("one two three", { stream = true })
      local res = assert(request("POST", invocations, body, { stream = true }))
      assert.matches("^data: ", (res:read()))
      res:close()
      emulated:fault { kind = "stream_stall", chunks = 1 }
      res = assert(request("POST", invocations, body, { stream = true }))
      assert.matches("^data: ", (res:read()))
      res:close()
    end)
  end)
end)
