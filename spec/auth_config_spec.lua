-- SPDX-License-Identifier: MIT
-- Where settings come from: arguments, environment, .databrickscfg; and what is wrong with them.
local config = require "sluice.auth.config"
local config_file = require "sluice.auth.config_file"
local description = require "sluice.auth.description"
local host = require "sluice.auth.host"
local json = require "sluice.json"
local methods = require "sluice.auth.methods"
local secret = require "sluice.secret"
local settings = require "sluice.settings"
local sluice = require "sluice"
local support = require "support"

-- The environment of whoever runs the specs stays outside.
local function clean_environment()
  settings.set(config.only(false, false))
  settings.set { HOME = false }
end

local function open_with(text, given)
  return support.with_file(text, function(path)
    given.config_file = path
    local w, err = sluice.workspace(given)
    return w, err, path
  end)
end

local function resolve_with(text, given)
  return support.with_file(text, function(path)
    settings.set { DATABRICKS_CONFIG_FILE = path }
    return assert(config.resolve(given or {}, true))
  end)
end

describe("config_file.parse", function()
  it("reads profiles, comments, quotes, a byte order mark and CRLF", function()
    local text = "\xEF\xBB\xBF; a comment\r\n[DEFAULT]\r\nHost = https://a\r\ntoken=dapi#1#2 # the rest\r\n"
      .. "\r\n  [ dev ] # ours\r\n\thost: b:8080\r\ntoken = #starts\r\nquoted = \"a # b\" # c\r\n"
      .. "empty =\r\nopen = \"x\r\n"
    local sections = assert(config_file.parse(text))
    assert.same({
      DEFAULT = { host = "https://a", token = "dapi#1#2" },
      dev = { host = "b:8080", token = "#starts", quoted = "a # b", empty = "", open = '"x' },
    }, sections)
    assert.same({}, config_file.parse "")
    assert.same({ DEFAULT = { a = "2" } }, config_file.parse "a=1\na = 2")
  end)

  it("says line and column of what it cannot read, and never what stands there", function()
    for text, expected in pairs {
      ["[DEFAULT]\nhost = a\n  dapi-secret-here"] = { 3, 3 },
      ["[DEFAULT\n"] = { 1, 8 },
      ["[a] dapi-secret-here"] = { 1, 5 },
      ["\n[ ]"] = { 2, 2 },
      [" = dapi-secret-here"] = { 1, 2 },
      ["[a]\nto\1ken = x"] = { 2, 3 },
      ["[a]\n" .. ("x"):rep(70000)] = { 2, 65537 },
    } do
      local sections, fault = config_file.parse(text)
      assert.is_nil(sections)
      assert.same(expected, { fault.line, fault.column })
      assert.is_nil(fault.message:find("secret", 1, true))
    end
  end)
end)

describe("host.parse", function()
  it("brings an address to its usual form", function()
    for text, expected in pairs {
      ["example.com"] = "https://example.com", ["https://example.com/"] = "https://example.com",
      [" HTTPS://h:443/a/b?x#y\n"] = "https://h", ["http://h:8080/x/y"] = "http://h:8080",
      ["http://[::1]:80"] = "http://[::1]:80", ["h:8443"] = "https://h:8443",
    } do
      assert.equal(expected, assert(host.parse(text)).base)
    end
    local bad = { "https://u:p@h", "ftp://h", "a b", "", "https://", "https://:8080", "https://h\1" }
    for _, text in ipairs(bad) do
      local address, reason = host.parse(text)
      assert.is_nil(address, text)
      assert.is_string(reason)
    end
  end)

  it("reads ids in the query", function()
    assert.equal("123", host.parse("https://h/?o=123#job").workspace_id)
    assert.equal("123", host.parse("h?w=123").workspace_id)
    local address = host.parse "h/x?workspace_id=1-2&account_id=a-b&z=1"
    assert.same({ "1-2", "a-b" }, { address.workspace_id, address.account_id })
    assert.is_nil(host.parse("h?o=1%0d%0aX").workspace_id)
  end)

  it("knows this machine", function()
    for _, name in ipairs { "127.0.0.1:8080", "localhost:1", "[::1]:1" } do
      assert.is_true(host.is_loopback(name))
    end
    for _, name in ipairs { "127.0.0.1.example.com", "localhost.example.com", "[::2]:1" } do
      assert.is_false(host.is_loopback(name))
    end
  end)
end)

