-- SPDX-License-Identifier: MIT
-- Several versions at once: the split a serving endpoint makes, one made here, and copies to a silent candidate.

local meta = require "sluice.meta"
local options = require "sluice.options"
local random = require "sluice.random"
local system = require "sluice.core.system"
local task = require "sluice.task"

local traffic = {}

local rendezvous, note, type = require("sluice.core.file").rendezvous, meta.note, type

-- ---- the split that a serving endpoint makes ----

-- The names of an array of names, of served entities, or of what holds them.
local function names_of(known)
  if type(known.config) == "table" then known = known.config end
  local list = known.served_entities or known.served_models or known
  local names = {}
  for index, each in ipairs(list) do
    local name = type(each) == "table" and each.name or each
    if type(name) ~= "string" then
      options.misuse("traffic.config: known: %d must be a name or a served entity", index)
    end
    names[name] = true
  end
  return names
end

local function check_share(where, name, share, is_good, what)
  if not is_good then
    options.misuse("%s: the share of %s must be %s, got %s", where, name, what, tostring(share))
  end
end

---Makes the `traffic_config` of a serving endpoint: who answers how much of the requests.
---@param shares { [1]: string, [2]: integer }[] served entities and percentages, which add up to 100
---@param known? string[]|table what there is to name: names, served entities, a config, or an endpoint as `serving_endpoints:get` gives it
---@return { routes: { served_entity_name: string, traffic_percentage: integer }[] }
function traffic.config(shares, known)
  options.argument("traffic.config", "shares", shares, "table")
  options.argument("traffic.config", "known", known, "table?")
  local names, routes, seen, sum = known and names_of(known), {}, {}, 0
  for index, share in ipairs(shares) do
    local name, percentage = nil, nil
    if type(share) == "table" then name, percentage = share[1], share[2] end
    if type(name) ~= "string" or name == "" then
      options.misuse('traffic.config: %d must be { "name", percentage }', index)
    end
    local whole = math.tointeger(percentage)
    check_share("traffic.config", name, percentage, whole and whole >= 0 and whole <= 100,
      "a whole number from 0 to 100")
    if seen[name] then options.misuse('traffic.config: "%s" is there twice', name) end
    if names and not names[name] then
      options.misuse('traffic.config: there is no served entity "%s"%s', name, options.hint(name, names))
    end
    seen[name], sum = true, sum + whole
    routes[index] = { served_entity_name = name, traffic_percentage = whole }
  end
  if sum ~= 100 then options.misuse("traffic.config: the percentages add up to %d, not to 100", sum) end
  return { routes = routes }
end

-- ---- the split made here ----

---One arm of a split.
---@class sluice.Variant
---@field name string
---@field endpoint sluice.Endpoint
---@field share number in percent
---@field requests integer assigned to it

---@class sluice.SplitOptions
---@field [integer] { [1]: sluice.Endpoint, [2]: number, name: string? } an endpoint and its share in percent; `name` of the variant: its endpoint's
---@field key? fun(request: table, options: table?): string|number|nil who asks: the same key always gets the same variant; nil: drawn. May wait
---@field salt? string of this experiment: another one spreads the same keys anew; ""
---@field seed? integer draws are a series of their own, from this seed

---An endpoint made of endpoints. `variants` is an array, and by name too.
---@class sluice.Split: sluice.Endpoint
---@field variants sluice.Variant[]
local split_methods = {}

local SPLIT <const> = { key = "callable?", salt = "string?", seed = "integer?" }
local ARM <const> = { name = "name?" }

-- What floats may be off by.
local TOLERANCE <const> = 1e-9

local function is_endpoint(value)
  local kind = type(value)
  return (kind == "table" or kind == "userdata") and value.query ~= nil
end

-- Told of what an arm raises: that is charged to it as well.
local function guard_of(facts)
  return setmetatable({}, {
    __close = function(_, err)
      if type(err) == "table" then note(err, facts) end
    end,
  })
