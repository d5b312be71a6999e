-- SPDX-License-Identifier: MIT
-- A metric: its series by the values of its labels, of which there are only so many, and their text.

local log = require "sluice.log"
local options = require "sluice.options"
local secret = require "sluice.secret"
local series = require "sluice.metrics.series"

local family = {}

-- Of a label's value: longer ones are cut. No name needs as much.
local LONGEST <const> = 128

-- What all labels of a series say that stands for those that found no room.
local OTHER <const> = "other"

---A metric with labels.
---@class sluice.metrics.Family
---@field name string
---@field kind "counter"|"gauge"|"histogram"
---@field count integer its series
---@field surplus integer how often a series was asked for that found no room
local methods = {}
local metatable = { __name = "sluice.metrics.family", __index = methods }

---@class sluice.metrics.FamilyOptions
---@field kind "counter"|"gauge"|"histogram"
---@field name string
---@field help string
---@field labels string[]
---@field bounds? number[]
---@field max_series integer
---@field read? function

---Makes one without series, or with the only one where there are no labels.
---@param given sluice.metrics.FamilyOptions
---@return sluice.metrics.Family
function family.new(given)
  local self = setmetatable({
    kind = given.kind, name = given.name, help = given.help, label_names = given.labels,
    bounds = given.bounds, max_series = given.max_series, read = given.read,
    count = 0, surplus = 0, list = {}, tree = {}, has_told = false,
  }, metatable)
  if #given.labels == 0 then self.only = self:labels() end
  return self
end

-- ---- labels ----

local ESCAPES <const> = { ["\\"] = "\\\\", ['"'] = '\\"', ["\n"] = "\\n" }

local function escape(text)
  return (text:gsub('[\\"\n]', ESCAPES))
end

