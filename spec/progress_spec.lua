-- SPDX-License-Identifier: MIT
-- sluice.progress: what a bar looks like, when it is drawn, and that other output stays whole.

local progress = require "sluice.progress"
local render = require "sluice.progress.render"
local task = require "sluice.task"

local function simulated(f)
  return function() return task.simulate(f) end
end

local function state(fields)
  local made = {
    label = "batch", unit = "rows", total = 200, done = 83, ok = 80, failed = 3, started = 0, rate = 12.34,
  }
  for name, value in pairs(fields or {}) do
    if value == "none" then made[name] = nil else made[name] = value end
  end
  return made
end

describe("a rendered line", function()
  it("says all there is where there is room", function()
    assert.equal("batch  41% [################------------------------] 83/200 rows "
      .. "12.3 rows/s ETA 0:09 ok 80 failed 3", render.line(state(), 124, 7, {}))
    assert.equal("batch  41% [###########----------------] 83/200 rows "
      .. "12.3 rows/s ETA 0:09 ok 80 failed 3 model llama",
      render.line(state { fields = { { "model", "llama" } } }, 100, 7, {}))
  end)

  it("is never wider than its room", function()
    local fields = { { "model", "llama" }, { "tokens", "12k" } }
    local labels = { "batch", "none", ("long "):rep(40), "日本語のとても長いラベル", "\255\254", "" }
    for _, label in ipairs(labels) do
      for _, total in ipairs { 200, "none" } do
        for columns = 1, 160 do
          local shown = state { label = render.plain(label), total = total, fields = fields }
          local line = render.line(shown, columns, 7, { unicode = true })
          assert.is_true(render.width(line) <= columns, columns .. ": " .. line)
        end
      end
    end
  end)

  it("loses first what matters least", function()
    local function line(columns) return render.line(state(), columns, 7, {}) end
    assert.equal("batch  41% [####------] 83/200 rows ETA 0:09 ok 80 failed 3", line(59))
    assert.equal("batch  41% 83/200 rows ETA 0:09 ok 80 failed 3", line(50))
    assert.equal("batch  41% 83/200 rows ETA 0:09 failed 3", line(40))
    assert.equal("batch  41% 83/200 rows failed 3", line(35))
    assert.equal("batch  41% 83/200 rows", line(22))
    assert.equal("batch  41%", line(15))
  end)

  it("cuts a long label before it drops figures", function()
    local line = render.line(state { label = ("x"):rep(100) }, 79, 7, {})
    assert.is_truthy(line:find("^x+  41%% .*83/200 rows .*ETA 0:09 ok 80 failed 3$"), line)
  end)

  it("says 100 % only when all is done, and no more than that", function()
    assert.is_truthy(render.line(state { done = 199.99 }, 80, 7, {}):find(" 99%% "))
    assert.is_truthy(render.line(state { done = 200 }, 80, 7, {}):find("100%% %[#+%] 200/200 rows"))
    assert.is_truthy(render.line(state { done = 210 }, 80, 7, {}):find("100%% %[#+%] 210/200 rows"))
    assert.is_truthy(render.line(state { done = 0, total = 0 }, 80, 7, {}):find("100%% %[#+%] 0/0 rows"))
    assert.is_truthy(render.line(state { done = 0 }, 80, 0, {}):find("  0%% %[%-+%] 0/200 rows"))
  end)

  it("draws eighths of a cell where the terminal shows them, and ASCII elsewhere", function()
    local eighths = render.line(state { total = 80, done = 41 }, 200, 7, { unicode = true })
    assert.is_truthy(eighths:find("│" .. ("█"):rep(20) .. "▌" .. (" "):rep(19) .. "│", 1, true), eighths)
    local ascii = render.line(state(), 200, 7, { color = true })
    assert.is_nil(ascii:find("[\128-\255]"))
  end)

  it("colours only where it is told to, outside of the width", function()
    assert.is_nil(render.line(state(), 100, 7, {}):find("\27"))
    local line = render.line(state(), 100, 7, { color = true })
    assert.is_truthy(line:find("\27[31mfailed 3\27[0m", 1, true))
    assert.equal(render.line(state(), 100, 7, {}), (line:gsub("\27%[%d*m", "")))
    assert.is_nil(render.line(state { failed = 0 }, 100, 7, { color = true }):find("\27[31m", 1, true))
  end)

  it("shows a count, a rate and the time where the total is unknown", function()
    assert.equal("batch 83 rows 12.3 rows/s 1:15 ok 80 failed 3",
      render.line(state { total = "none" }, 80, 75, {}))
  end)

  it("says the same in plain words", function()
    assert.equal("batch: 83/200 rows (41%), 12.3 rows/s, ETA 0:09, ok 80, failed 3, model llama",
      render.plain_line(state { fields = { { "model", "llama" } } }, 7))
  end)

  it("gives the time that is left at this rate", function()
    local function remaining(fields, now) return render.remaining(state(fields), now) end
    assert.equal(9.75, remaining({ rate = 12, done = 83 }, 7))
    assert.equal(117 * 10 / 83, remaining({ rate = "none" }, 10)) -- the average
    assert.equal(150 * 10 / 50, remaining({ rate = "none", initial = 0, done = 50 }, 10))
    assert.equal(100 * 10 / 50, remaining({ rate = "none", initial = 50, done = 100 }, 10))
    assert.equal(0, remaining({ done = 200 }, 7))
    assert.is_nil(remaining({ rate = 0 }, 7))
    assert.is_nil(remaining({ rate = "none", done = 0 }, 0))
    assert.is_nil(remaining({ total = "none" }, 7))
  end)

  it("writes times and rates as people read them", function()
    assert.equal("0:00", render.duration(0))
    assert.equal("1:00", render.duration(59.6))
    assert.equal("12:34", render.duration(754))
    assert.equal("1:02:03", render.duration(3723))
    assert.equal("-:--", render.duration(math.huge))
    assert.equal("-:--", render.duration(0 / 0))
    for rate, text in pairs { [0.05] = "3.00 rows/min", [1.234] = "1.23 rows/s", [1234.5] = "1234 rows/s" } do
      assert.is_truthy(render.line(state { rate = rate }, 120, 7, {}):find(text, 1, true), text)
    end
  end)

  it("lets no text move the cursor", function()
    assert.equal("a b c", render.plain("a\27\r\nb\tc"))
    assert.equal("é 31m", render.plain("é\xC2\x9B31m"))
    assert.equal("a??b", render.plain("a\xFF\xFEb")) -- so that every text has a width
  end)

  it("cuts at the end of a character", function()
    assert.equal("日", render.cut("日本", 3))
    assert.equal("日本", render.cut("日本", 4))
    assert.equal("ab", render.cut("ab\255", 2))
    assert.equal("", render.cut("ab", 0))
  end)
end)

