-- SPDX-License-Identifier: MIT
-- The request as a handler sees it, whether it came over a socket or from a client in process.

local errors = require "sluice.errors"
local headers = require "sluice.headers"
local meta = require "sluice.meta"
local options = require "sluice.options"
local router = require "sluice.web.router"

local request = {}

---@class sluice.web.Request
---@field method string
---@field target string the request target as it came: path and query
---@field path string the path as it came, still percent-encoded
---@field params table<string, string> the parameters of the route, decoded; "*" is the rest
---@field query table<string, string> the query, decoded; of a repeated name the first value
---@field headers sluice.Headers
---@field body string the whole body; reading it may wait; raises err where it fails
---@field id string the client's X-Request-Id where that is usable, else one of ours; the answer carries it
---@field caller string? who calls, where web.api_keys found out
---@field remote string? the address of the client; nil in process
---@field field fun(self: sluice.web.Request, name: string): string|sluice.Secret|nil the value of a header field that came once, nil where it did not; quicker than `headers`
---@field read fun(self: sluice.web.Request): string?, table? the next piece of the body, as it came; nil at its end; nil and err (kind PayloadTooLarge, MalformedRequest, RequestTimeout or ClientGone) on failure; may wait
---@field text fun(self: sluice.web.Request): string?, table? the whole body, or nil and err as read(); later calls give the same text; may wait
---@field answer_headers table<string, string>? what every answer to it gets, a failure too, unless it has those fields itself; see add_answer_headers
---@field json fun(self: sluice.web.Request, given?: sluice.web.JsonOptions): any, table? the body decoded as JSON, whatever its content type says (JSON null is json.null), or nil and err (kind JsonError, answered with 400, or as read()); may wait

local json -- the module, once it is needed

---@class sluice.web.JsonOptions
---@field raw? boolean keep the bytes with an object or array, in sluice.meta(value).raw: an endpoint sends them as they are, so change a copy, never the value itself; false
local JSON_OPTIONS <const> = { raw = "boolean?" }

-- What every kind of request can do.
---@class sluice.web.Request
local methods = {}

local function show(self)
  return ("sluice.web.request: %s %s"):format(self.method, self.path)
end

local function first_values(pairs_in_order)
  local query = {}
  for _, pair in ipairs(pairs_in_order) do
    if query[pair[1]] == nil then query[pair[1]] = pair[2] end
  end
  return query
end

-- What is made when it is first asked for, from a kind's functions.
local function lazy_fields(source)
  return {
    id = function(self) return source.id(self._source) end,
    headers = function(self) return source.headers(self._source) end,
    remote = function(self) return source.remote(self._source) end,
    query = function(self) return first_values(self:query_pairs()) end,
    body = function(self)
      local text, err = self:text()
      if not text then error(err, 3) end
      return text
    end,
  }
end

-- The metatable of requests that come from one kind of source, with that source's functions as
-- upvalues: a look-up less for each use.
local function kind_of(source)
  local lazy, own = lazy_fields(source), setmetatable({}, { __index = methods })
  local read, read_all, field = source.read, source.text, source.field
  function own.read(self) return read(self._source) end

  function own.field(self, name) return field(self._source, name) end

  function own.text(self)
    local text = rawget(self, "body")
    if text then return text end
    local err
    text, err = read_all(self._source)
    if not text then return nil, err end
    self.body = text
    return text
  end

  function own.json(self, given)
    if given ~= nil then options.check("request:json", given, JSON_OPTIONS) end
    local text, err = own.text(self)
    if not text then return nil, err end
    json = json or require "sluice.json"
    local value
    value, err = json.decode(text)
    if given and given.raw and type(value) == "table" then meta.set(value, { raw = text }) end
    return value, err
  end

  local function index(self, key)
    local method = own[key]
    if method then return method end
    local make = lazy[key]
    if not make then return nil end
    local value = make(self)
    rawset(self, key, value)
    return value
  end

  return { __name = "sluice.web.request", __index = index, __tostring = show }
end

---The kind of requests over one kind of source.
---@param functions { id?: function, headers: function, field: function, remote: function, read: function, text: function } each gets the source
---@return table kind
request.kind = kind_of

