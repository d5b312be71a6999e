-- SPDX-License-Identifier: MIT
local settings = require "sluice.settings"

describe("settings", function()
  it("come from the environment", function()
    assert.equal(os.getenv("PATH"), settings.get("PATH"))
    assert.is_nil(settings.get("SLUICE_NO_SUCH_VARIABLE"))
  end)

  it("are overlaid for this instance, not for the process", function()
    finally(function() settings.set { SLUICE_SPEC = false } end)
    settings.set { SLUICE_SPEC = "here" }
    assert.equal("here", settings.get("SLUICE_SPEC"))
    assert.is_nil(os.getenv("SLUICE_SPEC"))
    settings.set { SLUICE_SPEC = "" }
    assert.is_nil(settings.get("SLUICE_SPEC"))
    settings.set { SLUICE_SPEC = false }
    assert.is_nil(settings.get("SLUICE_SPEC"))
  end)

  it("tell where they come from", function()
    finally(function() settings.set { SLUICE_SPEC = false } end)
    settings.set { SLUICE_SPEC = "here" }
    assert.same({ "here", "command" }, { settings.find "SLUICE_SPEC" })
    assert.same({ os.getenv "PATH", "environment" }, { settings.find "PATH" })
    assert.same({}, { settings.find "SLUICE_NO_SUCH_VARIABLE" })
  end)
end)
