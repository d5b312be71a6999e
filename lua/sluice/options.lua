-- SPDX-License-Identifier: MIT
-- Checks the options of a public function: a wrong type, an unknown or a missing name raises at its caller.

local options = {}

---What an option may be: type names joined by `|`, with a `?` at the end when it may be left out
---(`"string"`, `"table|number?"`), or a function `(value) -> ok, expectation`. Besides Lua's own
---types: `any`, `callable`, `integer`, `count` (an integer of at least 1), `seconds` (a number of at
---least 0, not NaN), `secret` (made by sluice.secret), `text` (string or secret).
---@alias sluice.OptionSpec table<string, string|fun(value: any): boolean, string>

local function is_secret(value)
  local metatable = getmetatable(value)
  return type(metatable) == "table" and metatable.__name == "sluice.secret"
end

local function is_callable(value)
  if type(value) == "function" then return true end
  local metatable = getmetatable(value)
  return type(metatable) == "table" and metatable.__call ~= nil
end

local predicates = {
  any = function() return true end,
  callable = is_callable,
  integer = function(value) return math.type(value) == "integer" end,
  count = function(value) return math.type(value) == "integer" and value >= 1 end,
  seconds = function(value) return type(value) == "number" and value >= 0 end,
  secret = is_secret,
  text = function(value) return type(value) == "string" or is_secret(value) end,
}
for _, name in ipairs { "string", "number", "boolean", "table", "function", "userdata", "thread" } do
  predicates[name] = function(value) return type(value) == name end
end
predicates.table = function(value) return type(value) == "table" and not is_secret(value) end

local descriptions = {
  any = "anything",
  callable = "a function",
  integer = "an integer",
  count = "an integer of at least 1",
  seconds = "a number of seconds, at least 0",
  secret = "a sluice.secret",
  text = "a string or a sluice.secret",
}

local function describe(name)
  return descriptions[name] or ("a " .. name)
end

-- A rule is { test = function, wants = text, optional = boolean }; made once for each text.
local rules = {}

