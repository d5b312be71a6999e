-- SPDX-License-Identifier: MIT
-- The web server over TLS: our own client, the openssl command, and clients that break the rules.
local describe = require("support").needing("server", describe, pending)

local fixture = require "server_fixture"
local http = require "sluice.http"
local raw = require "raw_http"
local support = require "support"
local task = require "sluice.task"

local need, eventually, get = fixture.need, fixture.eventually, fixture.get

-- A certificate for 127.0.0.1, its key, the same key with a pass phrase, and a key of nobody's.
local folder, files

local function shell(command)
  local result = support.shell(command)
  assert(result.status == 0, result.err)
end

local function make_files()
  folder = os.tmpname()
  os.remove(folder)
  files = {
    certificate = folder .. "/cert.pem", key = folder .. "/key.pem", other = folder .. "/other.pem",
    locked = folder .. "/locked.pem", junk = folder .. "/junk.pem", none = folder .. "/none.pem",
  }
  shell("mkdir " .. folder)
  local new_key = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes"
  shell(("openssl req -x509 %s -days 1 -subj /CN=spec -addext subjectAltName=IP:127.0.0.1 -keyout %s -out %s")
    :format(new_key, files.key, files.certificate))
  shell("openssl ecparam -name prime256v1 -genkey -noout -out " .. files.other)
  shell(("openssl ec -in %s -aes128 -passout pass:x -out %s"):format(files.key, files.locked))
  shell("echo junk >" .. files.junk)
end

