-- SPDX-License-Identifier: MIT
local http = require "sluice.http"
local in_process = require "sluice.transports.in_process"
local sluice = require "sluice"
local support = require "support"
local task = require "sluice.task"
local web = require "sluice.web"

-- An app with what can go wrong in one.
local function app_of_faults()
  local app = web.app { max_body = 10 }
  app:get("/text", function() return "text" end)
  app:post("/echo", function(request) return request:text() end)
  app:get("/raise", function() error "a bug" end)
  app:get("/pieces", function()
    local count = 0
    return { body = function()
      count = count + 1
      return count <= 3 and "piece" .. count or nil
    end }
  end)
  app:get("/cut", function()
    local count = 0
    return { body = function()
      count = count + 1
      if count == 3 then error "a bug in the middle" end
      task.sleep(0.01)
      return "piece"
    end }
  end)
  app:get("/silent", function() task.sleep(20) end)
  app:get("/stalls", function()
    local count = 0
    return { body = function()
      count = count + 1
      if count == 2 then task.sleep(20) end
      return "piece"
    end }
  end)
  return app
end

local function outcome(transport, request)
  local res, err = transport:handle(request)
  if not res then
    return { kind = err.kind, limit = err.limit, phase = err.phase, operation = err.operation }
  end
  local body, failure = res:text()
  if res.status >= 400 then body = nil end -- the texts may differ
  return { status = res.status, type = res.headers["content-type"], body = body,
    kind = failure and failure.kind, limit = failure and failure.limit }
end

describe("transports.in_process", function()
  it("makes a transport of a handler, whatever the path", function()
    local transport = in_process(function(request)
      local content_type = request.headers["content-type"] or ""
      return { json = { request.method, request.target, content_type, request.body } }
    end)
    local function ask(request) return transport:handle(request):json() end
    assert.same({ "GET", "/", "", "" }, ask { url = "http://h" })
    assert.same({ "POST", "/a?b=c&d=e", "application/json", "{}" },
      ask { url = "http://h/a?b=c", query = { d = "e" }, json = {} })
    assert.same({ "PUT", "/a", "application/x-www-form-urlencoded", "x=1" },
      ask { method = "put", path = "/a", form = { x = 1 } })
    local _, text = pcall(in_process, {})
    assert.matches('transports.in_process: argument "target" must be a function', text)
    assert.equal(in_process, sluice.transports.in_process)
  end)

  it("raises for what is no request, at the caller", function()
    local transport = in_process(function() end)
    local function misuse(request)
      local _, text = pcall(function() transport:handle(request) end)
      return text
    end
    assert.matches("in_process_spec.lua:%d+: in_process:handle: one of url and path is needed", misuse {})
    assert.matches('in_process_spec.lua:%d+: in_process:handle: give one of "body"',
      misuse { url = "http://h", body = "", json = {} })
    assert.matches('in_process_spec.lua:%d+: in_process:handle: timeout: unknown option "totl"',
      misuse { url = "http://h", timeout = { totl = 1 } })
  end)

  it("keeps to the time limits, of its own and by default", function()
    task.simulate(function()
      local transport = in_process(function(request)
        if request.path == "/late" then task.sleep(1e6) end
        return { body = function()
          task.sleep(50)
          return "x"
        end }
      end)
      local function fails(request)
        local started = task.now()
        local got = outcome(transport, request)
        return { got.kind, got.limit, task.now() - started }
      end
      assert.same({ "TimeoutError", "first_byte", 300 }, fails { url = "http://h/late" })
      assert.same({ "TimeoutError", "first_byte", 300 }, fails { url = "http://h/late", stream = true })
      assert.same({ "TimeoutError", "total", 7 }, fails { url = "http://h/late", timeout = 7 })
      assert.same({ "TimeoutError", "total", 600 }, fails { url = "http://h/" })
      assert.same({ "TimeoutError", "idle", 9 },
        fails { url = "http://h/", timeout = { idle = 9 }, stream = true })
      assert.same({ "TimeoutError", "total", 120 }, fails { url = "http://h/", timeout = 120, stream = true })
      local _, err = transport:handle { url = "http://u:p@h/late?q", timeout = 1 }
      assert.equal("GET http://h/late: not complete within 1 s, 0 bytes so far (TimeoutError)", tostring(err))
      assert.is_true(err.maybe_executed)
    end)
  end)

  it("lets the limits around it through", function()
    task.simulate(function()
      local transport = in_process(function() task.sleep(100) end)
      local _, err = task.timeout(3, transport.handle, transport, { url = "http://h", timeout = 50 })
      assert.equal("task.timeout", err.limit)
      local waits = task.spawn(function() transport:handle { url = "http://h" } end)
      task.sleep(1)
      waits:cancel "enough"
      local _, raised = pcall(waits.join, waits)
      assert.equal("TaskCancelled", raised.kind)
    end)
  end)

  it("holds an answer to max_response", function()
    local transport = in_process(function() return ("x"):rep(11) end)
    local _, err = transport:handle { url = "http://h", max_response = 10 }
    assert.same({ "ProtocolError", "RESPONSE_TOO_LARGE" }, { err.kind, err.code })
    assert.equal(11, #transport:handle({ url = "http://h", max_response = 11 }).body)
  end)

  it("ends a request whose body gives up with the body's err", function()
    local transport = in_process(function(request) return request:text() or "nothing" end)
    local _, err = transport:handle { url = "http://h", body = function() return nil, "no more" end }
    assert.equal("no more", err)
  end)

  it("tells why a body was cut, and closes it", function()
    local closed = 0
    local transport = in_process(function()
      return { body = function() error("a bug", 0) end, close = function() closed = closed + 1 end }
    end)
    local _, err = transport:handle { url = "http://h" }
    assert.same({ "TruncatedStream", "a bug", 1 }, { err.kind, err.cause, closed })
    local res = transport:handle { url = "http://h", stream = true }
    res:close()
    assert.equal(2, closed)
  end)
end)

support.needing("server", describe, pending)("transports.in_process", function()
  it("shows what a socket shows", function()
    local app = app_of_faults()
    local server = assert(app:listen "127.0.0.1:0")
    local transport = in_process(app)
    local requests = {
      { path = "/text" }, { path = "/none" }, { path = "/pieces" }, { path = "/pieces", stream = true },
      { path = "/echo", body = "0123456789" }, { path = "/echo", body = "0123456789a" },
      { path = "/echo", method = "POST" }, { path = "/cut" }, { path = "/cut", stream = true },
      { path = "/silent", timeout = 0.05 }, { path = "/silent", timeout = { first_byte = 0.05 } },
      { path = "/stalls", stream = true, timeout = { idle = 0.05 } },
      { path = "/pieces", max_response = 5 },
    }
    local log = require "sluice.log"
    log.set_output(function() end)
    local results = task.map(requests, function(request)
      request.url, request.path = server.url .. request.path, nil
      return { over = outcome(http, request), within = outcome(transport, request), url = request.url }
    end)
    log.set_output(nil)
    server:stop(0)
    for _, result in ipairs(results) do
      assert(result.ok, result.error)
      assert.same(result.value.over, result.value.within, result.value.url)
    end
    assert.equal(13, #results)
  end)
end)
