-- SPDX-License-Identifier: MIT
-- What more connections cost the HTTP client: many at once to one host, and new ones with TLS.

local chat = require "chat_body"
local http = require "sluice.http"
local nginx = require "nginx"
local process = require "process"
local task = require "sluice.task"

local function open_many(concurrency)
  return function(bench)
    if nginx.missing() then return { { name = "sluice", missing = nginx.missing() } } end
    local server = nginx.start(bench, chat.answer)
    local function client(name, count)
      local words = { bench.binary, bench.here .. "chat_client.lua", server.url, count, bench.seconds }
      return { name = name, run = function() return process.measure(words) end }
    end
    return {
      client("sluice", concurrency), client("c = 64", 64),
      close = function() server:stop() end,
    }
  end
end

local function many(concurrency)
  local name = ("chats, c = %d"):format(concurrency)
  return {
    name = name,
    open = open_many(concurrency),
    -- at most 2.5 times what a request costs when there are 64
    rows = {
      {
        key = "cpu", label = name .. ", processor time", unit = "us", digits = 1, better = "less",
        ratios = { ["c = 64"] = 0.4 },
      },
    },
  }
end

local function wait_for(url)
  for _ = 1, 100 do
    if http.request { url = url, verify = false, timeout = 1 } then return end
    task.sleep(0.02)
  end
  error(url .. " does not answer", 0)
end

local function open_tls(bench)
  if not process.find "openssl" or not process.find "setpriv" then
    return { { name = "sluice", missing = "openssl is not installed" } }
  end
  local key, certificate = bench.folder .. "/key.pem", bench.folder .. "/cert.pem"
  assert(process.succeeds {
    "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
    "-days", "1", "-subj", "/CN=bench", "-addext", "subjectAltName=IP:127.0.0.1",
    "-keyout", key, "-out", certificate,
  }, "no certificate")
  local port = process.free_port()
  local server = process.serve({
    "openssl", "s_server", "-accept", "127.0.0.1:" .. port, "-www", "-cert", certificate, "-key", key,
  }, bench.folder .. "/openssl.log")
  local url = ("https://127.0.0.1:%s/"):format(port)
  wait_for(url)
  local words = { bench.binary, bench.here .. "tls_client.lua", url, certificate, "200" }
  return {
    { name = "sluice", run = function() return process.measure(words) end },
    close = function() server:stop() end,
  }
end

return {
  many(1000),
  many(4000),
  {
    name = "new TLS connections",
    open = open_tls,
    rows = {
      { key = "cpu", label = "a new TLS connection", unit = "ms", digits = 2, better = "less", bar = 2 },
    },
  },
}
