-- SPDX-License-Identifier: MIT
-- A/B reports: which of the variants in an inference log is better, and how sure that is.

local figures = require "sluice.report.figures"
local json = require "sluice.json"
local options = require "sluice.options"
local rows = require "sluice.report.rows"
local secret = require "sluice.secret"
local sequential = require "sluice.statistics.sequential"
local sources = require "sluice.report.sources"
local statistics = require "sluice.statistics"
local tally = require "sluice.report.tally"
local task = require "sluice.task"
local verdicts = require "sluice.report.verdict"

local report = {}

-- Below this, means are not yet normal and quantiles are hardly known.
local MINIMUM <const> = 100

-- What nobody would change a model for: a point of the success rate, a tenth of the latency.
local TOLERANCE <const> = { success = 0.01, latency = 0.1 }

-- A split that is right must not be doubted: one report in a thousand looks, however often one looks.
local RATIO_ALPHA <const> = 0.001

local PRETTY <const> = { pretty = true, canonical = true }

local HUNDRED <const>, ROUNDING <const> = 100, 1e-6

---@class sluice.ReportOptions
---@field source sluice.ReportSource the log
---@field table? string its name in a database, "inference_log"; in a warehouse "catalog.schema.name"
---@field names? table<string, string> what a value of that column is called here: { ["1"] = "model-control" }
---@field by? string the column that names the variant, "variant"; "served_entity_id", or a name in a JSON column: "response.model"
---@field control string the variant that the others are compared with
---@field split? table<string, number> what share of the requests each variant should have, in percent: others are left out, and the sample ratio is checked
---@field since? number seconds since 1970, as task.wall() has them
---@field before? number the same
---@field minimum? integer requests of each variant below which nothing is said, 100
---@field level? number of the intervals, 0.95
---@field tolerance? { success?: number, latency?: number } differences that do not matter: 0.01 (a point), 0.1 (a tenth)
---@field title? string
local OPTIONS <const> = {
  source = "any", table = "name?", by = "name?", names = "table?", control = "name", split = "table?",
  since = "number?", before = "number?", minimum = "count?", tolerance = "table?", title = "string?",
  level = function(value)
    return type(value) == "number" and value > 0 and value < 1, "a number between 0 and 1"
  end,
}

local TOLERANCES <const> = { success = "positive?", latency = "positive?" }

---A comparison of a variant with the control. Differences are the variant less the control; times in seconds.
---@class sluice.ReportComparison
---@field variant string
---@field verdict "better"|"worse"|"no difference shown"|"inconclusive"
---@field reason string
---@field more integer? about how many more requests of each variant would settle it
---@field success sluice.report.Difference?
---@field latency table<string, sluice.report.Estimate>? `mean`, `p50`, `p95`, `p99`, and `typical`: how many times the control's
---@field ttft table<string, sluice.report.Estimate>? the same
---@field input_tokens sluice.report.Estimate?
---@field output_tokens sluice.report.Estimate?

---@class sluice.Report
---@field title string
---@field control string
---@field level number
---@field minimum integer
---@field since number?
---@field before number?
---@field made number seconds since 1970
---@field variants sluice.report.Variant[] the control first
---@field comparisons sluice.ReportComparison[]
---@field verdict string of the only comparison, or of the worst
---@field reason string
---@field sample_ratio { alarm: boolean, p: number, expected: table<string, number> }? where a split is given
---@field notes string[] what is to be known of the log
local methods = {}
local metatable = { __name = "sluice.report", __index = methods }

-- ---- options ----

local function check_split(split, control)
  local sum, is_known = 0, false
  for name, share in pairs(split) do
    if type(name) ~= "string" or name == "" then
      options.misuse('report.ab: option "split" must map names of variants to percentages')
    elseif type(share) ~= "number" or not (share > 0 and share <= HUNDRED) then
      options.misuse("report.ab: the share of %s must be a percentage above 0, got %s", name, tostring(share))
    end
    sum, is_known = sum + share, is_known or name == control
  end
  if math.abs(sum - HUNDRED) > ROUNDING then
    options.misuse('report.ab: option "split": the percentages must sum to 100, got %g', sum)
  end
  if not is_known then
    options.misuse('report.ab: the split does not name the control "%s"%s', control,
      options.hint(control, split))
  end
