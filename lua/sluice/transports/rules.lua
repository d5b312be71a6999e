-- SPDX-License-Identifier: MIT
-- Fault rules: which request is to fail, when in the row of its like, and how. For the fault transport and the emulator.

local json = require "sluice.json"
local options = require "sluice.options"
local random = require "sluice.random"
local url = require "sluice.url"

local rules = {}

---A rule, from Lua or from JSON. What it matches: all of `method`, `path`, `endpoint` and `when` that
---are given. When: see `skip`, `times`, `probability`. What happens: `kind` and the fields of its own.
---@class sluice.FaultRule
---@field kind string "status", "refuse", "reset", "stall", "delay", "drip", "split", "truncate", "html" or "bad_json"
---@field method? string in any case
---@field path? string with `*` for a part of a segment, and for the rest at its end: "/serving-endpoints/*/invocations"
---@field endpoint? string the name of a serving endpoint, as the path has it
---@field served_entity? string of the emulator alone: the served entity that answers
---@field when? fun(request: table): any of Lua alone
---@field skip? integer how many matching requests pass first, 0
---@field times? integer how many are hit then; all
---@field probability? number from 0 to 1: how likely it is for a request that skip and times let be hit; 1
---@field seed? integer of the probability; the rule's place among the rules given
---@field after? boolean the work is done first, then the answer is spoilt (false)
---@field status? integer of "status" (needed) and "html" (200)
---@field headers? table of "status", "html" and "bad_json": header fields
---@field body? string of "status", "html" and "bad_json": the body
---@field json? any of "status": the body
---@field seconds? number of "delay" (needed); of "stall", where none means for ever
---@field bytes? integer of "truncate" (needed), "reset" and "stall": how much of the body comes before
---@field clean? boolean of "truncate": the body ends as if it were whole, instead of a cut connection (false)
---@field pause? number of "drip": seconds before each piece
---@field bytes_per_second? number of "drip"
---@field size? integer of "split" and of "drip" with `pause`: bytes of each piece
---@field sizes? integer[] of "split": bytes of the pieces, from the start again at its end

---A rule at work.
---@class sluice.Fault: sluice.FaultRule
---@field id integer
---@field seen integer matching requests so far
---@field hits integer those that were hit

local function amount(value)
  return math.type(value) == "integer" and value >= 0, "an integer of at least 0"
end

local function share(value)
  return type(value) == "number" and value >= 0 and value <= 1, "a number from 0 to 1"
end

local function status(value)
  return math.type(value) == "integer" and value >= 200 and value <= 599, "an integer from 200 to 599"
end

local function piece_sizes(value)
  local wants = "an array of integers of at least 1"
  if type(value) ~= "table" or #value == 0 then return false, wants end
  for _, size in ipairs(value) do
    if math.type(size) ~= "integer" or size < 1 then return false, wants end
  end
  return true
end

local COMMON = {
  kind = "string", method = "name?", path = "name?", endpoint = "name?", when = "callable?",
  skip = amount, times = "count?", probability = share, seed = "integer?", after = "boolean?",
}

-- The fields of each kind, besides those.
local OWN = {
  status = { status = status, headers = "table?", body = "string?", json = "any?" },
  refuse = {},
  reset = { bytes = amount },
  stall = { seconds = "seconds?", bytes = amount },
  delay = { seconds = "seconds" },
  drip = { pause = "seconds?", bytes_per_second = "positive?", size = "count?" },
  split = { size = "count?", sizes = piece_sizes },
  truncate = { bytes = amount, clean = "boolean?" },
  html = { status = status, headers = "table?", body = "string?" },
  bad_json = { headers = "table?", body = "string?" },
}

-- The fields of each kind in full; `more` are those that all of them have as well.
local function specs_of(kinds, more)
  local specs = {}
  for kind, own in pairs(kinds) do
    local spec = {}
    for _, part in ipairs { COMMON, more or {}, own } do
      for name, what in pairs(part) do spec[name] = what end
    end
    specs[kind] = spec
  end
  return specs
