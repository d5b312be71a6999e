-- SPDX-License-Identifier: MIT
-- A planted token must come out nowhere: no error, log line, trace, JSON or object that can be looked into.
local errors = require "sluice.errors"
local http = require "sluice.http"
local json = require "sluice.json"
local layers = require "sluice.layers"
local log = require "sluice.log"
local secret = require "sluice.secret"
local sluice = require "sluice"
local support = require "support"
local task = require "sluice.task"
local web = require "sluice.web"

local CANARY = "dapi-canary-7f3a9c51e2"

-- Everything that pairs, names and texts give away, however deep.
local function look_into(value, found, seen)
  if type(value) == "string" then
    found[#found + 1] = value
  elseif type(value) == "table" and not seen[value] then
    seen[value] = true
    found[#found + 1] = tostring(value)
    for key, item in pairs(value) do
      look_into(key, found, seen)
      look_into(item, found, seen)
    end
  elseif type(value) ~= "function" then
    found[#found + 1] = tostring(value)
  end
  return found
end

local function assert_clean(text, where)
  assert.is_nil(text:find(CANARY, 1, true), where .. ": " .. text)
end

-- All the ways in which an err leaves the program.
local function assert_err_clean(err, where)
  assert.is_true(errors.is(err), where)
  assert_clean(tostring(err), where)
  assert_clean(json.encode(err), where)
  assert_clean(json.encode(errors.to_table(err)), where)
  assert_clean(debug.traceback("x " .. err), where)
  local raised = select(2, pcall(assert, nil, err))
  assert_clean(tostring(raised), where)
  -- the answer of the server is the server's own; all other fields are ours
  local fields = {}
  for name, value in pairs(err) do
    if name ~= "response" then fields[name] = value end
  end
  for _, text in ipairs(look_into(fields, {}, {})) do assert_clean(text, where) end
end

-- A server that sends back what it was given to see, in every shape.
local function indiscreet_app()
  local app = web.app()
  local function echo(request)
    local seen = tostring(secret.reveal(request.headers["authorization"]))
    local kind = request.params.kind
    local status = tonumber(kind:match("^%d+")) or 200
    if kind:find("html") then return { status = status, body = "<html><pre>" .. seen .. "</pre></html>" } end
    if kind:find("text") then return { status = status, body = "BAD_TOKEN: " .. seen } end
    if kind:find("cut") then return { status = status, body = '{"a":"' .. seen } end
    if kind:find("scalar") then return { status = status, body = '"' .. seen .. '"' } end
    if kind:find("empty") then return { status = status, body = "" } end
    return {
      status = status,
      headers = { ["x-request-id"] = "r-1" },
      json = { error_code = seen, message = "not with " .. seen, details = { { reason = seen } } },
    }
  end
  app:post("/serving-endpoints/:kind/invocations", echo)
  app:get("/api/2.0/serving-endpoints/:kind", echo)
  return app
end

local KINDS = {
  "400", "401", "403", "404", "409", "429", "499", "500", "501", "502", "503", "504", "418", "302",
  "403html", "500text", "401cut", "404empty", "200html", "200cut", "200scalar", "200empty",
}

describe("a planted token", function()
  local lines
  before_each(function()
    lines = {}
    log.set_output(function(line) lines[#lines + 1] = line end)
    log.set_level("debug")
  end)
  after_each(function()
    log.set_output(nil)
    log.set_level("info")
    assert.is_true(#lines >= 0)
    assert_clean(table.concat(lines), "log")
  end)

  local function workspace(transport)
    local w = assert(sluice.workspace { host = "example.com", token = CANARY, transport = transport })
    collectgarbage() -- what masks the token must live as long as the workspace
    return w
  end

  it("is not in the error of any answer, nor in a log line about it", function()
    task.simulate(function()
      local w = workspace(indiscreet_app())
      for _, kind in ipairs(KINDS) do
        local chat = sluice.pipeline(w:endpoint(kind), {
          layers.log {}, layers.retry { attempts = 2 }, layers.limit { rate = 100 }, layers.timeout(30),
        })
        local answer, err = chat:query { messages = {} }
        assert.is_nil(answer, kind)
        assert_err_clean(err, kind)
        log.error("again", { err = err, text = tostring(err), where = w, endpoint = chat })
        answer, err = w.serving_endpoints:get(kind)
        assert.is_nil(answer, kind)
        assert_err_clean(err, "get " .. kind)
      end
      assert.is_true(#lines >= 2 * #KINDS)
    end)
  end)

  it("is not in the errors of a connection, a limit or a transport that fails", function()
    local failures = {
      ConnectError = { operation = "POST", object = "https://" .. CANARY, message = CANARY },
      TLSError = { message = "certificate of " .. CANARY },
      TimeoutError = { message = "late", limit = "first_byte", object = CANARY },
      TruncatedStream = { message = "cut", code = CANARY },
    }
    for kind, fields in pairs(failures) do
      local w = workspace {
        handle = function()
          fields.cause = errors.new("ConnectError", { message = CANARY })
          return nil, errors.new(kind, fields)
        end,
      }
      local _, err = w:endpoint("e"):query {}
      assert.equal(kind, err.kind)
      assert_err_clean(err, kind)
    end
  end)

  it("is not in the error of a refused connection", function()
    if not support.has "server" then return pending "this build has no server" end
    local app = web.app()
    local server = assert(app:listen "127.0.0.1:0")
    local address = server.address
    server:stop(0)
    local w = assert(sluice.workspace { host = "http://" .. address, token = CANARY })
    local _, err = w:endpoint("e"):query({}, { timeout = 5 })
    assert.equal("ConnectError", err.kind)
    assert_err_clean(err, "refused")
    _, err = http.request { url = "http://" .. address, headers = { authorization = sluice.secret(CANARY) } }
    assert_err_clean(err, "refused request")
  end)

  it("is not in the text of misuse", function()
    local token = sluice.secret(CANARY)
    for _, misuse in ipairs {
      function() sluice.workspace { host = token } end,
      function() sluice.workspace { token = token, hots = token } end,
      function() sluice.openai { api_key = token, base_url = token } end,
      function() json.encode { token = token } end,
      function() return "Bearer " .. token end,
      function() error(token) end,
      function() workspace({}):endpoint(token) end,
      function() http.request { url = token } end,
    } do
      local trace
      local ok = xpcall(misuse, function(message) trace = debug.traceback(tostring(message)) end)
      assert.is_false(ok)
      assert_clean(trace, "misuse")
    end
  end)

  it("cannot be found by looking into our objects, or at the tasks", function()
    task.simulate(function()
      local w = workspace { handle = function() task.sleep(1) return nil, errors.new("ConnectError") end }
      local chat = sluice.pipeline(w:endpoint "e", { layers.retry {}, layers.limit { rate = 5 } })
      local job = task.spawn(function() return chat:query {} end)
      task.sleep(0.5)
      local objects = { w, w.serving_endpoints, chat, w:endpoint "e", task.tree(), job, sluice.secret(CANARY),
        sluice.openai { api_key = CANARY, base_url = "http://h" } }
      for _, text in ipairs(look_into(objects, {}, {})) do assert_clean(text, "object") end
      job:cancel()
      pcall(job.join, job)
    end)
  end)

  it("is not in what goes wrong with a token server, a command, a file or the configuration", function()
    local answers = {
      { status = 400, json = { error = CANARY, error_description = "not " .. CANARY } },
      { body = '{"access_token":"' .. CANARY }, { body = "<html>" .. CANARY },
      { body = '"' .. CANARY .. '"' },
      { json = { access_token = { CANARY } } }, { json = { access_token = CANARY .. " x" } },
      { json = { access_token = CANARY, token_type = CANARY .. " y" } }, { status = 302, body = CANARY },
    }
    task.simulate(function()
      for index, answer in ipairs(answers) do
        local app = web.app():post("/oidc/v1/token", function() return answer end)
        local w <close> = assert(sluice.workspace {
          host = "http://h", transport = app, client_id = "i", client_secret = CANARY,
        })
        local _, err = w:endpoint("e"):query {}
        assert_err_clean(err, "answer " .. index)
        assert_err_clean(err.cause, "cause " .. index)
        assert_clean(tostring(w:describe()) .. json.encode(w:describe()), "description")
        for _, text in ipairs(look_into({ w, w.serving_endpoints_data_plane, task.tree() }, {}, {})) do
          assert_clean(text, "workspace " .. index)
        end
      end
    end)
    for _, script in ipairs { "echo $0 and more", "echo '{' $0", "echo $0; exit 1", "echo $0; kill -9 $$" } do
      local command = { "sh", "-c", script, CANARY }
      local w <close> = assert(sluice.workspace { host = "h", token_command = command })
      collectgarbage() -- the word is no secret of ours that would be masked
      local _, err = w:endpoint("e"):query {}
      assert_err_clean(err, script)
      assert_err_clean(err.cause, script)
    end
    support.with_file(CANARY .. " " .. CANARY, function(path)
      local w <close> = assert(sluice.workspace { host = "h", token_file = path })
      local _, err = w:endpoint("e"):query {}
      assert_err_clean(err, "file")
    end)
    local files = { CANARY, "[" .. CANARY, "[a] " .. CANARY, "token " .. CANARY, "[a]\ntoken = " .. CANARY }
    for _, text in ipairs(files) do
      support.with_file(text, function(path)
        local _, err = sluice.workspace { config_file = path, profile = "b" }
        assert_err_clean(err, text)
      end)
    end
  end)

  it("is not in what a token of OAuth leads to", function()
    task.simulate(function()
      local app = indiscreet_app()
      app:post("/oidc/v1/token", function() return { json = { access_token = CANARY, expires_in = 60 } } end)
      local w <close> = assert(sluice.workspace {
        host = "http://h", transport = app, client_id = "i", client_secret = "another-secret",
      })
      for _, kind in ipairs(KINDS) do
        local _, err = w:endpoint(kind):query {}
        assert_err_clean(err, kind)
      end
      for _, text in ipairs(look_into({ w, w:describe() }, {}, {})) do assert_clean(text, "workspace") end
    end)
  end)

  it("would be found if it were there", function()
    assert.has_error(function() assert_clean("x " .. CANARY, "here") end)
    assert.has_error(function() assert_clean(table.concat(look_into({ { a = CANARY } }, {}, {})), "here") end)
  end)
end)
