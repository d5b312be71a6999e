-- SPDX-License-Identifier: MIT
-- A body that nobody changed is passed on as its own bytes.

local meta = require "sluice.meta"
local sluice = require "sluice"
local web = require "sluice.web"

local describe = require("support").needing("server", describe, pending)

local TEXT <const> = '{ "messages" :[{"role":"user","content":"\\u00e9"}],"seed":1.0, '
  .. '"big":12345678901234567890 }'

-- What the server behind an app was sent, for a handler that makes the request from the body.
local function sent(request_of)
  local seen
  local upstream = web.app()
  upstream:post("/v1/chat/completions", function(request)
    seen = request.body
    return { json = { choices = {} } }
  end)
  local endpoint = sluice.openai { transport = upstream, base_url = "http://there/v1" }
  local app = web.app()
  app:post("/", function(request) return { json = assert(endpoint:query(request_of(request))) } end)
  local res = app:handle { method = "POST", path = "/", body = TEXT }
  assert.equal(200, res.status, res.body)
  return seen
end

describe("request:json { raw = true }", function()
  it("lets an endpoint send the same bytes", function()
    assert.equal(TEXT, sent(function(request) return request:json { raw = true } end))
  end)

  it("is not the default, so that a change is never lost", function()
    local body = sent(function(request)
      local value = request:json()
      value.seed = 2
      return value
    end)
    assert.equal(2, sluice.json.decode(body).seed)
    assert.is_nil(body:find("u00e9", 1, true))
  end)

  it("does not hold for a copy", function()
    local body = sent(function(request)
      local copy = { model = "m" }
      for name, value in pairs(request:json { raw = true }) do copy[name] = value end
      return copy
    end)
    assert.equal("m", sluice.json.decode(body).model)
  end)

  it("keeps the bytes of arrays too, and of nothing else", function()
    local app, raw = web.app(), nil
    app:post("/", function(request)
      local value, err = request:json { raw = true }
      if value == nil then return nil, err end
      raw = meta.get(value).raw
      return "read"
    end)
    app:handle { method = "POST", path = "/", body = "[1, 2]" }
    assert.equal("[1, 2]", raw)
    assert.equal(200, app:handle({ method = "POST", path = "/", body = "7" }).status)
    assert.is_nil(raw)
    assert.equal(400, app:handle({ method = "POST", path = "/", body = "{" }).status)
  end)

  it("refuses other options", function()
    local app, message = web.app(), nil
    app:post("/", function(request)
      message = select(2, pcall(request.json, request, { rw = true }))
      return "refused"
    end)
    app:handle { method = "POST", path = "/", body = "{}" }
    assert.matches('unknown option "rw".*raw', message)
  end)
end)