describe("server: TLS", function()
  local before

  setup(make_files)
  teardown(function() shell("rm -r " .. folder) end)
  before_each(function() before = fixture.descriptors() end)
  after_each(function() assert.equal(before, fixture.descriptors()) end)

  -- f(server, client, state, app) on a server of its own
  local function with_tls(f, given, app_options)
    given = given or {}
    given.tls = { certificate = files.certificate, key = files.key }
    fixture.with_server(function(server, state, app)
      local client <close> = http.client { ca_file = files.certificate }
      f(server, client, state, app)
    end, app_options, given)
  end

  -- What `openssl s_client` says about a server: in a task's time, for the server is in this process.
  local function s_client(server, options, input)
    local log = os.tmpname()
    local command = "( { printf '%s'; sleep 0.2; } | timeout 10 openssl s_client -connect %s %s >%s 2>&1; "
      .. "echo >>%s end ) &"
    os.execute(command:format(input or "", server.address, options, log, log))
    local text
    assert.is_true(eventually(function()
      text = support.read_file(log)
      return text:find("\nend\n", 1, true) or text == "end\n"
    end))
    os.remove(log)
    return text
  end

  it("serves our own client, on one connection", function()
    with_tls(function(server, client)
      assert.truthy(server.url:find("^https://127%.0%.0%.1:%d+$"))
      for index = 1, 5 do
        local res = need(client:request { method = "POST", url = server.url .. "/p", body = "b" .. index })
        assert.same({ 200, "POST /p b" .. index }, { res.status, res.body })
      end
      assert.same({ 1, 0 }, { server:counts() })
    end)
  end)

  it("carries bodies of any size, both ways", function()
    with_tls(function(server, client, _, app)
      app:post("/echo", function(request) return need(request:text()) end)
      local body = ("0123456789abcdef"):rep(3 << 16)
      local res = need(client:request { method = "POST", url = server.url .. "/echo", body = body })
      assert.is_true(res.body == body)
    end)
  end)

  it("holds a client that sends too fast, and waits for one that reads too slowly", function()
    with_tls(function(server, client, _, app)
      local gate, made, pieces = task.channel(), 0, 300
      app:post("/slow", function(request)
        gate:receive()
        local size = 0
        for piece in request:chunks() do size = size + #piece end
        return { json = size }
      end)
      app:get("/endless", function()
        return { body = function()
          made = made + 1
          return made <= pieces and ("x"):rep(1 << 16) or nil
        end }
      end)
      local sent, total = 0, 7 << 20
      local posting = task.spawn(function()
        return client:request { method = "POST", url = server.url .. "/slow", body = function()
          if sent == total then return nil end
          sent = sent + (1 << 16)
          return ("x"):rep(1 << 16)
        end }
      end)
      local last
      repeat
        last = sent
        task.sleep(0.05)
      until sent == last and sent > 0
      assert.is_true(sent < total)
      gate:send(true)
      assert.equal(tostring(total), need(posting:join()).body)
      local res <close> = need(client:request { url = server.url .. "/endless", stream = true })
      repeat
        last = made
        task.sleep(0.05)
      until made == last and made > 0
      assert.is_true(made < pieces)
      local size = 0
      for piece in res:chunks() do size = size + #piece end
      assert.equal(pieces << 16, size)
    end)
  end)

  it("speaks TLS 1.2 and 1.3, nothing older, and HTTP/1.1 by ALPN", function()
    with_tls(function(server)
      for version, name in pairs { tls1_2 = "TLSv1.2", tls1_3 = "TLSv1.3" } do
        local said = s_client(server, ("-%s -alpn h2,http/1.1 -CAfile %s -verify_return_error -quiet -msg")
          :format(version, files.certificate), [[GET /it HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n]])
        assert.truthy(said:find("GET /it ", 1, true), name .. said)
      end
      local said = s_client(server, "-tls1_3 -alpn h2,http/1.1 -brief")
      assert.truthy(said:find("Protocol version: TLSv1.3", 1, true), said)
      said = s_client(server, "-alpn h2,http/1.1")
      assert.truthy(said:find("ALPN protocol: http/1.1", 1, true), said)
      said = s_client(server, "-alpn h2")
      assert.truthy(said:find("no application protocol", 1, true), said)
      said = s_client(server, "-tls1_1 -cipher ALL:@SECLEVEL=0")
      assert.truthy(said:find("protocol version", 1, true), said)
    end)
  end)

  it("says by close_notify that it is done, and by its lack that it is not", function()
    with_tls(function(server, _, _, app)
      local function cut_short()
        local first = true
        return function()
          if not first then error(require("sluice.errors").new("TruncatedStream"), 0) end
          first = false
          return "piece"
        end
      end
      app:get("/cut", function() return { body = cut_short() } end)
      app:get("/cut-stream", function() return { stream = cut_short() } end)
      local write = require("sluice.log").set_output(function() end)
      for path, notified in pairs { ["/whole"] = true, ["/cut"] = false, ["/cut-stream"] = false } do
        local said = s_client(server, "-tls1_2 -quiet -msg",
          "GET " .. path .. [[ HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n]])
        local found = said:find("<<< TLS 1.2, Alert [length 0002], warning close_notify", 1, true) ~= nil
        assert.equal(notified, found, said)
      end
      require("sluice.log").set_output(write)
    end)
  end)

  it("tells a client that speaks no TLS", function()
    with_tls(function(server, _, state)
      local c = need(raw.connect(server.address))
      c:write(get "/plain")
      local answer = c:answer()
      assert.same({ 400, "close" }, { answer.status, answer.headers.connection })
      assert.truthy(answer.body:find("this port speaks TLS", 1, true))
      assert.is_true(c:ended())
      c:close()
      for _, junk in ipairs {
        "\0\0\0\0\0\0\0", ("\xff"):rep(1000), "\x16\x03\x01\xff\xff" .. ("x"):rep(70000),
      } do
        c = need(raw.connect(server.address))
        c:write(junk)
        c:rest()
        c:close()
      end
      assert.is_true(eventually(function() return server:counts() == 0 end))
      assert.equal(0, state.hits)
    end)
  end)

  it("ends a handshake that does not get on", function()
    with_tls(function(server)
      local silent <close> = need(raw.connect(server.address))
      local begun <close> = need(raw.connect(server.address))
      begun:write("\x16\x03\x01\x02\x00\x01\x00\x01\xfc")
      local left = need(raw.connect(server.address))
      left:write("\x16\x03\x01")
      left:close()
      silent:rest()
      begun:rest()
      assert.is_true(eventually(function() return server:counts() == 0 end))
    end, { timeout = { head = 0.1 } })
  end)

  it("cancels the handler of a client that leaves", function()
    with_tls(function(server, client, state)
      local asking = task.group()
      asking:spawn(client.request, client, { url = server.url .. "/wait" })
      assert.is_true(eventually(function() return state.running == 1 end))
      asking:close()
      assert.is_true(eventually(function() return state.running == 0 end))
      assert.equal("TaskCancelled", state.reason.kind)
    end)
  end)

  it("ends a client that does not read", function()
    with_tls(function(server, client, _, app)
      local closed = 0
      app:get("/flood", function()
        return { body = function() return ("x"):rep(1 << 16) end, close = function() closed = closed + 1 end }
      end)
      local res <close> = need(client:request { url = server.url .. "/flood", stream = true })
      assert.equal(200, res.status)
      assert.is_true(eventually(function() return closed == 1 end))
    end, { timeout = { stall = 0.2 } })
  end)

  it("drains", function()
    with_tls(function(server, client, _, app)
      local gate = task.channel()
      app:get("/gate", function()
        gate:receive()
        return "done"
      end)
      local asking = task.spawn(client.request, client, { url = server.url .. "/gate" })
      assert.is_true(eventually(function() return select(2, server:counts()) == 1 end))
      local stopping = task.spawn(function() server:stop(5) end)
      task.sleep(0.01)
      gate:send(true)
      assert.equal("done", need(asking:join()).body)
      stopping:join()
    end)
  end)

  it("says what is wrong with the files", function()
    local app = fixture.new_app()
    for _, case in ipairs {
      { files.none, files.key, "certificate .*none.pem: No such file" },
      { files.junk, files.key, "certificate .*junk.pem: no start line" },
      { files.certificate, files.none, "key .*none.pem: No such file" },
      { files.certificate, files.other, "key .*other.pem: key values mismatch" },
      { files.certificate, files.locked, "key .*locked.pem: .*" },
      { files.certificate, files.certificate, "key .*cert.pem: .*" },
      { folder, files.key, "certificate .*" },
    } do
      local server, err = app:listen("127.0.0.1:0", { tls = { certificate = case[1], key = case[2] } })
      assert.is_nil(server)
      assert.equal("TLSError", err.kind)
      assert.truthy(tostring(err):find(case[3]), tostring(err))
    end
    assert.has_error(function() app:listen("127.0.0.1:0", { tls = {} }) end)
    assert.has_error(function() app:listen("127.0.0.1:0", { tls = { certificate = files.certificate } }) end)
    assert.has_error(function() app:listen("127.0.0.1:0", { tls = { cert = "x", key = "y" } }) end)
    assert.has_error(function() app:listen("127.0.0.1:0", { tls = true }) end)
  end)
end)
