-- SPDX-License-Identifier: MIT
-- The scripts, as a user runs them: against a private emulator, by what they print and their status.
local json = require "sluice.json"
local process = require "sluice.core.process"
local support = require "support"

local describe = support.needing("server", describe, pending)
local MANY <const> = 1 << 20

describe("scripts/quickstart.lua", function()
  it("creates an endpoint, asks it, sums up, and deletes it", function()
    local result = support.sluice("--emulator", "scripts/quickstart.lua", "a-name", "30")
    assert.equal(0, result.status, result.err)
    assert.matches('^creating the endpoint "a%-name"\na%-name is READY\n', result.out)
    assert.matches("\n30 answers, 0 failed, %d+ tokens", result.out)
    assert.matches("\nthe first: %u", result.out)
    assert.matches("asking: 30/30 %(100%%%)", result.err)
  end)

  it("says how to set a host where there is none", function()
    local command = "env -u DATABRICKS_HOST -u DATABRICKS_TOKEN %s scripts/quickstart.lua"
    local result = support.shell(command:format(support.quote(support.binary)))
    assert.equal(1, result.status)
    assert.equal("", result.out)
    assert.matches("DATABRICKS_HOST", result.err)
    assert.matches("%-%-emulator", result.err)
  end)
end)

describe("each script", function()
  it("tells how it is used, and takes no option that it does not know", function()
    local paths, listed = support.shell("ls scripts/*.lua").out, support.read_file "docs/scripts.md"
    for path in paths:gmatch "%C+" do
      assert.is_truthy(listed:find("(../" .. path .. ")", 1, true), path .. " is not in docs/scripts.md")
      local usage = "usage: sluice " .. path:match "[^/]*$"
      local result = support.sluice(path, "--help")
      assert.same({ 0, "", usage }, { result.status, result.err, result.out:sub(1, #usage) }, path)
      result = support.sluice(path, "--nothing")
      assert.same({ 2, "" }, { result.status, result.out }, path)
      assert.is_truthy(result.err:find("unknown option --nothing", 1, true), path)
      assert.is_truthy(result.err:find(usage, 1, true), path)
    end
  end)
end)

describe("a script that tries itself out", function()
  it("makes nothing in a workspace that is no emulator", function()
    local web, made = require "sluice.web", 0
    local app = web.app {}
    app:get("/api/2.0/serving-endpoints", function() return { json = { endpoints = {} } } end)
    app:any("/*", function()
      made = made + 1
      return { status = 404, json = { error_code = "RESOURCE_DOES_NOT_EXIST" } }
    end)
    local server <close> = assert(app:listen "127.0.0.1:0")
    local own = "DATABRICKS_HOST=" .. server.url .. " DATABRICKS_TOKEN=any "
    local creators = { quickstart = true, get_or_create = true, create_large = true, ab_test = true,
      batch_worker = true }
    for path in support.shell("ls scripts/*.lua").out:gmatch "%C+" do
      if not creators[path:match "([%w_]+)%.lua$"] then
        local command = "timeout 10 env " .. own .. support.quote(support.binary) .. " " .. path
        local result = assert(process.run({ "sh", "-c", command .. " </dev/null" }, MANY, MANY))
        assert.same({ 2, "" }, { result.status, result.out }, path)
        assert.matches(" missing\nusage: ", result.err)
      end
    end
    assert.equal(0, made)
  end)
end)

describe("scripts/get_or_create.lua", function()
  it("creates the endpoint, waits, and asks it", function()
    local result = support.sluice("--emulator", "scripts/get_or_create.lua", "a-name")
    assert.equal(0, result.status, result.err)
    assert.matches("^a%-name is READY, created\n%u[^\n]+\n$", result.out)
    assert.matches("^a%-name: NOT_READY, IN_PROGRESS, rivers%-1 CREATING .*\na%-name: READY", result.err)
  end)

  it("finds one that is there, tells how it differs, and leaves it as it is", function()
    local both = [[
      dofile "scripts/get_or_create.lua"
      arg[1], arg[2], arg[3] = "rivers", "main.demo.rivers", "2"
      dofile "scripts/get_or_create.lua" ]]
    local result = support.with_file(both, function(path) return support.sluice("--emulator", path) end)
    assert.equal(3, result.status, result.err)
    assert.matches("\nrivers is READY, found\n"
      .. 'config.served_entities.rivers%-1.entity_version: wanted "2", found "1"\n$', result.out)
    assert.matches('"event":"endpoint differs from what is wanted"', result.err, 1, true)
  end)
end)

describe("scripts/create_large.lua", function()
  it("waits and tells what is served where", function()
    local result = support.sluice("--emulator", "scripts/create_large.lua", "big", "main.demo.big", "7")
    assert.equal(0, result.status, result.err)
    assert.equal("big serves main.demo.big 7 on GPU_LARGE\n", result.out)
    assert.matches("^big: NOT_READY, IN_PROGRESS, big%-7 CREATING .*, 0:00\n", result.err)
    assert.matches("big: READY, NOT_UPDATING, big%-7 READY, 0:01\n$", result.err)
  end)

  it("tells why it cannot", function()
    local result = support.sluice("--emulator", "scripts/create_large.lua", "a/b")
    assert.equal(1, result.status)
    assert.equal("", result.out)
    assert.matches("^create endpoint a/b: .*InvalidParameterValue", result.err)
  end)
end)

describe("scripts/concurrent.lua", function()
  local function rows_of(text)
    local rows = {}
    for line in text:gmatch "[^\n]+" do rows[#rows + 1] = assert(json.decode(line)) end
    return rows
  end

  it("answers in the order of the questions", function()
    local result = support.sluice("--emulator", "scripts/concurrent.lua")
    assert.equal(0, result.status, result.err)
    local rows = rows_of(result.out)
    assert.equal(20, #rows)
    for index, row in ipairs(rows) do assert.same({ row = index, answer = "question " .. index }, row) end
  end)

  it("tells failed rows by 3, and goes on with the others", function()
    local command = "printf 'one\\ntwo\\n' | %s --emulator scripts/concurrent.lua no-such-endpoint 2"
    local result = support.shell(command:format(support.quote(support.binary)))
    assert.equal(3, result.status)
    local rows = rows_of(result.out)
    assert.same({ 1, 2 }, { rows[1].row, rows[2].row })
    assert.equal("ResourceDoesNotExist", rows[1].error.kind)
    assert.equal("ResourceDoesNotExist", rows[2].error.kind)
  end)
end)

describe("scripts/stream.lua", function()
  it("writes a story as it comes, and its figures beside it", function()
    local result = support.sluice("--emulator", "scripts/stream.lua")
    assert.equal(0, result.status, result.err)
    assert.matches("^%u[^\n]+%p\n$", result.out)
    assert.matches("^%l+ after [%d.]+ s, the first word after %d+ ms; %d+ tokens\n$", result.err)
  end)

  it("says what is wrong with an endpoint that is not there", function()
    local result = support.sluice("--emulator", "scripts/stream.lua", "nowhere")
    assert.equal(1, result.status)
    assert.equal("", result.out)
    assert.matches("stream endpoint nowhere: .*ResourceDoesNotExist", result.err)
  end)
end)

describe("scripts/degrade.lua", function()
  it("is answered by the others while the best endpoint is down, and by it again in the end", function()
    local result = support.sluice("--emulator", "scripts/degrade.lua")
    assert.equal(0, result.status, result.err)
    local lines = {}
    for line in result.out:gmatch "[^\n]+" do lines[#lines + 1] = line end
    assert.equal(12, #lines)
    assert.matches("^ 1 best: %u", lines[1])
    assert.matches("^ 4 cheaper %(best: TemporarilyUnavailable%): %u", lines[4])
    assert.matches("^ 7 sorry %(best: CircuitOpen, cheaper: TemporarilyUnavailable%): Ask me later", lines[7])
    assert.matches("^12 best: %u", lines[12])
  end)
end)
