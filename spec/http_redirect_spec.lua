-- SPDX-License-Identifier: MIT
local helper = require "http_helper"
local http = require "sluice.http"
local meta = require "sluice.meta"
local redirect = require "sluice.redirect"
local secret = require "sluice.secret"
local task = require "sluice.task"

describe("sluice.http and redirects", function()
  local client, before, seen

  setup(function()
    pcall(http.request, { url = "http://127.0.0.1:1" })
  end)

  before_each(function()
    before = helper.descriptors()
    client = http.client()
    seen = {}
  end)

  after_each(function()
    client:close()
    helper.stop()
    helper.check_descriptors(before)
  end)

  -- Answers by path: a string leads there, by 302 or the number before it.
  local function serve(routes)
    return helper.serve_requests(function(head, body)
      local method, path = head:match "^(%u+) (%S+)"
      seen[#seen + 1] = { method = method, path = path, head = head, body = body }
      local to = routes[path]
      if not to then return helper.answer("here") end
      local status, where = to:match "^(%d+) (.*)$"
      return ("HTTP/1.1 %s Over There\r\nLocation: %s\r\nContent-Length: 5\r\n\r\n%s"):format(
        status or 302, where or to, method == "HEAD" and "" or "there")
    end)
  end

  local function refusal(given, code)
    local res, err = helper.ticking(client.request, client, given)
    assert.is_nil(res)
    assert.are.equal("ProtocolError", err.kind)
    assert.are.equal(code, err.code)
    assert.is_false(err.retryable)
    assert.is_number(err.response.status)
    assert.is_number(err.timing.total)
    assert.are.equal(0, client:stats().active)
    return tostring(err)
  end

  it("follows relative and absolute ones, over one connection", function()
    local routes = { ["/a/b?token=1"] = "c?x=1", ["/a/c?x=1"] = "/d" }
    local server = serve(routes)
    routes["/d"] = "301 " .. server.base .. "/e#part"
    local res = assert(client:request { url = server.base .. "/a/b?token=1" })
    assert.are.equal("here", res.body)
    assert.are.equal("/e", seen[4].path)
    assert.are.same({
      { status = 302, url = server.base .. "/a/c" },
      { status = 302, url = server.base .. "/d" },
      { status = 301, url = server.base .. "/e" },
    }, meta.get(res).redirects)
    assert.are.equal(1, server.accepted)
    assert(client:request { url = server.base .. "/d", method = "HEAD" })
    assert.are.equal("HEAD", seen[6].method)
  end)

  it("percent-encodes what a careless server wrote", function()
    local server = serve { ["/"] = "/a b\xC3\xA9" }
    assert(client:request { url = server.base })
    assert.are.equal("/a%20b%c3%a9", seen[2].path:lower())
  end)

  it("are left alone where nobody asked, and where there is nowhere to go", function()
    local server = serve { ["/"] = "/x", ["/m"] = "300 /x", ["/n"] = "304 /x" }
    assert.are.equal(302, client:request({ url = server.base, redirects = 0 }).status)
    assert.are.equal(302, client:request({ url = server.base, body = "x" }).status)
    assert.are.equal(302, client:handle({ url = server.base }).status)
    assert.are.equal(200, client:handle({ url = server.base, redirects = 1 }).status)
    assert.are.equal(300, client:request({ url = server.base .. "/m" }).status)
    assert.are.equal(304, client:request({ url = server.base .. "/n" }).status)
    local quiet <close> = http.client { redirects = 0 }
    assert.are.equal(302, quiet:request({ url = server.base }).status)
    local nowhere = helper.serve_bytes("HTTP/1.1 302 Found\r\nContent-Length: 0\r\n\r\n")
    assert.are.equal(302, client:request({ url = nowhere.base }).status)
    assert.has_error(function() client:request { url = server.base, redirects = -1 } end)
  end)

  it("change the method as RFC 9110 says", function()
    local expected = {
      { "POST", 301, "GET" }, { "POST", 302, "GET" }, { "POST", 303, "GET" }, { "POST", 307, "POST" },
      { "POST", 308, "POST" }, { "PUT", 301, "PUT" }, { "PUT", 303, "GET" }, { "DELETE", 302, "DELETE" },
      { "PATCH", 308, "PATCH" }, { "HEAD", 303, "HEAD" },
    }
    for _, case in ipairs(expected) do
      local method, status, after = table.unpack(case)
      seen = {}
      local server = serve { ["/"] = status .. " /x" }
      local given = { url = server.base, method = method, redirects = 3 }
      given.headers = { ["Content-Type"] = "a/b" }
      if method ~= "HEAD" then given.body = "bytes" end
      assert(client:request(given))
      assert.are.equal(after, seen[2].method)
      local keeps = after == method and method ~= "HEAD"
      assert.are.equal(keeps and "bytes" or "", seen[2].body)
      assert.are.equal(keeps or method == "HEAD", seen[2].head:find("a/b", 1, true) ~= nil)
    end
  end)

  it("take no credential to another origin, whatever its header is called", function()
    local other = serve {}
    local server = serve { ["/"] = other.base .. "/x", ["/same"] = "/y" }
    local given = {
      url = server.base:gsub("//", "//me:password@"),
      headers = {
        Authorization = "Bearer one", ["x-api-key"] = "two", Cookie = "three=3", ["X-Any-Thing"] = "four",
        ["Accept"] = secret.new "five", ["Accept-Language"] = "eo", ["User-Agent"] = "spec",
      },
    }
    assert(client:request(given))
    assert.is_truthy(seen[1].head:find("four", 1, true))
    local head = seen[2].head
    for _, gone in ipairs { "one", "two", "three", "four", "five", "Basic" } do
      assert.is_nil(head:find(gone, 1, true), gone)
    end
    assert.is_truthy(head:find("eo", 1, true) and head:find("spec", 1, true))
    given.url = server.base .. "/same"
    assert(client:request(given))
    assert.is_truthy(seen[4].head:find("Bearer one", 1, true))
  end)

  it("to another origin and back are without credentials too", function()
    local routes = {}
    local server, other = serve(routes), serve(routes)
    routes["/"], routes["/x"] = other.base .. "/x", server.base .. "/y"
    assert(client:request { url = server.base, headers = { ["x-api-key"] = "two" } })
    assert.are.equal("/y", seen[3].path)
    assert.is_nil(seen[3].head:find("two", 1, true))
  end)

  it("that never end are an error", function()
    local server = serve { ["/"] = "/b", ["/b"] = "/" }
    local text = refusal({ url = server.base }, "TOO_MANY_REDIRECTS")
    assert.is_truthy(text:find("more than 10 times", 1, true))
    assert.are.equal(11, #seen)
    refusal({ url = server.base, redirects = 3 }, "TOO_MANY_REDIRECTS")
    refusal({ url = server.base, redirects = 3, stream = true }, "TOO_MANY_REDIRECTS")
  end)

  it("lead to http and https only", function()
    for _, place in ipairs {
      "file:///etc/passwd", "FILE:/etc/passwd", "ftp://127.0.0.1/", "gopher://127.0.0.1/", "javascript:x",
      "data:text/plain,x", "http://", "http://[::1", "unix:/tmp/x", "http://a b/",
    } do
      local server = serve { ["/"] = place }
      local res, err = client:request { url = server.base }
      -- what is no URL with a scheme is a path for some readers: then it stays where it was
      if res then
        assert.are.equal(2, #seen, place)
      else
        assert.are.equal("REDIRECT_REFUSED", err.code, place)
      end
      assert.is_true(#seen <= 2)
      seen = {}
    end
    local server = serve { ["/"] = "file:///etc/passwd" }
    local text = refusal({ url = server.base }, "REDIRECT_REFUSED")
    assert.is_truthy(text:find("neither http nor https", 1, true), text)
  end)

  it("cannot send the body of an iterator again", function()
    local left = 1
    local function body()
      left = left - 1
      return left == 0 and "x" or nil
    end
    local server = helper.serve(function(connection)
      connection:read()
      connection:write("HTTP/1.1 307 There\r\nLocation: /\r\nContent-Length: 0\r\n\r\n")
      while connection:read() do end
    end)
    local given = { url = server.base, method = "PUT", body = body, redirects = 1 }
    local text = refusal(given, "BODY_IS_SPENT")
    assert.is_truthy(text:find("cannot be sent again", 1, true))
  end)

  it("leave https only where that is asked for", function()
    local hop = { method = "GET", url = "https://host.test/a?b", fields = { "X-Key", "1" } }
    local function none() return false end
    local following, code, text = redirect.follow(302, "http://host.test/", hop, none)
    assert.is_nil(following)
    assert.are.equal("REDIRECT_REFUSED", code)
    assert.is_truthy(text:find("from https to http", 1, true))
    hop.to_http = true
    following = assert(redirect.follow(302, "http://host.test/", hop, none))
    assert.are.same({ "http://host.test/", {} }, { following.url, following.fields })
    -- the default port is no other origin, another one is
    following = redirect.follow(302, "HTTPS://HOST.test:443/c", hop, none)
    assert.are.same({ "X-Key", "1" }, following.fields)
    following = redirect.follow(302, "//host.test:444/c", hop, none)
    assert.are.same({ "https://host.test:444/c", {} }, { following.url, following.fields })
  end)

  it("share the time limit of the request", function()
    local server = helper.serve_requests(function()
      task.sleep(0.02)
      return "HTTP/1.1 302 Found\r\nLocation: /\r\nContent-Length: 0\r\n\r\n"
    end)
    local started = task.now()
    local _, err = client:request { url = server.base, timeout = 0.05 }
    assert.are.equal("TimeoutError", err.kind)
    assert.are.equal("total", err.limit)
    assert.is_true(task.now() - started < 0.15)
  end)

  it("give a stream at their end", function()
    local server = serve { ["/"] = "/x" }
    local res <close> = assert(client:request { url = server.base, stream = true })
    assert.are.equal("here", res:text())
    assert.are.equal(1, #meta.get(res).redirects)
  end)
end)