end

local SPECS = specs_of(OWN)

-- The name that messages begin with.
local WHERE <const> = "fault rule"

-- What options.check says, without the place in some program: a rule may have come over the wire.
local function problem_of(given, spec)
  local good, text = pcall(options.check, WHERE, given, spec)
  if good then return nil end
  local from = tostring(text):find(WHERE, 1, true)
  return from and text:sub(from) or tostring(text)
end

-- What no single field tells: needed ones, and those that exclude each other.
local combined = {}

function combined.status(rule)
  if rule.status == nil then return 'option "status" is missing' end
  if rule.body ~= nil and rule.json ~= nil then return 'give one of "body" and "json"' end
end

function combined.truncate(rule)
  if rule.bytes == nil then return 'option "bytes" is missing' end
end

function combined.split(rule)
  if (rule.size == nil) == (rule.sizes == nil) then return 'give one of "size" and "sizes"' end
end

function combined.drip(rule)
  if (rule.pause == nil) == (rule.bytes_per_second == nil) then
    return 'give one of "pause" and "bytes_per_second"'
  end
  if rule.size and not rule.pause then return '"size" goes with "pause"' end
end

function combined.refuse(rule)
  if rule.after then return "what is refused was not done: \"after\" must be false" end
end

local function header_problem(fields)
  for name, value in pairs(fields or {}) do
    if type(name) ~= "string" or type(value) ~= "string" then
      return 'option "headers" must map names to strings'
    end
  end
end

-- JSON's null counts as left out.
local function without_nulls(given)
  local rule = {}
  for name, value in pairs(given) do
    if value ~= json.null then rule[name] = value end
  end
  return rule
end

---Checks a rule. Never waits.
---@param given any from Lua, or decoded JSON
---@param specs? table<string, sluice.OptionSpec> of the kinds there are, those of this file
---@return sluice.FaultRule? rule a copy
---@return string? problem what is wrong with it
function rules.read(given, specs)
  specs = specs or SPECS
  if type(given) ~= "table" then
    return nil, ("%s: an object is needed, got %s"):format(WHERE, options.type_name(given))
  end
  local rule = without_nulls(given)
  if rule.kind == nil then return nil, WHERE .. ': option "kind" is missing' end
  local spec = specs[rule.kind]
  if not spec then
    local text = '%s: unknown kind "%s"%s'
    return nil, text:format(WHERE, tostring(rule.kind), options.hint(tostring(rule.kind), specs))
  end
  local problem = problem_of(rule, spec)
  if problem then return nil, problem end
  problem = header_problem(rule.headers) or combined[rule.kind] and combined[rule.kind](rule)
  if problem then return nil, ("%s of kind %q: %s"):format(WHERE, rule.kind, problem) end
  return rule
end

-- A Lua pattern for the whole path: `*` stands for anything within a segment, at the end for the rest.
local function pattern_of(path)
  local rest = path:sub(-1) == "*"
  if rest then path = path:sub(1, -2) end
  local text = path:gsub("[^%w*]", "%%%0"):gsub("%*", "[^/]*")
  return "^" .. text .. (rest and "" or "$")
end

local function path_of(request)
  local path = request.path or request.url or ""
  path = path:gsub("[?#].*$", ""):gsub("^%a[%w+.-]*://[^/]*", "")
  return path == "" and "/" or path
end

-- `/serving-endpoints/NAME/...`, also below /api/2.0 and of the provisioned throughput (`pt/NAME`).
local function endpoint_of(path)
  local name = path:match "/serving%-endpoints/pt/([^/]+)/config$" or path:match "/serving%-endpoints/([^/]+)"
  return name and url.decode(name)
end

