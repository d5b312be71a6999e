-- SPDX-License-Identifier: MIT
-- The command line of the program `sluice`. Its `...` is where a bundle is behind the program ("" for none), then
-- the program's argv; it returns the exit status.

local USAGE = [==[
usage: sluice                            try things out: the REPL
       sluice FILE.lua [ARG...]           run a script (-: from standard input)
       sluice -e CHUNK [ARG...]           run a chunk of Lua
       sluice --emulator [FILE.lua [ARG...]]
                                          the same against a private serving emulator
       sluice emulate [--listen HOST:PORT] [--state FILE] [--latency MS]
                      [--deploy-time S] [--upstream URL] [--model FILE.lua] ...
                                          serve the emulator; its address is printed
       sluice bundle FILE.lua -o APP [--module NAME]... [--path TEMPLATES]...
                      [--data FILE[=NAME]]...
                                          make one executable file of a script
       sluice top [--interval S] [--once] URL
                                          see what a running gateway or batch does
       sluice --help | --version

Exit status: 0 done, 1 the script failed, 2 bad usage, 130 interrupted, 143 terminated,
141 whoever read its output has left.
]==]

local BAD_USAGE <const>, READER_LEFT <const> = 2, 141
local EPIPE <const> = 32

local function bad_usage(message)
  io.stderr:write("sluice: ", message, "\nsluice --help lists the arguments\n")
  return BAD_USAGE
end

local COMMANDS <const> = { emulate = true, bundle = true, top = true }

-- A file that is not there may be a command that is spelt wrongly.
local function hint_of(name)
  local near = not name:find "[./]" and require("sluice.options").nearest(name, COMMANDS)
  return near and (' (did you mean "sluice %s"?)'):format(near) or ""
end

---Loads the script that `words[at]` names; nil and a message where it cannot.
local function load_script(words, at)
  local name = words[at]
  if name == "-e" then
    local chunk = words[at + 1]
    if not chunk then return nil, "-e needs a chunk of Lua", BAD_USAGE end
    return load(chunk, "=(command line)")
  end
  if name == "-" then return loadfile() end
  local file, reason = io.open(name, "rb")
  if not file then return nil, "cannot open " .. reason .. hint_of(name) end
  file:close()
  return loadfile(name)
end

---Takes the progress bars off the screen; gives the function that brings them back, nil where there
---never was one.
local function clear_screen()
  local progress = package.loaded["sluice.progress"]
  return progress and progress.suspend()
end

---What print raised when nobody read its output any more.
local reader_left

---print, but output that cannot be written is an error, and it stands above the progress bars.
local function checked_print(...)
  local resume = clear_screen()
  local words = table.pack(...)
  for index = 1, words.n do words[index] = tostring(words[index]) end
  local written, reason, number = io.stdout:write(table.concat(words, "\t"), "\n")
  if written then written, reason, number = io.stdout:flush() end
  if resume then resume() end
  if written then return end
  local text = "print: standard output: " .. reason
  if number == EPIPE then reader_left = text end
  error(text, 2)
end

---The text of an error, with the part of the traceback that is the script's own.
local function describe(err)
  local err_type = type(err)
  if err_type == "table" and rawget(err, "_scope") then return err end -- the end of this task
  local metatable = getmetatable(err)
  local text = tostring(err)
  if err_type == "table" and not (metatable and metatable.__tostring) then
    local encoded, json = pcall(require("sluice.json").encode, err)
    if encoded then text = "a table was raised: " .. json end
  end
  return require("sluice.traceback").tidy(text, debug.traceback("", 2))
end

---Runs a script to its end; gives the exit status.
local function run(script, arguments)
  _G.arg = arguments
  _G.print = checked_print
  local ok, failure = xpcall(script, describe, table.unpack(arguments))
  clear_screen()
  if ok then return 0 end
  if type(failure) == "table" then error(failure, 0) end
  if reader_left and failure:find(reader_left, 1, true) then return READER_LEFT end
  io.stderr:write("sluice: ", failure, "\n")
  return 1
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
  return run(script, arguments)
end

-- ---- a bundle ----

---Modules of the bundle, behind those of the library and before those on the disk.
local function add_bundled(own)
  table.insert(package.searchers, 3, function(name)
    local code = own:read("M", name)
    if not code then return ("no module '%s' in the bundle"):format(name) end
    return load(code, name, "b"), "bundle:" .. name
  end)
end

---Runs the script behind this program; all of `words` are its own.
local function run_bundle(place, words)
  local offset, size, checksum = place:match "^(%-?%d+) (%-?%d+) (%-?%d+)$"
  local own, reason = require("sluice.core.bundle").open(
    math.tointeger(offset), math.tointeger(size), math.tointeger(checksum))
  if not own then
    io.stderr:write(words[0], ": ", reason, "\n")
    return 1
  end
  add_bundled(own)
  return run(load(own:read("S", own:names("S")[1]), "=script", "b"), words)
end

-- ---- the REPL ----

local BANNER <const> = "sluice %s (%s)%s\n:help says what there is, Ctrl-D leaves."

---The path of the file of entries, nil where nobody says where it would be.
local function history_path(settings)
  local folder = settings.get "XDG_STATE_HOME"
  if not folder or folder:sub(1, 1) ~= "/" then
    local home = settings.get "HOME"
    if not home then return nil end
    folder = home .. "/.local/state"
  end
  return folder .. "/sluice/history"
