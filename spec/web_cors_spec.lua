-- SPDX-License-Identifier: MIT
-- Pages of other origins: preflights, allowed and other origins, failures.

local cors = require "sluice.web.cors"
local errors = require "sluice.errors"
local web = require "sluice.web"

local A <const>, B <const> = "https://a.example", "https://b.example"

local function app_with(given)
  local app = web.app()
  app:use(web.cors(given))
  app:post("/chat", function() return { json = true, headers = { vary = "Accept" } } end)
  app:get("/fails", function() return nil, errors.new("TooManyRequests") end)
  app:get("/stream", function() return { stream = { next = function() end, close = function() end } } end)
  return app
end

local function call(app, method, path, origin, fields)
  fields = fields or {}
  fields.origin = origin
  return assert(app:handle { method = method, path = path, headers = fields })
end

local function preflight(app, origin)
  return call(app, "OPTIONS", "/chat", origin, {
    ["access-control-request-method"] = "POST", ["access-control-request-headers"] = "content-type, x-a",
  })
end

describe("web.cors", function()
  it("answers preflights", function()
    local res = preflight(app_with { origins = { A } }, A)
    assert.same({ 204, A, "GET, HEAD, POST, PUT, PATCH, DELETE", "content-type, x-a", "600", "Origin" }, {
      res.status, res.headers["access-control-allow-origin"], res.headers["access-control-allow-methods"],
      res.headers["access-control-allow-headers"], res.headers["access-control-max-age"], res.headers.vary,
    })
    local app = app_with { origins = { A }, methods = { "POST" }, headers = { "X-B", "X-C" }, max_age = 5 }
    res = preflight(app, A)
    assert.same({ "POST", "X-B, X-C", "5" }, {
      res.headers["access-control-allow-methods"], res.headers["access-control-allow-headers"],
      res.headers["access-control-max-age"],
    })
  end)

  it("lets other origins know nothing", function()
    local app = app_with { origins = { A } }
    local res = preflight(app, B)
    assert.same({ 204, "OPTIONS, POST", nil, "Origin" },
      { res.status, res.headers.allow, res.headers["access-control-allow-origin"], res.headers.vary })
    res = call(app, "POST", "/chat", B)
    assert.same({ 200, nil, "Accept, Origin" },
      { res.status, res.headers["access-control-allow-origin"], res.headers.vary })
    res = call(app, "POST", "/chat")
    assert.same({ 200, nil }, { res.status, res.headers["access-control-allow-origin"] })
  end)

  it("marks every answer, failures and streams too", function()
    local app = app_with { origins = { A }, credentials = true, expose = { "X-Request-Id" } }
    for _, case in ipairs {
      { "POST", "/chat", 200 }, { "GET", "/fails", 429 }, { "GET", "/none", 404 }, { "GET", "/chat", 405 },
      { "GET", "/stream", 200 },
    } do
      local res = call(app, case[1], case[2], A)
      assert.same({ case[3], A, "true", "X-Request-Id" }, {
        res.status, res.headers["access-control-allow-origin"],
        res.headers["access-control-allow-credentials"], res.headers["access-control-expose-headers"],
      })
    end
  end)

  it("takes any origin, or asks a function", function()
    local res = call(app_with { origins = "*" }, "POST", "/chat", B)
    assert.same({ "*", "Accept" }, { res.headers["access-control-allow-origin"], res.headers.vary })
    local app = app_with { origins = function(origin) return origin:find("b%.example$") ~= nil end }
    assert.equal(B, call(app, "POST", "/chat", B).headers["access-control-allow-origin"])
    assert.is_nil(call(app, "POST", "/chat", A).headers["access-control-allow-origin"])
  end)

  it("refuses what browsers would", function()
    assert.has_error(function() web.cors { origins = "*", credentials = true } end)
    local ok, message = pcall(cors.new, {})
    assert.is_false(ok)
    assert.matches('"origins" is missing', message)
    ok, message = pcall(web.cors, { origin = "*" })
    assert.is_false(ok)
    assert.matches('did you mean "origins"', message)
    assert.is_false(pcall(web.cors, { origins = 5 }))
  end)

  it("stands on request:add_answer_headers, which other middleware may use", function()
    local app = web.app()
    app:use(function(inner)
      return function(request)
        request:add_answer_headers { ["X-Limit"] = "5", ["X-Own"] = "theirs" }
        return inner(request)
      end
    end)
    app:get("/", function() return { headers = { ["x-own"] = "mine" }, body = "x" } end)
    local res = app:handle { path = "/" }
    assert.same({ "5", "mine" }, { res.headers["x-limit"], res.headers["x-own"] })
  end)
end)
