-- SPDX-License-Identifier: MIT
-- Metrics: counters, gauges and histograms with labels, and their page for Prometheus.

local families = require "sluice.metrics.family"
local options = require "sluice.options"

local metrics = {}

---A set of metrics: what one page shows.
---@class sluice.metrics.Registry
local methods = {}
local metatable = { __name = "sluice.metrics.registry", __index = methods }

local REGISTRY <const> = { max_series = "count?" }

-- Of each metric, where nobody says: more are no labels any more, but data.
local MAX_SERIES <const> = 1000

---Makes a set of metrics. Never waits.
---@param given? { max_series?: integer } series of each metric that does not say so itself; 1000
---@return sluice.metrics.Registry
function metrics.registry(given)
  given = options.check("metrics.registry", given, REGISTRY)
  local self = setmetatable({
    _max_series = given.max_series or MAX_SERIES, _by_name = {}, _order = {},
  }, metatable)
  self:counter {
    name = "sluice_metrics_surplus_total", labels = { "metric" },
    help = "Look-ups of a series that found no room and were counted as other.",
    read = function(add)
      for _, each in ipairs(self._order) do
        if each.surplus > 0 then add(each.surplus, each.name) end
      end
    end,
  }
  return self
end

---Whether the value is a registry.
---@param value any
---@return boolean
function metrics.is_registry(value)
  return getmetatable(value) == metatable
end

-- ---- making metrics ----

---@class sluice.metrics.MetricOptions
---@field name string ends in `_total` where it is a counter, and only there; units are seconds, bytes, ratios
---@field help string one sentence
---@field labels? string[] their names; the values are few: never an id, a prompt, or what callers are free to choose
---@field max_series? integer how many combinations of values there may be; the registry's
---@field read? fun(add: fun(value: number, ...: string|number|boolean)) called for each page in place of counting: adds the values of all series, what comes twice is summed; may not wait
local METRIC <const> = {
  name = "name", help = "name", labels = "table?", max_series = "count?", read = "callable?",
}

---@class sluice.metrics.HistogramOptions
---@field name string
---@field help string
---@field labels? string[]
---@field max_series? integer
---@field buckets number[] upper bounds, ascending; +Inf comes by itself
local HISTOGRAM <const> = {
  name = "name", help = "name", labels = "table?", max_series = "count?", buckets = "table",
}

-- The rules are Prometheus' (metric names and labels; `promtool check metrics`).
local RESERVED <const> = { "_bucket", "_count", "_sum" }

local function check_name(where, kind, name)
  if not name:find "^[%a_:][%w_:]*$" then
    options.misuse("%s: a name has letters, digits, _ and :, got %q", where, name)
  end
  local is_total = name:find "_total$" ~= nil
  if is_total ~= (kind == "counter") then
    options.misuse("%s: a counter's name ends in _total, and no other, got %q", where, name)
  end
  for _, ending in ipairs(RESERVED) do
    if name:sub(-#ending) == ending then
      options.misuse("%s: a name does not end in %s, which is for the parts of histograms, got %q", where,
        ending, name)
    end
  end
end

local function check_labels(where, labels)
  local seen, copy = {}, {}
  for index, label in ipairs(labels) do
    local is_name = type(label) == "string" and label:find "^[%a_][%w_]*$" and label:sub(1, 2) ~= "__"
    if not is_name or label == "le" or label == "quantile" then
      options.misuse("%s: the name of a label has letters, digits and _, does not begin with __, and is "
        .. "neither le nor quantile, got %s", where,
        type(label) == "string" and ("%q"):format(label) or options.type_name(label))
    end
    if seen[label] then options.misuse("%s: the label %q comes twice", where, label) end
    seen[label], copy[index] = true, label
  end
  for key in pairs(labels) do
    if not copy[key] then options.misuse("%s: labels are an array of names", where) end
  end
  return copy
end

local function check_buckets(where, buckets)
  local copy = {}
  for index, bound in ipairs(buckets) do
    local is_good = type(bound) == "number" and bound - bound == 0
    if not is_good or index > 1 and bound <= copy[index - 1] then
      options.misuse("%s: buckets are finite numbers, each above the one before, got %s at %d", where,
        tostring(bound), index)
    end
    copy[index] = bound
  end
  if #copy == 0 then options.misuse("%s: at least one bucket is needed", where) end
  copy[0], copy[#copy + 1] = -math.huge, math.huge
  return copy
end

local function same(a, b)
  return (a and table.concat(a, " ")) == (b and table.concat(b, " "))
end

-- One that is there already is given again: two layers share a registry.
local function known(self, where, given)
  local found = self._by_name[given.name]
  if not found then return nil end
  local is_same = found.kind == given.kind and same(found.label_names, given.labels)
    and same(found.bounds, given.bounds) and not (found.read or given.read)
  if not is_same then options.misuse("%s: there is another metric %q already", where, given.name) end
  return found
end

local function add(self, where, kind, given, bounds)
  check_name(where, kind, given.name)
  local wanted = {
    kind = kind, name = given.name, help = given.help, bounds = bounds,
    labels = check_labels(where, given.labels or {}),
    max_series = given.max_series or self._max_series, read = given.read,
  }
  local made = known(self, where, wanted)
  if not made then
    made = families.new(wanted)
    self._by_name[given.name] = made
    self._order[#self._order + 1] = made
  end
  return not made.read and made.only or made
end

---Makes a counter, or gives the one of this name again. With labels it is a family: `family:labels(...)` gives the
---counter for some values of them. Never waits.
---@param given sluice.metrics.MetricOptions
---@return sluice.metrics.Counter|sluice.metrics.Family
function methods:counter(given)
  options.method("registry:counter", self, "_by_name")
  options.check("registry:counter", given, METRIC)
  local made = add(self, "registry:counter", "counter", given)
  return made
end

---As counter, for what goes up and down.
---@param given sluice.metrics.MetricOptions
---@return sluice.metrics.Gauge|sluice.metrics.Family
function methods:gauge(given)
  options.method("registry:gauge", self, "_by_name")
  options.check("registry:gauge", given, METRIC)
  local made = add(self, "registry:gauge", "gauge", given)
  return made
end

---As counter, for a distribution.
---@param given sluice.metrics.HistogramOptions
---@return sluice.metrics.Histogram|sluice.metrics.Family
function methods:histogram(given)
  options.method("registry:histogram", self, "_by_name")
  options.check("registry:histogram", given, HISTOGRAM)
  local bounds = check_buckets("registry:histogram", given.buckets)
  local made = add(self, "registry:histogram", "histogram", given, bounds)
  return made
end

---Whether there is a metric of this name.
---@param name string
---@return boolean
function methods:has(name)
  options.method("registry:has", self, "_by_name")
  return self._by_name[name] ~= nil
end

---All metrics in Prometheus' text format (0.0.4). Never waits.
---@return string
function methods:text()
  options.method("registry:text", self, "_by_name")
  local out = {}
  for _, each in ipairs(self._order) do each:write(out) end
  if #out == 0 then return "" end
  out[1] = out[1]:sub(2)
  out[#out + 1] = "\n"
  return table.concat(out)
end

return metrics
