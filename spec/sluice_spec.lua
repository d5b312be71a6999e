-- SPDX-License-Identifier: MIT
local sluice = require "sluice"

describe("sluice", function()
  it("loads its parts when they are asked for", function()
    for _, name in ipairs { "task", "http", "web", "json", "log", "retry", "errors", "progress" } do
      assert.equal(require("sluice." .. name), sluice[name], name)
    end
    assert.is_function(sluice.layers.retry)
    assert.is_nil(sluice[1])
  end)

  it("names the field that was meant", function()
    local here = debug.getinfo(1, "l").currentline + 1
    local _, message = pcall(function() return sluice.pipelines end)
    local expected = ': sluice has no field "pipelines" %(did you mean "pipeline"%?%)'
    assert.matches("sluice_spec.lua:" .. here .. expected, message)
    assert.has_error(function() return sluice.no_such_part end)
    assert.is_nil(rawget(sluice, "no_such_part"))
  end)

  it("has the functions of its face", function()
    for _, name in ipairs { "workspace", "openai", "pipeline", "meta", "secret", "run" } do
      assert.is_function(sluice[name], name)
    end
    assert.matches("^%d+%.%d+%.%d+$", sluice.version)
  end)

  it("makes a pipeline that answers", function()
    local function model(request) return { text = "you said " .. request.prompt } end
    local endpoint = sluice.pipeline({ query = function(_, request) return model(request) end })
    assert.equal("you said hi", endpoint:query({ prompt = "hi" }).text)
    assert.same({}, sluice.meta(endpoint))
  end)
end)
