-- SPDX-License-Identifier: MIT
-- The way to one server: its shared connection, the connections that one task has to itself, and when to try again.

local backoff = require "sluice.core.backoff"
local core = require "sluice.core.redis"
local errors = require "sluice.errors"
local failure = require "sluice.redis.failure"
local secret = require "sluice.secret"
local system = require "sluice.core.system"
local task = require "sluice.task"

local link = {}

---@class sluice.redis.Link
---@field connection userdata? the shared one
---@field object string the server, for messages
local methods = {}
local metatable = { __name = "sluice.redis.link", __index = methods }

-- Seconds between tries while the server cannot be reached: 50 ms, doubled up to 2 s, half of it by chance.
local BACKOFF_BASE <const>, BACKOFF_CAP <const> = 0.05, 2

-- Connections without work that are kept for the next who needs one for itself.
local MOST_IDLE <const> = 8

local function greeting_of(place)
  local greeting = {}
  local password = secret.reveal(place.password)
  if password and place.user then
    greeting[1] = { "AUTH", place.user, password }
  elseif password then
    greeting[1] = { "AUTH", password }
  end
  if place.db > 0 then greeting[#greeting + 1] = { "SELECT", place.db } end
  return greeting
end

---Makes a way to a server. Does not connect.
---@param place sluice.redis.Place
---@param given table the options of redis.connect
---@return sluice.redis.Link
function link.new(place, given)
  local self = setmetatable({
    object = place.shown,
    connects = 0, failures = 0, -- counts
    _place = place, _given = given,
    _row = 0, -- of failures
    _retry_at = -math.huge,
    _idle = {}, _lent = {},
  }, metatable)
  self._make_err = function(text) return failure.reply(text, place.shown) end
  return self
end

local function open_server(self)
  local place, given = self._place, self._given
  local server, kind, text = core.server {
    host = place.host, port = place.port, path = place.path,
    tls = place.tls, verify = given.verify ~= false, ca_file = given.ca_file, cert = given.cert,
    key = given.key, server_name = given.server_name,
    connect_time = given.connect_timeout, max_reply = given.max_reply, greeting = greeting_of(place),
  }
  if server then
    self._server = server
    return server
  end
  return nil, failure.lost(kind, text, false, { operation = "connect", object = self.object })
end

-- While the server cannot be reached, nobody waits for it but who comes after the pause.
local function refuse(self, seconds)
  local last = self._last
  local err = failure.lost(last.kind, last.text, false, { operation = "connect", object = self.object })
  err.retry_after = seconds
  return nil, err
end

---A new connection, which connects by itself; nil and an err while the last failure is too near. Never waits.
---@return userdata?
---@return sluice.Error?
function methods:dial()
  if self._closed then
    return nil, errors.new("ConnectError", {
      operation = "connect", object = self.object, message = "the client was closed", retryable = false,
    })
  end
  local left = self._retry_at - task.now()
  if left > 0 then return refuse(self, left) end
  local server, err = self._server, nil
  if not server then server, err = open_server(self) end
  if not server then return nil, err end
  self.connects = self.connects + 1
  return server:open(self._make_err)
end

---The shared connection, made where there is none. Never waits.
---@return userdata?
---@return sluice.Error?
function methods:get()
  if self.connection then return self.connection end
  local connection, err = self:dial()
  self.connection = connection
  return connection, err
end

---Heeds that a connection takes no more. The first new one may be tried at once where this one had worked.
---@param connection userdata
---@return boolean had_worked
function methods:lost(connection)
  local _, _, answered, kind, text = connection:facts()
  local is_news = connection == self.connection or self._lent[connection]
  if connection == self.connection then self.connection = nil end
  if not is_news then return answered end
  self._lent[connection] = nil
  if answered or not kind then
    self._row, self._retry_at = 0, -math.huge
    return answered
  end
  self.failures, self._row = self.failures + 1, self._row + 1
  self._last = { kind = kind, text = text }
  local pause = backoff.delay(self._row, BACKOFF_BASE, BACKOFF_CAP, 0.5 + system.random_float() / 2)
  self._retry_at = task.now() + pause
  return false
end

---A connection that the caller has to itself until `give_back`. Never waits.
---@return userdata?
---@return sluice.Error?
function methods:borrow()
  while #self._idle > 0 do
    local connection = table.remove(self._idle)
    if connection:facts() == "open" then
      self._lent[connection] = true
      return connection
    end
  end
  local connection, err = self:dial()
  if connection then self._lent[connection] = true end
  return connection, err
end

---Takes a borrowed connection back.
---@param connection userdata
---@param is_clean boolean whether no reply is to come and it is as it was
function methods:give_back(connection, is_clean)
  if not self._lent[connection] then return end
  self._lent[connection] = nil
  if is_clean and not self._closed and #self._idle < MOST_IDLE and connection:facts() == "open" then
    self._idle[#self._idle + 1] = connection
  else
    connection:close()
  end
end

---Adds what there is to counts.
---@param counts table
function methods:count(counts)
  local function add(connection)
    local state, in_flight = connection:facts()
    if state ~= "closed" then counts.connections = counts.connections + 1 end
    counts.in_flight = counts.in_flight + (in_flight or 0)
  end
  if self.connection then add(self.connection) end
  for _, connection in ipairs(self._idle) do add(connection) end
  for connection in pairs(self._lent) do
    add(connection)
    counts.lent = counts.lent + 1
  end
  counts.connects = counts.connects + self.connects
  counts.failures = counts.failures + self.failures
end

---Closes all connections; those in flight fail. Idempotent.
function methods:close()
  self._closed = true
  if self.connection then self.connection:close() end
  for _, connection in ipairs(self._idle) do connection:close() end
  for connection in pairs(self._lent) do connection:close() end
  self._idle = {}
end

return link