end

local function check_names(names)
  local seen = {}
  for value, name in pairs(names) do
    if type(value) ~= "string" or type(name) ~= "string" or seen[name] then
      options.misuse('report.ab: option "names" must map strings to strings, each to one of its own')
    end
    seen[name] = true
  end
end

local function read_path(by)
  local path = {}
  for name in by:gmatch "[^.]+" do
    if not name:find "^[%a_][%w_]*$" then path = {} break end
    path[#path + 1] = name
  end
  if #path > 0 and table.concat(path, ".") == by then return path end
  options.misuse('report.ab: option "by" must be a column, or names with dots between them, got "%s"', by)
end

local function read_options(given)
  given = options.check("report.ab", given, OPTIONS)
  if given.split then check_split(given.split, given.control) end
  if given.names then check_names(given.names) end
  local tolerance = options.check("report.ab: tolerance", given.tolerance, TOLERANCES)
  return {
    control = given.control, split = given.split, level = given.level or statistics.LEVEL,
    minimum = given.minimum or MINIMUM, title = given.title or "A/B report",
    tolerance = {
      success = tolerance.success or TOLERANCE.success, latency = tolerance.latency or TOLERANCE.latency,
    },
    source = sources.of("report.ab", given.source, given.table),
    wanted = {
      by = read_path(given.by or "variant"), since = given.since and given.since * 1000,
      before = given.before and given.before * 1000,
    },
  }
end

-- ---- the parts of a report ----

local function names_of(rules, counted)
  local names = {}
  for name in pairs(rules.split or counted.tallies) do
    if name ~= rules.control then names[#names + 1] = name end
  end
  table.sort(names)
  table.insert(names, 1, rules.control)
  return names
end

local function note_of(count, text)
  if count == 0 then return nil end
  return ("%d %s %s"):format(count, count == 1 and "row" or "rows", text)
end

local function add_notes(made, rules, counted)
  local notes = made.notes
  local function add(text) notes[#notes + 1] = text end
  if counted.rows == 0 then add "the log has no rows in this time" end
  add(note_of(counted.nameless, "left out: no variant is named"))
  add(note_of(counted.timeless, "left out: no time is given"))
  for name, its in pairs(counted.tallies) do
    if rules.split and not rules.split[name] then
      add(note_of(its.requests + its.cached, ('left out: the split does not name "%s"'):format(name)))
    end
  end
  for _, each in ipairs(made.variants) do
    add(note_of(each.cached, ("of %s left out: a cache answered"):format(each.variant)))
    if each.unusable > 0 then
      add(("%d times of %s left out: below 0 or above a day, as a clock that is set makes them"):format(
        each.unusable, each.variant))
    end
  end
  if counted.missing and #counted.missing > 0 then
    add("this log has no " .. table.concat(counted.missing, ", "))
  end
  table.sort(notes)
end

local function check_ratio(made, rules)
  if not rules.split then return end
  local counts, shares = {}, {}
  for index, each in ipairs(made.variants) do
    -- what a cache has answered was assigned, too
    counts[index], shares[index] = each.requests + each.cached, rules.split[each.variant]
  end
  local p = sequential.p_value(sequential.sample_ratio(counts, shares))
  made.sample_ratio = { alarm = p < RATIO_ALPHA, p = p, expected = rules.split }
end

local function known_names(counted)
  local names = {}
  for name in pairs(counted.tallies) do names[#names + 1] = name end
  if #names == 0 then return "" end
  table.sort(names)
  return (" (the log has %s)"):format(table.concat(names, ", "))
end

-- Why nothing can be said yet.
local function obstacle(made, rules, counted, variant)
  if made.sample_ratio and made.sample_ratio.alarm then
    local p = made.sample_ratio.p
    return ("the requests are not split as they should be (p %.2g): they may be of different kinds"):format(p)
  end
  for _, name in ipairs { rules.control, variant } do
    local its = counted.tallies[name]
    if not its then return ('there is no request of "%s"%s'):format(name, known_names(counted)) end
    if its.requests < rules.minimum then
      local text = "%s has %d requests, and below %d nothing is said"
      return text:format(name, its.requests, rules.minimum), rules.minimum - its.requests
    end
  end
  return nil
end

local function compare(made, rules, counted, index)
  local control, its = made.variants[1], made.variants[index]
  local alpha = (1 - rules.level) / (verdicts.TESTS * (#made.variants - 1))
  local comparison = figures.difference(
    { figures = control, tally = rows.tally_of(counted, control.variant) },
    { figures = its, tally = rows.tally_of(counted, its.variant) }, rules.level, alpha)
  comparison.variant = its.variant
  return comparison
end

local function judge(made, rules, counted)
  for index = 2, #made.variants do
    local name = made.variants[index].variant
    local reason, more = obstacle(made, rules, counted, name)
    local comparison = compare(made, rules, counted, index)
    if reason then
      comparison.verdict, comparison.reason, comparison.more = "inconclusive", reason, more
    else
      local fewer = math.min(made.variants[1].requests, made.variants[index].requests)
      comparison.verdict, comparison.reason, comparison.more = verdicts.of(comparison, rules.tolerance, fewer)
    end
    made.comparisons[index - 1] = comparison
  end
end

local WORST_FIRST <const> = { "worse", "inconclusive", "no difference shown", "better" }

local function sum_up(made)
  for _, wanted in ipairs(WORST_FIRST) do
    for _, comparison in ipairs(made.comparisons) do
      if comparison.verdict == wanted then
        made.verdict, made.reason = wanted, comparison.reason
        return
      end
    end
  end
  made.verdict, made.reason = "inconclusive", ('there is nothing to compare "%s" with'):format(made.control)
end

local function build(rules, counted)
  local made = {
    title = secret.mask(rules.title), control = rules.control, level = rules.level, minimum = rules.minimum,
    since = rules.wanted.since and rules.wanted.since / 1000,
    before = rules.wanted.before and rules.wanted.before / 1000,
    made = task.wall(), variants = {}, comparisons = {}, notes = {}, _tallies = counted.tallies,
  }
  for index, name in ipairs(names_of(rules, counted)) do
    made.variants[index] = figures.of(name, counted.tallies[name] or tally.new(), rules.level)
  end
  check_ratio(made, rules)
  judge(made, rules, counted)
  sum_up(made)
  add_notes(made, rules, counted)
  return made
end

---Reads a log and compares its variants with the control: by the share of successes (status 2xx and no error) and by
---the typical latency of successful answers. The intervals `always_low` to `always_high`, the p-values and the verdict
---are valid however often one looks; `low` to `high` is for one look. Waits where the source does.
---@param given sluice.ReportOptions
---@return sluice.Report?
---@return sluice.Error? err as of the source; SchemaMismatch where the log has not the columns that are needed
function report.ab(given)
  local rules = read_options(given)
  local counted, err = rules.source:read(rules.wanted)
  if not counted then return nil, err end
  if given.names then rows.rename(counted, given.names) end
  return setmetatable(build(rules, counted), metatable)
end

---How many answers of a variant took longer than so many seconds: of requests that were successful.
---@param variant string
---@param kind "latency"|"ttft"
---@param seconds number
---@return integer slower
---@return integer all of those whose time is known
function methods:slower(variant, kind, seconds)
  options.argument("report:slower", "variant", variant, "string")
  options.argument("report:slower", "seconds", seconds, "number")
  if kind ~= "latency" and kind ~= "ttft" then
    options.misuse('report:slower: argument "kind" must be "latency" or "ttft", got %s', tostring(kind))
  end
  local its = self._tallies[variant]
  if not its then return 0, 0 end
  return its[kind]:above(seconds * 1000), its[kind].count
end

---The report as text for a terminal, or a log file.
---@param given? { columns?: integer, color?: boolean, unicode?: boolean } 80 columns; without colors; with bars of block characters
---@return string
function methods:text(given)
  return require("sluice.report.text").render(self, given)
end

---The report as JSON.
---@return string
function methods:json()
  local plain = {}
  for name, value in pairs(self) do
    if name:sub(1, 1) ~= "_" then plain[name] = value end
  end
  return (json.encode(plain, PRETTY))
end

---The report as a page with plots, in one piece: it asks no network for anything.
---@return string
function methods:html()
  return require("sluice.report.html").render(self)
end

function metatable.__tostring(made)
  return made:text()
end

return report
