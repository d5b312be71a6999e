-- SPDX-License-Identifier: MIT
-- Tracebacks for people.

local support = require "support"
local traceback = require "sluice.traceback"

local TRACE <const> = [[
stack traceback:
	[C]: in function 'error'
	lua/sluice/options.lua:1: in upvalue '?'
	[C]: in function 'pcall'
	lua/sluice/retry.lua:2: in function 'sluice.retry.policy'
	[C]: in function 'table.sort'
	app.lua:3: in function 'f'
	lua/sluice/task.lua:9: in function 'sluice.task.map'
	app.lua:4: in main chunk
	[C]: in function 'xpcall'
	runtime/host/command.lua:5: in function <runtime/host/command.lua:1>]]

local SCRIPT <const> = [[

	[C]: in function 'table.sort'
	app.lua:3: in function 'f'
	lua/sluice/task.lua:9: in function 'sluice.task.map'
	app.lua:4: in main chunk]]

describe("a traceback", function()
  it("begins where the script is", function()
    assert.equal("app.lua:3: no" .. "\nstack traceback:" .. SCRIPT, traceback.tidy("app.lua:3: no", TRACE))
    assert.equal("no", traceback.tidy("no", "stack traceback:\n\t[C]: in function 'error'"))
    assert.equal("no", traceback.tidy("no", ""))
  end)

  it("shows all of it where the fault is the library's", function()
    local text = traceback.tidy("lua/sluice/retry.lua:2: attempt to index a nil value", TRACE)
    assert.matches("\nstack traceback:\n\tlua/sluice/options.lua:1: ", text, 1, true)
    assert.matches("app.lua:4: in main chunk$", text)
  end)
end)

support.about_program(describe, pending)("a misuse", function()
  it("is told with the lines of the script alone", function()
    local script = 'local sluice = require "sluice"\nsluice.layers.retry { atempts = 3 }\nprint(1)'
    support.with_file(script, function(path)
      local result = support.sluice(path)
      assert.equal(1, result.status)
      local said = ':2: layers.retry: unknown option "atempts" (did you mean "attempts"?)\n'
      assert.matches(said .. "stack traceback:\n\t" .. path .. ":2: in main chunk\n", result.err, 1, true)
      assert.not_matches("lua/sluice/", result.err)
    end)
  end)
end)