end

local function arm_of(index, given)
  if type(given) ~= "table" or not is_endpoint(given[1]) then
    options.misuse("traffic.split: %d must be { endpoint, percentage }", index)
  end
  local named = {}
  for key, value in pairs(given) do
    if key ~= 1 and key ~= 2 then named[key] = value end
  end
  options.check("traffic.split", named, ARM)
  local name = named.name or given[1].name
  if type(name) ~= "string" or name == "" then
    options.misuse("traffic.split: %d needs a name: { endpoint, percentage, name = }", index)
  end
  local facts = { variant = name }
  return {
    name = name, endpoint = given[1], share = 0, requests = 0,
    _facts = facts, _guard = guard_of(facts),
  }
end

local function check_shares(where, variants, shares)
  local sum = 0
  for index, variant in ipairs(variants) do
    local share = shares[index]
    check_share(where, variant.name, share, type(share) == "number" and share >= 0 and share <= 100,
      "a number from 0 to 100")
    sum = sum + share
  end
  if math.abs(sum - 100) > TOLERANCE then
    options.misuse("%s: the shares add up to %s, not to 100", where, ("%.14g"):format(sum))
  end
  for index, variant in ipairs(variants) do variant.share = shares[index] + 0.0 end
end

local function variant_drawn(variants, float)
  local left, last = float() * 100, nil
  for index = 1, #variants do
    local variant = variants[index]
    local share = variant.share
    if share > 0 then
      left, last = left - share, variant
      if left < 0 then return variant end
    end
  end
  return last
end

local function pinned(self, given)
  local variant = self.variants[given.variant]
  if not variant then
    local wrong, names = given.variant, {}
    for _, each in ipairs(self.variants) do names[each.name] = true end
    options.misuse('traffic.split: there is no variant "%s"%s', wrong, options.hint(wrong, names))
  end
  local copy = {}
  for name, value in next, given do
    if name ~= "variant" then copy[name] = value end
  end
  return variant, copy
end

local function variant_of_key(self, key)
  if type(key) ~= "string" then
    if key == nil then return variant_drawn(self.variants, self._float) end
    local kind = type(key)
    if kind ~= "number" then
      options.misuse("traffic.split: key must give a string, a number or nil, got %s", kind)
    end
  end
  -- weighted rendezvous hashing: what a variant draws depends on its own share alone
  return self.variants[rendezvous(key, self._prefixes, self._shares)]
end

-- A method of the split: in one piece, for it is to cost next to nothing.
local function asking(method)
  return function(self, request, given)
    local key_of, variant = self._key
    if given and given.variant then
      variant, given = pinned(self, given)
    elseif key_of then
      variant = variant_of_key(self, key_of(request, given))
    else
      variant = variant_drawn(self.variants, self._float)
    end
    variant.requests = variant.requests + 1
    local _ <close> = variant._guard
    local endpoint = variant.endpoint
    local value, err = endpoint[method](endpoint, request, given)
    if type(value) == "table" then
      note(value, variant._facts)
    elseif value == nil and type(err) == "table" then
      note(err, variant._facts)
    end
    return value, err
  end
end

---Asks the variant that the request is assigned to. Waits as its endpoint does.
---@param request sluice.Request
---@param given? sluice.QueryOptions `variant`: the one to ask, whatever the shares say
---@return sluice.Answer? response sluice.meta(response).variant is its name
---@return sluice.Error? err sluice.meta(err).variant is its name
split_methods.query = asking "query"

---As query, for an answer as it is made.
---@param request sluice.Request
---@param given? sluice.QueryOptions
---@return sluice.Stream? stream
---@return sluice.Error? err
split_methods.stream = asking "stream"

