-- SPDX-License-Identifier: MIT
-- The runtime's own require: as Lua's, but a module's top level can wait.

local support = require "support"
local describe = support.about_program(describe, pending)
local task = require "sluice.task"

local count = 0

-- Runs f with the name of a module that `loader` loads.
local function with_module(loader, f)
  count = count + 1
  local name = "spec_require_" .. count
  package.preload[name] = loader
  local ok, err = pcall(f, name)
  package.preload[name], package.loaded[name] = nil, nil
  if not ok then error(err, 0) end
end

describe("require", function()
  it("lets the top level of a module wait, and loads it once for all who ask", function()
    task.simulate(function()
      local loads = 0
      with_module(function()
        loads = loads + 1
        task.sleep(2)
        return { number = loads }
      end, function(name)
        local rows = task.map({ 1, 2, 3 }, function() return require(name) end)
        for _, row in ipairs(rows) do assert.are.equal(1, row.value.number) end
        assert.are.equal(2, task.now())
        assert.are.equal(rows[1].value, require(name))
      end)
    end)
  end)

  it("tries again for those who waited when the first one fails", function()
    task.simulate(function()
      local loads = 0
      with_module(function()
        loads = loads + 1
        task.sleep(1)
        if loads == 1 then error "not yet" end
        return "second"
      end, function(name)
        local rows = task.map({ 1, 2 }, function() return require(name) end)
        assert.is_false(rows[1].ok)
        assert.matches("not yet", rows[1].error)
        assert.are.equal("second", rows[2].value)
      end)
    end)
  end)

  it("lets others load what a cancelled task was loading", function()
    task.simulate(function()
      with_module(function()
        task.sleep(1)
        return "loaded"
      end, function(name)
        local first = task.spawn(require, name)
        task.sleep(0)
        local second = task.spawn(require, name)
        task.sleep(0)
        first:cancel()
        assert.are.equal("loaded", (second:join()))
      end)
    end)
  end)

  it("refuses a module that requires itself", function()
    local own
    with_module(function() return require(own) end, function(name)
      own = name
      local ok, err = pcall(require, name)
      assert.is_false(ok)
      assert.matches("requires itself", err)
    end)
  end)

  it("passes the name and what the searcher gave, and returns both values", function()
    with_module(function(...) return { ... } end, function(name)
      local value, data = require(name)
      assert.are.same({ name, ":preload:" }, value)
      assert.are.equal(":preload:", data)
    end)
  end)

  it("finds a module behind many paths that do not have it", function()
    local path, far = package.path, package.searchers
    local long = {}
    for i = 1, 60 do long[i] = "/nowhere/with/a/long/name/" .. i .. "/?.lua" end
    package.path = table.concat(long, ";")
    far[#far + 1] = function(name)
      if name == "spec.far.away" then return function() return "found" end, "far" end
      return "no far module"
    end
    local found, where = require "spec.far.away"
    local ok, err = pcall(require, "spec.no.such.module")
    package.path, far[#far] = path, nil
    package.loaded["spec.far.away"] = nil
    assert.are.equal("found", found)
    assert.are.equal("far", where)
    assert.is_false(ok)
    assert.matches("module 'spec%.no%.such%.module' not found:\n\tno field", err)
    assert.matches("\n\tno file '/nowhere/with/a/long/name/60/spec/no/such/module%.lua'\n", err)
    assert.matches("\n\tno far module$", err)
  end)
end)