-- A terminal of so many columns: rows of text, a cursor, and the control sequences that progress uses.
local function screen(columns)
  local self = { rows = { "" }, at = 1, column = 1, writes = 0 }
  local function put(text)
    local row = self.rows[self.at]
    row = row .. (" "):rep(self.column - 1 - #row)
    self.rows[self.at] = row:sub(1, self.column - 1) .. text .. row:sub(self.column + #text)
    self.column = self.column + #text
    assert(#self.rows[self.at] < columns, "a row reached the last column: " .. self.rows[self.at])
  end
  local function erase(below)
    self.rows[self.at] = self.rows[self.at]:sub(1, self.column - 1)
    for index = #self.rows, below and self.at + 1 or math.huge, -1 do self.rows[index] = nil end
  end
  local function step(bytes, at)
    local escape, count, kind = bytes:match("^(\27%[(%d*)([AJK]))", at)
    if escape then
      if kind == "A" then self.at = self.at - tonumber(count) else erase(kind == "J") end
      return at + #escape
    end
    local char = bytes:sub(at, at)
    if char == "\r" then
      self.column = 1
    elseif char == "\n" then
      self.at, self.column = self.at + 1, 1 -- as a terminal driver maps it
      self.rows[self.at] = self.rows[self.at] or ""
    else
      local text = bytes:match("^[^\27\r\n]+", at)
      put(text)
      return at + #text
    end
    return at + 1
  end
  function self.write(bytes)
    self.writes = self.writes + 1
    local at = 1
    while at <= #bytes do at = step(bytes, at) end
  end
  function self.size() return columns, 24 end
  return self
end

local function recorder()
  local self = { text = "" }
  function self.write(bytes) self.text = self.text .. bytes end
  return self
end

describe("a bar on a terminal", function()
  it("is drawn at once, at most each 0.1 s, and leaves a last line", simulated(function()
    local output = screen(60)
    local bar = progress.bar { total = 1000, label = "work", output = output }
    assert.is_truthy(output.rows[1]:find("^work   0%% %[%-+%] 0/1000 ETA %-:%-%-$"), output.rows[1])
    for _ = 1, 1000 do
      task.sleep(0.001)
      bar:add()
    end
    assert.is_true(output.writes >= 9 and output.writes <= 12, output.writes .. " writes")
    bar:close()
    assert.equal(2, #output.rows)
    assert.is_truthy(output.rows[1]:find("^work 100%% %[#+%] 1000/1000 1000/s in 0:01$"), output.rows[1])
    assert.equal("", output.rows[2])
  end))

  it("shows figures and texts that were set, and drops those set to false", simulated(function()
    local output = screen(100)
    local bar <close> = progress.bar { total = 10, interval = 0, output = output }
    bar:set { done = 5, ok = 4, failed = 1, model = "llama\27[31m", try = 2 }
    assert.is_truthy(output.rows[1]:find("5/10 ETA %S+ ok 4 failed 1 model llama %[31m try 2$"),
      output.rows[1])
    bar:set { model = false, label = "late", total = 20, unit = "rows" }
    assert.is_truthy(output.rows[1]:find("^late  25%% %S+ 5/20 rows .*failed 1 try 2$"), output.rows[1])
  end))

  it("is closed by its scope, once, and counts no more then", simulated(function()
    local output, kept = screen(80), nil
    pcall(function()
      local bar <close> = progress.bar { total = 4, output = output }
      kept = bar
      bar:add(2)
      error "stop"
    end)
    assert.is_truthy(output.rows[1]:find(" 50%% .* in 0:00$"), output.rows[1])
    local before = output.writes
    task.sleep(1)
    kept:close()
    kept:add()
    kept:set { done = 4 }
    assert.equal(before, output.writes)
  end))

  it("follows the width of the terminal", simulated(function()
    local output, columns = screen(120), 120
    function output.size() return columns, 24 end
    local bar <close> = progress.bar { total = 10, label = "work", interval = 0, output = output }
    bar:add()
    local wide = #output.rows[1]
    columns = 30
    bar:add()
    assert.is_true(wide > 60 and #output.rows[1] < 30, output.rows[1])
  end))

  it("shares the screen with other bars", simulated(function()
    local output = screen(60)
    local first = progress.bar { total = 10, label = "first", interval = 0, output = output }
    local second = progress.bar { total = 10, label = "second", interval = 0, output = output }
    first:add(5)
    second:add(2)
    assert.equal(2, #output.rows)
    assert.is_truthy(output.rows[1]:find("^first  50%%"))
    assert.is_truthy(output.rows[2]:find("^second  20%%"))
    first:close()
    assert.is_truthy(output.rows[1]:find("^first  50%% .* in 0:00$"))
    assert.is_truthy(output.rows[2]:find("^second  20%%"))
    second:close()
    assert.equal(3, #output.rows)
  end))

  it("hands its rows to a screen that lays out itself, and is not suspended there", simulated(function()
    local ROW <const> = "a   0% [-----------------] 0/4 ETA -:--"
    local shown = {}
    progress.set_output {
      write = function() error "written" end,
      show = function(above, rows) shown[#shown + 1] = { above, table.unpack(rows) } end,
      size = function() return 40, 10 end,
    }
    local first <close> = progress.bar { total = 4, label = "a" }
    local second = progress.status { label = "b" }
    local resume = progress.suspend()
    second:set "text"
    resume()
    second:close()
    progress.write "said"
    progress.set_output(nil)
    first:close()
    shown[5] = nil
    assert.same({
      { "", ROW },
      { "", ROW, "b: text 0:00" },
      { "b: text in 0:00\r\n", ROW },
      { "said\n", ROW },
    }, shown)
  end))

  it("leaves the screen to others and comes back", simulated(function()
    local output = screen(60)
    local bar = progress.bar { total = 10, label = "work", interval = 0, output = output }
    local resume, again = progress.suspend(), progress.suspend()
    assert.same({ "" }, output.rows)
    bar:add(3)
    output.write "a line of another\n"
    assert.same({ "a line of another", "" }, output.rows)
    resume()
    resume()
    assert.equal("", output.rows[2])
    again()
    assert.is_truthy(output.rows[2]:find("^work  30%%"))
    bar:close()
    assert.equal("a line of another", output.rows[1])
    assert.is_truthy(output.rows[2]:find("^work  30%% .* in 0:00$"))
  end))
end)

describe("the rate of a bar", function()
  local function rate_after(samples)
    local rate
    simulated(function()
      local output = screen(100)
      local bar <close> = progress.bar { output = output, interval = 0 }
      for _, one in ipairs(samples) do
        task.sleep(one[1])
        bar:add(one[2])
      end
      rate = tonumber(output.rows[1]:match("^%S+ (%S+)/s"))
    end)()
    return rate
  end

  it("is units by seconds", function()
    assert.equal(5, rate_after { { 1, 5 } })
    assert.equal(2, rate_after { { 10, 20 }, { 1, 2 }, { 0.5, 1 } })
  end)

  it("follows the newest sample with a weight of 0.3", function()
    -- 10 units in 1 s, then 20 in 1 s: 0.3 * 20 + 0.7 * 10 = 13
    assert.equal(13, rate_after { { 1, 10 }, { 1, 20 } })
    -- 10 in 1 s, then 1 in 5 s: (0.3 * 1 + 0.7 * 10) / (0.3 * 5 + 0.7 * 1) = 7.3 / 2.2
    assert.equal(3.32, rate_after { { 1, 10 }, { 5, 1 } })
  end)

  it("takes adds that come together as one sample", function()
    -- 1 in 1 s, then 9 in 1 s: 0.3 * 9 + 0.7 * 1
    assert.equal(3.4, rate_after { { 1, 1 }, { 0, 3 }, { 0.05, 4 }, { 0.95, 2 } })
  end)

  it("does not count what was done before", simulated(function()
    local output = recorder()
    local bar = progress.bar { total = 1000, done = 900, output = output }
    task.sleep(10)
    bar:add(50)
    bar:close()
    assert.equal("950/1000 (95%), 5.00/s, ETA 0:10\n950/1000 (95%), 5.00/s, in 0:10\n", output.text)
  end))

  it("starts anew when the count goes back", simulated(function()
    local output = recorder()
    local bar <close> = progress.bar { output = output, interval = 0 }
    task.sleep(1)
    bar:add(10)
    task.sleep(1)
    bar:set { done = 0 }
    task.sleep(1)
    bar:add(3)
    assert.equal("10, 10.0/s, 0:01\n0, 0.00/s, 0:02\n3, 3.00/s, 0:03\n", output.text)
  end))
end)

describe("a bar that is not on a terminal", function()
  it("writes a line each 10 s, and one at the end", simulated(function()
    local output = recorder()
    local bar = progress.bar { label = "work", unit = "rows", output = output }
    for _ = 1, 100 do
      task.sleep(0.25)
      bar:add()
    end
    assert.equal("work: 40 rows, 4.00 rows/s, 0:10\nwork: 80 rows, 4.00 rows/s, 0:20\n", output.text)
    bar:set { ok = 99, failed = 1, model = "llama" }
    bar:close()
    assert.equal("work: 100 rows, 4.00 rows/s, in 0:25, ok 99, failed 1, model llama\n",
      output.text:match("([^\n]*\n)$"))
  end))

  it("writes a line at each tenth, but not more than one a second", simulated(function()
    local output = recorder()
    local bar = progress.bar { total = 40, output = output }
    for _ = 1, 40 do
      task.sleep(0.5)
      bar:add()
    end
    local percents = {}
    for percent in output.text:gmatch("%((%d+)%%%)") do percents[#percents + 1] = tonumber(percent) end
    assert.same({ 10, 20, 30, 40, 50, 60, 70, 80, 90, 100 }, percents)
    bar:close()

    output = recorder()
    bar = progress.bar { total = 40, output = output }
    for _ = 1, 40 do
      task.sleep(0.01)
      bar:add()
    end
    assert.equal("", output.text)
    bar:close()
    assert.is_truthy(output.text:find("^40/40 %(100%%%), 100[%d.]*/s, in 0:00\n$"), output.text)
  end))

  it("keeps to the interval it is given", simulated(function()
    local output = recorder()
    local bar <close> = progress.bar { total = 100, interval = 5, output = output }
    for _ = 1, 20 do
      task.sleep(1)
      bar:add(5)
    end
    assert.equal(4, select(2, output.text:gsub("\n", "")))
  end))
end)

describe("a status line", function()
  it("is a row of a terminal with the time, above it what was written", simulated(function()
    local output = screen(40)
    local status = progress.status { label = "large", output = output }
    status:set "NOT_READY"
    assert.equal("large: NOT_READY 0:00", output.rows[1])
    task.sleep(65)
    status:set()
    assert.equal("large: NOT_READY 1:05", output.rows[1])
    status:set("x\27" .. ("y"):rep(100))
    assert.equal("large: x " .. ("y"):rep(25) .. " 1:05", output.rows[1])
    status:set "READY"
    status:close()
    status:close()
    status:set "late"
    assert.same({ "large: READY in 1:05", "" }, output.rows)
    assert.equal("sluice.progress.status: large: READY, in 1:05", tostring(status))
  end))

  it("is a line at each change elsewhere", simulated(function()
    local output = recorder()
    do
      local status <close> = progress.status { output = output }
      status:set "a"
      task.sleep(3)
      status:set "a"
      status:set()
      status:set "b"
    end
    assert.equal("a, 0:00\nb, 0:03\n", output.text)
  end))

  it("refuses what is no text", simulated(function()
    local status <close> = progress.status { output = recorder() }
    local ok, message = pcall(status.set, status, 1)
    assert.is_false(ok)
    assert.matches('status:set: argument "text" must be a string', message, 1, true)
  end))
end)

describe("misuse of a bar", function()
  it("raises at the caller, naming the option", function()
    local function message(f, ...)
      local ok, text = pcall(f, ...)
      assert.is_false(ok)
      return text
    end
    local bar <close> = progress.bar { output = recorder() }
    assert.is_truthy(message(function() progress.bar { totl = 5 } end):find(
      'spec/progress_spec%.lua:%d+: progress%.bar: unknown option "totl" %(did you mean "total"%?%)'))
    assert.is_truthy(message(function() progress.bar { total = "5" } end):find(
      '"total" must be a number', 1, true))
    assert.is_truthy(message(function() bar:add("x") end):find("^%S*spec/progress_spec%.lua:%d+: bar:add"))
    assert.is_truthy(message(function() bar:set { ok = "x" } end):find(
      '^%S*spec/progress_spec%.lua:%d+: bar:set: "ok" must be a number, got string'))
    assert.is_truthy(message(function() bar:set { model = {} } end):find(
      "a string, a number, or false", 1, true))
    assert.is_truthy(message(function() bar:set { "x" } end):find("given by name", 1, true))
    assert.is_truthy(message(function() progress.write(nil) end):find("progress.write", 1, true))
  end)
end)

-- ---- real terminals ----

-- The program that runs these specs.
local function this_program()
  local pipe <close> = assert(io.popen("readlink /proc/$PPID/exe"))
  return pipe:read("l")
end

local function output_of(command)
  local pipe <close> = assert(io.popen(command))
  return pipe:read("a")
end

local folder

local function script_file(text)
  local path = folder .. "/script.lua"
  local file <close> = assert(io.open(path, "w"))
  file:write(text)
  return path
end

local SCRIPT <const> = [[
local progress = require "sluice.progress"
local bar = progress.bar { total = 4, label = "work", interval = 0 }
for index = 1, 4 do
  if os.getenv "STEP_BY_STEP" then io.stdin:read("l") end
  bar:add()
  progress.write("log line " .. index)
end
if os.getenv "STEP_BY_STEP" then io.stdin:read("l") end
bar:close()
print("done")
]]

describe("on real descriptors", function()
  before_each(function()
    folder = output_of("mktemp -d"):match("[^\n]+")
  end)

  after_each(function()
    os.execute("rm -r '" .. folder .. "'")
  end)

  local function run(environment, shell_format)
    local command = environment .. " '" .. this_program() .. "' '" .. script_file(SCRIPT) .. "'"
    return output_of(shell_format:format(command))
  end

  it("writes plain lines into a pipe, on standard error only", function()
    local text = run("TERM=xterm", "%s 2>&1 >/dev/null")
    text = text:gsub("work: %d/4[^\n]*, ETA [^\n]*\n", "")
    assert.is_truthy(text:find(
      "^log line 1\nlog line 2\nlog line 3\nlog line 4\nwork: 4/4 %(100%%%), [^\n]+\n$"), text)
    assert.is_nil(text:find("\27"))
    assert.equal("done\n", run("TERM=xterm", "%s 2>/dev/null"))
  end)

  it("draws on a terminal, in UTF-8 and colours where it may", function()
    local text = run("TERM=xterm LC_ALL=C.UTF-8", 'script -qec "%s" /dev/null')
    for _, wanted in ipairs { "\27[J", "█", "\27[32m" } do
      assert.is_truthy(text:find(wanted, 1, true), text)
    end
    text = run("TERM=xterm LC_ALL=C NO_COLOR=1", 'script -qec "%s" /dev/null')
    assert.is_truthy(text:find("[#", 1, true), text)
    assert.is_nil(text:find("\27%[%d*m"))
    assert.is_nil(text:find("[\128-\255]"))
  end)

  it("writes plain lines on a terminal that can do nothing", function()
    local text = run("TERM=dumb", 'script -qec "%s" /dev/null')
    assert.is_nil(text:find("\27"))
    assert.is_truthy(text:find("work: 4/4", 1, true), text)
  end)

  describe("in tmux", function()
    local function tmux(arguments)
      return output_of(("tmux -L '%s' -f /dev/null %s"):format(folder:match("[^/]+$"), arguments))
    end

    local function shown()
      return (tmux("capture-pane -p"):gsub("%s+$", ""))
    end

    local function wait_for(pattern)
      local text
      for _ = 1, 250 do
        text = shown()
        if text:find(pattern) then return text end
        os.execute("sleep 0.02")
      end
      error("no " .. pattern .. " in:\n" .. text)
    end

    -- tmux tells the program up to 0.25 s later.
    local function resize(columns, rows)
      tmux(("resize-window -x %d -y %d"):format(columns, rows))
      local terminal = tmux("display-message -p '#{pane_tty}'"):match("[^\n]+")
      for _ = 1, 250 do
        if output_of("stty size < " .. terminal) == rows .. " " .. columns .. "\n" then return end
        os.execute("sleep 0.02")
      end
      error("the window has not been resized")
    end

    after_each(function() tmux("kill-server 2>/dev/null") end)

    -- The screen is full at the start, so that the bar is its last row, as it mostly is.
    it("keeps log lines above the bar while the window changes its size", function()
      local command = ("stty -echo; seq 20; STEP_BY_STEP=1 LC_ALL=C.UTF-8 '%s' '%s'; cat"):format(
        this_program(), script_file(SCRIPT))
      tmux(('new-session -d -x 100 -y 12 "%s"'):format(command))
      wait_for("20\nwork   0%%")
      tmux("send-keys Enter")
      wait_for("20\nlog line 1\nwork  25%% │[^\n]+│ 1/4")
      resize(40, 12)
      tmux("send-keys Enter")
      wait_for("20\nlog line 1\nlog line 2\nwork  50%%[^\n]+$")
      resize(120, 8)
      tmux("send-keys Enter")
      wait_for("20\nlog line 1\nlog line 2\nlog line 3\nwork  75%% │[^\n]+│ 3/4[^\n]+$")
      tmux("send-keys Enter")
      wait_for("log line 4\nwork 100%%")
      tmux("send-keys Enter")
      wait_for("20\nlog line 1\nlog line 2\nlog line 3\nlog line 4\nwork 100%% │[^\n]+│ 4/4 [^\n]+\ndone$")
      assert.is_truthy(shown():find(("█"):rep(40), 1, true))
    end)
  end)
end)
