-- SPDX-License-Identifier: MIT
-- Route-optimised endpoints: asked at a URL of their own, with a token that is good for this one endpoint.

local client = require "sluice.endpoints.client"
local credentials = require "sluice.auth.credentials"
local errors = require "sluice.errors"
local oauth = require "sluice.auth.oauth"
local options = require "sluice.options"
local query_options = require "sluice.endpoints.query_options"
local task = require "sluice.task"
local token_source = require "sluice.auth.token_source"

local data_plane = {}

---@class sluice.ServingEndpointsDataPlane
local methods = {}
local metatable = {
  __name = "sluice.serving_endpoints_data_plane",
  __index = options.strict("serving_endpoints_data_plane", methods),
}

---The route-optimised endpoints of a workspace. Sends nothing.
---@param given { endpoints: sluice.ServingEndpoints, credentials: sluice.Credentials, base: string, transport?: table, background: sluice.auth.Background, settings?: fun(): sluice.Setting[] }
---@return sluice.ServingEndpointsDataPlane
function data_plane.new(given)
  return setmetatable({
    _endpoints = given.endpoints,
    _who = given.credentials,
    _base = given.base,
    _settings = given.settings,
    _server = oauth.new { base = given.base, transport = given.transport },
    _transport = given.transport or false,
    _background = given.background,
    _access = {}, -- by the name of an endpoint: where it is asked and with what
    _sources = {}, -- by URL and details: its tokens
  }, metatable)
end

local function refuse(name, kind, message)
  return nil, errors.new(kind, { operation = "query endpoint", object = name, message = message })
end

-- A server of tokens says it by its own code (RFC 6749, section 5.2) where another one says 401.
local function is_refusal(err)
  return errors.is(err) and (err.status == 401 or err.code == "invalid_grant")
end

-- Exchanges a token of the workspace for one of the endpoint; a workspace token that is refused there is
-- renewed as any call would do it.
local function exchange(self, details)
  local source, tries = self._who.source, 0
  while true do
    local token, err = source:get()
    if not token then return nil, err end
    local found
    found, err = self._server:exchange(token.value, details)
    tries = tries + 1
    local may_help = source:answered(token, is_refusal(err) and 401 or 200)
    if found or not may_help or tries > 1 then return found, err end
  end
end

