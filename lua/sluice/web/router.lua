-- SPDX-License-Identifier: MIT
-- Which handler answers a method and a path: a tree of path segments.
--
-- A literal segment goes before ":name", and ":name" before "/*"; the most specific pattern that
-- has the method wins, so a catch-all for any method answers what nothing else does.

local router = {}

---@class sluice.web.Route
---@field pattern string as registered
---@field names string[] the names of its parameters, in order
---@field handler function

---@class sluice.web.Router
local methods = {}
local metatable = { __name = "sluice.web.router", __index = methods }

local function unescape(hex)
  return string.char(tonumber(hex, 16))
end

---Decodes %XX. Never waits.
---@param text string
---@return string? text nil where a % is not followed by two hexadecimal digits
function router.decode(text)
  if not text:find("%", 1, true) then return text end
  if text:gsub("%%%x%x", ""):find("%", 1, true) then return nil end
  return (text:gsub("%%(%x%x)", unescape))
end

---Reads a query string: `+` is a space, a broken % stays as it is, a name alone has the value "".
---@param text string what follows the "?"
---@return { [1]: string, [2]: string }[] pairs in order
function router.parse_query(text)
  local pairs_of = {}
  for part in text:gmatch("[^&]+") do
    local name, value = part:match("^([^=]*)=?(.*)$")
    name, value = name:gsub("+", " "), value:gsub("+", " ")
    pairs_of[#pairs_of + 1] = { router.decode(name) or name, router.decode(value) or value }
  end
  return pairs_of
end

local function new_node()
  return { literals = {}, routes = {} }
end

---Makes a router without routes.
---@return table router with add and find
function router.new()
  return setmetatable({ root = new_node(), static = {} }, metatable)
end

local function split(path)
  local segments = {}
  for segment in path:gmatch("/([^/]*)") do segments[#segments + 1] = segment end
  return segments
end

local function child_of(node, segment, names)
  local name = segment:match("^:([%a_][%w_]*)$")
  if name then
    names[#names + 1] = name
    node.parameter = node.parameter or new_node()
    return node.parameter
  end
  node.literals[segment] = node.literals[segment] or new_node()
  return node.literals[segment]
end

---Registers a handler. Misuse is returned as text, for the caller to raise at its own level.
---@param method string upper case, or "*" for any
---@param pattern string "/a/:name/b"; "/*" at its end takes the rest
---@param handler function
---@return string? problem
function methods:add(method, pattern, handler)
  if pattern:sub(1, 1) ~= "/" then return ('a path begins with "/": %q'):format(pattern) end
  local prefix, wild = pattern:match("^(.*)/(%*)$")
  local names, node = {}, self.root
  for _, segment in ipairs(split(prefix or pattern)) do
    if segment:find("*", 1, true) then
      return ('"*" stands alone at the end of a path: %q'):format(pattern)
    end
    if segment:find("^:") and not segment:find("^:[%a_][%w_]*$") then
      return ("a parameter is \":\" and a name: %q in %q"):format(segment, pattern)
    end
    node = child_of(node, segment, names)
  end
  if wild then
    names[#names + 1] = "*"
    node.rest = node.rest or {}
  elseif #names == 0 then
    self.static[pattern] = node
  end
  local routes = wild and node.rest or node.routes
  if routes[method] then
    return ("%s %s has a handler already"):format(method == "*" and "any" or method, pattern)
  end
  routes[method] = { pattern = pattern, names = names, handler = handler }
  return nil
end

local function pick(routes, method)
  return routes[method] or (method == "HEAD" and routes.GET) or routes["*"]
end

-- What goes round while a path is looked up: { segments, count, method, values, allowed }.
-- The depth of this recursion is that of the deepest pattern registered, whatever the path.
local function descend(search, node, index)
  if index > search.count then
    local route = pick(node.routes, search.method)
    if not route then search.allowed[#search.allowed + 1] = node.routes end
    return route
  end
  local segment, values = search.segments[index], search.values
  local literal = node.literals[segment]
  local route = literal and descend(search, literal, index + 1)
  if route then return route end
  if node.parameter and segment ~= "" then
    values[#values + 1] = segment
    route = descend(search, node.parameter, index + 1)
    if route then return route end
    values[#values] = nil
  end
  if not node.rest then return nil end
  route = pick(node.rest, search.method)
  if route then
    values[#values + 1] = table.concat(search.segments, "/", index, search.count)
  else
    search.allowed[#search.allowed + 1] = node.rest
  end
  return route
end

local function allow_of(sets)
  local seen, list = { OPTIONS = true }, { "OPTIONS" }
  local function allow(name)
    if not seen[name] then
      seen[name] = true
      list[#list + 1] = name
    end
  end
  for _, routes in ipairs(sets) do
    for name in pairs(routes) do
      allow(name)
      if name == "GET" then allow "HEAD" end
    end
  end
  if #list == 1 then return nil end
  table.sort(list)
  return table.concat(list, ", ")
end

local NO_PARAMS = setmetatable({}, { __newindex = function() error("this route has no parameters", 2) end })

---Looks a path up among those without parameters. Never waits.
---@param method string
---@param path string as it came, still encoded, without the query
---@return sluice.web.Route? route
---@return table? params none
function methods:fixed(method, path)
  local node = self.static[path]
  return node and pick(node.routes, method), NO_PARAMS
end

---Looks a path up. Never waits.
---@param method string
---@param path string as it came, still encoded, without the query
---@return sluice.web.Route? route
---@return table|string|nil more the parameters by name; without a route the value of Allow, or nil where the path is not known at all
function methods:find(method, path)
  local route = self:fixed(method, path)
  if route then return route, NO_PARAMS end
  local segments = split(path)
  for index, segment in ipairs(segments) do segments[index] = router.decode(segment) or segment end
  local search = { segments = segments, count = #segments, method = method, values = {}, allowed = {} }
  route = descend(search, self.root, 1)
  if not route then return nil, allow_of(search.allowed) end
  local params = {}
  for index, name in ipairs(route.names) do params[name] = search.values[index] end
  return route, params
end

return router
