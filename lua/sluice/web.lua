-- SPDX-License-Identifier: MIT
-- Web apps: routes and handlers, served over a socket (app:listen) or in process (app:handle).

local errors = require "sluice.errors"
local failure = require "sluice.web.failure"
local headers = require "sluice.headers"
local options = require "sluice.options"
local requests = require "sluice.web.request"
local response = require "sluice.response"
local results = require "sluice.web.result"
local routers = require "sluice.web.router"

local web = {}

---Middleware for callers with API keys; see sluice.web.api_keys.
---@param callers table<string, string|sluice.Secret> by name
---@param given? { open?: string[] } `open`: paths that anyone may ask
---@return fun(next: function): fun(request: sluice.web.Request): any, table?
function web.api_keys(callers, given)
  local middleware = require("sluice.web.api_keys").new(callers, given)
  return middleware
end

---Middleware for pages of other origins; see sluice.web.cors.
---@param given sluice.web.CorsOptions
---@return fun(next: function): fun(request: sluice.web.Request): any, table?
function web.cors(given)
  local middleware = require("sluice.web.cors").new(given)
  return middleware
end

---A handler for the page of a registry's metrics: `app:get("/metrics", web.metrics(registry))`; see sluice.web.observe.
---@param registry sluice.metrics.Registry
---@param given? { runtime?: boolean } `runtime`: add the figures of this program to the registry (true)
---@return fun(request: sluice.web.Request): sluice.web.Result
function web.metrics(registry, given)
  local handler = require("sluice.web.observe").metrics(registry, given)
  return handler
end

---A handler that tells every task of this program, to callers on the same machine only; see sluice.web.observe.
---@return fun(request: sluice.web.Request): sluice.web.Result
function web.tasks()
  local handler = require("sluice.web.observe").tasks()
  return handler
end

---Makes a span of each request to an app, within the trace of who asks, as its traceparent says; what handlers ask then
---belongs to it. See docs/tracing.md.
---@param app sluice.web.App
---@param given? sluice.web.TraceOptions
---@return sluice.web.App app
function web.trace(app, given)
  return require("sluice.web.trace").around(app, given)
end

---Handlers that tell a load balancer how a monitor's endpoints are; see sluice.web.health.
---@param monitor sluice.Monitor
---@param app? sluice.web.App gets the routes /health, /live and /ready
---@return sluice.web.HealthHandlers
function web.health(monitor, app)
  local handlers = require("sluice.web.health").new(monitor, app)
  return handlers
end

---@class sluice.web.App a set of routes; also a transport
local methods = {}
local metatable = { __name = "sluice.web.app", __index = methods }

local APP_OPTIONS = { max_body = "integer?" }

-- A body larger than this has no place in an API; a chat with images stays far below.
local MAX_BODY = 8 << 20

-- Makes ids such as "5f2c9a01-1d": random for each app, counted within it.
local function id_maker()
  local prefix, count = ("%08x-"):format(math.random(0) & 0xffffffff), 0
  return function()
    count = count + 1
    return ("%s%x"):format(prefix, count)
  end
end

---Makes an app without routes. Never waits.
---@param given? { max_body?: integer } `max_body`: bytes of a request body, 8 MiB by default; more is answered with 413
---@return sluice.web.App
function web.app(given)
  given = options.check("web.app", given, APP_OPTIONS)
  return setmetatable({
    _router = routers.new(),
    _middleware = {},
    _is_stopping = false,
    _around = false,
    _max_body = given.max_body or MAX_BODY,
    _fresh_id = id_maker(),
  }, metatable)
end

local function add_route(app, method, pattern, handler)
  options.argument("app:route", "path", pattern, "string")
  options.argument("app:route", "handler", handler, "callable")
  local problem = app._router:add(method, pattern, handler)
  if problem then error(problem, 3) end
end

