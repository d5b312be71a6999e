-- SPDX-License-Identifier: MIT
local helper = require "http_helper"
local http = require "sluice.http"
local support = require "support"
local task = require "sluice.task"

-- What a program makes of these bytes; nil where it is not there.
local function packed(command, bytes)
  return support.with_file(bytes, function(path)
    local made = support.shell(command .. " <" .. support.quote(path))
    return made.status == 0 and made.out or nil
  end)
end

describe("sluice.http and compression", function()
  local client, before, last
  local text = ("a sluice lets a stream through\n"):rep(1000)

  setup(function()
    pcall(http.request, { url = "http://127.0.0.1:1" })
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

  local function serve(encoding, body, chunked)
    return helper.serve_requests(function(head)
      last = head
      if not chunked then return helper.answer(body, "Content-Encoding: " .. encoding .. "\r\n") end
      local start = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Encoding: %s\r\n\r\n"
      local pieces = { start:format(encoding) }
      for at = 1, #body, 100 do
        local piece = body:sub(at, at + 99)
        pieces[#pieces + 1] = ("%x\r\n%s\r\n"):format(#piece, piece)
      end
      pieces[#pieces + 1] = "0\r\n\r\n"
      return table.concat(pieces)
    end)
  end

  local function failure(given)
    local res, err = helper.ticking(client.request, client, given)
    assert.is_nil(res)
    assert.are.equal("ProtocolError", err.kind)
    assert.are.equal("body", err.phase)
    return err
  end

  local brotli = [[node -e 'const z = require("zlib"), fs = require("fs");]]
    .. [[ fs.writeSync(1, z.brotliCompressSync(fs.readFileSync(0)))']]

  for encoding, command in pairs { gzip = "gzip -c", br = brotli, zstd = "zstd -c" } do
    it("undoes " .. encoding .. ", whole and streamed", function()
      local body = packed(command .. " 2>/dev/null", text)
      if not body then return pending(encoding .. ": no program makes it here") end
      for _, chunked in ipairs { false, true } do
        local server = serve(encoding, body, chunked)
        local res = assert(client:request { url = server.base })
        assert.is_true(res.body == text)
        local pieces = {}
        res = assert(client:request { url = server.base, stream = true })
        for piece in res:chunks() do pieces[#pieces + 1] = piece end
        assert.is_true(table.concat(pieces) == text)
      end
    end)
  end

  it("asks for what libcurl knows, unless told otherwise", function()
    local server = serve("identity", "x")
    assert(client:request { url = server.base })
    assert.is_truthy(last:find "\r\nAccept%-Encoding: [^\r]*gzip[^\r]*br[^\r]*zstd")
    assert(client:request { url = server.base, headers = { ["Accept-Encoding"] = "br" } })
    assert.is_truthy(last:find("\r\nAccept-Encoding: br\r\n", 1, true))
    assert(client:request { url = server.base, decompress = false })
    assert.is_nil(last:find("Accept-Encoding", 1, true))
    assert(client:request { url = server.base })
    assert.is_truthy(last:find("Accept-Encoding", 1, true))
  end)

  it("gives the bytes of the wire with decompress = false", function()
    local body = packed("gzip -c", text)
    local server = serve("gzip", body)
    assert.is_true(client:request({ url = server.base, decompress = false }).body == body)
    assert.is_true(client:request({ url = server.base }).body == text)
  end)

  it("counts what comes out", function()
    local server = serve("gzip", packed("gzip -c", ("x"):rep(8 << 20)))
    local err = failure { url = server.base, max_response = 1 << 20 }
    assert.are.equal("RESPONSE_TOO_LARGE", err.code)
    assert(client:request { url = server.base })
  end)

  it("holds back a stream that swells", function()
    local server = serve("gzip", packed("gzip -c", ("x"):rep(40 << 20)))
    local res <close> = assert(client:request { url = server.base, stream = true })
    task.sleep(0.05)
    local taken, piece, err = 0, ""
    repeat
      taken = taken + #piece
      piece, err = res:read()
    until not piece
    assert.is_nil(err)
    assert.are.equal(40 << 20, taken)
  end)

  it("says that the compressed bytes are wrong", function()
    local body = packed("gzip -c", text)
    for _, wrong in ipairs {
      "this is not gzip at all, but plain text",
      body:sub(1, 60) .. "\xFF\xFF\xFF\xFF\xFF\xFF" .. body:sub(67),
      body:sub(1, -9) .. "\0\0\0\0" .. body:sub(-4), -- its checksum
    } do
      failure { url = serve("gzip", wrong).base }
      local res = assert(client:request { url = serve("gzip", wrong).base, stream = true })
      local all, err = res:text()
      assert.is_nil(all)
      assert.are.equal("ProtocolError", err.kind)
    end
    failure { url = serve("no-such-thing", "abc").base }
  end)
end)
