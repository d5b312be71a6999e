-- SPDX-License-Identifier: MIT
-- Batches that were killed, torn, or run on files that do not belong together.
local batch = require "sluice.batch"
local errors = require "sluice.errors"
local json = require "sluice.json"
local support = require "support"
local task = require "sluice.task"

-- A batch in a process of its own, which says in a file what it asks and what it gets.
local CHILD <const> = [[
local sluice = require "sluice"
local input, output, order, log = arg[1], arg[2], arg[3], assert(io.open(arg[4], "ab"))
log:setvbuf "no"
local endpoint = {}
function endpoint:query(request)
  log:write("asked ", request.n, "\n")
  sluice.task.sleep(request.n % 7 == 0 and 0.004 or 0.0005 * (request.n % 3))
  log:write("got ", request.n, "\n")
  if request.n % 11 == 0 then return nil, sluice.errors.new("BadRequest") end
  return { n = request.n, text = ("x"):rep(request.n % 50), usage = { total_tokens = 2 } }
end
local summary = assert(sluice.batch.run {
  endpoint = endpoint, input = input, output = output, order = order, concurrency = 8,
})
print(sluice.json.encode(summary))
]]

-- Calls f with a folder that is removed afterwards: in memory where there is one, for a thousand syncs take long.
local function with_folder(f)
  local folder = support.shell("mktemp -d -p /dev/shm || mktemp -d").out:gsub("\n", "")
  local ok, failure = pcall(f, folder .. "/")
  os.execute("rm -rf " .. folder)
  if not ok then error(failure, 0) end
end

local write_file = support.write_file

local function lines_of(count)
  local lines = {}
  for n = 1, count do lines[n] = ('{"id":"r%d","n":%d}\n'):format(n, n) end
  return table.concat(lines)
end

local function counts_of(path, word)
  local counts, sum, again = {}, 0, 0
  for line in io.lines(path) do
    local n = line:match("^" .. word .. " (%d+)$")
    if n then
      counts[n], sum = (counts[n] or 0) + 1, sum + 1
      if counts[n] > 1 then again = again + 1 end
    end
  end
  return sum, again
end

-- The lines of an output in one form; `order`: put into that of the rows.
local function normal(text, order)
  local lines = {}
  for line in text:gmatch "([^\n]*)\n" do
    lines[#lines + 1] = json.encode(assert(json.decode(line)), { canonical = true })
  end
  local function number_of(line) return tonumber(line:match '"row":(%d+)}$') end
  if order == "completion" then table.sort(lines, function(a, b) return number_of(a) < number_of(b) end) end
  return table.concat(lines, "\n")
end

local function echo(request)
  if request.n % 11 == 0 then return nil, errors.new("BadRequest") end
  return { n = request.n }
end

-- Runs a batch in this process; counts what it asks.
local function run(given, f)
  local asked = {}
  given.endpoint = { query = function(_, request)
    asked[#asked + 1] = request.n
    return (f or echo)(request)
  end }
  local summary, err = batch.run(given)
  return summary, err, asked
end

local function copy(from, to)
  write_file(to, support.read_file(from))
end

describe("a batch that is killed", function()
  local KILLS <const> = os.getenv "SLUICE_SLOW" and 300 or 30 -- for each order
  local ROWS <const> = os.getenv "SLUICE_SLOW" and 20000 or 2500

  local function kill_often(order)
    with_folder(function(folder)
      local script, input = folder .. "child.lua", folder .. "in"
      local output, log = folder .. "out", folder .. "log"
      write_file(script, CHILD)
      write_file(input, lines_of(ROWS))
      local binary = support.quote(support.binary)
      local command = ("%s %s %s %%s %s %%s"):format(binary, script, input, order)
      local whole = support.shell(command:format(folder .. "whole", "/dev/null"))
      assert.equal(0, whole.status, whole.err)
      local kills, result, before = 0
      math.randomseed(os.time())
      repeat
        local kept <close> = io.open(output)
        before = kept and kept:read "a" or ""
        local after = kills < KILLS and 0.010 + math.random() * 0.03 or 60
        result = support.shell(("timeout -s KILL %.4f "):format(after) .. command:format(output, log))
        if result.status ~= 0 then kills = kills + 1 end
      until result.status == 0
      assert.is_true(kills >= KILLS * 0.9, kills .. " kills")
      local text, wanted = support.read_file(output), support.read_file(folder .. "whole")
      local same = normal(text, order) == normal(wanted, order) and #text == #wanted
      assert.is_true(same, "the output differs from one of a run that was never killed")
      local asked, asked_again = counts_of(log, "asked")
      local _, got_again = counts_of(log, "got")
      assert.equal(ROWS, asked - asked_again)
      assert.is_true(asked_again <= kills * 8, asked_again) -- what was in flight
      assert.is_true(got_again <= kills * 8, got_again) -- killed between the answer and its line
      local summary, all = json.decode(result.out), json.decode(whole.out)
      local resumed = summary.tokens.resumed
      -- a slow start, of lua5.4 or with a sanitizer, may leave every kill before the first row
      local _, rows_before = before:gsub("\n", "")
      assert.is_true((resumed > 0 or rows_before < 2) and resumed <= all.tokens.total)
      all.tokens.resumed = resumed
      assert.same({ all.ok, all.failed, all.errors, all.tokens, true },
        { summary.ok, summary.failed, summary.errors, summary.tokens, summary.complete })
    end)
  end

  it("again and again has every row once, in the order of the input", function() kill_often "input" end)

  it("again and again has every row once, as they complete", function() kill_often "completion" end)
end)

describe("a batch whose files are torn", function()
  -- A run of `rows` that stops after some, with its files; then every cut of one of them is continued.
  local function each_cut(order, name, step)
    with_folder(function(folder)
      local input = folder .. "in"
      write_file(input, lines_of(40))
      local given = { input = input, output = folder .. "out", order = order, concurrency = 5 }
      task.simulate(function()
        given.max_tokens = 20
        assert(run(given, function(request)
          task.sleep(request.n == 6 and 9 or request.n % 4)
          return { n = request.n, usage = { total_tokens = 1 } }
        end))
        given.max_tokens = nil
      end)
      copy(folder .. "out", folder .. "out.kept")
      copy(folder .. "out.journal", folder .. "journal.kept")
      local torn = support.read_file(folder .. name .. ".kept")
      local path = folder .. (name == "out" and "out" or "out.journal")
      for size = 0, #torn, step do
        copy(folder .. "out.kept", folder .. "out")
        copy(folder .. "journal.kept", folder .. "out.journal")
        write_file(path, torn:sub(1, size))
        local summary, err = run(given)
        if summary then
          local rows = {}
          for line in io.lines(folder .. "out") do rows[#rows + 1] = tostring(json.decode(line).row) end
          table.sort(rows, function(a, b) return tonumber(a) < tonumber(b) end)
          assert.equal(40, #rows, ("%s cut at %d"):format(name, size))
          for row = 1, 40 do assert.equal(tostring(row), rows[row]) end
          assert.same({ 40, true }, { summary.rows, summary.complete })
        else
          assert.equal("journal", name, tostring(err)) -- no whole journal: refused, and nothing touched
          assert.equal("BatchConflict", err.kind)
          assert.equal(support.read_file(folder .. "out.kept"), support.read_file(folder .. "out"))
        end
      end
    end)
  end

  it("has every row once, wherever the output was cut", function()
    each_cut("input", "out", 7)
    each_cut("completion", "out", 7)
  end)

  it("has every row once, or says so, wherever the journal was cut", function()
    each_cut("input", "journal", 13)
    each_cut("completion", "journal", 13)
  end)
end)
