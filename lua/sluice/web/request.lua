-- SPDX-License-Identifier: MIT
-- The request as a handler sees it, whether it came over a socket or from a client in process.

local errors = require "sluice.errors"
local headers = require "sluice.headers"
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
---@field remote string? the address of the client; nil in process

local methods = {}
local lazy = {}

local function index(self, key)
  local make = lazy[key]
  if make then
    local value = make(self)
    rawset(self, key, value)
    return value
  end
  return methods[key]
end

local function show(self)
  return ("sluice.web.request: %s %s"):format(self.method, self.path)
end

-- The metatable of requests that come from one kind of source, and the functions of that kind:
-- id, headers, remote, read and text.
local function kind_of(source_functions)
  return { __name = "sluice.web.request", __index = index, __tostring = show, source = source_functions }
end

local function source_of(self)
  return getmetatable(self).source
end

function lazy.id(self)
  return source_of(self).id(self._source)
end

function lazy.headers(self)
  return headers.new(source_of(self).headers(self._source))
end

function lazy.remote(self)
  return source_of(self).remote(self._source)
end

function lazy.query(self)
  local query = {}
  for _, pair in ipairs(self:query_pairs()) do
    if query[pair[1]] == nil then query[pair[1]] = pair[2] end
  end
  return query
end

function lazy.body(self)
  local text, err = self:text()
  if not text then error(err, 3) end
  return text
end

---The kind of requests over one kind of source.
---@param functions { id?: function, headers: function, remote: function, read: function, text: function } each gets the source
---@return table kind
request.kind = kind_of

---Makes a request.
---@param method string
---@param target string
---@param id? string nil where the source tells it when it is asked for
---@param source any where the rest comes from
---@param kind table from request.kind
---@return sluice.web.Request
function request.new(method, target, id, source, kind)
  local cut = target:find("?", 1, true)
  return setmetatable({
    method = method,
    target = target,
    path = cut and target:sub(1, cut - 1) or target,
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

---The next piece of the body, as it came; nil at its end; nil and err on failure. May wait.
---@return string? piece
---@return table? err kind PayloadTooLarge, MalformedRequest, RequestTimeout or ClientGone
function methods.read(self)
  return source_of(self).read(self._source)
end

---The whole body, or nil and err. May wait. Later calls give the same text.
---@return string? body
---@return table? err as read()
function methods.text(self)
  local text = rawget(self, "body")
  if text then return text end
  local err
  text, err = source_of(self).text(self._source)
  if not text then return nil, err end
  rawset(self, "body", text)
  return text
end

---The body decoded as JSON, whatever its content type says. May wait.
---@return any value nil where it fails; a JSON null is json.null
---@return table? err kind JsonError (answered with 400), or as read()
function methods.json(self)
  local text, err = self:text()
  if not text then return nil, err end
  return require("sluice.json").decode(text)
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

-- A source for requests that a client in this process gives. No limit is passed over: an app
-- behaves the same in process and over a socket.
local in_process = {}

function in_process.headers(source)
  return source.given
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
  return request.new(given.method or "GET", target_of(given), id, source, in_process_kind)
end

return request