local function matches(fault, request, endpoint)
  if fault.method and fault.method:upper() ~= (request.method or "GET"):upper() then return false end
  local path = path_of(request)
  if fault._pattern and not path:find(fault._pattern) then return false end
  if fault.endpoint and fault.endpoint ~= (endpoint or endpoint_of(path)) then return false end
  return not fault.when or fault.when(request) and true or false
end

-- Rules of a served entity wait until it is known which one answers; the others have had their turn then.
local function is_of(fault, served_entity)
  return fault.served_entity == served_entity
end

-- Whether this one of the matching requests is hit.
local function is_due(fault)
  fault.seen = fault.seen + 1
  if fault.seen <= (fault.skip or 0) then return false end
  if fault.times and fault.hits >= fault.times then return false end
  if fault.probability and fault._random() >= fault.probability then return false end
  fault.hits = fault.hits + 1
  return true
end

---Rules in order.
---@class sluice.FaultRules
local methods = {}
local metatable = { __name = "sluice.fault_rules", __index = methods }

---Makes a set of rules. Raises for a rule that is none.
---@param list? sluice.FaultRule[]
---@param given? { seed?: integer, kinds?: table<string, sluice.OptionSpec>, common?: sluice.OptionSpec } `seed`: of the probabilities, 0; `kinds`: more kinds, with the fields of their own; `common`: more fields of every kind
---@return sluice.FaultRules
function rules.new(list, given)
  options.argument("rules.new", "rules", list, "table?")
  given = options.check("rules.new", given, { seed = "integer?", kinds = "table?", common = "table?" })
  local set = setmetatable({ _faults = {}, _last = 0, _seed = given.seed or 0, _specs = SPECS }, metatable)
  if given.kinds then
    set._specs = specs_of(given.kinds, given.common)
    for kind, kind_spec in pairs(specs_of(OWN, given.common)) do
      set._specs[kind] = set._specs[kind] or kind_spec
    end
  end
  for index, each in ipairs(list or {}) do
    local id, problem = set:add(each)
    if not id then options.misuse("rule %d: %s", index, problem) end
  end
  return set
end

---Adds a rule behind the others.
---@param given sluice.FaultRule from Lua, or decoded JSON
---@return integer? id
---@return string? problem what is wrong with it
function methods:add(given)
  local fault, problem = rules.read(given, self._specs)
  if not fault then return nil, problem end
  self._last = self._last + 1
  fault.id, fault.seen, fault.hits = self._last, 0, 0
  fault._pattern = fault.path and pattern_of(fault.path)
  fault._random = fault.probability and random.new(self._seed + (fault.seed or fault.id))
  self._faults[#self._faults + 1] = fault
  return fault.id
end

---The fault that this request is to meet: of the first rule that hits it. A rule that only counts the
---request (`skip`, `times`, `probability`) lets those after it have their turn.
---@param request { method?: string, url?: string, path?: string } also a request of a web app
---@param endpoint? string the name of the endpoint, where the path does not tell
---@param served_entity? string of the rules for this one alone; nil: of those for none
---@return sluice.Fault? fault
function methods:match(request, endpoint, served_entity)
  for _, fault in ipairs(self._faults) do
    local is_met = is_of(fault, served_entity) and matches(fault, request, endpoint)
    if is_met and is_due(fault) then return fault end
  end
  return nil
end

---The rules in order as plain tables for JSON: what was given, and `id`, `seen`, `hits`.
---@return table[]
function methods:list()
  local list = json.array {}
  for index, fault in ipairs(self._faults) do
    local plain = {}
    for name, value in pairs(fault) do
      if name:sub(1, 1) ~= "_" and name ~= "when" then plain[name] = value end
    end
    list[index] = plain
  end
  return list
end

---Takes a rule out.
---@param id integer
---@return boolean found
function methods:remove(id)
  for index, fault in ipairs(self._faults) do
    if fault.id == id then
      table.remove(self._faults, index)
      return true
    end
  end
  return false
end

---Takes all rules out.
function methods:clear()
  self._faults = {}
end

return rules
