-- SPDX-License-Identifier: MIT
-- Reads a page of metrics in Prometheus' text format (0.0.4): what another program counts.

local page = {}

---@class sluice.metrics.Sample
---@field labels table<string, string>
---@field value number

---A page that was read: the samples of each name, as they stand in it (`..._bucket` of a histogram is a name).
---@class sluice.metrics.Page
---@field samples table<string, sluice.metrics.Sample[]>
---@field count integer samples in all
local methods = {}
local metatable = { __name = "sluice.metrics.page", __index = methods }

local UNESCAPED <const> = { n = "\n" }

-- The text of a label's value that begins at `at`, and the place behind its quote.
local function read_value(line, at)
  local from = at
  while true do
    local found = line:find('["\\]', at)
    if not found then return nil end
    if line:byte(found) == 0x22 then
      local text = line:sub(from, found - 1)
      if text:find("\\", 1, true) then
        text = text:gsub("\\(.)", function(letter) return UNESCAPED[letter] or letter end)
      end
      return text, found + 1
    end
    at = found + 2
  end
end

-- The labels behind the bracket at `at`, and the place behind the closing one.
local function read_labels(line, at)
  local labels = {}
  while true do
    local stop = line:match("^%s*}()", at)
    if stop then return labels, stop end
    local name, from = line:match('^%s*([%a_][%w_]*)%s*=%s*"()', at)
    if not name then return nil end
    labels[name], at = read_value(line, from)
    if not at then return nil end
    at = line:match("^%s*,()", at) or at
  end
end

local WORDS <const> = {
  ["+inf"] = math.huge, inf = math.huge, ["-inf"] = -math.huge, nan = 0 / 0, ["+nan"] = 0 / 0,
}

local function read_number(text)
  return tonumber(text) or WORDS[text:lower()]
end

local NONE <const> = {}

local function read_sample(line)
  local name, at = line:match "^%s*([%a_:][%w_:]*)%s*()"
  if not name then return nil end
  local labels = NONE
  if line:byte(at) == 0x7B then
    labels, at = read_labels(line, at + 1)
    if not labels then return nil end
  end
  local value, rest = line:match("^%s*(%S+)%s*(.*)$", at)
  local number = value and read_number(value)
  -- behind it may be a time, and in OpenMetrics an example
  if not number or not (rest == "" or rest:find "^[%d.+-]+%s*$" or rest:find "#") then return nil end
  return name, { labels = labels, value = number }
end

-- What is shown of a line that is none.
local LONGEST <const> = 40

local function shown(line)
  local text = line:gsub("%c", " ")
  return #text > LONGEST and text:sub(1, LONGEST) .. "..." or text
end

---Reads a page; nil and a message where it is none. Never waits.
---@param text string
---@return sluice.metrics.Page?
---@return string? message
function page.read(text)
  local self, number = { samples = {}, count = 0 }, 0
  for line in (text .. "\n"):gmatch "([^\n]*)\n" do
    number = number + 1
    line = line:gsub("\r$", "")
    if line ~= "" and line:byte() ~= 0x23 then
      local name, sample = read_sample(line)
      if not name then return nil, ("line %d is no metric: %s"):format(number, shown(line)) end
      local list = self.samples[name] or {}
      list[#list + 1], self.samples[name] = sample, list
      self.count = self.count + 1
    end
  end
  if self.count == 0 then return nil, "there is no metric in it" end
  return setmetatable(self, metatable)
end

---The sum of a name's samples, by what a label of them says; by "" where it is not there.
---@param name string
---@param label string?
---@param fits? fun(labels: table<string, string>): boolean which of them
---@return table<string, number> sums
function methods:sums(name, label, fits)
  local sums = {}
  for _, sample in ipairs(self.samples[name] or NONE) do
    if not fits or fits(sample.labels) then
      local key = label and sample.labels[label] or ""
      sums[key] = (sums[key] or 0) + sample.value
    end
  end
  return sums
end

---The sum of all of a name's samples; nil where there is none.
---@param name string
---@return number?
function methods:sum(name)
  return self:sums(name)[""]
end

---The cumulative counts of a histogram, by what a label of it says: by bounds, +inf included.
---@param name string without `_bucket`
---@param label string
---@return table<string, table<number, number>>
function methods:buckets(name, label)
  local found = {}
  for _, sample in ipairs(self.samples[name .. "_bucket"] or NONE) do
    local key, bound = sample.labels[label] or "", read_number(sample.labels.le or "")
    if bound then
      local counts = found[key] or {}
      counts[bound], found[key] = (counts[bound] or 0) + sample.value, counts
    end
  end
  return found
end

---The value below which a share of what a histogram counted is: within its bucket as if spread evenly, of the last
---one its lower bound. Nil where nothing was counted.
---@param counts table<number, number> cumulative, by bounds
---@param share number 0 to 1
---@return number?
function page.quantile(counts, share)
  local bounds = {}
  for bound in pairs(counts) do bounds[#bounds + 1] = bound end
  table.sort(bounds)
  local total = bounds[1] and counts[bounds[#bounds]] or 0
  if total <= 0 then return nil end
  local wanted, lower, below = share * total, 0, 0
  for _, bound in ipairs(bounds) do
    local count = counts[bound]
    if count >= wanted and count > below then
      if bound == math.huge then return lower end
      return lower + (bound - lower) * (wanted - below) / (count - below)
    end
    lower, below = bound, count
  end
  return lower
end

return page
