-- SPDX-License-Identifier: MIT
-- scripts/batch_worker.lua as a user runs it.
local support = require "support"
local describe = support.needing("redis", support.needing("server", describe, pending), pending)
local it_of_program = support.about_program(it, pending)

local emulators = require "emulator_process"
local fixture = require "redis_server"
local json = require "sluice.json"

describe("scripts/batch_worker.lua", function()
  local server, folder, emulator

  local function command(...)
    return "REDIS_URL=unix:" .. server.path .. " " .. emulator:command(...)
  end

  setup(function()
    server = fixture.start "--requirepass right"
    folder = support.shell("mktemp -d").out:gsub("\n", "") .. "/"
    emulator = emulators.start()
  end)
  teardown(function()
    emulator:stop()
    server:stop()
    os.execute("rm -rf " .. folder)
  end)

  local function write_file(name, text)
    local file <close> = assert(io.open(folder .. name, "wb"))
    file:write(text)
    return folder .. name
  end

  it("does all of it in one process, beside others that only work, and does nothing twice", function()
    local lines = {}
    for n = 1, 40 do
      lines[n] = ('{"id":%d,"messages":[{"role":"user","content":"hello %d"}]}\n'):format(n, n)
    end
    local script, input = "scripts/batch_worker.lua", write_file("in", table.concat(lines))
    local output, url = folder .. "out", "redis://:right@127.0.0.1:" .. server.port
    local all = {
      script, "--redis", url, "--batch", "spec", "--endpoint", "e", "--input", input, "--output", output,
      "--report", folder .. "report", "--concurrency=4",
    }
    local worker = command(script, "--redis", url, "--batch", "spec", "--endpoint", "e")
    local result = support.shell(("%s 2>%sworker & %s; status=$?; wait; exit $status"):format(
      worker, folder, command(table.unpack(all))))
    assert.equal(0, result.status, result.err)
    assert.matches("batch: 40 rows, 40 answered, 0 failed; %d+ tokens\n", result.err)
    assert.matches("this worker: %d+ rows", support.read_file(folder .. "worker"))
    local row = 0
    for line in io.lines(output) do
      row = row + 1
      local parsed = json.decode(line)
      assert.same({ row, row, "hello " .. row },
        { parsed.row, parsed.id, parsed.response.choices[1].message.content })
    end
    assert.equal(40, row)
    result = support.shell(command(table.unpack(all)))
    assert.equal(0, result.status, result.err)
    assert.matches("this worker: 0 rows", result.err)
    assert.equal(40, json.decode(support.read_file(folder .. "report")).resumed)
    write_file("in", lines[1] .. "oops\n")
    result = support.shell(command(table.unpack(all)))
    assert.equal(1, result.status)
    assert.matches("begun with another input", result.err)
    os.remove(output)
    all[#all + 1] = "--delete"
    result = support.shell(command(table.unpack(all)))
    assert.equal(3, result.status, result.err)
    assert.matches("batch: 2 rows, 1 answered, 1 failed", result.err)
  end)

  it_of_program("finishes what it asks when it is interrupted, and goes on later", function()
    local line = '{"messages":[{"role":"user","content":"hello"}]}\n'
    local input, output = write_file("many", line:rep(6000)), folder .. "many.out"
    local script = "scripts/batch_worker.lua"
    local words = command(script, "--batch", "many", "--endpoint", "e", "--input", input, "--output", output)
    words = words:gsub("REDIS_URL=%S+", "REDIS_URL=redis://:right@127.0.0.1:" .. server.port)
    local quit = "until [ -s %s ]; do sleep 0.01; done; kill -TERM $!; wait $!"
    local result = support.shell(("env %s & %s"):format(words, quit:format(output)))
    assert.equal(143, result.status, result.err)
    assert.matches("this worker: %d+ rows, %d+ answered, 0 failed", result.err)
    assert.not_matches("traceback", result.err)
    result = support.shell(words)
    assert.equal(0, result.status, result.err)
    local count = 0
    for _ in io.lines(output) do count = count + 1 end
    assert.equal(6000, count)
  end)

  it("says how it is used, and what Redis says", function()
    local wrong = { { "--batch", "x" }, { "--what" }, { "--batch" }, { "--idle", "x" }, { "--input", "x" } }
    for _, words in ipairs(wrong) do
      local result = support.shell(command("scripts/batch_worker.lua", table.unpack(words)))
      assert.equal(2, result.status)
      assert.matches("usage: sluice batch_worker.lua", result.err)
    end
    local result = support.shell(command("scripts/batch_worker.lua", "--batch", "x", "--delete"))
    assert.equal(1, result.status)
    assert.matches("NOAUTH", result.err)
  end)
end)
