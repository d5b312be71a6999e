-- SPDX-License-Identifier: MIT
local response = require "sluice.response"
local secret = require "sluice.secret"
local settings = require "sluice.settings"
local workspace = require "sluice.workspace"

local transport = {
  handle = function(self, request)
    self.last = request
    return response.new { status = 200, body = '{"endpoints":[]}' }
  end,
}

describe("workspace.open", function()
  -- the environment of whoever runs the specs stays outside
  local function clean_environment()
    settings.set(require("sluice.auth.config").only(false, false))
    settings.set { HOME = false }
  end
  before_each(clean_environment)
  after_each(clean_environment)

  it("says how to set a host, or to do without", function()
    local w, err = workspace.open()
    assert.is_nil(w)
    assert.equal("ConfigError", err.kind)
    for _, word in ipairs { "host=", "DATABRICKS_HOST", "sluice %-%-emulator FILE.lua" } do
      assert.matches(word, tostring(err))
    end
  end)

  it("says how to set a token, but asks none of the loopback", function()
    local w, err = workspace.open { host = "example.cloud.databricks.com" }
    assert.is_nil(w)
    assert.matches("no token is set for https://example.*DATABRICKS_TOKEN", tostring(err))
    for _, host in ipairs { "http://127.0.0.1:8080", "http://localhost:1", "http://[::1]:1" } do
      assert.is_table(workspace.open { host = host })
    end
    assert.is_nil(workspace.open { host = "http://127.0.0.1.example.com" })
    assert.is_nil(workspace.open { host = "http://localhost.example.com" })
  end)

  it("brings a host to its usual form", function()
    for host, expected in pairs {
      ["example.com"] = "https://example.com", ["https://example.com/"] = "https://example.com",
      ["https://example.com/?o=123#job"] = "https://example.com", ["http://h:8080/x/y"] = "http://h:8080",
    } do
      local w = assert(workspace.open { host = host, token = "dapi-spec" })
      assert.equal(expected, w.host)
      assert.equal("sluice.workspace: " .. expected, tostring(w))
    end
    for _, host in ipairs { "https://user:pass@example.com", "ftp://example.com", "a b", "" } do
      local w, err = workspace.open { host = host, token = "dapi-spec" }
      assert.is_nil(w)
      assert.equal("ConfigError", err.kind)
    end
  end)

  it("reads what the host command has set", function()
    settings.set { DATABRICKS_HOST = "http://127.0.0.1:4711", DATABRICKS_TOKEN = "dapi-of-settings" }
    local w = assert(workspace.open { transport = transport })
    assert.equal("http://127.0.0.1:4711", w.host)
    assert(w.serving_endpoints:list())
    assert.is_true(secret.equals(transport.last.headers["authorization"], "Bearer dapi-of-settings"))
    local token = secret.new "dapi-given"
    w = assert(workspace.open { transport = transport, host = "http://other", token = token })
    assert(w.serving_endpoints:list())
    assert.equal("http://other/api/2.0/serving-endpoints", transport.last.url)
    assert.is_true(secret.equals(transport.last.headers["authorization"], "Bearer dapi-given"))
  end)

  it("needs nothing when the transport is in process", function()
    local w = assert(workspace.open { transport = transport })
    assert(w.serving_endpoints:list())
    assert.is_nil(transport.last.headers["authorization"])
    assert.equal("x", w:endpoint("x").name)
    assert.equal("localhost", w:endpoint("x").host)
  end)

  it("says who it is and where", function()
    local w = assert(workspace.open { transport = transport, token = "dapi-spec", host = "h?o=17" })
    assert(w.serving_endpoints:list())
    assert.equal("17", transport.last.headers["x-databricks-workspace-id"])
    assert.matches("^sluice/%d+%.%d+%.%d+ lua/5%.4 os/linux auth/pat$", transport.last.headers["user-agent"])
    w = assert(workspace.open { transport = transport, username = "me", password = "open sesame" })
    assert(w.serving_endpoints:list())
    assert.is_nil(transport.last.headers["x-databricks-workspace-id"])
    assert.is_true(secret.equals(transport.last.headers["authorization"], "Basic bWU6b3BlbiBzZXNhbWU="))
  end)

  it("closes, twice as well", function()
    local w <close> = assert(workspace.open { transport = transport })
    w:close()
    w:close()
    assert(w.serving_endpoints:list())
  end)

  it("tells whether it is an emulator", function()
    local emulated = require "sluice.emulator".new {}
    assert.is_true(assert(workspace.open { transport = emulated.app, token = "any" }):is_emulator())
    local app = require "sluice.web".app {}
    app:get("/api/2.0/serving-endpoints", function() return { json = { endpoints = {} } } end)
    assert.is_false(assert(workspace.open { transport = app }):is_emulator())
    local none, err = assert(workspace.open { host = "http://127.0.0.1:1" }):is_emulator()
    assert.is_nil(none)
    assert.equal("ConnectError", err.kind)
  end)

  it("refuses an endpoint without a name, and a dot where a colon is meant", function()
    local w = assert(workspace.open { transport = {} })
    local _, message = pcall(function() w:endpoint "" end)
    local expected = 'workspace:endpoint: argument "name" must be a string that is not empty, got ""'
    assert.matches("workspace_spec.lua:%d+: " .. expected, message)
    _, message = pcall(function() w.jobs:list() end)
    expected = 'workspace has no field "jobs" %(there is close, describe, endpoint, host, is_emulator, serv'
    assert.matches("workspace_spec.lua:%d+: " .. expected, message)
    _, message = pcall(function() w.serving_endpoints:quary("e", {}) end)
    assert.matches('serving_endpoints has no field "quary" %(did you mean "query"', message)
    _, message = pcall(function() require("sluice.log").inf "event" end)
    assert.matches('workspace_spec.lua:%d+: sluice.log has no field "inf" %(did you mean "info"', message)
    _, message = pcall(function() w.endpoint "x" end)
    assert.matches("workspace_spec.lua:%d+: workspace:endpoint is a method: call it with a colon", message)
  end)

  it("refuses misuse", function()
    local _, message = pcall(function() workspace.open { hots = "x" } end)
    assert.matches('workspace_spec.lua:%d+: sluice.workspace: unknown option "hots"', message)
    assert.has_error(function() workspace.open { host = 5 } end)
    assert.has_error(function() workspace.open({ transport = transport }):endpoint(nil) end)
  end)
end)
