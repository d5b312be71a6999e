-- SPDX-License-Identifier: MIT
local helper = require "http_helper"
local http = require "sluice.http"
local meta = require "sluice.meta"

-- A certificate of its own for one host, and `openssl s_server` behind it on a free port.
local function start(name)
  local server = { key = os.tmpname(), cert = os.tmpname(), log = os.tmpname() }
  local make = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 1 "
    .. "-subj /CN=spec -addext subjectAltName=%s -keyout %s -out %s 2>%s"
  assert(os.execute(make:format(name, server.key, server.cert, server.log)))
  local run = "exec openssl s_server -accept 127.0.0.1:0 -www -cert %s -key %s >%s 2>&1 & echo $!"
  local started <close> = io.popen(run:format(server.cert, server.key, server.log))
  server.pid = started:read("n")
  helper.wait_until(function()
    for line in io.lines(server.log) do
      server.port = line:match("^ACCEPT .*:(%d+)") or server.port
    end
    return server.port
  end)
  server.url = "https://127.0.0.1:" .. server.port .. "/"
  return server
end

local function stop(server)
  os.execute("kill " .. server.pid)
  for _, file in ipairs { server.key, server.cert, server.log } do os.remove(file) end
end

describe("sluice.http over TLS", function()
  local right, wrong, client, before

  setup(function()
    right, wrong = start "IP:127.0.0.1", start "DNS:elsewhere.test"
  end)

  teardown(function()
    stop(right)
    stop(wrong)
  end)

  before_each(function()
    before = helper.descriptors()
    client = http.client()
  end)

  after_each(function()
    client:close()
    helper.stop()
    helper.check_descriptors(before)
  end)

  local function failure(given)
    local res, err = helper.ticking(client.request, client, given)
    assert.is_nil(res)
    assert.are.equal("TLSError", err.kind)
    assert.are.equal("tls", err.phase)
    assert.is_false(err.retryable)
    assert.is_false(err.maybe_executed)
    return tostring(err)
  end

  it("trusts the authorities it is given", function()
    local res = assert(helper.ticking(client.request, client, { url = right.url, ca_file = right.cert }))
    assert.are.equal(200, res.status)
    local timing = meta.get(res).timing
    assert.is_true(timing.tls > 0 and timing.connect > 0)
    local trusting <close> = http.client { ca_file = right.cert }
    assert.are.equal(200, trusting:request({ url = right.url }).status)
  end)

  it("refuses a certificate that no authority has signed", function()
    local text = failure { url = right.url }
    assert.is_truthy(text:find("GET " .. right.url .. ": SSL certificate problem: self", 1, true), text)
    -- what was set for one request does not hold for the next
    assert(client:request { url = right.url, ca_file = right.cert })
    failure { url = right.url }
    assert(client:request { url = right.url, verify = false })
    failure { url = right.url }
  end)

  it("refuses a certificate for another host", function()
    local text = failure { url = wrong.url, ca_file = wrong.cert }
    assert.is_truthy(text:find("127.0.0.1", 1, true), text)
  end)

  it("asks nothing where verify is false", function()
    assert.are.equal(200, client:request({ url = wrong.url, verify = false }).status)
    local careless <close> = http.client { verify = false }
    assert.are.equal(200, careless:request({ url = wrong.url }).status)
    local res, err = careless:request { url = wrong.url, verify = true }
    assert.is_nil(res)
    assert.are.equal("TLSError", err.kind)
  end)

  it("says when the authorities cannot be read", function()
    failure { url = right.url, ca_file = "/nonexistent/ca.pem" }
  end)

  it("says when the other end does not speak TLS", function()
    local server = helper.serve_bytes("HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
    failure { url = "https://127.0.0.1:" .. server.port .. "/" }
  end)

  it("counts the handshake as connecting", function()
    local server = helper.serve(function(connection) while connection:read() do end end)
    local given = { url = "https://127.0.0.1:" .. server.port .. "/", timeout = { connect = 0.05 } }
    local res, err = client:request(given)
    assert.is_nil(res)
    assert.are.equal("TimeoutError", err.kind)
    assert.are.equal("connect", err.limit)
  end)
end)