local function rule_of(text)
  local rule = rules[text]
  if rule then return rule end
  local body, mark = text:match("^([%a|]+)(%??)$")
  if not body then error(("malformed option type %q"):format(text)) end
  local tests, wants = {}, {}
  for name in body:gmatch("%a+") do
    if not predicates[name] then error(("unknown option type %q"):format(name)) end
    tests[#tests + 1], wants[#wants + 1] = predicates[name], describe(name)
  end
  local test = tests[1]
  if #tests > 1 then
    function test(value)
      for index = 1, #tests do
        if tests[index](value) then return true end
      end
      return false
    end
  end
  rule = { test = test, wants = table.concat(wants, " or "), optional = mark == "?" }
  rules[text] = rule
  return rule
end

-- What options.check needs of a spec, worked out at its first use: a spec is a constant of its module.
local compiled_specs = setmetatable({}, { __mode = "k" })

local function compile(spec)
  local checks, required = {}, {}
  for name, what in pairs(spec) do
    local rule = type(what) == "function" and { test = what, optional = true } or rule_of(what)
    checks[name] = rule
    if not rule.optional then required[#required + 1] = name end
  end
  table.sort(required)
  local compiled = { checks = checks, required = required }
  compiled_specs[spec] = compiled
  return compiled
end

-- Edit distance with transpositions; the names are short.
local function distance(a, b)
  local before, previous = nil, {}
  for j = 0, #b do previous[j] = j end
  for i = 1, #a do
    local current = { [0] = i }
    for j = 1, #b do
      local cost = a:byte(i) == b:byte(j) and 0 or 1
      local best = math.min(previous[j] + 1, current[j - 1] + 1, previous[j - 1] + cost)
      if before and j > 1 and a:byte(i) == b:byte(j - 1) and a:byte(i - 1) == b:byte(j) then
        best = math.min(best, before[j - 2] + 1)
      end
      current[j] = best
    end
    before, previous = previous, current
  end
  return previous[#b]
end

---The name among `names` (an array, or a table whose keys are the names) that `wrong` was meant to
---be; nil when none is near.
---@param wrong string
---@param names table
---@return string?
function options.nearest(wrong, names)
  local limit = math.max(1, #wrong // 3)
  local best, found = limit + 1, nil
  for key, value in pairs(names) do
    local name = type(key) == "string" and key or value
    local steps = distance(wrong:lower(), name:lower())
    if steps < best or (steps == best and found and name < found) then best, found = steps, name end
  end
  return found
end

---The type of a value as messages name it: `secret` rather than table, `integer`-ness left out.
---@param value any
---@return string
function options.type_name(value)
  if is_secret(value) then return "secret" end
  return type(value)
end

local function fail(level, text, ...)
  error(text:format(...), level + 1)
end

local function fail_unknown(where, name, checks, level)
  if type(name) ~= "string" then
    fail(level + 1, "%s: options are given by name, got a value at [%s]", where, tostring(name))
  end
  local near = options.nearest(name, checks)
  local hint = near and (' (did you mean "%s"?)'):format(near) or ""
  fail(level + 1, '%s: unknown option "%s"%s', where, name, hint)
end

local function fail_value(where, name, rule, value, level)
  local wants = rule.wants
  if not wants then
    local _, expectation = rule.test(value)
    wants = expectation or "something else"
  end
  local got = options.type_name(value)
  if got == "number" then got = tostring(value) end
  fail(level + 1, '%s: option "%s" must be %s, got %s', where, name, wants, got)
end

local NOTHING = {}

---Checks a table of options. Raises at the caller of the public function that calls this. Allocates
---nothing when all is right.
---@param where string the public name, for the message: `"http.request"`
---@param given table? the caller's options
---@param spec sluice.OptionSpec a constant table of the module
---@param level? integer as error()'s, seen from here: 2 the public function, 3 (default) its caller
---@return table given an empty table, not to be written to, for nil
function options.check(where, given, spec, level)
  level = level or 3
  local compiled = compiled_specs[spec] or compile(spec)
  if given == nil then
    given = NOTHING
  elseif type(given) ~= "table" then
    fail(level, "%s: options must be a table, got %s", where, type(given))
  end
  local checks = compiled.checks
  for name, value in next, given do
    local rule = checks[name]
    if not rule then fail_unknown(where, name, checks, level) end
    if not rule.test(value) then fail_value(where, name, rule, value, level) end
  end
  local required = compiled.required
  for index = 1, #required do
    if given[required[index]] == nil then
      fail(level, '%s: option "%s" is missing', where, required[index])
    end
  end
  return given
end

---Checks one argument that is no option. Raises at the caller of the public function.
---@param where string
---@param name string the argument's name
---@param value any
---@param what string as in a spec: `"string"`, `"table?"`
---@param level? integer
function options.argument(where, name, value, what, level)
  local rule = rule_of(what)
  if value == nil and rule.optional then return end
  if rule.test(value) then return end
  local got = options.type_name(value)
  if got == "number" then got = tostring(value) end
  fail(level or 3, '%s: argument "%s" must be %s, got %s', where, name, rule.wants, got)
end

---The time limits of a request, in seconds.
---@class sluice.Timeout
---@field queue? number waiting for a connection slot
---@field connect? number name, TCP and TLS
---@field first_byte? number from sending until the head of the answer
---@field first_event? number from sending until the first event of a stream
---@field idle? number between two pieces of content
---@field total? number everything
local TIMEOUT = {
  queue = "seconds?",
  connect = "seconds?",
  first_byte = "seconds?",
  first_event = "seconds?",
  idle = "seconds?",
  total = "seconds?",
}

---Checks a `timeout` option and gives it as a table; a number is the total. Raises at the caller of
---the public function.
---@param where string
---@param value number|sluice.Timeout|nil
---@param level? integer
---@return sluice.Timeout? limits the caller's own table where it was one
function options.timeout(where, value, level)
  level = level or 3
  if value == nil then return nil end
  if type(value) == "number" then
    if not predicates.seconds(value) then
      fail(level, '%s: option "timeout" must be %s, got %s', where, descriptions.seconds, value)
    end
    return { total = value }
  end
  if type(value) ~= "table" then
    fail(level, '%s: option "timeout" must be a number or a table, got %s', where, type(value))
  end
  local limits = options.check(where .. ": timeout", value, TIMEOUT, level + 1)
  return limits
end

return options
