-- SPDX-License-Identifier: MIT
-- Tokens that others make: what a program prints, what a file holds.
local background = require "sluice.auth.background"
local base64 = require "sluice.base64"
local errors = require "sluice.errors"
local response = require "sluice.response"
local secret = require "sluice.secret"
local sluice = require "sluice"
local support = require "support"
local task = require "sluice.task"
local token_command = require "sluice.auth.token_command"
local token_file = require "sluice.auth.token_file"
local token_text = require "sluice.auth.token_text"

local function command(script, timeout)
  local scope = background.new()
  local token, err = token_command.source({ "sh", "-c", script, timeout = timeout }, scope):get()
  scope:close()
  return token and secret.reveal(token.value), err or token
end

describe("token_text.parse", function()
  it("reads a token alone, and one in an object that tells its end", function()
    local token = assert(token_text.parse "  dapi-alone\r\n")
    assert.same({ "dapi-alone", "Bearer", nil }, { secret.reveal(token.value), token.type, token.lifetime })
    task.simulate(function()
      for text, lifetime in pairs {
        ['{"access_token":"t","expires_in":"90"}'] = 90,
        ['{"accessToken":"t","expires_on":1767225700}'] = 100,
        ['{"access_token":"t","expiry":"2026-01-01T01:00:10.123456+01:00"}'] = 10,
        ['{"access_token":"t","expiry":"2026-01-01T00:00:10Z"}'] = 10,
        ['{"token":"t","expirationTimestamp":"2026-03-01T00:00:00Z"}'] = 59 * 86400,
        ['{"token":"t","expiry":"2025-01-01T00:00:00Z"}'] = 0,
        ['{"token":"t","expiry":"tomorrow"}'] = false,
        ['{"token":"t"}'] = false,
      } do
        token = assert(token_text.parse(text))
        assert.equal("t", secret.reveal(token.value))
        assert.equal(lifetime, token.lifetime or false, text)
      end
    end)
  end)

  it("reads the end in a JSON web token", function()
    task.simulate(function()
      local function jwt(payload)
        return "eyJh." .. base64.encode(payload):gsub("=", ""):gsub("+", "-"):gsub("/", "_") .. ".c2ln"
      end
      assert.equal(60, token_text.parse(jwt '{"sub":"????>>>>","exp":1767225660}').lifetime)
      assert.is_nil(token_text.parse(jwt '{"exp":"soon"}').lifetime)
      assert.is_nil(token_text.parse(jwt "nothing").lifetime)
    end)
  end)

  it("says what is wrong, without the text", function()
    for text, expected in pairs {
      [""] = "empty", [" \n"] = "empty", ["dapi-a dapi-b"] = "no token", ["dapi\nb"] = "no token",
      ["{dapi"] = "no JSON object", ['{"tok":"dapi"}'] = "has no access_token", ['{"token":5}'] = "has no",
      ['{"token":"dapi b"}'] = "no token", ["dapi\xff"] = "no token",
    } do
      local token, reason = token_text.parse(text)
      assert.is_nil(token)
      assert.matches(expected, reason)
      assert.is_nil(reason:find "dapi")
    end
  end)
end)

