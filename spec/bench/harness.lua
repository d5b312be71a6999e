-- SPDX-License-Identifier: MIT
-- Runs figures: rounds in which the contestants take turns, medians, and the table.
--
-- A figure is
--     { name =, open = function(bench) return contestants end, rows = { row... } }
-- where a contestant is { name =, run = function() return { KEY = number... } end }, ours first, or
-- { name =, missing = "why it does not run" }. `contestants.close`, if there, is called at the end.
-- A row shows one KEY of what run() returned:
--     { key =, label =, unit =, digits =, better = "less"|"more", bar =, ratios = { [peer] = x } }
-- `bar` is for ours; `ratios` is how many times better than the peer ours has to be.

local task = require "sluice.task"

local harness = {}

local WIDTHS <const> = { 35, 25, 11, 52, 6, 5 }

---@param values number[]
---@return { median: number, least: number, most: number }
function harness.summary(values)
  local sorted = table.move(values, 1, #values, 1, {})
  table.sort(sorted)
  local middle = #sorted // 2
  local median = sorted[middle + 1]
  if #sorted % 2 == 0 then median = (sorted[middle] + median) / 2 end
  return { median = median, least = sorted[1], most = sorted[#sorted] }
end

-- ---- the table ----

local function print_cells(...)
  local cells = { ... }
  for index, width in ipairs(WIDTHS) do cells[index] = ("%-" .. width .. "s"):format(cells[index] or "") end
  print((table.concat(cells, "  "):gsub("%s+$", "")))
end

local function number_text(row, value)
  return ("%." .. (row.digits or 0) .. "f"):format(value)
end

local function spread_text(row, values)
  local s = harness.summary(values)
  local median, least, most = number_text(row, s.median), number_text(row, s.least), number_text(row, s.most)
  return ("%s %s [%s-%s]"):format(median, row.unit, least, most)
end

local function bar_text(row)
  return ("%s %g %s"):format(row.better == "less" and "<=" or ">=", row.bar, row.unit)
end

local function verdict(holds)
  return holds and "ok" or "below"
end

-- How many times better ours was than the peer, round by round: what disturbs one disturbs both.
local function ratios_of(row, ours, theirs)
  local ratios = {}
  for round = 1, #ours do
    ratios[round] = row.better == "less" and theirs[round] / ours[round] or ours[round] / theirs[round]
  end
  return ratios
end

local function print_ours(row, ours)
  local cells = { row.label, spread_text(row, ours), "", "", "", "" }
  if row.bar then
    local median, bar = harness.summary(ours).median, row.bar
    cells[3] = bar_text(row)
    cells[6] = verdict(median == bar or (median < bar) == (row.better == "less"))
  end
  print_cells(table.unpack(cells))
end

local function print_peer(row, ours, peer, theirs)
  if peer.missing then
    print_cells("", "", "", ("%s: %s"):format(peer.name, peer.missing))
    return
  end
  local wanted = row.ratios and row.ratios[peer.name]
  local ratio = harness.summary(ratios_of(row, ours, theirs)).median
  print_cells("", "", wanted and (">= %.3g x"):format(wanted) or "",
    ("%s: %s"):format(peer.name, spread_text(row, theirs)), ("%.2f"):format(ratio),
    wanted and verdict(ratio >= wanted) or "")
end

---Prints the line above the table.
function harness.heading()
  print_cells("figure", "ours: median [least-most]", "bar", "peer: median [least-most]", "ratio", "")
end

-- ---- rounds ----

local function run_rounds(contestants, rounds)
  local samples = {}
  for index in ipairs(contestants) do samples[index] = {} end
  for round = 1, rounds do
    for index, contestant in ipairs(contestants) do
      task.sleep(0) -- Ctrl-C arrives here
      if not contestant.missing then
        for key, value in pairs(contestant.run()) do
          local values = samples[index][key] or {}
          values[round], samples[index][key] = value, values
        end
      end
    end
  end
  return samples
end

local function print_row(row, contestants, samples)
  local ours = samples[1][row.key]
  print_ours(row, ours)
  for index = 2, #contestants do
    local theirs = samples[index][row.key]
    if theirs or contestants[index].missing then print_peer(row, ours, contestants[index], theirs) end
  end
end

local closing = {
  __close = function(contestants) if contestants.close then contestants.close() end end,
}

---Measures a figure and prints its rows.
---@param figure table
---@param bench table what figures are opened with
function harness.run(figure, bench)
  local contestants <close> = setmetatable(figure.open(bench), closing)
  if contestants[1].missing then
    print_cells(figure.name, contestants[1].missing)
    return
  end
  local samples = run_rounds(contestants, bench.rounds)
  for _, row in ipairs(figure.rows) do print_row(row, contestants, samples) end
  io.stdout:flush()
end

return harness
