-- SPDX-License-Identifier: MIT
local errors = require "sluice.errors"
local json = require "sluice.json"
local layers = require "sluice.layers"
local log = require "sluice.log"
local meta = require "sluice.meta"
local pipeline = require "sluice.pipeline"
local task = require "sluice.task"

local echo = {
  name = "echo",
  host = "local",
  query = function(_, request, options) return { request = request, options = options } end,
  state = function(self) return self.name .. " is ready" end,
}

-- A layer that writes its name into a copy of the request.
local function tag(name)
  return layers.around {
    query = function(inner, request, options)
      return inner:query({ path = (request.path or "") .. name }, options)
    end,
  }
end

describe("pipeline.new", function()
  it("puts the first layer outermost", function()
    local endpoint = pipeline.new(echo, { tag "a", tag "b", tag "c" })
    local request = {}
    assert.equal("abc", endpoint:query(request, { x = 1 }).request.path)
    assert.same({}, request)
    assert.same({ x = 1 }, endpoint:query(request, { x = 1 }).options)
  end)

  it("tells where a layer was not called, or a method was called with a dot", function()
    local _, message = pcall(pipeline.new, echo, { tag "a", layers.retry })
    assert.matches("layer 2 is layers.retry itself: call it, as in layers.retry{...}", message, 1, true)
    local endpoint = pipeline.new(echo, { tag "a", layers.timeout(3) })
    for _, misuse in ipairs {
      function() endpoint.query { messages = {} } end,
      function() endpoint.query({ messages = {} }, { timeout = 1 }) end,
      function() endpoint.query() end,
    } do
      _, message = pcall(misuse)
      assert.matches("pipeline_spec.lua:%d+: endpoint:query is a method: call it with a colon", message)
    end
    local inherits = setmetatable({ name = "another" }, { __index = endpoint })
    assert.equal("a", inherits:query({}).request.path)
  end)

  it("reports misuse at the line of the caller, through every layer", function()
    local databricks, client = require "sluice.endpoints.databricks", require "sluice.endpoints.client"
    local leaf = databricks.new(client.new { base = "http://h", host = "h", transport = {} }, "e")
    local endpoint = pipeline.new(leaf, {
      layers.log {}, layers.retry {}, layers.retry { total = 9 }, layers.limit { rate = 9 },
      layers.timeout(3),
    })
    local previous = log.set_output(function() end)
    local here = debug.getinfo(1, "l").currentline + 2
    for expected, misuse in pairs {
      ['endpoint:query: unknown option "timout"'] = function() endpoint:query({}, { timout = 1 }) end,
      ['query endpoint e: .* f: a function'] = function() return (endpoint:query { f = print }) end,
      ['argument "request" must be a table, got nil'] = function() assert(endpoint:query()) end,
    } do
      local _, message = pcall(misuse)
      local line = tonumber(message:match("^spec/pipeline_spec.lua:(%d+): "))
      assert.is_true(line and line >= here and line <= here + 2, message)
      assert.matches(expected, message)
    end
    log.set_output(previous)
  end)

  it("takes a layer that a user wrote, and an endpoint without layers", function()
    local function shout(inner)
      return { query = function(_, request) return inner:query { text = request.text:upper() } end }
    end
    assert.equal("HI", pipeline.new(echo, { shout }):query({ text = "hi" }).request.text)
    assert.equal(echo, pipeline.new(echo))
  end)

  it("says which layer is none", function()
    for _, case in ipairs {
      { {}, {}, "the endpoint must have a method query, got table" },
      { "x", {}, "the endpoint must have a method query, got string" },
      { echo, { tag "a", 5 }, "layer 2 must be a function, got number" },
      { echo, { tag "a", function() end }, "layer 2 returned no endpoint, but nil" },
      { echo, { a = tag "a" }, 'layers are an array, found the key "a"' },
      { echo, "x", 'argument "layers" must be a table, got string' },
    } do
      local ok, message = pcall(function() pipeline.new(case[1], case[2]) end)
      assert.is_false(ok)
      assert.matches("pipeline_spec.lua:%d+: sluice.pipeline: " .. case[3], message)
    end
  end)
end)

