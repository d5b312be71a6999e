-- SPDX-License-Identifier: MIT
-- A report as one page: no script, no network, its plots inside it.

local measures = require "sluice.report.measures"
local plot = require "sluice.report.plot"
local system = require "sluice.core.system"

local html = {}

local escape = plot.escape

local STYLE <const> = [[
:root { color-scheme: light dark; --ink: #1d2328; --soft: #66717c; --line: #d9dee3; --page: #fff;
  --c0: #5b6b7a; --c1: #0b76c5; --c2: #c2570c; --c3: #178253; --c4: #8a4bc9; --c5: #b3204d; }
@media (prefers-color-scheme: dark) { :root {
  --ink: #e6eaee; --soft: #9aa5b0; --line: #333b43; --page: #15191d; --c0: #9aa9b8;
  --c1: #58b2f2; --c2: #f0934f; --c3: #4fc38d; --c4: #bb90ee; --c5: #f07a9c; } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--page); max-width: 720px;
  margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; margin-bottom: 0; } h2 { font-size: 1.05rem; margin: 2rem 0 .3rem; }
.soft { color: var(--soft); } .verdict { border-left: 4px solid var(--soft); padding: .2rem .9rem;
  margin: 1rem 0; }
.verdict.better { border-color: var(--c3); } .verdict.worse { border-color: var(--c5); }
.verdict.inconclusive { border-color: var(--c2); } .verdict b { text-transform: capitalize; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { text-align: right; padding: .25rem .5rem; border-bottom: 1px solid var(--line); }
th:first-child, td:first-child { text-align: left; } td small { color: var(--soft); display: block; }
svg { width: 100%; height: auto; display: block; }
svg.key { width: .8rem; height: .8rem; display: inline; }
.grid { stroke: var(--line); } text { fill: var(--soft); font-size: 12px; } .tick { text-anchor: middle; }
.label { text-anchor: end; fill: var(--ink); }
.whisker { stroke-width: 3; } .curve { fill: none; stroke-width: 2; }
.legend span { margin-right: 1.2rem; } .scroll { overflow-x: auto; }
]]

local function colors()
  local parts = {}
  for index = 0, 5 do
    parts[#parts + 1] = (".c%d { fill: var(--c%d); stroke: var(--c%d); } "):format(index, index, index)
  end
  return table.concat(parts) .. ".curve { fill: none; }"
end

local VERDICT <const> = '<div class="verdict %s"><b>%s</b>: %s<br><span class="soft">%s</span></div>'

local function add_verdicts(page, made)
  for _, comparison in ipairs(made.comparisons) do
    page[#page + 1] = VERDICT:format(comparison.verdict:match "^%a+", comparison.verdict,
      ("%s against %s"):format(escape(comparison.variant), escape(made.control)), escape(comparison.reason))
  end
  if #made.comparisons == 0 then
    page[#page + 1] = VERDICT:format("inconclusive", made.verdict, escape(made.reason), "")
  end
end

local function cell(its, write)
  if not (its and its.value) then return "<td>–</td>" end
  local interval = measures.interval(its, write)
  return ("<td>%s<small>%s</small></td>"):format(escape(write(its.value)), escape(interval))
end

local function add_row(page, made, measure)
  if not measures.is_known(made, measure) then return end
  local row = { "<tr><td>", measure.title, "</td>" }
  for _, each in ipairs(made.variants) do row[#row + 1] = cell(measure.of(each), measure.write) end
  for _, comparison in ipairs(made.comparisons) do
    row[#row + 1] = cell(measure.of(comparison), measure.write_difference)
  end
  page[#page + 1] = table.concat(row) .. "</tr>"
end

local function add_table(page, made)
  page[#page + 1] = '<h2>All figures</h2><div class="scroll"><table><tr><th></th>'
  for _, each in ipairs(made.variants) do
    page[#page + 1] = ("<th>%s</th>"):format(escape(each.variant))
  end
  for _, each in ipairs(made.comparisons) do
    local name = #made.comparisons > 1 and ": " .. escape(each.variant) or ""
    page[#page + 1] = ("<th>difference%s</th>"):format(name)
  end
  page[#page + 1] = "</tr><tr><td>requests</td>"
  for _, each in ipairs(made.variants) do
    page[#page + 1] = ("<td>%s</td>"):format(measures.count(each.requests))
  end
  page[#page + 1] = ("<td></td>"):rep(#made.comparisons) .. "</tr>"
  for _, measure in ipairs(measures.list) do add_row(page, made, measure) end
  page[#page + 1] = "</table></div>"
end

local PLOTTED <const> = {
  ["success rate"] = true, ["latency p50"] = true, ["latency p95"] = true, ["latency p99"] = true,
  ["TTFT p50"] = true, ["TTFT p95"] = true,
}
local CURVES <const> = {
  { "latency", "How many answers came within which time" }, { "ttft", "How many began within which time" },
}

local function add_plots(page, made)
  page[#page + 1] = plot.legend(made)
  for _, measure in ipairs(measures.list) do
    local drawn = PLOTTED[measure.title] and plot.intervals(made, measure)
    if drawn then page[#page + 1] = ("<h2>%s</h2>%s"):format(measure.title, drawn) end
  end
  for _, curve in ipairs(CURVES) do
    local drawn = plot.curves(made, curve[1])
    if drawn then page[#page + 1] = ("<h2>%s</h2>%s"):format(curve[2], drawn) end
  end
end

local function add_notes(page, made)
  local ratio = made.sample_ratio
  if ratio then
    page[#page + 1] = ('<p class="soft">The requests are split %s (p %.2g).</p>'):format(
      ratio.alarm and "as they should <b>not</b> be" or "as they should be", ratio.p)
  end
  for _, note in ipairs(made.notes) do
    page[#page + 1] = ('<p class="soft">Note: %s.</p>'):format(escape(note))
  end
end

local POLICY <const> = [[
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">]]

---Renders a report.
---@param made sluice.Report
---@return string
function html.render(made)
  local page = {
    '<!doctype html><html lang="en"><head><meta charset="utf-8">',
    POLICY,
    '<meta name="viewport" content="width=device-width, initial-scale=1">',
    ("<title>%s</title><style>%s%s</style></head><body>"):format(escape(made.title), STYLE, colors()),
    ("<h1>%s</h1>"):format(escape(made.title)),
    ('<p class="soft">%s. Intervals: %g %%, for one look. The verdict holds at every look.</p>'):format(
      system.utc(made.made), made.level * 100),
  }
  add_verdicts(page, made)
  add_notes(page, made)
  add_plots(page, made)
  add_table(page, made)
  page[#page + 1] = "</body></html>\n"
  return table.concat(page, "\n")
end

return html
