-- SPDX-License-Identifier: MIT
local matcher = require "sluice.transports.matcher"

local function records(...)
  local list = {}
  for index, given in ipairs { ... } do
    list[index] = { n = index, line = index + 1,
      request = { method = given[1], url = given[2], body = given[3] } }
  end
  return list
end

local function ask(found, method, url, body)
  local record, reason = found:find { method = method, url = url, body = body }
  return record and record.n or reason
end

describe("transports.matcher", function()
  it("finds by method, URL and what JSON means, in order", function()
    local found = matcher.new(records({ "GET", "http://h/a" }, { "POST", "http://h/a", '{"x":1,"y":[2]}' },
      { "POST", "http://h/a", '{ "y": [2], "x": 1 }' }, { "POST", "http://h/a", "text" }))
    assert.equal(2, ask(found, "POST", "http://h/a", '{"y":[2],"x":1}'))
    assert.equal(4, ask(found, "POST", "http://h/a", "text"))
    assert.equal(3, ask(found, "POST", "http://h/a", '{"x":1,"y":[2]}'))
    assert.equal(1, ask(found, "GET", "http://h/a"))
    assert.equal("every recording of GET http://h/a is used up: line 2", ask(found, "GET", "http://h/a"))
    assert.equal("every recording of POST http://h/a with this body is used up: line 3, 4",
      ask(found, "POST", "http://h/a", '{"x":1,"y":[2]}'))
  end)

  it("names the nearest where nothing matches", function()
    local found = matcher.new(records({ "GET", "http://h/endpoints" }, { "POST", "http://h/a",
      '{"messages":[{"content":"hello"},{"content":"you"}],"n":1}' },
      { "POST", "http://h/a", '{"other":true}' },
      { "PUT", "http://h/a", "some text" }))
    assert.equal("no recording of GET http://h/endpoint: the nearest is GET http://h/endpoints in line 2",
      ask(found, "GET", "http://h/endpoint"))
    local function differs(method, body)
      local text = ask(found, method, "http://h/a", body)
      return text:match("^no recording of " .. method .. " http://h/a with this body: (.*)$") or text
    end
    assert.equal('body.messages[2].content is "you" in line 3, and "me" here',
      differs("POST", '{"messages":[{"content":"hello"},{"content":"me"}],"n":1}'))
    assert.equal("body.n is 1 in line 3, and 1.0 here",
      differs("POST", '{"messages":[{"content":"hello"},{"content":"you"}],"n":1.0}'))
    assert.equal("body.other is true in line 4, and false here", differs("POST", '{"other":false}'))
    assert.equal("it differs from that of line 5 after 5 bytes", differs("PUT", "some news"))
    assert.equal("no recording of GET http://h: the cassette is empty",
      ask(matcher.new {}, "GET", "http://h"))
  end)

  it("leaves out what is to be ignored, and the boundaries of parts", function()
    local found = matcher.new(records({ "POST", "/", '{"a":{"id":1,"b":2}}' },
      { "POST", "/", "--aXb-c\r\nx\r\n--aXb-c--\r\n" }), { "id" })
    assert.equal(1, ask(found, "POST", "/", '{"id":5,"a":{"b":2}}'))
    assert.equal(2, ask(found, "POST", "/", "--other\r\nx\r\n--other--\r\n"))
  end)
end)
