-- SPDX-License-Identifier: MIT
-- The figures of `sluice top` as lines of text.

local view = {}

local SCALES <const> = { { 1e9, "G" }, { 1e6, "M" }, { 1e3, "k" } }

-- 0.25, 12.3, 456, 7.8k: three digits tell enough.
local function number(value)
  if not value then return "-" end
  if value ~= value or value == math.huge then return "?" end
  for _, scale in ipairs(SCALES) do
    if value >= scale[1] * 0.9995 then return number(value / scale[1]) .. scale[2] end
  end
  if value >= 99.95 or value == value // 1 then return ("%.0f"):format(value) end
  return value >= 9.995 and ("%.1f"):format(value) or ("%.2f"):format(value)
end

local function time(seconds)
  if not seconds then return "-" end
  if seconds >= 100 then return ("%.0fs"):format(seconds) end
  if seconds >= 0.9995 then return number(seconds) .. "s" end
  return number(seconds * 1e3) .. "ms"
end

local function span(seconds)
  seconds = math.max(0, seconds // 1 | 0)
  local hours, minutes = seconds // 3600, seconds % 3600 // 60
  if hours >= 24 then return ("%dd %02d:%02d"):format(hours // 24, hours % 24, minutes) end
  return ("%d:%02d:%02d"):format(hours, minutes, seconds % 60)
end

local function bytes(value)
  return value and ("%.1f MB"):format(value / (1 << 20)) or "-"
end

local function share(value)
  return value and ("%.0f%%"):format(value * 100) or "-"
end

-- What comes from another program may hold anything: nothing of it may move the cursor.
local function plain(text)
  if not utf8.len(text) then text = text:gsub("[\128-\255]", "?") end
  return (text:gsub("%c", "?"):gsub("\xC2[\x80-\x9F]", "?"))
end

-- Cut, or filled up, to so many characters.
local function fit(text, width, is_right)
  local length = utf8.len(text)
  if length > width then return text:sub(1, utf8.offset(text, width + 1) - 1) end
  local blanks = (" "):rep(width - length)
  return is_right and blanks .. text or text .. blanks
end

-- ---- the head ----

local function process_line(figures)
  local process, parts = figures.process, {}
  local function add(name, value) parts[#parts + 1] = value and name .. " " .. value or nil end
  add("up", process.uptime and span(process.uptime))
  add("cpu", process.cpu and share(process.cpu))
  add("memory", process.memory and bytes(process.memory))
  add("tasks", process.tasks and number(process.tasks))
  add("connections", process.connections and number(process.connections))
  add("loop lag", process.lag and time(process.lag))
  add("waiting", process.waiting and process.waiting > 0 and number(process.waiting))
  add("retries left", process.retry_left and number(process.retry_left))
  return table.concat(parts, "   ")
end

-- ---- tables ----

local NAME_WIDTH <const>, LEAST_NAME <const> = 24, 8

-- The most important first: on a narrow screen the last ones are left out.
local COLUMNS <const> = {
  { "req/s", 7, function(row) return number(row.rate) end },
  { "err/s", 7, function(row) return number(row.failed) end, function(row) return row.failed > 0 end },
  { "p50", 7, function(row) return time(row.p50) end },
  { "p99", 7, function(row) return time(row.p99) end },
  { "active", 7, function(row) return number(row.active) end },
  { "first", 7, function(row) return time(row.first) end },
  { "gap p99", 8, function(row) return time(row.gap) end },
  { "tok/s", 7, function(row) return number(row.output) end },
  { "retry/s", 8, function(row) return number(row.retries) end },
  { "left/s", 7, function(row) return number(row.aborted) end },
  { "cached", 7, function(row) return share(row.hits) end },
  { "breaker", 10, function(row) return row.breaker or "-" end,
    function(row) return row.breaker ~= nil and row.breaker ~= "closed" end },
}

local function columns_that_fit(width)
  local used, fitting = LEAST_NAME, {}
  for index, column in ipairs(COLUMNS) do
    used = used + column[2]
    if used > width then break end
    fitting[index] = column
  end
  return fitting
end

local function add_endpoints(lines, figures, width, paint)
  local columns = columns_that_fit(width)
  local rest = width
  for _, column in ipairs(columns) do rest = rest - column[2] end
  local name_width = math.min(NAME_WIDTH, rest)
  local head = fit("endpoint", name_width)
  for _, column in ipairs(columns) do head = head .. fit(column[1], column[2], true) end
  lines[#lines + 1] = paint("bold", head)
  for _, row in ipairs(figures.endpoints) do
    local line = fit(plain(row.name), name_width)
    for _, column in ipairs(columns) do
      local cell = fit(column[3](row), column[2], true)
      line = line .. (column[4] and column[4](row) and paint("red", cell) or cell)
    end
    lines[#lines + 1] = line
  end
end

local function add_ranked(lines, title, rows, paint, color)
  if #rows == 0 then return end
  local total, parts = 0, {}
  for _, row in ipairs(rows) do total = total + row.value end
  for index, row in ipairs(rows) do
    parts[index] = ("%s %s/s (%s)"):format(plain(row.name), number(row.value), share(row.value / total))
  end
  lines[#lines + 1] = title .. paint(color, table.concat(parts, "   "))
end

local function add_batch(lines, batch, paint)
  local done = ("%.0f rows done"):format(batch.done)
  if batch.rows then
    done = done .. (" of %.0f (%s)"):format(batch.rows, share(batch.done / math.max(batch.rows, 1)))
  end
  local parts = { done, number(batch.rate) .. " rows/s" }
  local function add(text) parts[#parts + 1] = text end
  if batch.left then add("left " .. span(batch.left)) end
  if batch.busy then add(("at once %s/%s"):format(number(batch.busy), number(batch.limit))) end
  if batch.tokens and batch.tokens > 0 then add(number(batch.tokens) .. " tok/s") end
  if batch.retries and batch.retries > 0 then add(number(batch.retries) .. " retries") end
  if batch.paused and batch.paused > 0 then add(paint("red", "paused " .. time(batch.paused))) end
  if batch.failed > 0 then add(paint("red", ("%.0f failed"):format(batch.failed))) end
  lines[#lines + 1] = paint("bold", "batch") .. "   " .. table.concat(parts, "   ")
end

local function add_tasks(lines, figures, width, paint)
  if not figures.tasks_told then
    lines[#lines + 1] = "tasks are not told: there is no /debug/tasks for us"
    return
  end
  lines[#lines + 1] = paint("bold", fit(("%6s %8s  %s"):format("tasks", "oldest", "waiting for"), width))
  for _, row in ipairs(figures.waits) do
    local line = ("%6d %8s  %s"):format(row.count, time(row.oldest), plain(row.what))
    if type(row.name) == "string" then line = ("%s  (%s)"):format(line, plain(row.name)) end
    lines[#lines + 1] = fit(line, width)
  end
end

local COLORS <const> = { bold = "\27[1m", red = "\27[31m", dim = "\27[2m" }

local function painter(color)
  return function(name, text)
    return color and COLORS[name] .. text .. "\27[0m" or text
  end
end

local function compared_with(figures)
  return figures.is_total and "since its start" or ("in %s"):format(time(figures.seconds))
end

---The lines of a screen, without a character that could move the cursor, whatever the page said. Those of lists may be
---longer than the width: what shows them cuts them.
---@param figures table what figures.of gave
---@param given { url: string, width: integer, color: boolean, note?: string } `note`: what went wrong since
---@return string[]
function view.lines(figures, given)
  local width, paint = given.width, painter(given.color)
  local title = ("sluice top   %s   %s"):format(plain(given.url), compared_with(figures))
  local lines = { paint("bold", fit(title, width)), fit(process_line(figures), width) }
  if given.note then lines[#lines + 1] = paint("red", fit(plain(given.note), width)) end
  lines[#lines + 1] = ""
  if figures.batch then add_batch(lines, figures.batch, paint) end
  if #figures.endpoints > 0 then
    add_endpoints(lines, figures, width, paint)
  elseif not figures.batch then
    local text = "no requests are counted on this page (%d samples)"
    lines[#lines + 1] = fit(text:format(figures.samples), width)
  end
  add_ranked(lines, "errors     ", figures.errors, paint, "red")
  add_ranked(lines, "variants   ", figures.variants, paint, "dim")
  lines[#lines + 1] = ""
  add_tasks(lines, figures, width, paint)
  return lines
end

return view
