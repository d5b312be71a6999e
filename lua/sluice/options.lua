-- SPDX-License-Identifier: MIT
-- Checks the options of a public function: a wrong type, an unknown or a missing name raises at the line that called.

local options = {}

---What an option may be: type names joined by `|`, with a `?` at the end when it may be left out
---(`"string"`, `"table|number?"`), or a function `(value) -> ok, expectation`. Besides Lua's own
---types: `any`, `callable`, `integer`, `count` (an integer of at least 1), `seconds` (a number of at
---least 0, not NaN), `positive` (a number above 0 and finite), `secret` (made by sluice.secret), `text` (string or secret), `name` (a string that is not empty).
---@alias sluice.OptionSpec table<string, string|fun(value: any): boolean, string>

local function is_secret(value)
  local metatable = getmetatable(value)
  return metatable ~= nil and type(metatable) == "table" and metatable.__name == "sluice.secret"
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
  positive = function(value) return type(value) == "number" and value > 0 and value < math.huge end,
  secret = is_secret,
  text = function(value) return type(value) == "string" or is_secret(value) end,
  name = function(value) return type(value) == "string" and value ~= "" end,
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
  positive = "a number above 0",
  secret = "a sluice.secret",
  text = "a string or a sluice.secret",
  name = "a string that is not empty",
}

local function describe(name)
  return descriptions[name] or ("a " .. name)
end

-- A rule is { test = function, wants = text, optional = boolean }, and by the names of some types what is to
-- be tested of those: a function, or true for nothing. Made once for each text.
local rules = {}

local function is_no_secret(value)
  return getmetatable(value) == nil or not is_secret(value)
end

local QUICK <const> = {
  string = { "string", true }, number = { "number", true }, boolean = { "boolean", true },
  callable = { "function", true }, ["function"] = { "function", true }, text = { "string", true },
  table = { "table", is_no_secret },
}

local function rule_of(text)
  if rules[text] then return rules[text] end
  local body, mark = text:match("^([%a|]+)(%??)$")
  if not body then error(("malformed option type %q"):format(text)) end
  local tests, wants, rule = {}, {}, {}
  for name in body:gmatch("%a+") do
    if not predicates[name] then error(("unknown option type %q"):format(name)) end
    if QUICK[name] then rule[QUICK[name][1]] = QUICK[name][2] end
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
  rule.test, rule.wants, rule.optional = test, table.concat(wants, " or "), mark == "?"
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

-- Shorter words are parts of too many others.
local PART_AT_LEAST = 3

-- How far two words are where one is a part of the other: "key" and "api_key"; nil where it is none.
local function part_distance(a, b)
  if #a > #b then a, b = b, a end
  return #a >= PART_AT_LEAST and b:find(a, 1, true) and #b - #a or nil
end

local function closest(names, most, steps_to)
  local best, found = most + 1, nil
  for key, value in pairs(names) do
    local name = type(key) == "string" and key or value
    local steps = steps_to(name:lower())
    if steps and (steps < best or (steps == best and found and name < found)) then
      best, found = steps, name
    end
  end
  return found
end

