-- SPDX-License-Identifier: MIT
local layers = require "sluice.layers"
local task = require "sluice.task"

describe("layers.timeout", function()
  local function endpoint_seeing(seen, wait)
    return {
      name = "e",
      query = function(_, _, options)
        seen[#seen + 1] = options
        if wait then task.sleep(wait) end
        return {}
      end,
      stream = function(_, _, options)
        seen[#seen + 1] = options
        return { "stream" }
      end,
    }
  end

  it("hands its limits on, and copies the caller's options", function()
    task.simulate(function()
      local seen = {}
      local endpoint = layers.timeout { total = 30, connect = 2 }(endpoint_seeing(seen))
      local given = { request_id = "r", timeout = { total = 5, idle = 9 } }
      endpoint:query({}, nil)
      endpoint:query({}, given)
      endpoint:query({}, { timeout = 60 })
      endpoint:stream({}, { timeout = 1 })
      assert.same({ timeout = { total = 30, connect = 2 } }, seen[1])
      assert.same({ request_id = "r", timeout = { total = 5, connect = 2, idle = 9 } }, seen[2])
      assert.same({ total = 30, connect = 2 }, seen[3].timeout)
      assert.same({ total = 1, connect = 2 }, seen[4].timeout)
      assert.same({ request_id = "r", timeout = { total = 5, idle = 9 } }, given)
    end)
  end)

  it("cuts what is inside when that does not do it by itself", function()
    task.simulate(function()
      local started = task.now()
      local value, err = layers.timeout(3)(endpoint_seeing({}, 100)):query {}
      assert.is_nil(value)
      assert.same({ "TimeoutError", "total", true }, { err.kind, err.limit, err.maybe_executed })
      assert.matches("query e: no answer within the 3 s of layers.timeout", tostring(err))
      assert.is_true(math.abs(task.now() - started - 3) < 1e-3)
    end)
  end)

  it("leaves it to an endpoint that keeps to the limit", function()
    task.simulate(function()
      local endpoint = endpoint_seeing({}, 100)
      endpoint.honours_timeout = true
      assert.is_table(layers.timeout(3)(endpoint):query {})
      -- but not through another layer: what waits there is not the endpoint's to bound
      local inside = layers.around {}(endpoint)
      assert.is_nil(layers.timeout(3)(inside):query {})
    end)
  end)

  it("bounds all tries when it is outside of a retry", function()
    task.simulate(function()
      local errors = require "sluice.errors"
      local failing = { query = function() return nil, errors.new("ServiceError") end }
      local started = task.now()
      local retrying = layers.retry { attempts = 1000, base = 1, random = function() return 1 end }
      local _, err = layers.timeout(20)(retrying(failing)):query {}
      assert.equal("TimeoutError", err.kind)
      assert.is_true(math.abs(task.now() - started - 20) < 1e-3)
    end)
  end)

  it("leaves a deadline from outside to whoever set it", function()
    task.simulate(function()
      local value, err = task.timeout(1, function()
        return layers.timeout(3)(endpoint_seeing({}, 100)):query {}
      end)
      assert.is_nil(value)
      assert.matches("1 s of task.timeout", tostring(err))
    end)
  end)

  it("refuses what is no limit", function()
    assert.has_error(function() layers.timeout() end)
    assert.has_error(function() layers.timeout { totl = 1 } end)
    assert.has_error(function() layers.timeout "5" end)
    local _, message = pcall(function() layers.timeout(-1) end)
    assert.matches("layers.timeout: the limits must be a number of seconds, at least 0, got %-1", message)
    _, message = pcall(function() layers.timeout { totl = 1 } end)
    assert.matches("timeout_spec.lua:%d+: layers.timeout: unknown option \"totl\"", message)
  end)
end)