local function source_of(self, url, details)
  local key = ("%d:%s%s"):format(#url, url, details)
  local source = self._sources[key]
  if not source then
    source = token_source.new {
      background = self._background, fetch = function() return exchange(self, details) end,
    }
    self._sources[key] = source
  end
  return source
end

-- Where the endpoint says it is asked, and with what.
local function read_info(name, endpoint)
  local info = endpoint.data_plane_info
  info = type(info) == "table" and info.query_info
  if type(info) ~= "table" or type(info.endpoint_url) ~= "string" then
    return refuse(name, "OperationFailed", "the endpoint has no data plane: it is not route-optimised")
  end
  local url, details = info.endpoint_url, info.authorization_details
  local base, authority = client.parse_base((url:gsub("[?#].*$", "")))
  if not base then
    return refuse(name, "ProtocolError", ("its endpoint_url cannot be used: %s"):format(authority))
  end
  return { url = url, authority = authority, details = type(details) == "string" and details or "" }
end

-- A token must not leave over a line that others read, unless the workspace itself is on such a line.
local function is_downgrade(self, url)
  return self._base:find "^https:" and not url:find "^[hH][tT][tT][pP][sS]:"
end

local function connect(self, info)
  local who = credentials.renewed(self._who.kind, source_of(self, info.url, info.details))
  local origin = info.url:match "^%a[%w+.-]*://[^/?#]+"
  return {
    url = info.url,
    details = info.details,
    path = info.url:sub(#origin + 1),
    client = client.new {
      base = origin, host = info.authority, credentials = who, transport = self._transport or nil,
      settings = self._settings,
    },
  }
end

-- Management calls are tried again: the limit of the query holds for all of that together.
local function get_endpoint(self, name, given, started)
  local limits = client.limits_left(given.timeout, started)
  local total = limits
  if type(limits) == "table" then total = limits.total end
  if not total then return self._endpoints:get(name) end
  local endpoint, err = task.timeout(total, self._endpoints.get, self._endpoints, name)
  if endpoint or not errors.is(err) or err.limit ~= "task.timeout" then return endpoint, err end
  return nil, errors.new("TimeoutError", {
    operation = "query endpoint", object = name, message = ("not yet found after %g s"):format(total),
    limit = "total", maybe_executed = false,
  })
end

local function look_up(self, name, given, started)
  local endpoint, err = get_endpoint(self, name, given, started)
  if not endpoint then return nil, err end
  local info
  info, err = read_info(name, endpoint)
  if not info then return nil, err end
  if is_downgrade(self, info.url) then
    return refuse(name, "ProtocolError", "its endpoint_url is no https, which the workspace is")
  end
  local known = self._access[name]
  if known and known.url == info.url and known.details == info.details then return known end
  self._access[name] = connect(self, info)
  return self._access[name]
end

-- A call of the endpoint: `how` is "call" or "stream", a method of the client.
local function ask(access, how, call, given, started)
  call.path, call.timeout = access.path, client.limits_left(given.timeout, started)
  return access.client[how](access.client, call)
end

-- What is answered at the old place of an endpoint that was deleted and made again: the place is gone, or
-- the token is for the one that was.
local MOVED <const> = { [401] = true, [403] = true, [404] = true }

local function may_have_moved(err)
  return errors.is(err) and MOVED[err.status] == true
end

-- A served model cannot be chosen there: there is one URL.
local QUERY <const> = {}
for name, what in pairs(query_options) do QUERY[name] = name ~= "served_model" and what or nil end

local function check(where, self, name, request, given)
  options.method(where, self, "_endpoints")
  options.argument(where, "name", name, "name")
  options.argument(where, "request", request, "table")
  given = options.check(where, given, QUERY)
  options.timeout(where, given.timeout)
  return given
end

-- Finds the endpoint and asks it; looks for it once more where it is not there any more.
local function reach(self, how, call, given)
  local name, started = call.object, task.now()
  if not self._who.source then
    local message = "the data plane takes OAuth tokens only, and the authorization method is "
    return refuse(name, "ConfigError", message .. self._who.kind)
  end
  local access = self._access[name]
  local was_known = access ~= nil
  if not access then
    local failure
    access, failure = look_up(self, name, given, started)
    if not access then return nil, failure end
  end
  local answer, err = ask(access, how, call, given, started)
  if answer or not was_known or not may_have_moved(err) then return answer, err end
  local moved = look_up(self, name, given, started)
  if not moved or moved == access then return nil, err end
  return ask(moved, how, call, given, started)
end

---Asks a route-optimised endpoint at its own URL. Where it is asked is looked up once, and once more
---where it is not found there any more. Needs tokens that can be exchanged: OAuth, a token command or a
---token file. Nothing is tried again beside that. Waits.
---@param name string
---@param request sluice.Request the wire's own keys, passed on untouched
---@param given? sluice.QueryOptions
---@return sluice.Answer? response described by sluice.meta
---@return sluice.Error? err kind ConfigError with a personal access token; OperationFailed where the endpoint has no data plane
function methods:query(name, request, given)
  given = check("serving_endpoints_data_plane:query", self, name, request, given)
  local response, err = reach(self, "call", {
    method = "POST", body = request, operation = "query endpoint", object = name,
    request_id = given.request_id,
  }, given)
  return response, err
end

---As query, for an answer as it is made: see the stream method of an endpoint. Waits.
---@param name string
---@param request sluice.Request `stream` is set
---@param given? sluice.QueryOptions
---@return sluice.Stream? stream
---@return sluice.Error? err
function methods:stream(name, request, given)
  given = check("serving_endpoints_data_plane:stream", self, name, request, given)
  local stream, err = reach(self, "stream", {
    method = "POST", body = client.streamed(request), operation = "stream endpoint", object = name,
    request_id = given.request_id,
  }, given)
  return stream, err
end

return data_plane