describe("config.resolve", function()
  before_each(clean_environment)
  after_each(clean_environment)

  local FILE = "[DEFAULT]\nhost = https://default\ntoken = dapi-of-default\n"
    .. "[dev]\nhost = https://dev\ntoken = dapi-of-dev\nworkspace_id = 7\nunknown = 1\nprofile = other\n"

  it("takes arguments, then the environment, then the default profile", function()
    local resolved = resolve_with(FILE)
    assert.equal("https://default", resolved.values.host)
    assert.is_true(secret.equals("dapi-of-default", resolved.values.token))
    assert.matches("^profile DEFAULT of /", resolved.sources.host)
    settings.set { DATABRICKS_HOST = "https://environment" }
    resolved = resolve_with(FILE)
    assert.equal("https://environment", resolved.values.host)
    assert.is_nil(resolved.values.token)
    resolved = resolve_with(FILE, { host = "argument" })
    assert.equal("argument", resolved.sources.host)
  end)

  it("reads a profile that is asked for, whatever is set, and nothing of DEFAULT into it", function()
    settings.set { DATABRICKS_HOST = "https://environment" }
    local resolved = resolve_with(FILE, { profile = "dev" })
    assert.equal("https://environment", resolved.values.host)
    assert.is_true(secret.equals("dapi-of-dev", resolved.values.token))
    assert.equal("7", resolved.values.workspace_id)
    assert.equal("dev", resolved.values.profile)
    assert.is_nil(resolved.values.unknown)
    settings.set { DATABRICKS_HOST = false, DATABRICKS_CONFIG_PROFILE = "dev" }
    assert.equal("https://dev", resolve_with(FILE).values.host)
    assert.equal("DATABRICKS_CONFIG_PROFILE", resolve_with(FILE).sources.profile:match "^[%w_]+")
    assert.is_nil(resolve_with((FILE:gsub("host = https://dev\n", ""))).values.host)
  end)

  it("follows default_profile", function()
    local resolved = resolve_with("[__settings__]\ndefault_profile = dev\n" .. FILE)
    assert.equal("https://dev", resolved.values.host)
    assert.matches("^default_profile of ", resolved.sources.profile)
    assert.equal("https://default", resolve_with("[__settings__]\n" .. FILE).values.host)
  end)

  it("finds the file in HOME, and does without where nobody asked", function()
    settings.set { HOME = "/nowhere" }
    local resolved = assert(config.resolve({}, true))
    assert.matches("/nowhere/.databrickscfg: No such file", resolved.file_note)
    local _, err = sluice.workspace()
    assert.matches("no workspace host is set.*/nowhere/.databrickscfg", tostring(err))
    local home = os.tmpname()
    os.remove(home)
    os.execute("mkdir " .. home)
    finally(function() os.execute("rm -r " .. home) end)
    local file = assert(io.open(home .. "/.databrickscfg", "w"))
    file:write(FILE):close()
    settings.set { HOME = home }
    assert.equal("https://default", assert(config.resolve({}, true)).values.host)
    assert.is_nil(assert(config.resolve({}, false)).values.host)
    resolved = config.resolve({ profile = "dev", config_file = "~/.databrickscfg" }, false)
    assert.equal("https://dev", resolved.values.host)
  end)

  it("says what is wrong with a file or a profile", function()
    local function message(text, given)
      local w, err, path = open_with(text, given or {})
      assert.is_nil(w)
      assert.equal("ConfigError", err.kind)
      return (err.message:gsub(path, "FILE", nil))
    end
    assert.equal('FILE has no profile "dex" (did you mean "dev"?)', message(FILE, { profile = "dex" }))
    local with_settings = "[__settings__]\ndefault_profile = x\n" .. FILE
    assert.matches('^FILE has no profile "__settings__"', message(with_settings,
      { profile = "__settings__" }))
    assert.matches('^FILE has no profile "x"', message(with_settings))
    assert.matches('^FILE has no profile "DEFAULT"', message "[dev]\nhost = h\n")
    assert.equal("FILE, line 2, column 1: a line is [PROFILE], KEY = VALUE or a # comment", message "[a]\nb")
    local _, err = sluice.workspace { profile = "x", config_file = "/nowhere/cfg" }
    assert.matches("reading /nowhere/cfg: No such file", tostring(err))
    _, err = sluice.workspace { profile = "x" }
    assert.matches("HOME", tostring(err))
    _, err = sluice.workspace { config_file = "/" }
    assert.matches("reading /: Is a directory", tostring(err))
  end)

  it("gives one run settings of its own", function()
    settings.set { DATABRICKS_CLIENT_ID = "left", DATABRICKS_CONFIG_PROFILE = "over" }
    settings.set(config.only("http://127.0.0.1:1", "dapi-of-emulator"))
    local w = assert(sluice.workspace())
    assert.equal("http://127.0.0.1:1", w.host)
    assert.equal("DATABRICKS_TOKEN of this run", w:describe().token.source)
    w = assert(sluice.workspace { client_id = "an-id", client_secret = "a-secret-of-production" })
    assert.equal("pat", w:describe().auth_type.value)
  end)
end)

