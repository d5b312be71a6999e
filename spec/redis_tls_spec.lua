-- SPDX-License-Identifier: MIT
-- The Redis client over TLS, against a real server: certificates that fit and those that do not.
local describe = require("support").needing("redis", describe, pending)

local fixture = require "redis_server"
local sluice = require "sluice"
local support = require "support"
local task = require "sluice.task"

describe("sluice.redis over TLS", function()
  local redis, server, folder, files

  local function shell(command)
    local result = support.shell(command)
    assert(result.status == 0, result.err)
  end

  local function make_certificate(name, subject)
    local options = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 1 -subj /CN=spec"
    shell(("openssl req -x509 %s -addext subjectAltName=%s -keyout %s/%s.key -out %s/%s.pem")
      :format(options, subject, folder, name, folder, name))
  end

  local function start(name, words)
    local options = "--tls-cert-file %s/%s.pem --tls-key-file %s/%s.key --tls-ca-cert-file %s/client.pem %s"
    return fixture.start(options:format(folder, name, folder, name, folder, words), { tls = true })
  end

  local function url_of(which)
    return "rediss://127.0.0.1:" .. which.port
  end

  setup(function()
    redis = sluice.redis
    folder = os.tmpname()
    os.remove(folder)
    shell("mkdir " .. folder)
    make_certificate("server", "IP:127.0.0.1,DNS:redis.test")
    make_certificate("client", "DNS:client.test")
    files = { ca = folder .. "/server.pem", cert = folder .. "/client.pem", key = folder .. "/client.key" }
    server = start("server", "--tls-auth-clients optional --requirepass a-long-password")
  end)
  teardown(function()
    server:stop()
    shell("rm -r " .. folder)
  end)

  local function connect(given)
    given.url = given.url or url_of(server)
    given.password = "a-long-password"
    return redis.connect(given)
  end

  local function failing(client)
    local value, err = client:ping()
    assert.is_nil(value)
    client:close()
    return err
  end

  it("checks the certificate, and sends large values both ways", function()
    local client <close> = connect { ca_file = files.ca }
    assert.equal("PONG", client:ping())
    local large = ("0123456789abcdef"):rep(1 << 17)
    assert.equal("OK", client:set("large", large))
    local tasks = {}
    for index = 1, 8 do
      tasks[index] = task.spawn(function() return client:get "large" == large and client:echo(index) end)
    end
    for index = 1, 8 do assert.equal(tostring(index), tasks[index]:join()) end
    assert.is_nil(client:blpop("none", 0.01))
  end)

  it("takes no certificate of somebody else", function()
    local err = failing(connect {}) -- Debian's authorities do not know it
    assert.equal("TLSError", err.kind)
    assert.matches("self.signed certificate", err.message)
    assert.is_false(err.maybe_executed)
    err = failing(connect { ca_file = files.ca, server_name = "elsewhere.test" })
    assert.same({ "TLSError", "tls: hostname mismatch" }, { err.kind, err.message:lower() })
    local named <close> = connect { ca_file = files.ca, server_name = "redis.test" }
    assert.equal("PONG", named:ping())
    local blind <close> = connect { verify = false }
    assert.equal("PONG", blind:ping())
  end)

  it("shows a certificate of its own", function()
    local strict <close> = start("server", "--tls-auth-clients yes --requirepass a-long-password")
    local client <close> = connect {
      url = url_of(strict), ca_file = files.ca, cert = files.cert, key = files.key,
    }
    assert.equal("PONG", client:ping())
    local bare = connect { url = url_of(strict), ca_file = files.ca }
    local err = failing(bare)
    assert.is_true(err:is "TLSError" or err:is "ConnectError")
    assert.has_error(function() connect { cert = files.cert } end)
  end)

  it("says which file cannot be read", function()
    local err = failing(connect { ca_file = folder .. "/none.pem" })
    assert.same({ "TLSError", false }, { err.kind, err.retryable })
    assert.matches("the authorities .*/none.pem: No such file or directory", err.message)
    err = failing(connect { ca_file = files.ca, cert = files.cert, key = files.ca })
    assert.matches("^the key ", err.message)
  end)

  it("tells a server that speaks no TLS, and one that is silent", function()
    local plain <close> = fixture.start()
    local deaf = failing(connect { url = url_of(plain), ca_file = files.ca, connect_timeout = 0.2 })
    assert.is_true(deaf.kind == "TLSError" or deaf.limit == "connect") -- it waits for the end of a line
    local loud <close> = fixture.fake(function(peer) peer:write "-ERR speak plainly\r\n" end)
    assert.equal("TLSError",
      failing(connect { url = "rediss://127.0.0.1:" .. loud.listener.port, ca_file = files.ca }).kind)
    local silent <close> = fixture.fake(function() task.sleep(60) end)
    local err = failing(connect {
      url = "rediss://127.0.0.1:" .. silent.listener.port, ca_file = files.ca, connect_timeout = 0.1,
    })
    assert.same({ "TimeoutError", "connect" }, { err.kind, err.limit })
    assert.matches("at the TLS handshake", err.message)
    local backwards <close> = redis.connect { url = "redis://127.0.0.1:" .. server.port, timeout = 1 }
    assert.is_nil((backwards:ping()))
  end)

  it("comes back after the server did", function()
    local client <close> = connect { ca_file = files.ca }
    client:ping()
    server:kill()
    server:boot()
    assert.equal("PONG", client:ping())
  end)
end)
