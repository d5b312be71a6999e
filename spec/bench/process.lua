-- SPDX-License-Identifier: MIT
-- Child programs of the bench: found, compiled, pinned to a core, run to their end.

local process = {}

-- Seconds after which a child that measures is taken to hang.
local LIMIT <const> = 120

local function quote(word)
  return "'" .. tostring(word):gsub("'", [['\'']]) .. "'"
end

local function command_line(words)
  local quoted = {}
  for index, word in ipairs(words) do quoted[index] = quote(word) end
  return table.concat(quoted, " ")
end

-- What a shell command prints, and whether it ended well.
local function output(command)
  local pipe = assert(io.popen(command, "r"))
  local text = pipe:read "a"
  local ok, how, status = pipe:close()
  return text, ok, how, status
end

---The path of the first of these programs that is installed, or nil.
---@param ... string
function process.find(...)
  for _, name in ipairs { ... } do
    local path, ok = output("command -v " .. quote(name) .. " 2>/dev/null")
    if ok then return (path:gsub("%s+$", "")) end
  end
  return nil
end

---Whether a shell command ends well; what it prints is dropped.
function process.succeeds(words)
  return (select(2, output(command_line(words) .. " >/dev/null 2>&1 </dev/null"))) == true
end

local function allowed_cores()
  local cores = {}
  for line in io.lines "/proc/self/status" do
    local list = line:match "^Cpus_allowed_list:%s*(.+)"
    for range in (list or ""):gmatch "[^,%s]+" do
      local first, last = range:match "^(%d+)%-?(%d*)$"
      for core = first, last ~= "" and last or first do cores[#cores + 1] = core | 0 end
    end
  end
  return cores
end

local cores = process.find "taskset" and allowed_cores() or {}

---Where clients run, and servers: nil each where this machine has one core, or no taskset.
process.client_core = #cores > 1 and cores[1] or nil
process.server_core = #cores > 1 and cores[2] or nil

---The words of a command, pinned to a core where there is one.
---@param words string[]
---@param core integer?
function process.pin(words, core)
  if not core then return words end
  return table.move(words, 1, #words, 4, { "taskset", "-c", tostring(core) })
end

---Runs a program on the client's core to its end and returns what it printed. Raises when it fails.
---@param words string[]
function process.run(words)
  -- in the foreground: it shares our process group, so Ctrl-C reaches it too
  local limited = { "timeout", "--foreground", tostring(LIMIT), table.unpack(words) }
  local command = command_line(process.pin(limited, process.client_core))
  local text, ok, how, status = output(command .. " </dev/null")
  if not ok then error(("%s: %s %d"):format(table.concat(words, " "), how, status), 0) end
  return text
end

---What a text of `KEY NUMBER` lines says.
---@param text string
---@return table<string, number>
function process.figures(text)
  local figures = {}
  for key, value in text:gmatch "(%S+) (%S+)" do figures[key] = tonumber(value) end
  return figures
end

---As run, for programs that print `KEY NUMBER` lines: a table of them.
---@param words string[]
---@return table<string, number>
function process.measure(words)
  local figures = process.figures(process.run(words))
  if not next(figures) then error(("%s printed no figures"):format(table.concat(words, " ")), 0) end
  return figures
end

---Compiles a C program of this folder into the bench's temporary folder; nil without a compiler.
---@param bench table
---@param name string of the file, without .c
---@param ... string what follows the file on the compiler's command line
function process.compile(bench, name, ...)
  local compiler = process.find("gcc", "cc")
  if not compiler then return nil end
  local program = bench.folder .. "/" .. name
  process.run { compiler, "-std=c11", "-D_GNU_SOURCE", "-O2", "-o", program, bench.here .. name .. ".c", ... }
  return program
end

---As compile, with the engine of our JSON codec and the tree that json_tree.c makes.
---@param bench table
---@param name string
---@param ... string
function process.compile_with_json(bench, name, ...)
  local root = bench.here .. "../../runtime/"
  local words = { bench.here .. "json_tree.c", "-I" .. root }
  for _, part in ipairs { "buffer", "number_format", "number_parse", "power10", "string", "utf8" } do
    words[#words + 1] = root .. "modules/json/" .. part .. ".c"
  end
  table.move({ ... }, 1, select("#", ...), #words + 1, words)
  return process.compile(bench, name, table.unpack(words))
end

---Starts a server pinned to a core, as a child that dies with us. Its output goes to `log`.
---@param words string[]
---@param log string a file
---@param core? integer the servers'
---@return table server :stop() ends it; idempotent, also when closed
function process.serve(words, log, core)
  -- the pipe is not used: it gives us a child that no shell stands between, and its end
  core = core or process.server_core
  local full = process.pin({ "setpriv", "--pdeathsig", "TERM", table.unpack(words) }, core)
  local command = ("echo $$; exec %s >%s 2>&1 </dev/null"):format(command_line(full), quote(log))
  local pipe = assert(io.popen(command, "r"))
  local server = { pid = assert(math.tointeger(pipe:read "n"), "the server did not start") }
  function server:stop()
    if not pipe then return end
    os.execute(("kill -TERM %d 2>/dev/null"):format(self.pid))
    pipe:close()
    pipe = nil
  end
  -- __gc: collecting the pipe would wait for the server, should nobody have closed it
  return setmetatable(server, { __close = server.stop, __gc = server.stop })
end

---A port that was free a moment ago.
---@return string
function process.free_port()
  local server <close> = assert(require("sluice.web").app():listen "127.0.0.1:0")
  return server.address:match ":(%d+)$"
end

---User and system time of a process in microseconds.
---@param pid integer
---@return number
function process.used(pid)
  local file <close> = assert(io.open(("/proc/%d/stat"):format(pid)))
  local fields = {}
  for field in file:read("a"):match("^.*%) (.*)$"):gmatch "%S+" do fields[#fields + 1] = field end
  return (tonumber(fields[12]) + tonumber(fields[13])) * 1e4
end

return process
