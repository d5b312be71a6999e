-- SPDX-License-Identifier: MIT
-- A request's time limits and its largest answer, for transports that wait without a socket.

local errors = require "sluice.errors"
local meta = require "sluice.meta"
local options = require "sluice.options"
local response = require "sluice.response"
local task = require "sluice.task"

local bounds = {}

---The limits of one request under way.
---@class sluice.Bounds
---@field started number when it began, on the running clock
---@field bytes integer of the body so far
local methods = {}
local metatable = { __name = "sluice.transports.bounds", __index = methods }

-- Seconds and bytes as the HTTP client has them; nothing waits for a slot or connects here.
local WHOLE = { first_byte = 300, total = 600 }
local STREAM = { first_byte = 300, idle = 60 }
local MAX_RESPONSE = 64 << 20

-- Without user, password, query and fragment.
local function label_of(request)
  local url = request.url or request.path or ""
  return (url:gsub("[?#].*$", ""):gsub("^(%a[%w+.-]*://)[^/]*@", "%1"))
end

---Starts the clock of a request. Raises for a timeout that is none.
---@param where string the public name, for messages of misuse
---@param request sluice.HttpRequest `stream`, `timeout`, `max_response`, `method`, `url`
---@return sluice.Bounds
function bounds.start(where, request)
  local limits = {}
  local own = options.timeout(where, request.timeout)
  for _, source in ipairs { request.stream and STREAM or WHOLE, own or {} } do
    for name, seconds in pairs(source) do limits[name] = seconds end
  end
  return setmetatable({
    started = task.now(),
    bytes = 0,
    _limits = limits,
    _most = request.max_response or (not request.stream and MAX_RESPONSE) or math.huge,
    _operation = request.method or "GET",
    _object = label_of(request),
  }, metatable)
end

---An err of this request.
---@param kind string
---@param fields table as for errors.new; operation and object are added
---@return sluice.Error
function methods:error(kind, fields)
  fields.operation, fields.object = self._operation, self._object
  return errors.new(kind, fields)
end

-- Seconds until the next limit of the phase ("head" or "body"), and which one that is.
local function next_limit(self, phase)
  local now, name = task.now(), phase == "head" and "first_byte" or "idle"
  local left = self._limits[name] or math.huge
  if phase == "head" then left = self.started + left - now end
  local total = self.started + (self._limits.total or math.huge) - now
  if total <= left then return total, "total" end
  return left, name
end

local function late(self, phase, limit)
  local seconds, text = self._limits[limit], "no answer within %g s"
  if limit == "idle" then text = "no data for %g s, after %d bytes" end
  if limit == "total" then text = "not complete within %g s, %d bytes so far" end
  return self:error("TimeoutError", {
    message = text:format(seconds, self.bytes), limit = limit,
    phase = phase == "head" and "first_byte" or phase,
  })
end

---Calls `f(...)` within the limits of a phase. Waits as f does.
---@param phase string "head" or "body"
---@param f function
---@param ... any passed to f
---@return any ... the results of f; nil and a TimeoutError
function methods:run(phase, f, ...)
  local seconds, limit = next_limit(self, phase)
  if seconds == math.huge then return f(...) end
  local till = task.now() + seconds
  local results = table.pack(task.timeout(seconds, f, ...))
  local err = results[2]
  if results[1] == nil and errors.is(err) and err.limit == "task.timeout" and task.now() >= till then
    return nil, late(self, phase, limit)
  end
  return table.unpack(results, 1, results.n)
end

---Waits, at most until a limit of the phase.
---@param phase string "head" or "body"
---@param seconds number
---@return boolean? slept true; nil and a TimeoutError
---@return sluice.Error? err
function methods:sleep(phase, seconds)
  local most, limit = next_limit(self, phase)
  task.sleep(math.min(seconds, most))
  if seconds < most then return true end
  return nil, late(self, phase, limit)
end

-- Counts a piece; nil and an err when it is too much.
local function count(self, piece)
  self.bytes = self.bytes + #piece
  if self.bytes <= self._most then return piece end
  return nil, self:error("ProtocolError", {
    message = ("the answer is larger than %d bytes"):format(self._most),
    code = "RESPONSE_TOO_LARGE", phase = "body",
  })
end

local function read_all(read)
  local pieces = {}
  while true do
    local piece, err = read()
    if err then return nil, err end
    if not piece then return table.concat(pieces) end
    pieces[#pieces + 1] = piece
  end
end

---A response as a client gets it: of a streamed request one whose pieces come from `read`, of another one
---that is there as a whole. Closes `inner` when it is not needed any more. May wait.
---@param inner sluice.Response where status, headers and facts come from
---@param stream boolean?
---@param read fun(): string?, sluice.Error?
---@param facts? table more of sluice.meta
---@return sluice.Response? response
---@return sluice.Error? err
function methods:respond(inner, stream, read, facts)
  local res
  local function counted()
    local piece, err = read()
    if piece then return count(self, piece) end
    if res then meta.set(res, meta.get(inner)) end -- now the times are whole
    return nil, err
  end
  local fields = { status = inner.status, reason = inner.reason, headers = inner.headers }
  if stream then
    fields.read, fields.close = counted, function() inner:close() end
  else
    local held <close> = inner -- luacheck: ignore
    local body, err = read_all(counted)
    if not body then return nil, err end
    fields.body = body
  end
  res = meta.set(response.new(fields), meta.get(inner))
  return facts and meta.set(res, facts) or res
end

return bounds
