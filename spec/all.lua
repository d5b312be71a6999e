-- SPDX-License-Identifier: MIT
-- Runs every spec, as many files at a time as there are processors, each in a process of its own.
--
--     build/sluice spec/all.lua [busted's options]
--     lua5.4 spec/all.lua ...                         with the rock

local process = require "sluice.core.process"
local task = require "sluice.task"

local here <const> = arg[0]:match "^(.*)/" or "."
local MAX_OUTPUT <const> = 16 << 20

local lowest = 0
while arg[lowest - 1] do lowest = lowest - 1 end
local binary <const> = arg[lowest]

local function output_of(...)
  return assert(process.run({ ... }, MAX_OUTPUT, 1 << 10)).out
end

-- These take longest.
local FIRST <const> = {
  ["embedding_spec.lua"] = true, ["repl_terminal_spec.lua"] = true, ["npc_spec.lua"] = true,
}

-- The long ones first: the last one to end is then a short one.
local function spec_files()
  local files = {}
  local listing = output_of("find", here, "-name", "*_spec.lua", "-printf", "%s %p\n")
  for size, path in listing:gmatch "(%d+) (%C+)" do
    if not path:find "/node_modules/" then
      local size_of_it = FIRST[path:match "[^/]+$"] and math.huge or tonumber(size)
      files[#files + 1] = { path = path, size = size_of_it }
    end
  end
  table.sort(files, function(a, b) return a.size > b.size end)
  return files
end

local COUNTS <const> = { "successes", "failures", "errors", "pending" }
local SUMMARY <const> = "(%d+) success%a* / (%d+) failure%a* / (%d+) error%a* / (%d+) pending : ([%d.]+) sec"
local totals = { successes = 0, failures = 0, errors = 0, pending = 0 }

-- What busted said of the file, or that it did not come to its end.
local function count(result)
  local found = { result.out:match(SUMMARY) }
  if #found == 0 then
    totals.errors = totals.errors + 1
    return false, "no end"
  end
  for at, name in ipairs(COUNTS) do totals[name] = totals[name] + tonumber(found[at]) end
  return result.status == 0, ("%d in %.1f s"):format(found[1], found[5])
end

-- Busted tells of what is pending, and why, behind its dots and its summary.
local function details(out)
  return (out:gsub("^.-seconds\n", "", 1))
end

local function run_file(file)
  local words = table.move(arg, 1, #arg, 4, { binary, here .. "/run.lua", file.path })
  local result = assert(process.run(words, MAX_OUTPUT, MAX_OUTPUT))
  local passed, words_of_it = count(result)
  io.write(passed and "ok    " or "FAIL  ", file.path, "  ", words_of_it, "\n")
  if not passed then
    io.write(result.out, result.err, result.signal and ("signal %d\n"):format(result.signal) or "")
  elseif result.out:find "Pending" then
    io.write(details(result.out))
  end
  io.flush()
end

local function run_all()
  local started = task.now()
  local at_a_time = tonumber(output_of "nproc") or 2
  task.map(spec_files(), run_file, { concurrency = at_a_time, stop_on_error = true })
  io.write(("\n%d successes / %d failures / %d errors / %d pending : %.1f seconds\n"):format(totals.successes,
    totals.failures, totals.errors, totals.pending, task.now() - started))
  return totals.failures + totals.errors == 0
end

local passed
if package.preload["sluice.core.task"] then
  passed = run_all()
else
  passed = require("sluice").run(run_all)
end
os.exit(passed and 0 or 1)
