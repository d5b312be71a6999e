-- SPDX-License-Identifier: MIT
-- web.api_keys: who is answered, and who is told 401.

local secret = require "sluice.secret"
local web = require "sluice.web"

local describe = require("support").needing("server", describe, pending)

local function app_for(callers)
  local app = web.app()
  app:use(web.api_keys(callers))
  app:get("/", function(request) return request.caller end)
  return app
end

local function ask(app, headers)
  return app:handle { method = "GET", path = "/", headers = headers }
end

describe("web.api_keys", function()
  local app = app_for { alice = "key-of-alice", bob = secret.new "key-of-bob" }

  it("names the caller", function()
    assert.equal("alice", ask(app, { authorization = "Bearer key-of-alice" }).body)
    assert.equal("bob", ask(app, { authorization = "bearer  key-of-bob " }).body)
    assert.equal("bob", ask(app, { ["x-api-key"] = "key-of-bob" }).body)
    assert.equal("bob", ask(app, { authorization = secret.join("Bearer ", secret.new "key-of-bob") }).body)
  end)

  it("refuses everybody else, unknown paths too", function()
    for _, headers in ipairs {
      {}, { authorization = "Bearer key-of-alic" }, { authorization = "Bearer key-of-alicee" },
      { authorization = "Basic key-of-alice" }, { authorization = "key-of-alice" },
      { authorization = "Bearer " },
      { ["x-api-key"] = "" }, { ["x-api-key"] = "alice" },
      { authorization = "Bearer wrong", ["x-api-key"] = "key-of-bob" },
    } do
      local res = ask(app, headers)
      assert.equal(401, res.status)
      assert.equal("Bearer", res.headers["www-authenticate"])
      local told = res:json().error
      assert.equal("Unauthenticated", told.type)
      assert.equal("invalid_api_key", told.code)
      assert.is_nil(res.body:find("key-of", 1, true))
    end
    assert.equal(401, app:handle({ method = "GET", path = "/nowhere" }).status)
  end)

  it("answers nobody where there are no callers", function()
    assert.equal(401, ask(app_for {}, { authorization = "Bearer x" }).status)
  end)

  it("refuses what are no callers", function()
    assert.error_matches(function() web.api_keys() end, "callers")
    assert.error_matches(function() web.api_keys { "key" } end, "names with a key each")
    assert.error_matches(function() web.api_keys { alice = 7 } end, "got number for alice")
    assert.error_matches(function() web.api_keys { alice = "" } end, "names with a key each")
  end)
end)
