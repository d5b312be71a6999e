-- SPDX-License-Identifier: MIT
-- The access log of the web server: a line for each request, whatever became of it.
local describe = require("support").needing("server", describe, pending)

local fixture = require "server_fixture"
local json = require "sluice.json"
local log = require "sluice.log"
local raw = require "raw_http"
local task = require "sluice.task"
local web = require "sluice.web"

local need, get, eventually = fixture.need, fixture.get, fixture.eventually

describe("server: access log", function()
  local lines, previous

  before_each(function()
    lines = {}
    previous = log.set_output(function(line)
      assert.equal("\n", line:sub(-1))
      local entry = need(json.decode(line))
      if entry.event == "request" then lines[#lines + 1] = entry end
    end)
  end)

  after_each(function() log.set_output(previous) end)

  local function with_log(f, given)
    given = given or {}
    given.access_log = true
    fixture.with_server(f, { max_body = 1000 }, given)
  end

  local function line(count)
    assert.is_true(eventually(function() return #lines >= count end))
    return lines[count]
  end

  it("is off by default", function()
    fixture.with_server(function(server)
      local c <close> = need(raw.connect(server.address))
      c:write(get "/1" .. "nonsense\r\n")
      assert.equal(200, c:answer().status)
      assert.equal(400, c:answer().status)
    end)
    assert.same({}, lines)
  end)

  it("tells method, path without query, status, bytes, time, id and client", function()
    with_log(function(server, _, app)
      app:get("/later", function()
        task.sleep(0.02)
        return { status = 404, body = "later" }
      end)
      local c <close> = need(raw.connect(server.address))
      c:write(get("/later?token=hidden", "X-Request-Id: the-id\r\n"))
      local id = c:answer().headers["x-request-id"]
      local found = line(1)
      assert.same({ "the-id", "the-id" }, { id, found.request_id })
      assert.same({ "GET", "/later", 404, 5 }, { found.method, found.path, found.status, found.bytes })
      assert.is_true(found.duration_ms >= 20 and found.duration_ms < 5000)
      assert.truthy(found.remote:find("^127%.0%.0%.1:%d+$"))
      assert.same({ "info", nil }, { found.level, found.cut })
    end)
  end)

  it("counts the pieces of a streamed answer, and of HEAD none", function()
    with_log(function(server, _, app)
      app:get("/pieces", function()
        local pieces = { "one", "two" }
        return { body = function() return table.remove(pieces, 1) end }
      end)
      local c <close> = need(raw.connect(server.address))
      c:write(get "/pieces")
      assert.equal("onetwo", c:answer().body)
      assert.equal(6, line(1).bytes)
      c:write("HEAD /x HTTP/1.1\r\nHost: x\r\n\r\n")
      c:answer("HEAD")
      assert.same({ "HEAD", 0 }, { line(2).method, lines[2].bytes })
    end)
  end)

  it("tells of requests that died before a handler", function()
    with_log(function(server, state)
      local cases = {
        { "nonsense\r\n", 400, nil, nil },
        { "\rnonsense", 400, nil, nil },
        { "\r\n\r\nGET / HTTP/1.1\r\n", 400, nil, nil },
        { "GET /a HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n", 400, "GET", "/a" },
        { "GET http://h/b?c HTTP/1.1\r\n\r\n", 400, "GET", "/b" },
        { "GET http://h HTTP/1.1\r\n\r\n", 400, "GET", "/" },
        { "GET /" .. ("x"):rep(9000), 414, "GET", nil },
        { "PUT /big?q HTTP/1.1\r\nHost: x\r\nContent-Length: 1001\r\n\r\n", 413, "PUT", "/big" },
        { "GET /c HTTP/1.1\r\nHost: x\r\nExpect: tea\r\n\r\n", 417, "GET", "/c" },
        { "GET /" .. ("y"):rep(600) .. " HTTP/1.1\r\n" .. ("A: b\r\n"):rep(101), 431, "GET",
          "/" .. ("y"):rep(511) },
        { "BREW /d HTTP/1.1\r\nHost: x\r\n\r\n", 501, "BREW", "/d" },
        { "GET /e HTTP/2.0\r\nHost: x\r\n\r\n", 505, "GET", "/e" },
        { "POST /slow HTTP/1.1\r\nHost", 408, "POST", "/slow" },
        { "POST /slow?with=q", 408, "POST", "/slow" },
        { "POST /slo", 408, "POST", nil },
      }
      for index, case in ipairs(cases) do
        local c <close> = need(raw.connect(server.address))
        c:write(case[1])
        local answer = c:answer()
        local found = line(index)
        assert.same({ case[2], case[2], #answer.body, case[3], case[4] },
          { answer.status, found.status, found.bytes, found.method, found.path })
        assert.truthy(found.remote:find("^127%.0%.0%.1:%d+$"))
        assert.equal(answer.headers["x-request-id"], found.request_id)
        assert.is_true(found.duration_ms >= (case[2] == 408 and 50 or 0), found.duration_ms)
      end
      assert.equal(0, state.hits)
      assert.equal(#cases, #lines)
    end, { timeout = { head = 0.05 } })
  end)

  it("says nothing of a connection that said nothing", function()
    with_log(function(server)
      for _ = 1, 3 do need(raw.connect(server.address)):close() end
      local c <close> = need(raw.connect(server.address))
      assert.is_true(c:ended())
    end, { timeout = { head = 0.02 } })
    assert.same({}, lines)
  end)

  it("gives 499 to a client that leaves, and marks an answer that was cut", function()
    with_log(function(server, state, app)
      app:get("/tick", function()
        return { body = function()
          task.sleep(0.001)
          return "tick"
        end }
      end)
      local c = need(raw.connect(server.address))
      c:write(get "/wait")
      assert.is_true(eventually(function() return state.running == 1 end))
      c:close()
      assert.same({ 499, 0, "/wait", nil }, { line(1).status, lines[1].bytes, lines[1].path, lines[1].cut })
      c = need(raw.connect(server.address))
      c:write(get "/tick")
      while not c.buffer:find("tick", 1, true) do assert.is_true(c:fill()) end
      c:close()
      assert.same({ 200, true }, { line(2).status, lines[2].cut })
      assert.is_true(lines[2].bytes > 0)
    end)
  end)

  it("tells of handlers that fail", function()
    with_log(function(server, _, app)
      app:get("/fault", function() error "oh" end)
      local c <close> = need(raw.connect(server.address))
      c:write(get "/fault")
      assert.equal(500, c:answer().status)
      assert.equal(500, line(1).status)
    end)
  end)

  it("has told everything when the server is closed", function()
    local app = web.app()
    local server = need(app:listen("127.0.0.1:0", { access_log = true }))
    local clients = {}
    for index = 1, 20 do
      clients[index] = need(raw.connect(server.address))
      clients[index]:write("nonsense\r\n")
    end
    for _, c in ipairs(clients) do c:answer() end
    server:close()
    assert.equal(20, #lines)
    for _, c in ipairs(clients) do c:close() end
  end)

  it("counts the refusals that were not kept", function()
    local access = require "sluice.web.access"
    access.log_refused({ status = 400, bytes = 9, seconds = 0.0015, remote = "unix:" }, 3)
    assert.same({ 400, 9, 1.5, "unix:", 3 },
      { lines[1].status, lines[1].bytes, lines[1].duration_ms, lines[1].remote, lines[1].not_logged })
    access.log({ method = "GET", path = "/", id = "i" }, nil, nil, 0, 0, false)
    assert.same({ 499, "i", nil }, { lines[2].status, lines[2].request_id, lines[2].cut })
  end)

  it("keeps a bounded number of notes, and says how many it lost", function()
    local core = require "sluice.core.server"
    local listener <close> = core.listen { address = "127.0.0.1:0", refusals = true }
    for _ = 1, 11 do
      local clients = {}
      for index = 1, 100 do
        clients[index] = need(raw.connect(listener:address()))
        clients[index]:write("nonsense\r\n")
      end
      for _, c in ipairs(clients) do
        c:answer()
        c:close()
      end
    end
    assert.equal(76, (select(2, listener:refused())))
    for _ = 2, 1024 do assert.equal(0, (select(2, listener:refused()))) end
    listener:close()
    assert.is_nil((listener:refused()))
  end)
end)
