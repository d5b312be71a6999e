-- SPDX-License-Identifier: MIT
-- The command line of the program `sluice`. Its `...` is the program's argv; it returns the exit
-- status.

local USAGE = [[
usage: sluice FILE.lua [ARG...]           run a script (-: from standard input)
       sluice -e CHUNK [ARG...]           run a chunk of Lua
       sluice --emulator FILE.lua [ARG...]
                                          run a script against a private serving emulator
       sluice emulate [--listen HOST:PORT] [--state FILE] [--latency MS]
                      [--deploy-time S] [--upstream URL] [--model FILE.lua] ...
                                          serve the emulator; its address is printed
       sluice --help | --version

Exit status: 0 done, 1 the script failed, 2 bad usage, 130 interrupted, 143 terminated.
]]

local BAD_USAGE = 2

local function bad_usage(message)
  io.stderr:write("sluice: ", message, "\n", USAGE)
  return BAD_USAGE
end

---Loads the script that `words[at]` names; nil and a message where it cannot.
local function load_script(words, at)
  local name = words[at]
  if name == "-e" then
    local chunk = words[at + 1]
    if not chunk then return nil, "-e needs a chunk of Lua", BAD_USAGE end
    return load(chunk, "=(command line)"), select(2, load(chunk, "=(command line)"))
  end
  if name == "-" then return load(io.read("a"), "=stdin") end
  local file, reason = io.open(name, "rb")
  if not file then return nil, "cannot open " .. reason end
  file:close()
  return loadfile(name)
end

---Takes the progress bars off the screen; gives the function that brings them back, nil where there
---never was one.
local function clear_screen()
  local progress = package.loaded["sluice.progress"]
  return progress and progress.suspend()
end

---print, but output that cannot be written is an error, and it stands above the progress bars.
local function checked_print(...)
  local resume = clear_screen()
  local words = table.pack(...)
  for index = 1, words.n do words[index] = tostring(words[index]) end
  local written, reason = io.stdout:write(table.concat(words, "\t"), "\n")
  if written then written, reason = io.stdout:flush() end
  if resume then resume() end
  if not written then error("print: standard output: " .. reason, 2) end
end

---The text of an error, with the part of the traceback that is the script's own.
local function describe(err)
  local err_type = type(err)
  if err_type == "table" and rawget(err, "_scope") then return err end -- the end of this task: goes on as it is
  local metatable = getmetatable(err)
  local text = tostring(err)
  if err_type == "table" and not (metatable and metatable.__tostring) then
    local encoded, json = pcall(require("sluice.json").encode, err)
    if encoded then text = "a table was raised: " .. json end
  end
  local traceback = debug.traceback(text, 2):gsub("\n%s*%[C%]: in function 'xpcall'.*$", "")
  return (traceback:gsub("\n%s*%[C%]: in function 'error'", ""):gsub("\n%s*%[C%]: in function 'assert'", ""))
end

---Runs the script at `words[at]` with the words behind it as its arguments.
local function run_script(words, at)
  local script, reason, status = load_script(words, at)
  if not script then
    if status then return bad_usage(reason) end
    io.stderr:write("sluice: ", reason, "\n")
    return 1
  end
  local last = words[at] == "-e" and at + 1 or at
  local arguments = {}
  for index = 0, #words do arguments[index - last] = words[index] end
  _G.arg = arguments
  _G.print = checked_print
  local ok, failure = xpcall(script, describe, table.unpack(arguments))
  clear_screen()
  if ok then return 0 end
  if type(failure) == "table" then error(failure, 0) end
  io.stderr:write("sluice: ", failure, "\n")
  return 1
end

local function run_with_emulator(words, at)
  if not words[at] then return bad_usage("--emulator needs a script") end
  local emulator = require("sluice.emulator").new { token = true, deploy_time = 1 }
  local server <close> = assert(emulator:listen "127.0.0.1:0")
  local own = require("sluice.auth.config").only("http://" .. server.address, emulator.token)
  require("sluice.settings").set(own)
  return run_script(words, at)
end

local function main(words)
  local first = words[1]
  if not first then return bad_usage("a script is needed") end
  if first == "--help" or first == "-h" then
    io.stdout:write(USAGE)
    return 0
  elseif first == "--version" or first == "-v" then
    io.stdout:write("sluice ", require("sluice").version, " (", _VERSION, ")\n")
    return 0
  elseif first == "emulate" then
    return require("sluice.emulator.command").run(table.move(words, 2, #words, 1, {}))
  elseif first == "--emulator" then
    return run_with_emulator(words, 2)
  elseif first:sub(1, 1) == "-" and first ~= "-" and first ~= "-e" then
    return bad_usage("unknown option " .. first)
  end
  return run_script(words, 1)
end

local words = { ... }
words[0] = table.remove(words, 1)
return main(words)
