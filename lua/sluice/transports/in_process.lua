-- SPDX-License-Identifier: MIT
-- A web app, or one handler, as a transport that behaves as the same app behind a socket would.

local bounds = require "sluice.transports.bounds"
local errors = require "sluice.errors"
local message = require "sluice.transports.message"
local options = require "sluice.options"
local task = require "sluice.task"

---@class sluice.InProcess: sluice.Transport
local methods = {}
local metatable = { __name = "sluice.transports.in_process", __index = methods }

local function is_fault_of_ours(err)
  return task.cancelled() or errors.is(err) and err.kind == "TaskCancelled"
end

-- What a client sees of a handler that fails while its answer is on the way: a cut connection.
local function cut(bound, err)
  return bound:error("TruncatedStream", {
    message = ("the handler failed in the middle of the body, after %d bytes"):format(bound.bytes),
    phase = "body", cause = err,
  })
end

local function reader_of(bound, res)
  local function next_piece()
    local ok, piece, err = pcall(res.read, res)
    if not ok then piece, err = nil, piece end
    if err == nil then return piece end
    if is_fault_of_ours(err) then error(err, 0) end
    return nil, cut(bound, err)
  end
  return function() return bound:run("body", next_piece) end
end

-- A body that gives up ends the request, whatever the handler makes of it.
local function watch_upload(request)
  local read = request.body
  if type(read) == "string" or read == nil then return nil end
  local watched = {}
  function request.body()
    local piece, err = read()
    if piece == nil and err ~= nil then watched.err = err end
    return piece, err
  end
  return watched
end

---Answers a request within the app. Its time limits hold as over a socket: `first_byte` for the handler,
---`idle` and `total` for the body. A body that fails is a TruncatedStream with its `cause`. Waits.
---@param given sluice.HttpRequest
---@return sluice.Response? response
---@return sluice.Error? err
function methods:handle(given)
  local request = message.normal("in_process:handle", given)
  local bound = bounds.start("in_process:handle", request)
  local upload = watch_upload(request)
  local res, err = bound:run("head", self._app.handle, self._app, request)
  if upload and upload.err then
    if res then res:close() end
    return nil, upload.err
  end
  if not res then return nil, err end
  return bound:respond(res, request.stream, reader_of(bound, res))
end

---Makes a transport of an app or of a handler, which then answers every path and method. The app itself
---is a transport too (app:handle); this one is as strict with time and failures as the wire is.
---@param target sluice.web.App|fun(request: sluice.web.Request): any, table?
---@return sluice.InProcess
local function in_process(target)
  options.argument("transports.in_process", "target", target, "table|callable")
  local app = target
  if type(target) == "function" or type(target.handle) ~= "function" then
    options.argument("transports.in_process", "target", target, "callable")
    app = require("sluice.web").app():any("/*", target)
  end
  return setmetatable({ _app = app }, metatable)
end

return in_process
