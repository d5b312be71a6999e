-- SPDX-License-Identifier: MIT
-- The command `sluice emulate`: reads its arguments, starts an emulator and serves until it is stopped.

local dialects = require "sluice.emulator.dialect"
local emulator = require "sluice.emulator"
local errors = require "sluice.errors"
local faults = require "sluice.emulator.faults"
local json = require "sluice.json"
local log = require "sluice.log"
local settings_of = require "sluice.settings"
local task = require "sluice.task"

local command = {}

local usage <const> = [[
usage: sluice emulate [--listen HOST:PORT] [--state FILE] [--latency MS]
                      [--token-time MS] [--deploy-time S] [--dialect KEY=VALUE]...
                      [--no-retry-after] [--token-lifetime S]
                      [--upstream URL] [--model FILE.lua]... [--fault JSON]...

Serves an emulated model serving workspace and prints its address as one line on
standard output once it accepts connections. Any bearer token is accepted.

  --listen HOST:PORT   default 127.0.0.1:0, a free port
  --state FILE         keep the endpoints in FILE, across kill -9 too; default in memory
  --latency MS         wait before each answer to a query; default 0
  --token-time MS      wait before each token of a stream; default 0
  --deploy-time S      seconds from create to READY; default 1
  --dialect KEY=VALUE  how streams look: usage=final, done=absent, ... (docs/emulator.md)
  --no-retry-after     do not say when to come again after a 429
  --token-lifetime S   seconds an OAuth token is good for; default 3600
  --upstream URL       an OpenAI-compatible server (such as http://127.0.0.1:8000/v1)
                       that answers text and embeddings; its key, where it needs
                       one, is read from SLUICE_UPSTREAM_KEY
  --model FILE.lua     a model of your own under the file's name; the file returns
                       function(request, context) -> response | text | nil, err
  --fault JSON         a fault rule; of one served version that is slow, or fails:
                       {"kind":"delay","seconds":0.5,"served_entity":"model-2"}
]]

-- How long a stopping server lets answers under way come to their end, in seconds.
local stop_grace <const> = 5

local readers = {}

readers["--listen"] = function(settings, value)
  if not value:find("^.+:%d+$") then return nil, "--listen needs HOST:PORT, got " .. value end
  settings.listen = value
  return true
end

local function seconds_reader(name, key, unit)
  return function(settings, value)
    local number = tonumber(value)
    if not number or number < 0 or number == math.huge or number ~= number then
      return nil, ("%s needs a number of at least 0, got %s"):format(name, value)
    end
    settings[key] = number * unit
    return true
  end
end

readers["--latency"] = seconds_reader("--latency", "latency", 0.001)
readers["--deploy-time"] = seconds_reader("--deploy-time", "deploy_time", 1)

readers["--token-time"] = seconds_reader("--token-time", "token_time", 0.001)
readers["--token-lifetime"] = seconds_reader("--token-lifetime", "token_lifetime", 1)

readers["--state"] = function(settings, value)
  settings.state = value
  return true
end

readers["--dialect"] = function(settings, value)
  local key, choice = value:match("^([%w_]+)=(.+)$")
  if not key then return nil, "--dialect needs KEY=VALUE, got " .. value end
  settings.dialect[key] = choice
  local dialect, problem = dialects.read(settings.dialect)
  if not dialect then return nil, "--dialect: " .. problem end
  return true
end

readers["--upstream"] = function(settings, value)
  if not value:find("^https?://[^/]") then
    return nil, "--upstream needs an http or https URL, got " .. value
  end
  settings.upstream = value
  return true
end

readers["--fault"] = function(settings, value)
  local rule, err = json.decode(value)
  if rule == nil then return nil, "--fault: " .. err.message end
  -- asked of a set of its own: the rule may be wrong
  local id, problem = faults.new():add(rule)
  if not id then return nil, "--fault: " .. problem end
  settings.faults[#settings.faults + 1] = rule
  return true
end

readers["--model"] = function(settings, value)
  local name = value:match("([^/]+)$"):gsub("%.lua$", "")
  local chunk, problem = loadfile(value)
  if not chunk then return nil, "--model: " .. problem end
  local ok, model = pcall(chunk)
  if not ok then return nil, ("--model: %s failed: %s"):format(value, tostring(model)) end
  if type(model) ~= "function" then
    return nil, ("--model: %s must return a function, got a %s"):format(value, type(model))
  end
  settings.models[name] = model
  return true
end

-- The reader of an argument and its value; what has no value is read at once.
local function read_argument(settings, name, value)
  if name == "--no-retry-after" then
    settings.retry_after = false
    return true
  end
  if not value or value == "" then return nil, name .. " needs a value" end
  return readers[name](settings, value)
end

local function read_arguments(arguments)
  local settings, index = { models = {}, dialect = {}, faults = {} }, 1
  while index <= #arguments do
    local name, value = arguments[index]:match("^(%-%-[%w-]+)=(.*)$")
    name = name or arguments[index]
    if name == "--help" or name == "-h" then return { help = true } end
    local is_switch = name == "--no-retry-after"
    if not readers[name] and not is_switch then return nil, "unknown argument " .. name end
    if not value and not is_switch then
      index = index + 1
      value = arguments[index]
    end
    local ok, problem = read_argument(settings, name, value)
    if not ok then return nil, problem end
    index = index + 1
  end
  return settings
end

local function serve(server)
  local ok, err = pcall(server.serve, server)
  -- Whatever ended it, what is under way is answered; a cancelled task may still wait here.
  task.shield(function() server:stop(stop_grace) end)
  if not ok then error(err, 0) end
end

local function bad_usage(problem)
  io.stderr:write("sluice emulate: ", problem, "\nsluice emulate --help lists the arguments\n")
  return 2
end

local function start(settings)
  local emulated, wrong = emulator.new {
    state = settings.state,
    token_time = settings.token_time,
    token_lifetime = settings.token_lifetime,
    retry_after = settings.retry_after,
    dialect = settings.dialect,
    deploy_time = settings.deploy_time,
    latency = settings.latency,
    models = settings.models,
    upstream = settings.upstream,
    upstream_key = settings.upstream and settings_of.get "SLUICE_UPSTREAM_KEY",
  }
  if not emulated then
    io.stderr:write("sluice emulate: ", tostring(wrong), "\n")
    return 1
  end
  for _, rule in ipairs(settings.faults) do emulated:fault(rule) end
  local ok, server, err = pcall(emulated.listen, emulated, settings.listen)
  if not ok then
    -- An address that cannot be read raises text; cancellation raises an err.
    if errors.is(server) then error(server, 0) end
    return bad_usage("--listen: " .. tostring(server):gsub("^app:listen: ", ""))
  end
  if not server then
    io.stderr:write("sluice emulate: ", tostring(err), "\n")
    return 1
  end
  local address = "http://" .. server.address
  io.stdout:write(address, "\n")
  io.stdout:flush()
  log.info("this is an emulator: its endpoints and answers are not a real workspace's", { address = address })
  serve(server)
  return 0
end

---Runs the command. Waits until the server is stopped.
---@param arguments string[] what follows `emulate`
---@return integer status 0 done, 1 failed, 2 bad usage
function command.run(arguments)
  local settings, problem = read_arguments(arguments)
  if not settings then return bad_usage(problem) end
  if settings.help then
    io.stdout:write(usage)
    return 0
  end
  return start(settings)
end

return command
