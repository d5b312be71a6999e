-- SPDX-License-Identifier: MIT
local options = require "sluice.options"
local secret = require "sluice.secret"

local SPEC = { url = "string", timeout = "table|number?", retries = "count?", token = "text?",
  mode = function(value) return value == "a" or value == "b", '"a" or "b"' end }

-- A public function, as the modules write them.
local function request(given)
  return (options.check("http.request", given, SPEC))
end

local function refuses(expected, given)
  local ok, err = pcall(function() request(given) end)
  assert.is_false(ok)
  assert.matches(expected, err)
  return err
end

describe("options.check", function()
  it("gives back what was right, and an empty table for nil", function()
    local given = { url = "x", timeout = 3, retries = 2, token = secret.new "hidden-token", mode = "b" }
    assert.equal(given, request(given))
    assert.same({}, options.check("f", nil, { a = "string?" }))
  end)

  it("names an unknown option and the nearest right one", function()
    refuses('http.request: unknown option "timout" %(did you mean "timeout"%?%)', { timout = 1 })
    refuses('unknown option "mdoe" %(did you mean "mode"%?%)', { mdoe = 1 })
    assert.not_matches("did you mean", refuses("unknown option", { something_else = 1 }))
    refuses("by name, got a value at %[1%]", { "x" })
  end)

  it("names the option, what it must be and what came", function()
    refuses('option "timeout" must be a table or a number, got string', { url = "x", timeout = "5" })
    refuses('option "retries" must be an integer of at least 1, got 0', { url = "x", retries = 0 })
    refuses('option "retries" must be an integer of at least 1, got 1.5', { url = "x", retries = 1.5 })
    refuses('option "mode" must be "a" or "b", got string', { url = "x", mode = "c" })
    refuses('a table or a number, got secret', { url = "x", timeout = secret.new "hidden-token" })
  end)

  it("names what is missing, and what is no table at all", function()
    refuses('http.request: option "url" is missing', {})
    refuses('http.request: option "url" is missing', nil)
    refuses("options must be a table, got number", 5)
  end)

  it("raises at the line of the caller of the public function", function()
    local here = debug.getinfo(1, "l").currentline + 1
    local _, err = pcall(function() request { timout = 1 } end)
    assert.matches("options_spec.lua:" .. here .. ":", err)
  end)

  it("raises there through functions of the library, and says no line where there is none", function()
    local layers, pipeline = require "sluice.layers", require "sluice.pipeline"
    local endpoint = pipeline.new({ query = function(_, given) return request(given) end }, {
      layers.retry {}, layers.limit { rate = 1e6 }, layers.log { level = "debug" },
    })
    local here = debug.getinfo(1, "l").currentline + 1
    local _, err = pcall(function() return (require("sluice.retry").policy { attemps = 3 }) end)
    assert.matches("^spec/options_spec.lua:" .. here .. ": retry.policy: unknown option \"attemps\"", err)
    here = debug.getinfo(1, "l").currentline + 1
    _, err = pcall(function() endpoint.query({}, { timeout = 1 }) end)
    assert.matches("^spec/options_spec.lua:" .. here .. ": endpoint:query is a method", err)
    local thread = coroutine.create(options.argument)
    _, err = coroutine.resume(thread, "f", "x", 1, "string")
    assert.equal('f: argument "x" must be a string, got 1', err)
  end)

  it("raises at no line of the host's where a tail call took the script's", function()
    local log = require "sluice.log"
    local _, message = xpcall(function() return log.set_output(1) end, tostring)
    assert.equal('log.set_output: argument "writer" must be a function, got 1', message)
  end)

  it("lists the names when none is near and they are few", function()
    refuses('unknown option "rps" %(there is mode, retries, timeout, token, url%)', { rps = 1 })
  end)

  it("allocates nothing when all is right", function()
    local given = { url = "x", timeout = 3, retries = 2, mode = "a" }
    request(given)
    collectgarbage() collectgarbage("stop")
    local before = collectgarbage("count")
    for _ = 1, 1000 do request(given) end
    local grown = collectgarbage("count") - before
    collectgarbage("restart")
    assert.is_true(grown < 1, ("%g KB for 1000 checks"):format(grown))
  end)
end)

describe("options.argument", function()
  local function get(name) options.argument("w:get", "name", name, "string") end

  it("raises at the caller and names the argument", function()
    local here = debug.getinfo(1, "l").currentline + 1
    local _, err = pcall(function() get(7) end)
    assert.matches("options_spec.lua:" .. here .. ': w:get: argument "name" must be a string, got 7', err)
    get "fine"
  end)

  it("lets an optional one be left out", function()
    assert.has_no_error(function() options.argument("f", "x", nil, "table?") end)
  end)
end)

describe("options.timeout", function()
  local function limit(value) return (options.timeout("layers.timeout", value)) end

  it("takes a number for the total, and tables as they are", function()
    local limits = { connect = 1, total = 2 }
    assert.same({ total = 30 }, limit(30))
    assert.equal(limits, limit(limits))
    assert.is_nil(limit(nil))
  end)

  it("raises for what is no time", function()
    for value, expected in pairs {
      [-1] = "at least 0, got %-1",
      x = "a number or a table, got string",
      [{ totl = 1 }] = 'did you mean "total"',
      [{ idle = -1 }] = 'option "idle" must be a number of seconds',
    } do
      local ok, err = pcall(limit, value)
      assert.is_false(ok)
      assert.matches(expected, err)
    end
    assert.has_error(function() limit(0 / 0) end)
  end)
end)

describe("the helpers", function()
  it("find the nearest name", function()
    assert.equal("timeout", options.nearest("tiemout", { timeout = true, total = true }))
    assert.equal("NotFound", options.nearest("notfound", { "NotFound", "BadRequest" }))
    assert.is_nil(options.nearest("xyz", { "timeout" }))
    assert.equal("total", options.nearest("tot", { "total", "connect" }))
    assert.equal("api_key", options.nearest("key", { "api_key", "model", "keyboard_layout" }))
    assert.equal("attempts", options.nearest("max_attempts", { "attempts", "cap", "base" }))
    assert.is_nil(options.nearest("ap", { "stopgap" })) -- two letters are a part of too much
  end)

  it("raise for a field that is none, with the nearest, and find the rest", function()
    local gate = setmetatable({}, { __index = options.strict("a gate", { open = print }, { "width" }) })
    assert.equal(print, gate.open)
    assert.is_nil(gate[1])
    local ok, err = pcall(function() return gate.opn end)
    assert.is_false(ok)
    assert.matches('a gate has no field "opn" %(did you mean "open"%?%)', err)
    ok, err = pcall(function() return gate.widht end)
    assert.is_false(ok)
    assert.matches('did you mean "width"', err)
  end)

  it("tell a secret from a table", function()
    assert.equal("secret", options.type_name(secret.new "x"))
    assert.equal("table", options.type_name({}))
  end)
end)
