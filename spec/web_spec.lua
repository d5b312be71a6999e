-- SPDX-License-Identifier: MIT
-- sluice.web in process: routes, requests, results, failures. The socket has server_spec.lua.

local errors = require "sluice.errors"
local json = require "sluice.json"
local log = require "sluice.log"
local secret = require "sluice.secret"
local task = require "sluice.task"
local web = require "sluice.web"

-- busted's assert turns an err into text; handlers use this.
local function need(value, err)
  if value == nil then error(err, 0) end
  return value
end

describe("web: routes", function()
  local app

  local function named(name)
    return function(request) return { json = { name = name, params = request.params } } end
  end

  local function got(method, path)
    local res = assert(app:handle { method = method, path = path })
    local value = res:json()
    return res.status, value and value.name, value and value.params or {}, res
  end

  before_each(function()
    app = web.app()
    app:get("/", named "root")
    app:get("/a", named "a")
    app:get("/a/:id", named "id")
    app:get("/a/list", named "list")
    app:post("/a/:id/run", named "run")
    app:get("/files/*", named "files")
    app:any("/any", named "any")
    app:put("/any", named "put")
    app:patch("/a/:id", named "patch")
    app:delete("/any", named "delete")
    app:head("/any", named "head")
    app:options("/any", named "options")
  end)

  it("finds literal paths", function()
    local status, name = got("GET", "/")
    assert.same({ 200, "root" }, { status, name })
    status, name = got("GET", "/a")
    assert.same({ 200, "a" }, { status, name })
  end)

  it("prefers a literal to a parameter, and comes back from it", function()
    assert.equal("list", (select(2, got("GET", "/a/list"))))
    local status, name, params = got("POST", "/a/list/run")
    assert.same({ 200, "run", "list" }, { status, name, params.id })
  end)

  it("decodes parameters, one segment at a time", function()
    local _, name, params = got("GET", "/a/x%2Fy%20z+1")
    assert.same({ "id", "x/y z+1" }, { name, params.id })
  end)

  it("gives the rest of a path under *", function()
    assert.equal("a/b c", (select(3, got("GET", "/files/a/b%20c")))["*"])
    assert.equal("", (select(3, got("GET", "/files/")))["*"])
    assert.equal(404, (got("GET", "/files")))
  end)

  it("does not take an empty segment for a parameter, nor a slash too many", function()
    assert.equal(404, (got("GET", "/a/")))
    assert.equal(404, (got("GET", "//")))
  end)

  it("knows 404, 405 with Allow, OPTIONS", function()
    assert.equal(404, (got("GET", "/nope")))
    local status, _, _, res = got("DELETE", "/a/1")
    assert.same({ 405, "GET, HEAD, OPTIONS, PATCH" }, { status, res.headers.allow })
    status, _, _, res = got("OPTIONS", "/a/1/run")
    assert.same({ 204, "OPTIONS, POST" }, { status, res.headers.allow })
  end)

  it("answers HEAD by GET, without the body and with its length", function()
    local res = assert(app:handle { method = "HEAD", path = "/a" })
    assert.equal(200, res.status)
    assert.equal("", res.body)
    assert.equal(#app:handle({ path = "/a" }).body, tonumber(res.headers["content-length"]))
  end)

  it("takes a method's own handler before that for any", function()
    assert.equal("put", (select(2, got("PUT", "/any"))))
    assert.equal("patch", (select(2, got("PATCH", "/a/1"))))
    assert.equal("delete", (select(2, got("DELETE", "/any"))))
    assert.equal("options", (select(2, got("OPTIONS", "/any"))))
    assert.equal(200, (got("HEAD", "/any")))
    assert.equal("any", (select(2, got("BREW", "/any"))))
  end)

  it("lets a catch-all answer what has no handler", function()
    app:any("/*", named "rest")
    assert.equal("rest", (select(2, got("DELETE", "/a/1"))))
    assert.equal("rest", (select(2, got("GET", "/"))) == "root" and "rest" or nil)
  end)

  it("refuses a broken escape", function()
    assert.equal(400, (got("GET", "/a/%zz")))
    assert.equal(400, (got("GET", "/a/%4")))
  end)

  it("raises misuse at the caller", function()
    assert.has_error(function() app:get("x", named "x") end)
    assert.has_error(function() app:get("/a", named "again") end)
    assert.has_error(function() app:get("/*/b", named "x") end)
    assert.has_error(function() app:get("/:", named "x") end)
    assert.has_error(function() app:get("/x", 1) end)
    assert.has_error(function() web.app { max_bdy = 1 } end)
    assert.has_error(function() app:handle {} end)
    local ok, message = pcall(function() app:get("x", named "x") end)
    assert.is_false(ok)
    assert.truthy(message:find("web_spec.lua", 1, true))
  end)
end)

describe("web: requests", function()
  local app, seen

  before_each(function()
    app, seen = web.app { max_body = 10 }, nil
    app:any("/*", function(request)
      seen = request
      return { json = { body = need(request:text()) } }
    end)
  end)

  it("splits a url", function()
    app:handle { url = "http://example.test:80/p/q?x=1#frag" }
    assert.same({ "/p/q?x=1", "/p/q" }, { seen.target, seen.path })
    app:handle { url = "http://example.test?x=1" }
    assert.same({ "/?x=1", "/" }, { seen.target, seen.path })
  end)

  it("reads the query", function()
    app:handle { path = "/?a=1&b=x+y%21&a=2&flag&c=%zz&=v" }
    assert.same({ a = "1", b = "x y!", flag = "", c = "%zz", [""] = "v" }, seen.query)
    assert.same({ "a", "2" }, seen:query_pairs()[3])
    app:handle { path = "/" }
    assert.same({}, seen.query)
  end)

  it("takes a body as text and as an iterator, within the limit", function()
    assert.equal("hello", app:handle({ method = "POST", path = "/", body = "hello" }):json().body)
    local pieces = { "ab", "", "cd" }
    local function iterator() return table.remove(pieces, 1) end
    assert.equal("abcd", app:handle({ method = "POST", path = "/", body = iterator }):json().body)
    local res = app:handle { method = "POST", path = "/", body = ("x"):rep(11) }
    assert.same({ 413, "PayloadTooLarge" }, { res.status, res:json().error.type })
  end)

  it("gives the pieces of a body", function()
    app:post("/count", function(request)
      local count = 0
      for _ in request:chunks() do count = count + 1 end
      return { json = count }
    end)
    local pieces = { "a", "", "", "b" }
    local function iterator() return table.remove(pieces, 1) end
    local res = app:handle { method = "POST", path = "/count", body = iterator }
    assert.equal(2, res:json())
  end)

  it("leaves a secret in a header as it is", function()
    local token = secret.new "correct horse battery"
    app:handle { path = "/", headers = { Authorization = token } }
    assert.is_true(secret.is(seen.headers.authorization))
    assert.is_true(secret.equals(seen.headers.AUTHORIZATION, "correct horse battery"))
  end)

  it("keeps a usable request id and makes one otherwise", function()
    local res = app:handle { path = "/", headers = { ["X-Request-Id"] = "abc-1.2_3" } }
    assert.same({ "abc-1.2_3", "abc-1.2_3" }, { seen.id, res.headers["x-request-id"] })
    for _, bad in ipairs { "", "a b", ("x"):rep(129), "a\r\nb", { "a", "b" } } do
      res = app:handle { path = "/", headers = { ["X-Request-Id"] = bad } }
      assert.truthy(res.headers["x-request-id"]:find("^%x+%-%x+$"))
    end
  end)

  it("encodes json=", function()
    app:post("/json", function(request)
      return { json = { need(request:json()).a, request.headers["content-type"] } }
    end)
    local res = app:handle { method = "POST", path = "/json", json = { a = 1 } }
    assert.same({ 1, "application/json" }, res:json())
  end)
end)

describe("web: results", function()
  local function answer(handler, method)
    local app = web.app()
    app:any("/", handler)
    return assert(app:handle { method = method, path = "/" })
  end

  it("takes a text, a table, json and an iterator", function()
    local res = answer(function() return "hi" end)
    assert.same({ 200, "hi" }, { res.status, res.body })
    assert.equal("text/plain; charset=utf-8", res.headers["content-type"])
    res = answer(function() return { status = 201, headers = { ["X-A"] = { "1", "2" } }, body = "b" } end)
    assert.same({ 201, "b", "1" }, { res.status, res.body, res.headers["x-a"] })
    res = answer(function() return { json = json.null } end)
    assert.same({ "null", "application/json" }, { res.body, res.headers["content-type"] })
    res = answer(function() return { json = {}, headers = { ["Content-Type"] = "application/x" } } end)
    assert.equal("application/x", res.headers["content-type"])
    local pieces = { "a", "", "b" }
    res = answer(function() return { body = function() return table.remove(pieces, 1) end } end)
    assert.equal("ab", res.body)
  end)

  it("closes an iterator once, read or not", function()
    local closed = 0
    local function streamed()
      local pieces = { "a", "b" }
      return {
        body = function() return table.remove(pieces, 1) end,
        close = function() closed = closed + 1 end,
      }
    end
    assert.equal("ab", answer(streamed).body)
    assert.equal(1, closed)
    answer(streamed):close()
    assert.equal(2, closed)
    answer(streamed, "HEAD")
    assert.equal(3, closed)
  end)

  it("gives an iterator's failure to the reader", function()
    local res = answer(function()
      return { body = function() error(errors.new("TruncatedStream", { message = "cut" }), 0) end }
    end)
    local piece, err = res:read()
    assert.is_nil(piece)
    assert.equal("TruncatedStream", err.kind)
  end)

  it("passes a response on, without what belongs to its connection", function()
    local upstream = web.app()
    upstream:get("/", function()
      return { status = 207, headers = { Connection = "x", ["X-Kept"] = "1" }, body = "from behind" }
    end)
    local res = answer(function() return upstream:handle { path = "/" } end)
    assert.same({ 207, "from behind", "1" }, { res.status, res.body, res.headers["x-kept"] })
    assert.is_nil(res.headers.connection)
  end)
end)

describe("web: failures", function()
  local logged, sink

  local function answer(handler)
    local app = web.app()
    app:any("/", handler)
    return assert(app:handle { method = "POST", path = "/", body = "{not json" })
  end

  before_each(function()
    logged, sink = {}, log.error
    log.error = function(message, fields) logged[#logged + 1] = { message, fields } end -- luacheck: ignore
  end)

  after_each(function()
    log.error = sink -- luacheck: ignore
  end)

  local CASES = {
    { "NotFound", 404 }, { "ResourceDoesNotExist", 404 }, { "TooManyRequests", 429 },
    { "RequestLimitExceeded", 429 }, { "Unauthenticated", 502, 401 }, { "PermissionDenied", 502, 403 },
    { "BadRequest", 502, 400 }, { "InternalError", 502, 500 }, { "ConnectError", 502 }, { "TLSError", 502 },
    { "TimeoutError", 504 }, { "ProtocolError", 502 }, { "JsonError", 400 }, { "JsonError", 502, 200 },
    { "OperationFailed", 500 },
  }

  it("turns errs into statuses, returned or raised", function()
    for _, case in ipairs(CASES) do
      local kind, status, upstream = table.unpack(case)
      local function err() return errors.new(kind, { message = "it broke", status = upstream }) end
      for _, handler in ipairs { function() return nil, err() end, function() error(err()) end } do
        local res = answer(handler)
        assert.equal(status, res.status, kind)
        assert.same({ error = { message = "it broke", type = kind } }, res:json())
      end
    end
  end)

  it("keeps Retry-After", function()
    local res = answer(function() return nil, errors.new("TooManyRequests", { retry_after = 1.2 }) end)
    assert.equal("2", res.headers["retry-after"])
  end)

  it("answers bad JSON with 400", function()
    local res = answer(function(request) return { json = need(request:json()) } end)
    assert.equal(400, res.status)
    assert.equal("JsonError", res:json().error.type)
  end)

  it("shows nothing of a program's fault, and logs it with its traceback", function()
    local res = answer(function() error("the secret plan") end)
    assert.equal(500, res.status)
    assert.falsy(res.body:find("plan", 1, true))
    assert.equal(1, #logged)
    assert.truthy(logged[1][2].error:find("the secret plan", 1, true))
    assert.truthy(logged[1][2].error:find("web_spec.lua", 1, true))
    assert.equal(res.headers["x-request-id"], logged[1][2].request_id)
  end)

  it("takes a handler that answers wrongly for a fault", function()
    for _, bad in ipairs { false, 1, { status = "200" }, { status = 99 }, { body = {} }, { json = print } } do
      assert.equal(500, answer(function() return bad end).status)
    end
    assert.equal(500, answer(function() end).status)
    assert.equal(7, #logged)
  end)

  it("shows a header that cannot be sent as a fault, as a socket would", function()
    for _, bad in ipairs {
      { ["X-A"] = "a\r\nX-B: c" }, { ["X A"] = "b" }, { [""] = "b" }, { x = {{}} }, { x = true },
      { x = "\127" },
    } do
      assert.equal(500, answer(function() return { headers = bad } end).status)
    end
    assert.equal(200, answer(function() return { headers = { ["!x-1"] = "\ta\xff", n = 1 } } end).status)
  end)

  it("is not made of the caller's own deadline", function()
    task.simulate(function()
      local app = web.app()
      app:get("/slow", function()
        task.sleep(10)
        return "late"
      end)
      app:get("/limited", function() return task.timeout(1, task.sleep, 10) end)
      local res, err = task.timeout(2, app.handle, app, { path = "/slow" })
      assert.is_nil(res)
      assert.equal("TimeoutError", err.kind)
      assert.equal(504, task.timeout(2, app.handle, app, { path = "/limited" }).status)
    end)
  end)

  it("lets cancellation through", function()
    local app = web.app()
    app:get("/", function() error(errors.new("TaskCancelled", {}), 0) end)
    local ok, err = pcall(app.handle, app, { path = "/" })
    assert.is_false(ok)
    assert.equal("TaskCancelled", err.kind)
  end)
end)

describe("web: middleware", function()
  it("wraps handlers and unknown paths, the first outermost", function()
    local app, order = web.app(), {}
    for _, name in ipairs { "outer", "inner" } do
      app:use(function(inner)
        return function(request)
          order[#order + 1] = name
          local res, err = inner(request)
          if res then res.headers["X-" .. name] = "1" end
          return res, err
        end
      end)
    end
    local shared = { status = 200, headers = { a = "b" }, body = "x" }
    app:get("/", function() return shared end)
    local res = app:handle { path = "/" }
    assert.same({ "outer", "inner" }, order)
    assert.same({ "1", "1", "b" }, { res.headers["x-outer"], res.headers["x-inner"], res.headers.a })
    assert.same({ a = "b" }, shared.headers)
    res = app:handle { path = "/x" }
    assert.same({ 404, "1" }, { res.status, res.headers["x-outer"] })
  end)

  it("may answer itself, and may catch", function()
    local app = web.app()
    app:use(function(inner)
      return function(request)
        if request.headers.authorization ~= "Bearer t" then return { status = 401 } end
        local ok, res = pcall(inner, request)
        return ok and res or { status = 418, body = "caught" }
      end
    end)
    app:get("/", function() error("boom") end)
    assert.equal(401, app:handle({ path = "/" }).status)
    assert.equal("caught", app:handle({ path = "/", headers = { authorization = "Bearer t" } }).body)
  end)
end)

describe("web: parts", function()
  local failure = require "sluice.web.failure"
  local requests = require "sluice.web.request"
  local result = require "sluice.web.result"
  local router = require "sluice.web.router"

  it("router decodes and reads queries", function()
    assert.equal("a b%", router.decode("a%20b%25"))
    assert.is_nil(router.decode("%"))
    assert.is_nil(router.decode("%%41"))
    assert.equal("\0", router.decode("%00"))
    assert.same({ { "a", "1=2" }, { "b", "" }, { "c d", "" } }, router.parse_query("a=1=2&&b&c+d="))
  end)

  it("router tells what is wrong with a pattern", function()
    local routes = router.new()
    assert.is_nil(routes:add("GET", "/a/:b", print))
    assert.truthy(routes:add("GET", "/a/:c", print):find("already", 1, true))
    assert.equal(print, routes:find("GET", "/a/x").handler)
    assert.is_nil((routes:find("GET", "/b")))
  end)

  it("router goes no deeper than its patterns, whatever the path", function()
    local routes = router.new()
    routes:add("GET", "/:a/:b/*", print)
    local _, params = routes:find("GET", ("/x"):rep(100000))
    assert.equal(#("x/"):rep(99998) - 1, #params["*"])
  end)

  it("failure keeps its table", function()
    assert.equal(413, failure.status_of(requests.too_large(1)))
    assert.equal(503, failure.status_of(errors.new "TaskCancelled"))
    local open = failure.result(errors.new("CircuitOpen", { retry_after = 7.2 }))
    assert.same({ 503, "8" }, { open.status, open.headers["retry-after"] })
    assert.equal(499, failure.status_of(errors.new "ClientGone"))
    assert.same({ error = { message = "m", type = "k" } }, failure.body("k", "m"))
    assert.equal(500, failure.result(errors.new "OperationFailed").status)
    assert.equal(503, failure.result(errors.new "QueueFull").status)
    local err = errors.new "NotFound"
    assert.equal(err, failure.trace(err))
    assert.matches("^boom\nstack traceback", failure.trace("boom").fault)
  end)

  it("result tells what is wrong with a header", function()
    assert.is_nil(result.wrong_header(nil))
    assert.is_nil(result.wrong_header { a = { "b", "c" } })
    assert.truthy(result.wrong_header({ a = { "b", "c\n" } }):find("header a ", 1, true))
  end)

  it("result opens headers for middleware", function()
    local open = result.open "text"
    assert.equal("text/plain; charset=utf-8", open.headers["Content-Type"])
  end)

  it("request comes from a client's table, of any kind of source", function()
    local request = requests.from_client({ url = "http://h/p?q=1" }, function() return "id" end, 10)
    assert.same({ "GET", "/p", "id", "1" }, { request.method, request.path, request.id, request.query.q })
    assert.equal("sluice.web.request: GET /p", tostring(request))
    local kind = requests.kind { text = function(source) return source.text end }
    assert.equal("t", requests.new("PUT", "/", "/", "id", { text = "t" }, kind).body)
  end)

  it("app runs a request of any kind", function()
    local app = web.app()
    app:get("/", function(request) return request.id end)
    local request = requests.from_client({ path = "/" }, function() return "mine" end, 10)
    assert.equal("mine", (select(3, app:run(request))))
    local write = log.set_output(function() end)
    assert.equal(500, (app:fault(request, "text")))
    log.set_output(write)
  end)
end)