---Sets other shares, from the next request on. Between two variants keys move one way only; of more, none moves
---between two whose shares have kept their ratio.
---@param shares table<string, number> percentages by the names of the variants, all of them
function split_methods:set_shares(shares)
  options.method("split:set_shares", self, "variants")
  options.argument("split:set_shares", "shares", shares, "table")
  local list = {}
  for index, variant in ipairs(self.variants) do
    list[index] = shares[variant.name]
    if list[index] == nil then options.misuse('split:set_shares: "%s" is missing', variant.name) end
  end
  for name in pairs(shares) do
    if not self.variants[name] then
      options.misuse('split:set_shares: there is no variant "%s"', tostring(name))
    end
  end
  check_shares("split:set_shares", self.variants, list)
  self._shares = list
end

-- What all variants have in common; nil where they differ.
local function common(variants, field)
  local first = variants[1].endpoint[field]
  for index = 2, #variants do
    if variants[index].endpoint[field] ~= first then return nil end
  end
  return first
end

local split_metatable = { __name = "sluice.endpoint", __index = split_methods }

---Makes an endpoint that spreads requests over endpoints: by draw, or by a key that always gets the same variant.
---All tries of a request stay with its variant: those of layers inside the variant anyway, those of a
---layers.retry around the split because it says which. Assigning one waits only where `key` does.
---
---The variant of a key is the one with the largest ln(u) / share, where u is XXH64(name .. "\0" .. salt .. "\0" ..
---key), seed 0, shifted right by 11 bits, plus 0.5, divided by 2^53. So between two variants a raised share moves
---keys one way only, on every machine alike.
---@param given sluice.SplitOptions
---@return sluice.Split
function traffic.split(given)
  options.argument("traffic.split", "variants", given, "table")
  local named, salt = {}, given.salt or ""
  for key, value in pairs(given) do
    if math.type(key) ~= "integer" then named[key] = value end
  end
  options.check("traffic.split", named, SPLIT)
  local variants, shares, prefixes = {}, {}, {}
  for index, each in ipairs(given) do
    local variant = arm_of(index, each)
    if variants[variant.name] then
      local text = 'traffic.split: two variants are named "%s": { endpoint, percentage, name = }'
      options.misuse(text, variant.name)
    end
    variants[index], variants[variant.name], shares[index] = variant, variant, each[2]
    prefixes[index] = variant.name .. "\0" .. salt .. "\0"
  end
  if #variants == 0 then options.misuse "traffic.split: at least one { endpoint, percentage } is needed" end
  check_shares("traffic.split", variants, shares)
  local float = named.seed and random.new(named.seed) or system.random_float
  return setmetatable({
    name = common(variants, "name"), host = common(variants, "host"),
    honours_timeout = common(variants, "honours_timeout"),
    variants = variants, _key = named.key or false, _float = float, _shares = shares, _prefixes = prefixes,
  }, split_metatable)
end

-- ---- copies for a silent candidate ----

---@class sluice.ShadowOptions
---@field max? integer copies at a time, 16; what comes meanwhile is not copied
---@field timeout? number seconds that a copy may take, 60
---@field seed? integer which requests are copied is drawn from it
local SHADOW <const> = { max = "count?", timeout = "positive?", seed = "integer?" }

local MAX_COPIES <const>, COPY_TIMEOUT <const> = 16, 60

-- Deeper than any request; a table in itself ends here.
local MAX_DEPTH <const> = 64

---The main endpoint, and what became of the copies, in counts. `close` cancels those under way.
---@class sluice.Shadow: sluice.Endpoint
---@field candidate sluice.Endpoint
---@field active integer copies under way
---@field sent integer copies
---@field skipped integer requests that were to be copied when `max` copies were under way
---@field failed integer copies without an answer
local shadow_methods = {}
local shadow_metatable = { __name = "sluice.endpoint" }

function shadow_metatable.__index(self, key)
  local method = shadow_methods[key]
  if method ~= nil then return method end
  local main = rawget(self, "_main")
  local value = main[key]
  if type(value) ~= "function" then return value end
  return function(_, ...) return value(main, ...) end