describe("layers.around", function()
  it("lets fields and methods of the endpoint inside through", function()
    local endpoint = pipeline.new(echo, { tag "a", tag "b" })
    assert.equal("echo", endpoint.name)
    assert.equal("echo is ready", endpoint:state())
    assert.is_nil(endpoint.stream)
    assert.is_nil(endpoint.nothing)
  end)

  it("passes a stream through, or does something about it", function()
    local streaming = { query = print, stream = function(_, request) return { request.x } end }
    assert.same({ 1 }, layers.around {}(streaming):stream { x = 1 })
    local doubled = layers.around {
      stream = function(inner, request) return inner:stream { x = request.x * 2 } end,
    }
    assert.same({ 2 }, doubled(streaming):stream { x = 1 })
    assert.is_nil(doubled(echo).stream)
  end)

  it("adds fields, and refuses unknown parts", function()
    assert.equal(7, layers.around { fields = { seven = 7 } }(echo).seven)
    assert.has_error(function() layers.around { qery = print } end)
  end)

  it("copies options to change them", function()
    local given = { a = 1, b = 2 }
    assert.same({ a = 1, b = 3 }, layers.with_options(given, { b = 3 }))
    assert.same({ a = 1, b = 2 }, given)
    assert.same({ b = 3 }, layers.with_options(nil, { b = 3 }))
  end)

  it("finds the layers by name", function()
    local retry_layer, timeout_layer = require "sluice.layers.retry", require "sluice.layers.timeout"
    local limit_layer, log_layer = require "sluice.layers.limit", require "sluice.layers.log"
    assert.same({ retry_layer, timeout_layer, limit_layer, log_layer },
      { layers.retry, layers.timeout, layers.limit, layers.log })
    local here = debug.getinfo(1, "l").currentline + 1
    local _, message = pcall(function() return layers.no_such_layer end)
    local expected = ': sluice.layers has no field "no_such_layer"'
    assert.matches("pipeline_spec.lua:" .. here .. expected, message)
    _, message = pcall(function() return layers.timeouts end)
    assert.matches('did you mean "timeout"', message)
    assert.is_nil(rawget(layers, "no_such_layer"))
  end)
end)

describe("layers.log", function()
  local function lines_of(f)
    local lines = {}
    local previous = log.set_output(function(line) lines[#lines + 1] = json.decode(line) end)
    f()
    log.set_output(previous)
    return lines
  end

  it("writes lines for each request, without its contents", function()
    local model = {
      name = "m",
      query = function(_, request)
        if request.fail then
          local fields = { status = 400, message = "no", request_id = "r-2", code = "C" }
          return nil, errors.new("BadRequest", fields)
        end
        local response = { usage = { prompt_tokens = 3, completion_tokens = 4 } }
        return meta.set(response, { status = 200, request_id = "r-1", attempts = { {}, {} }, variant = "b" })
      end,
    }
    local lines = lines_of(function()
      local endpoint = pipeline.new(model, { layers.log { fields = { app = "spec" } } })
      endpoint:query { prompt = "private words" }
      endpoint:query({ prompt = "private words", fail = true }, { request_id = "mine" })
      pipeline.new(model, { layers.log { level = "debug" } }):query {}
    end)
    assert.equal(4, #lines)
    local start, good, bad = lines[1], lines[2], lines[4]
    assert.same({ "query_start", "info", "m", "text_completion", 13, "spec" },
      { start.event, start.level, start.endpoint, start.operation, start.input_length, start.app })
    assert.same({ "query_success", "info", "m", "text_completion", "spec", 200, "r-1", 2, 3, 4, "b" }, {
      good.event, good.level, good.endpoint, good.operation, good.app, good.status, good.upstream_request_id,
      good.attempts, good.input_tokens, good.output_tokens, good.variant,
    })
    assert.equal(start.request_id, good.request_id)
    assert.is_number(good.duration_ms)
    assert.same({ "query_start", "mine" }, { lines[3].event, lines[3].request_id })
    assert.same({ "query_error", "error", 400, "mine", "r-2", "BadRequest", "C", 1 }, {
      bad.event, bad.level, bad.status, bad.request_id, bad.upstream_request_id, bad.error_kind,
      bad.error_code, bad.attempts,
    })
    assert.matches("no", bad.error)
    assert.is_number(bad.duration_ms)
    assert.is_nil(json.encode(lines):find("private", 1, true))
  end)

  it("writes contents where it is asked to, and no start where it is not", function()
    local answer = { choices = { { message = { content = "an answer" } } } }
    local model = { query = function() return answer end }
    local messages = { { role = "user", content = "private words" } }
    local lines = lines_of(function()
      pipeline.new(model, { layers.log { content = true } }):query { messages = messages }
      pipeline.new(model, { layers.log { content = true, start = false } }):query { prompt = "p" }
      answer = { predictions = { 1 } }
      pipeline.new(model, { layers.log { content = true, start = false } }):query { inputs = { 2 } }
    end)
    assert.same({ messages, nil, "an answer" }, { lines[1].input, lines[2].input, lines[2].output })
    assert.same({ "query_success", "p", "an answer" }, { lines[3].event, lines[3].input, lines[3].output })
    assert.same({ { inputs = { 2 } }, answer }, { lines[4].input, lines[4].output })
    assert.equal(4, #lines)
    assert.has_error(function() layers.log { contents = true } end)
  end)

  it("tells a cancellation from a failure", function()
    local lines = lines_of(function()
      task.simulate(function()
        local chat = layers.log { start = false } { query = function() task.sleep(5) end }
        local asking = task.spawn(chat.query, chat, {})
        task.sleep(1)
        asking:cancel()
        pcall(asking.join, asking)
      end)
    end)
    assert.same({ "query_error", "info", true, "TaskCancelled", 1000 }, {
      lines[1].event, lines[1].level, lines[1].aborted, lines[1].error_kind, lines[1].duration_ms,
    })
  end)
end)