-- A reader of the page refuses all of it for one byte that is no UTF-8.
local function valid(text)
  local _, at = utf8.len(text)
  local pieces = {}
  while at do
    pieces[#pieces + 1] = text:sub(1, at - 1)
    text = text:sub(at + 1)
    _, at = utf8.len(text)
  end
  return #pieces > 0 and table.concat(pieces, "\u{FFFD}") .. "\u{FFFD}" .. text or text
end

local function cut(text)
  if #text <= LONGEST then return text end
  local at = utf8.offset(text, 0, LONGEST + 1) -- where the character begins that does not fit
  return text:sub(1, at - 1)
end

local SIMPLE <const> = { string = true, number = true, boolean = true }

local function clean(self, name, value)
  if not SIMPLE[type(value)] then
    options.misuse("%s:labels: %s must be a text, a number or a boolean, got %s", self.name, name,
      options.type_name(value))
  end
  return cut(valid(secret.mask(tostring(value))))
end

local function make(self, values)
  local made = series.new(self.kind, self.bounds)
  local parts = {}
  for index, name in ipairs(self.label_names) do
    if values[index] ~= "" then parts[#parts + 1] = ('%s="%s"'):format(name, escape(values[index])) end
  end
  made.labels = table.concat(parts, ",")
  self.count = self.count + 1
  self.list[self.count] = made
  return made
end

-- The series of these values; nil where there is none.
local function find(self, values)
  local node, count = self.tree, #self.label_names
  if count == 0 then return self.only end
  for index = 1, count do
    node = node[values[index]]
    if node == nil then return nil end
  end
  return node
end

local function keep(self, values, made)
  local node, last = self.tree, #self.label_names
  if last == 0 then return made end
  for index = 1, last - 1 do
    local following = node[values[index]]
    if following == nil then
      following = {}
      node[values[index]] = following
    end
    node = following
  end
  node[values[last]] = made
  return made
end

local function tell(self)
  if self.has_told then return end
  self.has_told = true
  log.warn("a metric has no room for more series: the rest is counted as one", {
    metric = self.name, max_series = self.max_series, labels = self.label_names, counted_as = OTHER,
  })
end

local function others(self)
  self.surplus = self.surplus + 1
  tell(self)
  local values = {}
  for index = 1, #self.label_names do values[index] = OTHER end
  return find(self, values) or keep(self, values, make(self, values))
end

-- So that 200 is found as fast as "200". As bounded as the series are.
local function remember(self, given, values)
  local node = self.tree
  for index = 1, #values do
    local following, value = node[values[index]], given[index]
    if type(value) ~= "string" and value == value then node[value] = following end
    node = following
  end
end

-- Values that are no texts, or not as they are in the page, or new.
local function find_or_make(self, given)
  local values = {}
  for index, name in ipairs(self.label_names) do values[index] = clean(self, name, given[index]) end
  local found = find(self, values)
  if not found then
    if self.count >= self.max_series then return others(self) end
    found = keep(self, values, make(self, values))
  end
  remember(self, given, values)
  return found
end

local function wrong_number(self, count)
  options.misuse("%s:labels: %d values expected, one for each of its labels (%s), got %d", self.name,
    #self.label_names, table.concat(self.label_names, ", "), count)
end

-- For few labels without a loop: it stands on the way of each request.
local FINDERS <const> = {
  function(tree, a) return tree[a] end,
  function(tree, a, b)
    local node = tree[a]
    return node and node[b]
  end,
  function(tree, a, b, c)
    local node = tree[a]
    node = node and node[b]
    return node and node[c]
  end,
}

---The series with these values of the labels, in the labels' order; keep it where the values stay the
---same. An empty text is as good as no label. Beyond `max_series` the series of all that found no room, whose labels
---say "other". Never waits.
---@param ... string|number|boolean at most 128 bytes of each count
---@return sluice.metrics.Counter|sluice.metrics.Gauge|sluice.metrics.Histogram
function methods:labels(...)
  local count = select("#", ...)
  if count ~= #self.label_names then wrong_number(self, count) end
  local finder = FINDERS[count]
  if finder then return finder(self.tree, ...) or find_or_make(self, { ... }) end
  local given = { ... }
  return find(self, given) or find_or_make(self, given)
end

-- ---- text (Prometheus' format 0.0.4) ----

-- A number as concat takes it: an integer goes as it is.
local function number(value)
  if math.type(value) == "integer" then return value end
  if value ~= value then return "NaN" end
  if value == math.huge then return "+Inf" end
  if value == -math.huge then return "-Inf" end
  local text = ("%.15g"):format(value)
  return tonumber(text) == value and text or ("%.17g"):format(value)
end

local function write_number(self, out, one)
  local labels = one.labels
  local count = #out
  out[count + 1] = labels == "" and "\n" .. self.name .. " " or "\n" .. self.name .. "{" .. labels .. "} "
  out[count + 2] = number(one.value)
end

-- The texts of the bounds, with what stands behind them.
local function bound_texts(self)
  if self.bound_texts then return self.bound_texts end
  local texts = {}
  for index, bound in ipairs(self.bounds) do texts[index] = number(bound) .. '"} ' end
  self.bound_texts = texts
  return texts
end

local function write_histogram(self, out, one)
  local labels, name = one.labels, self.name
  local open = "\n" .. name .. "_bucket{" .. labels .. (labels == "" and "" or ",") .. 'le="'
  local texts, total, count = bound_texts(self), 0, #out
  for place = 1, #one do
    total = total + one[place]
    out[count + 1], out[count + 2], out[count + 3] = open, texts[place], total
    count = count + 3
  end
  local rest = labels == "" and " " or "{" .. labels .. "} "
  out[count + 1], out[count + 2] = "\n" .. name .. "_sum" .. rest, number(one.sum)
  out[count + 3], out[count + 4] = "\n" .. name .. "_count" .. rest, total
end

-- What is read when somebody looks: nothing of the last time stays, and what comes twice is added.
local function collect(self)
  for index = 1, self.count do self.list[index].value = nil end
  local function add(value, ...)
    if type(value) ~= "number" then
      error(("%s: a number expected, got %s"):format(self.name, options.type_name(value)), 0)
    end
    local one = self:labels(...)
    one.value = (one.value or 0) + value
  end
  local good, err = pcall(self.read, add)
  if good or self.has_failed then return end
  self.has_failed = true
  log.warn("a metric could not be read", { metric = self.name, error = tostring(err) })
end

---Appends its text to pieces, each line after the end of the one before. Calls `read`.
---@param out (string|number)[]
function methods:write(out)
  if self.read then collect(self) end
  local before = #out
  out[before + 1] = ("\n# HELP %s %s\n# TYPE %s %s"):format(self.name,
    self.help:gsub("[\\\n]", ESCAPES), self.name, self.kind)
  local write = self.kind == "histogram" and write_histogram or write_number
  for index = 1, self.count do
    local one = self.list[index]
    if one.value ~= nil or one.sum then write(self, out, one) end
  end
  if #out == before + 1 then out[before + 1] = nil end
end

return family
