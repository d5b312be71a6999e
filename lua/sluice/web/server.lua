-- SPDX-License-Identifier: MIT
-- An app behind a socket: one task for each request, owned by the server.

local access = require "sluice.web.access"
local core = require "sluice.core.server"
local errors = require "sluice.errors"
local failure = require "sluice.web.failure"
local headers = require "sluice.headers"
local options = require "sluice.options"
local requests = require "sluice.web.request"
local streams = require "sluice.web.stream"
local task = require "sluice.task"

local servers = {}

---@class sluice.web.Server
---@field address string "127.0.0.1:8080", "[::1]:8080" or "unix:/path"
---@field url string? "http://127.0.0.1:8080", "https://..." with TLS; nil for a unix socket
local methods = {}
local metatable = { __name = "sluice.web.server", __index = methods }

-- How a request reads from the connection.
local over_socket = {}

function over_socket.id(exchange)
  return exchange:id()
end

function over_socket.headers(exchange)
  return headers.adopt(exchange:headers())
end

function over_socket.field(exchange, name)
  return exchange:field(name)
end

function over_socket.remote(exchange)
  return exchange:remote()
end

local function checked(piece, kind, message)
  if piece or not kind then return piece end
  return nil, errors.new(kind, { message = message, operation = "read the request body" })
end

function over_socket.read(exchange)
  return checked(exchange:read())
end

function over_socket.text(exchange)
  return checked(exchange:read_all())
end

local over_socket_kind = requests.kind(over_socket)

local function plain(fields)
  return headers.is(fields) and headers.list(fields) or fields
end

-- Sends the pieces of an iterator; one that fails cuts the connection, so that the client sees it.
local function send_pieces(exchange, request, body)
  while true do
    local ok, piece, err = pcall(body)
    if not ok then piece, err = nil, piece end
    if err then
      exchange:abort()
      if errors.is(err) and err.kind == "TaskCancelled" then error(err, 0) end
      require("sluice.log").error("an answer was cut short", {
        request_id = request.id, method = request.method, path = request.path, error = tostring(err),
      })
      return
    end
    if not piece then break end
    if not exchange:write(piece) then return end
  end
  exchange:finish()
end

local function send_stream(exchange, request, status, fields, body, kind, close)
  local closer <close> = close and setmetatable({}, { __close = function() close() end }) -- luacheck: ignore
  local sent, message = exchange:respond(status, plain(fields), nil, kind)
  if sent == false then error(message, 0) end
  if not sent then return end
  if request.method == "HEAD" or status == 204 or status == 304 then
    exchange:finish()
  else
    send_pieces(exchange, request, body)
  end
end

-- What could not be sent as the handler wants it; nothing has left yet, or the connection is cut.
local function respond_fault(app, exchange, request, text)
  local status, fields, body, kind = app:fault(request, text)
  exchange:respond(status, fields, body, kind)
end

-- A failure before the first piece has its own status; a later one a frame, and an end that is none.
local function tell_failure(app, exchange, request, frames, raised)
  local status, fields, body, kind = app:failed(request, raised)
  if not exchange:started() then return exchange:respond(status, fields and plain(fields), body, kind) end
  if frames.has_events then exchange:write(frames:failure(body)) end
  exchange:cut()
end

-- Few variables: it is there as long as the stream is.
local function send_frames(app, exchange, request, frames)
  local closer <close> = frames -- luacheck: ignore
  local raised = exchange:send_all(frames.item, frames.is_data, streams.frame, failure.trace)
  if raised ~= nil then tell_failure(app, exchange, request, frames, raised) end
end

local function respond_frames(app, exchange, request, status, fields, frames, kind, silence)
  local held, message = exchange:hold(status, fields and plain(fields), silence, kind)
  local bodyless = request.method == "HEAD" or status == 204 or status == 304
  if held and not bodyless then return send_frames(app, exchange, request, frames) end
  if held then exchange:finish() end
  if held == false then respond_fault(app, exchange, request, message) end
  frames:close()
end

local function request_of(exchange)
  local method, target, path = exchange:begin()
  return requests.new(method, target, path, nil, exchange, over_socket_kind)
end

local function respond_stream(app, exchange, request, status, fields, body, kind, close)
  local ok, err = pcall(send_stream, exchange, request, status, fields, body, kind, close)
  if ok then return end
  if errors.is(err) then error(err, 0) end
  respond_fault(app, exchange, request, tostring(err))
end

local function respond(app, exchange, request)
  local status, fields, body, kind, close, silence = app:run(request)
  if silence then
    return respond_frames(app, exchange, request, status, fields, body, kind, silence)
  end
  if type(body) ~= "string" then
    respond_stream(app, exchange, request, status, fields, body, kind, close)
    return
  end
  local sent, message = exchange:respond(status, fields and plain(fields), body, kind)
  if sent == false then respond_fault(app, exchange, request, message) end
end

local function serve(app, exchange)
  local held <close> = exchange -- luacheck: ignore
  respond(app, exchange, request_of(exchange))
end

-- Closed before its exchange, however the answer ended.
local access_line = {}

function access_line.__close(self)
  local status, bytes, seconds, complete = self.exchange:outcome()
  access.log(self.request, self.remote, status, bytes, seconds, complete)
end

local function serve_logged(app, exchange)
  local held <close> = exchange -- luacheck: ignore
  local request = request_of(exchange)
  local line <close> = setmetatable( -- luacheck: ignore
    { exchange = exchange, request = request, remote = request.remote }, access_line)
  respond(app, exchange, request)
end