---The name among `names` (an array, or a table whose keys are the names) that `wrong` was meant to
---be: a few letters away, or a part of it; nil when none is near.
---@param wrong string
---@param names table
---@return string?
function options.nearest(wrong, names)
  wrong = wrong:lower()
  local typo = closest(names, math.max(1, #wrong // 3), function(name) return distance(wrong, name) end)
  return typo or closest(names, math.huge, function(name) return part_distance(wrong, name) end)
end

-- More than this nobody reads.
local MOST_LISTED = 12

---What to say of a name that is none of `names`: ` (did you mean "timeout"?)`, else ` (there is a, b, c)`.
---@param wrong string
---@param names table<string, any> by name
---@return string
function options.hint(wrong, names)
  local near = options.nearest(wrong, names)
  if near then return (' (did you mean "%s"?)'):format(near) end
  local list = {}
  for name in pairs(names) do list[#list + 1] = name end
  if #list == 0 or #list > MOST_LISTED then return "" end
  table.sort(list)
  return (" (there is %s)"):format(table.concat(list, ", "))
end

---The type of a value as messages name it: `secret` rather than table, `integer`-ness left out.
---@param value any
---@return string
function options.type_name(value)
  if is_secret(value) then return "secret" end
  return type(value)
end

-- What the sources of this library begin with, wherever it is installed. A host may have taken `debug` away.
local getinfo = debug and debug.getinfo
local HERE = getinfo and getinfo(1, "S").source
local LIBRARY = HERE and HERE:match("^(.*)options%.lua$")

local function source_at(level)
  local info = getinfo(level + 1, "S")
  return info and info.source
end

local function is_ours(info)
  return info.what == "C" or info.source:sub(1, #LIBRARY) == LIBRARY
end

-- `file:line: ` of the code that called the library; "" where there is none, as in a task whose function is ours.
local function place()
  if not LIBRARY then return "" end
  local level = 2
  while source_at(level + 1) == HERE do level = level + 1 end
  local info = getinfo(level, "Slft")
  local function step()
    level = level + 1
    info = getinfo(level + 1, "Slft")
  end
  if not info.istailcall then step() end -- to the public function, which may be a user's own
  while info do
    local is_tail = info.istailcall
    step()
    -- the script's own frame is gone: what called it is the host's, or another one's
    if info and is_tail and info.func == xpcall then return "" end
    if info and not is_ours(info) then return ("%s:%d: "):format(info.short_src, info.currentline) end
  end
  return ""
end

---An `__index` that finds methods, and raises for what is none.
---@param where string what the object is called
---@param methods table<string, function>
---@param own? string[] the fields that every object has of its own, for the hint
---@return fun(object: table, name: any): function?
function options.strict(where, methods, own)
  return function(_, name)
    local found = rawget(methods, name)
    if found ~= nil or type(name) ~= "string" then return found end
    local names = {}
    for each in pairs(methods) do names[each] = true end
    for _, each in ipairs(own or {}) do names[each] = true end
    options.misuse('%s has no field "%s"%s', where, name, options.hint(name, names))
  end
end

local function fail(text, ...)
  error(place() .. text:format(...), 0)
end

---Raises for a misuse, at the line that called the library: through layers, retries and tasks.
---@param text string a format string
---@param ... any
function options.misuse(text, ...)
  fail(text, ...)
end

local function shown(value)
  if type(value) == "number" then return tostring(value) end
  return value == "" and '""' or options.type_name(value)
end

local function fail_unknown(where, name, checks)
  if type(name) ~= "string" then
    fail("%s: options are given by name, got a value at [%s]", where, tostring(name))
  end
  fail('%s: unknown option "%s"%s', where, name, options.hint(name, checks))
end

local function fail_value(where, name, rule, value)
  local wants = rule.wants
  if not wants then
    local _, expectation = rule.test(value)
    wants = expectation or "something else"
  end
  fail('%s: option "%s" must be %s, got %s', where, name, wants, shown(value))
end

local NOTHING = {}

---Checks a table of options. Raises at the line that called the library (see options.misuse). Allocates
---nothing when all is right.
---@param where string the public name, for the message: `"http.request"`
---@param given table? the caller's options
---@param spec sluice.OptionSpec a constant table of the module
---@return table given an empty table, not to be written to, for nil
function options.check(where, given, spec)
  local compiled = compiled_specs[spec] or compile(spec)
  if given == nil then
    given = NOTHING
  elseif type(given) ~= "table" then
    fail("%s: options must be a table, got %s", where, type(given))
  end
  local checks = compiled.checks
  for name, value in next, given do
    local rule = checks[name]
    if not rule then fail_unknown(where, name, checks) end
    local quick = rule[type(value)]
    if quick ~= true and not (quick or rule.test)(value) then fail_value(where, name, rule, value) end
  end
  local required = compiled.required
  for index = 1, #required do
    if given[required[index]] == nil then
      fail('%s: option "%s" is missing', where, required[index])
    end
  end
  return given
end

---Checks one argument that is no option. Raises at the line that called the library.
---@param where string
---@param name string the argument's name
---@param value any
---@param what string as in a spec: `"string"`, `"table?"`
function options.argument(where, name, value, what)
  local rule = rules[what] or rule_of(what)
  local quick = rule[type(value)]
  if quick == true or (value == nil and rule.optional) then return end
  if (quick or rule.test)(value) then return end
  fail('%s: argument "%s" must be %s, got %s', where, name, rule.wants, shown(value))
end

---Checks that a method got its object: `w.endpoint "x"` instead of `w:endpoint "x"` is told so.
---@param where string
---@param self any
---@param field string one that every such object has, and no argument of the method
function options.method(where, self, field)
  local kind = type(self)
  if (kind == "table" or kind == "userdata") and self[field] ~= nil then return end
  fail("%s is a method: call it with a colon, not with a dot", where)
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

local function are_limits(value)
  for name, seconds in next, value do
    local is_good = TIMEOUT[name] and type(seconds) == "number" and seconds >= 0
    if not is_good then return false end
  end
  return true
end

---Checks a `timeout` option and gives it as a table; a number is the total. Raises at the line that
---called the library.
---@param where string
---@param value number|sluice.Timeout|nil
---@return sluice.Timeout? limits the caller's own table where it was one
function options.timeout(where, value)
  if value == nil then return nil end
  local kind = type(value)
  if kind == "table" and are_limits(value) then return value end
  if kind == "number" and value >= 0 then return { total = value } end
  local is_all = where:find("timeout$") -- of layers.timeout it is no option among others
  local what = is_all and "the limits" or 'option "timeout"'
  if kind == "number" then
    fail("%s: %s must be %s, got %s", where, what, descriptions.seconds, value)
  elseif kind ~= "table" then
    fail("%s: %s must be a number or a table, got %s", where, what, kind)
  end
  local limits = options.check(is_all and where or where .. ": timeout", value, TIMEOUT)
  return limits
end

return options