---Makes a request.
---@param method string
---@param target string
---@param path string the target without its query
---@param id? string nil where the source tells it when it is asked for
---@param source any where the rest comes from
---@param kind table from request.kind
---@return sluice.web.Request
function request.new(method, target, path, id, source, kind)
  return setmetatable({
    method = method,
    target = target,
    path = path,
    id = id,
    _source = source,
    params = nil, route = nil, body = nil, -- make room: a table that grows costs more than all this
  }, kind)
end

---The query as pairs in order, repeated names kept.
---@return { [1]: string, [2]: string }[]
function methods.query_pairs(self)
  local cut = self.target:find("?", 1, true)
  return cut and router.parse_query(self.target:sub(cut + 1)) or {}
end

---Gives every answer to this request these header fields, whatever becomes of it; for middleware. Those
---that the answer has itself stay, and Vary is added to.
---@param fields table<string, string>
function methods.add_answer_headers(self, fields)
  local all = rawget(self, "answer_headers") or {}
  for name, value in pairs(fields) do all[name] = value end
  self.answer_headers = all
end

---Iterates over the pieces of the body as they come. Raises err.
---@return fun(): string?
function methods.chunks(self)
  return function()
    local piece, err = self:read()
    if err then error(err, 0) end
    return piece
  end
end

---Cuts the connection without an answer, or in the middle of one; what the handler returns is lost. For tests of
---clients.
---@return boolean cut false in process, where there is no connection
function methods.abort(self)
  local exchange = self._source
  if type(exchange) ~= "userdata" then return false end
  exchange:abort()
  return true
end

-- A source for requests that a client in this process gives. No limit is passed over: an app
-- behaves the same in process and over a socket.
local in_process = {}

function in_process.headers(source)
  return headers.new(source.given)
end

function in_process.field(source, name)
  local all = headers.all(source.given, name)
  return #all == 1 and all[1] or nil
end

function in_process.remote()
  return nil
end

-- An iterator may give empty pieces; to a reader only the end is empty.
local function next_piece(source)
  local body = source.body
  if type(body) ~= "function" then
    source.body = nil
    return body ~= "" and body or nil
  end
  local piece, err
  repeat piece, err = body() until piece ~= ""
  return piece, err
end

function in_process.read(source)
  if source.ended then return nil, source.failure end
  local piece, err = next_piece(source)
  if piece then
    source.taken = source.taken + #piece
    if source.taken <= source.max_body then return piece end
    err = request.too_large(source.max_body)
  end
  source.ended, source.failure = true, err
  return nil, err
end

function in_process.text(source)
  local pieces = {}
  while true do
    local piece, err = in_process.read(source)
    if err then return nil, err end
    if not piece then return table.concat(pieces) end
    pieces[#pieces + 1] = piece
  end
end

---The err of a body over the limit.
---@param max_body integer bytes
---@return sluice.Error err kind PayloadTooLarge
function request.too_large(max_body)
  return errors.new("PayloadTooLarge", {
    message = ("the request body is larger than the %d bytes that this server takes"):format(max_body),
  })
end

local function target_of(given)
  local target = given.path
  if not target then
    target = given.url:gsub("#.*$", "")
    local rest = target:match("^%a[%w+.-]*://[^/?]*(.*)$")
    target = rest or target
    if target:sub(1, 1) == "?" or target == "" then target = "/" .. target end
  end
  return target
end

-- One that came twice is nobody's.
local function usable_id(given)
  local id = given[1]
  if #given == 1 and type(id) == "string" and #id <= 128 and id:find("^[%w._-]+$") then return id end
  return nil
end

local in_process_kind = kind_of(in_process)

---Makes a request from what a client hands to a transport.
---@param given table { method?, url? or path?, headers?, body? }
---@param fresh_id fun(): string
---@param max_body integer bytes
---@return sluice.web.Request
function request.from_client(given, fresh_id, max_body)
  local fields = headers.new(given.headers)
  local source = { given = fields, body = given.body, taken = 0, max_body = max_body }
  local id = usable_id(headers.all(fields, "x-request-id")) or fresh_id()
  local target = target_of(given)
  local cut = target:find("?", 1, true)
  local path = cut and target:sub(1, cut - 1) or target
  return request.new(given.method or "GET", target, path, id, source, in_process_kind)
end

return request
