-- SPDX-License-Identifier: MIT
-- What a client is made with: proxies, unix sockets, certificates, HTTP/2, a limit of those who wait.
local helper = require "http_helper"
local http = require "sluice.http"
local secret = require "sluice.secret"
local settings = require "sluice.settings"
local support = require "support"
local task = require "sluice.task"
local web = require "sluice.web"

local PROXIES = {
  "http_proxy", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY", "no_proxy", "NO_PROXY",
}

describe("http.client", function()
  local before, closing

  setup(function()
    pcall(http.request, { url = "http://127.0.0.1:1" })
  end)

  before_each(function()
    before = helper.descriptors()
    closing = {}
    for _, name in ipairs(PROXIES) do settings.set { [name] = false } end
  end)

  after_each(function()
    for _, each in ipairs(closing) do each:close() end
    helper.stop()
    helper.check_descriptors(before)
  end)

  teardown(function()
    for _, name in ipairs(PROXIES) do settings.set { [name] = "" } end
  end)

  -- A server of names that is not there: TCP is refused at once.
  local NO_NAMES = "127.0.0.1:1"

  local function client_of(options)
    options.dns_over_tcp = options.dns_servers ~= nil
    local client = http.client(options)
    closing[#closing + 1] = client
    return client
  end

  describe("with a proxy", function()
    local heads

    local function serve_proxy()
      heads = {}
      return helper.serve_requests(function(head)
        heads[#heads + 1] = head
        if head:find "^CONNECT" then return "HTTP/1.1 407 Who Are You\r\nContent-Length: 0\r\n\r\n" end
        return helper.answer("by proxy")
      end)
    end

    it("asks it for the whole URL, and resolves no name itself", function()
      local proxy = serve_proxy()
      local client = client_of { proxy = proxy.base, dns_servers = NO_NAMES }
      local res = assert(helper.ticking(client.request, client, { url = "http://name.invalid/a?b" }))
      assert.are.equal("by proxy", res.body)
      assert.is_truthy(heads[1]:find("^GET http://name%.invalid/a%?b HTTP/1%.1\r\nHost: name%.invalid\r\n"))
      assert(client:request { url = "http://other.invalid/" })
      assert.are.equal(1, proxy.accepted)
    end)

    it("resolves the proxy's name on the loop", function()
      local proxy = serve_proxy()
      local client = client_of { proxy = "http://name.invalid:" .. proxy.port, dns_servers = NO_NAMES }
      local given = { url = "http://127.0.0.1/", timeout = { connect = 0.5 } }
      local res, err = helper.ticking(client.request, client, given)
      assert.is_nil(res)
      assert.are.equal("resolve", err.phase)
      local named = client_of { proxy = "localhost:" .. proxy.port }
      assert.are.equal("by proxy", named:request({ url = "http://name.invalid" }).body)
    end)

    it("gives password and headers to whom they are for", function()
      local proxy = serve_proxy()
      local client = client_of { proxy = secret.new("http://me:pass@127.0.0.1:" .. proxy.port) }
      assert(client:request { url = "http://name.invalid/", headers = { Authorization = "Bearer one" } })
      assert.is_truthy(heads[1]:find("\r\nProxy-Authorization: Basic bWU6cGFzcw==\r\n", 1, true))
      local _, err = client:request { url = "https://name.invalid/", headers = { ["x-api-key"] = "two" } }
      assert.is_truthy(heads[2]:find("^CONNECT name%.invalid:443 HTTP"))
      assert.is_nil(heads[2]:find("two", 1, true))
      assert.are.equal("ConnectError", err.kind)
      assert.is_truthy(err.message:find("407", 1, true), err.message)
      assert.is_falsy(err.maybe_executed)
    end)

    it("goes straight to those that need none", function()
      local proxy = serve_proxy()
      local server = helper.serve_requests(function() return helper.answer("straight") end)
      local function body(no_proxy)
        return client_of({ proxy = proxy.base, no_proxy = no_proxy }):request({ url = server.base }).body
      end
      assert.are.equal("by proxy", body "name.test, 127.0.0.2, 10.0.0.0/8")
      assert.are.equal("by proxy", body "7.0.0.1,")
      for _, list in ipairs { "*", "127.0.0.1", "name.test,127.0.0.0/8", "x 127.0.0.1" } do
        assert.are.equal("straight", body(list), list)
      end
      local named = client_of { proxy = proxy.base, no_proxy = ".test,.domain", dns_servers = NO_NAMES }
      assert.are.equal("by proxy", named:request({ url = "http://atest/" }).body)
      assert.are.equal("resolve", select(2, named:request({ url = "http://a.test/" })).phase)
    end)

    it("takes it from the environment, unless told otherwise", function()
      local proxy = serve_proxy()
      local server = helper.serve_requests(function() return helper.answer("straight") end)
      local function body(options)
        options.dns_servers = NO_NAMES
        local res, err = client_of(options):request { url = "http://name.invalid/" }
        return res and res.body or err.phase
      end
      settings.set { http_proxy = "127.0.0.1:" .. proxy.port }
      assert.are.equal("by proxy", body {})
      assert.are.equal("resolve", body { proxy = false })
      assert.are.equal("resolve", body { no_proxy = "invalid" })
      -- never for what is on this machine
      for _, host in ipairs { "127.0.0.1", "localhost" } do
        local res = assert(client_of({}):request { url = ("http://%s:%d/"):format(host, server.port) })
        assert.are.equal("straight", res.body)
      end
      settings.set { no_proxy = ".invalid" }
      assert.are.equal("resolve", body {})
      settings.set { http_proxy = false, no_proxy = false, HTTPS_PROXY = proxy.base }
      assert.are.equal("resolve", body {})
      settings.set { HTTPS_PROXY = false, ALL_PROXY = proxy.base }
      assert.are.equal("by proxy", body {})
    end)

    it("says what is wrong with it", function()
      for _, wrong in ipairs { "ftp://host", "http://", "socks5://host", "http://a b" } do
        local ok, message = pcall(http.client, { proxy = wrong })
        assert.is_false(ok)
        assert.is_truthy(message:find("proxy", 1, true), message)
      end
      assert.has_error(function() http.client { proxy = 1 } end)
    end)
  end)

  it("speaks by a unix socket", function()
    if not support.has "server" then return pending "this build has no server" end
    local path = os.tmpname()
    os.remove(path)
    local app = web.app()
    app:get("/a", function(request) return { status = 200, body = "by " .. request.headers.host } end)
    local server = assert(app:listen("unix:" .. path))
    local client = client_of { unix = path, dns_servers = NO_NAMES }
    for _ = 1, 3 do
      assert.are.equal("by name.invalid", client:request({ url = "http://name.invalid/a" }).body)
    end
    assert.are.equal(1, client:stats().open)
    client:close()
    server:stop(0)
    local res, err = client_of({ unix = path }):request { url = "http://name.invalid/" }
    assert.is_nil(res)
    assert.are.equal("ConnectError", err.kind)
  end)

  it("turns away those that would wait too many", function()
    local server = helper.serve_requests(function()
      task.sleep(0.01)
      return helper.answer("ok")
    end)
    local client = client_of { max_connections = 1, max_waiting = 2 }
    local full, served = 0, 0
    task.scope(function()
      for _ = 1, 5 do
        task.spawn(function()
          local res, err = client:request { url = server.base }
          if res then
            served = served + 1
          else
            full = full + 1
            assert.are.equal("QueueFull", err.kind)
            assert.are.equal("queue", err.phase)
            assert.is_true(err.retryable)
            assert.is_falsy(err.maybe_executed)
            assert.is_true(err.timing.total < 0.005)
          end
        end)
      end
    end)
    assert.are.same({ 2, 3 }, { full, served })
    assert.are.same({ 0, 0 }, { client:stats().waiting, client:stats().active })
    assert(client:request { url = server.base })
  end)

  -- A server of Node's, as a child: what it prints first is its port.
  local function node(script)
    if not os.execute "command -v node >/dev/null" then return nil end
    local folder = support.shell("mktemp -d").out:gsub("%s+$", "")
    local make = "cd %s && touch out && openssl req -x509 -newkey ec -nodes -days 1 "
      .. "-pkeyopt ec_paramgen_curve:prime256v1 -subj /CN=spec "
      .. "-addext subjectAltName=IP:127.0.0.1 -keyout key.pem -out cert.pem 2>/dev/null"
    assert(os.execute(make:format(folder)))
    local file = assert(io.open(folder .. "/server.cjs", "w"))
    file:write(script)
    file:close()
    local run = "cd %s && exec node server.cjs >out 2>err & echo $!"
    local started <close> = io.popen(run:format(folder))
    local child = { pid = started:read "n", cert = folder .. "/cert.pem", key = folder .. "/key.pem" }
    helper.wait_until(function()
      child.url = support.read_file(folder .. "/out"):match "%d+"
      return child.url
    end)
    child.url = "https://127.0.0.1:" .. child.url .. "/"
    function child:close()
      os.execute(("kill %d; rm -rf %s"):format(self.pid, folder))
    end
    closing[#closing + 1] = child
    return child
  end

  it("shows a certificate to a server that asks", function()
    local server = node [[
      const fs = require("fs"), tls = { key: fs.readFileSync("key.pem"), cert: fs.readFileSync("cert.pem") };
      Object.assign(tls, { ca: tls.cert, requestCert: true, rejectUnauthorized: true });
      const server = require("https").createServer(tls, (request, response) =>
        response.end(request.socket.getPeerCertificate().subject.CN));
      server.listen(0, "127.0.0.1", () => console.log(server.address().port));
    ]]
    if not server then return pending "node is not installed" end
    local client = client_of { ca_file = server.cert, cert = server.cert, key = server.key }
    assert.are.equal("spec", client:request({ url = server.url }).body)
    -- this one speaks HTTP/1 alone: each of these gets its own connection in the end
    local hopeful = client_of { ca_file = server.cert, cert = server.cert, key = server.key, http2 = true }
    task.scope(function()
      for _ = 1, 20 do
        task.spawn(function() assert.are.equal(200, hopeful:request({ url = server.url }).status) end)
      end
    end)
    local res, err = client_of({ ca_file = server.cert }):request { url = server.url }
    assert.is_nil(res)
    assert.is_true(err.kind == "TLSError" or err.kind == "ConnectError", tostring(err))
    res, err = client_of({ cert = "/nonexistent.pem" }):request { url = server.url }
    assert.is_nil(res)
    assert.are.equal("TLSError", err.kind)
  end)

  it("speaks HTTP/2 where it is asked to, some streams a connection", function()
    local server = node [[
      const fs = require("fs");
      const tls = { key: fs.readFileSync("key.pem"), cert: fs.readFileSync("cert.pem") };
      let sessions = 0, resets = 0;
      Object.assign(tls, { allowHTTP1: true });
      const server = require("http2").createSecureServer(tls, (request, response) => {
        if (request.url == "/hang") {
          request.on("aborted", () => resets++);
          return;
        }
        setTimeout(() => {
          response.setHeader("content-type", "text/plain");
          response.end([request.httpVersion, sessions, resets].join(" "));
        }, 20);
      });
      server.on("session", () => sessions++);
      server.listen(0, "127.0.0.1", () => console.log(server.address().port));
    ]]
    if not server then return pending "node is not installed" end
    assert.is_truthy(client_of({ ca_file = server.cert }):request({ url = server.url }).body:find "^1%.1")
    local client = client_of { ca_file = server.cert, http2 = true }
    local res = assert(helper.ticking(client.request, client, { url = server.url }))
    assert.are.equal("2.0 1 0", res.body)
    assert.are.equal("text/plain", res.headers["content-type"])
    task.scope(function()
      for _ = 1, 24 do
        task.spawn(function()
          assert.are.equal(200, client:request({ url = server.url, body = "x" }).status)
        end)
      end
    end)
    local sessions = tonumber(client:request({ url = server.url }).body:match " (%d+) ")
    assert.is_true(sessions >= 3 and sessions <= 4, sessions .. " sessions")
    local waiting = task.spawn(pcall, client.request, client, { url = server.url .. "hang" })
    task.sleep(0.02)
    waiting:cancel()
    task.sleep(0.02)
    assert.are.equal(("2.0 %d 1"):format(sessions), client:request({ url = server.url }).body)
  end)

  it("never speaks HTTP/2 without TLS", function()
    local head
    local server = helper.serve_requests(function(received)
      head = received
      return helper.answer("ok")
    end)
    assert(client_of({ http2 = true }):request { url = server.base })
    assert.is_truthy(head:find "^GET / HTTP/1%.1\r\n")
    assert.is_nil(head:lower():find("upgrade", 1, true))
  end)
end)
