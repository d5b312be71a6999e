-- SPDX-License-Identifier: MIT
-- docs/sluice.1 says what `sluice --help` does.

local support = require "support"
local describe = support.about_program(describe, pending)

-- The manual as it is read, without the marks of its language.
local function manual()
  local text = support.read_file "docs/sluice.1"
  return (text:gsub("\\f.", ""):gsub("\\%-", "-"):gsub('"', ""):gsub("[ \n]+", " "))
end

-- What --help says, and what it says after each of the commands that it names.
local function all_usage()
  local usage = support.sluice("--help").out
  local pieces = { usage }
  for command in usage:gmatch "\n%s+sluice (%l+)" do
    pieces[#pieces + 1] = support.sluice(command, "--help").out
  end
  return table.concat(pieces)
end

describe("sluice(1)", function()
  it("names every command and option of --help", function()
    local text, usage, count = manual(), all_usage(), 0
    for word in usage:gmatch "%f[%w-]%-%-?%a[%w-]*" do
      assert.is_truthy(text:find(word:gsub("%-", "%%-") .. "%f[^%w-]"), word)
      count = count + 1
    end
    for command in usage:gmatch "\n%s+sluice (%l+)" do
      assert.is_truthy(text:find("sluice " .. command, 1, true), command)
      count = count + 1
    end
    assert.is_true(count > 30)
  end)

  it("says -h for --help of each command too, as they understand it", function()
    for command in support.sluice("--help").out:gmatch "\n%s+sluice (%l+)" do
      local result = support.sluice(command, "-h")
      assert.same({ 0, support.sluice(command, "--help").out }, { result.status, result.out })
    end
  end)

  it("names no option that --help does not", function()
    local usage = all_usage()
    for line in support.read_file("docs/sluice.1"):gmatch "\n%.TP\n([^\n]*)" do
      for word in line:gsub("\\%-", "-"):gmatch "%f[%w-]%-%-%a[%w-]*" do
        assert.is_truthy(usage:find(word, 1, true), word)
      end
    end
  end)

  it("is of this version, and of every exit status", function()
    local text = manual()
    assert.is_truthy(text:find("sluice " .. require("sluice").version, 1, true))
    for status in support.sluice("--help").out:match("Exit status: (.*)"):gmatch "%d+" do
      assert.is_truthy(text:find(".B " .. status .. " ", 1, true), status)
    end
  end)

  it("is well formed", function()
    if support.shell("command -v groff").status ~= 0 then return pending "groff is not installed" end
    assert.are.equal("", support.shell("groff -ww -man -Tutf8 docs/sluice.1 >/dev/null").err)
  end)
end)
