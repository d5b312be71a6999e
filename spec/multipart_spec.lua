-- SPDX-License-Identifier: MIT
local helper = require "http_helper"
local http = require "sluice.http"
local multipart = require "sluice.multipart"
local secret = require "sluice.secret"
local task = require "sluice.task"

local function pieces(...)
  local list, at = { ... }, 0
  return function()
    at = at + 1
    return list[at]
  end
end

describe("sluice.multipart", function()
  it("writes texts and files by the letter", function()
    local body, content_type = multipart.encode({
      b = "text", a = 1, c = { "x", secret.new "y" },
      d = { filename = 'a"\r\n.txt', body = "bytes\0" },
      e = { content_type = "application/json", body = "{}" },
    }, "B")
    assert.are.equal("multipart/form-data; boundary=B", content_type)
    assert.are.equal(table.concat({
      '--B', 'Content-Disposition: form-data; name="a"', '', '1',
      '--B', 'Content-Disposition: form-data; name="b"', '', 'text',
      '--B', 'Content-Disposition: form-data; name="c"', '', 'x',
      '--B', 'Content-Disposition: form-data; name="c"', '', 'y',
      '--B', 'Content-Disposition: form-data; name="d"; filename="a%22%0D%0A.txt"',
      'Content-Type: application/octet-stream', '', 'bytes\0',
      '--B', 'Content-Disposition: form-data; name="e"', 'Content-Type: application/json', '', '{}',
      '--B--', '',
    }, "\r\n"), body)
  end)

  it("keeps the order of an array, and is never the same twice", function()
    local given = { { name = "z", body = "1" }, { name = "a", body = "2" } }
    local body, content_type = multipart.encode(given)
    assert.is_true(body:find('name="z"', 1, true) < body:find('name="a"', 1, true))
    assert.is_truthy(content_type:find "boundary=sluice%-%x+$")
    assert.are_not.equal(content_type, select(2, multipart.encode(given)))
    assert.are.equal("--B--\r\n", (multipart.encode({}, "B")))
  end)

  it("streams what comes by a function", function()
    local body = multipart.encode({ a = "1", f = { filename = "f", body = pieces("x", "", "y") } }, "B")
    local all = {}
    for piece in body do all[#all + 1] = piece end
    local tail = 'filename="f"\r\nContent-Type: application/octet-stream\r\n\r\nxy\r\n--B--\r\n'
    assert.are.equal(tail, table.concat(all):sub(-#tail))
  end)

  it("raises for what is no part", function()
    for _, wrong in ipairs {
      { a = print }, { a = { body = "x", file_name = "f" } }, { { body = "x" } }, { { name = "a" } },
      { a = { body = "x", content_type = "a\r\nX: y" } }, { a = { body = 1 } },
    } do
      assert.has_error(function() multipart.encode(wrong) end)
    end
  end)

  describe("of a request", function()
    local client, last

    before_each(function() client = http.client() end)
    after_each(function()
      client:close()
      helper.stop()
    end)

    local function serve()
      return helper.serve(function(connection)
        local bytes = ""
        repeat bytes = bytes .. connection:read() until bytes:find "%-%-\r\n" or bytes:find "\r\n\r\na="
        last = bytes
        connection:write(helper.answer("ok", "Connection: close\r\n"))
      end)
    end

    it("goes out whole, with its type", function()
      local server = serve()
      assert(client:request { url = server.base, multipart = { a = "1" } })
      local boundary = last:match "\r\ncontent%-type: multipart/form%-data; boundary=(%S+)\r\n"
      assert.is_truthy(last:find("--" .. boundary .. "\r\n", 1, true))
      assert.is_truthy(last:find "\r\nContent%-Length: %d+\r\n")
      assert.is_truthy(last:find "^POST ")
    end)

    it("goes out as its parts come", function()
      local server = serve()
      local function body()
        local left = 3
        return function()
          task.sleep(0.001)
          left = left - 1
          if left >= 0 then return "piece" .. left end
        end
      end
      assert(client:request { url = server.base, multipart = { f = { filename = "f", body = body() } } })
      assert.is_truthy(last:find("piece2", 1, true) and last:find("piece0", 1, true))
      assert.is_truthy(last:find("Transfer-Encoding: chunked", 1, true))
      local res, err = client:request {
        url = server.base, multipart = { f = { body = function() return nil, "no more" end } },
      }
      assert.is_nil(res)
      assert.are.equal("no more", err)
    end)

    it("is one way of several: forms and queries too", function()
      local server = serve()
      assert(client:request { url = server.base .. "/p?x=y", query = { q = "a b" }, form = { a = "b c" } })
      assert.is_truthy(last:find("^POST /p%?x=y&q=a%%20b HTTP"))
      assert.is_truthy(last:find("\r\ncontent-type: application/x-www-form-urlencoded\r\n", 1, true))
      assert.are.equal("a=b+c", last:match "\r\n\r\n(.*)$")
      assert.has_error(function() client:request { url = server.base, form = { a = "b" }, json = {} } end)
      assert.has_error(function() client:request { url = server.base, body = "x", multipart = {} } end)
    end)
  end)
end)