end

function shadow_metatable.__close(self) self:close() end

-- What runs in the scope holds it: nothing does any more, so this does not wait.
function shadow_metatable.__gc(self)
  if self._group then pcall(self._group.close, self._group) end
end

-- The caller goes on with its request, and may change it.
local function copy_of(value, depth)
  if type(value) ~= "table" or depth > MAX_DEPTH then return value end
  local copy = {}
  for key, item in next, value do copy[key] = copy_of(item, depth + 1) end
  return setmetatable(copy, getmetatable(value))
end

local function ask_candidate(candidate, method, request, given)
  if method == "query" or not candidate.stream then return candidate:query(request, given) end
  local opened, err = candidate:stream(request, given)
  if not opened then return nil, err end
  local chunk
  repeat chunk, err = opened:next() until chunk == nil
  opened:close()
  return err == nil or nil, err
end

local function send_copy(self, method, request, given)
  local candidate = self.candidate
  local good, value = pcall(task.timeout, self._timeout, ask_candidate, candidate, method, request, given)
  self.active = self.active - 1
  if not good or value == nil then self.failed = self.failed + 1 end
end

local function copy_options(given)
  return given and given.request_id and { request_id = given.request_id } or nil
end

local function shadow_copy(self, method, request, given)
  if self._closed or self._float() >= self.share then return end
  if self.active >= self._max then
    self.skipped = self.skipped + 1
    return
  end
  self._group = self._group or task.group()
  self.active, self.sent = self.active + 1, self.sent + 1
  self._group:spawn(send_copy, self, method, copy_of(request, 1), copy_options(given))
end

---Asks the main endpoint; maybe the candidate too, whose answer nobody gets.
---@param request sluice.Request
---@param given? sluice.QueryOptions
---@return sluice.Answer? response
---@return sluice.Error? err
function shadow_methods:query(request, given)
  shadow_copy(self, "query", request, given)
  return self._main:query(request, given)
end

---As query, for an answer as it is made; the candidate's is read to its end.
---@param request sluice.Request
---@param given? sluice.QueryOptions
---@return sluice.Stream? stream
---@return sluice.Error? err
function shadow_methods:stream(request, given)
  shadow_copy(self, "stream", request, given)
  return self._main:stream(request, given)
end

---Cancels the copies under way and makes no more. Idempotent.
function shadow_methods:close()
  self._closed = true
  local group = self._group
  self._group = false
  if group then task.shield(group.close, group) end
  self.failed, self.active = self.failed + self.active, 0 -- those that were cancelled before they ran
end

---Makes an endpoint that answers as `main` does, and sends copies of some requests to a candidate, whose
---answers and errors nobody sees but the candidate's own layers (layers.capture, layers.log). Copies run in
---a scope of their own, take no time of the main answer, and none of its deadline.
---@param main sluice.Endpoint
---@param candidate sluice.Endpoint
---@param share number of the requests, from 0 to 1
---@param given? sluice.ShadowOptions
---@return sluice.Shadow
function traffic.shadow(main, candidate, share, given)
  for name, endpoint in pairs { main = main, candidate = candidate } do
    if not is_endpoint(endpoint) then options.misuse("traffic.shadow: %s must be an endpoint", name) end
  end
  options.argument("traffic.shadow", "share", share, "number")
  local is_share = share >= 0 and share <= 1
  check_share("traffic.shadow", "copies", share, is_share, "a number from 0 to 1 (0.1 is 10 %)")
  given = options.check("traffic.shadow", given, SHADOW)
  return setmetatable({
    candidate = candidate, share = share, active = 0, sent = 0, skipped = 0, failed = 0,
    _main = main, _max = given.max or MAX_COPIES, _timeout = given.timeout or COPY_TIMEOUT,
    _float = given.seed and random.new(given.seed) or system.random_float,
    _group = false, _closed = false,
  }, shadow_metatable)
end

return traffic
