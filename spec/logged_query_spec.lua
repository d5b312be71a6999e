-- SPDX-License-Identifier: MIT
-- scripts/logged_query.lua, as a user runs it.
local json = require "sluice.json"
local support = require "support"

local describe = support.needing("server", describe, pending)

local function lines_of(text)
  local lines = {}
  for line in text:gmatch "[^\n]+" do lines[#lines + 1] = assert(json.decode(line), line) end
  return lines
end

describe("scripts/logged_query.lua", function()
  it("logs how each query starts and ends", function()
    local ran = support.sluice("--emulator", "scripts/logged_query.lua")
    assert.equal(0, ran.status, ran.err)
    assert.matches("%w", ran.out)
    local lines = lines_of(ran.err)
    local events = {}
    for index, line in ipairs(lines) do
      events[index] = line.event
      assert.equal(lines[1].run, line.run)
    end
    assert.same({ "started", "query_start", "query_success", "ended" }, events)
    local start, success = lines[2], lines[3]
    assert.same({ 17, "demo", "chat", "logged_query", success.request_id },
      { start.input_length, start.endpoint, start.operation, start.app, start.request_id })
    assert.is_true(success.duration_ms > 0 and success.input_tokens > 0 and success.output_tokens > 0)
    assert.same({ 200, 1, nil, nil }, { success.status, success.attempts, success.output, success.error })
  end)

  it("logs failures with the same fields, contents where asked to, and to a file", function()
    support.with_file("", function(path)
      local ran = support.sluice("--emulator", "scripts/logged_query.lua", "--file", path, "--content",
        "nowhere", "first", "second")
      assert.same({ 1, "" }, { ran.status, ran.err })
      local lines = lines_of(support.read_file(path))
      assert.equal(6, #lines)
      local inputs, ids = {}, {}
      for _, line in ipairs(lines) do
        if line.event == "query_start" then
          inputs[line.input[1].content] = true
          ids[line.request_id] = (ids[line.request_id] or 0) + 1
        elseif line.event == "query_error" then
          ids[line.request_id] = ids[line.request_id] + 1
          assert.same({ 404, "ResourceDoesNotExist", "RESOURCE_DOES_NOT_EXIST", "error", 1 },
            { line.status, line.error_kind, line.error_code, line.level, line.attempts })
          assert.is_true(line.duration_ms > 0)
        end
      end
      assert.same({ first = true, second = true }, inputs)
      for _, count in pairs(ids) do assert.equal(2, count) end
      assert.same({ 2, 0 }, { lines[6].failed, lines[6].answered })
    end)
  end)
end)