---Registers a handler for GET, and for HEAD where that has none. Chainable.
---@param path string "/a/:name/b"; "/*" at its end takes the rest. A literal segment goes before a parameter, and that before "/*"
---@param handler fun(request: sluice.web.Request): sluice.web.Result|string|sluice.Response|nil, table?
---@return sluice.web.App
function methods:get(path, handler)
  add_route(self, "GET", path, handler)
  return self
end

---As get, for POST.
---@param path string
---@param handler fun(request: sluice.web.Request): any, table?
---@return sluice.web.App
function methods:post(path, handler)
  add_route(self, "POST", path, handler)
  return self
end

---As get, for PUT.
---@param path string
---@param handler fun(request: sluice.web.Request): any, table?
---@return sluice.web.App
function methods:put(path, handler)
  add_route(self, "PUT", path, handler)
  return self
end

---As get, for PATCH.
---@param path string
---@param handler fun(request: sluice.web.Request): any, table?
---@return sluice.web.App
function methods:patch(path, handler)
  add_route(self, "PATCH", path, handler)
  return self
end

---As get, for DELETE.
---@param path string
---@param handler fun(request: sluice.web.Request): any, table?
---@return sluice.web.App
function methods:delete(path, handler)
  add_route(self, "DELETE", path, handler)
  return self
end

---As get, for HEAD alone.
---@param path string
---@param handler fun(request: sluice.web.Request): any, table?
---@return sluice.web.App
function methods:head(path, handler)
  add_route(self, "HEAD", path, handler)
  return self
end

---As get, for OPTIONS; without one, OPTIONS is answered with 204 and Allow.
---@param path string
---@param handler fun(request: sluice.web.Request): any, table?
---@return sluice.web.App
function methods:options(path, handler)
  add_route(self, "OPTIONS", path, handler)
  return self
end

---As get, for every method that has no handler of its own at this path.
---@param path string
---@param handler fun(request: sluice.web.Request): any, table?
---@return sluice.web.App
function methods:any(path, handler)
  add_route(self, "*", path, handler)
  return self
end