describe("token_command", function()
  it("takes what the program prints", function()
    assert.equal("dapi-printed", command "echo dapi-printed; echo noise >&2")
    local value, token = command [[echo '{"access_token": "t1", "token_type": "Bearer", "expires_in": 3600}']]
    assert.same({ "t1", 3600 }, { value, token.lifetime })
  end)

  it("says how a program failed, with the end of its complaints and never its output", function()
    for script, expected in pairs {
      ["echo dapi-half; echo no login >&2; exit 1"] = "failed with status 1: no login",
      ["exit 7"] = "failed with status 7, and printed nothing to standard error",
      ["true"] = "cannot be used: it is empty",
      ["echo hint >&2"] = "cannot be used: it is empty: hint",
      ["head -c 1000000 /dev/zero"] = "printed more than 65536 bytes",
      ["yes dapi"] = "printed more than 65536 bytes",
      ["kill -KILL $$"] = "ended by signal 9",
      ["echo dapi one two"] = "it is no token",
    } do
      local value, err = command(script)
      assert.is_nil(value, script)
      assert.equal("ConfigError", err.kind)
      assert.equal("sh", err.object)
      assert.is_truthy(tostring(err):find(expected, 1, true), tostring(err))
      assert.is_nil(tostring(err):find "dapi")
    end
  end)

  it("kills a program that hangs", function()
    local value, err = command("sleep 71.5; echo late", 0.1)
    assert.is_nil(value)
    assert.equal("TimeoutError", err.kind)
    assert.matches("had not ended after 0.1 s, and was killed", err.message)
    assert.is_false(err.maybe_executed)
  end)

  it("says when there is no such program, or none is allowed", function()
    local scope = background.new()
    local _, err = token_command.source({ "sluice-no-such-program" }, scope):get()
    assert.equal("run token command sluice-no-such-program: it cannot be run: No such file or directory "
      .. "(ConfigError)", tostring(err))
    task.simulate(function() _, err = token_command.source({ "true" }, scope):get() end)
    assert.equal("ConfigError", err.kind)
    scope:close()
  end)

  it("runs once for all tasks, with a secret as one of its words, and again when refused", function()
    local seen, runs, agent = {}, os.tmpname(), nil
    finally(function() os.remove(runs) end)
    local script = 'echo x >> "$1"; echo "$2$(wc -l < "$1")"'
    local w <close> = assert(sluice.workspace {
      host = "https://h",
      token_command = { "sh", "-c", script, "sh", runs, secret.new "dapi-" },
      transport = { handle = function(_, request)
        local token = secret.reveal(request.headers.authorization)
        seen[#seen + 1], agent = token, request.headers["user-agent"]
        return response.new { status = token == "Bearer dapi-1" and #seen > 5 and 401 or 200, body = "{}" }
      end },
    })
    task.map({ 1, 2, 3, 4, 5 }, function() return assert(w:endpoint("e"):query {}) end)
    for index = 1, 5 do assert.equal("Bearer dapi-1", seen[index]) end
    assert(w:endpoint("e"):query {})
    assert.same({ "Bearer dapi-1", "Bearer dapi-2" }, { seen[6], seen[7] })
    assert.matches("auth/token%-command", agent)
  end)

  it("fails a call with the call's name, and what the program said as the cause", function()
    local program = { "sh", "-c", "echo no >&2; exit 2" }
    local w <close> = assert(sluice.workspace { host = "https://h", token_command = program })
    local _, err = w:endpoint("e"):query {}
    assert.matches("^query endpoint e: no access token ", tostring(err))
    assert.matches("because: run token command sh: it failed with status 2: no", tostring(err))
    assert.equal("token_command", err.settings[3].name)
    assert.is_false(err.maybe_executed)
    -- the limit of the call goes before that of the program
    local slow <close> = assert(sluice.workspace { host = "https://h", token_command = { "sleep", "72.5" } })
    _, err = slow:endpoint("e"):query({}, { timeout = 0.1 })
    assert.equal("TimeoutError", err.kind)
    assert.equal("total", err.limit)
  end)

  it("checks its words", function()
    assert.is_nil(token_command.check("x", nil))
    assert.is_nil(token_command.check("x", { "a", "b", timeout = 1 }))
    assert.has_error(function() token_command.check("x", { 5 }) end)
  end)
end)

describe("token_file", function()
  local function write(path, text)
    local file = assert(io.open(path, "w"))
    file:write(text):close()
  end

  it("is read again when it changes, and when a server refuses the token", function()
    support.with_file("dapi-first\n", function(path)
      local scope = background.new()
      local source = token_file.source(path, scope)
      local function value() return secret.reveal(assert(source:get()).value) end
      assert.equal("dapi-first", value())
      assert.equal(assert(source:get()), (source:get()))
      write(path, "dapi-second, that is longer")
      local _, err = source:get()
      assert.matches("read token file .*: it is no token", tostring(err))
      write(path, "dapi-third-one\n")
      assert.equal("dapi-third-one", value())
      local token = source:get()
      assert.is_true(source:answered(token, 401))
      assert.not_equal(token, (source:get()))
      os.remove(path)
      assert.equal("dapi-third-one", value())
      assert.is_true(source:answered(source:get(), 200) == false)
      scope:close()
    end)
  end)

  it("says why it cannot be read", function()
    local scope = background.new()
    local _, err = token_file.source("/nowhere/token", scope):get()
    assert.equal("read token file /nowhere/token: No such file or directory (ConfigError)", tostring(err))
    _, err = token_file.source("/", scope):get()
    assert.matches("Is a directory", tostring(err))
    scope:close()
    _, err = token_file.source("/", scope):get()
    assert.matches("the workspace is closed", tostring(err))
    assert.is_true(errors.is(err))
  end)
end)