describe("the authorization method", function()
  before_each(clean_environment)
  after_each(clean_environment)

  local function chosen(given)
    given.host = given.host or "https://h"
    local w, err = sluice.workspace(given)
    return w and w:describe().auth_type.value or err.message, err
  end

  it("is the one that is configured", function()
    assert.equal("pat", chosen { token = "dapi-spec" })
    assert.equal("basic", chosen { username = "u", password = "p" })
    assert.equal("oauth-m2m", chosen { client_id = "i", client_secret = "s" })
    assert.equal("token-command", chosen { token_command = { "true" } })
    assert.equal("token-file", chosen { token_file = "/nowhere" })
    assert.equal("none", chosen { host = "http://127.0.0.1:1" })
    assert.is_nil(methods.choose { values = {}, sources = {} })
  end)

  it("is refused where there are several, unless one is pinned", function()
    local message = chosen { token = "dapi-spec", client_id = "i", client_secret = "s" }
    assert.equal("more than one authorization method is configured: pat (token: argument) and oauth-m2m "
      .. "(client_id: argument, client_secret: argument); set one of them only, or say which with auth_type",
      message)
    local pinned = { token = "t", client_id = "i", client_secret = "s", auth_type = "oauth-m2m" }
    assert.equal("oauth-m2m", chosen(pinned))
    settings.set { DATABRICKS_CLIENT_ID = "i", DATABRICKS_AUTH_TYPE = "pat" }
    assert.equal("pat", chosen { token = "dapi-spec" })
  end)

  it("says what is missing of it, and what it does not know", function()
    assert.equal("client_secret is missing for the authorization method oauth-m2m (client_id: argument)",
      chosen { client_id = "i" })
    assert.equal("token is missing for the authorization method pat (auth_type: argument)",
      chosen { auth_type = "pat" })
    assert.matches('auth_type "pad" %(argument%) is no authorization method here %(did you mean "pat"%?%)',
      chosen { auth_type = "pad" })
    assert.matches('use token_command = { "databricks", "auth", "token", ',
      chosen { auth_type = "databricks-cli" })
    assert.matches("no token is set for https://h.*DATABRICKS_TOKEN.*client_id=.*token_command=", chosen {})
  end)

  it("refuses what a header field cannot hold", function()
    for _, token in ipairs { "", "  ", "a b", "a\nb", "\xc3\xa9" } do
      local message, err = chosen { token = token }
      assert.matches("^the token %(argument%) ", message)
      assert.equal("ConfigError", err.kind)
    end
    assert.equal("pat", chosen { token = "dapi-with-a-newline-at-its-end\n" })
    assert.matches("^the username", chosen { username = "a:b", password = "p" })
    assert.matches("^the client_id", chosen { client_id = "a b", client_secret = "p" })
    assert.matches("^the workspace_id", chosen { token = "t", workspace_id = "1\n2" })
    local w = assert(sluice.workspace { host = "h", token = "t", workspace_id = 12 })
    assert.equal("12", w:describe().workspace_id.value)
  end)

  it("raises for a token command that is none", function()
    for _, command in ipairs { {}, { "" }, { "a", {} }, { "a", timout = 5 }, { "a", timeout = 0 } } do
      local _, message = pcall(chosen, { token_command = command })
      assert.matches("sluice.workspace: token_command", message)
    end
  end)
end)

describe("workspace:describe", function()
  before_each(clean_environment)
  after_each(clean_environment)

  it("tells what was resolved and from where, with stars for secrets", function()
    settings.set { DATABRICKS_TOKEN = "dapi-very-secret-indeed" }
    local w = assert(sluice.workspace { host = "h.example/?o=12" })
    local facts = w:describe()
    assert.same({ value = "https://h.example", source = "argument" }, facts.host)
    assert.same({ value = "***", source = "DATABRICKS_TOKEN of this run" }, facts.token)
    assert.same({ value = "12", source = "query of the host" }, facts.workspace_id)
    assert.equal("host          https://h.example  (argument)\nauth_type     pat  (what is set)\n"
      .. "token         ***  (DATABRICKS_TOKEN of this run)\nworkspace_id  12  (query of the host)",
      tostring(facts))
    assert.equal("pat", json.decode(json.encode(facts)).auth_type.value)
    assert.matches("workspace:describe is a method", select(2, pcall(function() w.describe() end)))
  end)

  it("shows the program of a command, and not what it is told", function()
    local command = { "get", secret.new "hidden-word", "password" }
    local w = assert(sluice.workspace { host = "h", token_command = command })
    assert.equal("get and 2 more words", w:describe().token_command.value)
    assert.equal("token_command", description.list(w._resolved)[3].name)
    assert.equal("token_command", description.list(w._resolved, { token_endpoint = "x" })[3].name)
    assert.equal("x", description.new(w._resolved, { token_endpoint = "x" }).token_endpoint.value)
  end)

  it("fails with a ConfigError, as all of opening does", function()
    local nothing, err = config.fail("no %s", "way")
    assert.is_nil(nothing)
    assert.equal("open workspace: no way (ConfigError)", tostring(err))
  end)
end)
