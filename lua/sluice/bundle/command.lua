-- SPDX-License-Identifier: MIT
-- The command `sluice bundle`: reads its arguments, finds the modules, writes the program.

local collect = require "sluice.bundle.collect"
local file_core = require "sluice.core.file"
local writer = require "sluice.bundle.writer"

local command = {}

local usage <const> = [==[
usage: sluice bundle FILE.lua -o APP [--module NAME]... [--path TEMPLATES]...
                     [--data FILE[=NAME]]...

Writes one executable file: this program with the script, the Lua modules that it
requires, and data. APP takes its arguments as `sluice FILE.lua` does.

  -o APP               the file to write
  --module NAME        a module that no require tells of: one whose name is computed
  --path TEMPLATES     where modules are looked for first, as in package.path
  --data FILE[=NAME]   a file that the script reads by sluice.bundle.read(NAME);
                       NAME is FILE as it is given where it is left out
]==]

local readers = {}

readers["-o"] = function(settings, value)
  if settings.output then return nil, "-o is given twice" end
  settings.output = value
  return true
end

readers["--module"] = function(settings, value)
  table.insert(settings.modules, value)
  return true
end

readers["--path"] = function(settings, value)
  table.insert(settings.path, value)
  return true
end

readers["--data"] = function(settings, value)
  local path, name = value:match "^(.-)=(.+)$"
  path, name = path or value, name or value
  if settings.names[name] then return nil, ("--data: two files are called %s"):format(name) end
  settings.names[name] = true
  table.insert(settings.data, { path = path, name = name })
  return true
end

local function read_argument(settings, word, value)
  local name, inline = word:match "^(%-%-[%w-]+)=(.*)$"
  local reader = readers[name or word]
  if reader then
    value = inline or value
    if not value or value == "" then return nil, (name or word) .. " needs a value" end
    local ok, problem = reader(settings, value)
    return ok and (inline and 1 or 2), problem
  end
  if word:sub(1, 1) == "-" then return nil, "unknown argument " .. word end
  if settings.script then return nil, ("one script, not %s and %s"):format(settings.script, word) end
  settings.script = word
  return 1
end

local function read_arguments(words)
  local settings, index = { modules = {}, path = {}, data = {}, names = {} }, 1
  while index <= #words do
    if words[index] == "--help" or words[index] == "-h" then return { help = true } end
    local step, problem = read_argument(settings, words[index], words[index + 1])
    if not step then return nil, problem end
    index = index + step
  end
  if not settings.script then return nil, "which script?" end
  if not settings.output then return nil, "-o APP: which file to write?" end
  return settings
end

-- ---- making it ----

local function identity_of(path)
  local file = file_core.open(path, "read")
  if not file then return nil end
  local _, _, identity = file:stat()
  file:close()
  return identity
end

-- Whether something is there that must not be replaced by a file: a device, a pipe.
local function is_special(path)
  if path:find "^/dev/" then return true end -- /dev/stdout may lead to a file
  local there = io.open(path, "r+") -- which makes none, and does not wait for the other end of a pipe
  if not there then return false end
  there:close()
  local file = file_core.open(path, "append")
  if not file then return false end
  local _, is_regular = file:stat()
  file:close()
  return not is_regular
end

-- Why a file must not be written over, else nil.
local function conflict(output, paths)
  if is_special(output) then return ("-o %s would replace what is no file"):format(output) end
  local identity = identity_of(output)
  for _, path in ipairs(paths) do
    if identity and identity == identity_of(path) then
      return ("-o %s would overwrite %s"):format(output, path)
    end
  end
end

local function read_data(entries, data)
  for _, each in ipairs(data) do
    local file <close>, reason = io.open(each.path, "rb")
    if not file then return nil, "--data: cannot open " .. reason end
    local content
    content, reason = file:read "a"
    if not content then return nil, ("--data: %s: %s"):format(each.path, reason) end
    table.insert(entries, { kind = "D", name = each.name, content = content })
  end
  return true
end

local function make(settings)
  local path = table.move(settings.path, 1, #settings.path, 1, {})
  path[#path + 1] = package.path
  local main, modules, notes = collect.run(settings.script, settings.modules, table.concat(path, ";"))
  for _, note in ipairs(notes) do io.stderr:write("sluice bundle: ", note, "\n") end
  if not main then return nil, modules end
  local entries, paths = { { kind = "S", name = main.path, content = main.code } }, { main.path }
  for _, module in ipairs(modules) do
    table.insert(entries, { kind = "M", name = module.name, content = module.code })
    table.insert(paths, module.path)
  end
  for _, each in ipairs(settings.data) do table.insert(paths, each.path) end
  local problem = conflict(settings.output, paths)
  if problem then return nil, problem end
  local read, reason = read_data(entries, settings.data)
  if not read then return nil, reason end
  local size, failure = writer.write(settings.output, entries)
  if not size then return nil, ("cannot write %s: %s"):format(settings.output, failure) end
  local said = "%s: %.1f MB, modules: %d, data files: %d"
  return said:format(settings.output, size / 1e6, #modules, #settings.data)
end

---Runs the command.
---@param words string[] the arguments behind `bundle`
---@return integer status of the process
function command.run(words)
  local settings, problem = read_arguments(words)
  if not settings then
    io.stderr:write("sluice bundle: ", problem, "\nsluice bundle --help lists the arguments\n")
    return 2
  end
  if settings.help then
    io.stdout:write(usage)
    return 0
  end
  local done, reason = make(settings)
  if not done then
    io.stderr:write("sluice bundle: ", reason, "\n")
    return 1
  end
  io.stdout:write(done, "\n")
  return 0
end

return command
