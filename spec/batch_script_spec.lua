-- SPDX-License-Identifier: MIT
-- scripts/batch.lua as a user runs it, and batches that are interrupted.
local emulators = require "emulator_process"
local json = require "sluice.json"
local support = require "support"
local it_of_program = support.about_program(it, pending)

local function with_folder(f)
  local folder = support.shell("mktemp -d").out:gsub("\n", "")
  local ok, failure = pcall(f, folder .. "/")
  os.execute("rm -rf " .. folder)
  if not ok then error(failure, 0) end
end

local write_file = support.write_file

local rows_of = support.json_lines

support.needing("server", describe, pending)("scripts/batch.lua", function()
  it("tries itself out", function()
    local result = support.sluice("--emulator", "scripts/batch.lua")
    assert.equal(0, result.status, result.err)
    local rows = {}
    for line in result.out:gmatch "[^\n]+" do rows[#rows + 1] = json.decode(line) end
    assert.same({ 20, 20, 20, "question 20" },
      { #rows, rows[20].row, rows[20].id, rows[20].response.choices[1].message.content })
    assert.matches("batch: 20/20 rows .*ok 20, failed 0", result.err)
    assert.matches("\n20 rows: 20 answered, 0 failed; %d+ tokens\n$", result.err)
  end)

  it("asks every line of a file, continues, and tells of rows with errors", function()
    local emulator <close> = emulators.start()
    with_folder(function(folder)
      local input, output = folder .. "in", folder .. "out"
      local line = '{"id":"%s","messages":[{"role":"user","content":"hello %s"}]}\n'
      write_file(input, line:format("a", "a") .. line:format("b", "b"))
      local command = emulator:command("scripts/batch.lua", "--endpoint", "e", "--input", input,
        "--output", output, "--concurrency", "4", "--report=" .. folder .. "report")
      local result = support.shell(command)
      assert.equal(0, result.status, result.err)
      local said = {}
      for _, row in ipairs(rows_of(output)) do said[row.id] = row.response.choices[1].message.content end
      assert.same({ a = "hello a", b = "hello b" }, said)
      result = support.shell(command)
      assert.equal(0, result.status, result.err)
      assert.equal(2, json.decode(support.read_file(folder .. "report")).resumed)
      local again = "\n2 rows: 2 answered, 0 failed; (%d+) tokens; of earlier runs 2 rows, %1 tokens\n"
      assert.matches(again, result.err)
      write_file(input, line:format("a", "a") .. "oops\n")
      result = support.shell(command)
      assert.equal(1, result.status)
      assert.matches("the input has changed", result.err)
      os.remove(output)
      result = support.shell(command)
      assert.equal(3, result.status, result.err)
      assert.matches("2 rows: 1 answered, 1 failed", result.err)
    end)
  end)

  it("asks nothing where there is no such endpoint", function()
    with_folder(function(folder)
      write_file(folder .. "in", '{"prompt":"a"}\n')
      local result = support.sluice("--emulator", "scripts/batch.lua", "--endpoint", "nowhere",
        "--input", folder .. "in", "--output", folder .. "out")
      assert.same({ 2, "" }, { result.status, result.out })
      assert.matches("batch.lua: Endpoint with name 'nowhere' does not exist.\nusage: ", result.err)
      assert.is_nil(io.open(folder .. "out"))
    end)
  end)

  it("says how it is used", function()
    for _, words in ipairs { { "--endpoint", "e" }, { "--what" }, { "--concurrency", "x" }, { "--input" } } do
      local result = support.sluice("--emulator", "scripts/batch.lua", table.unpack(words))
      assert.equal(2, result.status)
      assert.matches("usage: sluice batch.lua", result.err)
    end
  end)
end)

describe("Ctrl-C", function()
  local CHILD <const> = [[
    local sluice = require "sluice"
    local asked = 0
    local function query(_, request)
      asked = asked + 1
      if asked == 8 and arg[4] then io.popen("kill -" .. arg[4] .. " $PPID"):close() end
      sluice.task.sleep(tonumber(arg[3]))
      return request
    end
    local summary = assert(sluice.batch.run {
      input = arg[1], output = arg[2], concurrency = 4, endpoint = { query = query } })
    print(summary.rows, tostring(summary.stopped), tostring(summary.complete)) ]]

  -- The child; with a `signal` it gets that while it asks the rows 5 to 8.
  local function run(folder, seconds, signal)
    write_file(folder .. "child.lua", CHILD)
    local command = "%s %schild.lua %sin %sout %g %s"
    local binary = support.quote(support.binary)
    return support.shell(command:format(binary, folder, folder, folder, seconds, signal or ""))
  end

  local function run_behind(folder, seconds, signals)
    write_file(folder .. "child.lua", CHILD)
    local command = "%s %schild.lua %sin %sout %g & pid=$!; %s wait $pid"
    local binary = support.quote(support.binary)
    return support.shell(command:format(binary, folder, folder, folder, seconds, signals))
  end

  it_of_program("once: what runs is finished, the summary told, and the same call continues", function()
    with_folder(function(folder)
      write_file(folder .. "in", ('{"n":1}\n'):rep(20))
      local result = run(folder, 0.05, "TERM")
      assert.equal("8\tterminated\tfalse\n", result.out, result.err)
      assert.equal(143, result.status)
      assert.equal(8, #rows_of(folder .. "out"))
      result = run(folder, 0.01)
      assert.equal("20\tnil\ttrue\n", result.out, result.err)
      assert.equal(20, #rows_of(folder .. "out"))
    end)
  end)

  it_of_program("is an interrupt", function()
    with_folder(function(folder)
      write_file(folder .. "in", ('{"n":1}\n'):rep(20))
      local result = run(folder, 0.05, "INT")
      assert.equal("8\tinterrupted\tfalse\n", result.out, result.err)
      assert.equal(130, result.status)
    end)
  end)

  it("twice: at once, and nothing that was written is lost", function()
    with_folder(function(folder)
      write_file(folder .. "in", ('{"n":1}\n'):rep(20))
      -- a shell starts its background jobs with SIGINT ignored: SIGTERM takes the same way
      local result = run_behind(folder, 30, "sleep 0.2; kill -TERM $pid; sleep 0.1; kill -TERM $pid;")
      assert.same({ "", 143 }, { result.out, result.status })
      result = run(folder, 0.01)
      assert.equal("20\tnil\ttrue\n", result.out, result.err)
    end)
  end)
end)
