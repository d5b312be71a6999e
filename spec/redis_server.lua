-- SPDX-License-Identifier: MIT
-- A redis-server of the spec's own, on a free port and a unix socket, and servers that only look like one.

local socket = require "sluice.core.socket"
local support = require "support"
local task = require "sluice.task"

local fixture = {}

local methods = {}
local metatable = { __index = methods, __close = function(self) self:stop() end }

local function run(command)
  local result = support.shell(command)
  assert(result.status == 0, command .. "\n" .. result.out .. result.err)
  return result.out
end

---Waits until f gives something, for 10 s.
function fixture.eventually(f)
  for _ = 1, 1000 do
    local value = f()
    if value then return value end
    task.sleep(0.01)
  end
  error("it never came", 2)
end

local function free_port()
  local listener <close> = assert(socket.listen("127.0.0.1", 0))
  return listener.port
end

---Starts one: `words` are options of redis-server, "--requirepass x". Waits until it accepts.
function fixture.start(words, given)
  local folder = os.tmpname()
  os.remove(folder)
  run("mkdir " .. folder)
  local self = setmetatable({ folder = folder, words = words or "", given = given or {} }, metatable)
  self.port = free_port()
  self.path = folder .. "/socket"
  self.url = "redis://127.0.0.1:" .. self.port
  self.unix_url = "unix:" .. self.path
  self:boot()
  return self
end

---Starts the process, on the same port as before.
function methods:boot()
  local port = self.given.tls and ("--port 0 --tls-port " .. self.port) or ("--port " .. self.port)
  local fixed = "redis-server %s --bind 127.0.0.1 --unixsocket %s --save '' --appendonly no --daemonize yes "
    .. "--dir %s --pidfile %s/pid --logfile %s/log %s"
  run(fixed:format(port, self.path, self.folder, self.folder, self.folder, self.words))
  fixture.eventually(function()
    local s = socket.connect("unix:" .. self.path)
    if s then s:close() end
    return s
  end)
  self.pid = fixture.eventually(function()
    local file <close> = io.open(self.folder .. "/pid")
    return file and file:read "n"
  end)
end

---Sends it a signal: "STOP", "CONT", "KILL".
function methods:signal(name)
  os.execute(("kill -%s %d"):format(name, self.pid))
end

---Kills it as kill -9 does, and waits until it is gone.
function methods:kill()
  if not self.pid then return end
  self:signal "KILL"
  fixture.eventually(function() return not support.lives(self.pid) end)
  fixture.eventually(function() -- its threads may hold the port for a while
    local s <close> = socket.connect("127.0.0.1", self.port)
    return not s
  end)
  os.remove(self.folder .. "/pid")
  self.pid = nil
end

---Runs redis-cli against it.
function methods:cli(words)
  return run(("redis-cli -s %s %s"):format(self.path, words))
end

function methods:stop()
  self:kill()
  os.execute("rm -rf " .. self.folder)
end

-- ---- servers that break the rules ----

local fake_metatable = { __close = function(self) self:stop() end, __index = {} }

---A listener that gives each connection to f(socket, number), in a task of its own.
function fixture.fake(f)
  local listener = assert(socket.listen("127.0.0.1", 0))
  local self = setmetatable({
    url = "redis://127.0.0.1:" .. listener.port, listener = listener, group = task.group(), accepted = 0,
  }, fake_metatable)
  self.group:spawn(function()
    while true do
      local s = listener:accept()
      if not s then return end
      self.accepted = self.accepted + 1
      local number = self.accepted
      self.group:spawn(function()
        local peer <close> = s
        f(peer, number)
      end)
    end
  end)
  return self
end

function fake_metatable.__index:stop()
  self.listener:close()
  self.group:close()
end

return fixture