local function accept_all(app, listener, group, how)
  while true do
    local exchange = listener:accept()
    if not exchange then return end
    group:spawn(how, app, exchange)
    -- That one first: most answer at once, and then the next one takes over a coroutine still warm.
    task.sleep(0)
  end
end

local function log_refused(listener)
  for note, lost in listener.refused, listener do access.log_refused(note, lost) end
end

---@class sluice.web.ListenOptions
---@field max_connections? integer more wait in the kernel; 16384 by default
---@field body_rate? integer bytes a second that a body must bring, over each stretch of timeout.body; 128 by default
---@field timeout? sluice.web.ListenTimeout
---@field drain? number seconds that a server goes on taking requests once it is to stop: what asks app:is_stopping, as web.health does, tells load balancers meanwhile (0)
---@field tls? sluice.web.ListenTLS TLS 1.2 and 1.3 instead of plain sockets
---@field access_log? boolean a line of sluice.log for each request, level info, also for those that no handler saw; false by default

---Files: PEM, the key without a pass phrase, the certificate followed by those that signed it.
---@class sluice.web.ListenTLS
---@field certificate string
---@field key string
local TLS = { certificate = "string", key = "string" }

---All in seconds.
---@class sluice.web.ListenTimeout
---@field head? number for a whole request head (10)
---@field body? number between two bytes of a body (30)
---@field idle? number between two requests (60)
---@field stall? number for a client that does not read (30)
---@field linger? number for one to take the refusal of its request (2)
local LISTEN_OPTIONS = {
  max_connections = "count?", body_rate = "integer?", timeout = "table?", access_log = "boolean?",
  tls = "table?", drain = "seconds?",
}
local TIMEOUTS = {
  head = "seconds?", body = "seconds?", idle = "seconds?", stall = "seconds?", linger = "seconds?",
}

-- Those that were not closed, for what asks about all of them.
local listening = setmetatable({}, { __mode = "k" })

---How many connections all servers have together, and how many of them have a request under way. Never waits.
---@return integer connections
---@return integer working
function servers.counts()
  local connections, working = 0, 0
  for server in next, listening do
    local its, busy = server:counts()
    connections, working = connections + its, working + busy
  end
  return connections, working
end

---Starts to serve an app; see app:listen.
---@param app sluice.web.App
---@param address string
---@param given? sluice.web.ListenOptions
---@return sluice.web.Server? server
---@return sluice.Error? err
function servers.listen(app, address, given)
  options.argument("app:listen", "address", address, "string")
  given = options.check("app:listen", given, LISTEN_OPTIONS)
  local timeout = options.check("app:listen: timeout", given.timeout, TIMEOUTS)
  local tls = given.tls and options.check("app:listen: tls", given.tls, TLS) or {}
  local listener, message, kind = core.listen {
    address = address, max_body = app._max_body,
    max_connections = given.max_connections, body_rate = given.body_rate,
    head_time = timeout.head, body_time = timeout.body, idle_time = timeout.idle,
    stall_time = timeout.stall, linger_time = timeout.linger, refusals = given.access_log,
    id_prefix = math.random(0) & 0xffffffff,
    certificate = tls.certificate, key = tls.key,
  }
  if not listener and not kind then error(("app:listen: %s, got %q"):format(message, address), 3) end
  if not listener then
    return nil, errors.new(kind, { message = message, operation = "listen", object = address })
  end
  local group = task.group()
  group:spawn(accept_all, app, listener, group, given.access_log and serve_logged or serve)
  if given.access_log then group:spawn(log_refused, listener) end
  local bound = listener:address()
  local server = setmetatable({
    address = bound,
    url = not bound:find("^unix:") and (given.tls and "https://" or "http://") .. bound or nil,
    _app = app,
    _drain = given.drain or 0,
    _listener = listener,
    _group = group,
  }, metatable)
  listening[server] = true
  return server
end

-- What stop() gives running handlers where the caller does not say: seconds.
local GRACE = 10

---Waits until the server has been stopped and has answered. Where the caller is cancelled (Ctrl-C in
---a script) it first stops as stop() does, and then raises TaskCancelled.
---@param grace? number seconds that a cancelled one gives running handlers, 10 by default
function methods:serve(grace)
  options.argument("server:serve", "grace", grace, "seconds?")
  local ok, err = pcall(self._listener.drained, self._listener)
  if ok then return end
  task.shield(self.stop, self, grace)
  error(err, 0)
end

---Stops: accepts no more, lets running handlers answer for a while, then cancels them. Waits until
---all is closed. Not to be called by a handler of the same server: it would wait for itself.
---@param grace? number seconds, 10 by default; 0 cancels at once
function methods:stop(grace)
  options.argument("server:stop", "grace", grace, "seconds?")
  grace = grace or GRACE
  self._app._is_stopping = true
  if grace > 0 and self._drain > 0 then task.sleep(self._drain) end
  self._listener:stop()
  if grace > 0 then task.timeout(grace, self._listener.drained, self._listener) end
  self:close()
end

---Closes every connection and cancels the handlers; waits for their ends, even where the caller is
---cancelled. Idempotent.
function methods:close()
  listening[self] = nil
  self._listener:close()
  task.shield(self._group.close, self._group)
  log_refused(self._listener) -- what came last: a closed listener does not wait
end

---How many connections there are, and how many of them have a request under way.
---@return integer connections
---@return integer working
function methods:counts()
  return self._listener:counts()
end

function metatable.__close(self)
  self:close()
end

function metatable.__tostring(self)
  return "sluice.web.server: " .. self.address
end

return servers
