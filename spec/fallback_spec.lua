-- SPDX-License-Identifier: MIT
local errors = require "sluice.errors"
local fallback_layer = require "sluice.layers.fallback"
local json = require "sluice.json"
local layers = require "sluice.layers"
local log = require "sluice.log"
local sluice = require "sluice"
local stream = require "sluice.stream"
local stream_server = require "stream_server"
local helper = require "http_helper"

-- An endpoint that fails with this kind, or answers with its name. It keeps what it was asked.
local function endpoint_of(name, kind)
  local endpoint = { name = name, asked = {} }
  local function outcome(request, options)
    endpoint.asked[#endpoint.asked + 1] = { request = request, options = options }
    if kind then return nil, errors.new(kind, { operation = "query", object = name, message = "no" }) end
    return { from = name }
  end
  function endpoint.query(_, ...) return outcome(...) end
  function endpoint.stream(_, ...)
    local value, err = outcome(...)
    if not value then return nil, err end
    return stream.wrap { next = function() return nil end, close = function() end, from = name }
  end
  return endpoint
end

describe("layers.fallback", function()
  it("is a layer of its own name", function()
    assert.are.equal(fallback_layer, layers.fallback)
  end)

  it("does not ask anybody else while the first one answers", function()
    local first, second = endpoint_of "first", endpoint_of "second"
    local answer = assert(layers.fallback { second }(first):query {})
    assert.are.equal("first", answer.from)
    assert.are.same({}, second.asked)
    local facts = sluice.meta(answer)
    assert.are.equal("first", facts.answered_by)
    assert.is_nil(facts.degraded)
  end)

  it("asks the next one, and tells who answered and why", function()
    for _, method in ipairs { "query", "stream" } do
      local first = endpoint_of("first", "TemporarilyUnavailable")
      local second = endpoint_of("second", "ConnectError")
      local third, seen = endpoint_of "third", {}
      local outer = layers.fallback {
        second, third, on_fallback = function(err, endpoint) seen[#seen + 1] = err.kind .. endpoint.name end,
      } (first)
      local request = { x = 1 }
      local answer = assert(outer[method](outer, request, { timeout = 3, served_model = "a" }))
      local facts = sluice.meta(answer)
      assert.are.equal("third", facts.answered_by)
      assert.are.equal(2, #facts.degraded)
      assert.are.same({ "first", "TemporarilyUnavailable", "second", "ConnectError" }, {
        facts.degraded[1].endpoint, facts.degraded[1].error.kind,
        facts.degraded[2].endpoint, facts.degraded[2].error.kind,
      })
      assert.are.same({ "TemporarilyUnavailablesecond", "ConnectErrorthird" }, seen)
      assert.are.equal("a", first.asked[1].options.served_model)
      assert.are.same({ request = request, options = { timeout = 3 } }, third.asked[1])
      assert.are.equal(request, third.asked[1].request)
    end
  end)

  local ON_BY_DEFAULT <const> = {
    TooManyRequests = true, RequestLimitExceeded = true, InternalError = true, NotImplemented = true,
    ResourceDoesNotExist = true, ConnectError = true, TLSError = true, TimeoutError = true,
    TruncatedStream = true, JsonError = true, QueueFull = true, CircuitOpen = true,
    BadRequest = false, InvalidParameterValue = false, Unauthenticated = false, PermissionDenied = false,
    ResourceConflict = false, TaskCancelled = false, ConfigError = false,
  }

  it("asks on after what another endpoint may do better", function()
    for kind, expected in pairs(ON_BY_DEFAULT) do
      local second = endpoint_of "second"
      local answer, err = layers.fallback { second }(endpoint_of("first", kind)):query {}
      assert.are.equal(expected, answer ~= nil, kind)
      if not expected then
        assert.are.equal(kind, err.kind)
        assert.is_nil(err.fallbacks)
      end
    end
  end)

  it("takes kinds, or a function, instead", function()
    local function asks(on, kind)
      return layers.fallback { endpoint_of "b", on = on }(endpoint_of("a", kind)):query {} ~= nil
    end
    assert.is_true(asks({ "BadRequest" }, "InvalidParameterValue"))
    assert.is_false(asks({ "BadRequest" }, "ConnectError"))
    assert.is_true(asks(function(err) return err.kind == "PermissionDenied" end, "PermissionDenied"))
    assert.is_false(asks(function() return true end, "TaskCancelled"))
  end)

  it("gives the last err, with those before it, when nobody answers", function()
    local outer = layers.fallback {
      endpoint_of("b", "ConnectError"), endpoint_of("c", "BadRequest"), endpoint_of "d",
    }
    local answer, err = outer(endpoint_of("a", "InternalError")):query {}
    assert.is_nil(answer)
    assert.are.equal("BadRequest", err.kind) -- it is not for "d" to mend
    assert.are.equal(2, #err.fallbacks)
    assert.are.equal("a", err.fallbacks[1].endpoint)
    assert.are.equal("InternalError", err.cause.kind)
    assert(tostring(err):find("query c: no", 1, true) and tostring(err):find("because: query a: no", 1, true))
  end)

  it("passes over endpoints that cannot stream", function()
    local plain = { name = "plain", query = print }
    local outer = layers.fallback { plain, endpoint_of "last" }(endpoint_of("a", "ConnectError"))
    assert.are.equal("last", sluice.meta(assert(outer:stream {})).answered_by)
  end)

  it("shows in the log", function()
    local lines = {}
    local previous = log.set_output(function(line) lines[#lines + 1] = assert(json.decode(line)) end)
    local outer = sluice.pipeline(endpoint_of("a", "ConnectError"), {
      layers.log { start = false }, layers.fallback { endpoint_of "b" },
    })
    local ok = outer:query {}
    log.set_output(previous)
    assert(ok)
    assert.are.same({ "info", "b", "ConnectError" },
      { lines[1].level, lines[1].answered_by, lines[1].degraded })
  end)

  it("checks its options", function()
    for _, wrong in ipairs {
      {}, { 1 }, { {} }, { endpoint_of "a", on = {} }, { endpoint_of "a", on = { "NoKind" } },
      { endpoint_of "a", when = 1 },
    } do
      assert.has_error(function() layers.fallback(wrong) end)
    end
    assert.has_error(function() layers.fallback() end)
  end)

  describe("on streams", function()
    after_each(helper.stop)

    local function server_of(...)
      local pieces = { ... }
      local server = stream_server.start(function() return pieces end)
      return sluice.openai { base_url = server.base, model = "m" }
    end

    local delta, DONE = stream_server.delta, stream_server.DONE
    local FAILS <const> = 'data: {"error":{"message":"busy","code":"unavailable"}}\n\n'

    it("acts until the first content", function()
      local outer = layers.fallback { server_of(delta "good", DONE) } (server_of(": wait\n\n", FAILS))
      local answer = assert(assert(outer:stream { messages = {} }):collect())
      assert.are.equal("good", answer.choices[1].message.content)
      assert.are.equal("TemporarilyUnavailable", sluice.meta(answer).degraded[1].error.kind)
    end)

    it("and never after it", function()
      local second = endpoint_of "second"
      local outer = layers.fallback { second } (server_of(delta "half an ans", FAILS))
      local answer, err = assert(outer:stream { messages = {} }):collect()
      assert.is_nil(answer)
      assert.are.same({ "TemporarilyUnavailable", "half an ans" }, { err.kind, err.partial })
      assert.are.same({}, second.asked)
    end)
  end)
end)