---Wraps all handlers, the answers to unknown paths too. The first middleware is the outermost.
---What `next(request)` returns is a table { status, headers, body } whose headers may be changed,
---or nil and err; a handler's raise passes through it.
---@param middleware fun(next: function): fun(request: sluice.web.Request): any, table?
---@return sluice.web.App
function methods:use(middleware)
  options.argument("app:use", "middleware", middleware, "callable")
  self._middleware[#self._middleware + 1] = middleware
  self._chain = nil
  return self
end

local function no_route(request, allow)
  if not allow and request.target == "*" and request.method == "OPTIONS" then return { status = 204 } end
  if not allow then
    return { status = 404, json = failure.body("NotFound", "nothing is at " .. request.path) }
  end
  if request.method == "OPTIONS" then return { status = 204, headers = { allow = allow } } end
  local message = ("%s is not allowed at %s"):format(request.method, request.path)
  return { status = 405, headers = { allow = allow }, json = failure.body("MethodNotAllowed", message) }
end

-- The innermost of the chain: finds the handler and calls it.
local function dispatch(app, request)
  local router, method, path = app._router, request.method, request.path
  local route, more = router:fixed(method, path)
  if not route then
    if not routers.decode(path) then
      local message = "a % in the path is not followed by two hexadecimal digits"
      return { status = 400, json = failure.body("MalformedRequest", message) }
    end
    route, more = router:find(method, path)
    if not route then return no_route(request, more) end
  end
  request.params, request.route = more, route.pattern
  return route.handler(request)
end

local function chain_of(app)
  local function innermost(request) return dispatch(app, request) end
  if #app._middleware == 0 then return innermost end
  local chain = function(request)
    local given, err = innermost(request)
    if given == nil and err ~= nil then return nil, err end
    return results.open(given)
  end
  for index = #app._middleware, 1, -1 do
    local inner = app._middleware[index](chain)
    chain = index == 1 and inner or function(request)
      local given, err = inner(request)
      if given == nil and err ~= nil then return nil, err end
      return results.open(given)
    end
  end
  return chain
end

local function with_more(given, more)
  local fields = headers.new(given)
  for name, value in pairs(more) do
    if name:lower() == "vary" and fields.vary then
      fields.vary = fields.vary .. ", " .. value
    elseif not fields[name] then
      fields[name] = value
    end
  end
  return fields
end

-- What middleware wants every answer to this request to have, whatever became of it.
local function completed(request, status, fields, ...)
  local more = rawget(request, "answer_headers")
  if more then fields = with_more(fields, more) end
  return status, fields, ...
end

local function log_failure(request, status, text)
  require("sluice.log").error("a request failed", {
    request_id = request.id, method = request.method, path = request.path, status = status, error = text,
  })
end

---Logs a fault of the program and gives what the client is told instead.
---@param request sluice.web.Request
---@param text string
---@return integer status
---@return table? fields
---@return string body
---@return string? type as run gives
function methods.fault(_, request, text)
  log_failure(request, 500, text)
  return completed(request, results.parts {
    status = 500,
    json = failure.body("InternalError", "the server failed; its log tells more under " .. request.id),
  })
end

-- What a client is told of an err, or of whatever else a handler gave or raised.
local function told(app, request, err)
  if not errors.is(err) then
    return app:fault(request, type(err) == "table" and err.fault or tostring(err))
  end
  local result = failure.result(err)
  if result.status >= 500 then log_failure(request, result.status, tostring(err)) end
  return completed(request, results.parts(result))
end

local function answer(app, request)
  local chain = app._chain
  if not chain then
    chain = chain_of(app)
    app._chain = chain
  end
  local given, err = chain(request)
  if given == nil and err ~= nil then return nil, err end
  return completed(request, results.parts(given))
end

-- Whether the task itself ends here (cancelled, or past a deadline around it), rather than something
-- that the handler tried.
local function is_our_end(err)
  if err.kind == "TaskCancelled" then return true end
  return err.kind == "TimeoutError" and require("sluice.task").cancelled()
end

local function run(self, request)
  local ok, status, fields, body, kind, close, silence = xpcall(answer, failure.trace, self, request)
  if ok and status then return status, fields, body, kind, close, silence end
  if ok then return told(self, request, fields) end
  return self:failed(request, status)
end

---Runs the handler for a request, in this task. For those who serve an app; a client calls handle.
---Raises only cancellation.
---@param request sluice.web.Request
---@return integer status
---@return table? fields
---@return string|fun(): string?|sluice.web.Frames body
---@return string? type the Content-Type where the fields have none
---@return function? close
---@return number? silence of a stream, whose body are frames; see result.parts
function methods:run(request)
  local around = self._around
  if around then return around(self, request, run) end
  return run(self, request)
end

---The answer that tells of a failure. For those who serve an app. Raises the end of the task itself.
---@param request sluice.web.Request
---@param raised any from failure.trace
---@return integer status
---@return table? fields
---@return string body
---@return string? type as run gives
function methods:failed(request, raised)
  if errors.is(raised) and is_our_end(raised) then error(raised, 0) end
  return told(self, request, raised)
end

---Serves the app on a socket, until server:stop() or until the program ends. Does not wait.
---@param address string "127.0.0.1:8080", "[::1]:8080", "localhost:8080" or "unix:/path"; port 0 takes a free one (see server.address)
---@param given? sluice.web.ListenOptions
---@return sluice.web.Server? server
---@return sluice.Error? err kind ListenError; TLSError where the certificate or the key is of no use
function methods:listen(address, given)
  local server, err = require("sluice.web.server").listen(self, address, given)
  return server, err
end

-- Whether err is the world's, to be returned; cancellation and faults go on as they are.
local function caught(iterator)
  local ok, piece, err = pcall(iterator)
  if ok then return piece, err end
  if errors.is(piece) and piece.kind ~= "TaskCancelled" then return nil, piece end
  error(piece, 0)
end

local function reader_of(body)
  return function()
    local piece, err
    repeat piece, err = caught(body) until piece ~= ""
    return piece, err
  end
end

local close_on_error = { __close = function(self, err) if err ~= nil then self.frames:close() end end }

-- The next piece of a stream: true and the piece; false and what was raised.
local function pull(frames)
  local ok, piece, err = xpcall(frames.next, failure.trace, frames)
  if ok and err == nil then return true, piece end
  return false, ok and err or piece
end

-- The pieces of a stream; its failure is told as over a socket, before the end that is none.
local function frames_reader(app, request, frames, piece)
  local is_first, cut = true, nil
  return function()
    if cut then return nil, cut end
    if is_first then
      is_first = false
      return piece
    end
    local ok, more = pull(frames)
    if ok then return more end
    local body = select(3, app:failed(request, more))
    cut = errors.new("TruncatedStream", { message = "the answer was cut short" })
    if frames.has_events then return frames:failure(body) end
    return nil, cut
  end
end

-- The parts of an answer whose body are frames. Its first piece is there before the answer is; where
-- that fails, it is another answer.
local function open_frames(app, request, status, fields, frames, kind)
  local guard <close> = setmetatable({ frames = frames }, close_on_error) -- luacheck: ignore
  local ok, piece = pull(frames)
  if not ok then
    status, fields, piece, kind = app:failed(request, piece)
    frames:close()
    return status, fields, piece, kind
  end
  local function close() frames:close() end
  return status, fields, frames_reader(app, request, frames, piece), kind, close
end

-- What is read of a client's request; the rest (time limits, certificates) is for other transports.
local CLIENT_REQUEST = {
  { "method", "string?" }, { "url", "string?" }, { "path", "string?" }, { "headers", "table?" },
  { "body", "string|function?" },
}

local function check_client_request(given)
  options.argument("app:handle", "request", given, "table")
  for _, field in ipairs(CLIENT_REQUEST) do
    options.argument("app:handle", field[1], given[field[1]], field[2])
  end
  if not given.url and not given.path then error("app:handle: one of url and path is needed", 3) end
end

local function with_json_body(given)
  if given.json == nil then return given end
  local copy = {}
  for key, value in pairs(given) do copy[key] = value end
  copy.body = assert(require("sluice.json").encode(given.json))
  copy.headers = headers.new(given.headers)
  if not copy.headers["content-type"] then copy.headers["content-type"] = "application/json" end
  return copy
end

---Whether a server of the app is about to stop: server:stop was called, or its server:serve was cancelled. Never waits.
---@return boolean
function methods:is_stopping()
  return self._is_stopping
end

---Answers a request in process: the app as a transport. The handler runs in the task that calls, so
---that its cancellation and its deadline are the handler's. Waits as the handler does.
---@param given { method?: string, url?: string, path?: string, headers?: table, body?: string|fun(): string?, json?: any } one of url and path is needed; a header's value may be a sluice.secret and arrives as one
---@return sluice.Response? response whatever the handler did, a response; its body is read through methods
---@return table? err
function methods:handle(given)
  check_client_request(given)
  local request = requests.from_client(with_json_body(given), self._fresh_id, self._max_body)
  local status, given_fields, body, kind, close, silence = self:run(request)
  local bodyless = request.method == "HEAD" or status == 204 or status == 304
  if silence and bodyless then
    body:close()
  elseif silence then
    status, given_fields, body, kind, close = open_frames(self, request, status, given_fields, body, kind)
  end
  local wrong = results.wrong_header(given_fields)
  if wrong then status, given_fields, body, kind, close = self:fault(request, wrong) end
  local fields = headers.new(given_fields)
  if kind and not fields["content-type"] then fields["content-type"] = kind end
  if not fields["x-request-id"] then fields["x-request-id"] = request.id end
  if type(body) == "string" and status ~= 204 then fields["content-length"] = tostring(#body) end
  if bodyless then
    if close then close() end
    body, close = "", nil
  end
  local whole = type(body) == "string"
  return response.new {
    status = status,
    headers = fields,
    body = whole and body or nil,
    read = not whole and reader_of(body) or nil,
    close = close,
  }
end

return web
