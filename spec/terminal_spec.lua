-- SPDX-License-Identifier: MIT
-- sluice.core.terminal: what a terminal tells, and writes that arrive whole.

local terminal = require "sluice.core.terminal"

local function this_program()
  local pipe <close> = assert(io.popen("readlink /proc/$PPID/exe"))
  return pipe:read("l")
end

local function output_of(command)
  local pipe <close> = assert(io.popen(command))
  return pipe:read("a")
end

-- Runs a chunk in a process of its own, in the shell command `format` with the process in place of %s.
local function run(chunk, format)
  local path = os.tmpname()
  local file = assert(io.open(path, "w"))
  file:write('local terminal = require "sluice.core.terminal"\n', chunk)
  file:close()
  local output = output_of(format:format(("'%s' %s"):format(this_program(), path)))
  os.remove(path)
  return (output:gsub("\r\n", "\n"))
end

describe("the terminal", function()
  it("is told from a pipe, with its size as it is now", function()
    local chunk = "print(terminal.isatty(1), terminal.size(1))\n"
    assert.equal("false\tnil\n", run(chunk, "%s"))
    assert.equal("true\t77\t21\n", run(chunk, 'script -qec "stty cols 77 rows 21; %s" /dev/null'))
    assert.equal("true\tnil\n", run(chunk, 'script -qec "stty cols 0 rows 0; %s" /dev/null'))
  end)

  it("gets bytes whole, however slowly they are taken", function()
    -- more than a pipe holds, and a reader that starts late
    local chunk = "print(terminal.write(1, ('x'):rep(300000) .. '\\n'))\n"
    local output = run(chunk, "%s | { sleep 0.1; cat; }")
    assert.equal(("x"):rep(300000) .. "\ntrue\n", output)
  end)

  it("says why it cannot be written to", function()
    assert.same({ nil, "Bad file descriptor", 9 }, { terminal.write(1 << 20, "x") })
    assert.same({ nil, "No space left on device", 28 }, (function()
      local output = run("print(select(2, terminal.write(2, 'x')))\n", "%s 2>/dev/full")
      local message, number = output:match("^([^\t]+)\t(%d+)\n$")
      return { nil, message, tonumber(number) }
    end)())
    assert.is_false(terminal.isatty(1 << 20))
    assert.is_nil(terminal.size(1 << 20))
  end)

  it("raises for what is no descriptor", function()
    for _, f in pairs(terminal) do
      assert.has_error(function() f(-1, "x") end)
      assert.has_error(function() f("x", "x") end)
    end
    assert.has_error(function() terminal.write(2, nil) end)
  end)
end)
