-- SPDX-License-Identifier: MIT
local system = require "sluice.core.system"

describe("system", function()
  it("reads the environment", function()
    assert.equal(os.getenv("PATH"), system.getenv("PATH"))
    assert.is_nil(system.getenv("SLUICE_NO_SUCH_VARIABLE"))
  end)

  it("knows the wall clock", function()
    assert.is_true(math.abs(system.wall() - os.time()) < 2)
  end)

  it("writes UTC with milliseconds", function()
    assert.equal("1970-01-01T00:00:00.000Z", system.utc(0))
    assert.equal("2026-01-01T00:00:00.123Z", system.utc(1767225600.123))
    assert.equal("1969-12-31T23:59:59.999Z", system.utc(-0.001))
    assert.equal("2024-02-29T12:34:56.789Z", system.utc(1709210096.789))
    assert.has_error(function() system.utc(1e18) end)
    assert.has_error(function() system.utc(0 / 0) end)
  end)

  it("gives random bytes and numbers", function()
    assert.equal(32, #system.random(32))
    assert.not_equal(system.random(16), system.random(16))
    assert.equal("", system.random(0))
    assert.has_error(function() system.random(-1) end)
    local sum = 0
    for _ = 1, 10000 do
      local number = system.random_float()
      assert.is_true(number >= 0 and number < 1)
      sum = sum + number
    end
    assert.is_true(math.abs(sum / 10000 - 0.5) < 0.03)
  end)

  it("gives a file a stamp that changes with it", function()
    local path = os.tmpname()
    local stamp = system.file_stamp(path)
    assert.equal(stamp, system.file_stamp(path))
    assert(io.open(path, "w")):write("x"):close()
    assert.not_equal(stamp, system.file_stamp(path))
    os.remove(path)
    assert.same({ nil, "No such file or directory", 2 }, { system.file_stamp(path) })
  end)

  it("reads a small file, and says why not", function()
    local path = os.tmpname()
    local file = assert(io.open(path, "wb"))
    file:write(("x\0y"):rep(10000)):close()
    assert.equal(("x\0y"):rep(10000), system.read_file(path))
    os.remove(path)
    local bytes, text, code = system.read_file(path)
    assert.is_nil(bytes)
    assert.matches("No such file", text)
    assert.equal(2, code)
    assert.is_nil(system.read_file("/"))
  end)
end)