end

---print of the REPL: the terminal is the console's, which keeps progress bars and the line apart.
local function plain_print(...)
  local words = table.pack(...)
  for index = 1, words.n do words[index] = tostring(words[index]) end
  io.stdout:write(table.concat(words, "\t") .. "\n")
end

local function bytes_of(numbers)
  local pieces = {}
  for index, number in ipairs(numbers) do pieces[index] = string.char(number) end
  return table.concat(pieces)
end

---Has the history kept; says once where that fails.
local function keep_history(console, host, path)
  local function check(done, err)
    if done then return end
    console.remember = nil
    local reason = err.message:gsub("^host%.[%a_]+: ", "")
    io.stderr:write("sluice: the history is not kept: ", path, ": ", reason, "\n")
  end
  console.remember = function(entry) check(host.remember(entry)) end
  check(host.open_history(path))
end

---Output that cannot be written is an error, but of a terminal: there is nobody left to tell.
local function write_or_fail(text)
  local written, reason = io.stdout:write(text)
  if written then written, reason = io.stdout:flush() end
  if not written then error("standard output: " .. reason, 0) end
end

---Progress bars stand above the line that is typed.
local function show_bars(terminal, unicode, color)
  require("sluice.progress").set_output {
    write = function(bytes) io.stderr:write(bytes) end,
    show = function(above, rows)
      if above ~= "" then io.stderr:write(above) end
      io.stdout:write("\27_sluice:footer;" .. table.concat(rows, "\n") .. "\27\\")
    end,
    size = function() return terminal.size(1) end,
    unicode = unicode, color = color,
  }
end

---What sluice.repl asks of a console, made of the functions of this program.
local function new_console()
  local host, settings = require "sluice.host", require "sluice.settings"
  local terminal, is = require "sluice.core.terminal", host.console()
  local kind = settings.get "TERM"
  local locale = settings.get "LC_ALL" or settings.get "LC_CTYPE" or settings.get "LANG" or "UTF-8"
  local console
  console = {
    is_interactive = is.interactive,
    color = terminal.isatty(1) and kind ~= nil and kind ~= "dumb" and settings.get "NO_COLOR" == nil,
    unicode = locale:upper():gsub("-", ""):find("UTF8", 1, true) ~= nil,
    columns = function() return terminal.size(1) or 80 end,
    write = is.interactive and function(text) io.stdout:write(text) end or write_or_fail,
    write_error = function(text) io.stderr:write(text) end,
    read_line = function(prompt)
      local event = host.read_line(prompt)
      if type(event.text) == "table" then event.text = bytes_of(event.text) end
      console.is_cut = event.hangup
      return event
    end,
    edit = function(change) host.edit(change.delete, change.insert, change.above) end,
  }
  if is.interactive then console.wait_interrupt = host.wait_interrupt end
  if is.editor then show_bars(terminal, console.unicode, console.color) end
  if is.missing ~= "" then io.stderr:write("sluice: lines cannot be edited: ", is.missing, "\n") end
  local path = is.interactive and history_path(settings)
  if path then keep_history(console, host, path) end
  return console
end

local function run_repl(note)
  _G.print = plain_print
  local console = new_console()
  local banner = BANNER:format(require("sluice").version, _VERSION, note or "")
  local failures = require("sluice.repl").run(console, { banner = banner })
  return (failures > 0 or console.is_cut) and not console.is_interactive and 1 or 0
end

local function run_with_emulator(words, at)
  local emulator = require("sluice.emulator").new { token = true, deploy_time = 1 }
  local server <close> = assert(emulator:listen "127.0.0.1:0")
  local own = require("sluice.auth.config").only("http://" .. server.address, emulator.token)
  own.DATABRICKS_WAREHOUSE_ID = "emulator" -- any is right
  own.OPENAI_BASE_URL, own.OPENAI_API_KEY = server.url .. "/serving-endpoints", emulator.token
  require("sluice.settings").set(own)
  if not words[at] then return run_repl(", the emulator is at http://" .. server.address) end
  return run_script(words, at)
end

local function main(words)
  local first = words[1]
  if not first then return run_repl() end
  if first == "--help" or first == "-h" then
    io.stdout:write(USAGE)
    return 0
  elseif first == "--version" or first == "-v" then
    io.stdout:write("sluice ", require("sluice").version, " (", _VERSION, ")\n")
    return 0
  elseif first == "emulate" then
    return require("sluice.emulator.command").run(table.move(words, 2, #words, 1, {}))
  elseif first == "bundle" then
    return require("sluice.bundle.command").run(table.move(words, 2, #words, 1, {}))
  elseif first == "top" then
    return require("sluice.top.command").run(table.move(words, 2, #words, 1, {}))
  elseif first == "--emulator" then
    return run_with_emulator(words, 2)
  elseif first:sub(1, 1) == "-" and first ~= "-" and first ~= "-e" then
    local names = { ["--emulator"] = true, ["--help"] = true, ["--version"] = true, ["-e"] = true }
    return bad_usage("unknown option " .. first .. require("sluice.options").hint(first, names))
  end
  return run_script(words, 1)
end

local words = { ... }
local place = table.remove(words, 1)
words[0] = table.remove(words, 1)
if place ~= "" then return run_bundle(place, words) end
return main(words)
