-- SPDX-License-Identifier: MIT
-- The bench: one table of figures, as ratios against peers in the same run. docs/bench.md reads it.
--
--     sluice spec/bench/run.lua [--rounds=N] [--seconds=S] [--rows=N] [NAME...]
--
-- --rows: of a batch

local here <const> = arg[0]:match "^(.*/)" or "./"
package.path = here .. "?.lua;" .. package.path

local harness = require "harness"
local process = require "process"

-- What the command line may name; each file returns an array of figures.
local FILES <const> = { "start", "repl", "tasks", "codec", "sse", "streams", "retry", "cache", "chat", "http",
  "server", "server_stream", "gateway", "redis", "batch", "pump",
  "metrics", "seen", "report", "trace", "traffic", "log" }

local is_file = {}
for _, name in ipairs(FILES) do is_file[name] = true end

local lowest = 0
while arg[lowest - 1] do lowest = lowest - 1 end

-- What the figures get: the binary, this folder, a temporary folder, how long to measure.
local bench = { binary = arg[lowest], here = here, rounds = 5, seconds = 1 }

local function read_arguments()
  local wanted = {}
  for _, word in ipairs(arg) do
    local name, value = word:match "^%-%-(%a+)=([%d.]+)$"
    if name == "rounds" or name == "seconds" or name == "rows" then
      bench[name] = assert(tonumber(value))
    elseif not is_file[word] then
      local names = table.concat(FILES, ", ")
      error(("%s is none of %s, --rounds=N, --seconds=S, --rows=N"):format(word, names), 0)
    else
      wanted[#wanted + 1] = word
    end
  end
  return #wanted > 0 and wanted or FILES
end

local function read_line(command)
  local pipe = assert(io.popen(command, "r"))
  local line = pipe:read "l"
  pipe:close()
  return line
end

local function print_conditions()
  local load = assert(io.open "/proc/loadavg"):read "n"
  local cores = "not pinned"
  if process.client_core then
    cores = ("clients on core %d, servers on core %d"):format(process.client_core, process.server_core)
  end
  print(("%s; load %.1f at the start; %d rounds; %s"):format(os.date "%Y-%m-%d", load, bench.rounds, cores))
end

local remove_folder = { __close = function(self) os.execute("rm -rf " .. self.path) end }

local names = read_arguments()
local folder <close> = setmetatable({ path = assert(read_line "mktemp -d") }, remove_folder)
bench.folder = folder.path
print_conditions()
harness.heading()
for _, name in ipairs(names) do
  for _, figure in ipairs(require(name)) do harness.run(figure, bench) end
end
